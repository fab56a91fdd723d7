"""Rules for what the records of plugins may hold; they stand in the annotations of the records' fields.

A rule takes a value and returns what the record keeps of it (mutable collections are copied into frozen ones), or
raises `Refused` with the reason. Most rules follow from a field's type; `Annotated` adds one, as at `Name` below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields
from enum import Enum
from functools import cache
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from packaging.requirements import InvalidRequirement, Requirement

Rule = Callable[[Any], Any]


class Refused(Exception):
    """What does not pass at the door, and why; whoever catches it names the culprit: a field of a record, a plugin."""


class Checked:
    """A frozen dataclass that checks its fields by the rules of their annotations when it is made.

    Raises:
        ValueError: A field does not hold what its rule asks for; names record, field and value.
    """

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():  # type: ignore[arg-type] # a class is hashable
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, _convert(hint, value))
            except Refused as refusal:
                self.refuse(f"{name}={_describe(value)} {refusal}")

    @property
    def title(self) -> str:
        """Kind and name, for sentences: `MethodSpec 'grad_cam'`."""
        name = getattr(self, "key", None) or getattr(self, "name", None)
        return f"{type(self).__name__} {name!r}" if isinstance(name, str) else type(self).__name__

    def refuse(self, reason: str) -> None:
        """Raises what a field that holds something else raises, for fields that do not fit each other."""
        raise ValueError(f"{self.title}: {reason}.") from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {entry.name: hints[entry.name] for entry in fields(kind)}


def _convert(hint: Any, value: Any) -> Any:
    """What a record keeps of a value, by the annotation that it stands under."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return hint.__metadata__[0](value)
    if hint in _PLAIN:
        return _PLAIN[hint](value)
    if NoneType in parts:
        return None if value is None else _convert(parts[0], value)
    if parts and parts[-1] == Literal[""]:
        try:
            return value if isinstance(value, str) and not value else _convert(parts[0], value)
        except Refused as refusal:
            raise Refused(f"{refusal}, or empty") from None
    if origin is tuple and parts[-1] is Ellipsis:
        alone = f"; write ({_describe(value)},)" if isinstance(value, str) or hasattr(value, "shape") else ""
        _require(value, isinstance(value, tuple | list), f"is no tuple{alone}")
        return tuple(_member(parts[0], entry) for entry in value)
    if origin is tuple:
        _require(value, isinstance(value, tuple | list) and len(value) == 2, "is no pair")
        return tuple(map(_convert, parts, value))
    if origin is frozenset:
        _require(value, isinstance(value, AbstractSet), f"is no set, such as frozenset({{{_first(parts[0])}}})")
        return frozenset(_member(parts[0], entry) for entry in value)
    if origin is Mapping:
        _require(value, isinstance(value, Mapping), "is no mapping")
        return MappingProxyType({_member(parts[0], key): _member(parts[1], entry) for key, entry in value.items()})
    if issubclass(hint, Enum):  # its value alone is refused, so that a slip of the pen is one
        return _require(value, isinstance(value, hint), f"is no member of {hint.__name__}, such as {_first(hint)}")
    return _require(value, isinstance(value, hint), f"is no {hint.__name__}")


def _member(hint: Any, entry: Any) -> Any:
    """What is kept of one of several values; a refusal names the value."""
    try:
        return _convert(hint, entry)
    except Refused as refusal:
        raise Refused(f"holds {_describe(entry)}, which {refusal}") from None


def _require(value: Any, fits: bool, reason: str) -> Any:
    """The value, if it fits; the reason is what is said of it otherwise."""
    if not fits:
        raise Refused(reason)
    return value


def _describe(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"


def _first(kind: type[Enum]) -> str:
    return f"{kind.__name__}.{next(iter(kind)).name}"


def _amount(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return _require(value, number and math.isfinite(value) and value >= 0, "is no number of 0 or more")


_PLAIN: Mapping[Any, Rule] = {
    Any: lambda value: value,
    str: lambda value: _require(value, isinstance(value, str), "is not a string"),
    bool: lambda value: _require(value, isinstance(value, bool), "is neither True nor False"),
    float: _amount,
}


# rules that no type tells


def _form(pattern: str, description: str) -> Rule:
    fits = re.compile(pattern).fullmatch
    return lambda value: _require(value, isinstance(value, str) and bool(fits(value)), f"is not {description}")


def one_of(*choices: str) -> Rule:
    """One of some strings."""
    reason = f"is none of {', '.join(map(repr, choices))}"
    return lambda value: _require(value, isinstance(value, str) and value in choices, reason)


def name_but(reserved: tuple[str, ...], reason: str) -> Rule:
    """A name, some words excepted."""
    return lambda value: _convert(Name, _require(value, value not in reserved, reason))


parse_requirement = cache(Requirement)
"""Reads a PEP 508 requirement; raises `InvalidRequirement` for what is none."""


def _requirement(value: Any) -> str:
    try:
        parse_requirement(_convert(str, value))
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"is no PEP 508 requirement, such as 'numpy>=1.26' ({reason})") from None
    return str(value)


def _permutation(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    axes = tuple(_convert(tuple[Any, ...], value))
    if not all(type(axis) is int for axis in axes) or sorted(axes) != list(range(len(axes))):
        raise Refused(f"is no permutation of axes: it must hold each of 0 to {len(axes) - 1} once, or be None")
    return axes


_NAME = r"[^\W\d]\w*"
_DOTTED = rf"{_NAME}(\.{_NAME})*"

Name = Annotated[str, _form(r"\S(.*\S)?", "a name: a string that neither is empty nor begins or ends with a space")]
Key = Annotated[str, _form(r"[a-z][a-z0-9_]*", "a key: lower-case letters, digits and underscores, such as 'grad_cam'")]
Command = Annotated[str, _form(r"[a-z][a-z0-9-]*", "the name of a command: lower-case letters, digits and hyphens")]
Identifier = Annotated[str, _form(_NAME, "the name of an argument or class")]
Module = Annotated[str, _form(_DOTTED, "the name of a module")]
Reference = Annotated[str, _form(rf"{_DOTTED}:{_NAME}", "of the form 'module:attribute'")]
Place = Annotated[str, _form(rf"{_DOTTED}:{_DOTTED}", "of the form 'module:Class' or 'module:Class.method'")]
Suffix = Annotated[str, _form(r"\.[^\s./\\A-Z]+", "a suffix: a dot, then lower-case characters without another dot")]
Requires = Annotated[str, _requirement]
Hexadecimal = Annotated[str, _form(r"(?=.*[0-9a-f])[0-9a-f?]{2}( [0-9a-f?]{2})*", "bytes, such as '89 48 44 46 ??'")]
Permuted = Annotated[tuple[int, ...] | None, _permutation]
Notes = Annotated[Mapping[str, Any], lambda value: dict(_convert(Mapping[Name, Any], value))]
"""Named notes, kept as a dict, because they are written to files."""
