"""Methods that explain a function, and not how it is built, give a model and its twin in another framework the same."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import keras
import numpy as np
import torch
from shared_cnn import Twins, make_twins
from test_every_method_both_ways import CAPTUM, TF_KERAS_VIS, in_keras_order
from torch import nn

from cfi_core.testing.conformance import InvarianceConformance

BASELINES = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)


@cache
def twins() -> Twins:
    return make_twins(softmax=False)


class TestCaptum(InvarianceConformance):
    """No method varies: a conversion keeps what rules attach to."""

    toolset = "captum"
    arguments = CAPTUM
    twin_arguments: ClassVar = {key: in_keras_order(arguments) for key, arguments in CAPTUM.items()}

    def make_model(self) -> Any:
        return twins().torch_model

    def make_inputs(self) -> np.ndarray:
        return twins().first

    def make_twin(self) -> Any:
        return twins().keras_model

    def make_twin_inputs(self) -> np.ndarray:
        return twins().last


class TestTfKerasVis(InvarianceConformance):
    toolset = "tf-keras-vis"
    arguments = TF_KERAS_VIS

    def make_model(self) -> Any:
        return twins().keras_model

    def make_inputs(self) -> np.ndarray:
        return twins().last

    def make_twin(self) -> Any:
        return twins().torch_model

    def make_twin_inputs(self) -> np.ndarray:
        return twins().first


class TestShap(InvarianceConformance):
    """On features, of which all coalitions can be gone through."""

    toolset = "shap"
    arguments: ClassVar = {
        **{key: {"target": 1, "baselines": BASELINES} for key in ("deep_lift_shap", "gradient_shap", "kernel_shap")},
        "partition_shap": {"target": 1},
    }

    def make_model(self) -> Any:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).eval()

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)

    def make_twin(self) -> Any:
        stack = [keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(4)]
        twin = keras.Sequential([keras.Input((6,)), *stack])
        twin.set_weights([value.detach().numpy().T for value in self.make_model().parameters()])
        return twin
