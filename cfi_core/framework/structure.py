"""Outputs of models come as a tensor, or as tuples, lists, dicts and dataclasses of tensors.

What else stands in them (the cache of a language model, words, settings) is left out, as None is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def flatten(outputs: Any) -> list[Any]:
    """The tensors of a structure, in its own order; entries that are none are left out."""
    if not _holds(outputs):
        return []
    return [leaf for _, entry in items(outputs) for leaf in flatten(entry)] if is_structure(outputs) else [outputs]


def map_structure(function: Callable[[Any], Any], outputs: Any) -> Any:
    """The same structure with every tensor replaced by `function(tensor)`, and what is none by None."""
    if not is_structure(outputs):
        return function(outputs) if _holds(outputs) else None
    mapped = {key: map_structure(function, entry) for key, entry in items(outputs)}
    if isinstance(outputs, Mapping):
        # Ordered dicts with attributes (as transformer libraries return them) keep their type.
        return type(outputs)(**mapped) if hasattr(outputs, "to_tuple") else mapped
    if isinstance(outputs, list | tuple):
        return type(outputs)(*mapped.values()) if hasattr(outputs, "_fields") else type(outputs)(mapped.values())
    changed = copy.copy(outputs)  # past a frozen class, and a constructor that takes something else
    for name, entry in mapped.items():
        object.__setattr__(changed, name, entry)
    return changed


def is_structure(outputs: Any) -> bool:
    """Whether this holds tensors rather than being one."""
    return isinstance(outputs, Mapping | list | tuple) or (is_dataclass(outputs) and not isinstance(outputs, type))


def items(outputs: Any) -> list[tuple[Any, Any]]:
    """Keys (positions or names) and entries of a structure."""
    if isinstance(outputs, Mapping):
        return list(outputs.items())
    if isinstance(outputs, list | tuple):
        return list(enumerate(outputs))
    return [(f.name, getattr(outputs, f.name)) for f in fields(outputs)]


def entry_of(outputs: Any, key: Any) -> Any:
    """The entry of a structure at a key, a position or a name.

    Raises:
        KeyError: There is none; a tensor has none.
    """
    if is_structure(outputs):
        names = getattr(outputs, "_fields", ()) if isinstance(outputs, tuple) else ()
        place = names.index(key) if isinstance(key, str) and key in names else key
        for own, entry in items(outputs):
            if type(own) is type(place) and own == place:
                return entry
    raise KeyError(key)


def _holds(value: Any) -> bool:
    """Whether this is a structure, a tensor of whatever framework, or a number."""
    return is_structure(value) or hasattr(value, "shape") or isinstance(value, int | float | complex)
