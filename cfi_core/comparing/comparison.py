"""The record of a comparison: to print, show, draw, save and read on."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.attribution import Attribution, plot_together
from cfi_core.comparing.measures import Measures, make_comparable
from cfi_core.display import html_record, html_table, show_figure, show_record
from cfi_core.errors import PlotError
from cfi_core.plain import simplify

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset

    from cfi_core.comparing.laws import Law

_WIDTH = 98
_NAMES = 62  # for the labels of a pair, beside its measures


class Verdict(StrEnum):
    """What is found of two answers."""

    AGREE = "agree"
    ROUNDING = "agree up to rounding"
    SAMPLING = "within sampling error"
    SETTINGS = "differ by settings"
    CONVERGES = "two approximations"
    PROCESSED = "differ by processing"
    DIFFER = "differ"
    METHODS = "two methods"
    MODELS = "two models"
    TARGETS = "two targets"
    INCOMPARABLE = "not comparable"


@dataclass(frozen=True)
class Row:
    """A setting that was aligned.

    Attributes:
        name: Of the argument, in the toolset's words.
        label: Whose it is.
        was: Its value in the answer.
        becomes: The value that it was given.
        alone: Relative difference that remains with it alone.
        without: What remains with all others that were found, but not it; None if there are no others.
        matched: What the other side can set instead, and what remains then; or nothing.
    """

    name: str
    label: str
    was: str
    becomes: str
    alone: float
    without: float | None = None
    matched: str = ""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two answers: how far apart they are, and why.

    Attributes:
        first: Label of one.
        second: Label of the other.
        verdict: What was found.
        reason: The same in words.
        measures: Of all samples together; None where they are not comparable.
        samples: Of each sample.
        difference: The largest relative difference of a sample.
        same_model: Whether both are of one model.
        made_comparable: What had to be done to values of different axes.
        floor: Relative difference that is rounding; 0 where it was not looked for.
        sampling: How far one seed moves the values, relatively; None of what draws nothing.
        rows: The smallest set of settings that explains the difference, or comes closest.
        tried: All settings that were aligned, each alone.
        remaining: Relative difference that remains with `rows`.
        laws: Those that one side keeps and the other breaks.
    """

    first: str
    second: str
    verdict: Verdict
    reason: str
    measures: Measures | None = None
    samples: tuple[Measures, ...] = ()
    difference: float = math.inf
    same_model: bool = True
    made_comparable: tuple[str, ...] = ()
    floor: float = 0.0
    sampling: float | None = None
    rows: tuple[Row, ...] = ()
    tried: tuple[Row, ...] = ()
    remaining: float | None = None
    laws: tuple[Law, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether nothing but rounding or chance lies between them."""
        return self.verdict in (Verdict.AGREE, Verdict.ROUNDING, Verdict.SAMPLING)

    @property
    def sentence(self) -> str:
        """Verdict and reason."""
        reason = self.reason.removeprefix(str(self.verdict)).removeprefix(": ")
        return f"{self.verdict}: {reason}" if reason else str(self.verdict)

    def as_dict(self) -> dict[str, Any]:
        """For files: numbers, words and lists alone."""
        return simplify(asdict(self))


@dataclass(frozen=True, eq=False)
class Comparison:
    """What several implementations (methods, targets, models) answered to one question, and why they differ.

    Attributes:
        attributions: The answers, by label.
        pairs: Every two of them.
        refused: What gave no answer, and why.
        notes: What was told of the question.
        top: Share of the features whose overlap is taken.
        seed: Of all that is random.
    """

    attributions: Mapping[str, Attribution]
    pairs: tuple[Pair, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    top: float = 0.1
    seed: int = 0

    def pair(self, first: str, second: str) -> Pair:
        """The pair of two labels, in either order.

        Raises:
            KeyError: There is none.
        """
        for one in self.pairs:
            if {one.first, one.second} == {first, second}:
                return one
        raise KeyError(f"{first!r} and {second!r} were not compared; answers are {', '.join(self.attributions)}")

    def subtract(self, first: str, second: str) -> Attribution:
        """What one answer has more than another, in the axes in which they are compared; `applied` says so.

        Raises:
            PlotError: The two are not comparable.
        """
        answer, other = self.attributions[first], self.attributions[second]
        pair = make_comparable(answer, other, same_model=self.pair(first, second).same_model)
        if isinstance(pair, str):
            raise PlotError(f"{first} and {second} are not comparable: {pair}.")
        values = answer.like_values([one - another for one, another in zip(pair.first, pair.second, strict=True)])
        names = answer.feature_names if answer.dims == answer.like_values(pair.dims) else None
        provenance = dict(answer.provenance)
        provenance["applied"] = {**provenance.get("applied", {}), "subtracted": second}
        made = replace(answer, values=values, dims=answer.like_values(pair.dims), feature_names=names, extras={})
        return replace(made, provenance=provenance)

    @property
    def agrees(self) -> bool:
        """Whether nothing but rounding or chance lies between any two answers."""
        return all(pair.agrees for pair in self.pairs)

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from _indent(f"Comparison of {', '.join(self.attributions)} (seed {self.seed})", "")
        names = [f"{pair.first} - {pair.second}" for pair in self.pairs]
        width = min(max(map(len, names), default=0), _NAMES)
        yield f"{'':<{width}}  difference  cosine   rank  top {self.top:.0%}"
        for name, pair in zip(names, self.pairs, strict=True):
            difference, cosine, rank, overlap = _cells_of(pair.measures)
            yield f"{_cut(name, width):<{width}}  {difference:>10}  {cosine:>6} {rank:>6} {overlap:>8}".rstrip()
            yield from _indent(pair.sentence)
            yield from _table(pair)
            yield from chain.from_iterable(map(_indent, _found(pair)))
        for label, why in self.refused.items():
            yield from _indent(f"{label} gave no answer: {why}", "")
        for note in self.notes:
            yield from _indent(f"note: {note}", "")

    def _ipython_display_(self) -> None:
        """The picture and tables, in notebooks."""
        show_record(self, self._drawn, self._tables)

    def _repr_html_(self) -> str:
        return html_record(self, self._drawn, self._tables)

    def _drawn(self) -> Any:
        return self.plot(show=False)

    def _tables(self, note: str = "") -> str:
        """Of every pair the measures and what was found; of the settings that explain one, what each leaves."""
        # No column is narrower than its head.
        head = ("of the answer", "and the other", "difference", "cosine", "rank corr.", f"top {self.top:.0%}", "found")
        rows = [
            (one.first, one.second, *_cells_of(one.measures), "\n".join([one.sentence, *_found(one)]))
            for one in self.pairs
        ]
        told = [f"{label} gave no answer: {why}" for label, why in self.refused.items()]
        title = f"Comparison of {', '.join(self.attributions)} (seed {self.seed})"
        settings = [
            html_table(
                f"{one.first} – {one.second}",
                (*_HEAD, "or"),
                [(*row, *more) for row, more in _rows_of(one)],
                _together(one),
            )
            for one in self.pairs
            if one.rows
        ]
        return "".join(
            [html_table(title, head, rows, "; ".join([*told, *self.notes, *filter(None, [note])])), *settings]
        )

    def plot(self, plotter: str | None = None, *, show: bool = True, **options: Any) -> Figure:
        """Draws the answers side by side, and what each has more or less than the first, on a scale of its own.

        Args:
            plotter: Name of a plotter of several attributions; None takes the first that accepts all of these.
            show: Whether a notebook shows the figure at once.
            **options: Options of that plotter.

        Raises:
            PlotError: No plotter draws several, or it has no such option.
        """
        first, *others = self.attributions
        others = [label for label in others if self.pair(first, label).measures is not None]
        drawn = [*self.attributions.values(), *(self.subtract(label, first) for label in others)]
        titles = [*self.attributions, *(f"{label} − {first}" for label in others)]
        figure = plot_together(drawn, titles=titles, plotter=plotter, show=False, **options)
        if show:
            show_figure(figure, self)
        return figure

    def save(self, path: str | Path, **options: Any) -> Path:
        """Writes it: `.json` (all but the values), `.npz` (with the values), `.html`, or a picture (`.png`, `.svg`, …).

        Args:
            path: Where to; an existing file is replaced.
            **options: Of the plotter, for a picture.

        Raises:
            PlotError: The suffix is none of these, or it cannot be drawn.
        """
        path = Path(path)
        match path.suffix.lower():
            case ".json":
                path.write_text(json.dumps(self.as_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
            case ".npz":
                with path.open("wb") as file:
                    np.savez_compressed(file, allow_pickle=False, metadata=json.dumps(self.as_dict()), **self._arrays())
            case ".html":
                page = f"<!DOCTYPE html><meta charset='utf-8'><title>Comparison</title>{self._repr_html_()}"
                path.write_text(page, encoding="utf-8")
            case ".png" | ".svg" | ".pdf":
                self.plot(show=False, **options).savefig(path)
            case other:
                raise PlotError(f"A comparison is written to .json, .npz, .html, .png, .svg or .pdf, not to {other!r}.")
        return path

    def as_dict(self) -> dict[str, Any]:
        """All but the values, as JSON has it."""
        answers = {
            label: {"method": one.method_key, "toolset": one.toolset, "route": list(one.route)}
            | {"provenance": one.provenance}
            for label, one in self.attributions.items()
        }
        pairs = [pair.as_dict() for pair in self.pairs]
        told = {"refused": self.refused, "notes": self.notes, "top": self.top, "seed": self.seed}
        return simplify({"attributions": answers, "pairs": pairs, **told})

    def to_xarray(self) -> Dataset:
        """The measures of every pair and sample, with the labels as coordinates.

        Raises:
            ImportError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("to_xarray needs xarray: pip install 'cfi-core[xarray]'") from error
        labels = list(self.attributions)
        samples = max((len(pair.samples) for pair in self.pairs), default=0)
        dims = ("first", "second", "sample")
        found = {}
        for name in ("difference", "cosine", "rank", "overlap"):
            values = np.full((len(labels), len(labels), samples), np.nan)
            for i in range(len(labels)):
                values[i, i] = 0.0 if name == "difference" else 1.0
            for pair in self.pairs:
                i, j = labels.index(pair.first), labels.index(pair.second)
                values[i, j] = values[j, i] = [getattr(one, name) for one in pair.samples] or np.nan
            found[name] = (dims, values)
        return xarray.Dataset(found, {"first": labels, "second": labels}, {"top": self.top, "seed": self.seed})

    def _arrays(self) -> dict[str, np.ndarray]:
        """Values as `values_<label>`, with a number behind where there are several."""
        return {
            f"values_{label}" + (f"_{i}" if len(one.parts) > 1 else ""): values
            for label, one in self.attributions.items()
            for i, (values, _) in enumerate(one.parts)
        }


def _cells_of(measures: Measures | None) -> tuple[str, str, str, str]:
    if measures is None:
        return ("–", "", "", "")
    return f"{measures.difference:.1e}", f"{measures.cosine:.3f}", f"{measures.rank:.3f}", f"{measures.overlap:.2f}"


def _found(pair: Pair) -> list[str]:
    """What was found of a pair, in sentences, without the settings."""
    done = [f"made comparable: {'; '.join(pair.made_comparable)}"] if pair.made_comparable else []
    return [*map(str, pair.laws), *done]


def _indent(text: str, by: str = "  ") -> Iterator[str]:
    yield from textwrap.wrap(text, _WIDTH, initial_indent=by, subsequent_indent=by + "  ")


_HEAD = ("setting", "of", "is", "becomes", "alone leaves", "all but it")


def _rows_of(pair: Pair) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The settings that were found, and what the other side can set instead."""
    return [
        (
            (
                row.name,
                row.label,
                row.was,
                row.becomes,
                _left(row.alone),
                "" if row.without is None else _left(row.without),
            ),
            (row.matched,) if row.matched else (),
        )
        for row in pair.rows
    ]


def _left(remaining: float) -> str:
    return f"{remaining:.1e}" if math.isfinite(remaining) else "–"


def _table(pair: Pair) -> Iterator[str]:
    if not pair.rows:
        return
    rows = _rows_of(pair)
    cells = [_HEAD, *(row for row, _ in rows)]
    most = (20, 16, 17, 15, 12, 10)
    widths = [min(max(len(row[i]) for row in cells), most[i]) for i in range(len(_HEAD))]
    for row, matched in [(_HEAD, ()), *rows]:
        line = " ".join(f"{_cut(text, width):<{width}}" for text, width in zip(row, widths, strict=True))
        yield f"    {line}".rstrip()
        yield from chain.from_iterable(_indent(f"or {text}", "      ") for text in matched)
    if left := _together(pair):
        yield f"    {left}"


def _together(pair: Pair) -> str:
    if pair.remaining is None:
        return ""
    return f"{'together they leave' if len(pair.rows) > 1 else 'it leaves'} {pair.remaining:.1e}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
