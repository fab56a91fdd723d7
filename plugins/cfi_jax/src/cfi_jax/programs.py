"""Every kind of JAX model as a function without side effects."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax

from cfi_jax.keras import call_keras, is_keras, keras_weights
from cfi_jax.logits import Logits, cut
from cfi_jax.lookup import FromLookup, from_lookup
from cfi_jax.watch import Watch, linen_calls, module_calls

_UNLIKELY = 7919
"""A number of samples that no axis of a model has."""

JITTED = type(jax.jit(lambda value: value))

NOT_TRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
"""What JAX raises where a model's Python code asks for values (`if x.sum() > 0`), which a compiled run has not."""


Program = Callable[[Sequence[Any] | Mapping[str, Any], Watch | None], Any]
"""A model that keeps no state and can be traced.

From the inputs (in order, or by name), and a watch over the layers, to what it returns.
"""


@dataclass(frozen=True)
class Sightings:
    """One forward pass.

    Attributes:
        watch: The calls of the layers.
        arrays: Shapes and types of those that can be opened, by name, in the order in which their arrays were made.
        traceable: Whether the model can be compiled.
    """

    watch: Watch
    arrays: Mapping[str, jax.ShapeDtypeStruct]
    traceable: bool


@dataclass(frozen=True, eq=False)
class ByName:
    """A model that takes its inputs one by one, and is called by keyword.

    Attributes:
        model: The user's.
        names: Of its inputs, in order.
        constants: What it is given besides, by name.
    """

    model: Any
    names: tuple[str, ...]
    constants: Mapping[str, Any]

    def __call__(self, *inputs: Any) -> Any:
        """What the model gives."""
        return self.model(**self.keywords(inputs))

    def keywords(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """What the model is called with."""
        return {**dict(zip(self.names, inputs, strict=True)), **self.constants}


@dataclass(frozen=True, eq=False)
class Ended:
    """A model with another end.

    Attributes:
        model: The user's.
        end: What its outputs go through.
    """

    model: Any
    end: Callable[[Any], Any]

    def __call__(self, *inputs: Any) -> Any:
        """What the end makes of them."""
        return self.end(self.model(*inputs))


def program(model: Any) -> Program:
    """The model as a function without side effects."""
    if isinstance(model, Ended):
        return _with_end(model)
    if isinstance(model, ByName):
        return _by_keyword(model)
    if isinstance(model, Logits):
        return _of_logits(model)
    if isinstance(model, FromLookup):
        return _of_lookup(model)
    if is_keras(model):
        return lambda inputs, watch: call_keras(model, inputs, watch)
    if is_nnx(model):
        return _of_nnx(model)
    if is_equinox(model):
        return _of_equinox(model)
    return _of_linen(model) if is_linen(model) else _of_function(without_jit(model))


def weights(model: Any) -> list[jax.Array]:
    """All arrays that the model is seen to hold; those that a function refers to are not."""
    model = body(model)
    held: Any = []
    if is_keras(model):
        held = keras_weights(model)
    elif is_nnx(model):
        held = sys.modules["flax.nnx"].state(model)
    elif is_linen(model):
        held = model.variables
    elif is_equinox(model):
        held = model  # a pytree itself
    return [leaf for leaf in jax.tree.leaves(held) if isinstance(leaf, jax.Array)]


def body(model: Any) -> Any:
    """The user's model inside one that had its softmax cut off, or has another end, or is called otherwise.

    Its layers are read there.
    """
    while isinstance(model, Logits | ByName | Ended | FromLookup):
        model = model.model
    return model


def uncut(model: Any) -> Any:
    """The model with its softmax, if it is one that had it cut off."""
    return model.model if isinstance(model, Logits) else model


def passed_through(model: Any, inputs: Sequence[Any], use: Callable[[Program, Sequence[Any]], Any]) -> Any:
    """What `use` returns (arrays in a structure) of the model with its softmax, which is run on these inputs.

    Where the model takes the vectors of its tokens, that is the model which takes the tokens, and what comes out is as
    if these vectors were those that it looks up.
    """
    model = uncut(model)
    if not isinstance(model, FromLookup):
        return use(program(model), inputs)
    inner = program(model.model)
    return from_lookup(lambda *given: use(inner, given), inputs[0], inputs[1:])


def observe(model: Any, inputs: Sequence[Any]) -> Sightings:
    """Watches one forward pass, without computing anything where the model can be traced."""
    found: dict[str, jax.ShapeDtypeStruct] = {}

    def note(name: str, array: jax.Array) -> None:
        found.setdefault(name, jax.ShapeDtypeStruct(array.shape, array.dtype))

    target = program(uncut(model))
    watch = Watch(note)
    traceable = True
    try:
        jax.eval_shape(lambda given: _nothing(target(given, watch)), tuple(inputs))
    except NOT_TRACEABLE:
        traceable = False
        found.clear()
        watch = Watch(note)
        target(inputs, watch)
    return Sightings(watch, {name: array for name, array in found.items() if watch.is_single(name)}, traceable)


def nnx_layers(model: Any) -> dict[str, Any]:
    """All modules inside an NNX module that can be called, by their dotted paths, in the order of definition."""
    modules = dict(sys.modules["flax.nnx"].iter_modules(model))

    def place(path: tuple[Any, ...]) -> list[int]:
        return [_position(modules.get(path[:depth]), part) for depth, part in enumerate(path)]

    return {
        ".".join(map(str, path)): modules[path]
        for path in sorted(modules, key=place)
        if path and any("__call__" in vars(kind) for kind in type(modules[path]).__mro__)
    }


def layers_of(model: Any) -> dict[str, Any]:
    """The modules inside an NNX or Equinox module that can be called, or inside the one that a function calls."""
    held = _module_behind(model)
    if held is None:
        return {}
    return nnx_layers(held) if is_nnx(held) else dict(_equinox_layers(held))


def _module_behind(model: Any) -> Any:
    """The one NNX or Equinox module that a function names: its own object, an argument, or in its closure."""
    model = without_jit(model)
    if is_nnx(model) or is_equinox(model):
        return model
    if isinstance(model, partial):
        values = [model.func, *model.args, *model.keywords.values()]
    elif inspect.ismethod(model):
        values = [model.__self__]
    elif hasattr(model, "__wrapped__"):  # what jax.vmap was given
        values = [model.__wrapped__]
    elif inspect.isfunction(model):
        values = list(inspect.getclosurevars(model).nonlocals.values())
        values += [one for one in inspect.getclosurevars(model).globals.values() if is_nnx(one) or is_equinox(one)]
    else:
        return None
    found = {id(one): one for one in map(_module_behind, values) if one is not None}
    return next(iter(found.values())) if len(found) == 1 else None


def _equinox_layers(outer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """By the paths of attributes and places in lists, in the order of definition."""
    entries: Any = ()
    if is_equinox(outer):
        entries = ((one.name, getattr(outer, one.name, None)) for one in fields(outer))
    elif isinstance(outer, Mapping):
        entries = outer.items()
    elif isinstance(outer, list | tuple):
        entries = enumerate(outer)
    for key, value in entries:
        if is_equinox(value) and callable(value):
            yield f"{prefix}{key}", value
        if is_equinox(value) or isinstance(value, Mapping | list | tuple):
            yield from _equinox_layers(value, f"{prefix}{key}.")


def linen_names(model: Any) -> tuple[str, ...]:
    """Dotted paths of the modules that a bound Linen module holds variables of."""
    names: dict[str, None] = {}

    def walk(tree: Mapping[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                names[prefix + key] = None
                walk(value, f"{prefix}{key}.")

    for collection in model.variables.values():
        walk(collection, "")
    return tuple(names)


def without_jit(model: Any) -> Any:
    """The function inside `jax.jit`, whose layers can be seen; its results are the same.

    A jitted function may also have been told to give up the memory of its inputs.
    """
    while isinstance(model, JITTED):
        model = model.__wrapped__
    return model


def is_nnx(model: Any) -> bool:
    """Whether it is a Flax NNX module."""
    return _is(model, "flax.nnx", "Module")


def is_linen(model: Any) -> bool:
    """Whether it is a Flax Linen module."""
    return _is(model, "flax.linen", "Module")


def is_equinox(model: Any) -> bool:
    """Whether it is an Equinox module."""
    return _is(model, "equinox", "Module")


def _is(model: Any, module: str, name: str) -> bool:
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(model, found)


def _with_end(model: Ended) -> Program:
    whole = program(model.model)
    return lambda inputs, watch: model.end(whole(inputs, watch))


def _by_keyword(model: ByName) -> Program:
    target = program(model.model)

    def call(inputs: Sequence[Any] | Mapping[str, Any], watch: Watch | None) -> Any:
        return target(inputs if isinstance(inputs, Mapping) else model.keywords(inputs), watch)

    return call


def _call(function: Callable[..., Any], inputs: Sequence[Any] | Mapping[str, Any]) -> Any:
    return function(**inputs) if isinstance(inputs, Mapping) else function(*inputs)


def _of_nnx(model: Any) -> Program:
    nnx = sys.modules["flax.nnx"]
    structure, state = nnx.split(model)

    def call(inputs: Sequence[Any] | Mapping[str, Any], watch: Watch | None) -> Any:
        # With variables of its own, so that what the call writes into them is lost with the copy.
        copy = nnx.merge(structure, jax.tree.map(lambda array: array, state))
        with nullcontext() if watch is None else module_calls(nnx_layers(copy), watch):
            return _call(copy, inputs)

    return call


def _of_equinox(model: Any) -> Program:
    """Equinox's own modules take one sample, without a sample axis: then the batch goes through `jax.vmap`."""

    def call(inputs: Sequence[Any] | Mapping[str, Any], watch: Watch | None) -> Any:
        function = model if _takes(model, inputs) or not _takes(jax.vmap(model), inputs) else jax.vmap(model)
        with nullcontext() if watch is None else module_calls(layers_of(model), watch):
            return _call(function, inputs)

    return call


def _takes(function: Callable[..., Any], inputs: Sequence[Any] | Mapping[str, Any]) -> bool:
    """Whether it takes a batch, of a size that is no size of anything else, and gives something for each sample."""
    named = isinstance(inputs, Mapping)
    values = list(inputs.values() if isinstance(inputs, Mapping) else inputs)
    shapes = [jax.ShapeDtypeStruct((_UNLIKELY, *value.shape[1:]), value.dtype) for value in values]
    try:
        given = (
            jax.eval_shape(function, **dict(zip(inputs, shapes, strict=True)))
            if named
            else jax.eval_shape(function, *shapes)
        )
    except Exception:  # noqa: BLE001 - the user's model may refuse shapes in any way
        return False
    return all(one.shape[:1] == (_UNLIKELY,) for one in jax.tree.leaves(given))


def _of_linen(model: Any) -> Program:
    module, variables = model.unbind()
    return _of_function(lambda *inputs, **named: module.apply(variables, *inputs, **named))


def _of_function(function: Callable[..., Any]) -> Program:
    def call(inputs: Sequence[Any] | Mapping[str, Any], watch: Watch | None) -> Any:
        if watch is None:
            return _call(function, inputs)
        with linen_calls(watch), module_calls(layers_of(function), watch):
            return _call(function, inputs)

    return call


def _of_logits(model: Logits) -> Program:
    whole = program(model.model)
    return lambda inputs, watch: cut(lambda *given: whole(given, watch), *inputs)


def _of_lookup(model: FromLookup) -> Program:
    whole = program(model.model)

    def call(inputs: Sequence[Any] | Mapping[str, Any], watch: Watch | None) -> Any:
        vectors, *others = [*inputs.values()] if isinstance(inputs, Mapping) else inputs
        return from_lookup(lambda *given: whole(given, watch), vectors, others)

    return call


def _nothing(_outputs: Any) -> None:
    """Only the way there is of interest; what a model returns may be no array."""


def _position(parent: Any, part: Any) -> int:
    if isinstance(part, int):
        return part
    return list(vars(parent)).index(part) if parent is not None and part in vars(parent) else 0
