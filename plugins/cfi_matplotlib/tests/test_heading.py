"""Words above pictures: targets and predictions, with the names of classes."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.heading import heading_of, label_of_sample, with_names, wrap
from cfi_matplotlib.letters import width_of
from cfi_matplotlib.plotting import plot

NAMES = ("cat", "dog", "bird")


def made(**facts):
    facts = {"target": [0, 2]} | facts
    return Attribution(np.ones((2, 4, 4)), ("sample", "height", "width"), "saliency", "press", **facts)


def predictions(*pairs, kind="probability", names=(None, None)):
    return {
        "predicted": tuple(
            {"class": one, "name": name, "value": value, "kind": kind}
            for (one, value), name in zip(pairs, names, strict=True)
        )
    }


@pytest.mark.parametrize(
    "names", [NAMES, list(NAMES), np.array(NAMES), dict(enumerate(NAMES)), {"0": "cat", "2": "bird"}]
)
def test_names_of_classes_as_they_come(names):
    found = with_names(made(), names)
    assert label_of_sample(found, 0, 2) == "sample 0 · target 0 'cat'"
    assert label_of_sample(found, 1, 2) == "sample 1 · target 2 'bird'"


def test_names_stand_in_the_picture_for_one_target_too():
    figure = plot(made(target=1), target_names=NAMES)
    assert "target 1 'dog'" in figure._suptitle.get_text()


def test_too_few_names_are_refused_and_unknown_ones_left_out():
    with pytest.raises(PlotError, match=r"2 names.*class 2"):
        with_names(made(), NAMES[:2])
    assert label_of_sample(with_names(made(), {0: "cat"}), 1, 2) == "sample 1 · target 2"


def test_targets_that_are_no_classes_keep_their_words():
    assert "target None" not in heading_of(made(target=None))
    found = made(target=mean_of_all, provenance={"target": repr(mean_of_all)})
    assert "target mean_of_all ·" in heading_of(with_names(found, NAMES))


def mean_of_all(outputs):
    return outputs


def test_what_is_predicted_is_told_with_what_the_number_is():
    found = made(provenance=predictions((0, 0.93), (1, 0.5)))
    assert label_of_sample(found, 0, 2) == "sample 0 · target 0 (predicted, probability 0.93)"
    assert label_of_sample(found, 1, 2) == "sample 1 · target 2 · predicted 1 (probability 0.5)"
    found = made(provenance=predictions((0, 7.1), (1, 3.1), kind="output", names=("cat", "dog")))
    assert label_of_sample(found, 1, 2) == "sample 1 · target 2 · predicted 1 'dog' (output 3.1)"


def test_names_go_to_what_is_predicted_too():
    found = with_names(made(provenance=predictions((0, 0.93), (1, 0.5))), NAMES)
    assert label_of_sample(found, 0, 2) == "sample 0 · target 0 'cat' (predicted, probability 0.93)"
    assert label_of_sample(found, 1, 2) == "sample 1 · target 2 'bird' · predicted 1 'dog' (probability 0.5)"
    assert label_of_sample(made(provenance=predictions((0, 1.0), (1, 1.0))), 0, 5) == "sample 0 · target 0"


def test_lines_are_as_wide_as_they_may_be():
    text = "a WWWWWWWW iiiiiiiiiiiiii and.a.name.that.is.far.too.long.for.a.line 漢字"
    lines = wrap(text, 1.0, points=9).split("\n")
    assert all(width_of(line, 9) <= 1.0 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    path = TextPath((0, 0), "Hamburgefonts", size=12, prop=FontProperties())
    assert width_of("Hamburgefonts", 12) == pytest.approx(path.get_extents().width / 72, rel=0.05)
