"""Every argument of one call of tf-keras-vis, so that all of them can be recorded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from cfi_core.errors import ArgumentError
from cfi_core.specs import resolve


def settings(tool: Any, own: Mapping[str, Any], apart: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a class's call: those of the request, and the signature's own defaults for the rest.

    Args:
        tool: A class of tf-keras-vis.
        own: The request's arguments; `"module:attribute"` strings are resolved.
        apart: Names that are passed in another way.

    Raises:
        ArgumentError: The class takes no argument of that name.
    """
    parameters = inspect.signature(tool.__call__).parameters
    unknown = set(own) - set(parameters)
    if unknown:
        raise ArgumentError(
            f"{tool.__name__} of tf-keras-vis takes no {sorted(unknown)}; it takes {sorted(set(parameters) - {'self'})}"
        )
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    given = {name: _resolve(value) for name, value in own.items()}
    return {name: value for name, value in (defaults | given).items() if name not in apart}


def _resolve(value: Any) -> Any:
    return resolve(value) if isinstance(value, str) and ":" in value else value
