"""Methods that explain a function, and not how it is built, give a model and its twin in another framework the same."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import numpy as np
from shared_cnn import Twins, make_twins
from test_every_method_both_ways import CAPTUM, TF_KERAS_VIS, in_keras_order

from cfi_core.testing.conformance import InvarianceConformance


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
