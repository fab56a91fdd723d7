"""The page in Chromium: it fits every screen, says nothing on the console, and asks the network for nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import cfi_cli
import cfi_core
from cfi_cli import Chapter, Explanation, Prediction, Sample
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting
from cfi_matplotlib import plugin as pictures

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="CHROMIUM IS NOT INSTALLED: no browser sees the report")
LONG = "a_name_without_any_place_to_break_it_" * 6


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page with all there is, long names and two models included."""
    generator = np.random.default_rng(1)
    model = Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))
    images = generator.normal(size=(2, 3, 8, 9))
    with use_plugins(fake, pictures):
        made = [cfi_core.attribute(model, key, inputs=images, target=1, layer=layer, seed=0) for key, layer in ASKED]
    pixels = generator.integers(0, 256, (2, 40, 60, 3), np.uint8)
    said = [Prediction(3, LONG, 1.5, 0.75), Prediction(1, "an ant", -0.5, 0.25)]
    samples = [Sample(LONG, pixels[0], said), Sample("short", pixels[1], said)]
    explanations = [Explanation(one, (f"A remark. {LONG}",)) for one in made]
    words = "a line of a comparison that is quite long, and stays one line whatever the screen is, as tables do\n" * 3
    chapters = [
        Chapter(LONG, explanations, {"where": LONG}, samples, [words], [words], {LONG: f"refused, because of {LONG}"}),
        Chapter("another model", made),
    ]
    return cfi_cli.report(tmp_path_factory.mktemp("page") / "report.html", *chapters, title=f"A page {LONG}")


ASKED = (("press_gradient", None), ("press_map", "relu"))


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="PLAYWRIGHT IS NOT INSTALLED: no browser is driven")
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


def look(browser, page: Path, width: int, scheme: str = "light"):
    """The page, opened, with what the console said and what was asked of the network."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    view = context.new_page()
    said, asked = [], []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(page.as_uri())
    return view, said, [url for url in asked if not url.startswith("data:")]


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_it_fits_the_screen_open_and_closed(browser, page, width):
    view, said, asked = look(browser, page, width)
    assert said == [] and asked == [page.as_uri()]
    for opened in (False, True):
        view.evaluate(f"document.querySelectorAll('details').forEach(one => one.open = {str(opened).lower()})")
        assert view.evaluate("document.documentElement.scrollWidth") <= width
    outside = """[...document.querySelectorAll('body *')].filter(one => {
        const box = one.getBoundingClientRect();
        return !one.closest('.scroll') && box.width && (box.right > innerWidth + 1 || box.left < -1)
    }).map(one => one.outerHTML.slice(0, 90))"""
    assert view.evaluate(outside) == []
    view.context.close()


def test_a_wide_screen_shows_several_side_by_side(browser, page):
    counts = []
    for width in (360, 1600):
        view, *_ = look(browser, page, width)
        tops = view.evaluate("[...document.querySelectorAll('.pictures')].slice(0, 2).map(one => one.offsetTop)")
        counts.append(len({round(top / 40) for top in tops}))
        view.context.close()
    assert counts == [2, 1]


def luminance(colour: str) -> float:
    """By WCAG 2."""
    parts = [int(one) / 255 for one in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(browser, page, scheme):
    view, *_ = look(browser, page, 1000, scheme)
    found = view.evaluate(
        """[...document.querySelectorAll('h1, h2, h4, p, dt, dd, td, th, summary, .badge, a, pre')].map(one => {
            let behind = one;
            while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
            return [one.tagName, getComputedStyle(one).color, getComputedStyle(behind).backgroundColor]
        })"""
    )
    for tag, ink, paper in found:
        dark, light = sorted((luminance(ink), luminance(paper)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (tag, ink, paper)
    papers = {luminance(paper) for tag, _, paper in found if tag == "H1"}
    assert all(one < 0.1 for one in papers) if scheme == "dark" else all(one > 0.8 for one in papers)
    view.context.close()


def test_all_pictures_are_drawn(browser, page):
    view, *_ = look(browser, page, 1000)
    sizes = view.evaluate("[...document.images].map(one => one.complete && one.naturalWidth)")
    assert len(sizes) == 10 and all(size > 30 for size in sizes)
    view.context.close()
