"""Held inputs of toolsets whose calls take nothing besides what they explain: they become constants of the model.

The held inputs of one sample are bound to the model that runs, repeated for as many rows as a pass has. So a method is
run once for each sample, as its users would run it on a wrapper of one sample; or once for all, where all samples hold
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, is_array, is_number
from cfi_core.batches import first_rows, take_rows
from cfi_core.contract import MethodResult, Sampling, Target
from cfi_core.errors import InputError, MethodError, ModelWarning, TargetError, summary, warn
from cfi_core.framework import flatten, map_structure
from cfi_core.records import Arguments, Call, Inputs
from cfi_core.registry import Registry
from cfi_core.specs import Role, Total
from cfi_core.targets import NamedTarget, Values

PICTURE = "picture"
_SPLIT = (Role.LIKE_INPUTS, Role.LIKE_LAYER)  # own targets are told by `MethodRequest.place`
_SAME = 1e-4  # relative difference of a target function of one sample, by itself and beside others


def is_bound(call: Call) -> bool:
    """Whether what is held has to be part of the model.

    The method has no argument for it; or it has no rows of its own for each sample, and would be repeated, for the rows
    of a pass, like what has.
    """
    if not call.inputs.held:
        return False
    rows = _of_samples(call.inputs)
    is_constant = len(rows) < len(call.inputs.held_arrays) and hold_the_same(rows)
    return call.plan.method.argument_of(Role.HELD) is None or is_constant


def is_apart(call: Call) -> bool:
    """Whether each sample has a target function, or a background, of its own: a method must not mix their rows.

    Toolsets pass rows on in orders of their own (once for each of a batch, one by one, beside a background), and an
    index for each sample they reorder likewise; a function they cannot.
    """
    function = None if call.target is None else call.target.function
    return call.inputs.samples > 1 and (
        (isinstance(function, NamedTarget) and function.samples > 1) or has_own_background(call)
    )


def has_own_background(call: Call) -> bool:
    """Whether the baselines of a method with a distribution of them are one for each sample: tokens that are kept."""
    given, samples = call.plan.arguments.baselines, call.inputs.samples
    if "baselines" not in call.plan.method.required or all(keep is None for keep in call.kept):
        return False
    parts = given if isinstance(given, tuple) else (given,)
    return any(tuple(getattr(part, "shape", ()))[:1] == (samples,) for part in parts)


def split_samples(registry: Registry, call: Call) -> list[Call]:
    """The call for each sample by itself; the call as it is where all samples hold the same and are explained alike."""
    samples = call.inputs.samples
    alike = not is_bound(call) or hold_the_same(_of_samples(call.inputs))
    if alike and not is_apart(call):
        return [call]
    return [take_samples(registry, call, [row]) for row in range(samples)]


def tell_held(call: Call) -> str:
    """What was done with what is held, for the provenance."""
    if not call.inputs.held:
        return "nothing"
    what = held_names(call)
    if not is_bound(call):
        return f"{what}: part of every pass, as {call.plan.method.argument_of(Role.HELD)!r}"
    alike = hold_the_same(_of_samples(call.inputs)) and not is_apart(call)
    seeds = "the seed" if call.plan.arguments.batch_size is None else "a seed of its own"
    alone = f"one run for each sample, each begun with {seeds}"
    how = "one run, as all samples hold the same" if alike and call.plan.arguments.batch_size is None else alone
    return f"{what}: constants of the model, {how}"


def held_names(call: Call) -> str:
    """What is held, by its names."""
    names = call.original.names.held if call.original.names else ()
    known = [*(["the tokens"] if call.original.embedding else []), *names]
    return ", ".join(known) or "what stands behind the inputs"


def hold_the_same(arrays: Sequence[np.ndarray]) -> bool:
    """Whether all rows of each of these are the same."""
    return all(bool((array == array[:1]).all()) for array in arrays)


def take_samples(registry: Registry, call: Call, rows: Sequence[int]) -> Call:
    """The call for some of its samples, which stand beside each other, with all that belongs to them."""
    samples, adapter, inputs = call.inputs.samples, call.original.adapter, call.inputs
    place = slice(rows[0], rows[-1] + 1)

    def some(array: np.ndarray) -> np.ndarray:
        return array[place] if array.shape[:1] == (samples,) else array

    taken = Inputs(
        tuple(take_rows(adapter, inputs.tensors, samples, place)),
        tuple(map(some, inputs.arrays)),
        inputs.given,
        tuple(take_rows(adapter, inputs.held, samples, place)),
        tuple(map(some, inputs.held_arrays)),
    )
    shapes = {name: _shape_of(shape, samples, len(rows)) for name, shape in call.layer_shapes.items()}
    return replace(
        call,
        plan=replace(call.plan, arguments=_split_arguments(registry, call, rows)),
        inputs=taken,
        outputs=map_structure(some, call.outputs),
        target=_split_target(call.target, rows),
        layer_shapes=MappingProxyType({name: shape for name, shape in shapes.items() if shape is not None}),
    )


def check_rows(registry: Registry, call: Call) -> None:
    """Refuses what is held if it has as many rows as there are samples, but not one for each of them.

    Raises:
        InputError: With its row alone, the last sample has another output than beside the others.
    """
    last, adapter = call.inputs.samples - 1, call.original.adapter
    taken = take_samples(registry, call, [last])
    try:
        alone = flatten(adapter.outputs(adapter.twin(call.original.model), taken.inputs.passed))
    except Exception as error:  # the user's model may raise anything
        raise InputError(f"{_NO_ROWS.format(held_names(call))} ({summary(error)}). {_AS_PART}") from error
    for one, whole in zip(alone, flatten(call.outputs), strict=True):
        scale = float(np.abs(whole).max(initial=0.0))
        if one.shape != whole[last:].shape or not np.abs(one - whole[last:]).max(initial=0.0) <= _SAME * scale:
            raise InputError(f"{_NO_ROWS.format(held_names(call))}. {_AS_PART}")


_NO_ROWS = "{} cannot be held: the last sample has another output with its own row of it than beside the others"
_AS_PART = "What is no row for each sample has to be part of the model: use functools.partial, or explain one sample."


def check_function(registry: Registry, call: Call) -> None:
    """Refuses a target function that tells samples by their places: here it sees one at a time.

    Raises:
        TargetError: It gives another value for a sample by itself than for the same sample beside the others.
    """
    original, adapter = call.original, call.original.adapter
    function = original.function or (None if call.target is None else call.target.function)
    if function is None or call.inputs.samples == 1:
        return
    if original.function is None and isinstance(function, NamedTarget) and function.is_told:
        return  # it is split like everything else of the samples
    model = original.model if original.function is not None else adapter.ended_by(original.model, Values.of(function))
    if model is None:
        raise TargetError(f"{_ALONE} which cannot be tried with a model of {original.framework}. {_INSTEAD}")

    def values(rows: Sequence[int]) -> np.ndarray:
        taken = take_samples(registry, call, rows).inputs
        return np.asarray(adapter.outputs(adapter.twin(model), taken.passed), np.float64).reshape(-1)

    # Of a call whose samples are divided, as many together as go through the model at once.
    most = first_rows(call.inputs.samples, call.plan.arguments.batch_size)
    every = range(call.inputs.samples if is_bound(call) else max(most, 2))
    whole = values(every)
    try:
        alone = np.concatenate([values([row]) for row in every])
    except Exception as error:  # of the user's function, which may fail on one sample in any way
        raise TargetError(f"{_ALONE} and fails on one ({type(error).__name__}: {error}). {_INSTEAD}") from error
    scale = float(np.abs(whole).max(initial=0.0))
    if alone.shape != whole.shape or not np.abs(alone - whole).max(initial=0.0) <= _SAME * scale:
        raise TargetError(f"{_ALONE} and gives another value for one than beside the others. {_INSTEAD}")


_ALONE = (
    "The target function is not given all samples at once here, as each holds inputs of its own, or batch_size= "
    "divides them,"
)
_INSTEAD = "Explain one sample at a time (inputs of one row), or pass one index for each sample as target."


def tell_places(registry: Registry, call: Call) -> None:
    """Warns of a target function that tells samples by their places, which not all methods keep.

    Tried with the last sample by itself, of a model whose samples do not influence each other.
    """
    function = call.original.function or (None if call.target is None else call.target.function)
    if function is None or isinstance(function, NamedTarget) or call.inputs.samples == 1 or not call.purity.by_sample:
        return
    original, adapter = call.original, call.original.adapter
    model = original.model if original.function is not None else adapter.ended_by(original.model, Values.of(function))
    if model is None or is_bound(call) or call.plan.arguments.batch_size is not None:
        return  # with held inputs of each sample, or in parts, it is refused (`check_function`)

    def values(rows: Sequence[int]) -> np.ndarray:
        inputs = take_samples(registry, call, rows).inputs
        return np.asarray(adapter.outputs(adapter.twin(model), inputs.passed), np.float64).reshape(-1)

    try:
        whole, alone = values(range(call.inputs.samples)), values([call.inputs.samples - 1])
    except Exception:  # noqa: BLE001 - of the user's function: a method that gives it other rows will tell
        return
    # As many values as ever are told by whatever gives the function other rows.
    if len(alone) == 1 and not abs(alone - whole[-1:]).max() <= _SAME * abs(whole).max(initial=0.0):
        warn(
            "The target function tells samples by their places: of the last one alone it gives another value than "
            "beside the others. A method that repeats or reorders rows (noise, sampling) takes one for another. Pass "
            "one index for each sample as target, or explain one sample at a time.",
            ModelWarning,
        )


def join(parts: Sequence[Call], results: Sequence[MethodResult], to_numpy: Callable[[Any], Any]) -> MethodResult:
    """The results of all samples as one.

    Raises:
        MethodError: They do not fit together.
    """
    first = results[0]
    if len(results) == 1:
        return first
    key, toolset = parts[0].plan.method.key, parts[0].plan.method.toolset
    counts = [call.inputs.samples for call in parts]
    if any((one.axes, one.layer, len(one.values)) != (first.axes, first.layer, len(first.values)) for one in results):
        raise MethodError(f"{key} of {toolset} explains another place in one sample than in the others.")
    axes = first.sample_axes
    try:
        values = tuple(
            np.concatenate([np.asarray(to_numpy(part)) for part in column])
            for column in zip(*(one.values for one in results), strict=True)
        )
    except ValueError as error:
        raise MethodError(f"{key} of {toolset} gives values of other shapes for other samples: {error}.") from error
    absorbed = [one.absorbed for one in results if one.absorbed is not None]
    return replace(
        first,
        values=values,
        extras=_join_notes([one.extras for one in results], counts, axes),
        applied=_join_notes([one.applied for one in results], counts, axes),
        steps=_join_steps([one.steps for one in results], to_numpy),
        absorbed=tuple(map(np.concatenate, zip(*absorbed, strict=True))) if len(absorbed) == len(results) else None,
        sampling=_join_sampling([one.sampling for one in results], to_numpy),
    )


def _join_sampling(parts: Sequence[Sampling | None], to_numpy: Callable[[Any], Any]) -> Sampling | None:
    """How well the values of all samples are known, if that is known of each."""
    known = [one for one in parts if one is not None]
    if len(known) < len(parts):
        return None
    columns = zip(*(one.errors for one in known), strict=True)
    errors = tuple(np.concatenate([np.asarray(to_numpy(part)) for part in column]) for column in columns)
    return replace(known[0], errors=errors, draws=min(one.draws for one in known))


def _of_samples(inputs: Inputs) -> list[np.ndarray]:
    """The held arrays that have a row for each sample."""
    return [array for array in inputs.held_arrays if array.shape[:1] == (inputs.samples,)]


def _shape_of(shape: tuple[int, ...], samples: int, count: int) -> tuple[int, ...] | None:
    """Of a layer's output, whose first axis may hold several rows of each sample; None if it is not known."""
    if not shape or shape[0] % samples:
        return None
    return (shape[0] // samples * count, *shape[1:])


def _split_target(target: Target | None, rows: Sequence[int]) -> Target | None:
    if target is not None and isinstance(target.function, NamedTarget):
        return replace(target, function=target.function.take(rows))
    if target is None or not target.per_sample or target.index is None:
        return target
    return replace(target, index=tuple(target.index[row] for row in rows))  # type: ignore[arg-type]


def _split_arguments(registry: Registry, call: Call, rows: Sequence[int]) -> Arguments:
    arguments, method, samples = call.plan.arguments, call.plan.method, call.inputs.samples
    place, ranks = slice(rows[0], rows[-1] + 1), {array.ndim for array in call.inputs.arrays}
    of_layers = {len(shape) for shape in call.layer_shapes.values()}

    def split(value: Any, name: str = "") -> Any:
        if isinstance(value, tuple | list):
            return type(value)(split(part, name) for part in value)
        if is_number(value) or not is_array(registry, value) or tuple(value.shape[:1]) != (samples,):
            return value
        # One that lacks axes in front has no samples, however long its first axis is.
        if len(value.shape) not in (of_layers if method.roles.get(name) is Role.LIKE_LAYER else ranks):
            return value
        return as_array(registry, value, "an argument")[place]

    promise = method.completeness
    is_distribution = promise is not None and promise.total is Total.MEAN_DIFFERENCE
    own = {
        where: {
            name: split(value, name) if method.roles.get(name) in _SPLIT else value
            for name, value in (getattr(arguments, where) or {}).items()
        }
        for where in ("init_args", "exec_args")
    }
    is_shared = is_distribution and not has_own_background(call)
    baselines = arguments.baselines if is_shared else split(arguments.baselines)
    return replace(
        arguments,
        baselines=baselines,
        init_args=MappingProxyType(own["init_args"]),
        exec_args=MappingProxyType(own["exec_args"]),
    )


def _join_steps(
    parts: Sequence[Mapping[int, tuple[Any, ...]]], to_numpy: Callable[[Any], Any]
) -> Mapping[int, tuple[Any, ...]]:
    """What the values of all samples were on the way, at the steps that are known of each."""
    return {
        step: tuple(
            np.concatenate([np.asarray(to_numpy(one)) for one in column])
            for column in zip(*(part[step] for part in parts), strict=True)
        )
        for step in parts[0]
        if all(step in part for part in parts)
    }


def _join_notes(
    parts: Sequence[Mapping[str, Any]],
    counts: Sequence[int] | None = None,
    axes: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """Notes on parts of so many samples, one if that is left out; of some arrays, on which axis these are."""
    pairs = list(zip(parts, counts or [1] * len(parts), strict=True))
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _join_note(name, [(part[name], n) for part, n in pairs if name in part], axes) for name in names}


def _join_note(name: str, parts: Sequence[tuple[Any, int]], axes: Mapping[str, int]) -> Any:
    """Arrays of some samples as one of all, pictures side by side; what differs otherwise, one for each part."""
    values, counts = zip(*parts, strict=True)
    first = values[0]
    if all(isinstance(value, Mapping) for value in values):
        return _join_notes(values, counts, axes)
    if all(isinstance(value, np.ndarray) for value in values):
        axis = 1 if name == PICTURE else axes.get(name, 0)
        if _hold_samples(values, counts, axis, told=name == PICTURE or name in axes):
            return np.concatenate(values, axis=axis)
        if all(np.array_equal(value, first) for value in values):
            return first
    elif not any(isinstance(value, np.ndarray) for value in values) and _all_equal(values):
        return first
    is_by_sample = all(count == 1 for count in counts)
    return values if is_by_sample else tuple(one for i, one in enumerate(values) if not _is_in(one, values[:i]))


def _hold_samples(values: Sequence[np.ndarray], counts: Sequence[int], axis: int, *, told: bool) -> bool:
    """Whether an axis of all arrays holds the samples of their parts; if it is told, maybe several rows of each."""
    if any(value.ndim <= axis for value in values):
        return False
    fits = told or all(value.shape[axis] == count for value, count in zip(values, counts, strict=True))
    return fits and len({value.shape[:axis] + value.shape[axis + 1 :] for value in values}) == 1


def _is_in(value: Any, others: Sequence[Any]) -> bool:
    return any(
        type(other) is type(value) and not isinstance(other, np.ndarray) and _all_equal([value, other])
        for other in others
    )


def _all_equal(values: Sequence[Any]) -> bool:
    try:
        return all(bool(value == values[0]) for value in values)
    except Exception:  # noqa: BLE001 - objects of a toolset may compare in any way
        return all(repr(value) == repr(values[0]) for value in values)
