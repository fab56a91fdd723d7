"""Weights of new layers, held once: a layer is made with them instead of being filled afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cfi_translate.onnx_keras.tensors import Unsupported

_ALIGNMENT = 64  # bytes: what TensorFlow's kernels count on
_AT_ONCE = 1024  # rows


def made_with(layer: Any, value: Any, kernel: np.ndarray, bias: np.ndarray | None = None, what: str = "kernel") -> Any:
    """Calls a new layer whose kernel is that array from the start.

    Args:
        layer: A layer that has never been called.
        value: What it is called on.
        kernel: From `owned` or `rows`; the layer takes it over.
        bias: Its bias, if it has one.
        what: What the layer calls its kernel.
    """
    usual = getattr(layer, f"{what}_initializer")

    def given(shape: Sequence[int], dtype: Any = None) -> Any:
        if tuple(shape) != kernel.shape or dtype != str(kernel.dtype):
            raise Unsupported(f"its weights are {kernel.dtype} {kernel.shape} instead of {dtype} {tuple(shape)}")
        return tf.experimental.dlpack.from_dlpack(kernel.__dlpack__()) if kernel.size else kernel

    setattr(layer, f"{what}_initializer", given)
    made = layer(value)
    setattr(layer, f"{what}_initializer", usual)
    if bias is not None:
        layer.bias.assign(bias)
    return made


def owned(array: np.ndarray) -> np.ndarray:
    """A copy that is nobody else's, in the order of C, where TensorFlow can work on it as it lies."""
    copy = _aligned(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


def rows(matrix: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Like `owned`, with the rows in another order; nothing is copied in between, as these matrices are the largest."""
    copy = _aligned(matrix.shape, matrix.dtype)
    for start in range(0, len(order), _AT_ONCE):
        copy[start : start + _AT_ONCE] = matrix[order[start : start + _AT_ONCE]]
    return copy


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
