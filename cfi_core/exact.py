"""Values in the types of JSON and back, of the same types as before; arrays go beside them.

What JSON has no type for is an object with one key that names the type: `{"$tuple": [1, 2]}`, `{"$array": "name"}`.
Nothing that is read back runs code: objects of other classes come back as a `Likeness`, which prints as they did.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import Enum
from math import prod
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from cfi_core import targets
from cfi_core.certificate import Certificate, Divergence, Measurement
from cfi_core.distance import Apart
from cfi_core.validation import Refused

RECORDS: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Certificate, Measurement, Divergence, Apart),
        *(targets.Class, targets.Mean, targets.Difference, targets.Token, targets.Selected),
        *(targets.Region, targets.Mask, targets.Box),
    )
}
"""What is written field by field."""

KINDS = "biufcmMSU"
"""Of arrays that a file holds."""

_SCALARS = "biufcmM"
_BESIDE = {"sizes"}  # fields that no reader needs: what a certificate is continued with, in the same process


@dataclass(frozen=True)
class Likeness:
    """Stands for an object that no file holds, such as a function, and prints as it did.

    Attributes:
        text: Its `repr`.
    """

    text: str

    def __repr__(self) -> str:
        return self.text


class Encoder:
    """Turns values into the types of JSON.

    Attributes:
        arrays: Those met so far, under names that tell where they stood.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def encode(self, value: Any, name: str) -> Any:
        """The value; `name` tells where it stands.

        Raises:
            Refused: It holds an array of a type that no file holds.
        """
        if isinstance(value, Enum):
            return self.encode(value.value, name)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, Mapping):
            return self._mapping(value, name)
        if isinstance(value, np.generic):
            return self._scalar(value, name)
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        if isinstance(value, (list, tuple, set, frozenset)):
            entries = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
            found = [self.encode(entry, f"{name}_{place}") for place, entry in enumerate(entries)]
            kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
            return found if kind is list else {f"${kind.__name__}": found}
        return self._other(value, name)

    def _mapping(self, value: Mapping[Any, Any], name: str) -> Any:
        entries = {key: self.encode(entry, f"{name}_{key}") for key, entry in value.items()}
        if all(isinstance(key, str) and not key.startswith("$") for key in entries):
            return {str(key): entry for key, entry in entries.items()}
        return {"$dict": [[self.encode(key, name), entry] for key, entry in entries.items()]}

    def _scalar(self, value: np.generic, name: str) -> Any:
        if value.dtype.kind not in _SCALARS:
            return self.encode(value.item(), name)
        item = value.astype(np.int64).item() if value.dtype.kind in "mM" else value.item()
        return {"$scalar": [value.dtype.str, self.encode(item, name)]}

    def _array(self, value: np.ndarray, name: str) -> Any:
        if value.dtype.hasobject and value.dtype.kind == "O":
            items = [self.encode(entry, f"{name}_{place}") for place, entry in enumerate(value.ravel().tolist())]
            return {"$objects": [list(value.shape), items]}
        if value.dtype.kind == "V" and value.dtype.names is None and np.can_cast(value.dtype, np.float32):
            value = value.astype(np.float32)  # of bfloat16 and its like, which numpy's format does not know
        if value.dtype.kind not in KINDS:
            raise Refused(f"{name} is an array of {value.dtype}, for which there is no place in such a file")
        key = name = re.sub(r"[^\w.-]", "_", name)[:200]
        while key in self.arrays:
            key += "_"
        self.arrays[key] = np.asarray(value)
        return {"$array": key}

    def _other(self, value: Any, name: str) -> Any:
        if type(value) in RECORDS.values():
            own = {one.name: getattr(value, one.name) for one in fields(value) if one.name not in _BESIDE}
            plain = {key: one.item() if isinstance(one, np.generic) else one for key, one in own.items()}
            return {f"${type(value).__name__}": self.encode(plain, name)}
        if isinstance(value, complex):
            return {"$complex": [value.real, value.imag]}
        if isinstance(value, bytes):
            return {"$bytes": b64encode(value).decode("ascii")}
        if isinstance(value, slice | range):
            ends = [value.start, value.stop, value.step]
            return {f"${type(value).__name__}": [self.encode(end, name) for end in ends]}
        if isinstance(value, PurePath):
            return {"$path": str(value)}
        if isinstance(value, datetime | date) and _is_kept(value):
            return {"$datetime" if isinstance(value, datetime) else "$date": value.isoformat()}
        if hasattr(value, "__array__") and hasattr(value, "dtype"):
            try:
                return self._array(np.asarray(value), name)  # a tensor
            except Exception:  # noqa: BLE001 - of any library; it is then printed, as all else is
                pass
        return {"$repr": repr(value)}


def _is_kept(value: datetime | date) -> bool:
    """Whether it reads back as it is: pandas has times that are none, and times of nanoseconds."""
    try:
        kind = datetime if isinstance(value, datetime) else date
        return bool(kind.fromisoformat(value.isoformat()) == value)
    except ValueError:
        return False


def decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `Encoder.encode` was given.

    Raises:
        Refused: This is nothing that it makes.
        Exception: Likewise; whatever the types of what is read raise.
    """
    if isinstance(value, list):
        return [decode(entry, arrays) for entry in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)).startswith("$"):
        ((tag, content),) = value.items()
        return _decode_tagged(tag[1:], content, arrays)
    return {key: decode(entry, arrays) for key, entry in value.items()}


def _decode_tagged(tag: str, content: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if tag == "array":
        return arrays[content]
    if tag in RECORDS:
        return _record(RECORDS[tag], decode(content, arrays))
    if tag in _READERS:
        return _READERS[tag](decode(content, arrays))
    raise Refused(f"it holds a {tag!r}, which this version does not know")


def _scalar(content: Any) -> Any:
    dtype = np.dtype(str(content[0]))
    if dtype.kind not in _SCALARS:
        raise Refused(f"{dtype} is no type of numbers")
    if dtype.kind in "mM":
        return np.array(content[1], np.int64).view(dtype)[()]
    return dtype.type(content[1])


def _objects(content: Any) -> np.ndarray:
    shape, items = content
    if prod(shape) != len(items):
        raise Refused(f"{len(items)} cells are no table of shape {shape}")
    found = np.empty(len(items), object)
    found[:] = items
    return found.reshape(shape)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "scalar": _scalar,
    "objects": _objects,
    "complex": lambda parts: complex(*parts),
    "bytes": lambda text: b64decode(text, validate=True),
    "slice": lambda ends: slice(*ends),
    "range": lambda ends: range(*ends),
    "path": lambda text: Path(str(text)),
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "repr": lambda text: Likeness(str(text)),
}


def _record(kind: Any, given: Any) -> Any:
    """The record, if its fields hold what their types say."""
    hints = get_type_hints(kind)
    for name, value in given.items():
        if name in _BESIDE or name not in hints or not _fits(hints[name], value):
            raise Refused(f"{name} of a {kind.__name__} is {type(value).__name__}")
    return kind(**given)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a type, as far as the records above go."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(part, value) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(parts[0], entry) for entry in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, NoneType if hint is None else hint)
