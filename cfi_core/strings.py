"""Named inputs that hold strings, beside floating point ones that are differentiated: they are held by their places.

A method that perturbs exchanges them as the cells of a table (`cfi_core.columns`). One that differentiates the other
inputs takes whole numbers in their place, and the model looks the strings up again in its own framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cfi_core.adapters import framework_of_tensor
from cfi_core.errors import ArgumentError, InputError
from cfi_core.records import Arguments, InputNames, Original
from cfi_core.registry import Registry
from cfi_core.tables import is_frame, is_row


def hold_strings(registry: Registry, original: Original, inputs: Any, explain: Sequence[str] | None) -> Original:
    """The user's model as one whose strings are whole numbers; the model as it is where there are none to hold.

    Raises:
        InputError: There is no floating point input to differentiate, or the framework cannot look up strings.
        ArgumentError: `explain` names an input of strings, or none.
    """
    adapter, model = original.adapter, original.model
    of_strings = isinstance(inputs, Mapping) and any(holds_strings(registry, value) for value in inputs.values())
    of_columns = is_frame(inputs) and set(map(str, inputs.columns)) == set(adapter.input_names(model) or ())
    if not of_strings and not of_columns:
        return original
    given = {str(name): _array(original, inputs[name]) for name in inputs}
    arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
    strings = {name: np.unique(value.astype(str)) for name, value in arrays.items() if value.dtype.kind in "OSU"}
    floating = [name for name, value in arrays.items() if value.dtype.kind == "f"]
    explained = tuple(floating if explain is None else [explain] if isinstance(explain, str) else explain)
    if unfit := [name for name in explained if name not in floating] or ([] if explained else [*arrays]):
        raise ArgumentError(
            f"A method that differentiates explains inputs of floating point numbers ({', '.join(floating) or 'none'} "
            f"here), which {unfit[0]!r} is not. Hold it, or take a method that exchanges values, such as "
            f"'shapley_value_sampling', 'kernel_shap' or 'feature_ablation'."
        )
    names = InputNames(explained, tuple(name for name in arrays if name not in explained))
    numbers = {name: np.searchsorted(strings[name], arrays[name].astype(str)) for name in strings}
    constants = {name: value for name, value in given.items() if name not in arrays}
    named = adapter.by_name(model, names.every, constants)
    looked_up = adapter.with_strings(named, [strings.get(name) for name in names.every]) if strings else named
    return replace(original, model=looked_up, names=names, coded={**arrays, **numbers})


def turn_strings(arguments: Arguments, original: Original) -> Arguments:
    """The arguments with whole numbers in the place of strings; a row of baselines with what is explained alone."""
    if not original.coded or original.names is None:
        return arguments
    baselines = arguments.baselines
    if is_row(baselines):
        explained = {name: cell for name, cell in baselines.items() if name not in original.names.held}
        baselines = {name: _plain(cell) for name, cell in explained.items()}
    return replace(arguments, inputs=original.coded, baselines=baselines)


def _plain(cell: Any) -> Any:
    """A number of a data frame as one of Python's, which toolsets ask for."""
    return cell.item() if isinstance(cell, np.generic) else cell


def holds_strings(registry: Registry, value: Any) -> bool:
    """Whether this is an array, list or tensor of strings or objects."""
    if framework_of_tensor(registry, value) is not None:
        return "string" in str(getattr(value, "dtype", ""))
    if isinstance(value, list | tuple):
        flat = [cell for row in value for cell in (row if isinstance(row, list | tuple) else (row,))]
        return any(isinstance(cell, str) for cell in flat)
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU"


def as_strings(original: Original, value: Any) -> np.ndarray:
    """An array or tensor, its bytes read as text."""
    array = original.adapter.to_numpy(value) if original.adapter.is_tensor(value) else np.asarray(value)
    if array.dtype.kind not in "OS":
        return array
    cells = [cell.decode() if isinstance(cell, bytes) else cell for cell in array.ravel().tolist()]
    return np.array([*cells, None], dtype=object)[:-1].reshape(array.shape)


def _array(original: Original, value: Any) -> Any:
    """An input as an array; a column of a frame has one value for each sample; what is no array as it is."""
    if hasattr(value, "iloc"):
        column = value.to_numpy()
        return column[:, None]
    array = as_strings(original, value)
    if array.dtype.kind in "OSU" and array.ndim and not all(isinstance(cell, str) for cell in array.ravel().tolist()):
        raise InputError("An input of objects holds something else than strings, which cannot be held. Pass strings.")
    return array if array.ndim else value
