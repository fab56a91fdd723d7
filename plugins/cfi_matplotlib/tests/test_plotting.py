"""The plotter: what is drawn is read back from the figure."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.plotting import plot

pytestmark = pytest.mark.filterwarnings("error")

NCHW = ("sample", "channel", "height", "width")
NHWC = ("sample", "height", "width", "channel")


def attribution(values, dims, **facts):
    facts = {"method_key": "saliency", "toolset": "press", "target": 3} | facts
    return Attribution(values=values, dims=dims, **facts)


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


def panels(figure):
    """The axes that hold pictures or curves: all but colour bars and the empty cells of a grid."""
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>" and axis.axison]


def maps(figure):
    """The heat maps, which hold their values."""
    return [axis.images[-1] for axis in panels(figure) if axis.images[-1].get_array().ndim == 2]


def colorbars(figure):
    return [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]


def words(figure):
    figure.canvas.draw()
    found = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return "\n".join(found)


def test_pyplot_is_not_imported():
    code = (
        "import sys; import numpy as np;"
        "from cfi_core.attribution import Attribution; from cfi_matplotlib.plotting import plot;"
        "plot(Attribution(np.ones((1, 4, 4)), ('sample', 'height', 'width'), 'saliency', 'press')).canvas.draw();"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_figure_can_be_rendered_without_pyplot():
    figure = plot(attribution(random(1, 3, 6, 4), NCHW))
    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()
    assert np.ptp(np.asarray(figure.canvas.buffer_rgba())) > 0


@pytest.mark.parametrize("dims", [NCHW, NHWC])
def test_channels_are_summed_in_either_layout(dims):
    values = random(2, 3, 6, 4)
    inputs = random(2, 3, 6, 4)
    order = [NCHW.index(name) for name in dims]
    whole = attribution(values.transpose(order), dims, inputs=(inputs.transpose(order),), input_dims=(dims,))
    figure = plot(whole, method="heat_map")
    drawn = [image.get_array() for image in maps(figure)]
    np.testing.assert_allclose(drawn, values.sum(axis=1), rtol=1e-12)
    assert len(panels(figure)) == 4, "the input beside each"
    assert len(colorbars(figure)) == 2
    assert "sum over channels" in words(figure)


def test_each_channel_on_request():
    values = random(1, 3, 6, 4)
    figure = plot(attribution(values, NCHW), channels="each")
    np.testing.assert_array_equal([image.get_array() for image in maps(figure)], values[0])
    assert [line for line in words(figure).splitlines() if line.startswith("channel")] == [
        f"channel {number}" for number in range(3)
    ]


def test_the_channels_of_a_layer_are_added_up_on_request():
    values = random(1, 30, 6, 4)
    (image,) = maps(plot(attribution(values, NCHW, layer="conv"), channels="sum"))
    np.testing.assert_allclose(image.get_array(), values[0].sum(0))


def test_a_signed_map_is_symmetric_around_zero():
    values = np.array([[[-1.0, 0.0], [2.0, 0.5]]])
    (image,) = maps(plot(attribution(values, ("sample", "height", "width"))))
    assert (image.norm.vmin, image.norm.vmax) == (-2.0, 2.0)
    red, _, blue, _ = image.cmap(image.norm(0.0))
    assert abs(red - blue) < 0.02  # the middle of the map has no colour


def test_all_rows_of_a_figure_have_one_kind_of_colour_map():
    values = np.abs(random(2, 4, 6))
    values[0] *= -1
    names = {image.cmap.name for image in maps(plot(attribution(values, ("sample", "height", "width"))))}
    assert len(names) == 1


def test_a_neurons_inputs_are_drawn_like_inputs():
    """Summed over channels, with the unit in the title, although the method looks at a layer."""
    values = random(1, 3, 4, 6)
    provenance = {"kind": "neuron", "neuron": (5, 1, 2)}
    figure = plot(attribution(values, NCHW, layer="conv2", provenance=provenance))
    (drawn,) = maps(figure)
    np.testing.assert_allclose(drawn.get_array(), values[0].sum(0))
    assert "layer conv2 · unit (5, 1, 2)" in words(figure)


def test_positive_values_start_at_zero_in_the_dark():
    (image,) = maps(plot(attribution(np.array([[[1.0, 2.0], [3.0, 4.0]]]), ("sample", "height", "width"))))
    assert (image.norm.vmin, image.norm.vmax) == (0.0, 4.0)
    assert sum(image.cmap(image.norm(0.0))[:3]) < 0.1


def test_negative_values_have_the_negative_colour_also_where_there_are_no_others():
    (image,) = maps(plot(attribution(np.array([[[-1.0, -2.0], [-3.0, -4.0]]]), ("sample", "height", "width"))))
    assert (image.norm.vmin, image.norm.vmax) == (-4.0, 4.0)
    red, _, blue, _ = image.cmap(image.norm(-4.0))
    assert blue > red + 0.2


def test_outliers_are_clipped_and_the_bar_says_so():
    values = np.ones((1, 40, 40))
    values[0, 0, 0] = 20.0
    figure = plot(attribution(values, ("sample", "height", "width")))
    (image,) = maps(figure)
    assert image.norm.vmax == 1.0
    assert [text.get_text() for text in colorbars(figure)[0].get_yticklabels()] == ["0", "0.5", "≥ 1"]
    figure = plot(attribution(values, ("sample", "height", "width")), outlier_perc=0)
    assert maps(figure)[0].norm.vmax == 20.0
    assert [text.get_text() for text in colorbars(figure)[0].get_yticklabels()] == ["0", "10", "20"]


def test_the_strongest_channels_of_a_layer_and_a_note():
    values = np.zeros((1, 2, 2, 30))
    values[..., 17], values[..., 4] = 3.0, -5.0
    figure = plot(attribution(values, NHWC, layer="conv"), max_panels=2)
    assert words(figure).index("channel 4\n") < words(figure).index("channel 17\n")
    np.testing.assert_array_equal([image.get_array()[0, 0] for image in maps(figure)], [-5.0, 3.0])
    assert "the strongest 2 of 30 channels are shown, which have 100% of the absolute values" in words(figure)


def test_a_grid_of_channels_is_no_wall():
    """One line for each of several samples."""
    values = random(4, 64, 7, 7)
    figure = plot(attribution(values, NCHW, layer="conv"))
    assert len(maps(figure)) == 4 * 5
    share = np.sort(np.abs(values).sum(axis=(0, 2, 3)))[-5:].sum() / np.abs(values).sum()
    assert f"the strongest 5 of 64 channels are shown, which have {share:.0%}" in words(figure).replace("\n", " ")
    assert len(maps(plot(attribution(values[:1], NCHW, layer="conv")))) == 11


def test_maps_of_one_value_are_bars_over_the_channels():
    values = random(1, 512, 1, 1)
    figure = plot(attribution(values, NCHW, layer="pool"))
    (axis,) = panels(figure)
    drawn = sum(patch.get_data().values for patch in axis.patches)
    np.testing.assert_array_equal(drawn, values[0, :, 0, 0])
    assert "1 × 1" in words(figure)


def test_samples_left_out_are_told():
    values = random(12, 4, 4)
    figure = plot(attribution(values, ("sample", "height", "width")))
    assert len(maps(figure)) == 8
    assert "8 of 12 samples" in words(figure)
    chosen = plot(attribution(values, ("sample", "height", "width")), samples=[11, 0])
    np.testing.assert_array_equal([image.get_array() for image in maps(chosen)], values[[11, 0]])


def test_several_inputs_and_layers_stand_beside_each_other():
    values = (random(2, 4, 4), random(2, 3, 3))
    dims = (("sample", "height", "width"),) * 2
    text = words(plot(attribution(values, dims, layer=("conv1", "conv2"))))
    assert "conv1" in text
    assert "conv2" in text
    text = words(plot(attribution(values, dims)))
    assert "input 0" in text
    assert "input 1" in text


def test_a_map_of_the_second_input_lies_over_the_second_input():
    inputs = (random(1, 1, 4, 4), random(1, 1, 6, 5))
    whole = attribution(inputs, (NCHW, NCHW), inputs=inputs, input_dims=(NCHW, NCHW))
    figure = plot(whole, show_input=False, method="blended_heat_map")
    assert [axis.images[0].get_array().shape for axis in panels(figure)] == [(4, 4, 3), (6, 5, 3)]


def test_a_feature_visualization_is_shown_as_the_image_it_is():
    values = random(1, 3, 6, 4)
    figure = plot(attribution(values, NCHW, provenance={"kind": "feature visualization"}))
    (panel,) = panels(figure)
    image = values[0].transpose(1, 2, 0)
    np.testing.assert_allclose(
        panel.images[0].get_array(), (image - image.min()) / (image.max() - image.min()), rtol=1e-12
    )
    assert not colorbars(figure)


def test_many_features_without_names_are_a_profile():
    values = np.tile([1.0, -2.0, 0.0], 20)[None]
    (axis,) = panels(plot(attribution(values, ("sample", "feature"))))
    positive, negative = axis.patches
    np.testing.assert_array_equal(positive.get_data().values, np.tile([1.0, 0.0, 0.0], 20))
    np.testing.assert_array_equal(negative.get_data().values, np.tile([0.0, -2.0, 0.0], 20))


@pytest.mark.parametrize("dims", [("sample", "channel", "position"), ("sample", "position", "channel")])
def test_series_are_one_line_for_each_channel(dims):
    values = random(1, 2, 9)
    order = [("sample", "channel", "position").index(name) for name in dims]
    (axis,) = panels(plot(attribution(values.transpose(order), dims)))
    np.testing.assert_array_equal([line.get_ydata() for line in axis.lines[:2]], values[0])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["channel 0", "channel 1"]


def test_one_value_for_each_sample_is_one_bar_chart():
    (axis,) = panels(plot(attribution(np.array([1.0, 2.0]), ("sample",))))
    np.testing.assert_array_equal(axis.patches[0].get_data().values, [1.0, 2.0])


def test_other_axes_are_a_plain_map_with_their_names():
    (axis,) = panels(plot(attribution(random(1, 5, 7), ("sample", "position", "feature"))))
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("position", "feature")


def test_the_title_tells_method_toolset_target_layer_and_route():
    facts = {
        "method_key": "grad_cam",
        "toolset": "tf-keras-vis",
        "layer": "a$b$",
        "route": ("there", "back again"),
    }
    text = words(plot(attribution(random(1, 4, 4), ("sample", "height", "width"), target=285, **facts)))
    for expected in ("grad_cam", "tf-keras-vis", "target 285", "layer a$b$", "there → back again"):
        assert expected in text


def test_each_sample_tells_its_own_target():
    values = random(2, 4, 4)
    assert "sample 1 · target 967" in words(plot(attribution(values, ("sample", "height", "width"), target=[285, 967])))


def test_an_all_zero_map_says_so():
    values = random(2, 4, 4)
    values[1] = 0.0
    text = words(plot(attribution(values, ("sample", "height", "width")))).replace("\n", " ")
    assert text.count("all values are zero") == 1


def test_values_that_are_not_finite_are_counted_in_the_picture():
    values = random(1, 4, 4)
    values[0, 0, :2] = np.nan, np.inf
    figure = plot(attribution(values, ("sample", "height", "width")))
    assert "2 of 16 values are not finite" in words(figure).replace("\n", " ")
    (image,) = maps(figure)
    assert np.isfinite(image.norm.vmax)


def test_nothing_finite_is_an_error():
    with pytest.raises(PlotError, match="none of its values is finite"):
        plot(attribution(np.full((1, 4, 4), np.nan), ("sample", "height", "width")))


@pytest.mark.parametrize(
    ("values", "dims", "message"),
    [
        (np.zeros((0, 4, 4)), ("sample", "height", "width"), "holds no values"),
        (np.zeros((1, 4)), ("sample", "height", "width"), "2 axes are named"),
        (np.zeros((1, 4), complex), ("sample", "feature"), "not real numbers"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(values, dims, message):
    with pytest.raises(PlotError, match=message):
        plot(attribution(values, dims))


@pytest.mark.parametrize(
    "options",
    [
        {"channels": "mean"},
        {"max_panels": 0},
        {"max_samples": 0},
        {"outlier_perc": 100},
        {"alpha_overlay": 2},
        {"panel_size": 0},
        {"cmap": "plaid"},
        {"cmap": 3},
        {"interpolation": "cubic"},
        {"method": "mask"},
        {"method": []},
        {"sign": "plus"},
        {"target_names": "cat"},
        {"samples": [7]},
        {"samples": []},
    ],
)
def test_options_that_do_not_fit_are_errors(options):
    with pytest.raises(PlotError, match=next(iter(options))):
        plot(attribution(random(2, 4, 4), ("sample", "height", "width")), **options)


def test_png_is_a_picture(tmp_path):
    plot(attribution(random(2, 4, 3), ("sample", "height", "width"))).savefig(tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")
    assert picture.ndim == 3
    assert np.ptp(picture[..., :3]) > 0.5


def test_png_of_nothing_finite_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(PlotError):
        plot(attribution(random(2, 4, 3) * np.nan, ("sample", "height", "width"))).savefig(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"sign": "positive"}, {"method": "heat_map"}, {"interpolation": "nearest"}])
@pytest.mark.parametrize("names", [None, ("a", "b", "c")])
def test_what_is_said_of_maps_is_not_passed_over_where_there_are_none(options, names):
    with pytest.raises(PlotError, match=f"{next(iter(options))}= say how maps"):
        plot(attribution(random(2, 3), ("sample", "feature"), feature_names=names), **options)


def test_names_in_other_scripts_are_written_or_boxes():
    figure = plot(attribution(random(1, 4, 4), ("sample", "height", "width"), layer="слой"), target_names={3: "猫 قط"})
    figure.canvas.draw()  # where a missing letter would be a warning
    assert "слой" in figure._suptitle.get_text()
