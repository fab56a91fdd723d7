"""Where things stand on the page: nothing is cut off, nothing lies over anything else."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_matplotlib.plotting import plot

pytestmark = pytest.mark.filterwarnings("error")

NCHW, MAP = ("sample", "channel", "height", "width"), ("sample", "height", "width")
LONG = "features.block_1.a_name_that_is_longer_than_what_fits_into_a_line.conv/kernel:0 and some words more " * 2


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


def made(values, dims=NCHW, **facts):
    inputs = (random(len(values), 3, *values.shape[-2:]),)
    facts = {"inputs": inputs, "input_dims": (NCHW,)} | facts
    return Attribution(values, dims, "saliency", "press", **facts)


def predicted(count, name="tabby, tabby cat, with a very long name that never ends"):
    each = tuple({"class": 281, "name": name, "value": 0.41, "kind": "probability"} for _ in range(count))
    return {"target": tuple((number,) for number in range(count)), "predicted": each}


CASES = {
    "one sample": (made(random(1, 8, 8), MAP), {}),
    "8 samples": (made(random(8, 8, 8), MAP, provenance=predicted(8)), {}),
    "20 samples": (made(random(20, 8, 8), MAP, provenance=predicted(20, "cat")), {"max_samples": 20}),
    "many channels": (made(random(1, 64, 7, 7), layer=LONG), {}),
    "two layers": (
        Attribution(
            (random(2, 8, 7, 7), random(2, 9, 4, 4)), (NCHW, NCHW), "saliency", "press", layer=(LONG, "b"), target=3
        ),
        {},
    ),
    "methods": (made(random(2, 8, 8), MAP), {"method": ["heat_map", "masked_image", "alpha_scaling"]}),
    "flat": (made(random(3, 4, 100), MAP), {}),
    "tall": (made(random(3, 100, 10), MAP), {}),
    "tiny numbers": (made(random(2, 8, 8) * 1.234e-21, MAP), {}),
    "a long title": (made(random(1, 8, 8), MAP), {"title": LONG}),
    "image and table": (
        Attribution((random(2, 8, 8), random(2, 30)), (MAP, ("sample", "feature")), "saliency", "press", target=3),
        {},
    ),
    "small panels": (made(random(2, 8, 8), MAP, provenance=predicted(2)), {"panel_size": 0.8}),
}


@pytest.mark.parametrize("case", CASES)
def test_no_text_is_cut_off_and_none_lies_over_another_or_over_a_picture(case):
    attribution, options = CASES[case]
    figure = plot(attribution, **options)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    found = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.texts]
    found += [(f"axes {number}", axis.get_tightbbox(renderer)) for number, axis in enumerate(figure.axes)]
    for what, box in found:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1
        assert what.strip()
        assert inside, f"{what} is cut off"
    for (first, one), (second, other) in combinations(found, 2):
        across, down = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, down) < 2, f"{first} lies over {second}"


def test_a_map_without_its_input_stands_in_the_middle():
    figure = plot(made(random(1, 8, 8), MAP), show_input=False, show_colorbar=False)
    (panel,) = figure.axes
    place = panel.get_position()
    assert place.x0 + place.x1 == pytest.approx(1)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (10, 30), (30, 10)])
def test_pixels_are_squares(height, width):
    figure = plot(made(random(1, height, width), MAP))
    for axis in figure.axes:
        if axis.get_label() != "<colorbar>":
            box = axis.get_window_extent()
            assert box.height / box.width == pytest.approx(height / width, rel=0.01)


def test_samples_stand_on_a_grid_whose_panels_are_alike():
    figure = plot(made(random(8, 8, 8), MAP))
    panels = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert len({tuple(np.round(axis.get_window_extent().size, 3)) for axis in panels}) == 1
    assert len({round(axis.get_window_extent().x0, 3) for axis in panels}) == 4, "two tiles of two panels in a line"
    width, height = figure.get_size_inches()
    assert 0.7 < width / height < 2


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (1, 1)])
def test_a_picture_of_one_line_is_seen(shape):
    figure = plot(Attribution(np.ones((1, *shape)), ("sample", "height", "width"), "saliency", "press"))
    figure.canvas.draw()
    for axis in figure.axes:
        drawn = axis.get_window_extent()
        assert min(drawn.width, drawn.height) >= 8, "pixels"
