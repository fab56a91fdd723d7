"""Inputs by name: which of them are explained, which are only held, and the model that takes them so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, is_array
from cfi_core.errors import ArgumentError, InputError
from cfi_core.records import Arguments, InputNames, Original
from cfi_core.registry import Registry
from cfi_core.specs import MethodSpec, Role

_HELD = re.compile(
    r"(.*_)?(mask|masks|position_ids|positions|cache_position|token_type_ids|segment_ids|bbox|labels)"
    r"|decoder_(input_ids|attention_mask|position_ids)"
)
"""Names, as transformer libraries write them, of what goes with the tokens or pixels and is not explained itself."""

_LIKE_INPUTS = (Role.LIKE_INPUTS, Role.WINDOW)


def name_inputs(registry: Registry, original: Original, inputs: Any, explain: Sequence[str] | None) -> Original:
    """The user's model as one that takes what the user gave by name; the model as it is where nothing has a name.

    Floating point inputs are explained, integers and truth values beside them held; of integers alone, those are
    held whose names say that they go with others (masks, positions, token types).

    Raises:
        InputError: The model takes other names, or none.
        ArgumentError: `explain` names no input that is an array.
    """
    if not isinstance(inputs, Mapping):
        if explain is not None:
            raise ArgumentError("explain= names inputs: pass inputs= as a dict of the model's own input names.")
        return original
    arrays, constants = _split(registry, inputs)
    if not arrays:
        raise InputError(f"None of the inputs {', '.join(map(repr, inputs)) or '(there are none)'} is an array.")
    explained = _choose_by_type(arrays) if explain is None else _choose(arrays, explain)
    names = InputNames(explained, tuple(name for name in arrays if name not in explained))
    model = original.adapter.by_name(original.model, names.every, constants)
    return replace(original, model=model, names=names)


def in_order(names: InputNames | None, inputs: Any) -> tuple[Any, tuple[Any, ...]]:
    """What is explained, and what is held behind it, of inputs by name; other inputs as they are."""
    if names is None or not isinstance(inputs, Mapping):
        return inputs, ()
    return tuple(inputs[name] for name in names.explained), tuple(inputs[name] for name in names.held)


def turn_named(arguments: Arguments, method: MethodSpec, names: InputNames | None) -> Arguments:
    """The arguments with baselines, masks and windows in the order of the inputs, and what is held in its place.

    Raises:
        ArgumentError: A name is none of the explained inputs, or what is held is given once more.
    """
    if names is None:
        return arguments
    own: dict[str, dict[str, Any]] = {}
    for where in ("init_args", "exec_args"):
        given = getattr(arguments, where) or {}
        own[where] = {
            name: _parts(value, names, name, required=True) if method.roles.get(name) in _LIKE_INPUTS else value
            for name, value in given.items()
        }
    place = method.argument_of(Role.HELD)  # without one, they become constants of the model (cfi_core.holding)
    if names.held and place is not None:
        if own["exec_args"].get(place) is not None:
            listed = ", ".join(names.held)
            raise ArgumentError(f"{listed} are held already: leave {place!r} out, and pass all inputs by name.")
        own["exec_args"][place] = tuple(arguments.inputs[name] for name in names.held)
    baselines = _parts(arguments.baselines, names, "baselines", required=False)
    return replace(arguments, baselines=baselines, init_args=own["init_args"], exec_args=own["exec_args"])


def _split(registry: Registry, inputs: Mapping[Any, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by name, and what goes to the model as it is."""
    arrays: dict[str, np.ndarray] = {}
    constants: dict[str, Any] = {}
    for name, value in inputs.items():
        if not isinstance(name, str):
            raise InputError(f"inputs has the key {name!r}. Pass a dict of the model's own input names.")
        if is_array(registry, value) or _is_nested(value):
            arrays[name] = as_array(registry, value, f"inputs[{name!r}]")
        else:
            constants[name] = value
    return arrays, constants


def _is_nested(value: Any) -> bool:
    """Whether this is a list with one list of numbers for each sample, as tokenizers give them."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, list | tuple) for row in value)


def _choose_by_type(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    own = [name for name in arrays if not _HELD.fullmatch(name)]
    floating = [name for name in own if np.issubdtype(arrays[name].dtype, np.floating)]
    whole = [name for name in own if arrays[name].dtype.kind in "iu"]
    return tuple(floating or whole or own or arrays)


def _choose(arrays: Mapping[str, np.ndarray], explain: Sequence[str]) -> tuple[str, ...]:
    chosen = (explain,) if isinstance(explain, str) else tuple(explain)
    unknown = [name for name in chosen if name not in arrays]
    if unknown or not chosen:
        raise ArgumentError(f"explain={explain!r} names no input to explain. Arrays are given for {', '.join(arrays)}.")
    return chosen


def _parts(value: Any, names: InputNames, what: str, *, required: bool) -> Any:
    """A dict by names as one part for each explained input."""
    if not isinstance(value, Mapping):
        return value
    unknown = [name for name in value if name not in names.explained]
    missing = [name for name in names.explained if name not in value]
    if unknown or (required and missing):
        which = f"{unknown[0]!r}, which is not explained" if unknown else f"nothing for {missing[0]!r}"
        raise ArgumentError(f"{what} holds {which}. Explained are {', '.join(names.explained)}.")
    parts = tuple(value.get(name, 0) for name in names.explained)
    return parts if len(parts) > 1 else parts[0]
