"""One call of a Keras layer or operation, as the functions that translate it are given it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.errors import TranslationError
from cfi_translate.grammar import NEXT_STEP
from cfi_translate.keras_torch.builder import Builder, identifier
from cfi_translate.keras_torch.values import Flattened, Shape, Value, plain_axes

if TYPE_CHECKING:
    from cfi_translate.keras_torch.walk import Walk

NAME = "keras-torch"


@dataclass(frozen=True)
class Spec:
    """Shape and type that Keras says an output has."""

    shape: Shape
    dtype: str


@dataclass(frozen=True, eq=False)
class Call:
    """One call.

    Attributes:
        walk: Translates calls inside this one.
        operation: The Keras layer or operation.
        path: Its name in the torch model.
        args: Positional arguments, with a `Value` for each tensor of the graph.
        kwargs: Arguments by keyword, likewise.
        outputs: What Keras says of each output.
    """

    walk: Walk
    operation: Any
    path: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Spec, ...]

    @property
    def builder(self) -> Builder:
        """What writes the torch graph."""
        return self.walk.builder

    @property
    def input(self) -> Value:
        """The one tensor that a layer is called with."""
        first = self.args[0] if self.args else next(iter(self.kwargs.values()), None)
        if isinstance(first, list | tuple) and len(first) == 1:
            first = first[0]
        if not isinstance(first, Value):
            raise self.refusal("it is not called with one tensor")
        return first

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The tensors of a layer that takes a list."""
        values = self.args[0] if len(self.args) == 1 else self.args
        values = values if isinstance(values, list | tuple) else (values,)
        if not all(isinstance(value, Value) for value in values):
            raise self.refusal("it is called with something else than tensors of the model")
        return tuple(values)

    @property
    def output(self) -> Spec:
        """What Keras says of the first output."""
        return self.outputs[0]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, by position or keyword."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def child(self, name: str) -> str:
        """Path of something inside the layer."""
        return f"{self.path}.{identifier(name)}"

    def result(
        self,
        node: Any,
        axes: Sequence[int] | None = None,
        position: int = 0,
        mask: Value | None = None,
        flattened: Flattened | None = None,
    ) -> Value:
        """An output as a value; in Keras's axes unless `axes` are given."""
        spec = self.outputs[position]
        axes = plain_axes(len(spec.shape)) if axes is None else tuple(axes)
        return Value(node, spec.shape, axes, spec.dtype, mask, flattened)

    def refusal(self, reason: str) -> TranslationError:
        """An error that names the layer or operation."""
        return refusal(self.operation, reason)

    def require(self, condition: bool, reason: str) -> None:
        """Refuses the call unless the condition holds."""
        if not condition:
            raise self.refusal(reason)

    def number(self, value: Any) -> np.ndarray | None:
        """A constant argument as an array; None if it is no constant."""
        return constant_array(value)


def refusal(operation: Any, reason: str) -> TranslationError:
    """An error that names a layer or operation."""
    import keras

    kind = "layer" if isinstance(operation, keras.Layer) else "operation"
    named = f"{type(operation).__name__} {operation.name!r}"
    return TranslationError(f"{NAME} cannot translate {kind} {named}: {reason}. {NEXT_STEP}")


def constant_array(value: Any) -> np.ndarray | None:
    """A number, array, variable or tensor as an array; None for anything else."""
    import keras
    import tensorflow as tf

    if isinstance(value, bool | int | float | np.ndarray | np.generic):
        return np.asarray(value)
    if isinstance(value, keras.Variable):
        return keras.ops.convert_to_numpy(value)
    if isinstance(value, tf.Variable) or (isinstance(value, tf.Tensor) and not tf.is_symbolic_tensor(value)):
        return value.numpy()
    if isinstance(value, list | tuple) and value and all(constant_array(one) is not None for one in value):
        return np.asarray(value)
    return None


Translate = Callable[[Call], Any]
TRANSLATIONS: dict[str, Translate] = {}


def translates(*names: str) -> Callable[[Translate], Translate]:
    """Registers a function for Keras classes.

    Args:
        names: `module.Class` below `keras.src`, such as `layers.convolutional.conv2d.Conv2D`; or just `layers.Conv2D`,
            `ops.Add`: the class's name with the first part of its module.
    """

    def register(function: Translate) -> Translate:
        for name in names:
            TRANSLATIONS[name] = function
        return function

    return register


def translation_of(operation: Any) -> Translate | None:
    """The function for an operation's exact class; None for classes that Keras does not have."""
    kind = type(operation)
    parts = kind.__module__.split(".")
    if parts[:2] != ["keras", "src"] or len(parts) < 3:
        return None
    return TRANSLATIONS.get(f"{parts[2]}.{kind.__name__}")
