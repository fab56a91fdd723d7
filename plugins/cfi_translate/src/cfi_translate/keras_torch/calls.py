"""One call of a Keras layer or operation, and the table of the functions that convert such calls.

`op` is the call and `to` the torch graph (`walk.KerasWalk`). The operands are the arguments of the layer's own `call`,
or of the operation's, in their order and without `training`: a `Laid` for each tensor of the model, constants as they
are, lists as lists.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from cfi_translate.grammar import Operators, Refusal, require
from cfi_translate.keras_torch.laid import Flattened, Laid, Shape, plain_axes
from cfi_translate.torch_graph import identifier
from cfi_translate.translators import KERAS_TORCH


@dataclass(frozen=True)
class OutputSpec:
    """Shape and type that Keras says an output has."""

    shape: Shape
    dtype: str


@dataclass(frozen=True, eq=False)
class LayerCall:
    """A layer or operation of Keras, called once.

    Attributes:
        operation: The Keras layer or operation.
        path: Its name in the torch model.
        outputs: What Keras says of each output.
    """

    operation: Any
    path: str
    outputs: tuple[OutputSpec, ...] = ()

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer, not an operation of `keras.ops`."""
        return isinstance(self.operation, keras.Layer)

    @property
    def kind(self) -> str:
        """Name of its class."""
        return type(self.operation).__name__

    @property
    def output(self) -> OutputSpec:
        """What Keras says of the first output."""
        return self.outputs[0]

    def child(self, name: str) -> str:
        """Path of something inside the layer."""
        return f"{self.path}.{identifier(name)}"

    def result(
        self,
        node: Any,
        axes: Sequence[int] | None = None,
        position: int = 0,
        mask: Laid | None = None,
        flattened: Flattened | None = None,
    ) -> Laid:
        """An output; in Keras's axes unless `axes` are given."""
        spec = self.outputs[position]
        axes = plain_axes(len(spec.shape)) if axes is None else tuple(axes)
        return Laid(node, spec.shape, axes, spec.dtype, mask, flattened)

    def results(self, nodes: Sequence[Any]) -> list[Laid]:
        """All outputs, in Keras's axes."""
        return [self.result(node, position=position) for position, node in enumerate(nodes)]


operator = Operators(
    KERAS_TORCH, lambda op: f"{'layer' if op.is_layer else 'operation'} {op.kind} {op.operation.name!r}"
)
"""By `module.Class` below `keras.src`, such as `layers.Conv2D` or `ops.Add`: the first part of its module alone."""


def name_of(operation: Any) -> str:
    """The name under which the table has an operation's exact class; empty for classes that Keras does not have."""
    parts = type(operation).__module__.split(".")
    known = parts[:2] == ["keras", "src"] and len(parts) > 2
    return f"{parts[2]}.{type(operation).__name__}" if known else ""


def operands_of(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments of a call by position; None for those left out, up to the last that is given."""
    names, variadic = _parameters(operation.__class__)
    given = {name: value for name, value in kwargs.items() if name != "training"}
    if variadic:
        return [*args, *given.values()]
    given |= {name: value for name, value in zip(names, args, strict=False) if name != "training"}
    last = max((position for position, name in enumerate(names) if name in given), default=-1)
    operands = [given.get(name) for name in names[: last + 1] if name != "training"]
    if isinstance(operation, keras.Layer) and isinstance(operands[0], list | tuple) and len(operands[0]) == 1:
        operands[0] = operands[0][0]
    return operands


@functools.cache
def _parameters(kind: Any) -> tuple[tuple[str, ...], bool]:
    """Names of the parameters of a class's `call`, and whether it takes any number."""
    parameters = list(inspect.signature(kind.call).parameters.values())[1:]
    variadic = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
    return tuple(one.name for one in parameters), variadic


def tensors(given: Any) -> list[Laid]:
    """The tensors of an operation that takes a list of them.

    Raises:
        Refusal: There is something else among them.
    """
    listed = list(given) if isinstance(given, list | tuple) else [given]
    require(all(isinstance(one, Laid) for one in listed), "a constant is among its tensors")
    return listed


def tensor(given: Any, what: str = "input") -> Laid:
    """An operand that has to be a tensor of the model.

    Raises:
        Refusal: It is a constant, or left out.
    """
    if not isinstance(given, Laid):
        raise Refusal(f"its {what} is no tensor of the model")
    return given


def optional(given: Any, what: str) -> Laid | None:
    """An operand that is a tensor of the model or left out.

    Raises:
        Refusal: It is a constant.
    """
    return None if given is None else tensor(given, what)
