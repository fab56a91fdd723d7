"""What goes into a network, stage by stage, on one HTML page."""

from __future__ import annotations

import html
import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave

from cfi_core.adapters import as_array
from cfi_core.errors import InputError
from cfi_core.registry import registry

_COLOURS = (1, 3, 4)
_FORMS = {"HW": 2, "HWC": 3, "CHW": 3, "NHW": 3, "NHWC": 4, "NCHW": 4}
_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Images</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }
section { border-top: 1px solid #ccc; padding: 0.5em 0 1em; }
h2 { margin: 0; font-size: 1.1em; }
h2 time { color: #888; font-weight: normal; font-size: 0.8em; margin-left: 1em; }
p { margin: 0.2em 0; }
p.warning { color: #b00020; font-weight: bold; }
img { image-rendering: pixelated; min-height: 96px; max-height: 256px; margin: 4px 8px 0 0; border: 1px solid #ddd; }
</style>
<h1>Images</h1>
"""


class ImageLog:
    """Appends images of each stage of a pipeline (loading, resizing, augmentation) to one self-contained HTML page.

        log = ImageLog("images.html")
        log("loaded", images)
        log("augmented", augment(images))

    For each stage the page tells shape, type, smallest, largest and mean value, and shows the first images. It can be
    looked at while it grows; another process may append to the same one.
    """

    def __init__(self, path: str | PathLike[str], *, max_images: int = 8) -> None:
        """Nothing is written yet.

        Args:
            path: The page; one that is there already is continued.
            max_images: Most images shown of one stage.
        """
        self.path = Path(path)
        self.max_images = max_images

    def __call__(self, stage: str, images: Any, *, axes: str | None = None) -> None:
        """Appends a stage.

        Args:
            stage: Its name.
            images: An array, a tensor of any installed framework, or a list of images that may differ in size.
            axes: What the axes are: `"HW"`, `"HWC"`, `"CHW"`, `"NHW"`, `"NHWC"` or `"NCHW"` (of each image, where there
                is a list). None tells them by where 1, 3 or 4 colours can be.

        Raises:
            InputError: They are no images, or the axes cannot be told.
        """
        listed = isinstance(images, list | tuple)
        arrays = [as_array(registry(), one, f"image {i}") for i, one in enumerate(images if listed else [images])]
        if not arrays or not all(array.size for array in arrays):
            raise InputError(f"There is no image in {stage!r}. Pass an array with values, or a list of some.")
        known = [_axes(array, axes, single=listed) for array in arrays]
        batches = list(map(_colours_last, arrays, known))
        shown = [image for batch in batches for image in batch][: self.max_images]
        count, facts = sum(map(len, batches)), _Facts.of(arrays)
        low, high, range_ = facts.shown
        pictures = "".join(f'<img src="data:image/png;base64,{_png(image, low, high)}" alt="">' for image in shown)
        first = arrays[0]
        told = [
            f"{len(arrays)} arrays, the first of" if listed and len(arrays) > 1 else "",
            f"shape {' × '.join(map(str, first.shape))} ({known[0]}), {first.dtype};",
            f"min {facts.low:.6g}, max {facts.high:.6g}, mean {facts.mean:.6g};",
            f"black to white is {range_}" + (f"; {len(shown)} of {count} images" if len(shown) < count else ""),
        ]
        time = datetime.now().astimezone().isoformat(" ", "seconds")
        section = (
            f"<section><h2>{html.escape(stage)}<time>{time}</time></h2>\n<p>{' '.join(filter(None, told))}</p>\n"
            + "".join(f'<p class="warning">{html.escape(warning)}</p>\n' for warning in facts.warnings)
            + f"{pictures}</section>\n"
        )
        self._append(section)

    def _append(self, section: str) -> None:
        """In one piece, behind what is there; end tags that HTML leaves optional are left out, so that it can grow."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as page:
            page.write(((_HEAD if page.tell() == 0 else "") + section).encode())


@dataclass(frozen=True)
class _Facts:
    """What the numbers of a stage are.

    Attributes:
        low: Smallest finite value.
        high: Largest finite value.
        mean: Mean of the finite values.
        is_bytes: Whether they are of 8 bits.
        warnings: What must not be overlooked.
    """

    low: float
    high: float
    mean: float
    is_bytes: bool
    warnings: tuple[str, ...]

    @staticmethod
    def of(arrays: Sequence[np.ndarray]) -> _Facts:
        finite = [array[np.isfinite(array)] for array in arrays]
        known = [values for values in finite if values.size] or [np.zeros(1)]
        low, high = min(float(values.min()) for values in known), max(float(values.max()) for values in known)
        size, number = sum(array.size for array in arrays), sum(values.size for values in finite)
        mean = sum(float(values.sum(dtype=np.float64)) for values in known) / max(number, 1)
        warnings = []
        if number < size:
            warnings.append(f"{size - number} of {size} values are NaN or infinite; they are drawn black.")
        elif low == high:
            warnings.append(f"All values are {low:.6g}.")
        return _Facts(low, high, mean, all(array.dtype == np.uint8 for array in arrays), tuple(warnings))

    @property
    def shown(self) -> tuple[float, float, str]:
        """The values that are drawn black and white, and how they are told."""
        if self.is_bytes:
            return 0.0, 255.0, "0 to 255"
        if self.low >= 0 and self.high <= 1:
            return 0.0, 1.0, "0 to 1"
        if self.low >= 0 and self.high <= 255 and self.high > 2:
            return 0.0, 255.0, "0 to 255"
        return self.low, self.high, f"{self.low:.6g} to {self.high:.6g}, which are the smallest and the largest value"


def _axes(array: np.ndarray, axes: str | None, *, single: bool) -> str:
    """What the axes of an array of images, or of a single one, are."""
    if axes is not None:
        if _FORMS.get(axes) != array.ndim:
            raise InputError(
                f"axes={axes!r} are no axes of images of shape {array.shape}; take one of {', '.join(_FORMS)}."
            )
        return axes
    forms = [form for form, rank in _FORMS.items() if rank == array.ndim and not (single and "N" in form)]
    fitting = [form for form in forms if "C" not in form or array.shape[form.index("C")] in _COLOURS]
    if fitting == ["HWC", "NHW"]:  # an image is rarely so narrow
        fitting = ["HWC"]
    if len(fitting) != 1:
        said = "can be told in several ways" if fitting else "cannot be told"
        what = "an image" if single else "images"
        raise InputError(
            f"The axes of {what} of shape {array.shape} {said}: pass axes=, such as "
            f"{' or '.join(map(repr, fitting or forms or _FORMS))}."
        )
    return fitting[0]


def _colours_last(array: np.ndarray, axes: str) -> np.ndarray:
    """The images as (number, height, width, colours)."""
    images = array.transpose([axes.index(name) for name in "NHWC" if name in axes])
    images = images if "N" in axes else images[None]
    images = images if "C" in axes else images[..., None]
    if images.shape[-1] not in _COLOURS:
        raise InputError(f"Images of {images.shape[-1]} colours cannot be shown; pass 1, 3 or 4 of them.")
    return images


def _png(image: np.ndarray, low: float, high: float) -> str:
    unit = (np.nan_to_num(image.astype(np.float64), nan=low, posinf=low, neginf=low) - low) / ((high - low) or 1.0)
    if unit.shape[-1] == 1:
        unit = unit.repeat(3, axis=-1)
    written = io.BytesIO()
    imsave(written, np.round(unit.clip(0, 1) * 255).astype(np.uint8), format="png")
    return b64encode(written.getvalue()).decode()
