"""Arithmetic, comparisons and functions of single elements, of operations and of layers."""

from __future__ import annotations

import operator as python
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import keras
import numpy as np
import torch

from cfi_translate.grammar import Refusal, require
from cfi_translate.keras_torch.calls import LayerCall, operator, tensors
from cfi_translate.keras_torch.laid import Laid, plain_axes
from cfi_translate.keras_torch.walk import KerasWalk
from cfi_translate.keras_torch.weights import constant_array
from cfi_translate.torch_modules import of_torch

Function = Callable[..., Any]

_ARITHMETIC = {
    "Add": torch.add,
    "Subtract": torch.sub,
    "Multiply": torch.mul,
    "Divide": torch.div,
    "TrueDivide": torch.div,
    "Power": torch.pow,
    "Arctan2": torch.atan2,
    "Maximum": torch.maximum,
    "Minimum": torch.minimum,
}
_EXTREMA: dict[Function, Function] = {torch.maximum: torch.ge, torch.minimum: torch.le}
_OF_TENSORS = frozenset((*_EXTREMA, torch.atan2))
_NUMBER_FIRST: dict[Function, Function] = {torch.sub: python.sub, torch.div: python.truediv}
_COMPARISONS: dict[str, Function] = {
    "Greater": torch.gt,
    "GreaterEqual": torch.ge,
    "Less": torch.lt,
    "LessEqual": torch.le,
    "Equal": torch.eq,
    "NotEqual": torch.ne,
    "LogicalAnd": torch.logical_and,
    "LogicalOr": torch.logical_or,
    "LogicalXor": torch.logical_xor,
}
_MERGING = {name: _ARITHMETIC[name] for name in ("Add", "Subtract", "Multiply", "Maximum", "Minimum")}
_MERGING["Average"] = torch.add
# Keras computes these in floating point, also of integers.
_OF_FLOATS = {
    **of_torch("Exp", "Exp2", "Expm1", "Log", "Log1p", "Log2", "Log10", "Sqrt", "Rsqrt", "Reciprocal", "Erf", "Erfc"),
    **of_torch("Sin", "Cos", "Tan", "Arcsin", "Arccos", "Arctan"),
    **of_torch("Sinh", "Cosh", "Arcsinh", "Arccosh", "Arctanh"),
    "Fabs": torch.abs,
}
_OF_ANY = {
    **of_torch("Square", "Trunc", "Sign", "Floor", "Ceil", "Round"),
    **of_torch("Isfinite", "Isnan", "Isinf"),
    "Negative": torch.neg,
    "Absolute": torch.abs,
    "LogicalNot": torch.logical_not,
    "StopGradient": torch.detach,
}
_FILLED: dict[str, Function] = {"OnesLike": torch.ones_like, "ZerosLike": torch.zeros_like}


def _combine(op: LayerCall, to: KerasWalk, function: Function, operands: Sequence[Any], dtype: str | None) -> Laid:
    """A function of several operands that broadcast against each other.

    Args:
        op: The operation.
        to: What is built.
        function: Of torch; it gets a tensor for each operand.
        operands: Tensors of the model, numbers, arrays, variables.
        dtype: Tensors are cast to it first; None leaves them as they are.
    """
    rank = len(op.output.shape)
    values = [to.cast(one, dtype) if dtype else one for one in operands if isinstance(one, Laid)]
    constants = [constant_array(one) for one in operands if not isinstance(one, Laid)]
    if any(array is not None and array.ndim > 0 for array in constants):
        values = [to.unscramble(x) for x in values]
    values = to.together(values) if all(x.rank == rank for x in values) else [to.plain(x) for x in values]
    full = next((x for x in values if x.rank == rank), None)
    axes = plain_axes(rank) if full is None else full.axes
    rest = iter(values)
    nodes = [
        next(rest).node if isinstance(one, Laid) else constant_operand(op, to, one, axes, dtype) for one in operands
    ]
    return op.result(_apply(to, function, *nodes), axes, flattened=None if full is None else full.flattened)


def _apply(to: KerasWalk, function: Function, *nodes: Any) -> Any:
    """What a function gives; where a maximum meets equal values, the gradient goes to the first, as in TensorFlow."""
    if function not in _EXTREMA:
        return to.function(function, *nodes)
    first, other = nodes
    return to.function(torch.where, to.function(_EXTREMA[function], first, other), first, other)


def constant_operand(
    op: LayerCall, to: KerasWalk, operand: Any, axes: tuple[int, ...] | None, dtype: str | None
) -> Any:
    """A constant operand in a layout: a buffer, or a parameter where it is a trainable variable.

    Args:
        op: The operation.
        to: What is built.
        operand: Number, array, variable or tensor.
        axes: The layout of the result; None for that of the operand itself.
        dtype: Type of a number or array; None leaves it as it is.

    Raises:
        Refusal: It is none of these, or has more axes than the layout.
    """
    array = constant_array(operand)
    if array is None:
        raise Refusal("one of its operands is neither a tensor of the model nor a constant")
    axes = plain_axes(array.ndim) if axes is None else axes
    rank = len(axes)
    require(array.ndim <= rank, "a constant has more axes than the result")
    shape = (1,) * (rank - array.ndim) + array.shape
    laid = array.reshape(shape).transpose(axes)
    if not isinstance(operand, keras.Variable):
        return to.buffer(f"{op.path}_constant", laid.astype(dtype or array.dtype))
    owner = op.path.rpartition(".")[0]
    path = f"{owner}.{operand.name}" if owner else operand.name
    if not operand.trainable:
        return to.buffer(path, laid)
    node = to.variable(path, operand)
    if not rank or axes == plain_axes(rank):
        return node
    return to.function(torch.permute, to.function(torch.reshape, node, shape), axes)


def _arithmetic(function: Function, op: LayerCall, to: KerasWalk, x1: Any, x2: Any) -> Laid:
    for x, other, swapped in ((x1, x2, False), (x2, x1, True)):
        number = _number(x, other, op.output.dtype)
        if number is None or function in _OF_TENSORS or (swapped and function is torch.pow):
            continue
        x = to.cast(x, op.output.dtype)
        if swapped and function in _NUMBER_FIRST:
            node = to.function(_NUMBER_FIRST[function], number, x.node)
        else:
            node = to.function(function, x.node, number)
        return op.result(node, x.axes, flattened=x.flattened)
    return _combine(op, to, function, (x1, x2), op.output.dtype)


@operator("ops.FloorDivide")
def floor_divide(op: LayerCall, to: KerasWalk, x1: Any, x2: Any) -> Laid:
    """The quotient rounded down, as TensorFlow has it: torch.floor_divide rounds otherwise, and has no gradient."""
    require("float" in op.output.dtype, "integers are divided in another way")
    quotient = _combine(op, to, torch.div, (x1, x2), op.output.dtype)
    return quotient.like(to.function(torch.floor, quotient.node))


@operator("ops.Mod")
def remainder(op: LayerCall, to: KerasWalk, x1: Any, x2: Any) -> Laid:
    """Of the sign of the divisor, in both."""
    return _combine(op, to, torch.remainder, (x1, x2), op.output.dtype)


def _number(x: Any, other: Any, dtype: str) -> Any:
    """An operand that stays a number beside the other; None for what does not."""
    if not isinstance(x, Laid) or isinstance(other, keras.Variable):
        return None
    array = constant_array(other)
    return np.asarray(array, dtype).item() if array is not None and array.size == 1 and array.ndim <= x.rank else None


def _comparison(function: Function, op: LayerCall, to: KerasWalk, x1: Any, x2: Any) -> Laid:
    dtype = keras.backend.result_type(*(_type_of(one) for one in (x1, x2)))
    return _combine(op, to, function, (x1, x2), dtype)


def _type_of(operand: Any) -> Any:
    if isinstance(operand, int | float | bool):
        return type(operand)
    return keras.backend.standardize_dtype(str(getattr(operand, "dtype", "float32")))


def _of_floats(function: Function, op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    return _of_any(function, op, to, to.cast(x, op.output.dtype))


def _of_any(function: Function, op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    return x.like(to.function(function, x.node), op.output.dtype)


def _fill(function: Function, op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    return to.cast(x.like(to.function(function, x.node)), op.output.dtype)


def _merge(function: Function, op: LayerCall, to: KerasWalk, inputs: Any) -> Laid:
    values = _expand(op, to, inputs)
    node = reduce(partial(_apply, to, function), [x.node for x in values])
    if op.kind == "Average":
        node = to.function(torch.div, node, len(values))
    return op.result(to.marker(op, node), values[0].axes, flattened=values[0].flattened)


for _functions, _converter, _module in (
    (_ARITHMETIC, _arithmetic, "ops"),
    (_COMPARISONS, _comparison, "ops"),
    (_OF_FLOATS, _of_floats, "ops"),
    (_OF_ANY, _of_any, "ops"),
    (_FILLED, _fill, "ops"),
    (_MERGING, _merge, "layers"),
):
    for _name, _function in _functions.items():
        operator(f"{_module}.{_name}")(partial(_converter, _function))


def _expand(op: LayerCall, to: KerasWalk, inputs: Any) -> list[Laid]:
    """The inputs of a layer in one layout; Keras puts missing axes after that of the samples, where all have one."""
    values, rank = tensors(inputs), len(op.output.shape)

    def expand(x: Laid) -> Laid:
        shape = (x.shape[0], *(1,) * (rank - x.rank), *x.shape[1:])
        return Laid(to.reshape(to.plain(x).node, shape), shape, plain_axes(rank), x.dtype)

    return to.together(values if len({x.rank for x in values}) == 1 else [expand(x) for x in values])


@operator("ops.Where")
def where(op: LayerCall, to: KerasWalk, condition: Any, x1: Any = None, x2: Any = None) -> Laid:
    """One of two tensors, element by element."""
    require(isinstance(condition, Laid) and x1 is not None, "its condition is no tensor of the model")
    dtype = op.output.dtype
    typed = [
        to.cast(one, dtype) if isinstance(one, Laid) else np.asarray(constant_array(one), dtype) for one in (x1, x2)
    ]
    return _combine(op, to, torch.where, (to.cast(condition, "bool"), *typed), None)


@operator("ops.Clip")
def clip(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Values within bounds; at a bound they have a slope, as in TensorFlow, which torch's clamp has not."""
    bounds = [constant_array(one) for one in (op.operation.x_min, op.operation.x_max)]
    numbers = [array.item() for array in bounds if array is not None and array.size == 1]
    require(len(numbers) == 2, "its bounds are no numbers")
    x = to.cast(x, op.output.dtype)
    node = x.node
    for bound, is_beyond in zip(numbers, (torch.lt, torch.gt), strict=True):
        node = to.function(torch.where, to.function(is_beyond, node, bound), bound, node)
    return x.like(node)


@operator("ops.Cast", "ops.Copy", "ops.ConvertToTensor")
def cast(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """The same, or another type."""
    return replace(to.cast(x, op.output.dtype), mask=None)


@operator("layers.Masking")
def masking(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """Masks the time steps whose features all have one value, and sets them to zero."""
    x = to.plain(inputs)
    differs = to.function(torch.ne, x.node, float(op.operation.mask_value))
    kept = to.function(torch.any, differs, -1, keepdim=True)
    node = to.function(torch.masked_fill, x.node, to.function(torch.logical_not, kept), 0.0)
    mask = Laid(to.function(torch.squeeze, kept, -1), x.shape[:-1], x.axes[:-1], "bool")
    return op.result(to.marker(op, node), mask=mask)
