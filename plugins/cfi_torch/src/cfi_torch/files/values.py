"""Arguments of a graph's calls, and settings of modules, as JSON: numbers, words, tuples, slices, types, nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from cfi_torch.files.allowed import TYPES

Json = Any
"""What `json` reads and writes."""


class UnwritableError(Exception):
    """Something of which a file cannot tell."""


def write_value(value: Any) -> Json:
    """As JSON; what JSON has no form of is an object with one key, which says what it is.

    Raises:
        UnwritableError: It is of no type that a file can hold.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if isinstance(value, tuple):  # torch.Size too
        return {"tuple": [write_value(one) for one in value]}
    if isinstance(value, list):
        return [write_value(one) for one in value]
    if isinstance(value, slice):
        return {"slice": [write_value(one) for one in (value.start, value.stop, value.step)]}
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype):
        return {"type": str(value).removeprefix("torch.")}
    if kind is float:
        return {"number": repr(value)}
    if value is ...:
        return {"all": None}
    raise UnwritableError(f"{kind.__module__}.{kind.__qualname__}")


def read_value(form: Json, nodes: Mapping[str, fx.Node]) -> Any:
    """The value again.

    Raises:
        ValueError, KeyError, TypeError: It is no form of a value.
    """
    if isinstance(form, list):
        return [read_value(one, nodes) for one in form]
    if not isinstance(form, dict):
        return form
    ((kind, held),) = form.items()
    match kind:
        case "tuple":
            return tuple(read_value(one, nodes) for one in held)
        case "slice":
            start, stop, step = (read_value(one, nodes) for one in held)
            return slice(start, stop, step)
        case "node":
            return nodes[held]
        case "type":
            return TYPES[held]
        case "number":
            return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[held]
        case "all":
            return ...
    raise ValueError(f"nothing is written as {kind!r}")
