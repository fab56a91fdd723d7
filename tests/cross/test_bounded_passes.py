"""No pass of the model is large, whatever the toolset; values and random draws stay, and the steps that are told come.

Captum's methods are tested beside its plugin.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from shared_cnn import Twins, to_last

import cfi_core as cfi
from cfi_core import progress
from cfi_core.framework import portions

pytestmark = pytest.mark.filterwarnings("ignore::cfi_core.CompletenessWarning", "ignore::cfi_torchray.LicenceWarning")

MOST = 6  # rows at a time, in the divided runs
TARGET = {"target": [1, 2]}
# Method, toolset and arguments; how many rows at least one pass of it has while nothing is divided.
CASES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "path of tf-explain": ("integrated_gradients", "tf-explain", TARGET, 64),
    "noise of tf-explain": ("smooth_grad", "tf-explain", TARGET, 40),
    "patches of tf-explain": ("occlusion", "tf-explain", {**TARGET, "exec_args": {"patch_size": 4}}, 40),
    "noise of tf-keras-vis": ("smooth_grad", "tf-keras-vis", TARGET, 2),
    "noise of zennit": ("smooth_grad", "zennit", TARGET, 2),
    "path of zennit": ("integrated_gradients", "zennit", TARGET, 2),
    "windows of zennit": (
        "occlusion",
        "zennit",
        {**TARGET, "init_args": {"window": (3, 4, 4), "stride": (3, 4, 4)}},
        2,
    ),
    "rise": ("rise", "torchray", {**TARGET, "exec_args": {"num_masks": 40, "num_cells": 3}}, 32),
    "points of shap": ("gradient_shap", "shap", {**TARGET, "baselines": 0.0}, 50),
}
EXTRA = {"points of shap": 4}  # passes in front of those that are told


@pytest.fixture(autouse=True)
def _nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DELAY", 60.0)


def rows_of(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes how many rows each pass on values has."""
    rows: list[int] = []
    if isinstance(model, torch.nn.Module):
        monkeypatch.setattr(model, "_forward_pre_hooks", OrderedDict())  # other tests have the same model
        model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
        return rows
    run = keras.Model.__call__

    def note(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if tf.is_tensor(x) and not tf.is_symbolic_tensor(x) and x.shape.rank == 4:
            rows.append(int(x.shape[0]))
        return run(self, x, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "__call__", note)
    return rows


@pytest.mark.parametrize("name", CASES)
def test_a_divided_run_gives_the_same(name: str, twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    key, toolset, arguments, least = CASES[name]
    of_torch = toolset in ("zennit", "torchray", "shap")
    model = twins.torch_model if of_torch else twins.keras_model
    inputs = twins.first[:2] if of_torch else to_last(twins.first[:2])
    rows = rows_of(model, monkeypatch)
    whole = cfi.attribute(model, key, toolset, inputs=inputs, seed=5, **arguments)
    assert max(rows) >= least
    rows.clear()
    monkeypatch.setattr(portions, "MOST_ELEMENTS", MOST * inputs[0].size)
    divided = cfi.attribute(model, key, toolset, inputs=inputs, seed=5, **arguments)
    assert max(rows) <= MOST
    scale = np.abs(whole.values).max()
    np.testing.assert_allclose(divided.values, whole.values, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("across", [False, True], ids=["native", "bridge"])
@pytest.mark.parametrize("name", [*CASES, "masks of tf-keras-vis", "steps of tf-keras-vis"])
def test_the_total_is_what_is_counted(name: str, across: bool, twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[progress.Phase] = []
    kind = progress.Phase
    monkeypatch.setattr(progress, "Phase", lambda *given: made.append(kind(*given)) or made[-1])
    key, toolset, arguments, _ = CASES.get(name, ("score_cam", "tf-keras-vis", {**TARGET, "layer": "conv2"}, 0))
    of_torch = (toolset in ("zennit", "torchray", "shap")) != across
    model = twins.torch_model if of_torch else twins.keras_model
    inputs = twins.first[:2] if of_torch else to_last(twins.first[:2])
    if name == "steps of tf-keras-vis":
        own = {"input_range": (-1.0, 1.0), "steps": 7}
        cfi.visualize_features(model, inputs=inputs[:1], target=1, exec_args=own, progress=True)
    else:
        if across and name == "windows of zennit":
            arguments = {**TARGET, "init_args": {"window": (4, 4, 3), "stride": (4, 4, 3)}}
        cfi.attribute(model, key, toolset, inputs=inputs, seed=5, progress=True, **arguments)
    (one,) = [phase for phase in made if phase.what.startswith("running ") and " of " in phase.what]
    done = one.samples / one.share if one.share else one.ticks
    assert one.total is not None
    assert one.total <= done <= one.total + 2 + EXTRA.get(name, 0)
