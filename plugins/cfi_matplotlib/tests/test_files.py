"""Pictures and pages: they show the attribution, take the plotter's options, and tell where they come from."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import cfi_matplotlib.plugin
from cfi_core.attribution import Attribution, Outlets
from cfi_core.display import draw_png
from cfi_core.errors import PlotError
from cfi_core.specs import PlotterSpec
from cfi_matplotlib.files import KEY

LAYER = "</script><script>alert('x')</script> → dög"
EVIL = f"{LAYER} \ud800\n\0"
DIMS = ("sample", "height", "width")
OUTLETS = Outlets(
    {spec.name: spec for spec in cfi_matplotlib.plugin.cfi_plotters()},
    {suffix: spec for spec in cfi_matplotlib.plugin.cfi_writers() for suffix in spec.suffixes},
)
PICTURES = ("png", "svg", "pdf", "html")


def attribution(**facts: Any) -> Attribution:
    given = {
        "values": np.random.default_rng(0).normal(size=(2, 6, 9)),
        "dims": DIMS,
        "method_key": "saliency",
        "toolset": "press",
        "target": 3,
        "layer": LAYER,
        "provenance": {"seed": 7, "note": EVIL, "per sample": np.array([0.5, np.nan]), "versions": {"numpy": "2"}},
        "outlets": OUTLETS,
    }
    return Attribution(**(given | facts))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def metadata_of(path: Path) -> Any:
    """What a file tells, read as others would."""
    if path.suffix == ".png":
        return json.loads(Image.open(path).text[KEY])  # type: ignore[attr-defined]
    if path.suffix == ".svg":
        names = {"dc": "http://purl.org/dc/elements/1.1/"}
        return json.loads(ElementTree.parse(path).find(".//dc:description", names).text)  # type: ignore[union-attr,arg-type]
    if path.suffix == ".html":
        (text,) = re.findall(rf'<script type="application/json" id="{KEY}">(.*?)</script>', path.read_text("utf-8"))
        return json.loads(text)
    keywords = re.search(rb"/Keywords \((.*?[^\\])\)", path.read_bytes(), re.DOTALL)
    assert keywords is not None
    return json.loads(re.sub(rb"\\([()\\])", rb"\1", keywords[1]))


@pytest.mark.parametrize("suffix", PICTURES)
def test_files_tell_where_they_come_from(suffix: str, tmp_path: Path) -> None:
    made = attribution()
    found = metadata_of(made.save(tmp_path / f"a.{suffix}"))
    assert found == made.metadata and found["method_key"] == "saliency" and found["layer"] == LAYER
    assert found["provenance"]["seed"] == 7 and found["provenance"]["per sample"] == [0.5, "nan"]


def test_a_png_has_a_title_and_a_maker(tmp_path: Path) -> None:
    with Image.open(attribution().save(tmp_path / "a.png")) as picture:
        assert picture.text["Title"] == "saliency by press, target 3"  # type: ignore[attr-defined]
        assert picture.text["Software"].startswith("cfi-matplotlib ")  # type: ignore[attr-defined]
        assert np.asarray(picture.convert("L")).std() > 20


def test_options_are_those_of_the_plotter(tmp_path: Path) -> None:
    made = attribution()
    both = pixels(made.save(tmp_path / "a.png").read_bytes())
    one = pixels(made.save(tmp_path / "b.png", samples=[1], plotter="matplotlib").read_bytes())
    fine = pixels(made.save(tmp_path / "c.png", samples=[1], dpi=300).read_bytes())
    assert one.shape[0] < both.shape[0]
    np.testing.assert_allclose(fine.shape, 2 * np.array(one.shape), atol=2)


@pytest.mark.parametrize("suffix", PICTURES)
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sample": [1]}, "has no option 'sample'.*Did you mean 'samples'"),
        ({"samples": [7]}, "samples"),
        ({"plotter": "oil"}, "No plotter 'oil' is installed"),
        ({"dpi": 0}, "dpi=0 must be a number from 1 to 1200"),
        ({"dpi": "high"}, "dpi='high' must be"),
        ({"dpi": 10**9}, "dpi=1000000000 must be"),
    ],
)
def test_options_that_do_not_fit_leave_no_file(suffix: str, options: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PlotError, match=reason):
        attribution().save(tmp_path / f"a.{suffix}", **options)
    assert not list(tmp_path.iterdir())


class Page(HTMLParser):
    """What a page would fetch or run, its pictures and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[bytes] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href"):
                kind, _, data = (value or "").partition(",")
                if kind == "data:image/png;base64":
                    self.pictures.append(b64decode(data))
                else:
                    self.fetched.append(value)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_page_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    text = attribution().save(tmp_path / "a.html").read_text("utf-8")
    page = Page(text)
    assert len(page.pictures) == 1 and pixels(page.pictures[0]).std() > 20 and not page.fetched
    assert page.tags.count("script") == 1 and 'type="application/json"' in text and "@import" not in text
    words = " ".join(page.words)
    assert "saliency by press, target 3" in words and "numpy: 2" in words and "alert('x')" in words
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_settings_are_left_as_they_were_in_threads_too(tmp_path: Path) -> None:
    before = dict(dict.items(matplotlib.rcParams))
    files = [tmp_path / f"{place}.svg" for place in range(4)]
    threads = [threading.Thread(target=attribution().save, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({file.read_bytes() for file in files}) == 1
    assert dict(dict.items(matplotlib.rcParams)) == before and "matplotlib.pyplot" not in sys.modules


def draw_beyond(attribution: Attribution) -> Figure:
    """As plotters of other hands may: a label stands below the figure."""
    figure = Figure(figsize=(3, 2))
    FigureCanvasAgg(figure)
    figure.add_axes((0.1, 0.05, 0.8, 0.8)).set_xlabel("what it is\n" * 6)
    return figure


def test_nothing_is_cut_off(tmp_path: Path) -> None:
    plotter = PlotterSpec(name="beyond", implementation=f"{__name__}:draw_beyond")
    made = attribution(outlets=replace(OUTLETS, plotters={"beyond": plotter}))
    picture = pixels(made.save(tmp_path / "a.png", dpi=100).read_bytes())
    assert picture.shape[0] > 250 and (picture[-5:] == 255).all(), "a margin is below the label"
    assert pixels(draw_png(draw_beyond(made))).shape[0] > 250
    laid_out = attribution().plot()
    size = 100 * laid_out.get_size_inches()[::-1]
    np.testing.assert_allclose(pixels(draw_png(laid_out)).shape, size, atol=1)


def test_the_picture_of_nothing_finite_leaves_no_file(tmp_path: Path) -> None:
    for suffix in PICTURES:
        with pytest.raises(PlotError):
            attribution(values=np.full((2, 6, 9), np.nan)).save(tmp_path / f"a.{suffix}")
    assert not list(tmp_path.iterdir())
