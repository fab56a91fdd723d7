"""Explanations on one page of HTML that holds all it needs: pictures inside, no script, nothing from the network.

Whatever comes from models and files (names of layers, classes, files) is escaped, and the page forbids itself scripts
and the network, so that a hostile name stays a name.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from cfi_cli.pictures import MOST, as_png, draw_each
from cfi_cli.predictions import Prediction
from cfi_cli.terminal import clean, plain
from cfi_core import Attribution, CFIError
from cfi_core.errors import FOREIGN

_LONGEST = 4000
_MEASURED = ("samples", "number", "outputs", "columns", "largest", "top class", "gradients", "cosine")
_APART = ("versions", "certificate", "route", "seconds_per_step")  # of the provenance, what has a place of its own


@dataclass(frozen=True, eq=False)
class Sample:
    """One input on the page.

    Attributes:
        name: What it is called.
        picture: `(height, width)` or `(height, width, 3)` of bytes; None for what is no picture.
        predictions: What the model says of it, the largest first.
    """

    name: str
    picture: np.ndarray | None = None
    predictions: Sequence[Prediction] = ()


@dataclass(frozen=True, eq=False)
class Explanation:
    """An attribution on the page.

    Attributes:
        attribution: The attribution.
        remarks: What was warned of while it was made.
        options: Of the plotter.
    """

    attribution: Attribution
    remarks: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Chapter:
    """One model on the page, with all that was found of it.

    Attributes:
        name: Its heading.
        explanations: What explains it.
        facts: What is known of the model, by short names.
        samples: What it was explained on.
        comparisons: What `cfi.compare` gave.
        checks: What `cfi.check` gave.
        refusals: Methods that could not be run, and why.
    """

    name: str
    explanations: Sequence[Attribution | Explanation]
    facts: Mapping[str, str] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    comparisons: Sequence[Any] = ()
    checks: Sequence[Any] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)


def report(path: str | Path, *contents: Attribution | Chapter, title: str = "Explanations") -> Path:
    """Writes a page that holds all it needs: light or dark as the reader's system is, for narrow and wide screens.

        cfi_cli.report("report.html", saliency, grad_cam, title="A cat")

    Args:
        path: Where to; an existing file is replaced.
        *contents: Attributions, which are put together by their models, or chapters, which say more of a model.
        title: Heading of the page.

    Returns:
        The path.

    Raises:
        PlotError: An attribution cannot be drawn.
        ValueError: There is nothing to show.
    """
    chapters = list(_chapters(contents))
    if not chapters:
        raise ValueError("There is nothing to report: pass attributions or chapters.")
    shown = [_show(chapter, number) for number, chapter in enumerate(chapters, 1)]
    versions = _merge(entry.attribution for chapter in chapters for entry in _explanations(chapter))
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    text = _template().render(title=clean(title), chapters=shown, versions=versions, made=made)
    path = Path(path)
    path.write_text(text, encoding="utf-8")
    return path


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(files("cfi_cli").joinpath("templates/report.html.jinja").read_text("utf-8"))


def _chapters(contents: Sequence[Attribution | Chapter]) -> Iterator[Chapter]:
    """Chapters as they are; attributions outside of any by the kind of their model."""
    loose: dict[str, list[Attribution]] = {}
    for one in contents:
        if isinstance(one, Attribution):
            loose.setdefault(str(one.provenance.get("model", "A model")), []).append(one)
    for name, attributions in loose.items():
        yield Chapter(name, attributions)
    yield from (one for one in contents if isinstance(one, Chapter))


def _explanations(chapter: Chapter) -> list[Explanation]:
    return [one if isinstance(one, Explanation) else Explanation(one) for one in chapter.explanations]


def _show(chapter: Chapter, number: int) -> dict[str, Any]:
    """What the template needs of a chapter."""
    explanations = _explanations(chapter)
    facts = dict(chapter.facts)
    if explanations:
        first = explanations[0].attribution.provenance
        for name in ("model", "framework", "function"):
            if first.get(name):
                facts.setdefault({"model": "class", "function": "found to be"}.get(name, name), str(first[name]))
    return {
        "number": number,
        "name": clean(chapter.name),
        "facts": _texts(facts),
        "samples": [_show_sample(sample) for sample in chapter.samples],
        "inputs": _describe_inputs(explanations),
        "explanations": [_show_explanation(one) for one in explanations],
        "comparisons": [_show_result(one, "Comparison") for one in chapter.comparisons],
        "checks": [_show_result(one, "Check") for one in chapter.checks],
        "refusals": _texts(chapter.refusals),
    }


def _show_sample(sample: Sample) -> dict[str, Any]:
    return {
        "name": clean(sample.name),
        "picture": None if sample.picture is None else _inline(_encode(sample.picture)),
        "predictions": [
            {"label": clean(one.label), "value": f"{one.value:.4g}", "share": one.probability}
            for one in sample.predictions
        ],
    }


def _describe_inputs(explanations: Sequence[Explanation]) -> str:
    if not explanations:
        return ""
    attribution = explanations[0].attribution
    shapes = [
        f"{' × '.join(map(str, array.shape))} ({', '.join(dims)})"
        for array, dims in zip(attribution.inputs, attribution.input_dims, strict=True)
    ]
    return clean("; ".join(shapes))


def _show_explanation(one: Explanation) -> dict[str, Any]:
    attribution, provenance = one.attribution, one.attribution.provenance
    certificate = attribution.certificate
    layer = attribution.layer if isinstance(attribution.layer, str) else ", ".join(attribution.layer or ())
    facts = {
        "target": provenance.get("target_in_words") or _short(attribution.target),
        "layer": layer,
        "explained": provenance.get("explained"),
        "route": " → ".join(attribution.route) or "native",
        "sum": _sum_in_words(provenance.get("completeness")),
        "seconds": f"{provenance['seconds']:.1f}" if "seconds" in provenance else None,
    }
    heading = attribution.method_key.replace("_", " ")
    pictures = draw_each(attribution, one.options)
    drawn = len(pictures)
    return {
        "heading": clean(heading),
        "toolset": clean(attribution.toolset),
        "pictures": [
            {"data": _inline(picture), "alternative": clean(_alternative(attribution, heading, layer, number, drawn))}
            for number, picture in enumerate(pictures)
        ],
        "left_out": max(0, len(attribution.parts[0][0]) - drawn) if drawn == MOST else 0,
        "facts": _texts({name: value for name, value in facts.items() if value}),
        "remarks": [clean(remark) for remark in one.remarks],
        "citation": clean(provenance.get("citation", "")),
        "verdict": "native" if certificate is None else "faithful" if certificate.faithful else "unfaithful",
        "certificate": clean(certificate or provenance.get("certificate", "native: nothing to certify")),
        "measurements": () if certificate is None else [_show_measurement(row) for row in certificate.measurements],
        "headings": _MEASURED,
        "parameters": _texts({name: _short(value) for name, value in provenance.items() if name not in _APART}),
    }


def _sum_in_words(completeness: Any) -> str:
    """What the values add up to, where the method promises something."""
    gap = completeness.get("gap") if isinstance(completeness, Mapping) else None
    return "" if gap is None else f"{completeness.get('against', 'what the method promises')}, within {100 * gap:.2g} %"


def _show_measurement(row: Any) -> list[str]:
    return ["–" if one is None else f"{one:.2g}" if isinstance(one, float) else clean(one) for one in astuple(row)]


def _alternative(attribution: Attribution, heading: str, layer: str, number: int, drawn: int) -> str:
    """A picture in words, for those who cannot see it."""
    count = len(attribution.parts[0][0])
    parts = [values[number : number + 1] if drawn > 1 else values for values, _ in attribution.parts]
    where = f" at layer {layer}" if layer else ""
    what = f"of sample {number}" if drawn > 1 else f"of {count} samples" if count > 1 else "of one sample"
    sizes = "; ".join(f"values from {values.min():.3g} to {values.max():.3g}" for values in parts if values.size)
    return f"Picture of {heading} by {attribution.toolset}{where}, {what}; {sizes}"


def _show_result(result: Any, noun: str) -> dict[str, Any]:
    """A comparison or a check, as it prints itself, and its picture where it draws one."""
    picture = None
    if hasattr(result, "plot"):
        try:
            picture = _inline(as_png(result.plot()))
        except FOREIGN as error:
            if not isinstance(error, CFIError):
                raise
    return {
        "text": clean(result),
        "picture": picture,
        "alternative": f"{noun} in a picture; the text beside it says the same",
    }


def _encode(picture: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.asarray(picture, np.uint8)).save(stream, "png", optimize=True)
    return stream.getvalue()


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _merge(attributions: Iterator[Attribution]) -> dict[str, str]:
    """Versions of all that took part; several of one name are told."""
    found: dict[str, list[str]] = {}
    for attribution in attributions:
        for name, version in attribution.provenance.get("versions", {}).items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return _texts({name: ", ".join(found[name]) for name in sorted(found, key=str.lower)})


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    return {clean(name): clean(value) for name, value in facts.items()}


def _short(value: Any) -> str:
    """A value of the provenance in words, cut where it is very long."""
    value = plain(value)
    if isinstance(value, Mapping):
        text = ", ".join(f"{name}={_short(entry)}" for name, entry in value.items()) or "none"
    elif isinstance(value, list):
        text = ", ".join(map(_short, value)) or "none"
    else:
        text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
