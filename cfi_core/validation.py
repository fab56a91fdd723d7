"""Rules for what the records of plugins may hold; they stand in the annotations of the records' fields.

A rule takes a value and returns what the record keeps of it (mutable collections are copied into frozen ones), or
raises `Refused` with the reason. Most rules follow from a field's type; `Annotated` adds one:

    @dataclass(frozen=True)
    class ToolsetSpec(Checked):
        name: Name                                # Annotated[str, NAME]
        requirements: tuple[Requires, ...] = ()
        kind: Kind = Kind.LAYER
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
from typing import Annotated, Any, get_args, get_origin, get_type_hints

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
        for name, rule in _rules_of(type(self)).items():  # type: ignore[arg-type] # a class is hashable
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, rule(value))
            except Refused as refusal:
                self.refuse(f"{name}={_shown(value)} {refusal}")

    @property
    def title(self) -> str:
        """Kind and name, for sentences: `MethodSpec 'grad_cam'`."""
        name = getattr(self, "key", None) or getattr(self, "name", None)
        return f"{type(self).__name__} {name!r}" if isinstance(name, str) else type(self).__name__

    def refuse(self, reason: str) -> None:
        """Raises what a field that holds something else raises, for fields that do not fit each other."""
        raise ValueError(f"{self.title}: {reason}.") from None


@cache
def _rules_of(kind: Any) -> dict[str, Rule]:
    hints = get_type_hints(kind, include_extras=True)
    return {entry.name: _rule_of(hints[entry.name]) for entry in fields(kind)}


def _rule_of(hint: Any) -> Rule:
    """The rule that follows from an annotation."""
    if get_origin(hint) is Annotated:
        rule: Rule = hint.__metadata__[0]
        return rule
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return _each(_rule_of(arguments[0])) if arguments[-1] is Ellipsis else _pair(*map(_rule_of, arguments))
    if origin is frozenset:
        return _members(arguments[0])
    if NoneType in arguments:
        (other,) = (_rule_of(argument) for argument in arguments if argument is not NoneType)
        return lambda value: None if value is None else other(value)
    if origin is Mapping:
        return copied(_rule_of(arguments[0]), _rule_of(arguments[1]), MappingProxyType)
    return _member(hint) if issubclass(hint, Enum) else _instance(hint)


def _shown(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"


# one value


def _only(fits: Callable[[Any], bool], reason: str) -> Rule:
    """Values that fit, as they are; `reason` is what is said of the others."""

    def rule(value: Any) -> Any:
        if not fits(value):
            raise Refused(reason)
        return value

    return rule


def _instance(kind: type, reason: str = "") -> Rule:
    return _only(lambda value: isinstance(value, kind), reason or f"is no {kind.__name__}")


def _member(kind: type[Enum]) -> Rule:
    """A member of an enum; its value alone is refused, so that a slip of the pen is one."""
    return _instance(kind, f"is no member of {kind.__name__}, such as {_first(kind)}")


def _first(kind: type[Enum]) -> str:
    return f"{kind.__name__}.{next(iter(kind)).name}"


def _matching(pattern: str, description: str) -> Rule:
    expression = re.compile(pattern)
    return _only(
        lambda value: isinstance(value, str) and expression.fullmatch(value) is not None, f"is not {description}"
    )


def one_of(*choices: str) -> Rule:
    """One of some strings."""
    return _only(
        lambda value: isinstance(value, str) and value in choices, f"is none of {', '.join(map(repr, choices))}"
    )


def name_but(reserved: tuple[str, ...], reason: str) -> Rule:
    """A name, some words excepted."""
    other = _only(lambda value: value not in reserved, reason)
    return lambda value: _NAME(other(value))


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _requirement(value: Any) -> str:
    try:
        parse_requirement(_PLAIN[str](value))
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"is no PEP 508 requirement, such as 'numpy>=1.26' ({reason})") from None
    return str(value)


parse_requirement = cache(Requirement)
"""Reads a PEP 508 requirement; raises `InvalidRequirement` for what is none."""


def _permutation(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    axes = _each(_PLAIN[Any])(value)
    if not all(type(axis) is int for axis in axes) or sorted(axes) != list(range(len(axes))):
        raise Refused(f"is no permutation of axes: it must hold each of 0 to {len(axes) - 1} once, or be None")
    return axes


_PLAIN: Mapping[Any, Rule] = {
    Any: lambda value: value,
    str: _instance(str, "is not a string"),
    bool: _instance(bool, "is neither True nor False"),
    float: _only(_is_amount, "is no number of 0 or more"),
}
_IDENTIFIER = r"[^\W\d]\w*"
_DOTTED = rf"{_IDENTIFIER}(\.{_IDENTIFIER})*"
_NAME = _matching(r"\S(.*\S)?", "a name: a string that neither is empty nor begins or ends with a space")
_REFERENCE = rf"{_DOTTED}:{_IDENTIFIER}"

Name = Annotated[str, _NAME]
Key = Annotated[
    str, _matching(r"[a-z][a-z0-9_]*", "a key: lower-case letters, digits and underscores, such as 'grad_cam'")
]
Identifier = Annotated[str, _matching(_IDENTIFIER, "the name of an argument or class")]
OptionalIdentifier = Annotated[str, _matching(f"({_IDENTIFIER})?", "the name of an argument, or empty")]
Module = Annotated[str, _matching(_DOTTED, "the name of a module")]
Reference = Annotated[str, _matching(_REFERENCE, "of the form 'module:attribute'")]
OptionalReference = Annotated[str, _matching(f"({_REFERENCE})?", "of the form 'module:attribute', or empty")]
Suffix = Annotated[
    str, _matching(r"\.[^\s./\\A-Z]+", "a suffix: a dot, then lower-case characters without another dot")
]
Requires = Annotated[str, _requirement]
OptionalRequires = Annotated[str, lambda value: value if value == "" else _requirement(value)]
Permuted = Annotated[tuple[int, ...] | None, _permutation]


# several values


def _each(rule: Rule) -> Rule:
    """A tuple (or list) of values of one kind; one value alone is refused, with the tuple that was meant."""

    def check_each(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, tuple | list):
            alone = isinstance(value, str) or hasattr(value, "shape")
            raise Refused(f"is no tuple{f'; write ({_shown(value)},)' if alone else ''}")
        return tuple(_naming(rule, entry) for entry in value)

    return check_each


def _members(kind: type[Enum]) -> Rule:
    rule, collection = _member(kind), _instance(AbstractSet, f"is no set, such as frozenset({{{_first(kind)}}})")
    return lambda value: frozenset(_naming(rule, entry) for entry in collection(value))


def _pair(first: Rule, second: Rule) -> Rule:
    pair = _only(lambda value: isinstance(value, tuple | list) and len(value) == 2, "is no pair")
    return lambda value: tuple(rule(entry) for rule, entry in zip((first, second), pair(value), strict=True))


def copied(keys: Rule, values: Rule, into: Callable[[dict[Any, Any]], Mapping[Any, Any]]) -> Rule:
    """A mapping, of which a copy is kept."""
    mapping = _instance(Mapping, "is no mapping")
    return lambda value: into({_naming(keys, key): _naming(values, entry) for key, entry in mapping(value).items()})


Notes = Annotated[Mapping[str, Any], copied(_NAME, _PLAIN[Any], dict)]
"""Named notes, kept as a dict, because they are written to files."""


def _naming(rule: Rule, entry: Any) -> Any:
    """Applies a rule to one of several values; a refusal names the value."""
    try:
        return rule(entry)
    except Refused as refusal:
        raise Refused(f"holds {_shown(entry)}, which {refusal}") from None
