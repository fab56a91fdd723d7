"""The pictures behind maps: the originals, where the user gives them, or else what the model got, as far as it is one.

What a model gets was often prepared for it: its mean taken off, its colours in another order. Values that go from black
to white as pictures do (from 0, or from −1 to 1) are shown in colours, all others in grey, and it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.lib.stride_tricks import sliding_window_view

from cfi_core import Attribution
from cfi_core.adapters import as_array
from cfi_core.errors import CFIError, PlotError
from cfi_core.registry import registry
from cfi_matplotlib.heading import is_of_inputs
from cfi_matplotlib.scales import NOT_FINITE

IMAGE = ("height", "width")
_COLOURS = (1, 3, 4)
_SLACK = 0.05  # what resizing may add beyond black and white
_LARGEST = 1200  # pixels of a side; no page shows more
_AGREEMENT = 0.7  # the least correlation of a picture with what was made of it


@dataclass(frozen=True, eq=False)
class Picture:
    """What lies behind a map.

    Attributes:
        pixels: Height, width, and red, green and blue between 0 and 1.
        label: What it is.
        size: Height and width of what the model got.
        notes: What the reader must know of it.
        warning: What must not be overlooked.
    """

    pixels: np.ndarray
    label: str
    size: tuple[int, ...]
    notes: tuple[str, ...] = ()
    warning: str = ""

    @property
    def grey(self) -> np.ndarray:
        """Its lightness, height and width."""
        grey: np.ndarray = self.pixels @ (0.299, 0.587, 0.114)
        return grey


def pictures_of(
    attribution: Attribution, part: int, shape: Sequence[int], samples: Sequence[int], images: Any
) -> list[Picture | None]:
    """The picture behind the maps of each of the samples.

    Args:
        attribution: With the inputs of the model.
        part: Which of its arrays.
        shape: Number of samples, height and width of the maps.
        samples: Positions of those that are drawn.
        images: What the user gave; None takes the inputs.

    Raises:
        PlotError: The images are none, are not one for each sample, or of another shape than what the model got.
    """
    place = _behind(attribution, part, shape[0])
    inputs = None if place is None else _images_last(attribution.inputs[place], attribution.input_dims[place])
    own = images
    if isinstance(images, Mapping):
        named = list(attribution.values) if isinstance(attribution.values, Mapping) else []
        key = 0 if place is None else place
        own = images.get(key, images.get(named[key]) if key < len(named) else None)
    elif images is not None and place is not None and len(_image_inputs(attribution, shape[0])) > 1:
        raise PlotError("images= of a model with several image inputs: pass a dict, such as {0: images, 1: others}.")
    if own is not None:
        size = tuple(shape[1:]) if inputs is None else inputs.shape[1:3]
        originals = zip(samples, read_images(own, shape[0], size, samples), strict=True)
        return [_original(one, None if inputs is None else inputs[sample], size) for sample, one in originals]
    if inputs is None:
        return [None] * len(samples)
    low, high, has_colours, told = _range(inputs)
    return [_as_given(inputs[sample], low, high, has_colours, told) for sample in samples]


def image_of(attribution: Attribution, part: int, sample: int, count: int) -> np.ndarray | None:
    """The input behind the maps of a sample: height, width and three colours between 0 and 1; None if there is none."""
    (picture,) = pictures_of(attribution, part, (count, 1, 1), [sample], None)
    return None if picture is None else picture.pixels


def way_of_showing(inputs: np.ndarray) -> Callable[[np.ndarray], Picture]:
    """From a part of the inputs (height, width, channels) to a picture, in the range of all of them."""
    low, high, has_colours, told = _range(inputs)
    return partial(_as_given, low=low, high=high, has_colours=has_colours, told=told)


def read_images(images: Any, count: int, size: Sequence[int], samples: Sequence[int]) -> list[np.ndarray]:
    """Pictures of the samples, as height, width and three colours between 0 and 1; of as many pixels as a page shows.

    Args:
        images: One array (or tensor) with a picture for each sample, or a list of arrays or PIL images that may differ
            in size. Colours may come first or last; values are bytes, or numbers up to 1 or up to 255.
        count: How many samples there are.
        size: Height and width of what the model got, whose shape all must have.
        samples: Positions of those that are read.

    Raises:
        PlotError: They are no pictures, not that many, or of another shape.
    """
    listed = isinstance(images, list | tuple)
    arrays = [_array(image) for image in images] if listed else _apart(_array(images), count)
    if len(arrays) != count:
        raise PlotError(f"images= holds {len(arrays)} pictures for {count} samples; pass one for each, in their order.")
    high = images_high(arrays)
    shaped = [_hwc(array, size) for array in arrays]
    return [_colours((_reduced(shaped[sample]) / high).clip(0, 1)) for sample in samples]


def images_high(arrays: Sequence[np.ndarray]) -> float:
    """The value of white in some pictures.

    Raises:
        PlotError: None can be told.
    """
    low, high = min(float(np.min(one)) for one in arrays), max(float(np.max(one)) for one in arrays)
    kinds = {one.dtype for one in arrays}
    over = _SLACK if all(kind.kind == "f" for kind in kinds) else 0.0
    if low >= -over * high and high <= 1 + over and all(kind.kind in "fb" for kind in kinds):
        return 1.0
    if low >= -over * high and high <= (1 + over) * 255 and (high > 2 or kinds == {np.dtype(np.uint8)}):
        return 255.0
    if kinds == {np.dtype(np.uint16)}:
        return 65535.0
    raise PlotError(
        f"images= holds values from {low:.4g} to {high:.4g} ({', '.join(map(str, kinds))}): pass the original "
        f"pictures, as bytes or as numbers between 0 and 1, not what the model gets."
    )


def _array(image: Any) -> np.ndarray:
    if hasattr(image, "convert") and hasattr(image, "mode"):  # of PIL
        plain = image if image.mode in ("1", "L", "RGB", "RGBA", "F", "I;16") else image.convert("RGB")
        return np.asarray(plain)
    try:
        array = as_array(registry(), image, "images=")
    except CFIError as error:
        raise PlotError(f"images= must be arrays, tensors or PIL images: {error}") from error
    if array.dtype.kind not in "fiub" or not array.size:
        raise PlotError(f"images= holds {array.dtype} of shape {array.shape}, which is no picture.")
    return array


def _apart(array: np.ndarray, count: int) -> list[np.ndarray]:
    """One array for each picture."""
    is_batch = array.ndim == 4 or (array.ndim == 3 and len(array) == count > 1)
    return list(array) if is_batch else [array]


def _hwc(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """With its colours last, of the shape that the model's input has."""
    forms = []
    if array.ndim == 2:
        forms = [array[..., None]]
    elif array.ndim == 3:
        forms = [array] if array.shape[-1] in _COLOURS else []
        forms += [np.moveaxis(array, 0, -1)] if array.shape[0] in _COLOURS else []
    if not forms:
        raise PlotError(f"images= holds a picture of shape {array.shape}: pass height, width and 1, 3 or 4 colours.")
    for form in forms:
        if _is_alike(form.shape, size):
            return form
    height, width = forms[0].shape[:2]
    raise PlotError(
        f"images= holds a picture of {height} × {width} pixels, and the model got {size[0]} × {size[1]}: the map "
        f"would not lie where it belongs. Pass what was cut out of the picture for the model, or the picture squeezed "
        f"as it was."
    )


def _is_alike(shape: Sequence[int], size: Sequence[int]) -> bool:
    """Whether height and width are in the same proportion, but for half a pixel of the smaller one."""
    (height, width), (rows, columns) = shape[:2], size
    slack = 0.5 / min(rows, columns, height, width)
    return abs(np.log(height * columns / (width * rows))) <= slack + 1e-9


def _reduced(image: np.ndarray) -> np.ndarray:
    factor = max(image.shape[:2]) / _LARGEST
    return image if factor <= 1 else mean_over(image, [max(1, int(side / factor)) for side in image.shape[:2]])


def _colours(unit: np.ndarray) -> np.ndarray:
    """Red, green and blue; what is transparent on white."""
    if unit.shape[-1] == 4:
        opaque = unit[..., 3:]
        return unit[..., :3] * opaque + (1 - opaque)
    return np.broadcast_to(unit, (*unit.shape[:2], 3))


def _original(pixels: np.ndarray, given: np.ndarray | None, size: tuple[int, ...]) -> Picture:
    """A picture of the user's, compared with what the model got."""
    found = 1.0 if given is None else agreement(pixels, given)
    warning = "" if found >= _AGREEMENT else f"agrees little with the input (correlation {found:.2f})"
    return Picture(pixels, "original", size, warning=warning)


def agreement(pixels: np.ndarray, given: np.ndarray) -> float:
    """The largest correlation, by its size, of a colour of a picture with a channel of what the model got.

    Shifted, scaled, turned round or exchanged colours leave it large; another picture or another part of it do not.
    Details are compared: in the large most photographs are alike. 1 where one of them has none.
    """
    if not np.isfinite(given).all():
        return 1.0
    coarse = [min(side, 48) for side in (*pixels.shape[:2], *given.shape[:2])]
    size = (min(coarse[::2]), min(coarse[1::2]))
    one, other = (_details(mean_over(array, size)).reshape(size[0] * size[1], -1) for array in (pixels, given))
    lengths = np.outer(np.linalg.norm(one, axis=0), np.linalg.norm(other, axis=0))
    if not (lengths > 1e-9).any() or min(size) < 4:
        return 1.0
    return float(np.max(np.abs(one.T @ other)[lengths > 1e-9] / lengths[lengths > 1e-9]))


def _details(image: np.ndarray) -> np.ndarray:
    """What differs from the mean over the five pixels along each side."""
    around = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    means = sliding_window_view(around, (5, 5), axis=(0, 1)).mean(axis=(-2, -1))
    return np.asarray(image - means)


def mean_over(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """An image of fewer pixels, each the mean of those that it covers (about: whole pixels are taken)."""
    for axis, number in enumerate(size):
        edges = np.linspace(0, array.shape[axis], number + 1).round().astype(int)
        sums = np.add.reduceat(array.astype(np.float64), edges[:-1], axis=axis)
        array = sums / np.diff(edges).reshape([-1 if place == axis else 1 for place in range(array.ndim)])
    return array


# What the model got.


def _image_inputs(attribution: Attribution, count: int) -> list[int]:
    """Positions of the inputs that hold one image for each sample."""
    found = []
    for position, (values, dims) in enumerate(zip(attribution.inputs, attribution.input_dims, strict=True)):
        is_image = set(IMAGE) <= set(dims) <= {"sample", "channel", *IMAGE}
        if is_image and "sample" in dims and values.dtype.kind in "fiub" and len(values):
            found += [position] if values.shape[dims.index("sample")] == count else []
    return found


def _behind(attribution: Attribution, part: int, count: int) -> int | None:
    """Which input lies behind the maps of an array."""
    found = _image_inputs(attribution, count)
    if is_of_inputs(attribution) and len(attribution.parts) > 1:
        return part if part in found else None
    return next(iter(found), None)


def _images_last(values: np.ndarray, dims: Sequence[str]) -> np.ndarray:
    """Sample, height, width, channel."""
    order = [dims.index(name) for name in ("sample", *IMAGE, "channel") if name in dims]
    images = values.transpose(order)
    return images[..., None] if images.ndim == 3 else images


def _range(images: np.ndarray) -> tuple[float, float, bool, str]:
    """The values of black and white, whether colours can be told, and what the reader is told of the range."""
    finite = images[np.isfinite(images)] if images.dtype.kind == "f" else images
    if not finite.size:
        return 0.0, 1.0, True, ""
    low, high = float(finite.min()), float(finite.max())
    if images.dtype == np.uint8 or (low >= -_SLACK * high and 64 < high <= 255 * (1 + _SLACK)):
        return 0.0, 255.0, True, ""
    if low >= -_SLACK * high and 0.25 <= high <= 1 + _SLACK:
        return 0.0, 1.0, True, ""
    if low >= 0:
        return 0.0, high or 1.0, True, f"0 to {high:.3g}"
    if low >= -1 - _SLACK and high <= 1 + _SLACK and low < -0.5:
        return -1.0, 1.0, True, "−1 to 1"
    return low, high, False, f"{low:.3g} to {high:.3g}".replace("-", "−")


def _as_given(image: np.ndarray, low: float, high: float, has_colours: bool, told: str) -> Picture:
    """What the model got, in colours where these can be told, else in grey."""
    number, notes, words, size = image.shape[-1], [], ["input"], image.shape[:2]
    image = _reduced(image)
    unit = (image.astype(np.float64) - low) / (high - low or 1.0)
    broken = ~np.isfinite(unit).all(axis=-1)
    unit = np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    if number not in (1, 3):
        words.append(f"mean of {number} channels")
    elif number == 3 and not has_colours:
        words.append("in grey")
        notes.append(
            "inputs as the model gets them, in grey, since they do not tell which colours they are: "
            "images= takes the original pictures"
        )
    if number != 1 and len(words) > 1:
        unit = unit.mean(axis=-1, keepdims=True)
    pixels = np.array(np.broadcast_to(unit, (*unit.shape[:2], 3)))
    pixels[broken] = to_rgb(NOT_FINITE)
    label = ", ".join(words) + (f" ({told})" if told else "")
    warning = f"{int(broken.sum())} pixels of the input are not finite" if broken.any() else ""
    return Picture(pixels, label, size, tuple(notes), warning)
