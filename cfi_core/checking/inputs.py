"""Inputs, and what has to be like them: from whatever arrays the user has to tensors of the model's framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, as_arrays, framework_of_tensor, is_array, is_number
from cfi_core.batches import ran_out, run_apart
from cfi_core.errors import ArgumentError, CFIError, InputError, OutOfMemoryError, summary
from cfi_core.framework import FrameworkAdapter, flatten, map_structure
from cfi_core.naming import in_order
from cfi_core.records import Inputs, Original
from cfi_core.registry import Registry
from cfi_core.specs import BatchSize

_USUAL_BATCHES = (1, 2, 3, 4, 5, 6, 8, 10, 16, 32, 64)


def read_inputs(registry: Registry, original: Original, value: Any, held: tuple[Any, ...] = ()) -> Inputs:
    """Brings the user's inputs (see `cfi_core.attribute`), and what is held behind them, into the model's framework.

    Raises:
        InputError: Types, shapes or sample counts do not fit.
    """
    adapter, model, named = original.adapter, original.model, original.names is not None
    value, carried = in_order(original.names, value)
    explained = value if named else as_arrays(registry, value)
    held = held or carried
    _check_parts(value)
    declared, parts, count = adapter.input_shapes(model), (*explained, *held), len(explained)
    if declared is not None and len(declared) != len(parts):
        raise InputError(
            f"The model has {len(declared)} input{'s' * (len(declared) > 1)}, but {len(parts)} were given. "
            f"Pass {'one array' if len(declared) == 1 else f'a tuple of {len(declared)} arrays'} as inputs."
        )
    tensors: list[Any] = []
    arrays: list[np.ndarray] = []
    for position, part in enumerate(parts):
        name = _name_of(original, position, count)
        if position >= count and not named:
            name = f"argument {position - count} behind the inputs"
            if not is_array(registry, part) or (adapter.is_tensor(part) and adapter.unreadable(part)):
                tensors.append(part)
                continue
        array, integer = as_array(registry, part, name), adapter.declares_integer(model, position)
        if declared is not None:
            _check_shape(name, array.shape, declared[position])
        if integer is False and not np.issubdtype(array.dtype, np.floating):
            raise InputError(_integers(name, array))
        if integer is True and np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{name} is of type {array.dtype}, but the model takes integers: convert it first.")
        if position < count:
            _check_array(name, array)
        tensors.append(adapter.tensor(part if adapter.is_tensor(part) else array, model))
        # Copied, because the attribution keeps them and the user may go on writing into the originals.
        arrays.append(np.array(adapter.to_numpy(tensors[-1])))
        _check_carried(name, array, arrays[-1])
    if not named:
        _check_order(adapter, model, arrays[:count])
    counts = {array.shape[:1] for array in arrays[:count]}
    if len(counts) != 1 or counts & {(), (0,)}:
        shapes = ", ".join(str(array.shape) for array in arrays[:count])
        raise InputError(
            f"All inputs need the same, non-zero number of samples along their first axis; got {shapes}. A value of an "
            f"attribution belongs to one sample: give values of all samples in one row a row for each, or hold them."
        )
    held = tuple(tensors[count:])
    return Inputs(tuple(tensors[:count]), tuple(arrays[:count]), held=held, held_arrays=tuple(arrays[count:]))


def _name_of(original: Original, position: int, count: int) -> str:
    """What messages call the input of that position, of so many."""
    if original.names is not None:
        return f"inputs[{original.names.every[position]!r}]"
    return f"inputs[{position}]" if count > 1 else "inputs"


def _check_order(adapter: FrameworkAdapter, model: Any, arrays: Sequence[np.ndarray]) -> None:
    """Refuses a tuple of several inputs of whole numbers and of one shape, which nothing tells apart but their order.

    A mask beside tokens fits in the place of the tokens, and the model computes something else without a word.
    """
    shapes = [array.shape for array in arrays if array.dtype.kind in "iub"]
    names = adapter.input_names(model) if len(shapes) > len(set(shapes)) else None
    if names is not None:
        shown = ", ".join(f"{name!r}: …" for name in names[: len(arrays)])
        raise InputError(
            f"{len(shapes)} of the inputs are whole numbers of one shape, which only their order tells apart. Pass "
            f"them by name: inputs={{{shown}}} (the model takes {', '.join(names)}, in this order)."
        )


def example_inputs(original: Original, samples: int) -> Inputs:
    """Random inputs of the shapes that the model declares, for methods that need none of the user's.

    Raises:
        InputError: The model does not declare them fully.
    """
    adapter, model = original.adapter, original.model
    shapes = adapter.input_shapes(model)
    if shapes is None or any(size is None for shape in shapes for size in shape[1:]):
        known = "none" if shapes is None else ", ".join(map(str, shapes))
        raise InputError(
            f"The model does not declare the shape of its inputs ({known}). Pass inputs=: an example to start from, "
            f"such as zeros or noise, sample axis first."
        )
    generator, tensors = np.random.default_rng(0), []
    for position, shape in enumerate(shapes):
        full = (samples, *(size or 1 for size in shape[1:]))
        integer = adapter.declares_integer(model, position)
        array = np.zeros(full, np.int64) if integer else generator.normal(size=full).astype(np.float32)
        tensors.append(adapter.tensor(array, model))
    return Inputs(tuple(tensors), tuple(map(adapter.to_numpy, tensors)), given=False)


def run_original(
    original: Original, inputs: Inputs, *, native: bool = False, twin: Any = None, batch_size: BatchSize = None
) -> Any:
    """What the user's model (by a twin of it) gives for the inputs: so what does not fit is found before it costs much.

    Raises:
        InputError: The model fails on them, gives no numbers, or mixes the samples.
    """
    outputs = run_as_it_is(original, inputs, native=native, twin=twin, batch_size=batch_size)
    for output in flatten(outputs):
        check_output(output, inputs)
    return outputs


def check_repeated(original: Original, inputs: Inputs, outputs: Any, twin: Any) -> None:
    """Refuses what is held in one row for several samples, if the model gives something else where each has that row.

    For the passes of a method it is repeated for as many rows as they have.

    Raises:
        InputError: It is a constant of another kind.
    """
    adapter, model, samples = original.adapter, original.model, inputs.samples
    single = [array.shape[:1] == (1,) and array.size > 1 for array in inputs.held_arrays]
    if samples == 1 or not any(single) or len(single) != len(inputs.held):
        return
    held = [
        adapter.tensor(np.repeat(array, samples, 0), model) if one else value
        for array, one, value in zip(inputs.held_arrays, single, inputs.held, strict=True)
    ]
    try:
        found = flatten(adapter.outputs(twin, (*inputs.tensors, *held)))
    except Exception:  # noqa: BLE001 - the user's model may raise anything
        found = []
    own = flatten(outputs)
    pairs = zip(found, own, strict=False)
    if len(found) == len(own) and all(a.shape == b.shape and np.allclose(a, b, 1e-3, 1e-4) for a, b in pairs):
        return
    names = original.names.held if original.names else [f"argument {place} behind them" for place in range(len(held))]
    which = ", ".join(name for name, one in zip(names, single, strict=True) if one)
    raise InputError(
        f"What is held in one row for {samples} samples ({which}) means something else to the model where each sample "
        f"has that row, as in the passes of a method. Make it part of the model (functools.partial, or a module that "
        f"holds it)."
    )


def run_as_it_is(
    original: Original,
    inputs: Inputs,
    *,
    native: bool = False,
    twin: Any = None,
    batch_size: BatchSize = None,
    run: Callable[[Any, Sequence[Any]], Any] | None = None,
) -> Any:
    """The same, whatever it gives; in portions, where the user divides the samples.

    Run natively, it may give a single number for a single sample, which is returned as an array of one. What a pass is
    made by is `run`, if it is given, which takes a model and what goes in.

    Raises:
        InputError: The model fails on them, or gives no numbers.
    """
    adapter, model = original.adapter, original.adapter.twin(original.model) if twin is None else twin
    try:
        outputs = run_apart(adapter, partial(run or adapter.outputs, model), inputs.passed, inputs.arrays, batch_size)
    except CFIError:
        raise
    except Exception as error:  # the user's model may raise anything
        if ran_out(error, [adapter]):
            raise OutOfMemoryError(_NO_MEMORY[batch_size is None].format(summary(error))) from error
        shapes = ", ".join(f"{array.shape} {array.dtype}" for array in inputs.arrays)
        integers = [array for array in inputs.arrays if not np.issubdtype(array.dtype, np.floating)]
        hint = _integers("inputs", integers[0]) if integers else _repair(adapter, model, inputs)
        if len(inputs.tensors) > 1 and integers and integers[-1] is inputs.arrays[-1] and integers[-1].ndim == 1:
            hint = "A tuple is several inputs of the model. If its last part are labels, leave them out: inputs=images."
        if integers and integers[0].ndim == 2 and isinstance(error, IndexError):
            low, high = integers[0].min(), integers[0].max()
            hint = (
                f"inputs hold whole numbers from {low} to {high}: if they are tokens, one is not in the vocabulary, or "
                f"there are more of them ({integers[0].shape[1]}) than the model has places for."
            )
        names = adapter.input_names(model) or ()
        if isinstance(error, TypeError) and "positional" in str(error) and len(inputs.passed) <= len(names):
            hint = f"It takes its inputs by name: pass inputs={{{', '.join(f'{name!r}: …' for name in names)}}}."
        said = f"{type(error).__name__}: {_reason_in(str(error))}"
        raise InputError(f"The model fails on inputs of shape {shapes}: {said}. {hint}") from error
    if native and (changed := _changed(adapter, inputs)):
        raise InputError(
            f"The model changes {' and '.join(changed)} in place, so whatever runs it twice on the same tensor gives "
            f"it something else the second time. Let its forward begin with a copy (x = x.clone()), or make its first "
            f"operation one that is not in place."
        )
    if not flatten(outputs):
        raise InputError(f"The model gives {type(outputs).__name__}, in which there are no numbers to explain.")
    if native and inputs.samples == 1 and len(flatten(outputs)) == 1:
        outputs = map_structure(lambda output: output.reshape(output.shape or 1), outputs)
    return outputs


_NO_MEMORY = {
    True: "Your model runs out of memory on all samples together ({}). Pass batch_size='auto', or a number of samples.",
    False: "Your model runs out of memory on one sample ({}). Take smaller inputs, or a device with more memory.",
}


def check_output(output: np.ndarray, inputs: Inputs) -> None:
    """Refuses an output that cannot be explained.

    Raises:
        InputError: It is no floating point number, or mixes the samples, or is not finite.
    """
    if not np.issubdtype(output.dtype, np.floating):
        raise InputError(
            f"The model gives {output.dtype} values, which cannot be explained. Explain its scores, not its labels."
        )
    if output.ndim == 0 or output.shape[0] != inputs.samples:
        raise InputError(
            f"The model gives an output of shape {output.shape} for {inputs.samples} samples. "
            f"Inputs and outputs need the sample axis first; a single sample needs one too (x[None]), and a value "
            f"of all samples together belongs to none of them."
        )
    if not np.isfinite(output).all():
        odd = [name for name, array in _name_arrays(inputs.arrays) if not _is_finite(array)]
        hint = f"{' and '.join(odd)} holds some itself: replace them" if odd else "Check the inputs and weights"
        raise InputError(f"The model gives NaN or infinite outputs for these inputs. {hint}.")


def check_like_inputs(registry: Registry, inputs: Inputs, value: Any, name: str) -> None:
    """Refuses arrays or numbers, one part for each input, whose shapes (or, for baselines, types) do not fit.

    All but baselines may lack axes in front, as where arrays of numpy are broadcast.
    """
    arrays = inputs.arrays
    if callable(value) and not is_array(registry, value):
        raise InputError(
            f"{name} is a function, which may give other values at each call, and for each part of the samples. Call "
            f"it, and pass what it gives: {name}=function(inputs)."
        )
    parts = value if isinstance(value, tuple) else as_arrays(registry, value)
    if len(parts) != len(arrays):
        raise InputError(f"{name} has {len(parts)} parts for {len(arrays)} inputs. Pass one for each input.")
    for part, like in zip(parts, arrays, strict=True):
        if part is None or is_number(part):
            continue
        array = as_array(registry, part, name)
        if not array.size:
            raise InputError(f"{name} has shape {array.shape}: an axis of no size leaves nothing in it.")
        if name != "baselines":
            array = array[(None,) * (like.ndim - array.ndim)]
        if array.ndim != like.ndim:
            raise InputError(
                f"{name} has shape {array.shape}, but needs the axes of the inputs {like.shape}, with a first axis of "
                f"1 or more samples."
            )
        if any(size not in (1, other) for size, other in zip(array.shape[1:], like.shape[1:], strict=True)):
            raise InputError(f"{name} has shape {array.shape}, which does not fit inputs of shape {like.shape}.")
        if name == "baselines" and array.dtype.kind != like.dtype.kind:
            raise InputError(f"baselines hold {array.dtype}, the inputs {like.dtype}: convert and scale them alike.")


def check_baselines(registry: Registry, inputs: Inputs, value: Any) -> None:
    """Refuses baselines whose shapes or types do not fit, or with a value that the type of the input cannot hold.

    One may be NaN or infinite where the input is floating point: that is what a missing value is to some models.
    """
    whole = is_number(value)
    if not whole:
        check_like_inputs(registry, inputs, value, "baselines")
    parts = (
        (value,) * len(inputs.arrays) if whole else value if isinstance(value, tuple) else as_arrays(registry, value)
    )
    for part, like in zip(parts, inputs.arrays, strict=True):
        if part is not None:
            plain = is_number(part) and framework_of_tensor(registry, part) is None
            _check_holds(np.asarray(part) if plain else as_array(registry, part, "baselines"), like.dtype)


def check_straight(registry: Registry, inputs: Inputs, baselines: Any, who: str) -> None:
    """Refuses NaN and infinite values for a method that goes in a straight line from baselines to inputs."""
    parts = baselines if isinstance(baselines, tuple) else (baselines,)
    given = [as_array(registry, part, "baselines") for part in parts if part is not None and not is_number(part)]
    numbers = [np.asarray(float(part)) for part in parts if part is not None and is_number(part)]
    for name, array in (*_name_arrays(inputs.arrays), *(("baselines", one) for one in (*given, *numbers))):
        if not _is_finite(array):
            raise InputError(
                f"{name} holds NaN or infinite values, and {who} goes in a straight line from baselines to inputs, "
                f"which is not defined there. Replace them by large numbers, or hold that input as it is (as an "
                f"argument behind the others)."
            )


def check_window(inputs: Inputs, value: Any, name: str) -> None:
    """A window has one entry for each axis of a sample, none larger than the axis; strides may also be one number each.

    So may `window` and `stride`, as Zennit's occlusion calls them, which cuts them to the size of each axis.
    """
    arrays = inputs.arrays
    if name in ("window", "stride") and type(value) is int and value > 0:
        return
    several = isinstance(value, tuple) and value and isinstance(value[0], tuple | list)
    # Of several inputs, captum takes a stride for each: a number, or one for each of its axes.
    each = name == "strides" and isinstance(value, tuple) and len(value) == len(arrays) > 1
    windows = value if several or each else (value,)
    for window, array in zip(windows, arrays, strict=False):
        sizes = array.shape[1:]
        entries = tuple(window) if isinstance(window, tuple | list) else (window,) * len(sizes)
        fits = len(entries) == len(sizes) and all(
            isinstance(entry, int | np.integer) and 1 <= entry <= size
            for entry, size in zip(entries, sizes, strict=True)
        )
        if not fits or (not isinstance(window, tuple | list) and len(sizes) > 1 and name != "strides"):
            example = tuple(size if size <= 4 else max(1, size // 8) for size in sizes)
            raise ArgumentError(
                f"{name}={value!r} does not fit samples of shape {sizes}: pass one number for each of these axes, none "
                f"larger than the axis, for example {example}."
            )


def _reason_in(text: str) -> str:
    """The line of an error that says what failed: the first, or the last one where a traceback stands between."""
    lines = text.strip().splitlines() or [""]
    return lines[-1 if "Traceback" in text else 0].rstrip(".")


def _repair(adapter: FrameworkAdapter, model: Any, inputs: Inputs) -> str:
    """What would have worked: a sample axis in front, the channels on the other side, or another number of samples."""
    if (count := _number_taken(adapter, model, inputs)) is not None:
        return (
            f"It would take {count} samples: something in it was built for that number, by tracing or exporting it. "
            f"Pass as many, or make the model anew with a free number of samples."
        )
    if inputs.held:
        return "Check their shapes, and what the forward pass takes behind them."
    if len(inputs.arrays) > 1:
        return "A tuple or list of arrays means several inputs; for the samples of one input, stack them (np.stack)."
    array = inputs.arrays[0]
    changes = {"x[None]": array[None]}
    if array.ndim == 4:
        for axes in ((0, 3, 1, 2), (0, 2, 3, 1)):
            permuted = f"x.permute{axes} (of a numpy array, x.transpose{axes})"  # of tensors, that exchanges two axes
            has_permute = hasattr(inputs.tensors[0], "permute")
            changes[permuted if has_permute else f"x.transpose{axes}"] = array.transpose(axes)
    for text, changed in changes.items():
        try:
            adapter.outputs(model, [adapter.tensor(changed, model)])
        except Exception:  # noqa: BLE001 - the user's model may raise anything, and this is only a try
            continue
        return f"{text} would fit the model: the sample axis is first, and axes are in the model's order."
    return "Check shape and axis order: the sample axis is first."


def _number_taken(adapter: FrameworkAdapter, model: Any, inputs: Inputs) -> int | None:
    """The one number of samples, of those that are usual, that the model takes instead of the given one."""
    taken = []
    for count in _USUAL_BATCHES if not inputs.held else ():
        rows = (np.resize(array, (count, *array.shape[1:])) for array in inputs.arrays)
        with suppress(Exception):  # the user's model may raise anything, and this is only a try
            adapter.outputs(model, [adapter.tensor(array, model) for array in rows])
            taken.append(count)
    return taken[0] if len(taken) == 1 else None


def _changed(adapter: FrameworkAdapter, inputs: Inputs) -> list[str]:
    """Names of the inputs whose tensors no longer hold what they held before the pass."""
    pairs = zip(inputs.tensors, _name_arrays(inputs.arrays), strict=True)
    return [name for tensor, (name, array) in pairs if not _is_same(np.asarray(adapter.to_numpy(tensor)), array)]


def _is_same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=other.dtype.kind in "fc")


def _check_parts(value: Any) -> None:
    """Refuses no inputs at all, and None among several."""
    if isinstance(value, list | tuple) and not value:
        raise InputError("inputs is empty. Pass the samples to explain, sample axis first.")
    for position, part in enumerate(value) if isinstance(value, list | tuple) else ():
        if part is None:
            raise InputError(
                f"inputs[{position}] is None. Pass an array for each input of the model and nothing else, such as "
                "labels; a single input alone, in no tuple."
            )


def _check_array(name: str, array: np.ndarray) -> None:
    """Refuses what holds nothing to explain: no samples, no features, no real numbers."""
    if array.dtype.kind in "cOSUMm":
        hint = " Pass real and imaginary parts as two channels." if array.dtype.kind == "c" else ""
        raise InputError(f"{name} holds {array.dtype}, and only real numbers can be explained.{hint}")
    if array.ndim == 0:
        raise InputError(f"{name} is a single number without a sample axis. Pass x[None].")
    if 0 in array.shape[1:]:
        raise InputError(f"{name} has shape {array.shape}: an axis of no size leaves nothing to explain.")


def _check_carried(name: str, given: np.ndarray, carried: np.ndarray) -> None:
    """Refuses what would become another number in the model's own type."""
    if given.dtype == carried.dtype:
        return
    if np.issubdtype(given.dtype, np.floating):
        changed = np.isfinite(given) & ~np.isfinite(carried)
    elif given.dtype.kind in "iu":
        changed = given != carried
    else:
        return
    if changed.any():
        raise InputError(
            f"{name} holds {given[changed].flat[0]!s}, which is beyond the {carried.dtype} that the model computes in. "
            f"Scale it as in training."
        )


def _check_holds(given: np.ndarray, dtype: np.dtype[Any]) -> None:
    """Refuses baselines with a value that is another one in the type of the input."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        fits, allowed = (
            (given >= limits.min) & (given <= limits.max),
            f"whole numbers from {limits.min} to {limits.max}",
        )
        fits = fits & (given == np.floor(given)) if given.dtype.kind == "f" else fits
    elif dtype.kind == "b":
        fits, allowed = (given == 0) | (given == 1), "True and False"
    elif dtype.kind == "f":
        fits = ~np.isfinite(given) | (abs(given) <= np.finfo(dtype).max)
        allowed = f"numbers up to {np.finfo(dtype).max:.0e}"
    else:
        return
    if given.dtype.kind == "b" and dtype.kind != "b":
        raise InputError(f"baselines hold True or False, the inputs {dtype}: pass numbers.")
    if not fits.all():
        raise InputError(
            f"baselines hold {given[~fits].flat[0]!s}, which an input of {dtype} cannot: it would be another number "
            f"there. Pass {allowed}, or convert the inputs, if the model takes other ones."
        )


def _name_arrays(arrays: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    return [(f"inputs[{i}]" if len(arrays) > 1 else "inputs", array) for i, array in enumerate(arrays)]


def _is_finite(array: np.ndarray) -> bool:
    return not np.issubdtype(array.dtype, np.floating) or bool(np.isfinite(array).all())


def _check_shape(name: str, shape: tuple[int, ...], declared: tuple[int | None, ...]) -> None:
    sizes = tuple(size if axis else None for axis, size in enumerate(declared))
    if len(shape) == len(sizes) and all(size in (None, given) for size, given in zip(sizes, shape, strict=True)):
        return
    hint = ""
    if len(shape) == len(sizes) - 1:
        hint = " The sample axis is missing: pass x[None]."
    elif sorted(shape[1:]) == sorted(size or 0 for size in sizes[1:]):
        hint = " The axes are in another order: transpose the array first."
    taken = str(sizes).replace("None", "any")
    raise InputError(f"{name} has shape {shape}, but the model takes {taken}.{hint}")


def _integers(name: str, array: np.ndarray) -> str:
    return (
        f"{name} holds {array.dtype}: the model takes floating point numbers. Convert and scale it as in training, "
        f"for example x.astype('float32') / 255."
    )
