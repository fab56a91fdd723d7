"""The arguments of what a toolset has, from its own signature and docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docstring_parser import DocstringParam

REQUIRED = ""
"""As a default: there is none."""

_ROLE = re.compile(r":[\w:]+:`[~.]*([^`<]+?)(?:\s*<[^`]*>)?`")
_EMPTY_LINES_BELOW_TITLE = re.compile(r"(?m)^([A-Z]\w+:)\n\n+(?=[ ])")
_SAID_DEFAULT = re.compile(r"\s*\(?\bdefaults?(?::| is| to)\s*`*[^\s`]{1,40}?`*\.?\)?\.?$", re.IGNORECASE)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LONGEST = 60


@dataclass(frozen=True)
class Parameter:
    """One argument of what a toolset has.

    Attributes:
        name: What it is called there.
        default: What it is where none is given, as people read it; empty if there is none.
        type: Of which type, in the words of the docstring; empty if it says nothing.
        meaning: What the docstring says of it, a blank line between paragraphs; empty if it says nothing.
        place: Where this stands, as `"module:Class.method"`.
        signed: Whether it stands in the signature, not in the docstring alone.
    """

    name: str
    default: str
    type: str
    meaning: str
    place: str
    signed: bool


@cache
def read_parameters(place: str) -> Mapping[str, Parameter]:
    """The parameters of a class's constructor, a method or a function by their names, in the order of the signature.

    The module is imported. What stands in the docstring alone (behind `**kwargs`) comes last.

    Raises:
        Exception: Whatever the import raises; `AttributeError` where the module has nothing of that name.
    """
    module, _, path = place.partition(":")
    found = attrgetter(path)(import_module(module))
    told = _told(found)
    taken = {name: one for name, one in inspect.signature(found).parameters.items() if _is_named(one)}
    names = dict.fromkeys((*taken, *told))
    return {name: _parameter(name, taken.get(name), told.get(name), place) for name in names}


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def _parameter(name: str, taken: inspect.Parameter | None, told: DocstringParam | None, place: str) -> Parameter:
    default = told.default or "" if taken is None and told else ""
    if taken is not None and taken.default is not taken.empty:
        default = show(taken.default)
    kind = re.sub(r"\s*\boptional\b,?\s*", "", (told.type_name if told else "") or "").strip(", ")
    kind = re.sub(r"\w*:?`([^`]*)`", r"\1", kind)
    meaning = clean((told.description if told else "") or "")
    return Parameter(name, default, kind, meaning, place, taken is not None)


def _told(found: Any) -> dict[str, DocstringParam]:
    """What docstrings say of each; of a class, that of its constructor first."""
    told: dict[str, DocstringParam] = {}
    for one in (found.__init__, found) if inspect.isclass(found) else (found,):
        for param in _params(inspect.getdoc(one) or ""):
            for name in re.split(r"\s*[,/]\s*", param.arg_name):
                if not name.startswith(("*", "\\*")):
                    told.setdefault(name.strip("` "), param)
    return told


def _params(text: str) -> Iterator[DocstringParam]:
    from docstring_parser import ParseError, parse  # when a method is looked up, not when methods are listed

    # A parser of roles would be one of Sphinx; a title is known by the line in front of it and the entry below.
    text = _EMPTY_LINES_BELOW_TITLE.sub(r"\1\n", "\n" + _ROLE.sub(r"\1", text))
    try:
        yield from parse(text).params
    except ParseError:
        return


def clean(text: str) -> str:
    """Paragraphs without line breaks, markup and the default, which the signature tells, with blank lines between.

    Items of a list are paragraphs of their own.
    """
    text = re.sub(r"``([^`]*)``", r"`\1`", inspect.cleandoc(text).replace("**", ""))
    text = re.sub(r"\n(?=\s*(?:[-*] |\d+\. ))", "\n\n", text)
    parts = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return _SAID_DEFAULT.sub("", "\n\n".join(filter(None, parts))).strip()


def show(value: Any) -> str:
    """A default as people read it: without addresses, and short."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, list | tuple) and value:
        inner = ", ".join(map(show, value))
        text = f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    elif inspect.isclass(value) or inspect.isroutine(value):
        text = "a function" if value.__name__ == "<lambda>" else value.__name__
    elif repr(value) == object.__repr__(value):
        text = f"{type(value).__name__}(…)"
    else:
        text = _ADDRESS.sub("", repr(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
