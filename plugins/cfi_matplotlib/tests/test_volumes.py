"""Frames and slices: which planes, over which ones of the input, read back from the figure."""

from __future__ import annotations

import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.plotting import plot
from cfi_matplotlib.volumes import draw_volume

pytestmark = pytest.mark.filterwarnings("error")

LAST, FIRST = ("sample", "depth", "height", "width", "channel"), ("sample", "channel", "depth", "height", "width")


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


def make(values, dims, inputs=None, input_dims=None, **facts):
    facts = {"method_key": "saliency", "toolset": "press", "target": 1} | facts
    given = {} if inputs is None else {"inputs": (inputs,), "input_dims": (input_dims or dims,)}
    return Attribution(values, dims, **given, **facts)


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>" and axis.axison]


def titles(figure):
    return [axis.get_title() for axis in panels(figure) if axis.get_title()]


def maps(figure):
    """The heat maps of one sample: what lies in the panels without a title, or in all where the input is not shown."""
    return [axis.images[-1].get_array() for axis in panels(figure) if not axis.get_title() or len(axis.images) > 1]


def words(figure):
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return " ".join(text.get_text() for text in found).replace("\n", " ")


@pytest.mark.parametrize("order", [LAST, FIRST])
def test_a_video_is_a_strip_of_frames(order):
    values, turn = random(1, 5, 4, 6, 3), [LAST.index(name) for name in order]
    figure = plot(make(values.transpose(turn), order, random(1, 5, 4, 6, 3).transpose(turn), order))
    best = int(np.abs(values.sum(-1)).sum((0, 2, 3)).argmax())
    assert titles(figure) == [f"frame {i}{' ★' * (i == best)}" for i in range(5)]
    np.testing.assert_allclose(maps(figure), values[0].sum(-1))
    norms = {(axis.images[-1].norm.vmin, axis.images[-1].norm.vmax) for axis in panels(figure) if not axis.get_title()}
    assert len(norms) == 1, "all frames share a scale"


def test_the_strongest_frame_is_among_those_that_are_shown():
    values = random(1, 40, 4, 6) * 0.1
    values[0, 17] = 3
    figure = draw_volume(make(values, LAST[:4], random(1, 40, 4, 6, 3), LAST), max_frames=4)
    assert titles(figure) == ["frame 0", "frame 17 ★", "frame 26", "frame 39"]
    assert "4 of 40 frames are shown" in words(figure)


def test_a_layers_steps_lie_over_the_middle_of_their_frames():
    figure = draw_volume(make(random(1, 4, 2, 3), LAST[:4], random(1, 16, 8, 12, 3), LAST, layer="conv"))
    assert [title.replace(" ★", "") for title in titles(figure)] == [
        "step 0 over frame 2",
        "step 1 over frame 6",
        "step 2 over frame 10",
        "step 3 over frame 14",
    ]
    assert "4 × 2 × 3 values are stretched over the 16 × 8 × 12 of the input" in words(figure)
    extents = {tuple(axis.images[-1].get_extent()) for axis in panels(figure) if not axis.get_title()}
    assert extents == {(-0.5, 11.5, 7.5, -0.5)}


def test_frames_along_the_axis_that_is_named_channel():
    """Videos of (time, colour, height, width), in which CFI takes time for channels."""
    values = random(1, 8, 3, 4, 6)
    figure = plot(make(values, FIRST, random(1, 8, 3, 4, 6)))
    np.testing.assert_allclose(maps(figure), values[0].sum(1))
    assert "frames along the axis 'channel', since three colours lie along the other" in words(figure)
    figure = draw_volume(make(random(1, 2, 3, 4, 6), FIRST, random(1, 2, 3, 4, 6)), along="channel")
    assert len(titles(figure)) == 2


@pytest.mark.parametrize("at", ["strongest", "center"])
def test_a_volume_is_cut_along_each_axis(at):
    values = random(1, 1, 6, 8, 10) * 0.1
    values[0, 0, 4, 1, 7] = -9.0
    inputs = random(1, 1, 6, 8, 10)
    figure = draw_volume(make(values, FIRST, inputs), at=at)
    z, y, x = (4, 1, 7) if at == "strongest" else (3, 4, 5)
    assert titles(figure) == [f"depth {z} of 6", f"height {y} of 8", f"width {x} of 10"]
    for shown, expected in zip(maps(figure), (values[0, 0, z], values[0, 0, :, y], values[0, 0, :, :, x]), strict=True):
        np.testing.assert_array_equal(shown, expected)
    unit = (inputs[0, 0] - inputs.min()) / np.ptp(inputs)
    first = panels(figure)[0].images[0].get_array()
    np.testing.assert_allclose(first[..., 0], unit[z], rtol=1e-12)


def test_slices_of_a_layer_lie_over_those_of_the_input():
    values = np.zeros((1, 2, 2, 2))
    values[0, 1, 0, 1] = 5
    figure = draw_volume(make(values, FIRST[:1] + FIRST[2:], random(1, 1, 8, 12, 16), FIRST, layer="conv"))
    assert titles(figure) == ["depth 6 of 8", "height 3 of 12", "width 12 of 16"]


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_zeros_and_negative_values(factor):
    figure = draw_volume(make(np.abs(random(3, 1, 6, 8, 10)) * factor, FIRST))
    figure.canvas.draw()
    assert ("all values are zero" in words(figure)) == (factor == 0)


def test_what_cannot_be_drawn():
    with pytest.raises(PlotError, match="no video or volume"):
        draw_volume(make(random(1, 3, 4, 6), ("sample", "channel", "height", "width")))
    with pytest.raises(PlotError, match="None of the values is finite"):
        draw_volume(make(random(1, 1, 6, 8, 10) * np.nan, FIRST))


@pytest.mark.parametrize(
    "options",
    [
        {"view": "film"},
        {"at": "edge"},
        {"along": "width"},
        {"max_frames": 0},
        {"max_samples": 0},
        {"alpha_overlay": 0},
        {"outlier_perc": 100},
        {"panel_size": 0},
        {"cmap": "plaid"},
        {"samples": [2]},
    ],
)
def test_options_that_do_not_fit(options):
    with pytest.raises(PlotError, match=next(iter(options))):
        draw_volume(make(random(1, 1, 6, 8, 10), FIRST), **options)
