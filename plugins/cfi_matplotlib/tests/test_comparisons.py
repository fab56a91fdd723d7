"""Several attributions in one figure: what stands in which cell, under which words, on which scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cfi_core.attribution import Attribution, Outlets, plot_together
from cfi_core.errors import PlotError
from cfi_core.specs import PlotterSpec
from cfi_matplotlib.comparisons import side_by_side
from cfi_matplotlib.differences import common_heading, titles_of
from cfi_matplotlib.plugin import cfi_plotters

pytestmark = pytest.mark.filterwarnings("error")

NCHW, FEATURES = ("sample", "channel", "height", "width"), ("sample", "feature")


def random(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


def make(values, dims=NCHW, **facts):
    facts = {"method_key": "saliency", "toolset": "press", "target": 3} | facts
    return Attribution(values, dims, **facts)


IMAGES = np.random.default_rng(4).uniform(size=(2, 3, 6, 4))
GIVEN = {"inputs": (IMAGES,), "input_dims": (NCHW,)}


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>" and axis.axison]


def words(figure):
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return " ".join(text.get_text() for text in found).replace("\n", " ")


def test_rows_are_samples_and_columns_are_the_input_and_each_attribution():
    one = make(random(2, 3, 6, 4), **GIVEN)
    two = make(random(2, 3, 2), ("sample", "height", "width"), layer="conv", **GIVEN)
    figure = side_by_side([one, two], method="heat_map")
    cells = panels(figure)
    assert [axis.get_title() for axis in cells[:3]] == ["input", "inputs", "layer conv"] and len(cells) == 6
    for row in (0, 1):
        shown = cells[3 * row : 3 * row + 3]
        np.testing.assert_allclose(shown[0].images[0].get_array(), IMAGES[row].transpose(1, 2, 0))
        np.testing.assert_allclose(shown[1].images[-1].get_array(), one.values[row].sum(0))
        np.testing.assert_array_equal(shown[2].images[-1].get_array(), two.values[row])
    assert "saliency · press · target 3 · native" in words(figure) and "sum over channels" in words(figure)


@pytest.mark.parametrize(
    ("scale", "signed"), [("column", [False, True]), ("cell", [False, True]), ("figure", [True, True])]
)
def test_a_difference_has_two_signs_also_where_it_is_zero_or_positive(scale, signed):
    """A scale from black to 0…1, for what another one was taken away from, tells of values where there are none."""
    one = make(np.abs(random(2, 6, 4)), ("sample", "height", "width"), **GIVEN)
    rest = replace(one, values=0 * one.values, provenance={"applied": {"subtracted": "two"}})
    figure = side_by_side([one, rest], ["one", "one − two"], scale=scale, method="heat_map")
    shown = [axis.images[-1] for axis in panels(figure)[1:3]]
    assert [image.norm.vmin < 0 for image in shown] == signed
    middle = shown[1].cmap(shown[1].norm(0.0))
    np.testing.assert_allclose(middle[:3], 0.967, atol=0.01)


def test_the_originals_are_shown_and_names_are_those_that_are_given():
    photos = (np.random.default_rng(5).uniform(size=(2, 6, 4, 3)) * 255).astype(np.uint8)
    one = make(random(2, 3, 6, 4), **GIVEN, provenance={"target": (3,)})
    figure = side_by_side([one, replace(one, method_key="lime")], images=photos, target_names={3: "cat"})
    first, *_ = panels(figure)
    assert first.get_title() == "original"
    np.testing.assert_allclose(first.images[0].get_array(), photos[0] / 255, atol=1e-6)
    assert "target 3 “cat”" in words(figure)


@pytest.mark.parametrize(("scale", "ends"), [("cell", 4), ("column", 2), ("figure", 1)])
def test_what_shares_a_scale(scale, ends):
    values = random(2, 6, 4)
    small, large = (make(values * [[[1]], [[3]]] * factor, ("sample", "height", "width")) for factor in (1, 100))
    figure = side_by_side([small, large], titles=["a", "b"], scale=scale, outlier_perc=0)
    assert len({axis.images[-1].norm.vmax for axis in panels(figure)}) == ends


def test_features_are_in_one_order_for_all():
    one, two = np.array([[0.1, -0.5, 0.2]]), np.array([[90.0, -1.0, 20.0]])
    figure = side_by_side([make(one, FEATURES), make(two, FEATURES, method_key="lime")])
    first, second = panels(figure)
    assert [label.get_text() for label in first.get_yticklabels()] == ["feature 0", "feature 1", "feature 2"]
    np.testing.assert_allclose([bar.get_width() for bar in first.patches], [0.1, -0.5, 0.2])
    np.testing.assert_allclose([bar.get_width() for bar in second.patches], [90, -1, 20])
    cut = side_by_side([make(one, FEATURES), make(two, FEATURES, method_key="lime")], max_features=1)
    np.testing.assert_allclose([bar.get_width() for bar in panels(cut)[1].patches], [90, 19])


def test_series_have_a_column_each():
    dims = ("sample", "position", "channel")
    given = {"inputs": (random(2, 8, 1),), "input_dims": (dims,)}
    one, two = make(random(2, 8, 1), dims, **given), make(random(2, 4), dims[:2], layer="conv", **given)
    figure = side_by_side([one, two])
    shown = [axis.images[0].get_array()[0] for axis in panels(figure)]
    for found, expected in zip(
        shown, (one.values[0, :, 0], two.values[0], one.values[1, :, 0], two.values[1]), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert "4 steps of layer conv are stretched evenly over the 8" in words(figure)


def test_texts_stand_below_each_other():
    names = ("a", "film")
    one = make(np.array([[1.0, -1.0]]), ("sample", "token"), feature_names=names)
    figure = side_by_side([one, replace(one, method_key="lime")])
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts.count("film") == 2 and {"saliency", "lime"} <= set(texts)


def test_other_kinds_are_drawn_by_their_own_plotter():
    volume, table = make(random(1, 4, 6, 8), ("sample", "depth", "height", "width")), make(random(1, 3), FEATURES)
    figure = side_by_side([volume, replace(volume, method_key="lime")])
    assert len(panels(figure)) == 0 and len(figure.axes) == 2
    assert len(side_by_side([volume, table]).axes) == 2


def test_what_differs_stands_above_the_columns_and_what_not_above_the_figure():
    one = make(random(1, 3), FEATURES, provenance={"target": (3,), "classes": ("cat",), "seed": 1})
    dog = replace(one, provenance={"target": (5,), "classes": ("dog",), "seed": 1})
    assert titles_of([one, dog], None) == ["target 3 “cat”", "target 5 “dog”"]
    assert common_heading([one, dog]) == "saliency · press · native"
    both = replace(one, provenance={"target": ((3,), (3,)), "classes": ("cat", "cat")})
    assert common_heading([both, both]) == "saliency · press · target 3 “cat” · native"
    assert common_heading([replace(one, target=[1, 2], provenance={})] * 2) == "saliency · press · native"
    other = replace(one, toolset="paint", route=("there",))
    assert titles_of([one, other], None) == ["press · native", "paint · there"]
    assert common_heading([one, other]) == "saliency · target 3 “cat”"
    assert titles_of([one, replace(one, provenance={**one.provenance, "seed": 2})], None) == ["seed=1", "seed=2"]
    assert titles_of([one, one], None) == ["1", "2"]
    assert titles_of([one, one], ["x", "y"]) == ["x", "y"]


def test_it_is_the_plotter_of_several():
    outlets = Outlets(plotters={spec.name: spec for spec in cfi_plotters()})
    assert [spec for spec in outlets.plotters.values() if spec.several] == [
        PlotterSpec(name="side-by-side", implementation="cfi_matplotlib.comparisons:side_by_side", several=True)
    ]
    one = make(random(1, 3), FEATURES, outlets=outlets)
    figure = plot_together([one, replace(one, method_key="lime")], titles=["x", "y"], max_features=2)
    assert [axis.get_title() for axis in panels(figure)] == ["x", "y"]
    assert len(panels(one.plot("side-by-side"))) == 1


def test_what_cannot_stand_side_by_side():
    one = make(random(1, 3), FEATURES)
    with pytest.raises(PlotError, match="takes a sequence of attributions"):
        side_by_side([])
    with pytest.raises(PlotError, match="images= are the pictures behind maps"):
        side_by_side([one], images=np.zeros((1, 4, 4, 3)))
    with pytest.raises(PlotError, match="have 1, 2 samples"):
        side_by_side([one, make(random(2, 3), FEATURES)])
    with pytest.raises(PlotError, match="must hold a title for each of the 2"):
        side_by_side([one, one], titles=["x"])
    with pytest.raises(PlotError, match="None of the values is finite"):
        side_by_side([make(random(1, 3) * np.nan, FEATURES)])


@pytest.mark.parametrize(
    "options",
    [
        {"scale": "row"},
        {"max_samples": 0},
        {"max_features": 0},
        {"alpha_overlay": 2},
        {"samples": [4]},
        {"cmap": "plaid"},
    ],
)
def test_options_that_do_not_fit(options):
    with pytest.raises(PlotError, match=next(iter(options))):
        side_by_side([make(random(1, 6, 4), ("sample", "height", "width"))], **options)
