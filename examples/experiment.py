"""What the experiments share: their command line, tables, numbers on disk, and panels with maps."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

QUICK = "CFI_QUICK"
"""Environment variable: notebooks take the quick way if it is set."""


@dataclass(frozen=True)
class Options:
    """What the command line says: where results go, and whether a few seconds have to do."""

    output: Path
    quick: bool


def options(about: str, arguments: Sequence[str] | None = None) -> Options:
    """Reads `--output FOLDER` and `--quick`, and keeps the output readable."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("experiments-output"), help="folder for what is written")
    parser.add_argument("--quick", action="store_true", help="one small model and few samples: seconds, other numbers")
    chosen = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message="CUDA initialization", category=UserWarning)
    chosen.output.mkdir(parents=True, exist_ok=True)
    return Options(chosen.output, chosen.quick)


def is_quick() -> bool:
    """Whether a notebook has to be quick."""
    return bool(os.environ.get(QUICK))


def say(text: str) -> None:
    """Prints at once, also into a pipe."""
    print(text, flush=True)


class Clock:
    """Says what is done, and after how many seconds."""

    def __init__(self) -> None:
        self.start = perf_counter()

    def __call__(self, text: str) -> None:
        print(f"  {perf_counter() - self.start:5.0f} s  {text}", file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(values: Any) -> str:
    """Mean and standard deviation of shares: `81.2 ± 3.4 %`, or one share alone."""
    values = 100 * np.atleast_1d(np.asarray(values, float))
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread} %"


def write(folder: Path, name: str, numbers: Mapping[str, Any], page: str) -> None:
    """Writes `NAME.json` and `NAME.md`, prints the latter."""
    (folder / f"{name}.json").write_text(json.dumps(numbers, indent=1, default=_plain) + "\n")
    (folder / f"{name}.md").write_text(page + "\n")
    say(page)
    say(f"\nwritten: {folder / name}.json, {name}.md and pictures")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def maps_of(found: Any) -> np.ndarray:
    """The values of an attribution as (sample, height, width, channel), whatever the order of its axes."""
    values, dims = np.asarray(found.values), list(found.dims)
    if "channel" not in dims:
        values, dims = values[..., None], [*dims, "channel"]
    return values.transpose([dims.index(name) for name in ("sample", "height", "width", "channel")])


def grid(
    rows: int, columns: int, size: float = 1.35, above: float = 0.34, left: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of square panels with room for two lines above each, and for what stands left of them."""
    figure = Figure((left + columns * (size + 0.12) + 0.1, rows * (size + above) + 0.08), dpi=110)
    width, height = figure.get_size_inches()
    axes = [
        [
            figure.add_axes(
                (
                    (left + 0.11 + column * (size + 0.12)) / width,
                    1 - (row + 1) * (size + above) / height,
                    size / width,
                    size / height,
                )
            )
            for column in range(columns)
        ]
        for row in range(rows)
    ]
    for axis in chain.from_iterable(axes):
        axis.set_axis_off()
    return figure, axes


def show_picture(axis: Axes, picture: np.ndarray, title: str, box: Sequence[int] | None = None) -> None:
    """A picture (height, width, 1 or 3) from 0 to 1."""
    axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _frame(axis, title, box, picture.shape)


def show_map(axis: Axes, values: np.ndarray, title: str, box: Sequence[int] | None = None) -> None:
    """A map (height, width): red speaks for, blue against; values without a sign from white to dark."""
    bound = float(np.quantile(np.abs(values), 0.998)) or float(np.abs(values).max()) or 1.0
    signed = values.min() < 0
    colours = {"cmap": "RdBu_r", "vmin": -bound} if signed else {"cmap": "Reds", "vmin": 0}
    axis.imshow(values, vmax=bound, interpolation="nearest", **colours)
    _frame(axis, title, box, values.shape)


def _frame(axis: Axes, title: str, box: Sequence[int] | None, shape: Sequence[int]) -> None:
    axis.set_axis_on()
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(linewidth=0.5, color="0.6")
    axis.set_title(title, fontsize=7, pad=3, linespacing=1.15)
    if box is not None:
        top, left, bottom, right = box
        axis.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor="#1a9850", linewidth=1)
        )


def show(figure: Figure) -> Any:
    """The figure as a notebook shows it at the end of a cell, in few colours, so that the notebook stays small."""
    from IPython.display import Image
    from PIL import Image as Picture

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Picture.open(drawn).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    return Image(small.getvalue())
