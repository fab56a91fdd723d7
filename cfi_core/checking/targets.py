"""Targets and neurons: checked against the model's output, in the axis order of the user's model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, framework_of_tensor, is_masked
from cfi_core.boxes import is_detection
from cfi_core.contract import Target
from cfi_core.errors import FOREIGN, ArgumentError, CFIError, TargetError, brief, summary
from cfi_core.framework import entry_of, is_structure, items
from cfi_core.outputs import leaves_of, main_path
from cfi_core.records import Original
from cfi_core.registry import Registry
from cfi_core.targets import Context, NamedTarget, Selected

PREDICTED = "predicted"
"""As a target: the class with the largest value, of each sample."""


@dataclass(frozen=True)
class Resolved:
    """What a target is found to name.

    Attributes:
        path: Leads to the output that is meant; empty for a single tensor, and for a function of all outputs.
        target: In that output.
        words: Both in the words of the user, and of the model where it has names for its classes.
    """

    path: tuple[Any, ...]
    target: Target
    words: str = ""


def resolve_target(registry: Registry, original: Original, target: Any, outputs: Any, samples: int) -> Resolved:
    """The user's target (see `cfi_core.attribute`) in what the user's model gives for so many samples."""
    adapter, model = original.adapter, original.model
    classes = adapter.class_names(model)

    def channel_axis(shape: Sequence[int]) -> int | None:
        return adapter.channel_axis(model, shape)

    found = find_target(registry, target, outputs, classes, samples=samples, channel_axis=channel_axis)
    return replace(found, words=in_words(target, found, classes))


def find_target(
    registry: Registry,
    target: Any,
    outputs: Any,
    classes: Sequence[str] | None = None,
    *,
    samples: int | None = None,
    channel_axis: Callable[[Sequence[int]], int | None] = lambda shape: None,
) -> Resolved:
    """The target, which must name something in the outputs.

    None does where the output has one value per sample; a string is the name of one of the classes, or "predicted".
    Where there are several outputs and none is named, `logits` is meant, or the only one that holds scores.

    Raises:
        TargetError: It names nothing there.
    """
    target = _plain(registry, target)
    path, chosen, rest = _choose_output(target, outputs, samples)
    if isinstance(rest, NamedTarget):
        shape = chosen.shape if hasattr(chosen, "shape") else ()
        rows = samples or (shape[0] if shape else len(leaves_of(outputs)[0][1]))
        rest = rest.resolve(Context(chosen, rows, lambda name: _class_index(name, classes), channel_axis))
        place = rest.index(shape)
        return Resolved(path, Target(function=rest) if place is None else _in_tensor(place, chosen))
    found = Target(function=rest) if callable(rest) else _in_tensor(_by_index(rest, classes), chosen)
    return Resolved(path, found)


def in_words(given: Any, found: Resolved, classes: Sequence[str] | None) -> str:
    """What a target names: the user's word for it where that is none of the model's indices, and what it stands for."""
    target = found.target
    named = [one for one in (given if isinstance(given, tuple) else (given,)) if isinstance(one, NamedTarget)]
    if named or target.function is not None:
        what = str(named[0] if named else target.function)
    elif target.index is None:
        what = "the only value"
    else:
        rows: Sequence[Any] = target.index if target.per_sample else (target.index,)
        what = ", ".join(_name_place(row, classes) for row in rows)
    if _says(given, PREDICTED):
        what = f"{PREDICTED}: {what}"
    return f"{what} of output {'.'.join(map(str, found.path))}" if found.path else what


def _name_place(row: tuple[int, ...], classes: Sequence[str] | None) -> str:
    if len(row) != 1:
        return str(row)
    return f"{row[0]} ({classes[row[0]]})" if classes is not None and row[0] < len(classes) else str(row[0])


def _says(given: Any, word: str) -> bool:
    if isinstance(given, list | tuple):
        return any(_says(entry, word) for entry in given)
    if isinstance(given, np.ndarray):
        return given.dtype.kind in "UO" and word in given
    return isinstance(given, str) and given == word


def _choose_output(target: Any, outputs: Any, samples: int | None) -> tuple[tuple[Any, ...], Any, Any]:
    """The path to the output that is meant, what stands there, and the target in it."""
    path, chosen, rest = _follow_all(target, outputs) if isinstance(target, list) else _follow(target, outputs)
    single = rest[0] if len(rest) == 1 else rest or None
    if is_structure(chosen) and not (callable(single) and getattr(single, "takes_all", True)):
        more = main_path(chosen, samples)
        if more is None:
            raise TargetError(_several(path, chosen, target))
        path, chosen = (*path, *more), dict(leaves_of(chosen))[more]
    return path, chosen, single


def _follow_all(targets: list[Any], outputs: Any) -> tuple[tuple[Any, ...], Any, tuple[Any, ...]]:
    """The same of one target for each sample, which all name the same output or none."""
    followed = [_follow(one, outputs) for one in targets]
    paths = {path for path, _, _ in followed}
    if len(paths) > 1:
        raise TargetError(
            f"The targets of the samples name several outputs: {', '.join(map(repr, paths))}. Pass a function of the "
            f"outputs that gives one value for each sample."
        )
    if paths <= {()}:
        return (), outputs, (targets,)
    path, chosen, _ = followed[0]
    return path, chosen, ([rest[0] if len(rest) == 1 else rest for _, _, rest in followed],)


def _follow(target: Any, outputs: Any) -> tuple[tuple[Any, ...], Any, tuple[Any, ...]]:
    """As far as a tuple names outputs: the path, what stands there, and what is left of the target."""
    if not isinstance(target, tuple):
        return (), outputs, () if target is None else (target,)
    leaves = leaves_of(outputs)
    if len(leaves) == 1 and len(target) == len(leaves[0][1].shape) - 1 and not isinstance(target[0], str):
        return (), outputs, target  # the one output may be left out
    path: tuple[Any, ...] = ()
    while len(path) < len(target) and is_structure(outputs):
        try:
            entry = entry_of(outputs, target[len(path)])
        except KeyError:
            break
        if not leaves_of(entry):
            break
        path, outputs = (*path, target[len(path)]), entry
    return path, outputs, target[len(path) :]


def _several(path: tuple[Any, ...], outputs: Any, target: Any) -> str:
    keys = [key for key, entry in items(outputs) if leaves_of(entry)]
    if is_detection(outputs):
        return (
            f"The model gives the boxes that it finds in each image, and {target!r} names no value of them. Pass "
            f"cfi.targets.box(iou_with=(left, top, right, bottom), label=…), or a function of the outputs."
        )
    what = f"Output {'.'.join(map(str, path))} of the model" if path else "The model"
    example = (*path, *(keys[:1] or ["…"]), 0)
    return (
        f"{what} has {len(keys)} outputs: {', '.join(map(repr, keys))}. Pass a tuple that begins with one of them, for "
        f"example target={example!r}; got {target!r}."
    )


def _in_tensor(target: Any, output: np.ndarray) -> Target:
    shape = output.shape
    if target is None:
        if int(np.prod(shape[1:])) != 1:
            raise TargetError(
                f"The model gives {shape[1]} values per sample. Pass target=, for example target=0 for the first class."
                if len(shape) == 2
                else f"The model gives an output of shape {shape}. Pass target= with {_describe_index(shape)}."
            )
        return Target(index=(0,) * (len(shape) - 1) or None)
    if not isinstance(target, list):
        if isinstance(target, str) and target == PREDICTED:
            target = [PREDICTED] * shape[0]
        else:
            place = _place(target, output)
            return Target(function=Selected((place,))) if _sums(place) else Target(index=place)
    if _is_row_of_classes(target, shape):
        raise TargetError(f"The target {_shorten(target)} has {len(target[0])} numbers for each sample. {_OF_ONE_HOT}")
    if len(target) != shape[0]:
        raise TargetError(
            f"{len(target)} targets for {shape[0]} samples. Pass one per sample, or a single index for all of them."
        )
    if len(shape) == 1 and all(isinstance(one, str) and one == PREDICTED for one in target):
        return Target()
    rows = tuple(_place(one, output, row) for row, one in enumerate(target))
    return Target(function=Selected(rows)) if any(map(_sums, rows)) else Target(index=rows)


def _is_row_of_classes(target: list[Any], shape: tuple[int, ...]) -> bool:
    """Whether it is one-hot, and no list of places in the output."""
    rows = [one for one in target if isinstance(one, list | tuple) and len(one) == shape[1]] if len(shape) == 2 else []
    whole = len(rows) == len(target) and all(_is_whole(entry) for row in rows for entry in row)
    return whole and _is_one_hot(np.array(rows))


def _place(target: Any, output: np.ndarray, row: int = 0) -> tuple[Any, ...]:
    """The place in the output that a target names for one sample."""
    if isinstance(target, NamedTarget):
        raise TargetError(f"{target} is one target for all samples: pass it alone, or an index for each sample.")
    if isinstance(target, str) and target == PREDICTED:
        return _predict(output, row)
    if isinstance(target, str | bytes | bool | np.bool_):
        raise TargetError(f"The target {target!r} is no index. Pass {_describe_index(output.shape)}, or {PREDICTED!r}.")
    return _check_index(tuple(target) if isinstance(target, list | tuple) else (target,), output.shape)


def _sums(place: tuple[Any, ...]) -> bool:
    """Whether a place has a slice, which stands for the sum over what it selects."""
    return any(isinstance(entry, slice) for entry in place)


def _predict(output: np.ndarray, row: int) -> tuple[int, ...]:
    if output.ndim != 2:
        raise TargetError(
            f"The target {PREDICTED!r} is the largest of several classes, and the model gives an output of shape "
            f"{output.shape}. Pass {_describe_index(output.shape)}; of a segmentation "
            f"cfi.targets.mask('predicted', class), the sum over the pixels where that class is predicted."
        )
    # A single column is the only score there is, whichever side of it is predicted.
    return (int(output[row].argmax()),)


def _by_index(target: Any, classes: Sequence[str] | None) -> Any:
    """The target with the positions of classes in place of their names."""
    if isinstance(target, list | tuple):
        return type(target)(_by_index(entry, classes) for entry in target)
    if not isinstance(target, str) or target == PREDICTED or classes is None:
        return target
    return _class_index(target, classes)


def _class_index(name: Any, classes: Sequence[str] | None) -> int:
    """The position of a class by its name; an index as it is."""
    if _is_whole(name):
        return int(name)
    if not isinstance(name, str):
        raise TargetError(f"The class {name!r} is neither an index nor a name. Pass a whole number, or a name.")
    if classes is None:
        raise TargetError(f"The model knows no names of classes, so none named {name!r}. Pass an index.")
    found = [position for position, known in enumerate(classes) if known == name]
    if len(found) == 1:
        return found[0]
    what = "no class" if not found else f"{len(found)} classes"
    near = get_close_matches(name, classes, n=3, cutoff=0.4) or classes[:12]
    raise TargetError(f"The model has {what} named {name!r}. Near: {', '.join(map(repr, near))}. Or pass an index.")


def position_of(target: Target | None, outputs: Any) -> int:
    """Position of the output that a target chooses among all tensors that the model gives."""
    if target is None or target.output is None:
        return 0
    return next(i for i, (path, _) in enumerate(leaves_of(outputs)) if path[0] == target.output)


def _plain(registry: Registry, target: Any) -> Any:
    """The target with numbers of Python, in lists and tuples, in place of numpy arrays and tensors of any framework."""
    if isinstance(target, list | tuple) and not is_masked(target):
        plain = [_plain(registry, entry) for entry in target]
        return tuple(plain) if isinstance(target, tuple) else plain
    if target is None or isinstance(target, str | bytes | bool | np.bool_ | slice):
        return target
    if is_masked(target):
        raise TargetError("The target is a masked array, and its mask would be lost. Pass one index for each sample.")
    if isinstance(target, int):
        return int(target)  # however large
    is_tensor = framework_of_tensor(registry, target) is not None
    if callable(target) and not is_tensor:
        return target
    try:
        array = as_array(registry, target, "target") if is_tensor else np.asarray(target)
    except CFIError:
        raise
    except FOREIGN as error:  # objects of any library refuse in their own way
        raise TargetError(
            f"The target is no index ({summary(error)}). Pass integers, or a callable of the output."
        ) from error
    if array.dtype.kind in "UO" and all(isinstance(one, str | int) for one in array.flat):
        return array.item() if array.size == 1 else array.tolist()
    if array.dtype.kind not in "iu":
        raise TargetError(f"The target {_shorten(target)} holds no indices. {_name_indices(array)}")
    return array.item() if array.size == 1 else array.tolist()


def _shorten(target: Any) -> str:
    return brief(" ".join(repr(target).split()))


def _name_indices(array: np.ndarray) -> str:
    """What to pass in the place of an array that holds no whole numbers."""
    if array.dtype.kind in "fb" and _is_one_hot(array):
        return _OF_ONE_HOT
    if array.dtype.kind == "f" and array.size and (array == np.round(array)).all():
        return "Class indices are whole numbers: pass target.astype(int) (int(target) of a single one)."
    return "Pass integers, or a callable of the output."


_OF_ONE_HOT = "It is one-hot: pass the class of each sample, target.argmax(axis=1)."


def _is_one_hot(array: np.ndarray) -> bool:
    """Whether each of its rows is 1 at one place of several, and 0 everywhere else."""
    if array.ndim != 2 or array.shape[1] < 2:
        return False
    return bool(np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all())


def _check_index(index: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    shown, sizes = index if len(index) != 1 else index[0], shape[1:]
    index = _complete(index, sizes)
    if len(index) != len(sizes):
        hint = " One class per sample is a list." if len(index) == shape[0] else ""
        raise TargetError(
            f"The target {shown} has {len(index)} indices for an output of shape {shape}. "
            f"Pass {_describe_index(shape)}.{hint}"
        )
    if sizes == (1,) and not _selects(index[0], 1):
        raise TargetError(
            f"The target {shown} is out of range: the model gives one value for each sample, which is explained "
            f"without a target or with target=0. Of a classifier of two classes that value stands for class 1; what "
            f"speaks for class 0 is its opposite: target=lambda outputs: -outputs[:, 0]."
        )
    exceeded = [size for value, size in zip(index, sizes, strict=True) if not _selects(value, size)]
    if exceeded:
        none = [f"{value!r} is no index, and " for value in index if not isinstance(value, slice | int | np.integer)]
        raise TargetError(
            f"The target {shown} is out of range: {''.join(none[:1])}the model gives {sizes} values per sample, so an "
            f"index lies between 0 and {exceeded[0] - 1}."
        )
    return tuple(
        _ascend(value, size) if isinstance(value, slice) else int(value) % size
        for value, size in zip(index, sizes, strict=True)
    )


def _complete(index: Sequence[Any], sizes: Sequence[int]) -> tuple[Any, ...]:
    """With the indices that are left out, where they leave one value: of axes of length one."""
    left = sizes[len(index) :] if index else ()
    return (*index, *(0 for _ in left)) if set(left) <= {1} else tuple(index)


def _ascend(given: slice, size: int) -> slice:
    """The same places in ascending order, as not all frameworks take others; a slice stands for their sum."""
    if given.step is None or given.step > 0:
        return given
    places = range(size)[given]
    return slice(places[-1], places[0] + 1, -int(given.step))


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
    index = _complete(index, sizes)
    if len(index) != len(sizes):
        raise ArgumentError(f"{what} has {len(index)} indices, but {given} Pass one index for each of these axes.")
    units = list(zip(index, sizes, strict=True))
    if not all(_selects(value, size) for value, size in units):
        none = [
            f"{value!r} is no index, and " for value in index if not isinstance(value, slice) and not _is_whole(value)
        ]
        raise ArgumentError(f"{what} is out of range: {''.join(none[:1])}{given}")
    return tuple(_ascend(value, size) if isinstance(value, slice) else int(value) % size for value, size in units)


def _selects(value: Any, size: int) -> bool:
    if not isinstance(value, slice):
        return _is_index(value, size)
    bounds = (value.start, value.stop, value.step)
    return all(one is None or _is_whole(one) for one in bounds) and value.step != 0 and len(range(size)[value]) > 0
