"""Builds the Keras model, operation by operation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import keras
import numpy as np
from keras import layers, ops

from cfi_core.contract import Converted
from cfi_core.framework import Permutation
from cfi_translate.failures import failure
from cfi_translate.grammar import Refusal, require
from cfi_translate.names import claim
from cfi_translate.onnx_keras.keras_faults import add
from cfi_translate.onnx_keras.table import operator
from cfi_translate.onnx_keras.tensors import Tensor, channels_last, identity
from cfi_translate.program import Operation, Order, Program, Value
from cfi_translate.semantics.values import shape_of
from cfi_translate.translators import ONNX_KERAS

TYPES = frozenset(
    ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
)
_A_PRIME = 1_000_003  # stands for the number of samples where sizes are factored


class KerasBuilder:
    """What has been built so far, and the steps that operations of all families need.

    Layers and operations that are made on the way are named after the operation at hand.

    Attributes:
        program: The operations to build.
        users: Of each value.
    """

    def __init__(self, program: Program, inputs: Sequence[np.ndarray], layouts: Sequence[Order]) -> None:
        self.program = program
        self.users = program.users()
        self._at = ""
        self._tensors: dict[Value, Tensor] = {}
        self._taken: set[str] = set()
        self._named: WeakSet[Any] = WeakSet()
        self._before_reshape: dict[int, Any] = {}
        self._kept: list[Any] = []
        self._layouts = tuple(layouts)
        self._inputs = []
        for value, array, axes in zip(program.inputs, inputs, layouts, strict=True):
            if str(value.dtype) not in TYPES:
                raise failure(ONNX_KERAS, f"takes numbers, and input {value.name!r} is of type {value.dtype}")
            shape = [array.shape[axis] for axis in axes]
            if program.free:
                shape[0] = None
            made = keras.Input(batch_shape=tuple(shape), dtype=str(value.dtype), name=self._new_name(value.name))
            self._inputs.append(made)
            self._tensors[value] = Tensor(made, axes)

    # Names

    def _new_name(self, wanted: str) -> str:
        """A name that Keras allows and no other layer has."""
        plain = re.sub(r"[^\w.\-]", "_", wanted.strip("/")) or "_"
        return claim(plain, self._taken)

    def name(self, suffix: str = "") -> str:
        """A name for a layer of the operation at hand."""
        return self._new_name(f"{self._at}{suffix}")

    def give_name(self, made: Any, suffix: str = "") -> Any:
        """Gives the operation that made a tensor the name of the operation at hand, unless it has one."""
        maker = made._keras_history.operation
        if not isinstance(maker, layers.Layer) and maker not in self._named:
            maker.name = self.name(suffix)
            self._named.add(maker)
        return made

    def layer(self, make: Callable[..., Any], value: Any, *settings: Any, suffix: str = "", **options: Any) -> Any:
        """Calls a new layer of the type of what it is called on.

        Args:
            make: The layer's class.
            value: A Keras tensor, or a list of them.
            settings: Arguments of the layer.
            suffix: Of its name, where it is not the operation's last.
            options: Keyword arguments of the layer.
        """
        first = value[0] if isinstance(value, list) else value
        return make(*settings, dtype=str(first.dtype), name=self.name(suffix), **options)(value)

    # Values

    def tensor(self, value: Value | None) -> Tensor:
        """The tensor of a value, however its axes stand."""
        found = self.tensor_as_it_lies(value)
        if found.order is not None:
            return Tensor(ops.take(found.value, np.argsort(found.order), axis=-1), found.axes)
        return found

    def tensor_as_it_lies(self, value: Value | None) -> Tensor:
        """The tensor of a value; it may be flattened in another order than in the ONNX model."""
        if value is None:
            raise Refusal("an input that is needed is left out")
        if value not in self._tensors:
            require(value.known, f"its input {value.name!r} is no tensor of numbers")
            self._tensors[value] = self._materialise(value)
        return self._tensors[value]

    def floats(self, value: Value) -> Tensor:
        """The tensor of a value of floating point numbers."""
        require(value.is_float, f"only floating-point tensors are supported, and this one is {value.dtype}")
        return self.tensor(value)

    def operand(self, value: Value) -> Tensor | np.ndarray:
        """A tensor, or the array of a constant; of a constant per sample, for one sample."""
        if value.constant is not None:
            return value.constant
        if value not in self._tensors and (found := _per_sample(value)) is not None:
            return found[1]
        return self.tensor(value)

    def _materialise(self, value: Value) -> Tensor:
        """A known array as a tensor of the model: added to zeros that are made from an input."""
        fixed = value.constant
        axis, array = (0, fixed) if fixed is not None else _per_sample(value) or (0, None)
        if array is None:
            raise Refusal(f"{value.name!r} depends on the number of samples in a way that cannot be kept")
        possible = str(array.dtype) in TYPES and bool(self._inputs)
        require(possible, f"a constant of type {array.dtype} cannot be a tensor")
        source = self._inputs[0]
        zeros = source
        if source.shape and not (fixed is None and len(source.shape) == 1):
            first = slice(None) if fixed is None else slice(0, 1)
            zeros = source[(first, *(slice(0, 1) for _ in source.shape[1:]))]
        require(0 not in zeros.shape, "it makes a constant tensor out of an empty input")
        zeros = ops.zeros_like(zeros, dtype=str(array.dtype))
        zeros = ops.reshape(zeros, [-1 if fixed is None and one == axis else 1 for one in range(array.ndim)])
        made = ops.logical_or(zeros, array) if array.dtype == bool else add(zeros, array)
        made._keras_history.operation.name = self._new_name(value.name)
        self._named.add(made._keras_history.operation)
        return Tensor(made, identity(array.ndim))

    # Orders of axes

    def lay(self, tensor: Tensor, axes: Order) -> Any:
        """The Keras tensor with its axes in a given order."""
        if tensor.axes == axes:
            return tensor.value
        permutation = tuple(tensor.axes.index(axis) for axis in axes)
        shape = tensor.value.shape
        moved = [axis for axis in permutation if shape[axis] != 1]
        if moved == sorted(moved):
            return self.reshape(tensor.value, [shape[axis] for axis in permutation], ".reshape")
        if permutation[0] == 0 and len(permutation) > 1 and tensor.is_float:
            return self.layer(layers.Permute, tensor.value, permutation[1:], suffix=".permute")
        return self.give_name(ops.transpose(tensor.value, permutation), ".transpose")

    def plain(self, value: Value) -> Any:
        """The Keras tensor of a value with its axes as in the ONNX model."""
        tensor = self.tensor(value)
        return self.lay(tensor, identity(tensor.rank))

    def image(self, value: Value) -> Any:
        """The Keras tensor of a value of floating point numbers with its channels last."""
        tensor = self.floats(value)
        require(3 <= tensor.rank <= 5, f"only tensors of 3 to 5 axes are supported, and this one has {tensor.rank}")
        return self.lay(tensor, channels_last(tensor.rank))

    def align(self, values: Sequence[Value], rank: int) -> tuple[list[Any], Order]:
        """Brings operands into one order of axes, so that they broadcast as in ONNX.

        Returns:
            Keras tensors and arrays, and the order of their axes.
        """
        operands = [self.operand(value) for value in values]
        if all(isinstance(one, np.ndarray) for one in operands):
            operands[0] = self.tensor(values[0])
        full = [one for one in operands if isinstance(one, Tensor) and one.rank == rank]
        axes = max(full, key=_extent).axes if full else identity(rank)
        return [self._align(one, axes) for one in operands], axes

    def _align(self, operand: Tensor | np.ndarray, axes: Order) -> Any:
        rank = len(axes)
        if isinstance(operand, np.ndarray):
            if operand.ndim == 0:
                return operand
            shape = (1,) * (rank - operand.ndim) + operand.shape
            turned = operand.reshape(shape).transpose(axes)
            keep = next((i for i, size in enumerate(turned.shape) if size != 1), turned.ndim - 1)
            return np.ascontiguousarray(turned.reshape(turned.shape[keep:]))
        missing = rank - operand.rank
        own = tuple(axis - missing for axis in axes if axis >= missing)
        value = self.lay(operand, own)
        if all(axis < missing for axis in axes[:missing]):
            return value
        sizes = dict(zip(own, value.shape, strict=True))
        full: list[int | None] = [sizes[axis - missing] if axis >= missing else 1 for axis in axes]
        return self.reshape(value, full, ".reshape")

    # Reshaping

    def reshape(self, tensor: Any, shape: Sequence[int | None], suffix: str = "") -> Any:
        """Reshapes a Keras tensor; two reshapes in a row are one, and one that changes nothing is none."""
        source = self._before_reshape.get(id(tensor), tensor)
        if tuple(source.shape) == tuple(shape):
            return source
        require(list(shape).count(None) < 2, "two sizes would follow the number of samples")
        is_float = "float" in str(source.dtype)
        kept = bool(shape) and bool(source.shape) and source.shape[0] == shape[0] and None not in shape[1:]
        if kept and len(shape) > 1 and is_float and math.prod(_sizes(shape[1:])) == math.prod(_sizes(source.shape[1:])):
            if len(shape) == 2 and len(source.shape) > 2:
                made = self.layer(layers.Flatten, source, data_format="channels_last", suffix=suffix)
            else:
                made = self.layer(layers.Reshape, source, tuple(shape[1:]), suffix=suffix)
        else:
            made = self.give_name(ops.reshape(source, [-1 if one is None else one for one in shape]), suffix)
        self._before_reshape[id(made)] = source
        self._kept.append(made)  # or its id would be given to another
        return made

    def regroup(self, tensor: Tensor, value: Value, target: Value, *, as_it_lies: bool = False) -> Tensor:
        """Reshapes as in ONNX, with as little transposing as possible.

        Args:
            tensor: The tensor of `value`.
            value: What is reshaped.
            target: What it becomes.
            as_it_lies: A channels-last image may be flattened without bringing the channels to the front.
        """
        before, after = _sizes_of(value), _sizes_of(target)
        same = math.prod(before) == math.prod(after)
        require(same, "the number of samples changes in a way that cannot be kept")
        return self._regroup(tensor, before, after, "", as_it_lies=as_it_lies)

    def _regroup(
        self, tensor: Tensor, before: Sequence[int], after: Sequence[int], suffix: str, *, as_it_lies: bool = False
    ) -> Tensor:
        sizes = [None if one % _A_PRIME == 0 and one else one for one in after]
        if not before or not after or 0 in before:
            made = self.reshape(self.lay(tensor, identity(tensor.rank)), sizes, suffix)
            return Tensor(made, identity(len(after)))
        groups = _groups(before, after)
        if as_it_lies and len(after) == 2 and len(groups) == 2 and tensor.axes[0] == 0 and groups[0] == ([0], [0]):
            within = [axis - 1 for axis in tensor.axes[1:]]
            order = np.arange(math.prod(before[1:])).reshape(before[1:]).transpose(within).reshape(-1)
            is_plain = (np.diff(order) == 1).all()
            return Tensor(self.reshape(tensor.value, sizes, suffix), (0, 1), None if is_plain else order)
        place = {axis: position for position, axis in enumerate(tensor.axes)}
        groups.sort(key=lambda group: min((place[a] for a in group[0] if before[a] != 1), default=place[group[0][0]]))
        wanted = tuple(axis for group in groups for axis in group[0])
        axes = tuple(axis for group in groups for axis in group[1])
        made = self.reshape(self.lay(tensor, wanted), [sizes[axis] for axis in axes], suffix)
        return Tensor(made, axes)

    def split_axis(self, tensor: Tensor, axis: int, sizes: Sequence[int], suffix: str = ".split") -> Tensor:
        """One axis becomes several."""
        before = _sizes(tensor.sizes)
        return self._regroup(tensor, before, [*before[:axis], *sizes, *before[axis + 1 :]], suffix)

    def merge_axes(self, tensor: Tensor, axis: int, count: int, suffix: str = ".merge") -> Tensor:
        """Some axes that follow each other become one."""
        before = _sizes(tensor.sizes)
        after = [*before[:axis], math.prod(before[axis : axis + count]), *before[axis + count :]]
        return self._regroup(tensor, before, after, suffix)

    # Steps

    def step(self, operation: Operation) -> None:
        """Builds one operation.

        Raises:
            TranslationError: It is not supported.
        """
        wanted = [one for one in operation.results if one in self.users or one in self.program.outputs]
        if wanted and all(one.known for one in wanted):
            return  # known; it is made where it is needed
        self._at = operation.name
        with operator.name_refusals(operation):
            for value in (*operation.operands, *operation.results):
                require(value.dtype is None or str(value.dtype) in TYPES, f"it works on {value.dtype}")
            built = operator.convert(operation.kind, operation, self, *operation.inputs)
            results = [built] if isinstance(built, Tensor) else list(built)
            for value in wanted:
                position = operation.outputs.index(value)
                made = results[position] if position < len(results) else None
                if made is None:
                    raise Refusal(f"its output number {position} is not supported")
                self.give_name(made.value)
                self._tensors[value] = _check(made, value)
            if operation.ends_module and len(wanted) == 1:
                self._tensors[wanted[0]] = self._as_layer(self._tensors[wanted[0]], operation)

    def _as_layer(self, tensor: Tensor, operation: Operation) -> Tensor:
        """The output of a module as that of a layer: where it comes from none, of an Identity layer of that name."""
        value, name = tensor.value, operation.name
        self._before_reshape.pop(id(value), None)  # or a reshape after it would go around the layer
        maker = value._keras_history.operation
        if not tensor.is_float or (isinstance(maker, layers.Layer) and not isinstance(maker, layers.InputLayer)):
            return tensor
        if maker.name == name:
            maker.name = self.name(f".{operation.kind}")
        else:
            name = self.name()
        return replace(tensor, value=layers.Identity(dtype=tensor.dtype, name=name)(value))

    def finish(self) -> Converted:
        """The model.

        Raises:
            TranslationError: An output is a constant.
        """
        outputs: list[Any] = []
        turns: list[Permutation] = []
        for value in self.program.outputs:
            self._at = value.name
            try:
                tensor = self.tensor(value)
            except Refusal as error:
                raise failure(ONNX_KERAS, f"cannot make output {value.name!r}: {error}") from error
            last = 3 <= tensor.rank <= 5 and tensor.axes == channels_last(tensor.rank)
            made = tensor.value if last else self.lay(tensor, identity(tensor.rank))
            if any(made is one for one in (*self._inputs, *outputs)):
                made = self.layer(layers.Identity, made, suffix=".output")
            outputs.append(made)
            turns.append(tensor.axes if last else None)
        ends = (self._inputs, outputs)
        # A list of one input would make Keras warn whenever the model is called with a tensor.
        model = keras.Model(*(one[0] if len(one) == 1 else one for one in ends))
        inputs = tuple(None if axes == identity(len(axes)) else axes for axes in self._layouts)
        return Converted(model, inputs, tuple(turns))


def _per_sample(value: Value) -> tuple[int, np.ndarray] | None:
    """The axis along which a known array repeats for each sample, and the array for one sample."""
    if value.shape is None or value.shape.count(None) != 1:
        return None
    axis = value.shape.index(None)
    first = value.repeated_along(axis)
    return None if first is None else (axis, first)


def _sizes_of(value: Value) -> list[int]:
    """Sizes, with a large prime for the number of samples."""
    return [value.multiples[axis] * _A_PRIME if one is None else one for axis, one in enumerate(shape_of(value))]


def _sizes(shape: Sequence[int | None]) -> list[int]:
    return [_A_PRIME if one is None else one for one in shape]


def _extent(tensor: Tensor) -> tuple[int, bool]:
    return math.prod(one or _A_PRIME for one in tensor.value.shape), tensor.axes != identity(tensor.rank)


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes that become axes of the same total size, as small as possible."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        old, new, left, right = [i], [j], before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left *= before[i]
                old.append(i)
                i += 1
            else:
                right *= after[j]
                new.append(j)
                j += 1
        groups.append((old, new))
    groups[-1][0].extend(range(i, len(before)))
    groups[-1][1].extend(range(j, len(after)))
    return groups


def _check(tensor: Tensor, value: Value) -> Tensor:
    """The tensor, if its type and shape are those that ONNX says."""
    shape = shape_of(value)
    require(tensor.dtype == str(value.dtype), f"Keras computes it in {tensor.dtype} instead of {value.dtype}")
    is_whole = sorted(tensor.axes) == list(range(len(shape)))
    require(is_whole, f"Keras gives it {tensor.rank} axes instead of {len(shape)}")
    fits = all(found in (None, wanted) for found, wanted in zip(tensor.sizes, shape, strict=True))
    require(fits, f"Keras gives it the shape {tensor.sizes} instead of {shape}")
    return tensor
