"""What observers see of a call: copies, so that nothing they do reaches the call or its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
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


def name_model(given: object, loaded: object) -> str:
    """The user's own class, or function, with its module; not that of a wrapper, of CFI's or any other.

    Args:
        given: What the user gave.
        loaded: What the adapter made of it: the module inside of what compiles or spreads it, or a wrapper of CFI's.
    """
    inside = [one for one in (loaded, getattr(loaded, "module", None)) if one is not None and not _is_ours(type(one))]
    found = inside[0] if inside else given
    found = getattr(found, "func", found) if isinstance(found, partial) else found
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{named.__module__}.{named.__qualname__}"


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0].startswith("cfi_")


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
    is_of_core = type(value).__module__.partition(".")[0] == __name__.partition(".")[0]
    if isinstance(value, dict | MappingProxyType) or (isinstance(value, Mapping) and is_of_core):
        entries = {protect(key): protect(entry) for key, entry in value.items()}
        return entries if isinstance(value, dict) else MappingProxyType(entries)
    if type(value) in (tuple, list, set, frozenset):
        return type(value)(map(protect, value))
    if not is_dataclass(value) or not is_of_core:  # models can be dataclasses too
        return Description(value)
    record = object.__new__(type(value))  # not checked again, because a description is no model
    for entry in fields(value):
        object.__setattr__(record, entry.name, protect(getattr(value, entry.name)))
    return record
