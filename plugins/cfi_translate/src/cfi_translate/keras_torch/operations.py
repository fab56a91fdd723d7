"""Operations of `keras.ops`, which stand in functional graphs and inside layers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import torch

from cfi_translate.keras_torch.builder import tensor_of
from cfi_translate.keras_torch.calls import Call, constant_array, translates
from cfi_translate.keras_torch.merging import concatenated, together
from cfi_translate.keras_torch.shapes import reshaped, transposed
from cfi_translate.keras_torch.values import Value, plain_axes

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "Subtract": torch.sub,
    "Multiply": torch.mul,
    "Divide": torch.div,
    "TrueDivide": torch.div,
    "Power": torch.pow,
    # At ties the whole gradient goes to the first, as in TensorFlow; torch.maximum halves it.
    "Maximum": torch.clamp_min,
    "Minimum": torch.clamp_max,
    "FloorDivide": torch.floor_divide,
    "Arctan2": torch.atan2,
}
_OF_TENSORS = frozenset((torch.clamp_min, torch.clamp_max, torch.atan2))
_COMPARISONS: dict[str, Callable[..., Any]] = {
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
_UNARY: dict[str, Callable[..., Any]] = {
    "Negative": torch.neg,
    "Absolute": torch.abs,
    "Exp": torch.exp,
    "Expm1": torch.expm1,
    "Log": torch.log,
    "Log1p": torch.log1p,
    "Log2": torch.log2,
    "Log10": torch.log10,
    "Sqrt": torch.sqrt,
    "Rsqrt": torch.rsqrt,
    "Square": torch.square,
    "Reciprocal": torch.reciprocal,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Arcsin": torch.asin,
    "Arccos": torch.acos,
    "Arctan": torch.atan,
    "Arcsinh": torch.asinh,
    "Arccosh": torch.acosh,
    "Arctanh": torch.atanh,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Erfc": torch.erfc,
    "Exp2": torch.exp2,
    "Fabs": torch.abs,
    "Trunc": torch.trunc,
    "Sign": torch.sign,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "LogicalNot": torch.logical_not,
    "Isfinite": torch.isfinite,
    "Isnan": torch.isnan,
    "Isinf": torch.isinf,
    "StopGradient": torch.detach,
    "OnesLike": torch.ones_like,
    "ZerosLike": torch.zeros_like,
}
_TO_FLOAT = frozenset(
    {
        "Exp",
        "Expm1",
        "Log",
        "Log1p",
        "Log2",
        "Log10",
        "Sqrt",
        "Rsqrt",
        "Reciprocal",
        "Sin",
        "Cos",
        "Tan",
        "Arcsin",
        "Arccos",
        "Arctan",
        "Arcsinh",
        "Arccosh",
        "Arctanh",
        "Sinh",
        "Cosh",
        "Erf",
        "Erfc",
        "Exp2",
        "Fabs",
        "Mean",
        "Var",
        "Std",
        "Logsumexp",
    }
)


def combined(call: Call, operands: Sequence[Any], function: Callable[..., Any], dtype: str | None) -> Value:
    """A function of several operands that broadcast against each other.

    Args:
        call: The call that it translates.
        operands: Values, numbers, arrays, variables.
        function: Of torch; it gets a tensor for each operand.
        dtype: Values are cast to it first; None leaves them as they are.
    """
    builder, rank = call.builder, len(call.output.shape)
    arrays = [None if isinstance(one, Value) else constant_array(one) for one in operands]
    call.require(
        all(isinstance(one, Value) or array is not None for one, array in zip(operands, arrays, strict=True)),
        "one of its operands is neither a tensor of the model nor a constant",
    )
    values = [call.walk.cast(one, dtype) if dtype else one for one in operands if isinstance(one, Value)]
    scalars = all(array is None or array.ndim == 0 for array in arrays)
    if not scalars:
        values = [builder.plain(one) if one.flattened is not None else one for one in values]
    if any(value.rank != rank for value in values):
        values = [builder.plain(value) for value in values]
    else:
        values = together(call, values)
    full = next((value for value in values if value.rank == rank), None)
    axes = plain_axes(rank) if full is None else full.axes
    flattened = None if full is None else full.flattened
    rest, nodes = iter(values), []
    for operand, array in zip(operands, arrays, strict=True):
        if array is None:
            nodes.append(next(rest).node)
        else:
            nodes.append(_constant(call, operand, array, axes, dtype))
    return call.result(builder.function(function, *nodes), axes, flattened=flattened)


def _constant(call: Call, operand: Any, array: np.ndarray, axes: tuple[int, ...], dtype: str | None) -> Any:
    """A constant operand in a layout: a buffer, or a parameter where it is a trainable variable."""
    rank = len(axes)
    call.require(array.ndim <= rank, "a constant has more axes than the result")
    shape = (1,) * (rank - array.ndim) + array.shape
    variable = operand if isinstance(operand, keras.Variable) else None
    owner = call.path.rpartition(".")[0]
    if variable is not None:
        path = f"{owner}.{variable.name}" if owner else variable.name
        if not variable.trainable:
            return call.builder.constant(path, np.ascontiguousarray(array.reshape(shape).transpose(axes)))
        plain = call.builder.parameter(path, variable, tensor_of(variable))
        if not rank or axes == plain_axes(rank):
            return plain
        shaped = call.builder.function(torch.reshape, plain, shape)
        return call.builder.function(torch.permute, shaped, axes)
    kind = np.dtype(dtype) if dtype else array.dtype
    return call.builder.constant(
        f"{call.path}_constant", np.ascontiguousarray(array.reshape(shape).transpose(axes)).astype(kind)
    )


def _operands(call: Call, count: int) -> list[Any]:
    operands = [*call.args, *call.kwargs.values()][:count]
    call.require(len(operands) == count, f"it is not called with {count} operands")
    return operands


def _arithmetic(name: str, function: Callable[..., Any]) -> None:
    @translates(f"ops.{name}")
    def translate(call: Call) -> Value:
        one, other = _operands(call, 2)
        dtype = call.output.dtype
        if name == "FloorDivide":
            call.require("float" in dtype, "integers are divided in another way")
        # A number stays a number where torch's function takes one.
        if function not in _OF_TENSORS and not (isinstance(one, keras.Variable) or isinstance(other, keras.Variable)):
            for operands in ((one, other), (other, one)):
                value, array = operands[0], constant_array(operands[1])
                if isinstance(value, Value) and array is not None and array.size == 1 and array.ndim <= value.rank:
                    value = call.walk.cast(value, dtype)
                    number = np.asarray(array, dtype).item()
                    nodes = (value.node, number) if operands[0] is one else (number, value.node)
                    if nodes[0] is number and function is torch.pow:
                        break
                    made = _with_number(call, function, nodes)
                    return call.result(made, value.axes, flattened=value.flattened)
        return combined(call, (one, other), function, dtype)


def _with_number(call: Call, function: Callable[..., Any], nodes: tuple[Any, Any]) -> Any:
    if isinstance(nodes[0], int | float | bool):
        plain = {torch.sub: operator.sub, torch.div: operator.truediv}
        if function in plain:
            return call.builder.function(plain[function], *nodes)
        if function in (torch.add, torch.mul):
            return call.builder.function(function, nodes[1], nodes[0])
        raise call.refusal("a constant is its first operand")
    return call.builder.function(function, *nodes)


def _comparison(name: str, function: Callable[..., Any]) -> None:
    @translates(f"ops.{name}")
    def translate(call: Call) -> Value:
        operands = _operands(call, 2)
        kinds = [one.dtype if isinstance(one, Value) else None for one in operands]
        dtype = keras.backend.result_type(*[kind for kind in kinds if kind], *_constant_types(operands))
        return combined(call, operands, function, dtype)


def _constant_types(operands: Sequence[Any]) -> list[Any]:
    types: list[Any] = []
    for one in operands:
        if isinstance(one, Value):
            continue
        types.append(type(one) if isinstance(one, int | float | bool) else str(getattr(one, "dtype", "float32")))
    return [kind if isinstance(kind, type) else keras.backend.standardize_dtype(kind) for kind in types]


def _unary(name: str, function: Callable[..., Any]) -> None:
    @translates(f"ops.{name}")
    def translate(call: Call) -> Value:
        value = call.input
        if name in _TO_FLOAT:
            value = call.walk.cast(value, call.output.dtype)
        made = value.like(call.builder.function(function, value.node), call.output.dtype)
        return call.walk.cast(replace(made, dtype=value.dtype), call.output.dtype) if name.endswith("Like") else made


for _name, _function in _ARITHMETIC.items():
    _arithmetic(_name, _function)
for _name, _function in _COMPARISONS.items():
    _comparison(_name, _function)
for _name, _function in _UNARY.items():
    _unary(_name, _function)


@translates("ops.Where")
def where(call: Call) -> Value:
    """One of two tensors, element by element."""
    condition, one, other = _operands(call, 3)
    call.require(isinstance(condition, Value) and one is not None, "its condition is no tensor of the model")
    dtype = call.output.dtype
    operands = [call.walk.cast(value, dtype) if isinstance(value, Value) else value for value in (one, other)]
    condition = call.walk.cast(condition, "bool")
    typed = [value if isinstance(value, Value) else np.asarray(constant_array(value), dtype) for value in operands]
    return combined(call, (condition, *typed), torch.where, None)


@translates("ops.Clip")
def clip(call: Call) -> Value:
    """Values within bounds."""
    lowest, highest = constant_array(call.operation.x_min), constant_array(call.operation.x_max)
    call.require(
        lowest is not None and highest is not None and lowest.size == highest.size == 1, "its bounds are no numbers"
    )
    value = call.walk.cast(call.input, call.output.dtype)
    assert lowest is not None and highest is not None
    return value.like(call.builder.function(torch.clamp, value.node, lowest.item(), highest.item()))


@translates("ops.Cast")
def cast(call: Call) -> Value:
    """Another type."""
    return replace(call.walk.cast(call.input, call.output.dtype), mask=None)


@translates("ops.Copy", "ops.ConvertToTensor")
def copy(call: Call) -> Value:
    """The same."""
    return replace(call.walk.cast(call.input, call.output.dtype), mask=None)


def _axes(call: Call, value: Value) -> tuple[int, ...]:
    given = call.operation.axis
    if given is None:
        call.require(False, "it goes over all axes, that of the samples included")
    axes = given if isinstance(given, list | tuple) else (given,)
    return tuple(axis % value.rank for axis in axes)


def reduced(call: Call, function: Callable[..., Any], **options: Any) -> Value:
    """A reduction over some axes; the layout of the others stays."""
    value = call.input if call.input.flattened is None else call.builder.plain(call.input)
    if type(call.operation).__name__ in _TO_FLOAT or call.output.dtype != "bool":
        value = call.walk.cast(value, call.output.dtype)
    axes, keep = _axes(call, value), bool(call.operation.keepdims)
    if function is torch.sum and "float" not in call.output.dtype:
        options["dtype"] = getattr(torch, call.output.dtype)  # torch would count in 64 bits
    node = call.builder.function(
        function, value.node, tuple(sorted(value.at(axis) for axis in axes)), keepdim=keep, **options
    )
    if keep:
        return call.result(node, value.axes)
    left = [axis for axis in range(value.rank) if axis not in axes]
    return call.result(node, tuple(left.index(axis) for axis in value.axes if axis not in axes))


for _name, _function, _options in (
    ("Mean", torch.mean, {}),
    ("Sum", torch.sum, {}),
    ("Max", torch.amax, {}),
    ("Min", torch.amin, {}),
    ("Amax", torch.amax, {}),
    ("Amin", torch.amin, {}),
    ("Var", torch.var, {"correction": 0}),
    ("Std", torch.std, {"correction": 0}),
    ("Logsumexp", torch.logsumexp, {}),
    ("Any", torch.any, {}),
    ("All", torch.all, {}),
):
    translates(f"ops.{_name}")(
        lambda call, function=_function, options=_options: reduced(call, function, **options)  # type: ignore[misc]
    )


@translates("ops.Prod")
def product(call: Call) -> Value:
    """Products over some axes, one after the other."""
    value = call.builder.plain(call.walk.cast(call.input, call.output.dtype))
    node, keep, dtype = value.node, bool(call.operation.keepdims), getattr(torch, call.output.dtype)
    for axis in sorted(_axes(call, value), reverse=True):
        node = call.builder.function(torch.prod, node, axis, keepdim=keep, dtype=dtype)
    return call.result(node)


@translates("ops.Moments")
def moments(call: Call) -> list[Value]:
    """Mean and variance."""
    value = call.builder.plain(call.input)
    call.require("float" in value.dtype, "its values are integers")
    axes, keep = tuple(axis % value.rank for axis in call.operation.axes), bool(call.operation.keepdims)
    call.require(0 not in axes and not call.operation.synchronized, "it mixes samples")
    return [
        call.result(call.builder.function(torch.mean, value.node, axes, keepdim=keep)),
        call.result(call.builder.function(torch.var, value.node, axes, correction=0, keepdim=keep), position=1),
    ]


@translates("ops.Argmax", "ops.Argmin")
def argmax(call: Call) -> Value:
    """Position of the largest or smallest value."""
    value = call.builder.plain(call.input)
    call.require(call.operation.axis is not None, "it goes over all axes, that of the samples included")
    function = torch.argmax if type(call.operation).__name__ == "Argmax" else torch.argmin
    node = call.builder.function(
        function, value.node, call.operation.axis % value.rank, keepdim=bool(call.operation.keepdims)
    )
    return call.walk.cast(replace(call.result(node), dtype="int64"), call.output.dtype)


@translates("ops.Cumsum")
def cumsum(call: Call) -> Value:
    """Running sums."""
    value = call.builder.plain(call.walk.cast(call.input, call.output.dtype))
    call.require(call.operation.axis is not None, "it goes over all axes, that of the samples included")
    axis, dtype = call.operation.axis % value.rank, getattr(torch, call.output.dtype)
    return value.like(call.builder.function(torch.cumsum, value.node, axis, dtype=dtype))


@translates("ops.Reshape")
def reshape(call: Call) -> Value:
    """A reshape that leaves the samples apart."""
    value, wanted = call.input, call.output.shape
    call.require(
        value.shape[:1] == wanted[:1] == (None,)
        and None not in wanted[1:]
        and math.prod(value.sizes) == math.prod(size or 0 for size in wanted[1:]),
        f"it mixes samples: {value.shape} to {wanted}",
    )
    node, axes = reshaped(call.builder, value, wanted)
    return call.result(node, axes)


@translates("ops.Ravel")
def ravel(call: Call) -> Value:
    """All values of all samples in one row."""
    raise call.refusal("it mixes samples")


@translates("ops.Transpose")
def transpose(call: Call) -> Value:
    """Another meaning for the same axes; nothing is moved until it has to be."""
    value = call.input if call.input.flattened is None else call.builder.plain(call.input)
    order = call.operation.axes
    return transposed(call, value, [axis % value.rank for axis in order or reversed(range(value.rank))])


@translates("ops.Swapaxes")
def swap_axes(call: Call) -> Value:
    """Two axes exchanged."""
    value = call.input if call.input.flattened is None else call.builder.plain(call.input)
    order = list(range(value.rank))
    one, other = call.operation.axis1, call.operation.axis2
    order[one], order[other] = order[other], order[one]
    return transposed(call, value, order)


@translates("ops.Moveaxis")
def move_axis(call: Call) -> Value:
    """Axes put elsewhere."""
    value = call.input if call.input.flattened is None else call.builder.plain(call.input)
    order = np.moveaxis(np.empty(range(value.rank)), call.operation.source, call.operation.destination).shape
    return transposed(call, value, list(order))


@translates("ops.ExpandDims")
def expand_dims(call: Call) -> Value:
    """New axes of size 1."""
    value, rank = call.builder.plain(call.input), len(call.output.shape)
    given = call.operation.axis
    node = value.node
    for axis in sorted(one % rank for one in (given if isinstance(given, list | tuple) else (given,))):
        node = call.builder.function(torch.unsqueeze, node, axis)
    return call.result(node)


@translates("ops.Squeeze")
def squeeze(call: Call) -> Value:
    """Axes of size 1 taken away."""
    value, given = call.builder.plain(call.input), call.operation.axis
    if given is None:
        given = [axis for axis, size in enumerate(value.shape) if size == 1]
    axes = tuple(one % value.rank for one in (given if isinstance(given, list | tuple) else (given,)))
    return call.result(call.builder.function(torch.squeeze, value.node, axes))


@translates("ops.Concatenate")
def concatenate(call: Call) -> Value:
    """Tensors one after the other."""
    return concatenated(call, _list(call), call.operation.axis)


@translates("ops.Stack")
def stack(call: Call) -> Value:
    """Tensors along a new axis."""
    values = [call.builder.plain(value) for value in _list(call)]
    axis = call.operation.axis % len(call.output.shape)
    return call.result(call.builder.function(torch.stack, [value.node for value in values], axis))


def _list(call: Call) -> list[Value]:
    """The tensors of an operation that takes a list; constants become tensors of the right type."""
    given = call.args[0] if call.args else next(iter(call.kwargs.values()))
    call.require(isinstance(given, list | tuple), "it is not called with a list")
    call.require(all(isinstance(one, Value) for one in given), "a constant is among its tensors")
    return [call.walk.cast(one, call.output.dtype) for one in given]


@translates("ops.Split")
def split(call: Call) -> list[Value]:
    """A tensor in parts."""
    value = call.input if call.input.flattened is None else call.builder.plain(call.input)
    axis = call.operation.axis % value.rank
    at, results = 0, []
    for position, spec in enumerate(call.outputs):
        size = spec.shape[axis]
        call.require(size is not None, "it splits the samples")
        node = call.builder.function(torch.narrow, value.node, value.at(axis), at, size)
        results.append(call.result(node, value.axes, position))
        at += size or 0
    return results


@translates("ops.Unstack")
def unstack(call: Call) -> list[Value]:
    """The slices along one axis."""
    value = call.builder.plain(call.input)
    axis = call.operation.axis % value.rank
    call.require(value.shape[axis] is not None, "it splits the samples")
    return [
        call.result(call.builder.function(torch.select, value.node, axis, position), position=position)
        for position in range(len(call.outputs))
    ]


@translates("ops.GetItem")
def get_item(call: Call) -> Value:
    """Slices and single positions."""
    value, key = call.builder.plain(call.input), call.argument(1, "key")
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        simple = part is None or part is Ellipsis or (isinstance(part, int) and not isinstance(part, bool))
        if isinstance(part, slice):
            bounds = (part.start, part.stop, part.step)
            simple = all(bound is None or isinstance(bound, int) for bound in bounds) and (part.step or 1) > 0
        call.require(simple, f"torch does not take the index {part!r}")
    first = parts[0]
    call.require(
        value.shape[0] is not None or first is Ellipsis or first == slice(None), "it takes some of the samples apart"
    )
    return call.result(call.builder.function(operator.getitem, value.node, tuple(parts)))


@translates("ops.Roll")
def roll(call: Call) -> Value:
    """Values moved along some axes; those that leave at one end come back at the other."""
    own, value = call.operation, call.input if call.input.flattened is None else call.builder.plain(call.input)
    axes = _axes(call, value)
    shifts = own.shift if isinstance(own.shift, list | tuple) else (own.shift,) * len(axes)
    call.require(0 not in axes, "it mixes samples")
    call.require(len(shifts) == len(axes) and all(isinstance(one, int) for one in shifts), "its shift is not constant")
    return value.like(
        call.builder.function(torch.roll, value.node, tuple(shifts), tuple(value.at(axis) for axis in axes))
    )


@translates("ops.Flip")
def flip(call: Call) -> Value:
    """The order along some axes reversed."""
    value = call.input if call.input.flattened is None else call.builder.plain(call.input)
    axes = tuple(value.at(axis) for axis in _axes(call, value))
    call.require(0 not in _axes(call, value), "it reverses the samples")
    return value.like(call.builder.function(torch.flip, value.node, axes))


@translates("ops.Take")
def take(call: Call) -> Value:
    """Positions along one axis, by constant numbers."""
    value, positions = call.builder.plain(call.input), constant_array(call.argument(1, "indices"))
    axis = call.operation.axis
    call.require(positions is not None and axis is not None, "its positions are not constant")
    assert positions is not None
    axis %= value.rank
    size = value.shape[axis]
    call.require(size is not None, "it takes some of the samples apart")
    call.require(bool(((positions >= -(size or 0)) & (positions < (size or 0))).all()), "its positions lie outside")
    if positions.ndim == 0:
        return call.result(call.builder.function(torch.select, value.node, axis, int(positions)))
    call.require(positions.ndim == 1, "its positions have several axes")
    index = call.builder.constant(f"{call.path}_indices", positions.astype(np.int64) % size)
    return call.result(call.builder.function(torch.index_select, value.node, axis, index))


@translates("ops.Repeat")
def repeat(call: Call) -> Value:
    """Each position several times."""
    value, axis = call.builder.plain(call.input), call.operation.axis
    call.require(axis is not None and isinstance(call.operation.repeats, int), "its repeats differ")
    axis %= value.rank
    call.require(axis > 0, "it repeats samples")
    return call.result(call.builder.function(torch.repeat_interleave, value.node, call.operation.repeats, axis))


@translates("ops.Tile")
def tile(call: Call) -> Value:
    """The whole several times."""
    value, repeats = call.builder.plain(call.input), call.operation.repeats
    repeats = (repeats,) if isinstance(repeats, int) else tuple(repeats)
    call.require(all(isinstance(one, int) for one in repeats), "its repeats are not constant")
    rank = max(value.rank, len(repeats))
    repeats = (1,) * (rank - len(repeats)) + repeats
    call.require(rank == value.rank and repeats[0] == 1, "it repeats samples")
    return call.result(call.builder.function(torch.tile, value.node, repeats))


@translates("ops.BroadcastTo")
def broadcast_to(call: Call) -> Value:
    """Axes of size 1 repeated."""
    value, shape = call.builder.plain(call.input), call.output.shape
    call.require(value.rank == len(shape) and value.shape[0] is None, "it repeats samples")
    sizes = (-1, *(size for size in shape[1:]))
    return call.result(call.builder.graph.call_method("expand", (value.node, *sizes)))


@translates("ops.Pad")
def pad(call: Call) -> Value:
    """Values around a tensor."""
    own, value = call.operation, call.input if call.input.flattened is None else call.builder.plain(call.input)
    widths = own.pad_width
    if isinstance(widths, int):
        widths = (widths,)
    widths = [(one, one) if isinstance(one, int) else tuple(one) for one in widths]
    widths = widths * value.rank if len(widths) == 1 else widths
    widths = [pair * 2 if len(pair) == 1 else pair for pair in widths]
    call.require(len(widths) == value.rank and not any(widths[0]), "it pads the samples")
    if own.mode in ("reflect", "symmetric"):
        return _mirrored(call, value, widths)
    call.require(own.mode == "constant", f"its mode is {own.mode!r}")
    filling = call.argument(2, "constant_values", None)
    number = constant_array(0 if filling is None else filling)
    call.require(number is not None and number.size == 1, "its filling is no number")
    assert number is not None
    order = tuple(int(amount) for axis in reversed(value.axes) for amount in widths[axis])
    node = call.builder.function(torch.nn.functional.pad, value.node, order, mode="constant", value=number.item())
    return call.result(node, value.axes)


def _mirrored(call: Call, value: Value, widths: Sequence[tuple[int, int]]) -> Value:
    node = value.node
    for axis, pair in enumerate(widths):
        if any(pair):
            order = np.pad(np.arange(value.shape[axis] or 0), pair, mode=call.operation.mode)
            index = call.builder.constant(f"{call.path}_axis{axis}", order.astype(np.int64))
            node = call.builder.function(torch.index_select, node, value.at(axis), index)
    return call.result(node, value.axes)


@translates("ops.OneHot")
def one_hot(call: Call) -> Value:
    """A one at the place that a number says; zeros alone for a number that says none."""
    builder, rank = call.builder, len(call.output.shape)
    axis = call.operation.axis % rank
    numbers = call.walk.cast(builder.plain(call.input), "int64")
    shape = tuple(-1 if one == axis else 1 for one in range(rank))
    places = builder.constant(f"{call.path}_places", np.arange(call.operation.num_classes).reshape(shape))
    node = builder.function(torch.eq, builder.function(torch.unsqueeze, numbers.node, axis), places)
    return call.walk.cast(replace(call.result(node), dtype="bool"), call.output.dtype)


@translates("ops.Matmul")
def matmul(call: Call) -> Value:
    """Matrix products; a constant second factor becomes a parameter or a buffer."""
    one, other = _operands(call, 2)
    nodes = _factors(call, (one, other))
    return call.result(call.builder.function(torch.matmul, *nodes))


def _factors(call: Call, operands: Sequence[Any]) -> list[Any]:
    """The operands of a product, in Keras's order of axes and the type of the result."""
    dtype, nodes = call.output.dtype, []
    for operand in operands:
        if isinstance(operand, Value):
            nodes.append(call.builder.plain(call.walk.cast(operand, dtype)).node)
            continue
        array = constant_array(operand)
        call.require(array is not None, "one of its factors is neither a tensor of the model nor a constant")
        assert array is not None
        nodes.append(_constant(call, operand, array, plain_axes(array.ndim), dtype))
    return nodes


@translates("ops.Einsum")
def einsum(call: Call) -> Value:
    """Sums of products."""
    nodes = _factors(call, [one for one in call.args if not isinstance(one, str)])
    subscripts = call.operation.subscripts
    call.require(
        "->" in subscripts and set(subscripts) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.-> "),
        f"its subscripts are {subscripts!r}",
    )
    return call.result(call.builder.function(torch.einsum, subscripts.replace(" ", ""), *nodes))


@translates("ops.Normalize")
def normalize(call: Call) -> Value:
    """Vectors of length 1."""
    own, value = call.operation, call.builder.plain(call.input)
    call.require(own.order == 2 and isinstance(own.axis, int), "it does not divide by the Euclidean norm")
    squares = call.builder.function(torch.square, value.node)
    total = call.builder.function(torch.sum, squares, own.axis % value.rank, keepdim=True)
    scale = call.builder.function(torch.rsqrt, call.builder.function(torch.clamp, total, min=float(own.epsilon) ** 2))
    return value.like(call.builder.function(torch.mul, value.node, scale))


@translates("ops.Norm")
def norm(call: Call) -> Value:
    """Lengths of vectors."""
    own, value = call.operation, call.builder.plain(call.walk.cast(call.input, call.output.dtype))
    axes = own.axis if isinstance(own.axis, list | tuple) else (own.axis,)
    call.require(own.ord in (None, 2, "euclidean") and None not in axes and len(axes) == 1, "it is no Euclidean norm")
    node = call.builder.function(
        torch.linalg.vector_norm, value.node, 2, axes[0] % value.rank, keepdim=bool(own.keepdims)
    )
    return call.result(node)


@translates("ops.Tril", "ops.Triu")
def triangle(call: Call) -> Value:
    """The values on one side of a diagonal."""
    value = call.builder.plain(call.input)
    function = torch.tril if type(call.operation).__name__ == "Tril" else torch.triu
    return value.like(call.builder.function(function, value.node, call.operation.k))
