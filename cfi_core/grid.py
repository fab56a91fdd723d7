"""Where the tokens of a layer lie in the image: found from the model's shapes, and confirmed by moving the image.

A patch of the first sample is changed, and the positions of the layer's output that answer are looked at. In front of
a model each patch moves one token alone, so a few passes, each of which changes every second patch in another way, tell
the place of every token, in whatever order they stand. Further in tokens have mixed. There the order is taken over from
a layer in front whose output has the same positions, and holds if patch after patch moves most, of all tokens, the one
that the order names. What cannot be confirmed in this way is no map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from math import log, prod
from typing import Any

import numpy as np

from cfi_core.errors import FOREIGN, ArgumentError, ModelWarning, summary, warn
from cfi_core.framework import FrameworkAdapter, Layout, Placed
from cfi_core.records import Inputs, Original
from cfi_core.turns import Lock

MOST_OTHERS = 16
"""Tokens besides those of the image (class, distillation, registers) that are looked for."""

PLACES = 32
"""Patches that are moved one by one where tokens have mixed, of a grid that has more."""

MOST_PLACES = 256
"""Up to which an order is read off one by one, where no layer in front has it."""

HELD = 0.75
"""Share of the moved patches whose own token must answer most for an order to hold."""

_MOVED = 1e-4  # relative to the position that moves most: below it is rounding
_MARGIN = 2.0  # times as much as its own token may no other one answer, both ways best
_STRETCH = 0.25  # by which a grid may be stretched against the image, as a logarithm
_CANDIDATES = 6
_READ_OFF = 2  # of these
_ELEMENTS = 2**23  # of inputs in one pass
_CAPACITY = 64

_kept: OrderedDict[tuple[Any, ...], Placed] = OrderedDict()
_lock = Lock()


@dataclass(frozen=True, eq=False)
class Ground:
    """A model with inputs, one of which has space, to move it and look at the layers.

    Attributes:
        original: The user's model.
        inputs: Its inputs; the first sample is taken.
        fingerprint: Of the model's content; empty: nothing is kept.
        by_sample: Whether the model is a function of each sample alone, so that others may be beside it.
    """

    original: Original
    inputs: Inputs
    fingerprint: str = ""
    by_sample: bool = True

    @cached_property
    def twin(self) -> Any:
        """What is run."""
        return self.adapter.twin(self.original.model)

    @cached_property
    def image(self) -> int | None:
        """Position of the first input that has two axes of space or more; None if there is none."""
        for position, array in enumerate(self.inputs.arrays):
            if array.ndim >= 4 and self._channel(array) is not None:
                return position
        return None

    @property
    def space(self) -> tuple[int, ...]:
        """Axes of space of that input."""
        array = self.inputs.arrays[self.image or 0]
        return tuple(axis for axis in range(1, array.ndim) if axis != self._channel(array))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of these."""
        return tuple(self.inputs.arrays[self.image or 0].shape[axis] for axis in self.space)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of these."""
        array = self.inputs.arrays[self.image or 0]
        names = self.adapter.dims(self.original.model, array.shape)
        return tuple(names[axis] for axis in self.space)

    @property
    def adapter(self) -> FrameworkAdapter:
        """Of the model's framework."""
        return self.original.adapter

    def _channel(self, array: np.ndarray) -> int | None:
        return self.adapter.channel_axis(self.original.model, array.shape)

    @cached_property
    def activations(self) -> Mapping[str, np.ndarray]:
        """What all layers give for the first sample, in the order in which they are called."""
        return self._run(self._rows([None]), None)

    def answers(self, names: Sequence[str], masks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """By how much the output of each layer moves where the masks say that the image is changed.

        Returns:
            Differences, of shape `(masks, rows of one sample, *the other axes)`.
        """
        found: dict[str, list[np.ndarray]] = {name: [] for name in names}
        portion = max(_ELEMENTS // self.inputs.arrays[self.image or 0][0].size, 2) - 1
        for first in range(0, len(masks), portion):
            some = masks[first : first + portion]
            for name, values in self._run(self._rows([None, *some]), names).items():
                own = self.activations[name].shape
                if values.shape != (own[0] * (len(some) + 1), *own[1:]):  # the first axis does not hold the samples
                    found[name].append(np.zeros((len(some), *own)))
                    continue
                rows = values.astype(np.float64).reshape(len(some) + 1, *own)
                found[name].append(rows[1:] - rows[:1])
        return {name: np.concatenate(parts) for name, parts in found.items() if parts}

    def _rows(self, masks: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """All inputs with the first sample once for each mask."""
        arrays = [np.repeat(array[:1], len(masks), 0) for array in (*self.inputs.arrays, *self.inputs.held_arrays)]
        image = arrays[self.image or 0]
        other = _other_values(image[0])
        shape = [size if axis in self.space else 1 for axis, size in enumerate(image.shape) if axis]
        for row, mask in enumerate(masks):
            if mask is not None:
                image[row] = np.where(mask.reshape(shape), other, image[row])
        return arrays

    def _run(self, arrays: Sequence[np.ndarray], names: Sequence[str] | None) -> Mapping[str, np.ndarray]:
        """Activations; a model that takes as many samples as the user gave gets so many at a time."""
        try:
            return self._pass(arrays, names)
        except FOREIGN:
            count, size = len(arrays[0]), self.inputs.samples
            if count == size:
                raise
        parts = []
        for first in range(0, count, size):
            some = [np.resize(array[first : first + size], (size, *array.shape[1:])) for array in arrays]
            parts.append((min(size, count - first), self._pass(some, names)))
        return {
            name: np.concatenate([part[name][: len(part[name]) * kept // size] for kept, part in parts])
            for name in parts[0][1]
        }

    def _pass(self, arrays: Sequence[np.ndarray], names: Sequence[str] | None) -> Mapping[str, np.ndarray]:
        tensors = iter([self.adapter.tensor(array, self.original.model) for array in arrays])
        explained = [next(tensors) for _ in self.inputs.arrays]
        held = [next(tensors) if self.adapter.is_tensor(one) else one for one in self.inputs.held]
        found = self.adapter.activations(self.twin, (*explained, *held), names)
        return {name: value for name, value in found.items() if value.ndim and value.dtype.kind == "f"}


def place_layer(
    ground: Ground, layer: str, shape: Sequence[int], reshape: Any = None, *, thorough: bool = True
) -> Placed:
    """Where the positions of a layer lie in the image.

    Args:
        ground: The model.
        layer: Name of a layer that is called once and gives one tensor.
        shape: Of its output, for all samples.
        reshape: What the user says of it: None finds it out, False leaves the values as they are; else as for
            `cfi_core.attribute`.
        thorough: Also looks for an order that no layer in front has, patch by patch.

    Raises:
        ArgumentError: `reshape` does not fit the layer.

    Warns:
        ModelWarning: It says something else than the model shows.
    """
    if reshape is False:
        return Placed(None, found="reshape=False leaves the values as the layer gives them")
    if reshape is not None:
        said = (_by_function if callable(reshape) else _by_description)(ground, layer, shape, reshape)
        _tell_other(said, place_layer(ground, layer, shape), layer)
        return said
    signature = tuple((array.shape, array.dtype.str) for array in ground.inputs.arrays)
    key = (ground.fingerprint, layer, tuple(shape), signature, thorough)
    with _lock:
        if ground.fingerprint and key in _kept:
            return _kept[key]
    try:
        placed = _find(ground, layer, shape, thorough=thorough)
    except FOREIGN as error:  # a model may fail on other images in any way
        placed = Placed(None, found=f"places in the image could not be looked for ({summary(error)})")
    with _lock:
        if ground.fingerprint:
            _kept[key] = placed
            while len(_kept) > _CAPACITY:
                _kept.popitem(last=False)
    return placed


def _tell_other(said: Placed, found: Placed, layer: str) -> None:
    """Warns where the user says something else of a layer than the model shows."""
    if said.layout is None or found.layout is None:
        return
    if (said.layout.space, said.layout.order) != (found.layout.space, found.layout.order):
        warn(
            f"reshape= puts the tokens of layer {layer!r} elsewhere than patches of the image move them: on a grid of "
            f"{said.layout.space}, where {found.layout.space}, in another order or beside other tokens, was found. "
            f"Leave reshape= out, if that is not what is meant.",
            ModelWarning,
        )


# what the user says


def _by_description(ground: Ground, layer: str, shape: Sequence[int], reshape: Any) -> Placed:
    entries = (reshape,) if isinstance(reshape, int) else reshape
    if not isinstance(entries, tuple | list) or not entries or not all(map(_is_entry, entries)):
        raise ArgumentError(
            f"reshape={reshape!r} is neither sizes such as (14, 14), sizes with the names of other tokens such as "
            f"('class', 14, 14), nor a function of the layer's output. Pass one of them, or False for plain tokens."
        )
    space = tuple(int(entry) for entry in entries if not isinstance(entry, str))
    first = next((i for i, entry in enumerate(entries) if not isinstance(entry, str)), len(entries))
    front, behind = entries[:first], entries[first + len(space) :]
    if not space or not all(isinstance(entry, str) for entry in (*front, *behind)) or min(space) < 1:
        raise ArgumentError(f"reshape={reshape!r} must hold the sizes of the grid, such as (14, 14), one by another.")
    channel, rows, count = _token_axes(ground, layer, shape)
    if count != prod(space) + len(front) + len(behind):
        placed = place_layer(ground, layer, shape) if count > prod(space) and not front and not behind else None
        if placed is not None and placed.layout is not None and placed.layout.space == space:
            return placed
        raise ArgumentError(
            f"reshape={reshape!r} makes {prod(space) + len(front) + len(behind)} tokens, and layer {layer!r} gives "
            f"{count} of each sample (its output is of shape {tuple(shape)}). Name those that are no part of the grid "
            f"where they stand: ('class', height, width)."
        )
    order = tuple(range(len(front), len(front) + prod(space)))
    others = (*range(len(front)), *range(count - len(behind), count))
    layout = Layout(space, order, channel, rows, others)
    return Placed(layout, _names(ground, space), (*front, *behind), f"as reshape={reshape!r} says")


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, str | int | np.integer) and not isinstance(entry, bool)


def _names(ground: Ground, space: Sequence[int]) -> tuple[str, ...]:
    if ground.image is not None and len(ground.axes) == len(space):
        return ground.axes
    return ("depth", "height", "width")[-len(space) :] if 1 < len(space) < 4 else ("position",)[: len(space)]


def _token_axes(ground: Ground, layer: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Channel axis, rows of one sample, and positions of one sample."""
    rows = max(shape[0] // ground.inputs.samples, 1)
    if len(shape) < 2 or shape[0] != rows * ground.inputs.samples:
        raise ArgumentError(f"reshape= describes tokens, and layer {layer!r} gives an output of shape {tuple(shape)}.")
    given = ground.adapter.channel_axis(ground.original.model, shape, layer=layer)
    channel = len(shape) - 1 if given is None or len(shape) == 3 else given
    return channel, rows, rows * prod(size for axis, size in enumerate(shape) if axis not in (0, channel))


def _by_function(ground: Ground, layer: str, shape: Sequence[int], function: Any) -> Placed:
    """By what the function does with the numbers of positions and channels, and of samples."""
    samples, numbers = ground.inputs.samples, np.arange(prod(shape)).reshape(shape)
    try:
        made = _read_places(ground, function, numbers)
    except FOREIGN as error:
        raise ArgumentError(
            f"reshape= failed on an output of layer {layer!r}, of shape {tuple(shape)} ({type(error).__name__}: "
            f"{error}). It must make (samples, channels, height, width) of it, in either order of axes."
        ) from error
    fault = (
        f"reshape= made {made.shape} of the output of layer {layer!r}, of shape {tuple(shape)}. It must do nothing but "
        f"leave tokens out and move axes: (samples, channels, height, width), or the channels last."
    )
    if made.ndim < 3 or made.shape[0] != samples or made.size > numbers.size or made.min(initial=0) < 0:
        raise ArgumentError(fault)
    if made.max(initial=0) >= numbers.size or len(np.unique(made)) != made.size:
        raise ArgumentError(fault)
    layout = _layout_of(numbers, made)
    if layout is None:
        raise ArgumentError(fault)
    names = tuple(f"token {one}" for one in layout.others)
    return Placed(layout, _names(ground, layout.space), names, "as the function reshape= says")


def _read_places(ground: Ground, function: Callable[[Any], Any], numbers: np.ndarray) -> np.ndarray:
    """What a function of tensors, or of arrays, makes of whole numbers."""
    adapter, model = ground.adapter, ground.original.model
    base = 128  # whole numbers of which every floating point type holds all

    def read(ask: Callable[[np.ndarray], Any]) -> np.ndarray:
        found, scale, left = np.zeros(1, np.int64), 1, numbers
        while scale <= numbers.max(initial=0):
            digits = np.asarray(ask((left % base).astype(np.float32)), np.float64)
            found = found + scale * np.rint(digits).astype(np.int64)
            left, scale = left // base, scale * base
        return np.asarray(found)

    try:
        return read(lambda digits: adapter.to_numpy(function(adapter.tensor(digits, model))))
    except FOREIGN:
        return read(function)


def _layout_of(numbers: np.ndarray, made: np.ndarray) -> Layout | None:
    """Which layout brings numbered values of a layer to their places; None if it is more than a layout."""
    shape, rows = numbers.shape, len(numbers) // len(made)
    for channel in (len(shape) - 1, *range(1, len(shape) - 1)):
        counted = Layout((), (), channel, rows).positions(numbers)
        position = np.broadcast_to(np.arange(counted.shape[1])[None, :, None], counted.shape)
        table = np.empty(numbers.size, np.int64)
        table[counted.ravel()] = position.ravel()
        for axis in (1, made.ndim - 1):
            places = np.moveaxis(table[made], axis, -1)
            if made.shape[axis] == shape[channel] and (places == places[:1, ..., :1]).all():
                order = tuple(int(one) for one in places[0, ..., 0].ravel())
                others = tuple(one for one in range(counted.shape[1]) if one not in set(order))
                return Layout(places.shape[1:-1], order, channel, rows, others)
    return None


# what is found


def _find(ground: Ground, layer: str, shape: Sequence[int], *, thorough: bool) -> Placed:
    rank, samples = len(shape), ground.inputs.samples
    if ground.image is None:
        return Placed(None)
    if rank < 3 or shape[0] % samples:
        what = "which have no axis of tokens" if rank < 3 else f"whose first axis does not hold the {samples} samples"
        return Placed(None, found=f"layer {layer!r} gives values of shape {tuple(shape)}, {what}")
    rows = shape[0] // samples
    if rows == 1 and rank == len(ground.space) + 2:
        return _find_channels(ground, layer, shape)
    given = ground.adapter.channel_axis(ground.original.model, shape, layer=layer)
    for channel in dict.fromkeys((rank - 1, given or rank - 1)):
        search = _Search(ground, layer, channel, rows, rows * prod(shape[1:]) // shape[channel])
        if (placed := search.find(thorough=thorough)) is not None:
            return placed
    return Placed(
        None,
        found=f"layer {layer!r} gives an output of shape {tuple(shape)}, of which no grid over the image of "
        f"{' x '.join(map(str, ground.sizes))} could be confirmed by moving its patches",
    )


def _find_channels(ground: Ground, layer: str, shape: Sequence[int]) -> Placed:
    """Of a map with as many axes as the image: which of them holds the channels, where the framework cannot tell."""
    adapter, model = ground.adapter, ground.original.model
    given = adapter.channel_axis(model, shape, layer=layer)
    if given is None or adapter.is_certain(model, shape, layer):
        return Placed(None, ground.axes, found="")
    # What the framework takes for the channels stands, unless the image moves the map along other axes alone.
    for channel in dict.fromkeys((given, len(shape) - 1, 1)):
        space = tuple(size for axis, size in enumerate(shape) if axis not in (0, channel))
        layout = Layout(space, tuple(range(prod(space))), channel)
        if prod(space) > 1 and _moves(ground, layer, layout):
            return Placed(layout, ground.axes, found="confirmed: the map moves with patches of the image")
    return Placed(None, ground.axes)


def moves_along(ground: Ground, layer: str) -> bool:
    """Whether a layer's output with as many axes as the image moves with it, its channels where they are said to be."""
    shape = ground.activations[layer].shape
    channel = ground.adapter.channel_axis(ground.original.model, shape, layer=layer)
    space = tuple(size for axis, size in enumerate(shape) if axis not in (0, channel))
    return channel is not None and _moves(ground, layer, Layout(space, tuple(range(prod(space))), channel))


def is_turned(ground: Ground, layer: str) -> bool:
    """Whether a layer's map moves with the image along axes that stand in another order than those of the image."""
    if ground.image is None or not ground.by_sample or layer not in ground.activations:
        return False
    shape = ground.activations[layer].shape
    channel = ground.adapter.channel_axis(ground.original.model, shape, layer=layer)
    if channel is None or len(shape) != len(ground.space) + 2:
        return False
    places = np.arange(prod(shape[1:]) // shape[channel]).reshape(_positions_shape(shape, channel)[1:])
    own, *others = (
        Layout(turned.shape, _ints(turned.ravel()), channel)
        for turned in (places.transpose(order) for order in permutations(range(places.ndim)))
    )
    return not _moves(ground, layer, own) and any(_moves(ground, layer, other) for other in others)


def _moves(ground: Ground, layer: str, layout: Layout) -> bool:
    """Whether patches in nine parts of the image move the map there most."""
    grid = tuple(min(size, 3) for size in layout.space)
    masks = [_patch(ground.sizes, grid, place) for place in np.ndindex(grid)]
    answers = _norms(ground.answers([layer], masks)[layer], layout)[:, list(layout.order)]
    near = 0
    for place, answer in zip(np.ndindex(grid), answers / np.maximum(answers.mean(0), 1e-300), strict=True):
        best = np.unravel_index(int(answer.argmax()), layout.space)
        apart = [
            abs((at + 0.5) / size - (wanted + 0.5) / parts)
            for at, size, wanted, parts in zip(best, layout.space, place, grid, strict=True)
        ]
        near += max(apart) <= 0.25
    return near >= HELD * len(masks) and len(masks) > 1


@dataclass(frozen=True, eq=False)
class _Search:
    """The grid of one layer, with its channels on one axis."""

    ground: Ground
    layer: str
    channel: int
    rows: int
    count: int  # positions of one sample

    def find(self, *, thorough: bool) -> Placed | None:
        """The first of the grids that the image may have which is confirmed."""
        for number, space in enumerate(grids(self.ground.sizes, self.count)):
            found = self.at_once(self.layer, space) or self.one_by_one(space, last=thorough and number < _READ_OFF)
            if found is not None:
                layout, how = found
                names = tuple(f"token {position}" for position in layout.others)
                return Placed(layout, self.ground.axes, names, f"confirmed: {how}")
        return None

    def at_once(self, layer: str, space: tuple[int, ...]) -> tuple[Layout, str] | None:
        """The place of every token, where each is moved by one patch alone."""
        places = prod(space)
        numbers = np.arange(1, places + 1).reshape(space)
        bits = range(places.bit_length())
        masks = [sum_of_patches(self.ground.sizes, (numbers >> bit) & 1) for bit in bits]
        answers = self.norms(layer, masks)
        is_moved = (answers > 0) & (answers > _MOVED * answers.max(1, keepdims=True))
        codes = (is_moved.astype(int) << np.array(bits)[:, None]).sum(0)
        tokens, others = np.flatnonzero(codes), np.flatnonzero(codes == 0)
        if sorted(codes[tokens]) != list(range(1, places + 1)):
            return None
        order = tokens[np.argsort(codes[tokens])]
        layout = Layout(space, _ints(order), self.channel, self.rows, _ints(others))
        return layout, "each patch of the image moves one of the tokens alone"

    def one_by_one(self, space: tuple[int, ...], *, last: bool) -> tuple[Layout, str] | None:
        """An order that holds where tokens have mixed; as the last resort one that is read off."""
        places = prod(space)
        if places < 4:
            return None
        chosen = _choose(space, PLACES)
        answers = self.norms(self.layer, [_patch(self.ground.sizes, space, place) for place in chosen])
        at = [int(np.ravel_multi_index(place, space)) for place in chosen]
        for layout, how in self.orders(space):
            if holds(answers[:, list(layout.order)], np.array(at)):
                share = f"{own_share(answers[:, list(layout.order)], np.array(at)):.0%} of the moved patches"
                return layout, f"{how}, and of all tokens its own answers most to {share}"
        return self.read_off(space) if last else None

    def orders(self, space: tuple[int, ...]) -> Iterator[tuple[Layout, str]]:
        """Those that a layer in front has, whose output has the same positions; then row by row."""
        activations = self.ground.activations
        if self.layer in activations:
            mine = _positions_shape(activations[self.layer].shape, self.channel)
            for name, value in activations.items():
                if name == self.layer:
                    break
                if value.ndim > self.channel and _positions_shape(value.shape, self.channel) == mine:
                    found = self.at_once(name, space)
                    if found is not None:
                        yield found[0], f"the order of the tokens is that of layer {name!r}, where each has its patch"
                        break
        spare = self.count - prod(space)
        for front in dict.fromkeys((spare, 0)):
            order = tuple(range(front, front + prod(space)))
            others = (*range(front), *range(front + prod(space), self.count))
            yield Layout(space, order, self.channel, self.rows, others), "tokens stand row by row"

    def read_off(self, space: tuple[int, ...]) -> tuple[Layout, str] | None:
        """The order in which each patch and one token answer to each other most, if all do."""
        if not 4 <= prod(space) <= MOST_PLACES:
            return None
        masks = [_patch(self.ground.sizes, space, place) for place in np.ndindex(space)]
        answers = standing_out(self.norms(self.layer, masks))
        order = answers.argmax(1)
        if len(set(order)) < len(order) or (answers.argmax(0)[order] != np.arange(len(order))).any():
            return None
        others = [position for position in range(self.count) if position not in set(order)]
        layout = Layout(space, _ints(order), self.channel, self.rows, _ints(others))
        return layout, "each patch moves another token most, and each of these tokens is moved most by its patch"

    def norms(self, layer: str, masks: Sequence[np.ndarray]) -> np.ndarray:
        """By how much each position moves, `(masks, positions)`."""
        layout = Layout((), (), self.channel, self.rows)
        return _norms(self.ground.answers([layer], masks)[layer], layout)


def grids(sizes: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Grids of at most that many places that an image of those sizes may be cut into, the likeliest first."""
    found: list[tuple[tuple[bool, float, int], tuple[int, ...]]] = []
    for places in range(count, max(count - MOST_OTHERS, 1) - 1, -1):
        for space in _factors(places, len(sizes)):
            if any(size > whole for size, whole in zip(space, sizes, strict=True)):
                continue
            scales = [log(whole / size) for size, whole in zip(space, sizes, strict=True)]
            stretch = max(scales[-2:]) - min(scales[-2:])  # frames of a film are cut in their own way
            if stretch <= _STRETCH:
                uneven = any(whole % size for size, whole in zip(space, sizes, strict=True))
                found.append(((uneven, round(stretch, 6), count - places), space))
    even = [space for (is_uneven, *_), space in sorted(found) if not is_uneven]
    return (even or [space for _, space in sorted(found)])[:_CANDIDATES]


def _factors(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            yield from ((first, *rest) for rest in _factors(number // first, parts - 1))


def standing_out(answers: np.ndarray) -> np.ndarray:
    """Answers `(patches, tokens)`, each relative to what its token answers to all patches."""
    return np.asarray(answers / np.maximum(answers.mean(0, keepdims=True), 1e-300))


def own_share(answers: np.ndarray, own: np.ndarray) -> float:
    """Share of the patches to which their own token (its number for each) answers most."""
    return float((standing_out(answers).argmax(1) == own).mean())


def holds(answers: np.ndarray, own: np.ndarray) -> bool:
    """Whether patches move their own tokens most, and none of them clearly another one.

    Args:
        answers: Of shape `(patches, tokens)`.
        own: For each patch the number of its token.
    """
    if not np.isfinite(answers).all() or own_share(answers, own) < HELD:
        return False
    relative = standing_out(answers)
    best = relative.argmax(1)
    mutual = relative.argmax(0)[best] == np.arange(len(own))
    rows = np.arange(len(own))
    clearly = relative[rows, best] > _MARGIN * relative[rows, own]
    return not (mutual & (best != own) & clearly).any()


# moving the image


def _other_values(sample: np.ndarray) -> np.ndarray:
    """Other values for a sample, of the same scale."""
    if sample.dtype.kind != "f":
        return np.asarray(np.iinfo(sample.dtype).max - sample if sample.dtype.kind in "iu" else ~sample)
    scale = float(np.std(sample.astype(np.float64)))
    noise = np.random.default_rng(0).standard_normal(sample.shape)
    return np.asarray(sample + (scale or 1.0) * (noise + np.sign(noise))).astype(sample.dtype)


def _patch(sizes: Sequence[int], space: Sequence[int], place: Sequence[int]) -> np.ndarray:
    """The inner part of one patch of an image that is cut into a grid."""
    mask = np.ones(tuple(sizes), bool)
    for axis, (whole, parts, at) in enumerate(zip(sizes, space, place, strict=True)):
        start, end = whole * at / parts, whole * (at + 1) / parts
        inner = np.arange(whole) + 0.5
        quarter = (end - start) / 4
        within = (inner > start + quarter) & (inner < end - quarter)
        if not within.any():
            within[min(int((start + end) / 2), whole - 1)] = True
        mask &= within.reshape([-1 if axis == other else 1 for other in range(len(sizes))])
    return mask


def sum_of_patches(sizes: Sequence[int], chosen: np.ndarray) -> np.ndarray:
    """The inner parts of all patches that an array over the grid chooses."""
    mask = np.zeros(tuple(sizes), bool)
    for place in np.argwhere(chosen):
        mask |= _patch(sizes, chosen.shape, [int(at) for at in place])
    return mask


def _choose(space: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """Some places of a grid, its corners among them."""
    every = list(np.ndindex(*space))
    if len(every) <= most:
        return every
    corners = [place for place in every if all(at in (0, size - 1) for at, size in zip(place, space, strict=True))]
    rest = [place for place in every if place not in corners]
    picked = np.random.default_rng(0).choice(len(rest), most - len(corners), replace=False)
    return [*corners, *(rest[i] for i in sorted(picked))]


def _norms(differences: np.ndarray, layout: Layout) -> np.ndarray:
    """Differences `(masks, rows, …)` as norms over the channels, `(masks, positions)`."""
    flat = differences.reshape(-1, *differences.shape[2:])
    return np.asarray(np.linalg.norm(layout.positions(flat), axis=-1))


def _positions_shape(shape: Sequence[int], channel: int) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(shape) if axis != channel)


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
