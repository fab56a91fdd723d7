"""ONNX Runtime sessions as models: functions of numpy arrays, whose shapes and types are declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cfi_core.arrays import ArrayAdapter, ArrayModel
from cfi_core.errors import InputError
from cfi_core.framework import Parameters, Portions, one_size
from cfi_onnx.scores import scores_of

_TYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    **{f"tensor({kind}int{bits})": np.dtype(f"{kind}int{bits}") for kind in ("", "u") for bits in (8, 16, 32, 64)},
}


class SessionModel(ArrayModel):
    """A session with all its outputs.

    Attributes:
        session: The session.
        names: Of its inputs, in the order in which they are given.
        types: Of its inputs; None where numpy has none.
    """

    def __init__(self, session: Any, names: Sequence[str] = ()) -> None:
        """Takes a session, and the names of its inputs in the order in which they are given; none: in its own."""
        declared = {entry.name: entry for entry in session.get_inputs()}
        inputs = [declared[name] for name in names or declared]
        shapes = [tuple(size if isinstance(size, int) else None for size in entry.shape) for entry in inputs]
        samples = one_size(shape[0] if shape else None for shape in shapes)
        if samples is not None:
            shapes = [(None, *shape[1:]) for shape in shapes]
        super().__init__(self._run, tuple(shapes))
        self.session = session
        self.types = tuple(_TYPES.get(entry.type) for entry in inputs)
        self.names = tuple(entry.name for entry in inputs)
        self._portions = Portions(lambda feeds: list(session.run(None, dict(feeds))), samples)

    def _run(self, *arrays: np.ndarray) -> Any:
        if len(arrays) != len(self.names):
            raise InputError(f"The model takes {len(self.names)} inputs, but gets {len(arrays)}.")
        fitting = map(_cast, arrays, self.types)
        results = scores_of(self._portions(dict(zip(self.names, fitting, strict=True))))
        return results[0] if len(results) == 1 else tuple(results)


class SessionAdapter(ArrayAdapter):
    """Sessions are known by their outputs only: they show neither layers nor gradients."""

    name = "onnxruntime"

    def load(self, model: Any) -> SessionModel:
        """The session with all its outputs."""
        return model if isinstance(model, SessionModel) else SessionModel(model)

    def takes_one_table(self, model: ArrayModel) -> bool:
        """No: a mapping names its inputs."""
        return False

    def input_names(self, model: ArrayModel) -> tuple[str, ...] | None:
        """Of the session's inputs."""
        return model.names if isinstance(model, SessionModel) else super().input_names(model)

    def by_name(self, model: ArrayModel, names: Sequence[str], constants: Mapping[str, Any]) -> ArrayModel:
        """The session, given its inputs in that order.

        Raises:
            InputError: It takes others.
        """
        if not isinstance(model, SessionModel):
            return super().by_name(model, names, constants)
        Parameters(model.names, frozenset(model.names)).check(names, constants, "the session")
        return model if tuple(names) == model.names else SessionModel(model.session, names)

    def declares_integer(self, model: SessionModel, position: int) -> bool | None:
        """Whether the session declares that input as one of integers."""
        dtype = model.types[position] if position < len(model.types) else None
        return None if dtype is None else bool(np.issubdtype(dtype, np.integer))

    def channel_axis(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        """Axis 1, as ONNX's convolutions have it."""
        return 1 if len(shape) > 2 else None

    def tensor(self, value: Any, model: Any) -> np.ndarray:
        """A fresh array, in the floating point type that the session declares."""
        array = np.array(value)
        declared = [dtype for dtype in model.types if dtype is not None and np.issubdtype(dtype, np.floating)]
        return array.astype(declared[0]) if declared and np.issubdtype(array.dtype, np.floating) else array


def _cast(array: np.ndarray, dtype: np.dtype[Any] | None) -> np.ndarray:
    """The array in the declared type, where that holds the values (or both are floating point)."""
    if dtype is None:
        return array
    floating = np.issubdtype(dtype, np.floating) and np.issubdtype(array.dtype, np.floating)
    return array.astype(dtype, copy=False) if floating or np.can_cast(array.dtype, dtype) else array
