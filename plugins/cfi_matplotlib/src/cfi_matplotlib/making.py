"""How a visualized feature came about: a strip of the steps that were kept, and an animation; videos move too."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_core.specs import Kind
from cfi_matplotlib.colors import colormap_of, limit_of
from cfi_matplotlib.heading import heading_of, label_of_sample, wrap
from cfi_matplotlib.letters import dress, shown
from cfi_matplotlib.pictures import IMAGE
from cfi_matplotlib.scales import unit_range
from cfi_matplotlib.selection import choose_samples
from cfi_matplotlib.volumes import draw_plane, films_of, is_volume

_HOLD = 6  # how many frames the result stays


def draw_making(
    attribution: Attribution,
    *,
    samples: Sequence[int] | None = None,
    max_samples: int = 4,
    max_steps: int = 8,
    title: str | None = None,
    panel_size: float = 1.5,
) -> Figure:
    """Draws the steps of a feature visualization that were kept, a row for each sample, with the score at each.

    All images of a sample are stretched to one range, which is that of them all.

    Args:
        attribution: A feature visualization whose `extras` hold `steps`, as tf-keras-vis keeps them with
            `init_args={"keep_steps": 8}`.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        max_steps: Most steps drawn, evenly spaced, the first and the last among them.
        title: Replaces the title, which tells method, toolset, target and route.
        panel_size: Width of one image in inches.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: No steps were kept, or an option does not fit.
    """
    images, numbers, scores = _steps_of(attribution)
    if max_samples < 1 or max_steps < 1 or not panel_size > 0:
        raise PlotError("max_samples and max_steps must be at least 1, panel_size above 0.")
    chosen, notes = choose_samples(samples, max_samples, images.shape[1])
    kept = np.unique(np.linspace(0, len(images) - 1, min(len(images), max_steps)).round().astype(int))
    ratio = images.shape[2] / images.shape[3]
    width = max(len(kept) * panel_size + 0.2, 3.5)
    text = wrap(heading_of(attribution) if title is None else title, width)
    height = len(chosen) * (panel_size * ratio + 0.4) + 0.2 * (text.count("\n") + 2) + 0.25 * bool(notes)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(text, fontsize=10, parse_math=False)
    grid = figure.subplots(len(chosen), len(kept), squeeze=False)
    for row, sample in zip(grid, chosen, strict=True):
        shown = unit_range(images[:, sample])
        for axis, step in zip(row, kept, strict=True):
            axis.imshow(shown[step], interpolation="nearest")
            axis.set_title(_label(numbers, scores, int(step), sample), fontsize=8)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(label_of_sample(attribution, sample, images.shape[1]), fontsize=8, parse_math=False)
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=8, color="0.35", parse_math=False)
    return dress(figure)


def write_gif(
    attribution: Attribution,
    path: Path,
    *,
    samples: Sequence[int] | None = None,
    max_samples: int = 4,
    milliseconds: int = 150,
    title: str | None = None,
    panel_size: float = 2.2,
    dpi: int = 100,
) -> None:
    """Writes an animation: of the steps of a feature visualization, or of a video under its heat maps.

    Its comment is `Attribution.metadata` as JSON (`PIL.Image.open(path).info["comment"]`).

    Args:
        attribution: A feature visualization with steps, as `draw_making` takes it, or a video, as `draw_volume` does.
        path: File to write; an existing file is replaced.
        samples: Positions of the samples, side by side; None takes the first `max_samples`.
        max_samples: Most samples where `samples` is None.
        milliseconds: How long a frame is shown; the last one stays longer.
        title: Replaces the title, which tells method, toolset, target and route.
        panel_size: Width of one image in inches.
        dpi: Pixels of an inch.

    Raises:
        PlotError: Nothing moves, or an option does not fit.
    """
    if milliseconds < 20 or max_samples < 1 or not (panel_size > 0 and dpi > 0):
        raise PlotError("milliseconds must be at least 20, max_samples at least 1, panel_size and dpi above 0.")
    figure, frames = _animate(attribution, samples, max_samples, title, panel_size)
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    pictures = []
    for change in frames:
        change()
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    durations = [milliseconds] * (len(pictures) - 1) + [milliseconds * _HOLD]
    about = json.dumps(attribution.metadata).encode()
    pictures[0].save(path, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, comment=about)


def _animate(
    attribution: Attribution, samples: Sequence[int] | None, most: int, title: str | None, size: float
) -> tuple[Figure, list[Callable[[], None]]]:
    """A figure, and what changes it to each of its frames."""
    if "steps" in attribution.extras:
        return _animate_making(attribution, samples, most, title, size)
    if is_volume(attribution):
        return _animate_film(attribution, samples, most, title, size)
    raise PlotError(_NO_STEPS if _is_visualization(attribution) else _STILL)


def _animate_making(
    attribution: Attribution, samples: Sequence[int] | None, most: int, title: str | None, size: float
) -> tuple[Figure, list[Callable[[], None]]]:
    images, numbers, scores = _steps_of(attribution)
    chosen, _ = choose_samples(samples, most, images.shape[1])
    figure, axes = _stage(attribution, len(chosen), 1, images.shape[2] / images.shape[3], title, size)
    shown = [unit_range(images[:, sample]) for sample in chosen]
    drawn = [axis.imshow(one[0], interpolation="nearest") for axis, one in zip(axes[0], shown, strict=True)]

    def show(step: int) -> Callable[[], None]:
        def change() -> None:
            for axis, picture, one, sample in zip(axes[0], drawn, shown, chosen, strict=True):
                picture.set_data(one[step])
                label = label_of_sample(attribution, sample, images.shape[1])
                told = "\n".join(filter(None, [label, _label(numbers, scores, step, sample)]))
                axis.set_title(told, fontsize=8, parse_math=False)

        return change

    return figure, [show(step) for step in range(len(images))]


def _animate_film(
    attribution: Attribution, samples: Sequence[int] | None, most: int, title: str | None, size: float
) -> tuple[Figure, list[Callable[[], None]]]:
    films, _, _ = films_of(attribution, samples, most, "frames", None)
    frames, height, width = films[0].values.shape if films[0].images is None else films[0].images.shape[:3]
    lines = 1 + (films[0].images is not None)
    figure, axes = _stage(attribution, len(films), lines, height / width, title, size)
    signed = any((film.values < 0).any() for film in films)
    colors = colormap_of("RdBu_r" if signed else "inferno", signed=signed)
    limits = [limit_of(film.values, 2.0)[0] for film in films]

    def show(frame: int) -> Callable[[], None]:
        def change() -> None:
            for column, (film, limit) in enumerate(zip(films, limits, strict=True)):
                for axis in axes[:, column]:
                    axis.clear()
                    axis.set(xticks=[], yticks=[])
                values = film.values[frame * len(film.values) // frames]
                image = film.picture(frame)
                if image is not None:
                    axes[0, column].imshow(image, interpolation="nearest", aspect="auto")
                draw_plane(axes[-1, column], values, image, colors, Normalize(-limit if signed else 0, limit))
                label = " · ".join(filter(None, [film.label, f"frame {frame}"]))
                axes[0, column].set_title(label, fontsize=8, parse_math=False)

        return change

    return figure, [show(frame) for frame in range(frames)]


def _stage(
    attribution: Attribution, columns: int, lines: int, ratio: float, title: str | None, size: float
) -> tuple[Figure, Any]:
    """A figure whose parts have their places, so that nothing jumps from frame to frame."""
    width = max(columns * (size + 0.1) + 0.1, 3.2)
    text = wrap(heading_of(attribution) if title is None else title, width - 0.2, points=9)
    above = 0.17 * (text.count("\n") + 1) + 0.5
    height = lines * (size * ratio + 0.06) + above + 0.08
    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.05 / height, shown(text), ha="center", va="top", fontsize=9, parse_math=False)
    axes = figure.subplots(lines, columns, squeeze=False)
    figure.subplots_adjust(0.02, 0.06 / height, 0.98, 1 - above / height, 0.04, 0.04)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


_NO_STEPS = (
    "No steps of the making were kept. Pass init_args={'keep_steps': 20} to visualize_features, which keeps so many "
    "images on the way in extras['steps'] (tf-keras-vis)."
)
_STILL = "Nothing moves in this attribution: feature visualizations with steps and videos can be animated; save a .png."


def _is_visualization(attribution: Attribution) -> bool:
    return attribution.provenance.get("kind") == Kind.FEATURE_VISUALIZATION


def _steps_of(attribution: Attribution) -> tuple[np.ndarray, list[int], np.ndarray | None]:
    """The images that were kept (step, sample, height, width and three colours), their numbers and scores."""
    steps = attribution.extras.get("steps")
    if steps is None:
        raise PlotError(_NO_STEPS if _is_visualization(attribution) else _STILL)
    (_, dims), *others = attribution.parts
    if others or not {"sample", *IMAGE} <= set(dims) <= {"sample", "channel", *IMAGE}:
        raise PlotError("The making can be drawn of one input that is an image.")
    order = [dims.index(name) + 1 for name in ("sample", *IMAGE, "channel") if name in dims]
    images = np.asarray(steps, np.float64).transpose(0, *order)
    images = images if images.ndim == 5 else images[..., None]
    if images.shape[-1] != 3:
        images = images.mean(-1, keepdims=True).repeat(3, -1)
    numbers = [int(number) for number in attribution.extras.get("step_numbers", range(len(images)))]
    scores = attribution.extras.get("step_scores")
    return images, numbers, None if scores is None else np.asarray(scores).reshape(len(images), -1)


def _label(numbers: Sequence[int], scores: np.ndarray | None, step: int, sample: int) -> str:
    score = "" if scores is None else f"\nscore {scores[step, min(sample, scores.shape[1] - 1)]:.3g}"
    return f"step {numbers[step]}{score}"
