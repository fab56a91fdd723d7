"""Series and their attributions on one axis of time, read back from the figure."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.plotting import plot
from cfi_matplotlib.timelines import draw_series, is_series

pytestmark = pytest.mark.filterwarnings("error")

LAST, FIRST = ("sample", "position", "channel"), ("sample", "channel", "position")


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


def make(values, dims, inputs, input_dims=LAST, **facts):
    facts = {"method_key": "saliency", "toolset": "press", "target": 1} | facts
    return Attribution(values, dims, inputs=(inputs,), input_dims=(input_dims,), **facts)


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>" and axis.axison]


def words(figure):
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(text.get_text() for text in found)


@pytest.mark.parametrize("order", [LAST, FIRST])
def test_each_channel_has_a_panel_with_its_series_on_its_values(order):
    values, inputs = random(2, 9, 3), random(2, 9, 3) * 5
    turn = [LAST.index(name) for name in order]
    shown = panels(plot(make(values.transpose(turn), order, inputs.transpose(turn), order)))
    assert len(shown) == 6
    for place, axis in enumerate(shown):
        sample, channel = divmod(place, 3)
        np.testing.assert_array_equal(axis.images[0].get_array()[0], values[sample, :, channel])
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), inputs[sample, :, channel])
        assert axis.get_title(loc="left") == f"channel {channel}"


@pytest.mark.parametrize(("steps", "length"), [(4, 32), (3, 10), (10, 10), (20, 10)])
def test_each_step_of_a_layer_lies_over_its_part_of_the_input(steps, length):
    """Step k of K covers [k, k + 1] of K equal parts of the axis, which reaches from -0.5 to the last step + 0.5."""
    attribution = make(random(1, steps), LAST[:2], random(1, length, 1), layer="conv")
    figure = draw_series(attribution)
    (axis,) = panels(figure)
    left, right, _, _ = axis.images[0].get_extent()
    assert (left, right) == axis.get_xlim() == (-0.5, length - 0.5)
    assert axis.images[0].get_array().shape == (1, steps) and axis.images[0].get_interpolation() == "nearest"
    told = f"{steps} steps of layer conv are stretched evenly over the {length} of the input"
    assert (told in words(figure).replace("\n", " ")) == (steps != length)


def test_a_coloured_line_has_the_colour_of_the_step_that_it_goes_through():
    values = np.array([[-1.0, 0.0, 2.0, 4.0]])
    (axis,) = panels(draw_series(make(values, LAST[:2], random(1, 8, 1), layer="conv"), color="line", outlier_perc=0))
    (line,) = [one for one in axis.collections if isinstance(one, LineCollection)]
    np.testing.assert_array_equal(line.get_array(), [-1, -1, 0, 0, 2, 2, 4, 4])
    assert (line.norm.vmin, line.norm.vmax) == (-4, 4)
    points = np.array([segment[1] for segment in line.get_segments()])
    np.testing.assert_array_equal(points[:, 0], np.arange(8))


def test_the_sign_is_seen_also_where_all_are_negative():
    (axis,) = panels(draw_series(make(-np.abs(random(1, 9, 1)), LAST, random(1, 9, 1))))
    image = axis.images[0]
    red, _, blue, _ = image.cmap(image.norm(-1.0))
    assert blue > red + 0.2 and image.norm.vmin == -image.norm.vmax


def test_values_without_channels_lie_behind_each_channel():
    values = random(1, 9)
    shown = panels(draw_series(make(values, LAST[:2], random(1, 9, 2), feature_names=None)))
    assert [axis.get_title(loc="left") for axis in shown] == ["channel 0", "channel 1"]
    for axis in shown:
        np.testing.assert_array_equal(axis.images[0].get_array(), values)


def test_the_strongest_channels_in_their_own_order_by_their_names():
    values, names = random(1, 9, 30) * 1e-3, tuple(f"name {i} {'of sixty letters ' * 3}" for i in range(30))
    values[..., 17], values[..., 4] = 3.0, -5.0
    figure = draw_series(make(values, LAST, random(1, 9, 30), feature_names=names), max_panels=2)
    assert [axis.get_title(loc="left") for axis in panels(figure)] == [names[4].strip(), names[17].strip()]
    assert "the strongest 2 of 30 channels are shown" in words(figure)
    total = draw_series(make(values, LAST, random(1, 9, 30)), channels="sum", max_panels=1)
    np.testing.assert_allclose(panels(total)[0].images[0].get_array()[0], values[0].sum(-1))
    assert "the colours are sums over 30 channels" in words(total)


def test_channels_of_a_layer_have_the_series_in_front():
    attribution = make(random(1, 4, 6), LAST, random(1, 8, 2), layer="conv", provenance={"kind": "layer"})
    figure = draw_series(attribution)
    assert len(panels(figure)) == 4 and all(len(axis.lines) == 2 for axis in panels(figure))
    text = words(figure).replace("\n", " ")
    assert "the strongest 4 of 6 channels" in text and "the 2 channels of the input are in front" in text


@pytest.mark.parametrize(("samples", "rows"), [(1, 1), (8, 8), (40, 8)])
def test_samples_left_out_are_told(samples, rows):
    figure = draw_series(make(random(samples, 9, 1), LAST, random(samples, 9, 1)))
    assert len(panels(figure)) == rows
    assert ("the first 8 of 40 samples are shown" in words(figure)) == (samples == 40)


def test_what_must_not_be_overlooked():
    values, inputs = random(3, 9, 1), random(3, 9, 1)
    values[0], values[1, 2], inputs[2, 3] = 0, np.nan, np.nan
    text = words(draw_series(make(values, LAST, inputs)))
    assert "all values are zero" in text and "1 of 9 values are not finite" in text
    assert "1 of 27 numbers of the input are missing" in text
    with pytest.raises(PlotError, match="None of the values is finite"):
        draw_series(make(values * np.nan, LAST, inputs))


def test_without_a_series_there_is_none():
    alone = Attribution(random(1, 9, 2), LAST, "saliency", "press")
    assert not is_series(alone)
    assert not is_series(make(random(2, 9, 2), LAST, random(3, 9, 2))), "of other samples"
    with pytest.raises(PlotError, match="There is no series to draw"):
        draw_series(alone)


def test_a_visualized_series_is_one_and_not_the_values_of_its_start():
    made = make(random(1, 9, 1), LAST, random(1, 9, 1), provenance={"kind": "feature visualization"})
    (axis,) = panels(plot(made))
    assert not axis.images
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), made.values[0, :, 0])


@pytest.mark.parametrize(
    "options",
    [
        {"max_panels": 0},
        {"max_samples": 0},
        {"channels": "mean"},
        {"color": "red"},
        {"outlier_perc": 100},
        {"width": 1},
        {"panel_height": 0},
        {"cmap": "plaid"},
        {"samples": [3]},
    ],
)
def test_options_that_do_not_fit(options):
    with pytest.raises(PlotError, match=next(iter(options))):
        draw_series(make(random(1, 9, 1), LAST, random(1, 9, 1)), **options)
