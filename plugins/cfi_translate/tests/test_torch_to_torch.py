"""What torch-export writes, onnx-torch reads: every operator there and back, with its input gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from test_torch_export_operators import FUNCTIONS, MODULES, seeded
from test_torch_to_keras import QUICK, WITHOUT_GRADIENTS, arrays_to_judge, in_torch

from cfi_core.framework.axes import permute, unpermute
from cfi_core.records import Route
from cfi_core.registry import registry
from cfi_core.translation.conversion import convert_along

ROUTE = ("torch-export", "onnx-torch")


def assert_comes_back(name: str, model: Callable, *shapes: tuple[int, ...]) -> None:
    """The same outputs and input gradients, in whichever order of axes."""
    differentiable = name not in WITHOUT_GRADIENTS
    arrays = arrays_to_judge(model, shapes)
    wanted, slopes = in_torch(model, arrays, gradients=differentiable)
    made = convert_along(Route(tuple(registry().translators[one] for one in ROUTE)), model, arrays)
    turned = [permute(array, axes) for array, axes in zip(arrays, made.input_axes, strict=True)]
    results, found = in_torch(made.model, turned, gradients=differentiable)
    for result, axes, expected in zip(results, made.output_axes, wanted, strict=True):
        back = unpermute(result, axes)
        assert back.shape == expected.shape and back.dtype == expected.dtype
        np.testing.assert_allclose(back, expected, rtol=1e-4, atol=2e-5)
    for slope, axes, expected in zip(found, made.input_axes, slopes, strict=bool(slopes)):
        np.testing.assert_allclose(unpermute(slope, axes), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.zoo) for one in MODULES])
def test_module(name: str) -> None:
    build, shape = MODULES[name]
    assert_comes_back(name, seeded(build()), shape)


@pytest.mark.parametrize(
    "name", [one if one in QUICK else pytest.param(one, marks=pytest.mark.zoo) for one in FUNCTIONS]
)
def test_function(name: str) -> None:
    function, *shapes = FUNCTIONS[name]
    assert_comes_back(name, function, *shapes)
