"""Options that several commands share: records whose fields become options of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def command(epilog: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks a function as a command: of a parameter that is a record, each field becomes an option or argument.

    Args:
        epilog: What stands below its options: examples.
    """

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = inspect.signature(function).parameters
        records = {name: hints[name] for name in own if is_dataclass(hints[name])}

        @wraps(function)
        def call(**given: Any) -> None:
            made = {
                name: kind(**{one.name: given.pop(one.name) for one in fields(kind)}) for name, kind in records.items()
            }
            function(**made, **given)

        parameters: list[inspect.Parameter] = []
        for name in own:
            parameters += (
                _fields(records[name]) if name in records else [_parameter(name, own[name].default, hints[name])]
            )
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in parameters}
        del call.__wrapped__  # whose signature would be read instead
        call.epilog = "\b\n" + inspect.cleandoc(epilog)  # type: ignore[attr-defined]
        return call

    return mark


def _fields(record: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(record, include_extras=True)
    defaults = {one.name: inspect.Parameter.empty if one.default is MISSING else one.default for one in fields(record)}
    return [_parameter(name, default, hints[name]) for name, default in defaults.items()]


def _parameter(name: str, default: Any, hint: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
