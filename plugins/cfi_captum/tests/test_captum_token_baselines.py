"""Tokens replaced by tokens: what takes their place, what is kept, and what captum gives for the same by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients, KernelShap, Occlusion, ShapleyValues
from torch import nn

import cfi_core as cfi

PAD, CLS, SEP, MASK_TOKEN, UNK = 0, 1, 2, 3, 4
TOKENS = torch.tensor([[1, 7, 8, 9, 2], [1, 5, 2, 0, 0], [1, 6, 3, 5, 2]])
MASK = (TOKENS > 0).long()
FRAME = (TOKENS < 3).numpy()


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.score = nn.Embedding(10, 6), nn.Linear(6, 4)
        self.double()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = 1 + torch.arange(input_ids.shape[1])[:, None]
        hidden = torch.tanh(self.table(input_ids) * places) * mask[..., None]
        return self.score(hidden.sum(1) + hidden.prod(1))

    def get_input_embeddings(self) -> nn.Module:
        return self.table


class Tokenizer:
    pad_token_id, cls_token_id, sep_token_id, mask_token_id, unk_token_id = PAD, CLS, SEP, MASK_TOKEN, UNK
    bos_token_id = eos_token_id = None
    all_special_ids = (0, 1, 2, 3, 4)
    words = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", "b", "c", "d", "e")

    def convert_ids_to_tokens(self, number: int) -> str:
        return self.words[number]

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.words.index(token) if token in self.words else UNK


class Bare:
    """As `tokenizers` has it: texts and numbers alone."""

    def id_to_token(self, number: int) -> str:
        return Tokenizer.words[number]

    def token_to_id(self, token: str) -> int | None:
        return Tokenizer.words.index(token) if token in Tokenizer.words else None


def make(**config: int) -> Text:
    torch.manual_seed(5)
    model = Text().eval()
    if config:
        model.config = SimpleNamespace(**config)
    return model


def explain(method: str = "feature_ablation", model: Any = None, tokens: Any = TOKENS, **arguments: Any) -> np.ndarray:
    inputs = {"input_ids": tokens, "attention_mask": MASK}
    arguments = {"target": 1, "feature_names": Tokenizer(), "seed": 0, **arguments}
    return cfi.attribute(model or make(), method, "captum", inputs=inputs, **arguments).values["input_ids"]


def by_hand(baseline: Any, explainer: Any = FeatureAblation, **arguments: Any) -> np.ndarray:
    found = explainer(make()).attribute(
        TOKENS, baselines=baseline, target=1, additional_forward_args=(MASK,), **arguments
    )
    return found.detach().numpy()


@pytest.mark.parametrize(
    ("given", "number"),
    [("pad", PAD), ("mask", MASK_TOKEN), ("unk", UNK), ("b", 6), ("[MASK]", MASK_TOKEN), (9, 9), (np.int64(9), 9)],
)
@pytest.mark.parametrize("tokenizer", [Tokenizer(), Bare(), SimpleNamespace(tokenizer=Tokenizer())])
def test_a_token_by_its_name_its_text_or_its_number(given, number, tokenizer):
    np.testing.assert_allclose(explain(baselines=given, feature_names=tokenizer), by_hand(number), rtol=1e-12)


def test_one_token_for_each_sample_and_each_place():
    each = torch.tensor([[3], [4], [9]])
    expected = by_hand(each.expand(3, 5))
    for given in (each, each[:, 0], [3, 4, 9]):
        np.testing.assert_allclose(explain(baselines=given), expected, rtol=1e-12)
    whole = torch.arange(15).reshape(3, 5) % 10
    np.testing.assert_allclose(explain(baselines=whole), by_hand(whole), rtol=1e-12)


def test_the_models_configuration_knows_tokens_too():
    model = make(pad_token_id=8, mask_token_id=None)
    np.testing.assert_allclose(explain(model=model, baselines="pad", feature_names=None), by_hand(8), rtol=1e-12)
    with pytest.raises(cfi.ArgumentError, match="The model's configuration knows no token 'mask'"):
        explain(model=model, baselines="mask", feature_names=None)
    with pytest.raises(cfi.ArgumentError, match="know no token 'house'"):  # the tokenizer gives that of the unknown
        explain(baselines="house")


KEEP = cfi.TokenBaseline("mask", keep=("special", "padding"))


@pytest.mark.parametrize(
    "method", ["feature_ablation", "shapley_value_sampling", "shapley_values", "occlusion", "lime", "kernel_shap"]
)
def test_what_is_kept_is_exactly_zero(method):
    more = {"sliding_window_shapes": (2,)} if method == "occlusion" else {}
    if method == "lime":
        from sklearn.linear_model import Ridge  # noqa: F401 - captum's surrogate

        more = {"n_samples": 60}
    values = explain(method, baselines=KEEP, exec_args=more)
    assert (values[FRAME] == 0).all()
    assert (values[~FRAME & (TOKENS.numpy() != MASK_TOKEN)] != 0).all() or method == "lime"


def test_the_rest_is_captums_own():
    kept = np.where(FRAME, TOKENS.numpy(), MASK_TOKEN)
    np.testing.assert_allclose(explain(baselines=KEEP), by_hand(torch.as_tensor(kept)), rtol=1e-12, atol=1e-15)
    at_window = explain("occlusion", baselines=KEEP, exec_args={"sliding_window_shapes": (1,)})
    expected = by_hand(torch.as_tensor(kept), Occlusion, sliding_window_shapes=(1,))
    np.testing.assert_allclose(at_window, expected, rtol=1e-12, atol=1e-15)
    exact = by_hand(torch.as_tensor(kept), ShapleyValues)  # of all five places: the kept ones are dummies
    np.testing.assert_allclose(explain("shapley_values", baselines=KEEP), exact, rtol=1e-5, atol=1e-6)


def test_kernel_shap_has_no_feature_for_what_is_kept():
    """With as many features as are left, all coalitions of the second sample (of one word) are known."""
    found = explain("kernel_shap", baselines=KEEP, exec_args={"n_samples": 200})
    exact = explain("shapley_values", baselines=KEEP)
    np.testing.assert_allclose(found.sum(1), exact.sum(1), rtol=1e-5)
    np.testing.assert_allclose(found, exact, atol=0.1 * np.abs(exact).max())
    assert isinstance(KernelShap(make()), KernelShap)


def test_gradients_go_from_the_vectors_of_the_tokens():
    kept = np.where(FRAME, TOKENS.numpy(), PAD)
    found = explain("integrated_gradients", baselines=cfi.TokenBaseline("pad", keep="special"))
    model = make()
    start, end = model.table(torch.as_tensor(kept)).detach(), model.table(TOKENS).detach()

    def of_vectors(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        places = 1 + torch.arange(5)[:, None]
        hidden = torch.tanh(vectors * places) * mask[..., None]
        return model.score(hidden.sum(1) + hidden.prod(1))

    expected = IntegratedGradients(of_vectors).attribute(end, start, target=1, additional_forward_args=(MASK,))
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-9, atol=1e-12)
    assert (found[FRAME & (TOKENS.numpy() > 0)] == 0).all()


def test_a_distribution_is_one_for_all_or_of_each_text():
    """Texts that keep different tokens are explained one by one, each against its own background."""
    found = explain("gradient_shap", baselines="pad")
    assert found.shape == (3, 5, 6)
    values = explain("gradient_shap", baselines=KEEP)
    assert (values[FRAME] == 0).all()
    for row in range(3):
        inputs = {"input_ids": TOKENS[row : row + 1], "attention_mask": MASK[row : row + 1]}
        baselines = torch.as_tensor(np.where(FRAME, TOKENS.numpy(), MASK_TOKEN)[row : row + 1])
        given = {"inputs": inputs, "baselines": baselines, "target": 1, "seed": 0}
        alone = cfi.attribute(make(), "gradient_shap", "captum", **given).values["input_ids"]
        np.testing.assert_allclose(values[row], alone[0], rtol=1e-9, atol=1e-12)


def test_padding_is_what_the_mask_or_the_tokenizer_says():
    baseline = cfi.TokenBaseline("mask", keep="padding")
    expected = by_hand(torch.where(TOKENS == PAD, TOKENS, MASK_TOKEN))
    np.testing.assert_allclose(explain(baselines=baseline), expected, rtol=1e-12, atol=1e-15)
    bare = explain(baselines=cfi.TokenBaseline(3, keep="padding"), feature_names=None)
    np.testing.assert_allclose(bare, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"baselines": 10}, cfi.InputError, "baselines hold the token 10, and the model's vocabulary goes from 0 to 9"),
        ({"baselines": -1}, cfi.InputError, "baselines hold the token -1"),
        ({"tokens": TOKENS + 4, "feature_names": None}, cfi.InputError, "inputs hold the token 13"),
        (
            {"baselines": cfi.TokenBaseline("pad", keep="special"), "feature_names": None},
            cfi.ArgumentError,
            "no token 'pad'",
        ),
        (
            {"baselines": cfi.TokenBaseline(0, keep="special"), "feature_names": None},
            cfi.ArgumentError,
            "Which tokens are special",
        ),
        ({"tokens": TOKENS * 0 + 1, "baselines": KEEP}, cfi.ArgumentError, "All tokens of sample 0 would be kept"),
        ({"method": "feature_permutation", "baselines": "pad"}, cfi.ArgumentError, "takes no 'baselines'"),
    ],
)
def test_refusals(arguments, error, said):
    with pytest.raises(error, match=said):
        explain(**arguments)


def test_what_a_token_baseline_is_made_of():
    with pytest.raises(cfi.ArgumentError, match="keep='words' is neither 'special' nor 'padding'"):
        cfi.TokenBaseline("pad", keep="words")
    with pytest.raises(cfi.ArgumentError, match=r"not 0\.5"):
        cfi.TokenBaseline(0.5)
    with pytest.raises(cfi.ArgumentError, match="is for tokens"):
        cfi.attribute(
            nn.Linear(3, 1).eval(), "feature_ablation", "captum", inputs=np.zeros((2, 3)), target=0, baselines="pad"
        )


def test_a_model_that_does_not_say_how_many_tokens_it_knows_is_tried():
    class Plain(Text):
        get_input_embeddings = None

    torch.manual_seed(5)
    model = Plain().eval()
    for method in ("feature_ablation", "integrated_gradients"):
        with pytest.raises(cfi.InputError, match="baselines are no tokens of the model"):
            explain(method, model, baselines=99)
    with pytest.raises(cfi.InputError, match="from 5 to 14: if they are tokens, one is not in the vocabulary"):
        explain(model=model, tokens=TOKENS % 5 + 5 + 5 * (TOKENS > 8), feature_names=None)
