"""Many samples: where the points are, in which order the features, in which colours the cells."""

from __future__ import annotations

import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.beeswarm import draw_beeswarm, spread
from cfi_matplotlib.plotting import plot

pytestmark = pytest.mark.filterwarnings("error")


def make(values, names=None, cells=None) -> Attribution:
    inputs = {} if cells is None else {"inputs": (cells,), "input_dims": (("sample", "feature"),)}
    return Attribution(values, ("sample", "feature"), "kernel_shap", "shap", feature_names=names, **inputs)


def swarms(figure) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, values and colours of each row, from the top."""
    axis = figure.axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    drawn = [(np.asarray(one.get_offsets()), one.get_facecolors()) for one in axis.collections]
    for row, (points, _) in enumerate(drawn):
        assert np.abs(points[:, 1] - row).max() < 0.5, "rows do not run into each other"
    return [(name, points[:, 0], colors) for name, (points, colors) in zip(names, drawn, strict=True)]


def test_features_are_sorted_by_mean_size_and_points_lie_at_their_values():
    values = np.random.default_rng(0).normal(size=(40, 3)) * [1.0, -5.0, 0.1]
    shown = swarms(draw_beeswarm(make(values, ("a", "b", "c"))))
    assert [name for name, _, _ in shown] == ["b", "a", "c"]
    for (_, points, _), column in zip(shown, (1, 0, 2), strict=True):
        np.testing.assert_array_equal(points, values[:, column])


def test_cells_are_coloured_from_low_to_high_and_grey_where_they_are_no_numbers():
    cells = np.empty((20, 3), object)
    cells[:, 0], cells[:, 1], cells[:, 2] = np.arange(20.0), "word", [None, *range(19)]
    values = np.tile([3.0, 2.0, 1.0], (20, 1)) + np.arange(20)[:, None] * 1e-3
    shown = {name: colors for name, _, colors in swarms(draw_beeswarm(make(values, ("n", "w", "m"), cells)))}
    low, high = shown["n"][0], shown["n"][-1]
    assert low[2] > low[0] and high[0] > high[2], "blue where low, red where high"
    assert (np.ptp(shown["w"][:, :3], axis=1) == 0).all() and np.ptp(shown["m"][0, :3]) == 0
    assert np.ptp(shown["m"][-1, :3]) > 0.3


@pytest.mark.parametrize("count", [3, 30, 300])
def test_what_is_beyond_is_summed(count):
    values = np.random.default_rng(0).normal(size=(9, count))
    names = tuple(f"{i} is a name of more than sixty letters, which goes on and on until it ends" for i in range(count))
    figure = draw_beeswarm(make(values, names), max_features=5)
    shown = swarms(figure)
    assert len(shown) == min(count, 6)
    if count > 6:
        assert shown[-1][0] == f"sum of {count - 5} others"
        np.testing.assert_allclose(sum(points for _, points, _ in shown), values.sum(1))
    figure.canvas.draw()
    assert min(label.get_window_extent().x0 for label in figure.axes[0].get_yticklabels()) >= 0


def test_points_of_one_value_are_spread_and_others_are_not():
    np.testing.assert_array_equal(spread(np.array([0.0, 1.0])), [0, 0])
    together = spread(np.ones(9))
    assert len(set(together)) == 9 and np.abs(together).max() <= 0.4 and abs(together.sum()) < 0.1


def test_many_samples_of_a_table_are_a_beeswarm_by_default():
    values = np.random.default_rng(0).normal(size=(40, 3))
    assert len(swarms(plot(make(values, ("a", "b", "c"))))) == 3
    assert len([axis for axis in plot(make(values, ("a", "b", "c")), samples=[0, 7]).axes if axis.patches]) == 2


def test_what_must_not_be_overlooked():
    values = np.random.default_rng(0).normal(size=(9, 3))
    values[2, 1] = np.nan
    assert "1 of 27 values are not finite" in draw_beeswarm(make(values)).get_supxlabel()
    figure = draw_beeswarm(make(np.zeros((9, 3))))
    assert figure.get_supxlabel() == "all values are zero" and figure.axes[0].get_xlim() == (-1, 1)
    with pytest.raises(PlotError, match="None of the values is finite"):
        draw_beeswarm(make(values * np.nan))
    with pytest.raises(PlotError, match="one value for each sample and feature"):
        draw_beeswarm(Attribution(np.ones((1, 2, 2)), ("sample", "height", "width"), "x", "y"))


@pytest.mark.parametrize("options", [{"width": 1}, {"max_features": 0}, {"cmap": "plaid"}, {"samples": []}])
def test_options_that_do_not_fit(options):
    with pytest.raises(PlotError, match=next(iter(options))):
        draw_beeswarm(make(np.ones((3, 3))), **options)
