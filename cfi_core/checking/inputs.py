"""Inputs, and what has to be like them: from whatever arrays the user has to tensors of the model's framework."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfi_core.adapters import as_array, as_arrays, is_array, is_number
from cfi_core.errors import ArgumentError, CFIError, InputError
from cfi_core.framework import FrameworkAdapter, flatten, map_structure
from cfi_core.records import Inputs, Original
from cfi_core.registry import Registry


def read_inputs(registry: Registry, original: Original, value: Any, held: tuple[Any, ...] = ()) -> Inputs:
    """Brings the user's inputs (see `cfi_core.attribute`), and what is held behind them, into the model's framework.

    Raises:
        InputError: Types, shapes or sample counts do not fit.
    """
    adapter, model, explained = original.adapter, original.model, as_arrays(registry, value)
    declared, parts, count = adapter.input_shapes(model), (*explained, *held), len(explained)
    if declared is not None and len(declared) != len(parts):
        raise InputError(
            f"The model has {len(declared)} inputs, but {len(parts)} were given. "
            f"Pass {'one array' if len(declared) == 1 else f'a tuple of {len(declared)} arrays'} as inputs."
        )
    tensors: list[Any] = []
    arrays: list[np.ndarray] = []
    for position, part in enumerate(parts):
        name = f"inputs[{position}]" if count > 1 else "inputs"
        if position >= count:
            name = f"argument {position - count} behind the inputs"
            if not is_array(registry, part):
                tensors.append(part)
                continue
        array, integer = as_array(registry, part, name), adapter.declared_integer(model, position)
        if declared is not None:
            _check_shape(name, array.shape, declared[position])
        if integer is False and not np.issubdtype(array.dtype, np.floating):
            raise InputError(_integers(name, array))
        if integer is True and np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{name} is of type {array.dtype}, but the model takes integers: convert it first.")
        tensors.append(adapter.tensor(part if adapter.is_tensor(part) else array, model))
        # Copied, because the attribution keeps them and the user may go on writing into the originals.
        arrays.append(np.array(adapter.to_numpy(tensors[-1])))
    counts = {array.shape[:1] for array in arrays[:count]}
    if len(counts) != 1 or counts & {(), (0,)}:
        shapes = ", ".join(str(array.shape) for array in arrays[:count])
        raise InputError(
            f"All inputs need the same, non-zero number of samples along their first axis; got {shapes}. A value of an "
            f"attribution belongs to one sample: give values of all samples in one row a row for each, or hold them."
        )
    held = tuple(tensors[count:])
    return Inputs(tuple(tensors[:count]), tuple(arrays[:count]), held=held, held_arrays=tuple(arrays[count:]))


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
        integer = adapter.declared_integer(model, position)
        array = np.zeros(full, np.int64) if integer else generator.normal(size=full).astype(np.float32)
        tensors.append(adapter.tensor(array, model))
    return Inputs(tuple(tensors), tuple(map(adapter.to_numpy, tensors)), given=False)


def run_original(original: Original, inputs: Inputs, *, native: bool = False, twin: Any = None) -> Any:
    """What the user's model (by a twin of it) gives for the inputs: so what does not fit is found before it costs much.

    Run natively, it may give a single number for a single sample, which is returned as an array of one.

    Raises:
        InputError: The model fails on them, gives no numbers, or mixes the samples.
    """
    adapter, model = original.adapter, original.adapter.twin(original.model) if twin is None else twin
    try:
        outputs = adapter.outputs(model, inputs.passed)
    except CFIError:
        raise
    except Exception as error:  # the user's model may raise anything
        shapes = ", ".join(f"{array.shape} {array.dtype}" for array in inputs.arrays)
        integers = [array for array in inputs.arrays if not np.issubdtype(array.dtype, np.floating)]
        hint = _integers("inputs", integers[0]) if integers else _repair(adapter, model, inputs)
        said = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '').rstrip('.')}"
        raise InputError(f"The model fails on inputs of shape {shapes}: {said}. {hint}") from error
    if native and inputs.samples == 1:
        outputs = map_structure(lambda output: output.reshape(output.shape or 1), outputs)
    for output in flatten(outputs):
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
            raise InputError("The model gives NaN or infinite outputs for these inputs. Check the inputs and weights.")
    return outputs


def check_like_inputs(registry: Registry, inputs: Inputs, value: Any, name: str) -> None:
    """Refuses arrays or numbers, one part for each input, whose shapes (or, for baselines, types) do not fit."""
    arrays = inputs.arrays
    parts = value if isinstance(value, tuple) else as_arrays(registry, value)
    if len(parts) != len(arrays):
        raise InputError(f"{name} has {len(parts)} parts for {len(arrays)} inputs. Pass one for each input.")
    for part, like in zip(parts, arrays, strict=True):
        if part is None or is_number(part):
            continue
        array = as_array(registry, part, name)
        if array.ndim != like.ndim:
            raise InputError(
                f"{name} has shape {array.shape}, but needs the axes of the inputs {like.shape}, with a first axis of "
                f"1 or more samples."
            )
        if any(size not in (1, other) for size, other in zip(array.shape[1:], like.shape[1:], strict=True)):
            raise InputError(f"{name} has shape {array.shape}, which does not fit inputs of shape {like.shape}.")
        if name == "baselines" and array.dtype.kind != like.dtype.kind:
            raise InputError(f"baselines hold {array.dtype}, the inputs {like.dtype}: convert and scale them alike.")


def check_window(inputs: Inputs, value: Any, name: str) -> None:
    """A window has one entry for each axis of a sample, none larger than the axis; strides may also be one number."""
    arrays = inputs.arrays
    windows = value if isinstance(value, tuple) and value and isinstance(value[0], tuple | list) else (value,)
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


def _repair(adapter: FrameworkAdapter, model: Any, inputs: Inputs) -> str:
    """What would have worked: a sample axis in front, or the channels on the other side."""
    if inputs.held:
        return "Check their shapes, and what the forward pass takes behind them."
    if len(inputs.arrays) > 1:
        return "A tuple or list of arrays means several inputs; for the samples of one input, stack them (np.stack)."
    array = inputs.arrays[0]
    changes = {"x[None]": array[None]}
    if array.ndim == 4:
        changes["x.transpose(0, 3, 1, 2)"] = array.transpose(0, 3, 1, 2)
        changes["x.transpose(0, 2, 3, 1)"] = array.transpose(0, 2, 3, 1)
    for text, changed in changes.items():
        try:
            adapter.outputs(model, [adapter.tensor(changed, model)])
        except Exception:  # noqa: BLE001 - the user's model may raise anything, and this is only a try
            continue
        return f"{text} would fit the model: the sample axis is first, and axes are in the model's order."
    return "Check shape and axis order: the sample axis is first."


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
