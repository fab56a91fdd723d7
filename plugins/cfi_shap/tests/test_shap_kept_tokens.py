"""Tokens that are kept: each sample against a background of its own, as SHAP's explainers give it for one sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shap
import torch
from torch import nn

import cfi_core as cfi

PAD, CLS, SEP, MASK = 0, 1, 2, 3
TOKENS = torch.tensor([[1, 7, 8, 9, 2], [1, 5, 2, 0, 0], [1, 6, 4, 5, 2]])
KEPT = (TOKENS < 3).numpy()
OTHERS = torch.where(TOKENS < 3, TOKENS, MASK)


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.table, self.score = nn.Embedding(10, 6), nn.Linear(6, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.of_vectors(self.table(input_ids), attention_mask)

    def of_vectors(self, vectors: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(vectors * (1 + torch.arange(5)[:, None])) * attention_mask[..., None]
        return self.score(hidden.sum(1) + hidden.prod(1))

    def get_input_embeddings(self) -> nn.Module:
        return self.table


class Tokenizer:
    pad_token_id, cls_token_id, sep_token_id, mask_token_id = PAD, CLS, SEP, MASK
    unk_token_id = bos_token_id = eos_token_id = None
    all_special_ids = (0, 1, 2, 3)

    def convert_ids_to_tokens(self, number: int) -> str:
        return f"t{number}"


def explain(method: str, mask: torch.Tensor, target: Any = (1, 3, 0), rows: slice = slice(None), **more: Any) -> Any:
    inputs = {"input_ids": TOKENS[rows], "attention_mask": mask[rows]}
    baseline = cfi.TokenBaseline("mask", keep=("special", "padding"))
    given = {"inputs": inputs, "target": [*target][rows], "baselines": baseline, "feature_names": Tokenizer()}
    return cfi.attribute(Text().eval(), method, more.pop("toolset", "shap"), seed=3, **given, **more)


MASKS = [(TOKENS > 0).long(), torch.ones_like(TOKENS)]  # another one for each sample; the same for all


@pytest.mark.parametrize("mask", MASKS)
def test_kernel_shap_of_each_text_as_by_hand(mask: torch.Tensor) -> None:
    found, model = explain("kernel_shap", mask), Text().eval()
    values = found.values["input_ids"]
    assert (values[KEPT] == 0).all() and (values[~KEPT] != 0).all()
    for row, target in enumerate((1, 3, 0)):

        def score(tokens: np.ndarray, row: int = row, target: int = target) -> np.ndarray:
            rows = torch.as_tensor(tokens).long()
            return model(rows, mask[row].expand(len(rows), -1))[:, target].detach().double().numpy()

        explainer = shap.KernelExplainer(score, OTHERS[row : row + 1].numpy())
        expected = explainer.shap_values(TOKENS[row : row + 1].numpy(), silent=True, l1_reg=False)
        np.testing.assert_allclose(values[row], expected[0], atol=1e-5)
    assert found.provenance["completeness"]["gap"] < 1e-4


@pytest.mark.parametrize("mask", MASKS)
def test_gradient_shap_of_each_text_as_by_hand(mask: torch.Tensor) -> None:
    values, model = explain("gradient_shap", mask).values["input_ids"], Text().eval()
    assert values.shape == (3, 5, 6) and (values[KEPT] == 0).all()
    for row, target in enumerate((1, 3, 0)):

        class Score(nn.Module):
            def forward(self, vectors: torch.Tensor, row: int = row, target: int = target) -> torch.Tensor:
                return model.of_vectors(vectors, mask[row].expand(len(vectors), -1))[:, target, None]

        vectors, base = (model.table(one[row : row + 1]).detach() for one in (TOKENS, OTHERS))
        expected = shap.GradientExplainer(Score().eval(), base).shap_values(vectors, nsamples=200, rseed=3)
        np.testing.assert_allclose(values[row], expected.reshape(5, 6), atol=1e-5)


@pytest.mark.parametrize("mask", MASKS)
def test_owen_values_of_each_text_are_those_of_the_text_alone(mask: torch.Tensor) -> None:
    found = explain("partition_shap", mask)
    values = found.values["input_ids"]
    for row in range(3):
        alone = explain("partition_shap", mask, rows=slice(row, row + 1)).values["input_ids"]
        np.testing.assert_allclose(values[row], alone[0], atol=1e-6)
    assert (values[KEPT] == 0).all() and found.provenance["completeness"]["gap"] < 1e-5


def test_texts_that_keep_the_same_places_have_one_background() -> None:
    """As before: one run, against one row."""
    inputs = {"input_ids": TOKENS[[0, 2]], "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    given = {"target": 1, "feature_names": Tokenizer(), "seed": 3}
    baseline = cfi.TokenBaseline("mask", keep=("special",))
    found = cfi.attribute(Text().eval(), "kernel_shap", "shap", inputs=inputs, baselines=baseline, **given)
    whole = cfi.attribute(Text().eval(), "kernel_shap", "shap", inputs=inputs, baselines=OTHERS[:1], **given)
    np.testing.assert_allclose(found.values["input_ids"], whole.values["input_ids"], atol=1e-6)
