"""What torch-export writes, onnx-keras reads: every operator on the whole way from torch to Keras, and its slope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from test_torch_export_operators import FUNCTIONS, MODULES, arrays_for, seeded

import cfi_core as cfi
from cfi_core.contract import Converted
from cfi_core.framework.axes import permute, unpermute
from cfi_core.framework.structure import flatten
from cfi_core.records import Route
from cfi_core.registry import registry
from cfi_core.translation.conversion import convert_along

ROUTE = ("torch-export", "onnx-keras")
REFUSED = {
    "MaxPool2d dilated": "Keras has no pooling with dilations",
    "clamps": "only constant bounds are supported",
    "counted": "the number of samples",
    "counted to the samples": "the number of samples",
    "made of sizes alone": "the number of samples",
    "put for each sample": "the number of samples",
}
"""What Keras has no layer for, and what onnx-keras says then."""
WITHOUT_GRADIENTS = {"in place twice"}
"""What torch itself gives no gradients for."""


def arrays_to_judge(model: Callable, shapes: tuple[tuple[int, ...], ...]) -> tuple[np.ndarray, ...]:
    """Three samples; the two that torch-export shows where an output's first axis is not that of the samples."""
    arrays = arrays_for(shapes, 3)
    outputs, _ = in_torch(model, arrays, gradients=False)
    free = all(one.shape[:1] == (3,) for one in outputs)
    return arrays if free else tuple(array[:2] for array in arrays)


def in_torch(
    model: Callable, arrays: Sequence[np.ndarray], *, gradients: bool = True
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs, and input gradients of their weighted sum; no gradients if the outputs have none."""
    tensors = [torch.from_numpy(one.copy()).requires_grad_() for one in arrays]
    results = flatten(model(*(one * 1 for one in tensors)))  # what is no leaf may be changed in place
    scores = [(one * torch.from_numpy(weights(one.shape))).sum() for one in results if one.requires_grad]
    found = [one.detach().numpy() for one in results]
    if not scores or not gradients:
        return found, []
    slopes = torch.autograd.grad(sum(scores), tensors, allow_unused=True)
    return found, [zeros_for(one, array) for one, array in zip(slopes, arrays, strict=True)]


def in_keras(made: Converted, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs and input gradients, with their axes as in torch."""
    given = [tf.constant(permute(array, axes)) for array, axes in zip(arrays, made.input_axes, strict=True)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        results = flatten(made.model(given if len(given) > 1 else given[0], training=False))
        axes = [None if one is None else np.argsort(one) for one in made.output_axes]
        results = [one if turn is None else tf.transpose(one, turn) for one, turn in zip(results, axes, strict=True)]
        floats = [one for one in results if one.dtype.is_floating]
        scores = [tf.reduce_sum(tf.cast(one, tf.float32) * weights(one.shape)) for one in floats]
        score = tf.add_n(scores or [tf.zeros(())])
    slopes = tape.gradient(score, given)
    back = [
        None if one is None else unpermute(np.asarray(one), axes)
        for one, axes in zip(slopes, made.input_axes, strict=True)
    ]
    return [one.numpy() for one in results], [zeros_for(one, array) for one, array in zip(back, arrays, strict=True)]


def weights(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(7).normal(size=tuple(shape)).astype(np.float32)


def zeros_for(slope: Any, array: np.ndarray) -> np.ndarray:
    return np.zeros_like(array) if slope is None else np.asarray(slope)


def assert_reaches_keras(name: str, model: Callable, *shapes: tuple[int, ...]) -> None:
    """The same outputs and input gradients, in whichever order of axes."""
    differentiable = name not in WITHOUT_GRADIENTS
    arrays = arrays_to_judge(model, shapes)
    wanted, slopes = in_torch(model, arrays, gradients=differentiable)
    route = Route(tuple(registry().translators[one] for one in ROUTE))
    if name in REFUSED:
        with pytest.raises(cfi.TranslationError, match=REFUSED[name]):
            convert_along(route, model, arrays)
        return
    made = convert_along(route, model, arrays)
    results, found = in_keras(made, arrays)
    for result, expected in zip(results, wanted, strict=True):
        assert result.shape == expected.shape and result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=2e-5)
    for slope, expected in zip(found, slopes, strict=bool(slopes)):
        np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    build, shape = MODULES[name]
    assert_reaches_keras(name, seeded(build()), shape)


QUICK = (
    "remainders",
    "put into places",
    "summed into places",
    "numbers",
    "where",
    "logarithms",
    "whole parts",
    "largest",
    "in order",
    "transposes",
    "products",
)


@pytest.mark.parametrize(
    "name", [one if one in QUICK else pytest.param(one, marks=pytest.mark.zoo) for one in FUNCTIONS]
)
def test_function(name: str) -> None:
    function, *shapes = FUNCTIONS[name]
    assert_reaches_keras(name, function, *shapes)


def test_the_slope_of_a_remainder_is_right_at_zero() -> None:
    """Images are full of zeros."""
    arrays = (np.array([[0.0, -1.5, 2.5], [3.0, 0.0, -0.5]], np.float32),)
    route = Route(tuple(registry().translators[one] for one in ROUTE))
    wanted, slopes = in_torch(lambda x: x % 2, arrays)
    results, found = in_keras(convert_along(route, lambda x: x % 2, arrays), arrays)
    np.testing.assert_array_equal(results[0], wanted[0])
    np.testing.assert_array_equal(found[0], slopes[0])
