"""What torch-export writes, onnx-keras reads: every operator on the whole way from torch to Keras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_torch_export_operators import FUNCTIONS, MODULES, arrays_for, seeded

import cfi_core as cfi
from cfi_core.framework.axes import permute, unpermute
from cfi_core.framework.structure import flatten
from cfi_core.records import Route
from cfi_core.registry import registry
from cfi_core.translation.conversion import convert_along

ROUTE = ("torch-export", "onnx-keras")
REFUSED = {
    "MaxPool2d dilated": "Keras has no pooling with dilations",
    "clamps": "only a constant bound is supported",
}
"""What Keras has no layer for, and what onnx-keras says then."""


def outputs(model: Callable, arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    with torch.no_grad():
        return [one.numpy() for one in flatten(model(*(torch.from_numpy(one.copy()) for one in arrays)))]


def assert_reaches_keras(name: str, model: Callable, *shapes: tuple[int, ...]) -> None:
    """The same outputs, in whichever order of axes; for the number of samples shown where that is not their first."""
    arrays = arrays_for(shapes, 3)
    wanted = outputs(model, arrays)
    if any(one.shape[:1] != (3,) for one in wanted):
        arrays = tuple(array[:2] for array in arrays)
        wanted = outputs(model, arrays)
    route = Route(tuple(registry().translators[one] for one in ROUTE))
    if name in REFUSED:
        with pytest.raises(cfi.TranslationError, match=REFUSED[name]):
            convert_along(route, model, arrays)
        return
    made = convert_along(route, model, arrays)
    given = [permute(array, axes) for array, axes in zip(arrays, made.input_axes, strict=True)]
    results = [np.asarray(one) for one in flatten(made.model(given if len(given) > 1 else given[0], training=False))]
    for result, axes, expected in zip(results, made.output_axes, wanted, strict=True):
        back = unpermute(result, axes)
        assert back.shape == expected.shape and back.dtype == expected.dtype
        np.testing.assert_allclose(back, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    build, shape = MODULES[name]
    assert_reaches_keras(name, seeded(build()), shape)


QUICK = ("numbers", "where", "logarithms", "whole parts", "largest", "in order", "transposes", "products")


@pytest.mark.parametrize(
    "name", [one if one in QUICK else pytest.param(one, marks=pytest.mark.zoo) for one in FUNCTIONS]
)
def test_function(name: str) -> None:
    function, *shapes = FUNCTIONS[name]
    assert_reaches_keras(name, function, *shapes)
