"""What was applied, in words and numbers that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np


def describe(value: Any) -> Any:
    """A JSON-able description of an argument: numbers as they are, objects by class and settings."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [describe(entry) for entry in value]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"array of shape {tuple(value.shape)}"
    if hasattr(value, "get_config"):
        return {type(value).__name__: describe(value.get_config())}
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    settings = {
        name: describe(entry)
        for name, entry in getattr(value, "__dict__", {}).items()
        if not name.startswith("_") and isinstance(entry, bool | int | float | str | list | tuple)
    }
    return {type(value).__name__: settings} if settings else type(value).__name__
