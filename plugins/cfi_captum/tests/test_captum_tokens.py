"""Tokens: methods that differentiate them go to the output of the embedding, by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients
from torch import nn

import cfi_core as cfi

TOKENS = torch.tensor([[4, 7, 7, 2, 9], [5, 3, 8, 0, 0], [1, 6, 2, 4, 0]])
MASK = (TOKENS > 0).long()


class Text(nn.Module):
    """Attention over embedded tokens; with `tied`, the table of the tokens also makes the outputs."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(10, 6), nn.Embedding(5, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.score = nn.Linear(6, 4)
        self.tied = tied
        self.double()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        hidden = self.tokens(input_ids) + self.places(places)
        hidden = hidden + self.attention(hidden, hidden, hidden, key_padding_mask=mask == 0)[0]
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        if self.tied:
            return torch.tanh(pooled) @ self.tokens(torch.arange(10)).T
        return self.score(torch.tanh(pooled))


def make(**arguments: Any) -> Text:
    torch.manual_seed(3)
    return Text(**arguments).eval()


def by_hand(model: Text, target: int) -> np.ndarray:
    """The gradient at the vectors of the tokens, in autograd."""
    vectors = model.tokens(TOKENS).detach().requires_grad_()
    plain, model.tokens.forward = model.tokens.forward, lambda given: vectors if given is TOKENS else plain(given)
    model(TOKENS, MASK)[:, target].sum().backward()
    del model.tokens.forward
    return vectors.grad.numpy()


@pytest.mark.parametrize("tied", [False, True])
def test_saliency_is_the_gradient_at_the_embedding(tied):
    model = make(tied=tied)
    found = cfi.attribute(
        model,
        "saliency",
        "captum",
        inputs={"input_ids": TOKENS, "attention_mask": MASK},
        target=2,
        exec_args={"abs": False},
    )
    np.testing.assert_allclose(found.values["input_ids"], by_hand(model, 2), rtol=1e-9, atol=1e-12)
    assert found.provenance["inputs"] == "the output of layer 'tokens'"
    assert (found.values["input_ids"][MASK == 0] == 0).all()


@pytest.mark.parametrize("baseline", [None, 3, [[3, 4, 5, 6, 7]]])
def test_integrated_gradients_are_captums_own_of_the_layer(baseline):
    """Baselines that are tokens are embedded; without any, the vectors begin at zero."""
    model = make()
    found = cfi.attribute(
        model,
        "integrated_gradients",
        "captum",
        inputs={"attention_mask": MASK, "input_ids": TOKENS},
        baselines=baseline,
        target=1,
        exec_args={"n_steps": 30},
    )
    values = found.values["input_ids"]
    if baseline is None:
        start = torch.zeros(3, 5, 6, dtype=torch.double)
        expected = model(TOKENS, MASK)[:, 1] - outputs_from(model, start)[:, 1]
        np.testing.assert_allclose(values.sum((1, 2)), expected.detach(), atol=2e-3)
        return
    tokens = torch.as_tensor(baseline).expand_as(TOKENS)
    own = LayerIntegratedGradients(model, model.tokens).attribute(
        TOKENS, tokens, target=1, additional_forward_args=(MASK,), n_steps=30
    )
    np.testing.assert_allclose(values, own.detach(), rtol=1e-9, atol=1e-12)


def outputs_from(model: Text, vectors: torch.Tensor) -> torch.Tensor:
    handle = model.tokens.register_forward_hook(lambda *_: vectors)
    try:
        return model(TOKENS, MASK)
    finally:
        handle.remove()


def test_a_distribution_of_baselines_is_of_tokens():
    found = cfi.attribute(
        make(), "gradient_shap", "captum", inputs={"input_ids": TOKENS}, baselines=[[3] * 5, [4] * 5], target=1, seed=0
    )
    assert found.values["input_ids"].shape == (3, 5, 6)


def test_an_array_of_tokens_needs_no_name():
    model = make()
    plain = cfi.attribute(model, "input_x_gradient", "captum", inputs=TOKENS, target=1)
    named = cfi.attribute(model, "input_x_gradient", "captum", inputs={"input_ids": TOKENS}, target=1)
    np.testing.assert_array_equal(plain.values, named.values["input_ids"])


def test_nothing_stays_on_the_model():
    model = make()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    cfi.attribute(model, "saliency", "captum", inputs=TOKENS, target=1)
    after = {name: dict(vars(module)) for name, module in model.named_modules()}
    assert before == after and type(model) is Text and not model.tokens._forward_hooks


def test_without_an_embedding_there_is_a_way_out():
    class Counts(nn.Module):
        def forward(self, numbers: torch.Tensor) -> torch.Tensor:
            return numbers.float()

    with pytest.raises(cfi.InputError, match=r"have no gradient, and an embedding .* was not found.*feature_ablation"):
        cfi.attribute(Counts().eval(), "saliency", "captum", inputs=TOKENS, target=1)
    found = cfi.attribute(Counts().eval(), "feature_ablation", "captum", inputs=TOKENS, target=1)
    np.testing.assert_array_equal(found.values[:, 1], TOKENS[:, 1])


class Words:
    def id_to_token(self, number: int) -> str:
        return f"word{number}"


def test_one_value_for_each_named_token():
    """At the embedding, at any layer with one vector for each token, and of the tokens themselves."""
    model, inputs = make(), {"input_ids": TOKENS, "attention_mask": MASK}

    def explain(method, **arguments):
        return cfi.attribute(model, method, "captum", inputs=inputs, target=1, feature_names=Words(), **arguments)

    found = explain("integrated_gradients")
    assert found.dims == {"input_ids": ("sample", "token", "embedding")}
    of_tokens = found.sum("embedding")
    np.testing.assert_allclose(of_tokens.values["input_ids"], found.values["input_ids"].sum(2), rtol=1e-12)
    assert of_tokens.feature_names["input_ids"][1] == ("word5", "word3", "word8", "word0", "word0")
    assert explain("feature_ablation").dims == {"input_ids": ("sample", "token")}
    at_layer = explain("layer_integrated_gradients", layer="tokens")
    assert at_layer.dims == ("sample", "token", "embedding") and at_layer.feature_names[0][0] == "word4"
    # In transformers a layer gives one vector for each token, in whatever words the axes are told.
    assert explain("layer_gradient_x_activation", layer="score").feature_names is None


def test_a_loss_beside_the_scores_disturbs_nothing():
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            scores = self.net(input_ids, attention_mask)
            return {"loss": scores.square().mean(), "logits": scores}

    tokens = {"input_ids": TOKENS, "attention_mask": MASK}
    model = Trained().eval()
    for target in (2, ("logits", 2)):
        found = cfi.attribute(model, "saliency", "captum", inputs=tokens, target=target, exec_args={"abs": False})
        np.testing.assert_allclose(found.values["input_ids"], by_hand(model.net, 2), rtol=1e-9, atol=1e-12)
    assert "net.tokens" in [layer.name for layer in cfi.layers(model, tokens)]


def test_a_model_that_hands_further_inputs_on_to_the_one_inside():
    """As those of peft do, which name a part of them only."""

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make()

        def get_base_model(self) -> nn.Module:
            return self.net

        def forward(self, input_ids: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
            return self.net(input_ids, **others)

    tokens = {"input_ids": TOKENS, "attention_mask": MASK}
    found = cfi.attribute(Adapted().eval(), "saliency", "captum", inputs=tokens, target=2, exec_args={"abs": False})
    np.testing.assert_allclose(found.values["input_ids"], by_hand(make(), 2), rtol=1e-9, atol=1e-12)
    named = {"input_ids": TOKENS, "attention_masks": MASK}
    with pytest.raises(cfi.InputError, match=r"none named 'attention_masks'.* input_ids, attention_mask"):
        cfi.attribute(Adapted().eval(), "saliency", "captum", inputs=named, target=2)
