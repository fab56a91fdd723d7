"""What models give: the tensors in their outputs, of whatever framework, and which of them is meant."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfi_core.adapters import adapter_for, framework_of_tensor
from cfi_core.errors import TargetError
from cfi_core.framework import FrameworkAdapter, is_structure, items, map_structure
from cfi_core.registry import registry

Path = tuple[Any, ...]
"""Keys and positions that lead from a model's outputs to one of them."""


def leaves_of(outputs: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """All tensors of a structure, with the paths that lead there."""
    if is_structure(outputs):
        return [leaf for key, entry in items(outputs) for leaf in leaves_of(entry, (*path, key))]
    kept = map_structure(lambda leaf: leaf, outputs)
    return [] if kept is None else [(path, kept)]


def main_path(outputs: Any, samples: int | None = None) -> Path | None:
    """Which of several outputs is meant where none is named: `logits`, or the only one that holds scores of samples.

    None if there are several such, or none. A loss is none: a single number, or called so.
    """
    leaves = dict(leaves_of(outputs))
    if () in leaves:
        return ()
    if ("logits",) in leaves:
        return ("logits",)
    found = {path: leaf for path, leaf in leaves.items() if path[-1] != "loss" and _holds_scores(leaf, samples)}
    several = {path: leaf for path, leaf in found.items() if shape_of(leaf) != (1,)} or found
    return next(iter(several)) if len(several) == 1 else None


def adapter_of(tensor: Any) -> FrameworkAdapter:
    """The adapter of a tensor's framework; that of arrays for anything else."""
    current = registry()
    return adapter_for(current, framework_of_tensor(current, tensor) or "numpy")


def total(tensor: Any) -> Any:
    """The sum over all axes but the first."""
    axes = tuple(range(1, len(tensor.shape)))
    return adapter_of(tensor).arithmetic.sum(tensor, axis=axes) if axes else tensor


def one_each(values: Any, who: str = "The target function") -> Any:
    """What a function of outputs gives, as a tensor of shape (samples,).

    Raises:
        TargetError: It gives something else than one value for each sample.
    """
    parts = values if isinstance(values, list | tuple) else None
    if parts:
        values = adapter_of(parts[0]).arithmetic.stack([*parts], axis=0)
    elif parts is not None or isinstance(values, int | float):
        values = np.asarray(values, np.float64)
    shape = shape_of(values) if hasattr(values, "shape") else None
    if shape is None or (shape and int(np.prod(shape)) != shape[0]):
        raise TargetError(
            f"{who} must return one value per sample, but returned "
            f"{type(values).__name__ if shape is None else shape}. Reduce all axes but the first."
        )
    return adapter_of(values).arithmetic.reshape(values, (-1,))


def rows_of(tensor: Any) -> int:
    """How many rows a tensor has.

    Raises:
        TypeError: It is symbolic, and of any number: the code has to run with values.
    """
    rows = tensor.shape[0]
    if rows is None:
        raise TypeError("the number of samples is not known yet")
    return int(rows)


def _holds_scores(leaf: Any, samples: int | None) -> bool:
    shape = shape_of(leaf) if hasattr(leaf, "shape") else ()
    return bool(shape) and "float" in str(leaf.dtype) and samples in (None, shape[0])


def tensor_of(outputs: Any) -> Any:
    """The one tensor that is meant.

    Raises:
        TargetError: Several could be.
    """
    path = main_path(outputs)
    if path is None:
        keys = ", ".join(repr(path) for path, _ in leaves_of(outputs)) or "none"
        raise TargetError(f"The model gives several outputs: {keys}. Pass a tuple that begins with one of them.")
    return dict(leaves_of(outputs))[path]


def first_tensor(outputs: Any) -> Any:
    """The first of the tensors.

    Raises:
        TargetError: There is none.
    """
    leaves = leaves_of(outputs)
    if not leaves:
        raise TargetError("The model gives no tensor.")
    return leaves[0][1]


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Its shape, in every framework as a tuple."""
    return tuple(tensor.shape)
