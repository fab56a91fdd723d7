"""From the output at the baseline to that of the sample, one feature after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.blocks import values_by_sample
from cfi_matplotlib.cells import has_groups, is_of_features, labels_of, width_of_labels
from cfi_matplotlib.colors import NEGATIVE, OTHERS, POSITIVE
from cfi_matplotlib.heading import heading_of, label_of_sample, wrap
from cfi_matplotlib.letters import dress
from cfi_matplotlib.selection import choose_samples

_ROW = 0.27  # inches
_WITHIN = 1e-3  # of what the bars span: what is less is rounding


def draw_waterfall(
    attribution: Attribution,
    *,
    samples: Sequence[int] | None = None,
    max_samples: int = 2,
    max_features: int = 10,
    show_cells: bool = True,
    title: str | None = None,
    width: float = 3.0,
) -> Figure:
    """Draws how the features lead from the output at the baselines to the output of a sample.

    At the bottom stands the output at the baseline (the mean, of several), at the top that of the sample; between them
    each feature moves it by its value, the strongest at the top. What is beyond `max_features` is one bar. Both outputs
    come from the provenance, where core has measured them with the model itself; where the values do not add up to
    their difference, a hatched bar says how much is missing.

    Args:
        attribution: What to draw: axes `sample` and `feature`, of a method whose values add up to a difference.
        samples: Positions of the samples to draw; None draws the first `max_samples`.
        max_samples: Most samples drawn where `samples` is None.
        max_features: Most features that get a bar of their own.
        show_cells: Whether cells are written behind the names.
        title: Replaces the title, which tells method, toolset, target and route.
        width: Of the bars of one sample in inches; the labels come on top of it.

    Returns:
        A figure that is not registered with pyplot.

    Raises:
        PlotError: The values are no features, the method promises no sum, or the outputs are not known; no such
            sample, values that are not finite, or an option that does not fit.
    """
    starts, ends = _ends(attribution)
    if not (width >= 1.5 and max_features > 0 and max_samples > 0):
        raise PlotError("width must be at least 1.5 inches, max_features and max_samples above 0.")
    values, _ = values_by_sample(attribution, 0)
    chosen, notes = choose_samples(samples, max_samples, len(values))
    if not np.isfinite(values[chosen]).all():
        raise PlotError('Values that are not finite add up to nothing: draw bars, with plot("table").')
    falls = [
        _fall(attribution, sample, starts[sample], ends[sample], max_features, show_cells=show_cells)
        for sample in chosen
    ]
    columns = min(len(falls), 2)
    lines, wide = -(-len(falls) // columns), width + max(width_of_labels(list(fall.labels), 8) for fall in falls) + 0.3
    text = wrap(heading_of(attribution) if title is None else title, columns * wide)
    if missing := [fall.label or "the sample" for fall in falls if fall.missing]:
        notes.append(f"the values of {', '.join(missing)} do not add up to the difference of the outputs")
    height = lines * (max(len(fall.labels) for fall in falls) * _ROW + 0.95) + 0.2 * (text.count("\n") + 2)
    figure = Figure(figsize=(columns * wide, height + 0.2 * bool(notes)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(text, fontsize=10, parse_math=False)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis in axes[len(falls) :]:
        axis.set_axis_off()
    for axis, fall in zip(axes, falls, strict=False):
        draw_fall(axis, fall, what=_explained(attribution))
    if notes:
        figure.supxlabel(wrap("; ".join(notes), columns * wide, points=8), fontsize=8, color="0.35", parse_math=False)
    return dress(figure)


@dataclass(frozen=True)
class Fall:
    """One sample.

    Attributes:
        label: Which one.
        labels: Of the bars, from the top.
        values: Of the bars, from the top: those of single features, then that of all others, then what is missing.
        others: Whether there is a bar of all others.
        missing: Whether there is one of what is missing.
        start: The output at the baseline.
        end: The output of the sample.
    """

    label: str
    labels: tuple[str, ...]
    values: np.ndarray
    others: bool
    missing: bool
    start: float
    end: float

    @property
    def lefts(self) -> np.ndarray:
        """Where each bar begins, from the top: at what the ones below it have made of the start."""
        return self.start + np.cumsum(self.values[::-1])[::-1] - self.values


def _ends(attribution: Attribution) -> tuple[Sequence[float], Sequence[float]]:
    """The outputs at the baselines and at the samples."""
    if not is_of_features(attribution):
        raise PlotError("A waterfall takes one value for each sample and feature; other axes have other plotters.")
    known: Any = attribution.provenance.get("completeness") or {}
    if "at_inputs" not in known:
        why = known.get("why") or "its provenance does not tell the outputs that its values add up to"
        raise PlotError(
            f'There is no waterfall of {attribution.method_key}: {why}. Draw bars, with plot("table"), or take a '
            "method whose values add up to a difference of outputs (kernel_shap, shapley_values, integrated_gradients)."
        )
    if has_groups(attribution):
        raise PlotError(
            "There is no waterfall of groups of features: each feature has the value of its group, so that their sum "
            'counts a group as often as it has features. Draw bars, with plot("table").'
        )
    return known["at_baselines"], known["at_inputs"]


def _explained(attribution: Attribution) -> str:
    return "logit" if str(attribution.provenance.get("explained", "")).startswith("the logit") else "output"


def _fall(attribution: Attribution, sample: int, start: float, end: float, most: int, *, show_cells: bool) -> Fall:
    values = np.asarray(attribution.parts[0][0][sample], np.float64)
    names = labels_of(attribution, sample, show_cells=show_cells)
    order = list(np.argsort(-np.abs(values), kind="stable"))
    kept, rest = (order, []) if len(order) <= most + 1 else (order[:most], order[most:])
    labels, shown = [names[place] for place in kept], [float(values[place]) for place in kept]
    if rest:
        labels.append(f"sum of {len(rest)} others")
        shown.append(float(values[rest].sum()))
    lacking = end - start - sum(shown)
    missing = abs(lacking) > _WITHIN * max(abs(end - start), np.abs(values).max())
    if missing:
        labels.append("not explained")
        shown.append(lacking)
    label = label_of_sample(attribution, sample, len(attribution.parts[0][0]))
    return Fall(label, tuple(labels), np.array(shown), bool(rest), missing, float(start), float(end))


def draw_fall(axis: Axes, fall: Fall, what: str = "output") -> None:
    """The bars of one sample between its two outputs."""
    count = len(fall.values)
    places, lefts = np.arange(count), fall.lefts
    colors = [POSITIVE if value > 0 else NEGATIVE for value in fall.values]
    if fall.others:
        colors[-1 - fall.missing] = OTHERS
    bars = axis.barh(places, fall.values, left=lefts, color=colors, height=0.72)
    if fall.missing:
        bars[-1].set(facecolor="white", edgecolor="0.3", hatch="////")
    for place, (left, value) in enumerate(zip(lefts, fall.values, strict=True)):
        axis.plot([left, left], [place - 0.36, min(place + 1.36, count - 0.4)], color="0.6", linewidth=0.7, zorder=0)
        _write(axis, f"{value:+.3g}" if value else "0", left + value, place, forward=value >= 0)
    axis.axvline(fall.start, color="0.5", linewidth=0.8, linestyle=":", zorder=0)
    axis.axvline(fall.end, color="0.2", linewidth=0.8, linestyle=":", zorder=0)
    axis.set_yticks(places, fall.labels, parse_math=False)
    axis.set_ylim(count - 0.4, -0.6)
    edges = np.concatenate([lefts, lefts + fall.values, [fall.start, fall.end]])
    room = 0.2 * (np.ptp(edges) or abs(fall.start) or 1.0)  # for the numbers beside the bars
    axis.set_xlim(edges.min() - room, edges.max() + room)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(labelsize=8)
    axis.set_title("\n".join(filter(None, [fall.label, f"{what}: {fall.end:.4g}"])), fontsize=9, parse_math=False)
    axis.set_xlabel(f"{what} (at the baseline: {fall.start:.4g})", fontsize=8, parse_math=False)


def _write(axis: Axes, text: str, x: float, y: int, *, forward: bool) -> None:
    put: dict[str, Any] = {"xytext": (3 if forward else -3, 0), "textcoords": "offset points", "va": "center"}
    axis.annotate(text, (x, y), ha="left" if forward else "right", fontsize=7, color="0.2", **put)
