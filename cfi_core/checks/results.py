"""What checks of an explanation found: numbers, what they mean, and what they are to be held against."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.display import (
    draw_or_tell,
    draw_png,
    escape,
    html_picture,
    html_table,
    offer_figure,
    show_figure,
    show_record,
)
from cfi_core.errors import ArgumentError, PlotError
from cfi_core.options import check_options
from cfi_core.plain import simplify
from cfi_core.requirements import unmet
from cfi_core.specs import PlotterSpec, resolve

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset

_WIDTH = 98
_PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True, eq=False)
class Curve:
    """What a check measured along a way.

    Attributes:
        name: What it is of.
        values: One row for each sample, one column for each place.
        is_reference: It is what the others are held against.
    """

    name: str
    values: np.ndarray
    is_reference: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Check:
    """What one check found.

    Attributes:
        name: Of the metric.
        scores: A number for each sample; one alone, where it is of all samples together.
        better: Whether a `"higher"` or a `"lower"` number is that of the better explanation.
        means: What the number is, in a sentence.
        reference: What to hold the number against, for each sample or for all (one element); None where there is none.
        reference_is: What that is, in words.
        verdict: A warning in words; empty where there is none, which is no praise.
        place: What the places of the curves are.
        places: Numbers or names of these.
        curves: What was measured there.
        settings: All that the numbers depend on.
        citation: Paper that defines it.
    """

    name: str
    scores: np.ndarray
    better: str
    means: str
    reference: np.ndarray | None = None
    reference_is: str = ""
    verdict: str = ""
    place: str = ""
    places: tuple[Any, ...] = ()
    curves: tuple[Curve, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    citation: str = ""

    @property
    def score(self) -> float:
        """The mean over the samples that have a number."""
        return mean_of(self.scores)

    @property
    def chance(self) -> float | None:
        """The mean of the reference."""
        return None if self.reference is None else mean_of(self.reference)

    def __repr__(self) -> str:
        against = "" if self.reference is None else f", {self.reference_is}: {_number(self.chance)}"
        return f"<Check {self.name}: {_number(self.score)} ({self.better} is better){against}>"


@dataclass(frozen=True, eq=False)
class Checks:
    """What the checks of an explanation found: print it, show it, draw it.

    Attributes:
        attribution: What was checked.
        found: The checks that ran, by name.
        left_out: Those that did not, by name, with the reason.
        seed: Of all that is random.
    """

    attribution: Attribution
    found: Mapping[str, Check]
    left_out: Mapping[str, str]
    seed: int

    def __getitem__(self, name: str) -> Check:
        if name in self.found:
            return self.found[name]
        if name in self.left_out:
            raise ArgumentError(f"The check {name!r} did not run: {self.left_out[name]}")
        raise ArgumentError(f"There is no check {name!r} here; there are {', '.join(self.found) or 'none'}.")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the explanation, as far as a check says so."""
        return tuple(f"{one.name}: {one.verdict}" for one in self.found.values() if one.verdict)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        yield from textwrap.wrap(f"Checks of {self.attribution!r}", _WIDTH)
        if self.found:
            width = max(26, *(len(one) for one in self.found))
            yield f"{'':{width}} {'score':>9} {'better':>7} {'reference':>10}"
        for one in self.found.values():
            chance = "–" if one.chance is None else _number(one.chance)
            yield f"{one.name:{width}} {_number(one.score):>9} {one.better:>7} {chance:>10}  {one.reference_is}"[
                :_WIDTH
            ]
        for text in self.warnings:
            yield from _wrap("warning: " + text)
        for text in self._reasons():
            yield from _wrap(text)

    def _reasons(self) -> list[str]:
        """What did not run, by the reason."""
        names: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            names.setdefault(why, []).append(name)
        return [f"{', '.join(those)} did not run: {why}" for why, those in names.items()]

    def _ipython_display_(self) -> None:
        """A picture and a table, in notebooks."""
        show_record(self, lambda: self.plot(show=False) if self._has_curves else None, self._table)

    def _repr_html_(self) -> str:
        figure, note = draw_or_tell(lambda: self.plot(show=False)) if self._has_curves else (None, "")
        picture = "" if figure is None else html_picture(draw_png(figure), repr(self.attribution))
        return f"<div>{picture}{self._table(note)}</div>"

    def _table(self, note: str = "") -> str:
        rows = [
            (
                one.name,
                f"{_number(one.score)} ({one.better} is better)",
                "" if one.chance is None else f"{_number(one.chance)} ({one.reference_is})",
                one.means,
            )
            for one in self.found.values()
        ]
        head = ("check", "score", "reference", "what it is")
        below = [f"Warning: {one}" for one in self.warnings]
        below += self._reasons()
        lines = "".join(f"<div>{escape(one)}</div>" for one in below)
        return html_table(f"Checks of {self.attribution!r}", head, rows, note) + lines

    @property
    def _has_curves(self) -> bool:
        return any(one.curves for one in self.found.values())

    def plot(self, plotter: str | None = None, *, show: bool = True, **options: Any) -> Figure:
        """Draws the curves of the checks, and shows the picture where the call stands in a notebook.

        Args:
            plotter: Name of a plotter of checks; None takes the first.
            show: Whether a notebook shows it at once.
            **options: Options of that plotter.

        Raises:
            PlotError: Nothing can be drawn, or nothing can draw it.
        """
        if not self._has_curves:
            raise PlotError(
                "No check that ran has a curve to draw: deletion, insertion and parameter_randomisation do."
            )
        spec = self._plotter(plotter)
        check_options(spec, options)
        figure = resolve(spec.implementation)(self, **options)
        if show:
            show_figure(figure, self)
        else:
            offer_figure(figure)
        return figure

    def _plotter(self, name: str | None) -> PlotterSpec:
        known = [spec for spec in self.attribution.outlets.plotters.values() if spec.draws == "checks"]
        for spec in known:
            if name in (None, spec.name) and not unmet(spec.requirements):
                return spec
        if name is None or not known:
            raise PlotError("No plotter draws checks: pip install cfi-matplotlib brings one.")
        names = ", ".join(spec.name for spec in known)
        raise PlotError(f"No plotter {name!r} draws checks; there are {names}.")

    def save(self, path: str | Path, **options: Any) -> Path:
        """Writes numbers and settings (`.json`), a page (`.html`) or the picture (`.png`, `.svg`, `.pdf`).

        Args:
            path: File to write; an existing one is replaced.
            **options: Of the plotter, for a picture.

        Raises:
            PlotError: The suffix is none of these, or nothing can be drawn.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in (".json", ".html", *_PICTURES):
            raise PlotError(f"Checks are written to .json, .html, {', '.join(_PICTURES)}, not to {path.suffix!r}.")
        if suffix in _PICTURES:
            self.plot(show=False, **options).savefig(path)
        elif options:
            raise PlotError(f"A {suffix} file takes no options, and {next(iter(options))!r} was given.")
        elif suffix == ".json":
            path.write_text(json.dumps(self.as_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
        else:
            page = f"<!DOCTYPE html><meta charset='utf-8'><title>Checks</title>{self._repr_html_()}"
            path.write_text(page, encoding="utf-8")
        return path

    def as_dict(self) -> dict[str, Any]:
        """All of it in the types of JSON, without the values that were checked."""
        fields = ("scores", "better", "means", "reference", "reference_is", "verdict", "place", "places", "settings")
        checks = {
            name: {
                "score": one.score,
                **{label: getattr(one, label) for label in fields},
                "curves": {curve.name: curve.values for curve in one.curves},
                "citation": one.citation,
            }
            for name, one in self.found.items()
        }
        whole = {"attribution": self.attribution.metadata, "checks": checks, "left_out": self.left_out}
        found: dict[str, Any] = simplify({**whole, "seed": self.seed})
        return found

    def to_xarray(self) -> Dataset:
        """The numbers of each sample, the references and the curves, under the names of the checks.

        Raises:
            ImportError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("to_xarray needs xarray: pip install 'cfi-core[xarray]'") from error
        data = xarray.Dataset(attrs={"method": self.attribution.method_key, "seed": self.seed})
        for name, one in self.found.items():
            told = {"better": one.better, "means": one.means, "verdict": one.verdict}
            data[name] = _along_samples(one.scores, {**told, "settings": json.dumps(simplify(one.settings))})
            if one.reference is not None:
                data[f"{name} reference"] = _along_samples(one.reference, {"means": one.reference_is})
            for curve in one.curves:
                place = f"{name} {one.place}"
                data[f"{name} {curve.name}"] = (("sample", place), curve.values)
                data.coords[place] = list(one.places)
        return data


def _along_samples(values: np.ndarray, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    return (("sample",), values, attrs) if values.size > 1 else ((), values.reshape(()), attrs)


def mean_of(values: np.ndarray) -> float:
    """Of the numbers among them; NaN where there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _number(value: float | None) -> str:
    return "none" if value is None or np.isnan(value) else f"{value:.3g}"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
