"""What a forward pass could write to: variables, and numbers that layers and modules count with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cfi_core.framework import State

_GENERATOR = "seed_generator_state"


class VariableState(State):
    """Of variables by their names, and of the objects that a model consists of. A twin shares all of them."""

    def __init__(self, variables: Iterable[Any], objects: Mapping[str, Any]) -> None:
        """Holds their values.

        Args:
            variables: Keras's and TensorFlow's.
            objects: Layers and modules, by name.
        """
        read = [(variable, _values(variable)) for variable in variables]
        # Read, not copied: TensorFlow writes to other memory as long as anybody holds what was read.
        self._kept = [(variable, values) for variable, values in read if values is not None]
        self._objects = objects
        self._numbers = self.numbers(None)

    def changes(self, model: Any) -> tuple[str, ...]:
        """Names of variables with other values; the states of generators of random numbers are no weights."""
        changed = [variable for variable, values in self._kept if not _is_equal(variable, values)]
        names = [getattr(variable, "path", None) or variable.name.removesuffix(":0") for variable in changed]
        return tuple(name for name in names if not name.endswith(_GENERATOR))

    def numbers(self, model: Any) -> dict[str, float]:
        """Whole and other numbers among the attributes, without marks that are true or false."""
        return {
            f"{name}.{key}".lstrip("."): value
            for name, one in self._objects.items()
            for key, value in getattr(one, "__dict__", {}).items()
            if type(value) in (int, float)
        }

    def restore(self) -> None:
        """Assigns to the variables that have changed, and to nothing else."""
        for variable, values in self._kept:
            if not _is_equal(variable, values):
                variable.assign(values)
        for name, one in self._objects.items():
            for key in list(getattr(one, "__dict__", ())):
                former = self._numbers.get(f"{name}.{key}".lstrip("."))
                if former is not None and vars(one)[key] != former:
                    vars(one)[key] = former  # past Keras, which would track it


def _values(variable: Any) -> np.ndarray | None:
    """None of one that has no values yet, or none that are numbers."""
    try:
        held = variable.value if isinstance(variable, keras.Variable) else variable
        values = np.asarray(held.read_value() if isinstance(held, tf.Variable) else held)
    except Exception:  # noqa: BLE001 - a variable may not be initialised, or be of a kind that cannot be read
        return None
    return None if values.dtype.hasobject or values.dtype.kind in "SU" else values


def _is_equal(variable: Any, values: np.ndarray) -> bool:
    """Bit by bit; one of another shape is taken for a cache."""
    now = _values(variable)
    if now is None or now.shape != values.shape or now.ctypes.data == values.ctypes.data:
        return True
    return now.tobytes() == values.tobytes()


def own_variables(holder: Any) -> list[Any]:
    """Variables of TensorFlow's own among the attributes of a Keras layer, which Keras does not list."""
    return [value for value in vars(holder).values() if isinstance(value, tf.Variable)]
