"""The overview of the demo: `index.html` and `overview.png`."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Cross-Framework Introspection: demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222 }}
section {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1.5rem }}
figure {{ margin: 0; border: 1px solid #ddd; border-radius: 6px; padding: 1rem }}
img {{ max-width: 100%; max-height: 44rem; display: block; margin: auto }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; font-size: .85rem; margin: .75rem 0 0 }}
dt {{ color: #666 }} dd {{ margin: 0 }}
</style>
<h1>Cross-Framework Introspection</h1>
{sections}
</html>
"""


@dataclass(frozen=True)
class Entry:
    """One explanation on the page.

    Attributes:
        model: Heading under which it stands.
        picture: File beside the page.
        facts: What was done, as printed.
    """

    model: str
    picture: Path
    facts: dict[str, str]


def write_page(folder: Path, entries: Sequence[Entry]) -> Path:
    """Writes `index.html`, which shows the pictures beside it."""
    sections = []
    for model in dict.fromkeys(entry.model for entry in entries):
        figures = "\n".join(_figure(entry) for entry in entries if entry.model == model)
        sections.append(f"<h2>{html.escape(model)}</h2>\n<section>\n{figures}\n</section>")
    page = folder / "index.html"
    page.write_text(_PAGE.format(sections="\n".join(sections)), encoding="utf-8")
    return page


def write_overview(folder: Path, entries: Sequence[Entry], *, columns: int = 4) -> Path:
    """Writes all pictures into one, `overview.png`."""
    rows = math.ceil(len(entries) / columns)
    figure = Figure(figsize=(4.5 * columns, 6.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes:
        axis.set_axis_off()
    for axis, entry in zip(figure.axes, entries, strict=False):
        axis.imshow(imread(entry.picture))
    overview = folder / "overview.png"
    figure.savefig(overview, dpi=150)
    return overview


def _figure(entry: Entry) -> str:
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in entry.facts.items())
    alt = html.escape(f"{entry.facts['method']} by {entry.facts['toolset']}")
    name = html.escape(entry.picture.name)
    return f'<figure><a href="{name}"><img src="{name}" alt="{alt}"></a><dl>{rows}</dl></figure>'
