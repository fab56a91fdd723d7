"""Columns as bars: which, in which order, of which length, under which words."""

from __future__ import annotations

import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.plotting import plot
from cfi_matplotlib.table import draw_table

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ("age", "income", "job", "note", "since")
VALUES = np.array([[0.5, -0.25, 0.0, 1.5, -2.0], [0.1, 0.2, 0.3, 0.4, 0.5]])


def cells() -> np.ndarray:
    found = np.empty((2, 5), object)
    found[0] = [31, 39019.77, "pilot", "slow and  rude", np.datetime64("2020-01-05")]
    found[1] = [52, float("nan"), None, "a very long text that goes on and on", np.datetime64("2021-01-05")]
    return found


def make(values=VALUES, names=NAMES, **settings) -> Attribution:
    inputs = settings.pop("inputs", (cells(),))
    return Attribution(
        values, ("sample", "feature"), "kernel_shap", "shap", inputs=inputs, feature_names=names, **settings
    )


def panels(figure) -> list:
    return [axis for axis in figure.axes if axis.axison]


def bars(axis) -> dict[str, float]:
    labels = [label.get_text() for label in axis.get_yticklabels()]
    return dict(zip(labels, [bar.get_width() for bar in axis.patches], strict=True))


def test_bars_are_sorted_and_say_name_and_cell():
    first, second = panels(draw_table(make()))
    assert list(bars(first).items()) == [
        ("since = 2020-01-05", -2.0),
        ("note = “slow and rude”", 1.5),
        ("age = 31", 0.5),
        ("income = 39020", -0.25),
        ("job = pilot", 0.0),
    ]
    assert list(bars(second)) == [
        "since = 2021-01-05",
        "note = “a very long text that g…”",
        "job = missing",
        "income = missing",
        "age = 52",
    ]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the strongest on top
    assert first.get_xlim() == second.get_xlim()
    assert [axis.get_title() for axis in (first, second)] == ["sample 0", "sample 1"]


def test_what_is_beyond_is_summed():
    (axis,) = panels(draw_table(make(), samples=[0], max_features=2))
    assert list(bars(axis).items())[-1] == ("sum of 3 others", 0.25)
    assert len(bars(axis)) == 3
    (axis,) = panels(draw_table(make(), samples=[0], max_features=4))  # one alone has a bar of its own
    assert len(bars(axis)) == 5


def test_the_first_plotter_draws_named_features_so(tmp_path):
    assert bars(panels(plot(make(), samples=[1]))[0])["age = 52"] == 0.1
    plot(make()).savefig(tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 5000
    assert "age" in bars(panels(draw_table(make(), show_cells=False))[0])


def test_names_without_cells_and_names_of_each_sample():
    assert list(bars(panels(draw_table(make(inputs=())))[1])) == ["since", "note", "job", "income", "age"]
    own = make(names=(NAMES, tuple(name.upper() for name in NAMES)), inputs=())
    assert "AGE" in bars(panels(draw_table(own))[1])


def test_a_few_features_without_names_have_their_positions():
    (axis,) = panels(plot(make(names=None, inputs=()), samples=[0]))
    assert list(bars(axis))[:2] == ["feature 4", "feature 3"]


def test_long_names_keep_both_ends_and_are_not_cut_off():
    names = tuple(f"the mean over all measurements of the quantity number {i:03d}" for i in range(5))
    figure = draw_table(make(names=names, inputs=()))
    assert next(iter(bars(panels(figure)[0]))) == "the mean over all meas…number 004"
    figure.canvas.draw()
    for axis in panels(figure):
        assert min(label.get_window_extent().x0 for label in axis.get_yticklabels()) >= 0
        low, high = (axis.transData.transform((end, 0))[0] for end in axis.get_xlim())
        assert all(
            low - 1 <= text.get_window_extent().x0 and text.get_window_extent().x1 <= high + 1 for text in axis.texts
        )


def test_what_the_model_predicts_is_not_cut_off():
    predicted = [{"class": 2, "name": "a long name of a class", "value": 0.25, "kind": "probability"}] * 2
    figure = draw_table(make(provenance={"predicted": predicted}))
    figure.canvas.draw()
    for axis in panels(figure):
        assert "a long name" in " ".join(axis.get_title().split())
        told = axis.title.get_window_extent()
        assert told.x0 >= 0
        assert told.x1 <= figure.bbox.x1


def test_values_of_groups_do_not_say_cells_that_are_not_theirs():
    inputs = np.arange(10.0).reshape(2, 5)
    grouped = make(names=None, inputs=(inputs,), provenance={"exec_args": {"feature_mask": "[4, 3, 2, 1, 0]"}})
    assert next(iter(bars(panels(draw_table(grouped))[0]))) == "feature 4"
    assert next(iter(bars(panels(draw_table(make(names=None, inputs=(inputs,))))[0]))) == "feature 4 = 4"


def test_many_samples_are_cut_and_told():
    many = make(np.ones((20, 5)), inputs=())
    figure = draw_table(many)
    assert len(panels(figure)) == 8
    assert "the first 8 of 20 samples are shown" in figure.get_supxlabel()


def test_what_must_not_be_overlooked():
    broken = VALUES.copy()
    broken[0, 2] = np.nan
    (axis,) = panels(draw_table(make(broken, inputs=()), samples=[0]))
    assert next(iter(bars(axis))) == "job"
    assert any("nan" in text.get_text() for text in axis.texts)
    (axis,) = panels(draw_table(make(np.zeros((1, 5)), inputs=())))
    assert any("all values are zero" in text.get_text() for text in axis.texts)
    strange = make(names=("$x^2", "a_b", "$\\frac", "#", "日本"), inputs=())
    assert "$\\frac" in bars(panels(draw_table(strange))[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": [2]}, r"samples=\[2\] must name at least one of the 2 samples"),
        ({"samples": []}, r"samples=\[\] must name"),
        ({"max_features": 0}, "must be at least 2 inches, max_features"),
        ({"width": 1}, "width must be"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(PlotError, match=message):
        draw_table(make(), **options)


def test_what_is_no_table():
    with pytest.raises(PlotError, match="one value for each sample and feature"):
        draw_table(Attribution(np.ones((1, 2, 2)), ("sample", "height", "width"), "x", "y"))
    with pytest.raises(PlotError, match="None of the values is finite"):
        draw_table(make(np.full((2, 5), np.nan)))
