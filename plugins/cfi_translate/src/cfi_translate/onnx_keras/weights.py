"""Weights of new layers, held once: a layer is made with them instead of being filled afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cfi_translate.grammar import require

_ALIGNMENT = 64  # bytes: what TensorFlow's kernels count on
_AT_ONCE = 256  # rows and columns: what a processor keeps close to itself


def call_with(
    layer: Any,
    value: Any,
    kernel: Callable[[], np.ndarray],
    bias: np.ndarray | None = None,
    *,
    what: str = "kernel",
    order: np.ndarray | None = None,
) -> Any:
    """Calls a new layer whose kernel is a copy of that array from the start.

    Args:
        layer: A layer that has never been called.
        value: What it is called on.
        kernel: Gives its weights, which are unpacked for the copy alone.
        bias: Its bias, if it has one.
        what: What the layer calls its kernel.
        order: Of the rows of the kernel, if they are to stand in another one.
    """
    usual = getattr(layer, f"{what}_initializer")

    def initialize(shape: Sequence[int], dtype: Any = None) -> Any:
        copy = _copy(kernel(), order)
        fits = tuple(shape) == copy.shape and dtype == str(copy.dtype)
        require(fits, f"its weights are {copy.dtype} {copy.shape} instead of {dtype} {tuple(shape)}")
        # The variable takes over the memory of the copy, which nobody else has.
        return tf.experimental.dlpack.from_dlpack(copy.__dlpack__()) if copy.size else copy

    setattr(layer, f"{what}_initializer", initialize)
    try:
        made = layer(value)
    finally:
        setattr(layer, f"{what}_initializer", usual)
    if bias is not None:
        layer.bias.assign(bias)
    return made


def _copy(array: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """In the order of C, where TensorFlow can work on it as it lies."""
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    require(order is None or len(order) == len(array), f"its weights have {len(array)} rows, and are to have others")
    if array.ndim == 2 and array.T.flags.c_contiguous and not array.flags.c_contiguous:
        _turn(array.T, copy, order)
    elif order is None:
        np.copyto(copy, array)
    else:
        for start in range(0, len(order), _AT_ONCE):  # in pieces, as these matrices are the largest there are
            copy[start : start + _AT_ONCE] = array[order[start : start + _AT_ONCE]]
    return copy


def _turn(source: np.ndarray, copy: np.ndarray, order: np.ndarray | None) -> None:
    """Fills the copy with the columns of the source, square by square: a whole column lies in as many places."""
    for row in range(0, len(source), _AT_ONCE):
        rows = source[row : row + _AT_ONCE]
        rows = rows if order is None else rows[:, order]
        for column in range(0, len(copy), _AT_ONCE):
            square = np.ascontiguousarray(rows[:, column : column + _AT_ONCE].T)
            copy[column : column + _AT_ONCE, row : row + _AT_ONCE] = square
