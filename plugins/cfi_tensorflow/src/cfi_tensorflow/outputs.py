"""What TensorFlow models return: in one order, dense, combined to one number, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cfi_core.errors import InputError
from cfi_core.framework import map_structure

_TOLERANCE = {tf.float16: 1e-2, tf.bfloat16: 1e-1}  # some units in the last place
_FINE = 1e-5


def order(outputs: Any) -> Any:
    """The same with dicts in the order of their keys: so Keras and tf.nest flatten them, and so do converters."""
    if isinstance(outputs, Mapping) and not hasattr(outputs, "to_tuple"):
        return {key: order(outputs[key]) for key in sorted(outputs)}
    if type(outputs) in (list, tuple):
        return type(outputs)(order(entry) for entry in outputs)
    return outputs


def dense(outputs: Any) -> Any:
    """The same with plain tensors only."""
    return map_structure(_dense, outputs)


def _dense(value: Any) -> Any:
    if isinstance(value, tf.RaggedTensor | tf.SparseTensor):
        raise InputError(
            f"The model gives a {type(value).__name__}: let it give a dense tensor (.to_tensor(), tf.sparse.to_dense)."
        )
    return tf.convert_to_tensor(value)


def seeds(outputs: Sequence[Any], cotangents: Sequence[Any | None]) -> tuple[list[Any], list[Any]]:
    """The floating point outputs that have a cotangent, and these cotangents in the outputs' types."""
    pairs = [(a, b) for a, b in zip(outputs, cotangents, strict=True) if a.dtype.is_floating and b is not None]
    return [output for output, _ in pairs], [tf.cast(cotangent, output.dtype) for output, cotangent in pairs]


def pull_back(tape: Any, outputs: Sequence[Any], cotangents: Sequence[Any], sources: Sequence[Any]) -> list[Any]:
    """Gradients of `sum(output * cotangent)` over all floating point outputs; zeros where a source has no influence."""
    targets, given = seeds(outputs, cotangents)
    found = tape.gradient(targets, sources, given, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(gradient) for gradient in found]


def same(tensors: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether all are equal within rounding, relative to the largest value of each."""
    return len(tensors) == len(others) and all(_same(a, b) for a, b in zip(tensors, others, strict=True))


def _same(tensor: Any, other: Any) -> bool:
    if tensor.dtype != other.dtype or tensor.shape != other.shape:
        return False
    a, b = np.asarray(tensor), np.asarray(other)
    if not tensor.dtype.is_floating:
        return bool(np.array_equal(a, b))
    tolerance = _TOLERANCE.get(tensor.dtype, _FINE)
    a, b = a.astype(np.float64), b.astype(np.float64)
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=0, atol=tolerance * largest, equal_nan=True))
