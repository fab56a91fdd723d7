"""Keras models on their JAX backend: functions of JAX arrays, whose layers are watched by stand-ins."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cfi_core.errors import InputError
from cfi_core.framework import Parameters, stand_in
from cfi_jax.watch import Watch

_CALLS = ("call", "quantized_call")


def is_keras(model: Any) -> bool:
    """Whether it is a Keras model."""
    kind = getattr(sys.modules.get("keras"), "Model", None)
    return kind is not None and isinstance(model, kind)


def check_built(model: Any) -> None:
    """Refuses a model without weights.

    Raises:
        InputError: It was never called.
    """
    if not model.built:
        raise InputError(
            f"The Keras model {model.name!r} is not built yet, so it has no weights: call it once, or give it an "
            f"Input, before explaining it."
        )


def keras_weights(model: Any) -> list[Any]:
    """The arrays of all its variables."""
    return [variable.value for variable in model.variables]


def keras_layers(outer: Any, prefix: str = "", around: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every layer but the Input layers, those inside a layer after it (`outer/inner`), under its first place."""
    seen: set[int] = {id(outer), *around}
    for layer in [*(outer.layers if hasattr(outer, "layers") else ()), *outer._layers]:
        if id(layer) not in seen and type(layer).__name__ != "InputLayer":
            seen.add(id(layer))
            yield prefix + layer.name, layer
            yield from keras_layers(layer, f"{prefix}{layer.name}/", tuple(seen))


def keras_layer_name(model: Any, reference: Any) -> str | None:
    """Name of a layer, which may be called by its own where that is unique."""
    named = list(keras_layers(model))
    exact = [name for name, layer in named if layer is reference or name == reference]
    own = [name for name, layer in named if layer.name == reference]
    return next(iter(exact), own[0] if len(own) == 1 else None)


def call_keras(model: Any, inputs: Sequence[Any] | Mapping[str, Any], watch: Watch | None) -> Any:
    """The outputs in inference mode; with a watch over the layers, if there is one."""
    if watch is None:
        return _call(model, inputs)
    watch.begin()
    layers = dict(keras_layers(model))
    kinds = {name: type(layer).__name__ for name, layer in layers.items()}
    with stand_in(list(layers.items()), _CALLS, lambda name, call: watch.around(name, kinds[name], call)):
        return _call(model, inputs)


def keras_parameters(model: Any) -> Parameters:
    """Keys of the inputs, or names of the Input layers; of another model, the parameters of its `call`."""
    names = _input_names(model)
    return Parameters(names, frozenset(names)) if names else Parameters.of(model.call, ("training", "mask"))


def _call(model: Any, inputs: Sequence[Any] | Mapping[str, Any]) -> Any:
    names = _input_names(model)
    if names:
        values = [inputs[name] for name in names] if isinstance(inputs, Mapping) else list(inputs)
        structure = sys.modules["keras"].tree.pack_sequence_as(_structure(model), values)
        return model(structure, training=False)
    if isinstance(inputs, Mapping):
        return model(**inputs, training=False)
    return model(*inputs, training=False)


def _input_names(model: Any) -> tuple[str, ...]:
    """Of a graph of layers; nothing of another model."""
    if not getattr(model, "inputs", None):
        return ()
    structure = _structure(model)
    return tuple(structure) if isinstance(structure, Mapping) else tuple(one.name for one in model.inputs)


def _structure(model: Any) -> Any:
    return getattr(model, "_functional", model)._inputs_struct
