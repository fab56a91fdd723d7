"""Which layer of a translated model is which layer of the original.

Exporters rename, split and merge layers, so names are no proof. A layer of the translated model counts as
the original's only if both give the same activation, axes permuted, on the same samples; names decide
between several that do.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType

import numpy as np

from cfi_core.certificate import Side, relative_difference

ACTIVATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LayerMatch:
    """A layer of the translated model.

    Attributes:
        name: Its name there.
        axes: Permutation from the original's axes to its own; None if they are the same.
        difference: Relative L2 difference of the two activations.
    """

    name: str
    axes: tuple[int, ...] | None
    difference: float


@dataclass(frozen=True)
class LayerMap:
    """For each layer of the original, its match.

    Attributes:
        matches: By the name in the original.
        compared: Names of all layers of the original whose activation could be read.
    """

    matches: Mapping[str, LayerMatch]
    compared: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Layers of the original that the translated model does not have."""
        return tuple(name for name in self.compared if name not in self.matches)

    def __getitem__(self, name: str) -> str:
        """Name of the layer in the translated model."""
        return self.matches[name].name

    def __contains__(self, name: object) -> bool:
        return name in self.matches

    def __iter__(self) -> Iterator[str]:
        return iter(self.matches)

    def __len__(self) -> int:
        return len(self.matches)

    def __str__(self) -> str:
        width = max(map(len, self.compared), default=0)
        rows = [f"{name:<{width}}  {self.matches[name].name if name in self else '-'}" for name in self.compared]
        return "\n".join(rows)


def map_layers(source: Side, translated: Side, arrays: Sequence[np.ndarray]) -> LayerMap:
    """Compares the activations of two models.

    Args:
        source: The original.
        translated: The translated model.
        arrays: Samples in the user's axes; best not all alike.
    """
    originals = source.adapter.activations(source.model, source.tensors(arrays))
    others = translated.adapter.activations(translated.model, translated.tensors(arrays))
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, value in others.items():
        by_shape[_shape_class(value)].append(name)
    order = {name: position for position, name in enumerate(others)}
    matches: dict[str, LayerMatch] = {}
    earliest = 0
    for name, value in originals.items():
        channel = source.adapter.channel_axis(source.model, value.shape, layer=name)
        found = [
            match
            for candidate in by_shape[_shape_class(value)]
            if (match := _match(candidate, value, others[candidate], channel)) is not None
        ]
        if not found:
            continue
        best = max(found, key=lambda match: (_likeness(name, match.name), order[match.name] >= earliest, -order[match.name]))
        matches[name] = best
        earliest = order[best.name]
    return LayerMap(MappingProxyType(matches), tuple(originals))


def _shape_class(value: np.ndarray) -> tuple[int, ...]:
    return (value.shape[0], *sorted(value.shape[1:])) if value.ndim else ()


def _match(name: str, value: np.ndarray, other: np.ndarray, channel: int | None) -> LayerMatch | None:
    if not np.issubdtype(value.dtype, np.floating) or not np.isclose(_norm(value), _norm(other), rtol=1e-2, atol=1e-12):
        return None
    for axes in _orders(value, channel):
        turned = np.transpose(value, axes)
        if turned.shape == other.shape:
            difference = relative_difference([turned], [other])
            if difference <= ACTIVATION_TOLERANCE:
                return LayerMatch(name, None if axes == tuple(range(value.ndim)) else axes, difference)
    return None


def _orders(value: np.ndarray, channel: int | None) -> list[tuple[int, ...]]:
    """Axis orders to try: first unchanged and with the channel axis moved, then all others."""
    rank = value.ndim
    same = tuple(range(rank))
    if rank <= 2:
        return [same]
    orders = [same]
    if channel is not None:
        rest = [axis for axis in same[1:] if axis != channel]
        orders += [(0, channel, *rest), (0, *rest, channel)]
    if rank <= 4:
        orders += [(0, *order) for order in permutations(same[1:])]
    return list(dict.fromkeys(orders))


def _norm(value: np.ndarray) -> float:
    return float(np.linalg.norm(value.astype(np.float64, copy=False).ravel()))


def _likeness(name: str, other: str) -> float:
    """Share of the name's parts that occur in the other name."""
    parts, others = set(_parts(name)), set(_parts(other))
    return len(parts & others) / len(parts | others) if parts else 0.0


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[./:_]+", name.lower()) if part]
