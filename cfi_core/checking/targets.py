"""Targets and neurons: checked against the model's output, in the axis order of the user's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, framework_of_tensor, is_masked
from cfi_core.contract import Target
from cfi_core.errors import ArgumentError, TargetError
from cfi_core.framework.structure import flatten, is_structure, items
from cfi_core.registry import Registry

PREDICTED = "predicted"
"""As a target: the class with the largest value, of each sample."""


def resolve_target(registry: Registry, target: Any, outputs: Any, classes: Sequence[str] | None = None) -> Target:
    """The user's target (see `cfi_core.attribute`), which must name something in the output.

    None does where the output has one value per sample; a string is the name of one of the classes, or "predicted".
    """
    target = _by_index(_plain(registry, target), outputs, classes)
    if not is_structure(outputs):
        return _in_tensor(target, outputs)
    entries = {key: entry for key, entry in items(outputs) if entry is not None}
    if callable(target):
        return Target(function=target)  # of the whole structure
    if len(entries) == 1:
        key, output = next(iter(entries.items()))
        # A tuple may name the one output first, or leave it out.
        if not is_structure(output) and not (isinstance(target, tuple) and len(target) == output.ndim):
            return replace(_in_tensor(target, output), output=key)
    if not isinstance(target, tuple) or not target or target[0] not in entries:
        raise TargetError(
            f"The model has {len(entries)} outputs: {', '.join(map(repr, entries))}. Pass a tuple that begins with one "
            f"of them, for example target=({next(iter(entries))!r}, 0); got {target!r}."
        )
    key, rest = target[0], target[1:]
    if is_structure(entries[key]):
        raise TargetError(f"Output {key!r} holds several tensors itself. Pass a callable that picks the value instead.")
    single = rest[0] if len(rest) == 1 else rest or None
    return replace(_in_tensor(single, entries[key]), output=key)


def _in_tensor(target: Any, output: np.ndarray) -> Target:
    shape = output.shape
    if callable(target):
        return Target(function=target)
    if target is None:
        if int(np.prod(shape[1:])) != 1:
            raise TargetError(
                f"The model gives {shape[1]} values per sample. Pass target=, for example target=0 for the first class."
                if len(shape) == 2
                else f"The model gives an output of shape {shape}. Pass target= with {_describe_index(shape)}."
            )
        return Target(index=(0,) * (len(shape) - 1) or None)
    if target == PREDICTED:
        return _predicted(output)
    if isinstance(target, str | bytes | bool | np.bool_):
        raise TargetError(f"The target {target!r} is no index. Pass {_describe_index(shape)}, or {PREDICTED!r}.")
    if not isinstance(target, list):
        return Target(index=_check_index(target if isinstance(target, tuple) else (target,), shape))
    if len(target) != shape[0]:
        raise TargetError(
            f"{len(target)} targets for {shape[0]} samples. Pass one per sample, or a single index for all of them."
        )
    per_sample = [tuple(value) if isinstance(value, list | tuple) else (value,) for value in target]
    return Target(index=tuple(_check_index(value, shape) for value in per_sample))


def _predicted(output: np.ndarray) -> Target:
    if output.ndim != 2:
        raise TargetError(
            f"The target {PREDICTED!r} is the largest of several classes, and the model gives an output of shape "
            f"{output.shape}. Pass {_describe_index(output.shape)}."
        )
    return Target(index=tuple((int(place),) for place in output.argmax(axis=1)))


def _by_index(target: Any, outputs: Any, classes: Sequence[str] | None) -> Any:
    """The target with the positions of classes in place of their names; what names an output stays."""
    if isinstance(target, list):
        return [_by_index(entry, None, classes) for entry in target]
    if isinstance(target, tuple):
        of_output = is_structure(outputs) and target[:1] and target[0] in dict(items(outputs))
        return tuple(
            entry if i == 0 and of_output else _by_index(entry, None, classes) for i, entry in enumerate(target)
        )
    if not isinstance(target, str) or target == PREDICTED or classes is None:
        return target
    found = [position for position, name in enumerate(classes) if name == target]
    if len(found) == 1:
        return found[0]
    what = "no class" if not found else f"{len(found)} classes"
    near = get_close_matches(target, classes, n=3, cutoff=0.4) or classes[:12]
    raise TargetError(f"The model has {what} named {target!r}. Near: {', '.join(map(repr, near))}. Or pass an index.")


def position_of(target: Target | None, outputs: Any) -> int:
    """Position of the output that a target chooses among all tensors that the model gives."""
    if target is None or target.output is None:
        return 0
    return [key for key, entry in items(outputs) for _ in flatten(entry)].index(target.output)


def _plain(registry: Registry, target: Any) -> Any:
    """The target with numbers of Python, in lists and tuples, in place of numpy arrays and tensors of any framework."""
    if isinstance(target, list | tuple) and not is_masked(target):
        plain = [_plain(registry, entry) for entry in target]
        return tuple(plain) if isinstance(target, tuple) else plain
    if target is None or isinstance(target, str | bytes | bool | np.bool_):
        return target
    if is_masked(target):
        raise TargetError("The target is a masked array, and its mask would be lost. Pass one index for each sample.")
    if isinstance(target, int):
        return int(target)  # however large
    is_tensor = framework_of_tensor(registry, target) is not None
    if callable(target) and not is_tensor:
        return target
    array = as_array(registry, target, "target") if is_tensor else np.asarray(target)
    if array.dtype.kind not in "iu":
        raise TargetError(f"The target {target!r} holds no indices. Pass integers, or a callable of the output.")
    return array.item() if array.size == 1 else array.tolist()


def _check_index(index: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    shown, sizes = index if len(index) != 1 else index[0], shape[1:]
    if len(index) != len(sizes):
        hint = " One class per sample is a list." if len(index) == shape[0] else ""
        raise TargetError(
            f"The target {shown} has {len(index)} indices for an output of shape {shape}. "
            f"Pass {_describe_index(shape)}.{hint}"
        )
    exceeded = [size for value, size in zip(index, sizes, strict=True) if not _is_index(value, size)]
    if exceeded:
        none = [f"{value!r} is no index, and " for value in index if not _is_whole(value)]
        raise TargetError(
            f"The target {shown} is out of range: {''.join(none[:1])}the model gives {sizes} values per sample, so an "
            f"index lies between 0 and {exceeded[0] - 1}."
        )
    return tuple(value % size for value, size in zip(index, sizes, strict=True))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_index(value: Any, size: int) -> bool:
    return _is_whole(value) and bool(-size <= value < size)


def _describe_index(shape: tuple[int, ...]) -> str:
    if len(shape) <= 2:
        return "a class index, one per sample, or a callable of the output"
    return f"a tuple of {len(shape) - 1} indices into {shape[1:]}, one such tuple per sample, or a callable"


def resolve_neuron(neuron: Any, shape: Sequence[int], *, channel_allowed: bool, layer: str) -> Any:
    """The user's neuron, which must be a unit of the layer's output (shape with the sample axis, the user's order).

    A slice among its indices stands for the sum of the units that it selects.
    """
    if neuron is None or callable(neuron):
        return neuron
    index = neuron if isinstance(neuron, tuple | list) else (neuron,)
    sizes = tuple(shape[1:])
    if channel_allowed and any(isinstance(value, slice) for value in index):
        raise ArgumentError(f"neuron={neuron!r} names several units: pass one, or a function of the layer's output.")
    if channel_allowed and len(index) == 1 and len(sizes) > 1:
        return tuple(int(value) for value in index)
    what, given = f"neuron={neuron!r}", f"layer {layer!r} gives {sizes} values per sample."
    if len(index) != len(sizes):
        raise ArgumentError(f"{what} has {len(index)} indices, but {given} Pass one index for each of these axes.")
    units = list(zip(index, sizes, strict=True))
    if not all(_selects(value, size) for value, size in units):
        none = [
            f"{value!r} is no index, and " for value in index if not isinstance(value, slice) and not _is_whole(value)
        ]
        raise ArgumentError(f"{what} is out of range: {''.join(none[:1])}{given}")
    return tuple(value if isinstance(value, slice) else int(value) % size for value, size in units)


def _selects(value: Any, size: int) -> bool:
    if not isinstance(value, slice):
        return _is_index(value, size)
    bounds = (value.start, value.stop, value.step)
    return all(one is None or type(one) is int for one in bounds) and value.step != 0 and len(range(size)[value]) > 0
