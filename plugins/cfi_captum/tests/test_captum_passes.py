"""What goes through the model at once is bounded by its size, and whoever waits is told how much there is."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from captum._utils.gradient import compute_gradients
from torch import nn

import cfi_core as cfi
from cfi_captum.passes import gradients_at_once
from cfi_core import progress
from cfi_core.framework import portions, rows_at_once

SAMPLES, ROW = 2, 3 * 6 * 5
ROWS: list[int] = []
MASK = torch.arange(30).reshape(1, 1, 6, 5).div(6, rounding_mode="floor").expand(1, 3, 6, 5).contiguous()
BASELINES = torch.linspace(-1, 1, 3 * ROW).reshape(3, 3, 6, 5)
AT_LAYER: dict[str, Any] = {"layer": "2", "target": 1}
AT_NEURON: dict[str, Any] = {"layer": "2", "neuron": (1, 2, 2)}

DIVIDED: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"target": 1},
    "integrated_gradients per sample": {"target": [1, 0], "exec_args": {"return_convergence_delta": True}},
    "gradient_shap": {"target": [0, 2], "baselines": BASELINES, "exec_args": {"n_samples": 20, "stdevs": 0.1}},
    "noise_tunnel": {"target": [2, 1], "exec_args": {"nt_samples": 20}},
    "noise_tunnel of paths": {
        "target": 1,
        "init_args": {"method": "integrated_gradients"},
        "exec_args": {"nt_samples": 3, "n_steps": 9, "nt_type": "smoothgrad_sq"},
    },
    "noise_tunnel of a layer": {
        "target": 1,
        "init_args": {"method": "layer_integrated_gradients"},
        "layer": "2",
        "exec_args": {"nt_samples": 2, "n_steps": 9},
    },
    "layer_conductance": AT_LAYER,
    "internal_influence": AT_LAYER,
    "layer_integrated_gradients": AT_LAYER,
    "neuron_integrated_gradients": AT_NEURON,
    "neuron_conductance": {**AT_NEURON, "target": 1},
}
COUNTED: dict[str, dict[str, Any]] = {
    **{key: arguments for key, arguments in DIVIDED.items() if key == key.split(" ")[0]},
    "feature_ablation": {"target": 1},
    "feature_ablation of groups": {"target": 1, "exec_args": {"feature_mask": MASK, "perturbations_per_eval": 3}},
    "occlusion": {"target": 1, "exec_args": {"sliding_window_shapes": (3, 2, 2), "strides": (3, 2, 1)}},
    "occlusion of every place": {"target": 1, "exec_args": {"sliding_window_shapes": (3, 2, 2)}},
    "feature_permutation": {"target": 1, "exec_args": {"feature_mask": MASK}},
    "shapley_value_sampling": {"target": 1, "exec_args": {"feature_mask": MASK, "n_samples": 4}},
    "shapley_values": {"target": 1, "exec_args": {"feature_mask": MASK}},
    "lime": {"target": 1, "exec_args": {"feature_mask": MASK, "n_samples": 30}},
    "kernel_shap": {"target": 1, "exec_args": {"feature_mask": MASK, "n_samples": 30}},
    "neuron_feature_ablation": AT_NEURON,
}


class Counting(nn.Module):
    """A small network that notes how many rows each pass has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        body = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.Softplus())
        head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3), nn.Tanh())
        for name, part in enumerate((*body, *head)):
            self.add_module(str(name), part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ROWS.append(len(x))
        for part in self.children():
            x = part(x)
        return x


@pytest.fixture
def samples() -> torch.Tensor:
    return torch.randn(SAMPLES, 3, 6, 5, generator=torch.Generator().manual_seed(1))


def explain(name: str, x: torch.Tensor, arguments: dict[str, Any], **more: Any) -> tuple[Any, list[int]]:
    ROWS.clear()
    with warnings.catch_warnings():  # few steps of a small network: sums that do not fit, LIME without a value
        warnings.simplefilter("ignore", cfi.CFIWarning)
        found = cfi.attribute(Counting().eval(), name.split(" ")[0], "captum", inputs=x, seed=3, **arguments, **more)
    return found, [*ROWS]


@pytest.mark.parametrize("name", DIVIDED)
def test_a_divided_run_gives_the_same(name: str, samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, rows = explain(name, samples, DIVIDED[name])
    monkeypatch.setattr(portions, "MOST_ELEMENTS", 8 * ROW)
    divided, fewer = explain(name, samples, DIVIDED[name])
    scale = np.abs(whole.values).max()
    np.testing.assert_allclose(divided.values, whole.values, rtol=0, atol=4e-6 * scale)
    most = 8 if "of a layer" not in name and "delta" not in str(DIVIDED[name]) else max(rows) - 1
    assert max(fewer) <= most < max(rows), (fewer, rows)


def test_the_user_says_how_much_goes_at_once(samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "MOST_ELEMENTS", 8 * ROW)
    own = {"target": 1, "layer": "2", "exec_args": {"internal_batch_size": 20}}
    assert max(explain("internal_influence", samples, own)[1]) == 20


def test_all_samples_go_together_however_large_they_are() -> None:
    assert rows_at_once([(7, 3, 1000, 1000)], 7) == 7
    assert rows_at_once([(1, 3, 224, 224)], 1) == 13
    assert rows_at_once([(1, 10)], 1, most=32) == 32
    assert rows_at_once([(40, 10)], 40, most=32) == 40
    assert rows_at_once([(2, 0)], 2) % 2 == 0


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> list[progress.Phase]:
    made: list[progress.Phase] = []
    kind = progress.Phase
    monkeypatch.setattr(progress, "Phase", lambda *given: made.append(kind(*given)) or made[-1])
    return made


@pytest.mark.parametrize("name", COUNTED)
def test_the_total_is_what_is_counted(name: str, samples: torch.Tensor, phases: list[progress.Phase]) -> None:
    explain(name, samples, COUNTED[name], progress=True)
    (one,) = [phase for phase in phases if phase.what.startswith("running ") and " of " in phase.what]
    assert one.total is not None
    # One pass in front of a path, and those of its ends, are not counted among its steps.
    assert one.total <= one.samples / one.share <= one.total + 2


@pytest.mark.parametrize("columns", [(), (1,)])
def test_gradients_of_all_rows_at_once_are_captums(columns: tuple[int, ...]) -> None:
    model, rows = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), torch.randn(7, 4, requires_grad=True)

    def forward(values: torch.Tensor) -> torch.Tensor:
        return model(values) if not columns else model(values)[:, :1]

    target = None if columns else [0, 1, 2, 0, 1, 2, 0]
    found, expected = (each(forward, (rows,), target) for each in (gradients_at_once, compute_gradients))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_several_outputs_of_a_row_are_refused_as_captum_does_it() -> None:
    rows = torch.randn(2, 4, requires_grad=True)
    with pytest.raises(AssertionError, match="multiple outputs"):
        gradients_at_once(nn.Linear(4, 5), (rows,))
