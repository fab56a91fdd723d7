"""Maps over pictures: colours are computed by hand, and read off the rendered canvas."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.images import blend, stretch
from cfi_matplotlib.plotting import plot
from cfi_matplotlib.scales import scale_of
from cfi_matplotlib.style import Style

pytestmark = pytest.mark.filterwarnings("error")

MAP, NHWC = ("sample", "height", "width"), ("sample", "height", "width", "channel")
SIGNED = np.array([[[-4.0, -2.0, 0.0, 1.0], [0.0, 2.0, 3.0, 4.0], [0.5, -0.5, 0.0, -1.0]]])
PICTURE = np.random.default_rng(0).integers(0, 256, (1, 3, 4, 3)).astype(np.uint8)


def made(values=SIGNED, inputs=(PICTURE,), **facts):
    dims = tuple(NHWC for _ in inputs)
    return Attribution(values, MAP, "saliency", "press", inputs=inputs, input_dims=dims, **facts)


def drawn(figure):
    """What is seen: height, width, red, green, blue between 0 and 1."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def seen(figure, axis, x, y):
    """The colour at a place given in an axis's own numbers."""
    canvas = drawn(figure)
    across, up = axis.transData.transform((x, y))
    return canvas[len(canvas) - 1 - int(up), int(across)]


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def bars(figure):
    return [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]


def grey(pixels):
    return (pixels / 255) @ (0.299, 0.587, 0.114)


@pytest.mark.parametrize("sign", ["all", "positive", "negative", "absolute_value"])
@pytest.mark.parametrize("method", ["heat_map", "blended_heat_map"])
def test_the_bar_has_the_colours_of_the_panel(method, sign):
    """Of each value, over the lightness of the picture there."""
    figure = plot(made(), method=method, sign=sign, outlier_perc=0)
    _, panel = panels(figure)
    (bar,) = bars(figure)
    canvas = drawn(figure)
    shown = {"all": SIGNED, "positive": SIGNED.clip(min=0), "negative": SIGNED.clip(max=0)}.get(sign, np.abs(SIGNED))
    for row, column in np.ndindex(3, 4):
        across, up = panel.transData.transform((column, row))
        value, light = shown[0, row, column], grey(PICTURE[0, row, column])
        x, y = bar.transData.transform((light if method != "heat_map" else 0.5, value))
        low, high = bar.get_window_extent().intervaly
        left, right = bar.get_window_extent().intervalx
        at = canvas[len(canvas) - 1 - int(up), int(across)]
        x, y = np.clip(x, left + 2, right - 2), np.clip(y, low + 2, high - 2)  # within the frame
        np.testing.assert_allclose(at, canvas[len(canvas) - 1 - int(y), int(x)], atol=0.06)


def test_zero_leaves_the_picture_as_it_is_in_grey():
    figure = plot(made(), method="blended_heat_map")
    _, panel = panels(figure)
    for row, column in zip(*np.nonzero(SIGNED[0] == 0), strict=True):
        expected = np.full(3, grey(PICTURE[0, row, column]))
        np.testing.assert_allclose(seen(figure, panel, column, row), expected, atol=0.01)


def test_the_strongest_values_have_the_opacity_of_the_option():
    scale = scale_of(SIGNED, "all", Style(outlier_perc=0), signed=True, over=True)
    white, black = (blend("blended_heat_map", np.array([4.0]), scale, np.full((1, 3), x), 0.25) for x in (1.0, 0.0))
    np.testing.assert_allclose(white - black, 0.75)
    np.testing.assert_allclose(black, 0.25 * scale.color(np.array([4.0])))


@pytest.mark.parametrize(
    ("sign", "kept"),
    [
        ("positive", SIGNED.clip(min=0)),
        ("negative", SIGNED.clip(max=0)),
        ("absolute_value", np.abs(SIGNED)),
        ("all", SIGNED),
    ],
)
def test_a_heat_map_holds_the_values_of_its_sign(sign, kept):
    (panel,) = panels(plot(made(inputs=()), sign=sign))
    np.testing.assert_array_equal(panel.images[0].get_array(), kept[0])


def test_values_have_the_colour_of_their_sign_whatever_is_left_out():
    for sign in ("all", "negative"):
        figure = plot(made(inputs=()), sign=sign)
        red, _, blue = seen(figure, panels(figure)[0], 0, 0)
        assert blue > red + 0.2
    figure = plot(made(inputs=()), sign="all")
    red, _, blue = seen(figure, panels(figure)[0], 3, 1)
    assert red > blue + 0.2


def test_a_masked_image_is_the_picture_times_the_strength():
    """As in Captum: strength is the part of the threshold, black where it is zero."""
    figure = plot(made(), method="masked_image", outlier_perc=0)
    _, panel = panels(figure)
    for row, column in np.ndindex(3, 4):
        expected = PICTURE[0, row, column] / 255 * abs(SIGNED[0, row, column]) / 4
        np.testing.assert_allclose(seen(figure, panel, column, row), expected, atol=0.01)
    assert panel.get_xticks().size == 0


def test_alpha_scaling_makes_the_picture_as_opaque_as_the_value_is_strong():
    figure = plot(made(), method="alpha_scaling", sign="positive", outlier_perc=0)
    _, panel = panels(figure)
    opacity = SIGNED[0].clip(min=0) / 4
    np.testing.assert_allclose(panel.images[0].get_array()[..., 3], opacity)
    np.testing.assert_allclose(panel.images[0].get_array()[..., :3], PICTURE[0] / 255)
    np.testing.assert_allclose(seen(figure, panel, 0, 0), 1, atol=0.01)  # the paper
    np.testing.assert_allclose(seen(figure, panel, 3, 1), PICTURE[0, 1, 3] / 255, atol=0.01)


@pytest.mark.parametrize("method", ["masked_image", "alpha_scaling"])
def test_what_shows_no_sign_refuses_both_and_tells_the_default(method):
    with pytest.raises(PlotError, match=r"sign='all'.*'absolute_value'"):
        plot(made(), method=method, sign="all")
    figure = plot(made(), method=[method, "heat_map"])
    titles = [text.get_text() for text in figure.texts]
    assert f"{method.replace('_', ' ')}, absolute" in [title.replace("\n", " ") for title in titles]


@pytest.mark.parametrize("method", ["blended_heat_map", "original_image", "masked_image", "alpha_scaling"])
def test_what_needs_a_picture_says_so(method):
    with pytest.raises(PlotError, match=f"{method}.*images="):
        plot(made(inputs=()), method=method, sign="positive")


def test_several_methods_stand_side_by_side_each_with_its_sign():
    methods = ["original_image", "heat_map", "masked_image"]
    figure = plot(made(), method=methods, sign=["all", "negative", "positive"])
    first, heat, mask = panels(figure)
    assert len(bars(figure)) == 2, "a picture alone has no scale"
    assert first.get_position().x0 < heat.get_position().x0 < mask.get_position().x0
    np.testing.assert_array_equal(heat.images[0].get_array(), SIGNED[0].clip(max=0))
    with pytest.raises(PlotError, match="as many signs"):
        plot(made(), method=methods, sign=["all", "negative"])


def test_a_colour_map_of_the_users_has_the_strongest_negative_values_at_its_end():
    """As in Captum, where the sign is taken off first."""
    scale = scale_of(np.array([-2.0, 0.0]), "negative", Style(cmap="Blues"), signed=False)
    expected = [matplotlib.colormaps["Blues"](x)[:3] for x in (1.0, 0.0)]
    np.testing.assert_allclose(scale.color(np.array([-2.0, 0.0])), expected)


def test_a_coarse_map_is_stretched_over_the_whole_picture_and_it_is_said():
    photo = np.full((1, 28, 20, 3), 0.5)
    coarse = np.zeros((1, 7, 5))
    coarse[0, 0, 4] = 1.0
    figure = plot(made(coarse, (photo,)), interpolation="nearest", show_input=False)
    (panel,) = panels(figure)
    colours = panel.images[0].get_array()
    assert colours.shape == (28, 20, 3)
    is_grey = np.isclose(colours, 0.5).all(-1)
    assert not is_grey[:4, 16:].any()
    assert is_grey[4:].all() and is_grey[:, :16].all()
    assert "maps of 7 × 5 values, not interpolated" in [text.get_text() for text in figure.texts]
    smooth = plot(made(coarse, (photo,)))
    assert "maps of 7 × 5 values, interpolated" in [text.get_text() for text in smooth.texts]
    heat = plot(made(coarse, (photo,)), method="heat_map")
    assert panels(heat)[1].images[0].get_array().shape == (7, 5), "a heat map shows the values that there are"


def test_what_is_as_fine_as_its_picture_is_a_heat_map_unless_something_is_said():
    assert panels(plot(made()))[1].images[0].get_array().ndim == 2
    assert panels(plot(made(SIGNED[:, :, ::2])))[1].images[0].get_array().shape == (3, 4, 3)


def test_stretching_keeps_places_and_values():
    values = np.array([[0.0, 1.0]])
    np.testing.assert_allclose(stretch(values, (1, 8), "bilinear")[0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    np.testing.assert_array_equal(stretch(values, (2, 4), "nearest"), [[0, 0, 1, 1]] * 2)
    constant = np.full((3, 5), 0.1)
    np.testing.assert_array_equal(stretch(constant, (30, 77), "bilinear"), np.full((30, 77), 0.1))


def test_values_that_are_not_finite_are_pink_also_over_a_picture():
    values = SIGNED.copy()
    values[0, 0, 0] = np.nan
    for method in ("heat_map", "blended_heat_map", "masked_image", "alpha_scaling"):
        figure = plot(made(values), method=method, sign="positive")
        np.testing.assert_allclose(seen(figure, panels(figure)[1], 0, 0), (1, 0, 1), atol=0.01)


def test_one_bright_value_among_many_is_ringed():
    """A pixel of a large map is smaller than what anybody sees."""
    values = np.full((1, 100, 120), 1e-6)
    values[0, 20, 30] = 1.0
    figure = plot(made(values, inputs=()))
    (panel,) = panels(figure)
    (ring,) = panel.lines
    np.testing.assert_allclose(ring.get_xydata()[0], (30.5 / 120, 1 - 20.5 / 100))
    assert "1 of 12000" in panel.texts[0].get_text()
    assert not panels(plot(made(np.ones((1, 100, 120)), inputs=())))[0].lines
