"""Channels first, as torch has them: transposes move towards the outputs until they cancel.

A model of TensorFlow has its channels last, and its exporter puts each convolution between two transposes. What lies
between, such as activations and sums, does not mind the order of axes. An input that only gets transposed is taken
channels-first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cfi_core.framework import Permutation, inverse
from cfi_translate.program import Operation, Order, Program, Value, constant, prune
from cfi_translate.rewriting.editor import operation
from cfi_translate.rewriting.matching import reduced_axes

_ONE_BY_ONE = {
    *("Abs", "Cast", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign"),
    *("Sin", "Cos", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"),
}
_TOGETHER = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where", "PRelu"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or"),
}
_REDUCTIONS = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSumSquare"}


def to_channels_first(program: Program) -> tuple[Program, tuple[Permutation, ...]]:
    """Moves and cancels transposes.

    Returns:
        The program, and the order in which the axes of each of its inputs come now (None: as before).
    """
    best = _Sinking(program, {}).result
    turned: dict[Value, Value] = {}
    axes: dict[Value, Order] = {}
    for value in program.inputs:
        if value.rank not in (3, 4, 5) or value in program.outputs:
            continue
        order = (0, value.rank - 1, *range(1, value.rank - 1))
        other = _permute(value.name, value, order)
        tried = _Sinking(program, {**turned, value: other}).result
        if _transposes(tried) < _transposes(best):
            best = tried
            turned[value], axes[value] = other, order
    inputs = tuple(turned.get(value, value) for value in program.inputs)
    return replace(program, operations=tuple(best), inputs=inputs), tuple(axes.get(one) for one in program.inputs)


def _transposes(operations: Sequence[Operation]) -> int:
    return sum(one.kind == "Transpose" for one in operations)


def _permute(name: str, value: Value, order: Order) -> Value:
    """A value whose axis `i` is axis `order[i]` of another."""
    shape = None if value.shape is None else tuple(value.shape[axis] for axis in order)
    back = inverse(order)
    return Value(name, value.dtype, shape, multiples={back[axis]: n for axis, n in value.multiples.items()})


def _is_reshape(value: Value, order: Order) -> bool:
    """Whether a transpose moves axes of size 1 only."""
    if value.shape is None:
        return False
    moved = [axis for axis in order if value.shape[axis] != 1]
    return moved == sorted(moved)


class _Sinking:
    """One pass through the operations."""

    def __init__(self, program: Program, inputs: dict[Value, Value]) -> None:
        """Goes through the program.

        Args:
            program: It is not changed.
            inputs: Inputs that come with channels first, and what they are then.
        """
        self._made: list[Operation] = []
        self._same: dict[Value, Value] = {}
        # A value, and of which other one it is the transpose in which order.
        self._turned: dict[Value, tuple[Value, Order]] = {}
        self._makers: dict[Value, Operation] = {}
        self._outputs = set(program.outputs)
        for value, other in inputs.items():
            rank = len(other.shape or ())
            self._turned[value] = (other, inverse((0, rank - 1, *range(1, rank - 1))))
        self._pending = dict.fromkeys(inputs)
        for one in program.operations:
            self._step(one)
        outputs = [self._same.get(value, value) for value in program.outputs]
        self.result = prune(self._made, outputs, lambda op, position, value: not value.is_leaf)

    def _step(self, op: Operation) -> None:
        inputs = [None if value is None else self._same.get(value, value) for value in op.inputs]
        op = replace(op, inputs=tuple(inputs))
        for value in dict.fromkeys(value for value in inputs if value in self._pending):
            # Whoever wants an input as it was gets it transposed back.
            assert value is not None
            del self._pending[value]
            source, order = self._turned[value]
            name = f"{value.name}_transpose"
            self._emit(operation("Transpose", op, [source], outputs=[value], name=name, perm=order))
        if op.kind == "Transpose" and self._transpose(op):
            return
        mover = self._mover(op)
        if mover is None or not mover(op):
            self._emit(self._join(op))

    def _emit(self, op: Operation) -> None:
        self._made.append(op)
        self._makers.update({value: op for value in op.outputs if value is not None})

    def _join(self, op: Operation) -> Operation:
        """A reshape of a reshape is a reshape."""
        kinds = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
        if op.kind not in kinds or op.inputs[0] is None or op.output.shape is None:
            return op
        before = self._makers.get(op.inputs[0])
        if before is None or before.kind not in kinds:
            return op
        return operation("Reshape", op, [before.inputs[0]])

    def _transpose(self, op: Operation) -> bool:
        value = op.inputs[0]
        if value is None or value.rank is None:
            return False
        order = tuple(op.attributes.get("perm") or reversed(range(value.rank)))
        source, before = self._turned.get(value, (value, tuple(range(value.rank))))
        total = tuple(before[axis] for axis in order)
        if total == tuple(range(value.rank)) and op.output not in self._outputs:
            self._same[op.output] = source
            return True
        if _is_reshape(source, total):
            self._emit(self._join(operation("Reshape", op, [source])))
            if total != tuple(range(value.rank)):
                self._turned[op.output] = (source, total)
            return True
        self._turned[op.output] = (source, total)
        self._emit(operation("Transpose", op, [source], perm=total))
        return True

    def _mover(self, op: Operation) -> Callable[[Operation], bool] | None:
        if op.version < 7 and "broadcast" in op.attributes:
            return None
        if op.kind in _ONE_BY_ONE or op.kind in _TOGETHER:
            return self._elementwise
        if op.kind in _REDUCTIONS:
            return self._reduce
        if op.kind == "Concat" or (op.kind in ("Softmax", "LogSoftmax") and op.version >= 13):
            return self._along_axis
        if op.kind == "Pad":
            return self._pad
        return None

    def _order(self, op: Operation) -> Permutation:
        """The order in which the largest of the inputs are transposes of others."""
        turned = [one for one in op.inputs if one is not None and one in self._turned and one.rank == op.output.rank]
        return self._turned[max(turned, key=_size)][1] if turned else None

    def _elementwise(self, op: Operation) -> bool:
        order = self._order(op)
        if order is None:
            return False
        largest = max(_size(one) for one in op.inputs if one is not None and one in self._turned)
        count = 1 if op.kind in _ONE_BY_ONE else len(op.inputs)
        sources = [self._source(op, value, order, largest) for value in op.inputs[:count]]
        if None in sources:
            return False
        self._sink(op, [*sources, *op.inputs[count:]], order)
        return True

    def _source(self, op: Operation, value: Value | None, order: Order, largest: int) -> Value | None:
        """What a value is the transpose of; where it is small enough, it is transposed back for that."""
        if value is None or value.rank is None:
            return None
        if value in self._turned and self._turned[value][1] == order:
            return self._turned[value][0]
        known = value.constant
        if known is not None:
            if known.ndim == 0:
                return value
            full = known.reshape((1,) * (len(order) - known.ndim) + known.shape)
            return constant(f"{value.name}_transposed", full.transpose(inverse(order)))
        if value.rank != len(order) or _size(value) >= largest:
            return None
        back = _permute(f"{value.name}_back", value, inverse(order))
        name = f"{op.name}_transpose"
        self._transpose(operation("Transpose", op, [value], outputs=[back], name=name, perm=inverse(order)))
        return self._same.get(back, back)

    def _sink(self, op: Operation, sources: Sequence[Value | None], order: Order, **attributes: Any) -> None:
        """The operation on what its inputs are transposes of, and the transpose behind it."""
        inner = _permute(f"{op.output.name}_channels_first", op.output, inverse(order))
        self._emit(replace(op, inputs=tuple(sources), outputs=(inner,), attributes={**op.attributes, **attributes}))
        self._turned[op.output] = (inner, order)
        kind, how = ("Reshape", {}) if _is_reshape(inner, order) else ("Transpose", {"perm": order})
        self._emit(operation(kind, op, [inner], outputs=[op.output], name=f"{op.name}_transpose", **how))

    def _along_axis(self, op: Operation) -> bool:
        order = self._order(op)
        if order is None:
            return False
        sources: list[Value | None] = []
        for value in op.inputs:
            is_turned = value is not None and value in self._turned and self._turned[value][1] == order
            if not is_turned and (value is None or not value.is_constant or value.rank != len(order)):
                return False
            sources.append(self._source(op, value, order, 0))
        axis = op.attributes["axis"] % len(order)
        self._sink(op, sources, order, axis=order[axis])
        return True

    def _reduce(self, op: Operation) -> bool:
        value, axes = op.inputs[0], reduced_axes(op)
        if value is None or value not in self._turned or axes is None:
            return False
        source, order = self._turned[value]
        inner_axes = sorted(order[axis] for axis in axes)
        places = constant(f"{op.name}.axes", np.array(inner_axes, np.int64))
        is_input = "axes" not in op.attributes
        sources = [source, places] if is_input else [source]
        attributes = {} if is_input else {"axes": tuple(inner_axes)}
        if op.attributes["keepdims"]:
            self._sink(op, sources, order, **attributes)
            return True
        kept = [order[axis] for axis in range(len(order)) if axis not in axes]
        if kept != sorted(kept):
            return False
        self._emit(replace(op, inputs=tuple(sources), attributes={**op.attributes, **attributes}))
        return True

    def _pad(self, op: Operation) -> bool:
        value = op.inputs[0]
        pads = op.input(1)
        known = None if pads is None else pads.constant
        if value is None or value not in self._turned or known is None or op.input(3) is not None:
            return False
        source, order = self._turned[value]
        if len(known) != 2 * len(order):
            return False
        back = inverse(order)
        halves = [half[list(back)] for half in np.split(known, 2)]
        inner = constant(f"{op.name}.pads", np.concatenate(halves))
        self._sink(op, [source, inner, *op.inputs[2:]], order)
        return True


def _size(value: Value) -> int:
    """Number of elements for one sample."""
    return int(np.prod([size for size in value.shape or () if size is not None]))
