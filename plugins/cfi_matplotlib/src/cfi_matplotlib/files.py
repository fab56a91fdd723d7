"""Attributions as files of pictures, and as pages; all of them carry what `Attribution.metadata` says."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib

from cfi_core import Attribution
from cfi_core.display import bounds_of, html_facts, html_picture
from cfi_core.errors import PlotError
from cfi_core.turns import Lock

KEY = "cfi_metadata"
"""Of the text in a PNG, and of the element in a page, that hold `Attribution.metadata` as JSON."""

_SALT, _LARGEST_DPI = "svg.hashsalt", 1200
_salted = Lock()


def write_picture(
    attribution: Attribution, path: Path, *, plotter: str | None = None, dpi: float = 150, **options: Any
) -> None:
    """Draws the attribution into a `.png`, `.svg` or `.pdf` file, which tells where it comes from.

    A PNG has the texts "Title", "Software" and "cfi_metadata" (JSON: method, toolset, route, target, layer,
    certificate, provenance); `PIL.Image.open(path).text` reads them. In an SVG the JSON is the description, in a PDF
    the keywords.

    Args:
        attribution: What to draw.
        path: File to write; an existing file is replaced.
        plotter: As for `Attribution.plot`.
        dpi: Pixels per inch, of a PNG and of what is no line in the others.
        **options: Options of the plotter.

    Raises:
        PlotError: It cannot be drawn, or an option is unknown or does not fit.
    """
    data = _draw(attribution, path.suffix.lower().removeprefix("."), plotter, dpi, options)
    path.write_bytes(data)


def write_page(
    attribution: Attribution, path: Path, *, plotter: str | None = None, dpi: float = 150, **options: Any
) -> None:
    """Writes a page with the picture, a caption and the whole provenance, which needs no other file and no network.

    Arguments and errors are those of `write_picture`. The element with the id "cfi_metadata" holds the JSON.
    """
    picture = _draw(attribution, "png", plotter, dpi, options)
    metadata = attribution.metadata
    provenance = [(name, _told(value)) for name, value in metadata["provenance"].items()]
    facts = [(name, _told(metadata[name])) for name in ("target", "layer", "route", "certificate")]
    title = _title(attribution)
    path.write_text(
        _PAGE.format(
            title=html.escape(title),
            picture=html_picture(picture, title),
            facts=html_facts("", facts),
            provenance=html_facts("", provenance),
            key=KEY,
            metadata=_json(metadata).replace("<", "\\u003c"),  # nothing in it ends the element
        ),
        "utf-8",
    )


def _draw(attribution: Attribution, form: str, plotter: str | None, dpi: float, options: Mapping[str, Any]) -> bytes:
    if isinstance(dpi, bool) or not isinstance(dpi, int | float) or not 1 <= dpi <= _LARGEST_DPI:
        raise PlotError(f"dpi={dpi!r} must be a number from 1 to {_LARGEST_DPI}.")
    figure = attribution.plot(plotter, **{**options, "show": False})
    file = io.BytesIO()
    with _same_names():
        figure.savefig(file, format=form, dpi=dpi, bbox_inches=bounds_of(figure), metadata=_labels(attribution, form))
    return file.getvalue()


def _labels(attribution: Attribution, form: str) -> dict[str, str | None]:
    """What the format has a place for; no time, so that one attribution makes one file."""
    title, text = _title(attribution), _json(attribution.metadata)
    maker = f"cfi-matplotlib {version('cfi-matplotlib')}, matplotlib {matplotlib.__version__}"
    if form == "svg":
        return {"Title": title, "Creator": maker, "Description": text, "Date": None}
    if form == "pdf":
        return {"Title": title, "Creator": maker, "Keywords": text, "CreationDate": None}
    return {"Title": title, "Software": maker, KEY: text}


def _title(attribution: Attribution) -> str:
    words = f"{attribution.method_key} by {attribution.toolset}"
    target = attribution.provenance.get("target_in_words") or attribution.target
    if isinstance(target, str | int):
        words += f", target {target}"
    return "".join(letter if letter.isprintable() else " " for letter in words)


def _told(value: Any) -> str:
    """A value of JSON in words; nothing of what is empty."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_told(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(f"({_told(entry)})" if isinstance(entry, list) else _told(entry) for entry in value)
    return "" if value is None else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


@contextmanager
def _same_names() -> Iterator[None]:
    """Names inside of an SVG that are made of what they name, not drawn by lot; the setting is left as it was."""
    with _salted:
        before = matplotlib.rcParams[_SALT]
        matplotlib.rcParams[_SALT] = before or KEY
        try:
            yield
        finally:
            matplotlib.rcParams[_SALT] = before


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; padding: 0 1em; max-width: 62em; }}
body {{ color: #222; background: #fff; }}
figure {{ margin: 0 0 1em; padding: .6em; background: #fff; border: 1px solid #8884; border-radius: 6px; }}
figure img {{ display: block; margin: auto; }}
h1 {{ font-size: 1.3em; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.05em; margin-bottom: 0; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #1c1c1e; }} }}
</style></head>
<body>
<h1>{title}</h1>
<figure>{picture}</figure>
{facts}
<h2>Provenance</h2>
{provenance}
<script type="application/json" id="{key}">{metadata}</script>
</body></html>
"""
