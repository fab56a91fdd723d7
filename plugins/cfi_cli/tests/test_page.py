"""The page as text: it holds all it needs, and whatever comes from models and files stays text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import cfi_cli
import cfi_core
from cfi_cli import Chapter, Explanation, Prediction, Sample
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting
from cfi_matplotlib import plugin as pictures

HOSTILE = "<script>alert('x')</script>\"'><img src=http://evil.example/x onerror=alert(1)>\x1b[31m\u202e"


@pytest.fixture(scope="module")
def attribution() -> cfi_core.Attribution:
    generator = np.random.default_rng(1)
    model = Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))
    with use_plugins(fake, pictures):
        return cfi_core.attribute(model, "press_gradient", inputs=generator.normal(size=(2, 3, 8, 9)), target=1, seed=0)


class Reader(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] != ["style"] else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def chapter(attribution, name="A model") -> Chapter:
    sample = Sample(name, np.zeros((4, 4, 3), np.uint8), [Prediction(3, name, 1.5, 0.75)])
    return Chapter(
        name,
        [Explanation(attribution, (f"remark {name}",))],
        {f"fact {name}": name},
        [sample, Sample("a row")],
        comparisons=[f"comparison {name}"],
        checks=[f"check {name}"],
        refusals={f"method {name}": f"refused {name}"},
    )


@pytest.fixture(scope="module")
def page(attribution, tmp_path_factory) -> Reader:
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert cfi_cli.report(path, chapter(attribution, HOSTILE), title=HOSTILE) == path
    return Reader(path.read_text("utf-8"))


def test_attributions_alone_make_a_page(attribution, tmp_path):
    made = cfi_cli.report(tmp_path / "a.html", attribution, attribution)
    read = Reader(made.read_text("utf-8"))
    assert len(read.all("img")) == 4 and "cfi_core.testing.fake.Painting" in read.text


def test_an_empty_page_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to report"):
        cfi_cli.report(tmp_path / "a.html")


def test_a_hostile_name_stays_a_name(page):
    assert not page.all("script") and not page.open
    assert not [one for _, attributes in page.tags for one in attributes if one.startswith("on")]
    assert "alert('x')" in page.text
    assert "\x1b" not in page.text and "\u202e" not in page.text


def test_nothing_leads_to_the_network(page):
    targets = [value for _, found in page.tags for name, value in found.items() if name in ("src", "href")]
    assert targets and all(value.startswith(("data:", "#")) for value in targets)
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_all_that_is_known_stands_there(page):
    for words in ("press gradient", "paint2print", "faithful", "press", "75.0 %", "a row", "cosine", "seed"):
        assert words in page.text
    for words in ("remark", "fact", "comparison", "check", "method", "refused"):
        assert f"{words} <script>" in page.text


def test_it_can_be_read_without_seeing_it(page):
    assert all(one.get("alt") for one in page.all("img"))
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    assert all(one.get("scope") in ("row", "col") for one in page.all("th"))
    assert len({one["id"] for _, one in page.tags if "id" in one}) == len([1 for _, one in page.tags if "id" in one])


def test_links_within_the_page_lead_somewhere(page):
    places = {one["id"] for _, one in page.tags if "id" in one}
    assert {one["href"] for one in page.all("a")} == {f"#{place}" for place in places}


def test_maps_are_drawn_sample_by_sample_and_what_is_left_out_is_told(attribution, tmp_path):
    many = replace(attribution, values=np.ones((11, 3, 8, 9)), inputs=(np.ones((11, 3, 8, 9)),))
    read = Reader(cfi_cli.report(tmp_path / "a.html", many).read_text("utf-8"))
    assert len(read.all("img")) == 8 and "3 more samples are not drawn." in read.text
    assert "of sample 7; values from 1 to 1" in read.all("img")[7]["alt"]


def test_the_sum_that_a_method_promises_is_told_in_words():
    from cfi_cli.page import _sum_in_words

    assert _sum_in_words({"gap": 0.000123, "against": "f(inputs) - f(baselines)", "bound": 0.1}) == (
        "f(inputs) - f(baselines), within 0.012 %"
    )
    assert _sum_in_words({"gap": None, "why": "promises no sum"}) == "" == _sum_in_words(None)


def test_the_command_writes_it(cfi, shop: Path):
    line = ("report", "shop:painting", "images.npy", "--target", 1, "-m", "press_gradient", "-m", "press_map")
    ran = cfi(*line, "-o", "deep/report.html", "--layer", "relu", "--title", "Paintings")
    assert (ran.code, ran.out) == (0, "deep/report.html\n")
    read = Reader((shop / "deep/report.html").read_text("utf-8"))
    assert len(read.all("img")) == 4 and "images[1]" in read.text and "Paintings" in read.text


def test_a_method_that_is_refused_stands_on_the_page(cfi, shop: Path):
    line = ("report", "shop:painting", "images.npy", "--target", 1, "-m", "press_gradient", "-m", "press_gradiant")
    ran = cfi(*line, "-o", "report.html")
    assert ran.code == 3 and "refused: press_gradiant" in ran.err and ran.out == "report.html\n"
    assert "press_gradiant" in Reader((shop / "report.html").read_text("utf-8")).text


def test_an_argument_that_no_method_takes(cfi):
    line = ("report", "shop:painting", "images.npy", "--target", 1, "-m", "press_gradient", "--exec", "scales=2")
    ran = cfi(*line)
    assert ran.code == 3 and "scales" in ran.err and "scale" in ran.err
