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
    if outputs is None:
        return None
    if isinstance(outputs, Mapping):
        mapped = {key: map_structure(function, value) for key, value in outputs.items()}
        # Ordered dicts with attributes (as transformer libraries return them) keep their type.
        return type(outputs)(**mapped) if hasattr(outputs, "to_tuple") else mapped
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return type(outputs)(*(map_structure(function, value) for value in outputs))
    if isinstance(outputs, list | tuple):
        return type(outputs)(map_structure(function, value) for value in outputs)
    if is_dataclass(outputs) and not isinstance(outputs, type):
        return replace(outputs, **{f.name: map_structure(function, getattr(outputs, f.name)) for f in fields(outputs)})
    return function(outputs)


def is_structure(outputs: Any) -> bool:
    """Whether this holds tensors rather than being one."""
    return isinstance(outputs, Mapping | list | tuple) or (is_dataclass(outputs) and not isinstance(outputs, type))


def items(outputs: Any) -> list[tuple[int | str, Any]]:
    """Keys (positions or names) and entries of a structure."""
    if isinstance(outputs, Mapping):
        return list(outputs.items())
    if isinstance(outputs, list | tuple):
        return list(enumerate(outputs))
    return [(f.name, getattr(outputs, f.name)) for f in fields(outputs)]
