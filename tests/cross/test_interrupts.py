"""Who interrupts a call gets the interrupt, on every route, and a process as it was before.

Python raises it wherever its code runs next: in the user's model, inside what a library does with an error of its own.
"""

from __future__ import annotations

import copy
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import keras
import pytest
import torch
from method_arguments import CAPTUM, TF_KERAS_VIS, in_keras_order
from process_state import assert_same, keras_state, process_state, torch_state
from shared_cnn import Twins, keras_twin, to_last

import cfi_core as cfi
from cfi_core import progress

ROUTES = [
    ("integrated_gradients", "captum", "torch", None),
    ("integrated_gradients", "captum", "keras", "bridge"),
    ("integrated_gradients", "captum", "keras", ["tf2onnx", "onnx-torch"]),
    ("occlusion", "captum", "keras", "bridge"),
    ("noise_tunnel", "captum", "torch", None),
    ("deep_lift", "captum", "torch", None),
    ("kernel_shap", "captum", "torch", None),
    ("grad_cam", "captum", "keras", "bridge"),
    ("smooth_grad", "tf-keras-vis", "keras", None),
    ("smooth_grad", "tf-keras-vis", "torch", "bridge"),
    ("smooth_grad", "tf-keras-vis", "torch", ["torch-onnx", "onnx2keras"]),
    ("grad_cam", "tf-keras-vis", "torch", "bridge"),
    ("score_cam", "tf-keras-vis", "keras", None),
    ("score_cam", "tf-keras-vis", "torch", "bridge"),
    ("smooth_grad", "tf-explain", "torch", "bridge"),
    ("occlusion", "tf-explain", "torch", "bridge"),
    ("integrated_gradients", "tf-explain", "keras", None),
    ("smooth_grad", "zennit", "keras", "bridge"),
    ("rise", "torchray", "keras", "bridge"),
    ("gradient_shap", "shap", "keras", "bridge"),
]
OWN: dict[str, dict[str, Any]] = {
    "smooth_grad": {"target": 1},
    "rise": {"target": 1, "exec_args": {"num_masks": 40, "num_cells": 2}},
    "gradient_shap": {"target": 1, "baselines": 0.0},
    "integrated_gradients": {"target": 1},
}
OCCLUSION_OF_TF_EXPLAIN = {"target": 1, "exec_args": {"patch_size": 4}}


class Signal:
    """Sends this process what Ctrl-C sends, at one of the passes, and counts those that come after."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.passes = self.after = 0

    def __call__(self) -> None:
        self.passes += 1
        if self.at is not None:
            self.after += self.passes > self.at
            if self.passes == self.at:
                os.kill(os.getpid(), signal.SIGINT)


class Sending(keras.layers.Layer):
    """A layer that does what it is told in each pass on values."""

    def __init__(self, tell: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self.tell = tell

    def call(self, x: Any) -> Any:
        """What it was given."""
        if not isinstance(x, keras.KerasTensor):
            self.tell()
        return x


def arguments_of(key: str, toolset: str) -> dict[str, Any]:
    if toolset == "tf-explain" and key == "occlusion":
        return dict(OCCLUSION_OF_TF_EXPLAIN)
    if toolset == "tf-keras-vis":
        return dict(TF_KERAS_VIS[key])
    return dict(CAPTUM[key]) if toolset == "captum" else dict(OWN[key])


def watched(twins: Twins, framework: str, tell: Signal) -> Any:
    """The model of a framework, which tells of its passes."""
    if framework == "torch":
        twins.torch_model.register_forward_pre_hook(lambda *_: tell())
        return twins.torch_model
    return watched_twin(twins, tell)


def call(model: Any, twins: Twins, case: tuple[str, str, str, Any]) -> None:
    key, toolset, framework, route = case
    arguments, inputs = arguments_of(key, toolset), torch.tensor(twins.first)
    if framework == "keras":
        arguments, inputs = in_keras_order(arguments), to_last(twins.first)
    cfi.attribute(model, key, toolset, inputs=inputs, translator=route, seed=1, progress=True, **arguments)


def watched_twin(twins: Twins, tell: Signal) -> keras.Model:
    """The Keras model behind a layer that tells."""
    x = inputs = keras.Input(twins.keras_model.input_shape[1:])
    x = Sending(tell, name="sending")(x)
    for layer in twins.keras_model.layers:
        x = layer(x) if not isinstance(layer, keras.layers.InputLayer) else x
    return keras.Model(inputs, x)


@pytest.fixture(autouse=True)
def _shown_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that counting passes and drawing leave nothing behind, either."""
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "_EVERY", 0.01)


@pytest.fixture
def fresh(twins: Twins) -> Twins:
    cfi.forget_translations()
    return Twins(copy.deepcopy(twins.torch_model), keras_twin(twins.torch_model), twins.first, twins.last)


@pytest.mark.parametrize("case", ROUTES, ids=lambda case: "-".join(map(str, case)))
@pytest.mark.filterwarnings("ignore")
def test_the_interrupt_comes_out_at_once(fresh: Twins, case: tuple[str, str, str, Any]) -> None:
    told = Signal(None)
    model = watched(fresh, case[2], told)
    for _ in range(2):  # the first call looks at the model more closely than those behind it
        told.passes = 0
        cfi.forget_translations()
        call(model, fresh, case)
    passes = told.passes
    state: Callable[[Any], dict[str, Any]] = torch_state if case[2] == "torch" else keras_state
    for told.at in sorted({1, max(passes // 2, 1), passes}):
        told.passes = told.after = 0
        cfi.forget_translations()
        before, process, threads = state(model), process_state(), threading.active_count()
        with pytest.raises(KeyboardInterrupt):
            call(model, fresh, case)
        assert told.after == 0
        assert threading.active_count() == threads
        assert_same(process, process_state())
        assert_same(before, state(model))
