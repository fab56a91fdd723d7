"""What observers see of a call: copies, so that nothing they do reaches the call or its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import numpy as np

_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, Enum, PurePath, np.generic, slice, range)


class Description:
    """Stands for an object of the user's, a model, a tensor or a function, which observers are not given.

    Attributes:
        kind: Its class (a function's own name), with the module.
        shape: Its shape, if it is a tensor; None otherwise.
    """

    def __init__(self, value: object) -> None:
        kind = value if hasattr(value, "__qualname__") else type(value)
        self.kind = f"{kind.__module__}.{kind.__qualname__}"
        shape = getattr(value, "shape", None)
        self.shape = tuple(shape) if isinstance(shape, tuple) else None

    def __repr__(self) -> str:
        return f"<{self.kind}>" if self.shape is None else f"<{self.kind} of shape {self.shape}>"


def kind_of(value: object) -> str:
    """Name of an object's class, also where a description stands for it."""
    return value.kind.rpartition(".")[2] if isinstance(value, Description) else type(value).__name__


def protect(value: Any) -> Any:
    """A view of a record of core's, such as a `Plan` or an `Attribution`, to be read and shown, or of what is in one.

    Everything in it is a copy, as deep as it goes; arrays cannot be written to, so that who tries is told. Objects of
    the user's (the model, tensors, functions) are `Description`s. The record itself is of the same class, so its
    properties and methods work.
    """
    if isinstance(value, (*_IMMUTABLE, Description)):
        return value
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        array = np.array(value, subok=False)
        array.setflags(write=False)
        return array
    if isinstance(value, dict | MappingProxyType):
        entries = {protect(key): protect(entry) for key, entry in value.items()}
        return entries if isinstance(value, dict) else MappingProxyType(entries)
    if isinstance(value, Mapping) and _is_of_core(value):
        return MappingProxyType({key: protect(entry) for key, entry in value.items()})
    if type(value) in (tuple, list, set, frozenset):
        return type(value)(map(protect, value))
    # Models can be dataclasses too.
    return _copy(value) if is_dataclass(value) and _is_of_core(value) else Description(value)


def _is_of_core(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == __name__.partition(".")[0]


def _copy(record: Any) -> Any:
    """The same record with views in its fields; not checked again, because a description is no model."""
    copy = object.__new__(type(record))
    for entry in fields(record):
        object.__setattr__(copy, entry.name, protect(getattr(record, entry.name)))
    return copy
