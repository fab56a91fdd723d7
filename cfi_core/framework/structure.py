"""Outputs of models come as a tensor, or as tuples, lists, dicts and dataclasses of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any


def flatten(outputs: Any) -> list[Any]:
    """The tensors of a structure, in its own order; None entries are left out."""
    if outputs is None:
        return []
    return [leaf for _, entry in items(outputs) for leaf in flatten(entry)] if is_structure(outputs) else [outputs]


def map_structure(function: Callable[[Any], Any], outputs: Any) -> Any:
    """The same structure with every tensor replaced by `function(tensor)`."""
    if not is_structure(outputs):
        return None if outputs is None else function(outputs)
    mapped = {key: map_structure(function, entry) for key, entry in items(outputs)}
    if isinstance(outputs, Mapping):
        # Ordered dicts with attributes (as transformer libraries return them) keep their type.
        return type(outputs)(**mapped) if hasattr(outputs, "to_tuple") else mapped
    if isinstance(outputs, list | tuple):
        return type(outputs)(*mapped.values()) if hasattr(outputs, "_fields") else type(outputs)(mapped.values())
    return replace(outputs, **mapped)


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
