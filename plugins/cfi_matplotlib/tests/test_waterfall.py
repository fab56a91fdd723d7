"""Waterfalls: from the output at the baseline to that of the sample, read back from the figure."""

from __future__ import annotations

import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.waterfall import draw_waterfall

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ("age", "income", "job", "note", "since")
VALUES = np.array([[0.5, -0.25, 0.0, 1.5, -2.0], [0.1, 0.2, 0.3, 0.4, 0.5]])
STARTS = np.array([0.75, 2.0])


def make(values=VALUES, lacking=0.0, names=NAMES, **settings) -> Attribution:
    starts = np.resize(STARTS, len(values))
    ends = {"at_baselines": tuple(starts), "at_inputs": tuple(starts + values.sum(1) + lacking), "gap": 0.0}
    settings = {"provenance": {"completeness": ends, "explained": "the logit: the model's final softmax"}} | settings
    return Attribution(values, ("sample", "feature"), "kernel_shap", "shap", feature_names=names, **settings)


def panels(figure) -> list:
    return [axis for axis in figure.axes if axis.axison]


def bars(axis) -> list[tuple[str, float, float]]:
    """Label, left end and width, from the top."""
    labels = [label.get_text() for label in axis.get_yticklabels()]
    return [(label, bar.get_x(), bar.get_width()) for label, bar in zip(labels, axis.patches, strict=True)]


def words(figure) -> str:
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return " ".join(text.get_text() for text in found).replace("\n", " ")


def test_the_bars_lead_from_the_baseline_to_the_output():
    for axis, values, start in zip(panels(draw_waterfall(make())), VALUES, STARTS, strict=True):
        shown = bars(axis)
        assert [label for label, _, _ in shown] == [NAMES[i] for i in np.argsort(-np.abs(values), kind="stable")]
        at = start
        for _, left, width in reversed(shown):
            assert left == pytest.approx(at)
            at += width
        assert at == pytest.approx(start + values.sum())
        assert axis.get_title().endswith(f"logit: {at:.4g}") and f"{start:.4g}" in axis.get_xlabel()


@pytest.mark.parametrize("count", [3, 30, 300])
def test_what_is_beyond_is_one_bar_and_the_sum_is_kept(count):
    values = np.random.default_rng(0).normal(size=(1, count))
    names = tuple(f"{i} is a name of more than sixty letters, which goes on and on until it ends" for i in range(count))
    figure = draw_waterfall(make(values, names=names), max_features=4)
    (axis,) = panels(figure)
    shown = bars(axis)
    assert len(shown) == min(count, 5)
    assert STARTS[0] + sum(width for _, _, width in shown) == pytest.approx(STARTS[0] + values.sum())
    if count > 5:
        assert shown[-1][0] == f"sum of {count - 4} others"
    figure.canvas.draw()
    left = min(label.get_window_extent().x0 for label in axis.get_yticklabels())
    assert left >= 0, "no name is cut off"


def test_what_does_not_add_up_is_hatched_and_told():
    figure = draw_waterfall(make(lacking=0.4))
    (first, _) = panels(figure)
    label, left, width = bars(first)[-1]
    assert label == "not explained" and [left, width] == pytest.approx([STARTS[0], 0.4])
    assert first.patches[-1].get_hatch()
    assert "the values of sample 0, sample 1 do not add up" in words(figure)
    assert "not explained" not in words(draw_waterfall(make(lacking=1e-5)))


def test_zeros_and_negative_values_are_drawn():
    for values in (np.zeros((1, 3)), -np.ones((1, 3))):
        (axis,) = panels(draw_waterfall(make(values, names=None)))
        assert [label for label, _, _ in bars(axis)] == ["feature 0", "feature 1", "feature 2"]
        low, high = axis.get_xlim()
        assert low < STARTS[0] + values.sum() < high and low < STARTS[0] < high


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"gap": None, "why": "saliency promises no sum"}, "no waterfall of kernel_shap: saliency promises no sum"),
        (None, "its provenance does not tell the outputs"),
        ({"gap": 0.0, "against": "f(inputs)"}, "its provenance does not tell the outputs"),
    ],
)
def test_without_both_outputs_there_is_none(found, message):
    with pytest.raises(PlotError, match=message):
        draw_waterfall(make(provenance={"completeness": found}))


def test_groups_of_features_are_refused():
    """Each feature has the value of its group, which would count several times."""
    given = make().provenance | {"exec_args": {"feature_mask": "[0, 0, 1, 1, 2]"}}
    with pytest.raises(PlotError, match="no waterfall of groups"):
        draw_waterfall(make(provenance=given))


def test_what_adds_up_to_nothing_is_refused():
    with pytest.raises(PlotError, match="not finite add up to nothing"):
        draw_waterfall(make(VALUES * np.nan))
    with pytest.raises(PlotError, match="one value for each sample and feature"):
        draw_waterfall(Attribution(np.ones((1, 2, 2)), ("sample", "height", "width"), "x", "y"))


@pytest.mark.parametrize("options", [{"width": 1}, {"max_features": 0}, {"max_samples": 0}, {"samples": [9]}])
def test_options_that_do_not_fit(options):
    with pytest.raises(PlotError, match=next(iter(options))):
        draw_waterfall(make(), **options)
