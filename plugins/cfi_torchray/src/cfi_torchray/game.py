"""The pointing game (Zhang et al. 2016, section 4.1): does the highest point of a map lie on the object?

It is played with attributions of any toolset and framework, or with plain arrays; it needs neither torch nor torchray.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core import Attribution
from cfi_core.errors import ArgumentError

if TYPE_CHECKING:
    from xarray import Dataset

TOLERANCE = 15
"""Pixels; what the paper takes for photographs of about 500 pixels."""

Explanation = Attribution | np.ndarray | str | Mapping[str, Any] | Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Pointing:
    """How often the highest point of each map was a hit.

    Attributes:
        explanations: Names of those that played.
        classes: Labels, in order.
        trials: How many samples have each label, `(classes,)`.
        rates: Hits among the trials of each explanation and class, `(explanations, classes)`, 0…1. Where several
            points of a map are highest, the part of them that hit counts.
        chance: The part of each picture that would have been a hit, averaged over each class, `(classes,)`: the hit
            rate of a point drawn at random.
        centre: The hit rate of the centre of the picture, `(classes,)`.
        points: Row and column of a highest point of each map (the first one), `(explanations, samples, 2)`.
        tolerance: In pixels.
    """

    explanations: tuple[str, ...]
    classes: tuple[Any, ...]
    trials: np.ndarray
    rates: np.ndarray
    chance: np.ndarray
    centre: np.ndarray
    points: np.ndarray
    tolerance: float

    @property
    def mean(self) -> dict[str, float]:
        """The mean over classes, for each explanation, and for `"chance"` and `"centre"`."""
        rows = {**dict(zip(self.explanations, self.rates, strict=True)), "chance": self.chance, "centre": self.centre}
        return {name: float(rates.mean()) for name, rates in rows.items()}

    def to_xarray(self) -> Dataset:
        """Rates as a `xarray.Dataset` with the axes explanation and class.

        Raises:
            ImportError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("to_xarray needs xarray: pip install 'cfi-core[xarray]'") from error
        return xarray.Dataset(
            {
                "rate": (("explanation", "class"), self.rates),
                "chance": (("class",), self.chance),
                "centre": (("class",), self.centre),
                "trials": (("class",), self.trials),
            },
            coords={"explanation": list(self.explanations), "class": list(self.classes)},
            attrs={"tolerance": self.tolerance},
        )

    def __str__(self) -> str:
        width = max(map(len, (*self.explanations, "chance", "centre")))
        rows = [f"{name:<{width}}  {mean:6.1%}" for name, mean in self.mean.items()]
        samples = int(self.trials.sum())
        head = f"pointing game, {samples} maps of {len(self.classes)} classes, tolerance {self.tolerance:g} px"
        return "\n".join([head, *rows])


def pointing_game(
    explanations: Explanation | Iterable[str] | Mapping[str, Explanation],
    regions: Sequence[Any] | np.ndarray,
    labels: Sequence[Hashable] | np.ndarray,
    *,
    model: Any = None,
    inputs: Any = None,
    size: tuple[int, int] | None = None,
    tolerance: float = TOLERANCE,
    batch_size: int = 32,
    seed: int = 0,
) -> Pointing:
    """Plays the pointing game.

    A map is reduced to `(samples, height, width)`: where it has channels, the largest magnitude among them counts, and
    where it is smaller than the picture, it is stretched bilinearly. Its highest point is a hit if some pixel of the
    object is not further away than the tolerance. Rates are taken of each class, then averaged over classes.

    Args:
        explanations: By name, or one, or a list of method keys. Each is an `Attribution`, an array
            `(samples, height, width)` (or with channels in front: `(samples, channels, height, width)`), a function
            `f(inputs, labels)` that gives one of these for a batch, a method key, or a mapping of arguments of
            `cfi.attribute` (such as `{"method_key": "grad_cam", "toolset": "captum", "layer": "conv5"}`), which may
            hold a `"model"`, `"inputs"` and a `"target"` of their own.
        regions: Where the object is, for each sample: a mask `(height, width)`, or a list of boxes
            `(top, left, bottom, right)` in pixels, the last two not included.
        labels: Class of each sample; also the target of the methods that are run here.
        model: What is explained by the methods that are run here.
        inputs: Its inputs, an array of all samples.
        size: Height and width of the pictures; needed where all regions are boxes.
        tolerance: In pixels of the regions; 15 is the paper's, for photographs of about 500 pixels.
        batch_size: How many samples are explained at a time.
        seed: For the methods that draw.

    Returns:
        Hit rates, with those of chance and of the centre of the picture.

    Raises:
        ArgumentError: The numbers of samples differ, a region is empty or outside, or a map cannot be read.
    """
    labels = list(labels)
    reach = _reaches(regions, size, tolerance)
    if len(labels) != len(reach) or not labels:
        raise ArgumentError(f"{len(labels)} labels for {len(reach)} regions: give one of each for every sample.")
    named = _named(explanations)
    played = []
    for name, explanation in named.items():
        maps = _maps(name, explanation, labels, model, inputs, batch_size, seed)
        if len(maps) != len(labels):
            raise ArgumentError(f"{name!r} gives {len(maps)} maps for {len(labels)} labels.")
        played.append([_point(name, values, hit) for values, hit in zip(maps, reach, strict=True)])
    return _count(tuple(named), played, labels, reach, tolerance)


def _count(
    names: tuple[str, ...],
    played: Sequence[Sequence[tuple[float, tuple[int, int]]]],
    labels: Sequence[Hashable],
    reach: Sequence[np.ndarray],
    tolerance: float,
) -> Pointing:
    """The rates of each class, of hits and points by explanation and sample."""
    classes = tuple(dict.fromkeys(sorted(labels, key=_sortable)))
    of_class = np.array([[label == one for label in labels] for one in classes])
    trials = of_class.sum(axis=1)
    hits = np.array([[part for part, _ in each] for each in played])
    chance = np.array([hit.mean() for hit in reach])
    centre = np.array([_at_centre(hit) for hit in reach])
    return Pointing(
        explanations=names,
        classes=classes,
        trials=trials,
        rates=hits @ of_class.T / trials,
        chance=of_class @ chance / trials,
        centre=of_class @ centre / trials,
        points=np.array([[point for _, point in each] for each in played]),
        tolerance=tolerance,
    )


def _named(explanations: Any) -> dict[str, Any]:
    if isinstance(explanations, str):
        return {explanations: explanations}
    if isinstance(explanations, Attribution):
        return {explanations.method_key: explanations}
    if isinstance(explanations, Mapping) and "method_key" in explanations:
        return {str(explanations["method_key"]): explanations}
    if isinstance(explanations, Mapping):
        return {str(name): explanation for name, explanation in explanations.items()}
    if callable(explanations) or isinstance(explanations, np.ndarray):
        return {getattr(explanations, "__name__", "maps"): explanations}
    found = {str(key): key for key in explanations}
    if not found or not all(isinstance(key, str) for key in found.values()):
        raise ArgumentError("A list of explanations holds method keys; give others by name, as {'name': explanation}.")
    return found


def _sortable(label: Any) -> tuple[str, Any]:
    return (type(label).__name__, label) if isinstance(label, (int, float, str)) else ("", str(label))


# regions


def _reaches(regions: Any, size: tuple[int, int] | None, tolerance: float) -> list[np.ndarray]:
    """For each sample: where a point would be a hit."""
    if tolerance < 0:
        raise ArgumentError(f"tolerance={tolerance!r} is a number of pixels: 0 or more.")
    return [_dilate(_mask(region, size, position), int(tolerance)) for position, region in enumerate(regions)]


def _mask(region: Any, size: tuple[int, int] | None, position: int) -> np.ndarray:
    array = np.asarray(region)
    if array.ndim == 2 and array.shape[1] == 4 and array.dtype != bool and (size is not None or len(array) < 4):
        return _boxes(array, size, position)
    if array.ndim != 2:
        raise ArgumentError(
            f"Region {position} has shape {array.shape}: give a mask (height, width), or a list of boxes (top, left, "
            "bottom, right)."
        )
    if not array.any():
        raise ArgumentError(f"Region {position} is empty, so no point could hit it. Leave the sample out.")
    return array.astype(bool)


def _boxes(boxes: np.ndarray, size: tuple[int, int] | None, position: int) -> np.ndarray:
    if size is None:
        raise ArgumentError("Boxes do not tell how large the picture is: pass size=(height, width).")
    mask = np.zeros(size, bool)
    for top, left, bottom, right in boxes.astype(int):
        if not (0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]):
            raise ArgumentError(
                f"Region {position}: the box {(top, left, bottom, right)} is none inside {size}. Boxes are (top, left, "
                "bottom, right), the last two not included."
            )
        mask[top:bottom, left:right] = True
    return mask


def _dilate(mask: np.ndarray, tolerance: int) -> np.ndarray:
    """Whatever is not further from the mask than that, in Euclidean distance."""
    height = len(mask)
    found = np.zeros_like(mask)
    for down in range(-min(tolerance, height - 1), min(tolerance, height - 1) + 1):
        wide = _widen(mask, isqrt(tolerance**2 - down**2))
        rows = slice(max(down, 0), height + min(down, 0)), slice(max(-down, 0), height + min(-down, 0))
        found[rows[0]] |= wide[rows[1]]
    return found


def _widen(mask: np.ndarray, by: int) -> np.ndarray:
    """Along rows, by a number of pixels on both sides."""
    counts = np.pad(np.cumsum(mask, axis=1), ((0, 0), (1, 0)))
    columns = np.arange(mask.shape[1])
    found: np.ndarray = counts[:, np.minimum(columns + by + 1, mask.shape[1])] > counts[:, np.maximum(columns - by, 0)]
    return found


def _at_centre(hit: np.ndarray) -> float:
    """Of the pixel in the middle; where there are two or four, of their mean."""
    rows, columns = ({(length - 1) // 2, length // 2} for length in hit.shape)
    return float(np.mean([hit[row, column] for row in rows for column in columns]))


# maps


def _maps(
    name: str, explanation: Any, labels: list[Any], model: Any, inputs: Any, batch_size: int, seed: int
) -> np.ndarray:
    """One map for each sample, `(samples, height, width)`."""
    if isinstance(explanation, (Attribution, np.ndarray)):
        return _map(name, explanation)
    how = {"method_key": explanation} if isinstance(explanation, str) else explanation
    given = dict(how) if isinstance(how, Mapping) else {}
    inputs = given.pop("inputs", inputs)
    if inputs is None:
        raise ArgumentError(f"{name!r} explains inputs: pass inputs=….")
    found = []
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        if isinstance(how, Mapping):
            found.append(_map(name, _attribute(name, given, model, inputs[part], labels[part], part, seed)))
        else:
            found.append(_map(name, how(inputs[part], labels[part])))
    return np.concatenate(found)


def _attribute(
    name: str, given: dict[str, Any], model: Any, inputs: Any, labels: list[Any], part: slice, seed: int
) -> Attribution:
    import cfi_core as cfi  # it loads the plugins, of which this is one

    target = given.get("target", labels)
    target = target[part] if target is not labels and isinstance(target, (list, np.ndarray)) else target
    made = cfi.attribute(**{"model": model, "seed": seed, **given, "inputs": inputs, "target": target})
    if not isinstance(made, Attribution):
        raise ArgumentError(f"{name!r} explains a layer: give it one, {{'method_key': …, 'layer': …}}.")
    return made


def _map(name: str, explanation: Any) -> np.ndarray:
    """An explanation without its channels."""
    values, channel = explanation, None
    if isinstance(explanation, Attribution):
        if isinstance(explanation.values, tuple):
            raise ArgumentError(f"{name!r} has a map for each of several inputs or layers. Give the values of one.")
        values, dims = explanation.values, tuple(explanation.dims)
        channel = dims.index("channel") if "channel" in dims else None
    values = np.asarray(values)
    if not isinstance(explanation, Attribution) and values.ndim == 4:
        channel = 1
    if channel is not None:
        values = np.abs(values).max(axis=channel)
    if values.ndim != 3:
        raise ArgumentError(
            f"{name!r} gives values of shape {values.shape}: the game needs maps (samples, height, width), or with "
            "channels."
        )
    return values


def _point(name: str, values: np.ndarray, hit: np.ndarray) -> tuple[float, tuple[int, int]]:
    """The part of the highest points that hit, and the first of them."""
    if not np.isfinite(values).all():
        raise ArgumentError(f"{name!r} gives NaN or infinite values, whose highest point is none.")
    stretched = _stretch(values.astype(np.float64), hit.shape)
    highest = stretched == stretched.max()
    row, column = np.unravel_index(int(highest.argmax()), hit.shape)
    return float(hit[highest].mean()), (int(row), int(column))


def _stretch(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Bilinearly, pixels being squares (as torch does it with `align_corners=False`)."""
    for axis, length in enumerate(size):
        if values.shape[axis] == length:
            continue
        at = np.clip((np.arange(length) + 0.5) * values.shape[axis] / length - 0.5, 0, values.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        part = (at - low).reshape([-1 if one == axis else 1 for one in range(2)])
        values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
    return values
