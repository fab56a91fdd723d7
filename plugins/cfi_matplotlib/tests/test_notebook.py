"""Notebooks that are executed: pictures are shown where they are made, once, and pyplot is left alone."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from html.parser import HTMLParser
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

BEGIN = """
import sys
import numpy as np
import cfi_core as cfi
import cfi_matplotlib.plugin
from cfi_core.testing import fake, use_plugins
plugins = use_plugins(fake, cfi_matplotlib.plugin)
plugins.__enter__()
draw = np.random.default_rng(0)
model = fake.Painting(draw.normal(size=(4, 3)), draw.normal(size=(5, 4)))
call = dict(method_key="press_gradient", inputs=draw.normal(size=(2, 3, 16, 24)), target=[3, 1])
"""

CELLS = {
    "begin": BEGIN,
    "nothing is drawn": "made = cfi.attribute(model, **call)\nprint('matplotlib.figure' in sys.modules)",
    "the value": "made",
    "a call at the end": "made.plot()",
    "a call in front": "figure = made.plot()\nprint(isinstance(figure, sys.modules['matplotlib.figure'].Figure))",
    "a loop": "for sample in range(2):\n    print(sample)\n    made.plot(samples=[sample])",
    "plot=True": "other = cfi.attribute(model, **call, plot=True)",
    "plot=True at the end": "cfi.attribute(model, **call, plot=True)",
    "plot=True, later": "other",
    "a call and the value": "made.plot()\nmade",
    "a figure, later": "figure",
    "a figure at the end": "again = made.plot()\nagain",
    "a figure that changes": "again = made.plot()\nagain.suptitle('mine')\nagain",
    "quiet": "silent = made.plot(show=False)",
    "a quiet one": "silent",
    "displayed": "display(made)",
    "inside of a list": "[made]",
    "printed": "print(made)",
    "not drawable": "cfi.Attribution(np.zeros((1, 2)), ('sample', 'feature'), '<b>', 'kit')",
    "a plan": "cfi.plan(model, **call)",
    "methods": "cfi.methods()",
    "pending": "cfi.attribute(model, 'press_layer', inputs=call['inputs'])",
    "translation": "cfi.translate(model, 'print', inputs=call['inputs'])",
    "files": "for end in ('png', 'svg', 'pdf', 'html'):\n    made.save(f'{folder}/a.{end}')",
    "pyplot": "print([name for name in sys.modules if 'pyplot' in name])",
    "with pyplot": """
from matplotlib import pyplot
mine = pyplot.figure()
before = pyplot.get_fignums(), pyplot.get_backend(), dict(dict.items(pyplot.rcParams))
made.plot()
made.save(f'{folder}/b.svg')
print((pyplot.get_fignums(), pyplot.get_backend(), dict(dict.items(pyplot.rcParams))) == before, pyplot.gcf() is mine)
pyplot.close(mine)""",
    "with pyplot, the value": "made",
    "with pyplot, a figure at the end": "again = made.plot()\nagain",
    "inline": "%matplotlib inline\nmade.plot()",
    "inline, the value": "made",
}

PICTURES = dict.fromkeys(CELLS, 0) | {
    "the value": 1,
    "a call at the end": 1,
    "a call in front": 1,
    "a loop": 2,
    "plot=True": 1,
    "plot=True at the end": 1,
    "plot=True, later": 1,
    "a call and the value": 1,
    "a figure, later": 1,
    "a figure at the end": 1,
    "a figure that changes": 2,
    "a quiet one": 1,
    "displayed": 1,
    "with pyplot": 1,
    "with pyplot, the value": 1,
    "with pyplot, a figure at the end": 1,
    "inline": 1,
    "inline, the value": 1,
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each cell of one notebook shows."""
    cells = {**CELLS, "begin": f"{CELLS['begin']}\nfolder = {str(tmp_path_factory.mktemp('files'))!r}"}
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells.values())))
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return {name: cell.outputs for name, cell in zip(cells, notebook.cells, strict=True)}


def data_of(outputs: list[Any], kind: str) -> list[str]:
    return [one.data[kind] for one in outputs if kind in one.get("data", {})]


def text_of(outputs: list[Any]) -> str:
    return "".join(one.text for one in outputs if one.output_type == "stream" and one.name == "stdout")


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_shows_its_pictures_once(outputs: dict[str, list[Any]], cell: str) -> None:
    pictures = data_of(outputs[cell], "image/png")
    assert len(pictures) == PICTURES[cell]
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(b64decode(picture))).convert("L"))
        assert min(pixels.shape) > 100 and pixels.std() > 20, "it is blank"
    assert not [one for one in outputs[cell] if one.output_type == "error" or one.get("name") == "stderr"]


def test_pictures_stand_where_they_are_made(outputs: dict[str, list[Any]]) -> None:
    kinds = [one.output_type for one in outputs["a loop"]]
    assert kinds == ["stream", "display_data", "stream", "display_data"]
    assert len(set(data_of(outputs["a loop"], "image/png"))) == 2


def test_plotting_returns_a_figure_of_matplotlib(outputs: dict[str, list[Any]]) -> None:
    assert text_of(outputs["a call in front"]) == "True\n"


@pytest.mark.parametrize("cell", ["the value", "plot=True at the end", "a call and the value", "displayed"])
def test_a_value_has_a_caption(outputs: dict[str, list[Any]], cell: str) -> None:
    (caption,) = data_of(outputs[cell], "text/html")
    assert "press_gradient · press" in caption and "paint2print" in caption and "faithful" in caption
    assert "<img" not in caption, "the picture stands above it"


def test_what_cannot_be_drawn_says_so_and_has_its_caption(outputs: dict[str, list[Any]]) -> None:
    (caption,) = data_of(outputs["not drawable"], "text/html")
    assert "&lt;b&gt; · kit" in caption and "No picture: " in caption and "pip install cfi-matplotlib" in caption


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("a plan", "the closed form"),
        ("methods", "press_noise"),
        ("pending", "Choose one and call cfi.finish_execution_with_layer"),
        ("translation", "4 of 4 layers found"),
    ],
)
def test_records_are_short_tables(outputs: dict[str, list[Any]], cell: str, says: str) -> None:
    ((page,), (text,)) = (data_of(outputs[cell], kind) for kind in ("text/html", "text/plain"))
    assert says in page and "<table" in page and len(page) < 12_000
    assert "array(" not in text and len(text) < 2_000
    Balanced().feed(page)


class Balanced(HTMLParser):
    """Every element that begins ends, and none has a colour of its own: that is the theme's."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        assert not re.search(r"(^|;)\s*color|background:(?!none)", dict(attrs).get("style") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_nothing_is_drawn_that_nobody_asked_for(outputs: dict[str, list[Any]]) -> None:
    assert text_of(outputs["nothing is drawn"]) == "False\n"


def test_pyplot_is_left_alone(outputs: dict[str, list[Any]]) -> None:
    assert text_of(outputs["pyplot"]) == "[]\n"
    assert text_of(outputs["with pyplot"]) == "True True\n"
