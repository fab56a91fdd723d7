"""Names as people have them: of any script, of halves of letters, without end. Each kind of picture takes them all."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_matplotlib import side_by_side
from cfi_matplotlib.beeswarm import draw_beeswarm
from cfi_matplotlib.heading import heading_of, label_of_sample, wrap
from cfi_matplotlib.letters import known, width_of
from cfi_matplotlib.plotting import plot

pytestmark = pytest.mark.filterwarnings("error")

NAMES = {
    "half a letter": "\ud800bad",
    "Chinese": "猫在这里",
    "Arabic": "قطة هنا",
    "emoji": "🐱👩‍👩‍👧",
    "markup": "<script>alert(1)</script>",
    "lines": "a\nb\r\nc\td",
    "formula": "$x^2$ $",
    "many letters": "x" * 10_000,
    "many words": "word " * 2_000,
    "a pile of accents": "e" + "\u0301" * 200,
    "nothing": "",
}
DIMS = {
    "images": ("sample", "height", "width"),
    "series": ("sample", "channel", "position"),
    "tables": ("sample", "feature"),
    "volumes": ("sample", "channel", "depth", "height", "width"),
    "tokens": ("sample", "token"),
}


def made(kind, name):
    values = np.random.default_rng(0).normal(size=(2, 4, 5, 6, 7)[: len(DIMS[kind])])
    columns = tuple(f"{name}{column}" for column in range(4)) if kind in ("tables", "tokens") else None
    named = {"classes": (name, name), "predicted": ({"class": 1, "name": name, "value": 0.5, "kind": "output"},) * 2}
    facts = {"target": 3, "layer": name, "feature_names": columns, "provenance": {"target": 3, **named}}
    return Attribution(values, DIMS[kind], "saliency", "press", **facts)


def drawn(figure):
    """The figure, rendered; it fits on paper."""
    figure.canvas.draw()
    assert max(figure.get_size_inches()) < 60
    return figure


@pytest.mark.parametrize("kind", DIMS)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_name_is_drawn(kind, name):
    drawn(plot(made(kind, name)))


@pytest.mark.parametrize("name", [NAMES["half a letter"], NAMES["Chinese"], NAMES["many letters"]])
def test_any_name_is_drawn_of_many_samples_and_methods(name):
    drawn(draw_beeswarm(made("tables", name)))
    drawn(side_by_side([made("images", name), made("images", name)], titles=[name, name]))


def test_names_are_cut_where_they_are_too_long_to_read():
    found = made("images", "first" + "x" * 10_000 + "last")
    for text in (heading_of(found), label_of_sample(found, 0, 2)):
        assert len(text) < 250
        assert "first" in text and "last" in text and "…" in text


def test_a_text_without_end_is_cut():
    start = time.perf_counter()
    lines = wrap("x" * 10_000, 2.0).split("\n")
    assert time.perf_counter() - start < 10, "by halves, and no further than is shown"
    assert len(lines) < 30 and lines[-1] == "…"
    assert all(width_of(line, 10) <= 2.0 for line in lines)
    assert wrap("i" + "W" * 40, 0.01).count("\n") < 30, "a letter is never narrower than it is"


def test_accents_stay_on_their_letters():
    assert known("e\u0301a\u0300") == "e\u0301a\u0300"
    assert known("e" + "\u0301" * 9) == "e" + "\u0301" * 3
