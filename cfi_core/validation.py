"""Rules for what the records of plugins may hold; each kind of field is described once.

A rule takes a value and returns what the record keeps of it (mutable collections are copied into frozen ones), or
raises `Refused` with the reason. `check` applies one rule to each field of a frozen dataclass:

    def __post_init__(self) -> None:
        check(self, name=NAME, requirements=each(REQUIREMENT), needs=members(Need))
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

Rule = Callable[[Any], Any]


class Refused(Exception):
    """A value that a rule does not let pass; core shows it as a `ValueError` that names record and field."""


def check(record: Any, **rules: Rule) -> None:
    """Checks every field of a frozen dataclass, and puts frozen copies in the place of mutable collections.

    Raises:
        ValueError: A field does not hold what its rule asks for; names record, field and value.
    """
    for entry in fields(record):
        value = getattr(record, entry.name)
        try:
            kept = rules[entry.name](value)
        except Refused as refusal:
            raise ValueError(f"{_title(record)}: {entry.name}={_shown(value)} {refusal}.") from None
        if kept is not value:
            object.__setattr__(record, entry.name, kept)


def refuse(record: Any, reason: str) -> None:
    """Raises what `check` does, for fields that do not fit each other."""
    raise ValueError(f"{_title(record)}: {reason}.")


def _title(record: Any) -> str:
    name = getattr(record, "key", None) or getattr(record, "name", None)
    return f"{type(record).__name__} {name!r}" if isinstance(name, str) else type(record).__name__


def _shown(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"


# one value


def anything(value: Any) -> Any:
    """No rule."""
    return value


def _matching(pattern: str, description: str) -> Rule:
    expression = re.compile(pattern)

    def rule(value: Any) -> str:
        if not isinstance(value, str) or not expression.fullmatch(value):
            raise Refused(f"is not {description}")
        return value

    return rule


_IDENTIFIER = r"[^\W\d]\w*"
_DOTTED = rf"{_IDENTIFIER}(\.{_IDENTIFIER})*"

TEXT = _matching(r"(?s).*", "a string")
NAME = _matching(r"\S(.*\S)?", "a name: a string that neither is empty nor begins or ends with a space")
KEY = _matching(r"[a-z][a-z0-9_]*", "a key: lower-case letters, digits and underscores, such as 'grad_cam'")
IDENTIFIER = _matching(_IDENTIFIER, "the name of an argument or class")
MODULE = _matching(_DOTTED, "the name of a module")
REFERENCE = _matching(rf"{_DOTTED}:{_IDENTIFIER}", "of the form 'module:attribute'")
SUFFIX = _matching(r"\.[^\s./\\A-Z]+", "a suffix: a dot, then lower-case characters without another dot")


def optional(rule: Rule) -> Rule:
    """The empty string, or what another rule lets pass."""
    return lambda value: value if value == "" and isinstance(value, str) else rule(value)


def nothing_or(rule: Rule) -> Rule:
    """None, or what another rule lets pass."""
    return lambda value: None if value is None else rule(value)


def but_not(rule: Rule, reserved: tuple[str, ...], reason: str) -> Rule:
    """What another rule lets pass, some words excepted."""

    def check_word(value: Any) -> Any:
        if value in reserved:
            raise Refused(reason)
        return rule(value)

    return check_word


@cache
def parse_requirement(text: str) -> Requirement:
    """A PEP 508 requirement in its parts.

    Raises:
        InvalidRequirement: It is none.
    """
    return Requirement(text)


def _requirement(value: Any) -> str:
    try:
        parse_requirement(TEXT(value))
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"is no PEP 508 requirement, such as 'numpy>=1.26' ({reason})") from None
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Refused("is neither True nor False")
    return value


def _cost(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise Refused("is no number of 0 or more")
    return value


def _permutation(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    axes = each(anything)(value)
    if not all(type(axis) is int for axis in axes) or sorted(axes) != list(range(len(axes))):
        raise Refused(f"is no permutation of axes: it must hold each of 0 to {len(axes) - 1} once, or be None")
    return axes


REQUIREMENT: Rule = _requirement
FLAG: Rule = _flag
COST: Rule = _cost
PERMUTATION: Rule = _permutation


def one_of(*choices: str) -> Rule:
    """One of some strings."""

    def rule(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise Refused(f"is none of {', '.join(map(repr, choices))}")
        return value

    return rule


def member(kind: type[Enum]) -> Rule:
    """A member of an enum; its value alone is refused, so that a slip of the pen is one."""

    def rule(value: Any) -> Enum:
        if not isinstance(value, kind):
            raise Refused(f"is no member of {kind.__name__}, such as {kind.__name__}.{next(iter(kind)).name}")
        return value

    return rule


def instance(kind: type) -> Rule:
    """An instance of a class."""

    def rule(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Refused(f"is no {kind.__name__}")
        return value

    return rule


# several values


def each(rule: Rule) -> Rule:
    """A tuple (or list) of values of one kind; one value alone is refused, with the tuple that was meant."""

    def check_each(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, tuple | list):
            alone = isinstance(value, str) or hasattr(value, "shape")
            raise Refused(f"is no tuple{f'; write ({_shown(value)},)' if alone else ''}")
        return tuple(_naming(rule, entry) for entry in value)

    return check_each


def members(kind: type[Enum]) -> Rule:
    """A set of members of an enum."""
    rule = member(kind)

    def check_members(value: Any) -> frozenset[Any]:
        if not isinstance(value, AbstractSet):
            raise Refused(f"is no set, such as frozenset({{{kind.__name__}.{next(iter(kind)).name}}})")
        return frozenset(_naming(rule, entry) for entry in value)

    return check_members


def pair(first: Rule, second: Rule) -> Rule:
    """A tuple of two values."""

    def check_pair(value: Any) -> tuple[Any, Any]:
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise Refused("is no pair")
        return first(value[0]), second(value[1])

    return check_pair


def mapping(keys: Rule = anything, values: Rule = anything, *, frozen: bool = True) -> Rule:
    """A mapping, of which a copy is kept; a frozen one, or a plain dict."""

    def check_mapping(value: Any) -> Mapping[Any, Any]:
        if not isinstance(value, Mapping):
            raise Refused("is no mapping")
        copy = {_naming(keys, key): _naming(values, entry) for key, entry in value.items()}
        return MappingProxyType(copy) if frozen else copy

    return check_mapping


def _naming(rule: Rule, entry: Any) -> Any:
    """Applies a rule to one of several values; a refusal names the value."""
    try:
        return rule(entry)
    except Refused as refusal:
        raise Refused(f"holds {_shown(entry)}, which {refusal}") from None
