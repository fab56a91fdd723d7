"""Whole architectures with random weights; in double precision, where rounding cannot hide a fault."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras_torch_cases import difference
from keras_zoo import KERAS_CASES

IN_SINGLE_PRECISION = ("3-D convolutions",)  # TensorFlow pools volumes in no other
QUICK = ("vision transformer", "token LSTM", "token transformer", "segmentation", "nested", "subclassed")


@pytest.fixture
def double_precision():
    kind, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(kind)
    keras.config.set_dtype_policy(policy)
    keras.backend.clear_session()


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.zoo) for name in KERAS_CASES]
)
def test_architecture_computes_what_keras_computes(name, request):
    case = KERAS_CASES[name]
    inputs = case.inputs(3)
    if name not in IN_SINGLE_PRECISION:
        request.getfixturevalue("double_precision")
        inputs = tuple(
            array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array for array in inputs
        )
    measured = difference(case.make(), inputs)
    # Keras computes the softmax of its attention, and gradients of some activations, in single precision nevertheless.
    assert measured.outputs < 1e-6 and measured.gradients < 1e-5
