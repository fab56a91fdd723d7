"""Which layer of a translated model is which layer of the original.

Exporters rename, split and merge layers, so names are no proof. A layer of the translated model counts as
the original's only if, on the same samples and with axes permuted, both give the same activation and the
outputs have the same gradient there. (The gradient tells a layer from another one that gives the same values
at a place where the graph has branched.) Names decide between several that agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType

import numpy as np

from cfi_core.certificate import FLOOR_FACTOR, Certificate, Divergence
from cfi_core.display import html_facts, html_table
from cfi_core.distance import Side, relative_difference
from cfi_core.errors import NoGradientError
from cfi_core.framework.axes import Arrays, Permutation, permute, permute_all

ACTIVATION_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-2
DIVERGENCE = 1e-4
_SHOWN = 6  # layers in a repr


@dataclass(frozen=True)
class LayerMatch:
    """A layer of the translated model.

    Attributes:
        name: Its name there.
        axes: Permutation from the original's axes to its own; None if they are the same.
        difference: Relative L2 difference of the two activations.
        gradient_difference: Relative L2 difference of the output's gradients there; None if not measurable.
    """

    name: str
    axes: tuple[int, ...] | None
    difference: float
    gradient_difference: float | None = None

    def _repr_html_(self) -> str:
        apart = {"activations differ by": self.difference, "gradients differ by": self.gradient_difference}
        facts = [(name, None if value is None else f"{value:.1e}") for name, value in apart.items()]
        return html_facts(self.name, [("axes", self.axes), *facts])


@dataclass(frozen=True)
class LayerMap:
    """For each layer of the original, its match.

    Attributes:
        matches: By the name in the original.
        compared: Names of all layers of the original whose activation could be read.
        uncertain: Those without a match whose activation the translated model has, with another gradient there.
    """

    matches: Mapping[str, LayerMatch]
    compared: tuple[str, ...]
    uncertain: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """Largest relative difference of the activations of a layer and its match; None if there is no match."""
        return max((match.difference for match in self.matches.values()), default=None)

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
        names = {name: match.name for name, match in self.matches.items()}
        return "\n".join(f"{name:<{width}}  {names.get(name, '-')}" for name in self.compared)

    def __repr__(self) -> str:
        shown = [f"{name!r} is {match.name!r}" for name, match in list(self.matches.items())[:_SHOWN]]
        more = [f"{len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        return (
            f"<LayerMap {len(self)} of {len(self.compared)} layers found{': ' * bool(shown)}{', '.join(shown + more)}>"
        )

    def _repr_html_(self) -> str:
        rows = []
        for name in self.compared:
            match = self.matches.get(name)
            apart = [None, None] if match is None else [match.difference, match.gradient_difference]
            rows.append([name, match.name if match else "not found", *("" if x is None else f"{x:.1e}" for x in apart)])
        head = ("layer", "in the translated model", "activations differ by", "gradients differ by")
        return html_table(f"{len(self)} of {len(self.compared)} layers found", head, rows)


UNSOUGHT = LayerMap(MappingProxyType({}), ())
"""Of a translation whose layers nobody has asked for yet."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read at the layers of one model, by their names."""

    activations: Mapping[str, np.ndarray]
    gradients: Mapping[str, np.ndarray]  # none where the framework has none, or none were asked for

    def match(self, name: str, other: Reading, counterpart: str, axes: Permutation) -> LayerMatch:
        """A layer of the other model as the match of one of this model, which has its axes in that order."""
        turned = permute(self.activations[name], axes)
        difference, gradient_difference = relative_difference([turned], [other.activations[counterpart]]), None
        if name in self.gradients and counterpart in other.gradients:
            turned = permute(self.gradients[name], axes)
            gradient_difference = relative_difference([turned], [other.gradients[counterpart]])
        return LayerMatch(counterpart, axes, difference, gradient_difference)


def read_layers(side: Side, arrays: Arrays, cotangents: Arrays = (), names: Sequence[str] | None = None) -> Reading:
    """Activations at layers (all, or those named), and gradients if cotangents of the outputs are given.

    Raises:
        NoGradientError: The framework has none.
    """
    turned = permute_all(cotangents, side.output_axes)
    gradients = side.adapter.layer_gradients(side.model, side.tensors(arrays), turned, names) if turned else {}
    return Reading(side.adapter.activations(side.model, side.tensors(arrays), names), gradients)


def find_layers(original: Side, translated: Side, arrays: Arrays, certificate: Certificate) -> LayerMap:
    """Which layer is which; in double precision where rounding moves gradients so far that they do not tell.

    The samples are best not all alike.
    """
    floor, found = certificate.gradient_floor or 0.0, None
    if not certificate.in_double:
        found = map_layers(original, translated, arrays, floor)
        if not found.uncertain or certificate.in_single:
            return found
    # A copy in double precision may refuse to show its layers in any way.
    with suppress(Exception):
        if original.in_double is not None and translated.in_double is not None:
            precise = map_layers(original.in_double, translated.in_double, arrays)
            if found is None or len(precise) > len(found):
                return precise
    return map_layers(original, translated, arrays, floor) if found is None else found


def map_layers(original: Side, translated: Side, arrays: Arrays, rounding_floor: float = 0.0) -> LayerMap:
    """Like `find_layers`, in the precision of the models, whose gradients have that relative rounding error."""
    generator = np.random.default_rng(0)
    cotangents = [generator.standard_normal(output.shape) for output in original.outputs(arrays)]
    try:
        reading, other = (read_layers(side, arrays, cotangents) for side in (original, translated))
    except NoGradientError:
        reading, other = (read_layers(side, arrays) for side in (original, translated))
    norms = {name: _norm(value) for name, value in other.activations.items() if not np.iscomplexobj(value)}
    order = {name: position for position, name in enumerate(other.activations)}
    tolerance = max(GRADIENT_TOLERANCE, FLOOR_FACTOR * rounding_floor)
    matches: dict[str, LayerMatch] = {}
    uncertain: list[str] = []
    last = 0  # where the match before stands
    for name, value in reading.activations.items():
        if not np.issubdtype(value.dtype, np.floating):
            continue
        norm, channel = _norm(value), original.adapter.channel_axis(original.model, value.shape, layer=name)
        near = [one for one, other_norm in norms.items() if abs(other_norm - norm) <= 1e-12 + 1e-2 * norm]
        alike = [match for one in near if (match := _match(name, one, reading, other, channel))]
        found = [match for match in alike if (match.gradient_difference or 0.0) <= tolerance]
        if found:
            best = max(found, key=lambda one: (_likeness(name, one.name), order[one.name] >= last, -order[one.name]))
            matches[name], last = best, order[best.name]
        elif alike:
            uncertain.append(name)
    return LayerMap(MappingProxyType(matches), tuple(reading.activations), tuple(uncertain))


def first_divergence(original: Side, translated: Side, arrays: Arrays) -> Divergence | None:
    """The first layer of the original that has a namesake in the translated model which gives something else.

    A layer that no other is named after proves nothing, and one whose values are found anywhere is right so far.
    """
    activations, others = (read_layers(side, arrays).activations for side in (original, translated))
    namesakes = {_parts(name): name for name in others}
    for name, value in activations.items():
        namesake = namesakes.get(_parts(name))
        if namesake is None or not np.issubdtype(value.dtype, np.floating):
            continue
        channel = original.adapter.channel_axis(original.model, value.shape, layer=name)
        apart = _distance(value, others[namesake], channel)
        if apart > DIVERGENCE and all(_distance(value, other, channel) > DIVERGENCE for other in others.values()):
            return Divergence(name, namesake, apart)
    return None


def _distance(value: np.ndarray, other: np.ndarray, channel: int | None) -> float:
    """Smallest relative difference in any order of axes; infinite if none fits, or for NaN."""
    distances = [difference for _, difference in _differences(value, other, channel)]
    return min((one for one in distances if np.isfinite(one)), default=float("inf"))


def _match(name: str, candidate: str, reading: Reading, other: Reading, channel: int | None) -> LayerMatch | None:
    """The candidate with the first order of axes in which it has the activation; None if there is none."""
    for axes, difference in _differences(reading.activations[name], other.activations[candidate], channel):
        if difference <= ACTIVATION_TOLERANCE:
            return reading.match(name, other, candidate, None if axes == tuple(sorted(axes)) else axes)
    return None


def _differences(value: np.ndarray, other: np.ndarray, channel: int | None) -> Iterator[tuple[tuple[int, ...], float]]:
    """Orders of axes in which an activation has the shape of another one, with the relative difference."""
    for axes in _orders(value, channel):
        turned = np.transpose(value, axes)
        if turned.shape == other.shape:
            yield axes, relative_difference([turned], [other])


def _orders(value: np.ndarray, channel: int | None) -> list[tuple[int, ...]]:
    """Axis orders to try: first unchanged and with the channel axis moved, then all others."""
    same = tuple(range(value.ndim))
    orders = [same]
    if value.ndim > 2 and channel is not None:
        rest = [axis for axis in same[1:] if axis != channel]
        orders += [(0, channel, *rest), (0, *rest, channel)]
    if 2 < value.ndim <= 4:
        orders += [(0, *order) for order in permutations(same[1:])]
    return list(dict.fromkeys(orders))


def _norm(value: np.ndarray) -> float:
    return float(np.linalg.norm(value.astype(np.float64, copy=False).ravel()))


def _likeness(name: str, other: str) -> float:
    """Share of the name's parts that occur in the other name."""
    parts, others = set(_parts(name)), set(_parts(other))
    return len(parts & others) / len(parts | others) if parts else 0.0


def _parts(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^./:_]+", name.lower()))
