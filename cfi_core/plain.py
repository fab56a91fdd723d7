"""Values of any kind in the types of JSON, for people and other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np


def simplify(value: Any) -> Any:
    """The value in the types of JSON, numbers exactly; what has no such type as its `repr`.

    Tuples and arrays become lists, sets sorted ones, and numbers that are not finite the words "nan" and "inf",
    because JSON has none of these.
    """
    if isinstance(value, Enum):
        return simplify(value.value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): simplify(entry) for key, entry in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return simplify(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [simplify(entry) for entry in value]
    if isinstance(value, (set, frozenset)):
        return sorted((simplify(entry) for entry in value), key=str)
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        with suppress(Exception):  # of any library; it is then printed, as all else is
            return simplify(np.asarray(value))  # a tensor
    return str(value) if isinstance(value, Path) else repr(value)
