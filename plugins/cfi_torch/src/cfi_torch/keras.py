"""Keras models on their torch backend: torch modules whose calls do not go through torch's hooks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from cfi_core.errors import InputError
from cfi_core.framework import stand_in
from cfi_torch.function import TorchFunction

_CALLS = ("call", "quantized_call")


class KerasLayer(nn.Module):
    """Stands for a layer of a Keras model; what the layer gives goes through it, where hooks see it."""

    def forward(self, output: Any) -> Any:
        """The layer's output."""
        return output


class KerasModel(TorchFunction):
    """A Keras model, whose layers go by their Keras names, inner ones as `outer/inner`.

    Attributes:
        function: The Keras model.
    """

    def __init__(self, model: Any, names: Sequence[str] = (), constants: Mapping[str, Any] | None = None) -> None:
        """Takes a model that is built.

        Args:
            model: The Keras model.
            names: Of its inputs, in the order in which they are given; none: in the model's own.
            constants: What it is called with besides, by name.
        """
        nn.Module.__init__(self)
        self.names, self.constants = tuple(names), dict(constants or {})
        # Past torch, which would take them for modules of this one.
        self.__dict__.update(function=model, keras_layers=dict(keras_layers(model)))
        for name, layer in self.keras_layers.items():
            # Past `add_module`, which refuses some of the names that layers may have.
            self._modules[name] = type(type(layer).__name__, (KerasLayer,), {})()
        self.eval()

    function: Any
    keras_layers: dict[str, Any]

    def forward(self, *inputs: Tensor) -> Any:
        """The outputs in inference mode."""
        with stand_in(list(self.keras_layers.items()), _CALLS, lambda name, call: self._modules[name](call())):
            return self._call(inputs)

    def _call(self, inputs: Sequence[Tensor]) -> Any:
        if self.names and not self._is_graph:
            return self.function(**dict(zip(self.names, inputs, strict=True)), **self.constants, training=False)
        own = self.input_names()
        if self.names and own:
            inputs = [inputs[self.names.index(name)] for name in own]
        if self._is_graph:
            structure = getattr(self.function, "_functional", self.function)._inputs_struct
            return self.function(_pack(structure, inputs), training=False)
        return self.function(*inputs, training=False)

    @property
    def _is_graph(self) -> bool:
        """Whether it is made of layers that are called on each other's outputs."""
        return bool(getattr(self.function, "inputs", None))

    def input_names(self) -> tuple[str, ...]:
        """Keys of the inputs, or names of the Input layers; of another model nothing, as `call` tells them."""
        if not self._is_graph:
            return ()
        structure = getattr(self.function, "_functional", self.function)._inputs_struct
        return tuple(structure) if isinstance(structure, Mapping) else tuple(one.name for one in self.function.inputs)

    def layer_name(self, reference: Any) -> str | None:
        """Name of a layer, which may be called by its own where that is unique."""
        exact = [name for name, layer in self.keras_layers.items() if layer is reference or name == reference]
        own = [name for name, layer in self.keras_layers.items() if layer.name == reference]
        return next(iter(exact), own[0] if len(own) == 1 else None)

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasModel:
        memo[id(self)] = copy = KerasModel(self.function, self.names, self.constants)
        return copy


def is_keras(model: Any) -> bool:
    """Whether it is a Keras model, which is a module on this backend."""
    kind = getattr(sys.modules.get("keras"), "Model", None)
    return kind is not None and isinstance(model, kind)


def keras_model(model: Any) -> KerasModel:
    """The Keras model as one with layers that torch's hooks see.

    Raises:
        InputError: It has no weights yet.
    """
    if not model.built:
        raise InputError(
            f"The Keras model {model.name!r} is not built yet, so it has no weights: call it once, or give it an "
            f"Input, before explaining it."
        )
    return KerasModel(model)


def keras_layers(outer: Any, prefix: str = "", around: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every layer but the Input layers, those inside a layer after it, each under the first place where it lies."""
    seen: set[int] = {id(outer), *around}
    children = [*(outer.layers if hasattr(outer, "layers") else ()), *outer._layers]
    for layer in children:
        if id(layer) in seen or type(layer).__name__ == "InputLayer":
            continue
        seen.add(id(layer))
        yield prefix + layer.name, layer
        yield from keras_layers(layer, f"{prefix}{layer.name}/", tuple(seen))


def channel_axis(model: Any, rank: int, layer: str | None) -> int | None:
    """Where Keras has the channels: last, unless the layer or the process says otherwise."""
    if rank <= 2:
        return None
    one = model.keras_layers.get(layer) if layer is not None else None
    said = getattr(one, "data_format", None) or sys.modules["keras"].config.image_data_format()
    return 1 if said == "channels_first" else rank - 1


def _pack(structure: Any, inputs: Sequence[Tensor]) -> Any:
    return sys.modules["keras"].tree.pack_sequence_as(structure, list(inputs))
