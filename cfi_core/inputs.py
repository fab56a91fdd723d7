"""Inputs and baselines of a call: from whatever arrays the user has to tensors of the model's framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfi_core.detection import adapter_for, framework_of_tensor
from cfi_core.errors import CFIError, InputError
from cfi_core.frameworks.base import FrameworkAdapter
from cfi_core.frameworks.structure import flatten
from cfi_core.registry import Registry


@dataclass(frozen=True, eq=False)
class Inputs:
    """The user's inputs, twice, in the axis order of the user's model.

    Attributes:
        tensors: In the model's framework, on its device and in its floating point type.
        arrays: The same values in numpy.
    """

    tensors: tuple[Any, ...]
    arrays: tuple[np.ndarray, ...]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int(self.arrays[0].shape[0])


@dataclass(frozen=True, eq=False)
class Probe:
    """One forward pass of the user's model on the user's inputs."""

    inputs: Inputs
    outputs: Any


def read_inputs(registry: Registry, adapter: FrameworkAdapter, model: Any, value: Any) -> Inputs:
    """Brings the user's inputs into the model's framework.

    Args:
        registry: What is installed.
        adapter: Adapter of the model's framework.
        model: The user's model.
        value: An array, a tensor of any known framework or nested lists; a tuple or list of arrays for a model
            with several inputs. The sample axis comes first.

    Raises:
        InputError: Types, shapes or sample counts do not fit.
    """
    parts = split(registry, value)
    declared = adapter.input_shapes(model)
    if declared is not None and len(declared) != len(parts):
        raise InputError(
            f"The model has {len(declared)} inputs, but {len(parts)} were given. "
            f"Pass {'one array' if len(declared) == 1 else f'a tuple of {len(declared)} arrays'} as inputs."
        )
    arrays = [as_array(registry, part, f"inputs[{i}]" if len(parts) > 1 else "inputs") for i, part in enumerate(parts)]
    tensors = []
    for position, (part, array) in enumerate(zip(parts, arrays, strict=True)):
        name = f"inputs[{position}]" if len(parts) > 1 else "inputs"
        if declared is not None:
            _check_shape(name, array.shape, declared[position])
        integer = adapter.declared_integer(model, position)
        if integer is False and not np.issubdtype(array.dtype, np.floating):
            raise InputError(_integers(name, array))
        if integer is True and np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{name} is of type {array.dtype}, but the model takes integers: convert it first.")
        tensors.append(adapter.tensor(part if adapter.is_tensor(part) else array, model))
    counts = {array.shape[0] for array in arrays}
    if len(counts) != 1 or 0 in counts:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise InputError(f"All inputs need the same, non-zero number of samples along their first axis; got {shapes}.")
    # Copied, because the attribution keeps them and the user may go on writing into the originals.
    return Inputs(tuple(tensors), tuple(np.array(adapter.to_numpy(tensor)) for tensor in tensors))


def example_inputs(adapter: FrameworkAdapter, model: Any, samples: int) -> Inputs:
    """Random inputs of the shapes that the model declares, for methods that need none of the user's.

    Raises:
        InputError: The model does not declare them fully.
    """
    shapes = adapter.input_shapes(model)
    if shapes is None or any(size is None for shape in shapes for size in shape[1:]):
        known = "none" if shapes is None else ", ".join(map(str, shapes))
        raise InputError(
            f"The model does not declare the shape of its inputs ({known}). Pass inputs=: an example to start from, "
            f"such as zeros or noise, sample axis first."
        )
    generator = np.random.default_rng(0)
    arrays = []
    for position, shape in enumerate(shapes):
        full = (samples, *(size or 1 for size in shape[1:]))
        integer = adapter.declared_integer(model, position)
        arrays.append(np.zeros(full, np.int64) if integer else generator.normal(size=full).astype(np.float32))
    tensors = tuple(adapter.tensor(array, model) for array in arrays)
    return Inputs(tensors, tuple(adapter.to_numpy(tensor) for tensor in tensors))


def run_probe(adapter: FrameworkAdapter, model: Any, inputs: Inputs) -> Probe:
    """Runs the user's model once on the user's inputs, so that what does not fit is found before anything expensive.

    Raises:
        InputError: The model fails on them, gives no numbers, or mixes the samples.
    """
    try:
        outputs = adapter.outputs(model, inputs.tensors)
    except CFIError:
        raise
    except Exception as error:  # the user's model may raise anything
        shapes = ", ".join(f"{array.shape} {array.dtype}" for array in inputs.arrays)
        integers = [array for array in inputs.arrays if not np.issubdtype(array.dtype, np.floating)]
        hint = _integers("inputs", integers[0]) if integers else _repair(adapter, model, inputs)
        raise InputError(f"The model fails on inputs of shape {shapes}: {_first_line(error)} {hint}") from error
    for output in flatten(outputs):
        if not np.issubdtype(output.dtype, np.floating):
            raise InputError(
                f"The model gives {output.dtype} values, which cannot be explained. Explain its scores, not its labels."
            )
        if output.ndim == 0 or output.shape[0] != inputs.samples:
            raise InputError(
                f"The model gives an output of shape {output.shape} for {inputs.samples} samples. "
                f"Inputs and outputs need the sample axis first; a single sample needs one too (x[None])."
            )
        if not np.isfinite(output).all():
            raise InputError("The model gives NaN or infinite outputs for these inputs. Check the inputs and weights.")
    return Probe(inputs, outputs)


def _repair(adapter: FrameworkAdapter, model: Any, inputs: Inputs) -> str:
    """What would have worked: a sample axis in front, or the channels on the other side."""
    if len(inputs.arrays) == 1:
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
    if len(inputs.arrays) > 1:
        return "A tuple or list of arrays means several inputs; for the samples of one input, stack them (np.stack)."
    return "Check shape and axis order: the sample axis is first."


def split(registry: Registry, value: Any) -> tuple[Any, ...]:
    """One entry for each model input: a tuple or list of arrays is several inputs."""
    if isinstance(value, list | tuple) and value and all(_is_array(registry, entry) for entry in value):
        return tuple(value)
    return (value,)


def as_array(registry: Registry, value: Any, name: str) -> np.ndarray:
    """The values as a numpy array.

    Raises:
        InputError: They are no array of numbers.
    """
    framework = framework_of_tensor(registry, value)
    if framework is not None:
        return adapter_for(registry, framework).to_numpy(value)
    if isinstance(value, dict):
        raise InputError(f"{name} is a dict. Pass a tuple of arrays in the order of the model's inputs.")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is no array: {error}. Pass an array with the sample axis first.") from error
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        raise InputError(f"{name} holds {array.dtype} of shape {array.shape}; pass an array of numbers, samples first.")
    return array


def to_tensor(registry: Registry, adapter: FrameworkAdapter, model: Any, value: Any, axes: Sequence[int] | None) -> Any:
    """A fresh tensor of the adapter's framework with permuted axes, without a detour where it already is one."""
    if adapter.is_tensor(value):
        tensor = adapter.tensor(value, model)
        return tensor if axes is None else adapter.permute(tensor, axes)
    array = as_array(registry, value, "an array")
    return adapter.tensor(array if axes is None else np.transpose(array, axes), model)


def _is_array(registry: Registry, value: Any) -> bool:
    return isinstance(value, np.ndarray) or framework_of_tensor(registry, value) is not None


def _check_shape(name: str, shape: tuple[int, ...], declared: tuple[int | None, ...]) -> None:
    fits = len(shape) == len(declared) and all(
        size is None or axis == 0 or size == given
        for axis, (given, size) in enumerate(zip(shape, declared, strict=True))
    )
    if fits:
        return
    hint = ""
    if len(shape) == len(declared) - 1:
        hint = " The sample axis is missing: pass x[None]."
    elif sorted(shape[1:]) == sorted(size or 0 for size in declared[1:]):
        hint = " The axes are in another order: transpose the array first."
    expected = tuple("any" if size is None or axis == 0 else size for axis, size in enumerate(declared))
    raise InputError(f"{name} has shape {shape}, but the model takes {expected}.{hint}".replace("'any'", "any"))


def _integers(name: str, array: np.ndarray) -> str:
    return (
        f"{name} holds {array.dtype}: the model takes floating point numbers. Convert and scale it as in training, "
        f"for example x.astype('float32') / 255."
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}".rstrip(".") + "."
