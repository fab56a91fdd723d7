"""Builds the Keras model, operation by operation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from onnx import ModelProto

from cfi_core.contract import Converted
from cfi_core.errors import TranslationError
from cfi_translate.failures import failure, refusal
from cfi_translate.grammar import Refusal
from cfi_translate.names import unique
from cfi_translate.onnx_keras import NAME
from cfi_translate.onnx_keras.keras_faults import add
from cfi_translate.onnx_keras.tensors import Axes, Tensor, Unsupported, channels_last, identity
from cfi_translate.program import Operation, Program, Value
from cfi_translate.reading import read
from cfi_translate.rewriting import rewrite

Built = Tensor | Sequence[Tensor | None]
Handler = Callable[["Builder", Operation], Built]

TYPES = frozenset(
    ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
)
_A_PRIME = 1_000_003  # stands for the number of samples where sizes are factored


def build(model: ModelProto, inputs: Sequence[np.ndarray]) -> Converted:
    """Reads the model and builds it anew in Keras.

    Raises:
        TranslationError: An operator, or a way to use it, is not supported.
    """
    from cfi_translate.onnx_keras.layouts import input_layouts
    from cfi_translate.onnx_keras.operators import OPERATORS

    _check(model)
    program = rewrite(read(model, inputs, NAME, OPERATORS.__contains__))
    builder = Builder(program, inputs, input_layouts(program))
    for operation in program.operations:
        builder.step(operation, OPERATORS)
    return builder.finished()


def _check(model: ModelProto) -> None:
    """Refuses what ONNX defines by other operators, and ONNX Runtime computes otherwise."""
    for node in model.graph.node:
        causal = any(one.name == "is_causal" and one.i for one in node.attribute)
        if node.op_type == "Attention" and causal and len(node.output) > 3 and node.output[3]:
            raise refusal(NAME, node, "what a causal mask leaves in its fourth output differs between runtimes")


class Builder:
    """What has been built so far, and the steps that operations of all families need.

    Attributes:
        program: The operations to build.
        users: Of each value.
    """

    def __init__(self, program: Program, inputs: Sequence[np.ndarray], layouts: Sequence[Axes]) -> None:
        self.program = program
        self.users = program.users()
        self._tensors: dict[Value, Tensor] = {}
        self._taken: set[str] = set()
        self._before_reshape: dict[int, Any] = {}
        self._kept: list[Any] = []
        self._layouts = tuple(layouts)
        self._inputs = []
        for value, array, axes in zip(program.inputs, inputs, layouts, strict=True):
            if str(value.dtype) not in TYPES:
                raise failure(NAME, f"takes numbers, and input {value.name!r} is of type {value.dtype}")
            shape = [array.shape[axis] for axis in axes]
            if program.free:
                shape[0] = None
            made = keras.Input(batch_shape=tuple(shape), dtype=str(value.dtype), name=self.name(value.name))
            self._inputs.append(made)
            self._tensors[value] = Tensor(made, axes)

    # Names

    def name(self, wanted: str) -> str:
        """A name that Keras allows and no other layer has."""
        plain = re.sub(r"[^\w.\-]", "_", wanted.strip("/")) or "_"
        made = unique(plain, self._taken)
        self._taken.add(made)
        return made

    def named(self, made: Any, name: str) -> Any:
        """Gives the operation that made a tensor (or tensors) its name."""
        first = made[0] if isinstance(made, list | tuple) else made
        first._keras_history.operation.name = self.name(name)
        return made

    # Values

    def has(self, value: Value) -> bool:
        """Whether the value is a tensor of the model, not a known array."""
        return value in self._tensors

    def tensor(self, value: Value | None) -> Tensor:
        """The tensor of a value, however its axes stand."""
        found = self.scrambled(value)
        if found.order is not None:
            back = np.argsort(found.order)
            return Tensor(ops.take(found.value, back, axis=-1), found.axes)
        return found

    def scrambled(self, value: Value | None) -> Tensor:
        """The tensor of a value; it may be flattened in another order than in the ONNX model."""
        if value is None:
            raise Unsupported("an input that is needed is left out")
        if value in self._tensors:
            return self._tensors[value]
        if value.known:
            self._tensors[value] = self._materialised(value)
            return self._tensors[value]
        raise Unsupported(f"its input {value.name!r} is no tensor of numbers")

    def array(self, value: Value | None, what: str) -> np.ndarray:
        """A constant.

        Raises:
            Unsupported: It is not constant.
        """
        found = None if value is None else value.constant
        if found is None:
            raise Unsupported(f"only a constant {what} is supported")
        return found

    def operand(self, value: Value) -> Tensor | np.ndarray:
        """A tensor, or the array of a constant; of a constant per sample, for one sample."""
        if value.constant is not None:
            return value.constant
        if value not in self._tensors and (found := _per_sample(value)) is not None:
            return found[1]
        return self.tensor(value)

    def _materialised(self, value: Value) -> Tensor:
        """A known array as a tensor of the model: added to zeros that are made from an input."""
        fixed = value.constant
        axis, array = (0, fixed) if fixed is not None else _per_sample(value) or (0, None)
        if array is None:
            raise Unsupported(f"{value.name!r} depends on the number of samples in a way that cannot be kept")
        if str(array.dtype) not in TYPES or not self._inputs:
            raise Unsupported(f"a constant of type {array.dtype} cannot be a tensor")
        source = self._inputs[0]
        zeros = source
        if source.shape and not (fixed is None and len(source.shape) == 1):
            first = slice(None) if fixed is None else slice(0, 1)
            zeros = source[(first, *(slice(0, 1) for _ in source.shape[1:]))]
        if any(size == 0 for size in zeros.shape):
            raise Unsupported("it makes a constant tensor out of an empty input")
        zeros = ops.zeros_like(zeros, dtype=str(array.dtype))
        if fixed is None:
            zeros = ops.reshape(zeros, [-1 if one == axis else 1 for one in range(array.ndim)])
        else:
            zeros = ops.reshape(zeros, (1,) * array.ndim)
        made = ops.logical_or(zeros, array) if array.dtype == bool else add(zeros, array)
        return Tensor(self.named(made, value.name), identity(array.ndim))

    # Orders of axes

    def laid(self, tensor: Tensor, axes: Axes, name: str) -> Any:
        """The Keras tensor with its axes in a given order; `name` is that of the operation that needs it so."""
        if tensor.axes == axes:
            return tensor.value
        permutation = tuple(tensor.axes.index(axis) for axis in axes)
        shape = tensor.value.shape
        moved = [axis for axis in permutation if shape[axis] != 1]
        if moved == sorted(moved):
            return self.reshape(tensor.value, [shape[axis] for axis in permutation], f"{name}.reshape")
        if permutation[0] == 0 and len(permutation) > 1 and tensor.is_float:
            return layers.Permute(permutation[1:], dtype=tensor.dtype, name=self.name(f"{name}.permute"))(tensor.value)
        return self.named(ops.transpose(tensor.value, permutation), f"{name}.transpose")

    def plain(self, value: Value | None, name: str) -> Any:
        """The Keras tensor of a value with its axes as in the ONNX model."""
        tensor = self.tensor(value)
        return self.laid(tensor, identity(tensor.rank), name)

    def image(self, value: Value | None, name: str) -> Any:
        """The Keras tensor of a value with its channels last."""
        tensor = self.tensor(value)
        if not 3 <= tensor.rank <= 5:
            raise Unsupported(f"only tensors of 3 to 5 axes are supported, and this one has {tensor.rank}")
        return self.laid(tensor, channels_last(tensor.rank), name)

    def common(self, values: Sequence[Value], rank: int, name: str) -> tuple[list[Any], Axes]:
        """Brings operands into one order of axes, so that they broadcast as in ONNX.

        Returns:
            Keras tensors and arrays, and the order of their axes.
        """
        operands = [self.operand(value) for value in values]
        if all(isinstance(one, np.ndarray) for one in operands):
            operands[0] = self.tensor(values[0])
        full = [one for one in operands if isinstance(one, Tensor) and one.rank == rank]
        axes = max(full, key=_extent).axes if full else identity(rank)
        return [self._aligned(one, axes, name) for one in operands], axes

    def _aligned(self, operand: Tensor | np.ndarray, axes: Axes, name: str) -> Any:
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
        value = self.laid(operand, own, name)
        if all(axis < missing for axis in axes[:missing]):
            return value
        sizes = dict(zip(own, value.shape, strict=True))
        full: list[int | None] = [sizes[axis - missing] if axis >= missing else 1 for axis in axes]
        return self.reshape(value, full, f"{name}.reshape")

    # Reshaping

    def reshape(self, tensor: Any, shape: Sequence[int | None], name: str) -> Any:
        """Reshapes a Keras tensor; two reshapes in a row are one, and one that changes nothing is none."""
        source = self._before_reshape.get(id(tensor), tensor)
        if tuple(source.shape) == tuple(shape):
            return source
        if list(shape).count(None) > 1:
            raise Unsupported("two sizes would follow the number of samples")
        is_float = "float" in str(source.dtype)
        kept = bool(shape) and bool(source.shape) and source.shape[0] == shape[0] and None not in shape[1:]
        if kept and len(shape) > 1 and is_float and math.prod(_sizes(shape[1:])) == math.prod(_sizes(source.shape[1:])):
            flat = len(shape) == 2 and len(source.shape) > 2
            layer = (
                layers.Flatten(data_format="channels_last", dtype=str(source.dtype), name=self.name(name))
                if flat
                else layers.Reshape(tuple(shape[1:]), dtype=str(source.dtype), name=self.name(name))
            )
            made = layer(source)
        else:
            made = self.named(ops.reshape(source, [-1 if one is None else one for one in shape]), name)
        self._before_reshape[id(made)] = source
        self._kept.append(made)  # or its id would be given to another
        return made

    def reshaped(self, tensor: Tensor, value: Value, target: Value, name: str, *, as_it_lies: bool = False) -> Tensor:
        """Reshapes as in ONNX, with as little transposing as possible.

        Args:
            tensor: The tensor of `value`.
            value: What is reshaped.
            target: What it becomes.
            name: Of the operation.
            as_it_lies: A channels-last image may be flattened without bringing the channels to the front.
        """
        before, after = _counted(value), _counted(target)
        if math.prod(before) != math.prod(after):
            raise Unsupported("the number of samples changes in a way that cannot be kept")
        return self._regrouped(tensor, before, after, name, as_it_lies=as_it_lies)

    def _regrouped(
        self, tensor: Tensor, before: Sequence[int], after: Sequence[int], name: str, *, as_it_lies: bool
    ) -> Tensor:
        sizes = [None if one % _A_PRIME == 0 and one else one for one in after]
        if not before or not after or 0 in before:
            made = self.reshape(self.laid(tensor, identity(tensor.rank), name), sizes, name)
            return Tensor(made, identity(len(after)))
        groups = _groups(before, after)
        order = None
        if as_it_lies and len(after) == 2 and len(groups) == 2 and tensor.axes[0] == 0 and groups[0] == ([0], [0]):
            within = [axis - 1 for axis in tensor.axes[1:]]
            order = np.arange(math.prod(before[1:])).reshape(before[1:]).transpose(within).reshape(-1)
            order = None if (np.diff(order) == 1).all() else order
            return Tensor(self.reshape(tensor.value, sizes, name), (0, 1), order)
        place = {axis: position for position, axis in enumerate(tensor.axes)}
        groups.sort(key=lambda group: min((place[a] for a in group[0] if before[a] != 1), default=place[group[0][0]]))
        wanted = tuple(axis for group in groups for axis in group[0])
        axes = tuple(axis for group in groups for axis in group[1])
        made = self.reshape(self.laid(tensor, wanted, name), [sizes[axis] for axis in axes], name)
        return Tensor(made, axes)

    def split_axis(self, tensor: Tensor, axis: int, sizes: Sequence[int], name: str) -> Tensor:
        """One axis becomes several."""
        before = [_A_PRIME if one is None else one for one in tensor.sizes]
        after = [*before[:axis], *sizes, *before[axis + 1 :]]
        return self._regrouped(tensor, before, after, name, as_it_lies=False)

    def merge_axes(self, tensor: Tensor, axis: int, count: int, name: str) -> Tensor:
        """Some axes that follow each other become one."""
        before = [_A_PRIME if one is None else one for one in tensor.sizes]
        after = [*before[:axis], math.prod(before[axis : axis + count]), *before[axis + count :]]
        return self._regrouped(tensor, before, after, name, as_it_lies=False)

    # Steps

    def step(self, operation: Operation, operators: Mapping[str, Handler]) -> None:
        """Builds one operation.

        Raises:
            TranslationError: It is not supported.
        """
        wanted = [one for one in operation.outputs if one is not None and (one in self.users or self._is_result(one))]
        if wanted and all(one.known for one in wanted):
            return  # known; it is made where it is needed
        try:
            if operation.kind not in operators:
                raise Unsupported("it has no counterpart in Keras that is known to come out right")
            for value in (*operation.inputs, *operation.outputs):
                if value is not None and value.dtype is not None and str(value.dtype) not in TYPES:
                    raise Unsupported(f"it works on {value.dtype}")
            built = operators[operation.kind](self, operation)
            results = [built] if isinstance(built, Tensor) else list(built)
            for position, value in enumerate(operation.outputs):
                if value is None or value not in wanted:
                    continue
                made = results[position] if position < len(results) else None
                if made is None:
                    raise Unsupported(f"its output number {position} is not supported")
                self._tensors[value] = _checked(made, value)
            if operation.ends_module and len(wanted) == 1:
                self._tensors[wanted[0]] = self._as_layer(self._tensors[wanted[0]], operation)
        except (Unsupported, Refusal) as error:
            raise failure(
                NAME, f"cannot translate operator {operation.kind} (node {operation.name!r}): {error}"
            ) from error
        except TranslationError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[:1] or ["no message"]
            raise failure(
                NAME,
                f"cannot translate operator {operation.kind} (node {operation.name!r}): Keras refuses it ({reason[0][:200]})",
            ) from error

    def _as_layer(self, tensor: Tensor, operation: Operation) -> Tensor:
        """The output of a module as that of a layer: where it comes from none, of an Identity layer of that name."""
        value, name = tensor.value, operation.name
        self._before_reshape.pop(id(value), None)  # or a reshape after it would go around the layer
        maker = value._keras_history.operation
        if not tensor.is_float or (isinstance(maker, layers.Layer) and not isinstance(maker, layers.InputLayer)):
            return tensor
        if maker.name == name:
            maker.name = self.name(f"{name}.{operation.kind}")
        else:
            name = self.name(name)
        return replace(tensor, value=layers.Identity(dtype=tensor.dtype, name=name)(value))

    def _is_result(self, value: Value) -> bool:
        return any(value is one for one in self.program.outputs)

    def finished(self) -> Converted:
        """The model.

        Raises:
            TranslationError: An output is a constant.
        """
        outputs: list[Any] = []
        turns: list[Axes | None] = []
        for value in self.program.outputs:
            try:
                tensor = self.tensor(value)
            except Unsupported as error:
                raise failure(NAME, f"cannot make output {value.name!r}: {error}") from error
            last = 3 <= tensor.rank <= 5 and tensor.axes == channels_last(tensor.rank)
            made = tensor.value if last else self.laid(tensor, identity(tensor.rank), value.name)
            if any(made is one for one in (*self._inputs, *outputs)):
                made = layers.Identity(dtype=tensor.dtype, name=self.name(f"{value.name}.output"))(made)
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


def _sizes(shape: Sequence[int | None]) -> list[int]:
    return [_A_PRIME if one is None else one for one in shape]


def _extent(tensor: Tensor) -> tuple[int, bool]:
    return math.prod(one or _A_PRIME for one in tensor.value.shape), tensor.axes != identity(tensor.rank)


def _counted(value: Value) -> list[int]:
    """Sizes, with a large prime for the number of samples."""
    if value.shape is None:
        raise Unsupported(f"the shape of {value.name!r} is not known")
    return [value.multiples[axis] * _A_PRIME if one is None else one for axis, one in enumerate(value.shape)]


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


def _checked(tensor: Tensor, value: Value) -> Tensor:
    """The tensor, if its type and shape are those that ONNX says."""
    if value.dtype is None or value.shape is None:
        raise Unsupported("the shape of its result is not known")
    if tensor.dtype != str(value.dtype):
        raise Unsupported(f"Keras computes it in {tensor.dtype} instead of {value.dtype}")
    if tensor.rank != len(value.shape) or sorted(tensor.axes) != list(range(tensor.rank)):
        raise Unsupported(f"Keras gives it {tensor.rank} axes instead of {len(value.shape)}")
    if any(found is not None and found != wanted for found, wanted in zip(tensor.sizes, value.shape, strict=True)):
        raise Unsupported(f"Keras gives it the shape {tensor.sizes} instead of {value.shape}")
    return tensor
