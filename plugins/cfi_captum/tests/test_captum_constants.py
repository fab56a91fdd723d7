"""What is held need not have a row for each sample: prototypes, grids and the like stay what they are in every pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cfi_core as cfi

METHODS: dict[str, dict[str, Any]] = {
    "saliency": {},
    "integrated_gradients": {"exec_args": {"n_steps": 8}},
    "noise_tunnel": {"exec_args": {"nt_samples": 3, "stdevs": 0.2}},
    "kernel_shap": {},
    "feature_ablation": {"exec_args": {"perturbations_per_eval": 3}},
}


class Scaled(nn.Module):
    """Sums what is held over its rows, whatever they are."""

    def __init__(self, held: Tensor | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.held = nn.Linear(5, 5), held

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Shape (samples, 5)."""
        rows = self.held if c is None else c
        assert rows is not None
        return torch.tanh(self.dense(x) * rows.sum(0))


@pytest.mark.parametrize("key", METHODS)
def test_a_constant_is_the_same_in_every_pass(key: str) -> None:
    """As on a model that holds it."""
    torch.manual_seed(1)
    x, c = torch.randn(2, 5), torch.randn(3, 5)
    given: dict[str, Any] = {"target": 1, "seed": 3, **METHODS[key]}
    found = cfi.attribute(Scaled().eval(), key, "captum", inputs={"x": x, "c": c}, explain=("x",), **given)
    expected = cfi.attribute(Scaled(c).eval(), key, "captum", inputs=x, **given)
    torch.testing.assert_close(torch.tensor(found.values["x"]), torch.tensor(expected.values))


def test_one_row_that_is_not_each_samples_is_refused() -> None:
    """Repeated for the rows of a pass it would be another one."""
    x, c = torch.randn(3, 5), torch.randn(1, 5)
    with pytest.raises(cfi.InputError, match=r"one row for 3 samples \(c\)"):
        cfi.attribute(Scaled().eval(), "saliency", "captum", inputs={"x": x, "c": c}, explain=("x",), target=1)


@pytest.mark.parametrize("known", [False, True])
def test_as_many_rows_as_samples_that_are_not_theirs_are_told(known: bool) -> None:
    """Also where the model was found to be a function of each sample with another constant."""
    model, x = Scaled().eval(), torch.randn(2, 5)
    given: dict[str, Any] = {"explain": ("x",), "target": 1}
    if known:
        cfi.attribute(model, "saliency", "captum", inputs={"x": x, "c": torch.randn(3, 5)}, **given)
    with pytest.warns(cfi.ModelWarning, match="may not be one row for each"):
        cfi.attribute(model, "saliency", "captum", inputs={"x": x, "c": torch.randn(2, 5)}, **given)
