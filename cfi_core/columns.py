"""A model on a table: which columns are explained, and the model as a function of what stands for their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from cfi_core.adapters import adapter_for
from cfi_core.arrays import ArrayAdapter, ArrayModel
from cfi_core.errors import ArgumentError, CFIError, InputError
from cfi_core.records import Arguments, InputNames, Original
from cfi_core.registry import Registry
from cfi_core.specs import MethodSpec, Role
from cfi_core.tables import ADVICE, Table, is_frame, is_plain, make_table

_CELLS, _ROWS = "cells", "rows"


def take_table(
    registry: Registry, original: Original, inputs: Any, explain: Sequence[str] | None, baselines: Any
) -> Original:
    """The user's model as a function of a table's cells, if the inputs are a table that it takes.

    Raises:
        InputError: The columns are not those that the model was fitted on, or nothing that it takes.
        ArgumentError: `explain` names none of them.
    """
    frame, adapter, model = _as_frame(original, inputs), original.adapter, original.model
    if frame is None:
        return original
    check_columns(original, frame, "inputs")
    run = adapter.on_frames(model, tuple(frame.columns))
    if run is None:
        if is_plain(frame) and explain is None:
            return original  # an array to it
        raise InputError(
            f"This {original.framework} model takes arrays, and inputs is a data frame of {_kinds(frame)}. Pass "
            f"arrays, or a function of the data frame that makes them and runs the model."
        )
    table = make_table(frame, explain, baselines)
    if table.coded and baselines is None and not _words(table):
        table = make_table(frame, explain, 0)  # as for arrays of numbers
    of_arrays = adapter.columns(model) is None and is_plain(frame)
    if (of_arrays or original.framework != _HOME) and not table.coded and not table.held:
        return replace(original, table=table)  # whatever looks into the model finds it as it is
    if of_arrays:
        run = _on_arrays(original)
    # Trees stay trees, so that their own method can say what it does not take.
    home = original if isinstance(adapter, ArrayAdapter) else Original(_HOME, adapter_for(registry, _HOME), None)
    shapes = ((None, len(table.columns)),) + (((None,),) if table.holds_rows else ())
    made = ArrayModel(_on_cells(run, table), shapes, classes=adapter.class_names(model))
    names = InputNames((_CELLS,), (_ROWS,)) if table.holds_rows else None
    return replace(home, model=made, names=names, table=table)


_HOME = "numpy"
"""The framework of functions of arrays, whatever runs inside."""


def turn_table(arguments: Arguments, method: MethodSpec, table: Table | None) -> Arguments:
    """The arguments with what stands for the table's cells in their place.

    Raises:
        ArgumentError: The method needs baselines, which a table does not have by itself, or a name is no column.
    """
    if table is None:
        return arguments
    if _lacks_baselines(arguments, method, table):
        raise ArgumentError(
            f"{method.key} of {method.toolset} has nothing to compare the columns {_words(table)} with. {ADVICE}"
        )
    init_args, exec_args = (_turn_own(own, method, table) for own in (arguments.init_args, arguments.exec_args))
    # What was given in the toolset's own words is turned in its place, so that what is given twice is told as ever.
    in_own_words = any(_role(name, method) in _INPUTS for name in (*init_args, *exec_args))
    is_default = table.coded and _takes_baselines(method) and not _given_baselines(arguments, method)
    return replace(
        arguments,
        inputs=None if in_own_words and arguments.inputs is None else cells_of(table, None),
        baselines=table.baselines if is_default or arguments.baselines is not None else None,
        explain=None,
        init_args=init_args,
        exec_args=exec_args,
    )


def check_columns(original: Original, value: Any, name: str) -> None:
    """Refuses a data frame whose columns are not those that the model was fitted on, in their order.

    Raises:
        InputError: Read by position, as arrays are and some libraries read frames, each would be taken for another.
    """
    known, given = original.adapter.columns(original.model), getattr(value, "columns", None)
    if known is None or given is None or tuple(map(str, given)) == known:
        return
    advice = f"pass {name}[{list(known)}]" if set(known) <= set(map(str, given)) else "pass a table of these"
    raise InputError(
        f"{name} has the columns {', '.join(map(str, given))}, and the model was fitted on {', '.join(known)}, in this "
        f"order: {advice}."
    )


def other_cells(table: Table | None, baselines: Any) -> np.ndarray | None:
    """A sample that is none of the inputs, of a table whose cells are codes: nothing lies between two of them."""
    return baselines[0] if table is not None and table.coded and isinstance(baselines, np.ndarray) else None


def cells_of(table: Table | None, inputs: Any) -> Any:
    """What stands for the inputs, where they are a table; else they themselves."""
    if table is None:
        return inputs
    return {_CELLS: table.cells, _ROWS: np.arange(len(table.frame))} if table.holds_rows else table.cells


def describe_table(table: Table | None, baselines: Any) -> dict[str, Any]:
    """For the provenance: the columns that are explained and those that are held, and what they were compared with."""
    if table is None:
        return {}
    if baselines is None:
        against: Any = "nothing that was given"
    elif table.rows == 1:
        against = {str(column.name): column.cells.tolist()[-1] for column in table.columns}
    else:
        against = f"{table.rows} rows" if table.rows else table.given
    held = {"held": f"{', '.join(map(str, table.held))}: each row's own"} if table.held else {}
    return {"columns": table.names, "baselines": against, **held}


def _as_frame(original: Original, inputs: Any) -> Any | None:
    """The inputs as a data frame; None where they are none."""
    if is_frame(inputs):
        return inputs
    adapter, model = original.adapter, original.model
    is_table = isinstance(inputs, Mapping) and adapter.takes_one_table(model)
    if not is_table:
        return None
    pandas, known = import_module("pandas"), adapter.columns(model)
    lengths = {len(column) for column in inputs.values() if hasattr(column, "__len__") and not isinstance(column, str)}
    if len(lengths) != 1:
        raise InputError("inputs is a dict, and no table: pass a list or array of the same length for each column.")
    names = [name for name in known or inputs if name in inputs] + [
        name for name in inputs if name not in (known or inputs)
    ]
    return pandas.DataFrame({name: inputs[name] for name in names})


def _on_arrays(original: Original) -> Callable[[Any], Any]:
    """The model itself, which knows nothing of names."""
    return lambda frame: original.adapter.outputs(original.model, [np.asarray(frame)])


def _on_cells(run: Callable[[Any], Any], table: Table) -> Callable[..., Any]:
    """What the model gives for the table that stands behind cells."""

    def outputs(cells: np.ndarray, rows: np.ndarray | None = None) -> Any:
        frame = table.read(cells, rows)
        try:
            return run(frame)
        except CFIError:
            raise
        except Exception as error:  # the user's model may raise anything
            said = next(iter(str(error).strip().splitlines()), "").rstrip(".")
            raise InputError(
                f"The model fails on a table of {_kinds(frame)}: {type(error).__name__}: {said}. Inputs and baselines "
                f"need the columns, types and categories that it was fitted on, and missing values only where it takes "
                f"them."
            ) from error

    return outputs


def _turn_own(given: Mapping[str, Any] | None, method: MethodSpec, table: Table) -> dict[str, Any]:
    turned = dict(given or {})
    for name, value in turned.items():
        role = _role(name, method)
        if role is Role.LIKE_INPUTS and isinstance(value, Mapping):
            turned[name] = table.mask(value, name)
        elif role in _BASELINES and value is not None:
            turned[name] = table.baselines
        elif role in _INPUTS and value is not None:
            turned[name] = table.cells
    return turned


_INPUTS = (Role.INPUTS, Role.ONE_OR_SEVERAL)
_BASELINES = (Role.BASELINES,)


def _role(name: str, method: MethodSpec) -> Role | None:
    """What an own word means; uniform words may stand among them."""
    return method.roles.get(name) or {"inputs": Role.INPUTS, "baselines": Role.BASELINES}.get(name)


def _takes_baselines(method: MethodSpec) -> bool:
    return "baselines" in (*method.required, *method.optional)


def _given_baselines(arguments: Arguments, method: MethodSpec) -> bool:
    own = (value for name, value in arguments.own.items() if _role(name, method) in _BASELINES)
    return any(value is not None for value in (arguments.baselines, *own))


def _lacks_baselines(arguments: Arguments, method: MethodSpec, table: Table) -> bool:
    """Whether the method would put a number of its own in the place of what is none."""
    return _takes_baselines(method) and not _given_baselines(arguments, method) and bool(_words(table))


def _words(table: Table) -> str:
    """Names of the columns that hold no numbers."""
    if not table.coded:
        return ""
    return ", ".join(str(column.name) for column in table.columns if getattr(column.dtype, "kind", "O") not in "iuf")


def _kinds(frame: Any) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in list(frame.dtypes.items())[:12])
