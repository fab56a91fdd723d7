"""Tokens as text: what is written, where, and on which colour, read back from the figure."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.plotting import plot
from cfi_matplotlib.text import draw_text
from cfi_matplotlib.words import is_right_to_left, read_tokens

pytestmark = pytest.mark.filterwarnings("error")


def written(tokens, values=None):
    """The text as it reads."""
    pieces = read_tokens(tokens, np.ones(len(tokens)) if values is None else values)
    return "".join(" " * piece.space + piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("[CLS] un ##believ ##able , isn ' t it ? [SEP]", "[CLS] unbelievable, isn't it? [SEP]"),
        ("a well - made film ( if long ) .", "a well-made film (if long)."),
        ("Hello Ġworld , Ġcaf Ã© Ġis Ċ nice", "Hello world, café is ⏎nice"),
        ("<s> ▁Das ▁Bei spiel . </s>", "<s> Das Beispiel. </s>"),
        ("un lucky</w> day</w>", "unlucky day"),
        ("plain words", "plain words"),
    ],
)
def test_words_read_as_they_were_written(tokens, text):
    assert written(tokens.split(" ")) == text


def test_padding_without_values_is_written_once():
    tokens = ["good", *["[PAD]"] * 5]
    assert written(tokens, [1, 0, 0, 0, 0, 0]) == "good [PAD] ×5"
    assert written(tokens, [1, 0, 0, 0, 0, 2]) == "good [PAD] ×4 [PAD]"
    assert written(["a", "a", "a", "a"], [0, 0, 0, 0]) == "a a a a"
    assert written(["a", "", ""], [1, 0, 0]) == "a" and written(["a", ""], [1, 1]).startswith("a ")


def test_a_letter_in_two_tokens_of_bytes_is_marked():
    assert written(["ĠðŁĺ", "Ģ"]) == " \ufffd\ufffd".strip()


def make(values, names, dims=("sample", "token"), **facts):
    facts = {"method_key": "saliency", "toolset": "press", "target": 1} | facts
    return Attribution(values=values, dims=dims, feature_names=names, **facts)


def texts(figure):
    figure.canvas.draw()
    axes = figure.axes[0]
    return {text.get_text(): text for text in axes.texts}


def box_of(figure, text):
    """The coloured box around the middle of a text."""
    place = texts(figure)[text].get_position()
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    (found,) = [box for box in boxes if box.get_bbox().contains(*place)]
    return found


def test_each_token_lies_on_the_colour_of_its_value():
    figure = plot(make(np.array([[2.0, -1.0, 0.0]]), ("good", "bad", "so")))
    colors = matplotlib.colormaps["RdBu_r"]
    for text, share in {"good": 1.0, "bad": 0.25, "so": 0.5}.items():
        np.testing.assert_allclose(box_of(figure, text).get_facecolor(), colors(share))
    (bar,) = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert [tick.get_text() for tick in bar.get_xticklabels()] == ["-2", "0", "2"]


def test_samples_are_rows_with_their_targets():
    names = (("good", "film"), ("bad", "film"))
    found = texts(plot(make(np.ones((2, 2)), names, provenance={"target": ((1,), (0,)), "classes": ("yes", "no")})))
    assert "sample 0 · target 1 'yes'" in found and "sample 1 · target 0 'no'" in found
    one = texts(plot(make(np.ones((2, 2)), names, provenance={"target": (1,), "classes": ("yes",)})))
    assert "target 1 'yes' · native" in one and {"sample 0", "sample 1"} <= set(one)
    assert "bad" not in texts(plot(make(np.ones((2, 2)), names), samples=[0]))
    assert "the first 1 of 2 samples are shown" in texts(plot(make(np.ones((2, 2)), names), max_samples=1))


def test_lines_stay_on_the_page_whatever_the_number_of_tokens():
    for count in (1, 200):
        names = tuple(f"word{place}" for place in range(count))
        figure = draw_text(make(np.ones((1, count)), names), width=6)
        boxes = [patch.get_bbox() for patch in figure.axes[0].patches]
        assert len(boxes) == count and min(box.x0 for box in boxes) >= 0 and max(box.x1 for box in boxes) <= 6
        height = figure.get_size_inches()[1]
        assert min(box.y0 for box in boxes) >= 0 and max(box.y1 for box in boxes) <= height
        corners = np.array([(box.x0, box.y0) for box in boxes])
        assert len(np.unique(corners.round(3), axis=0)) == count  # none on another
        assert len({round(box.y0, 3) for box in boxes}) == (1 if count == 1 else len({round(y, 3) for _, y in corners}))
    long = draw_text(make(np.ones((1, 2)), ("x" * 500, "y")), width=6)
    assert max(patch.get_bbox().x1 for patch in long.axes[0].patches) <= 6


def test_scripts_from_the_right_begin_there():
    figure = plot(make(np.ones((1, 2)), ("שלום", "עולם")))
    first, second = (box_of(figure, text).get_x() for text in ("שלום", "עולם"))
    assert first > second and not is_right_to_left(read_tokens(["a", "שלום", "bcdef"], [1, 1, 1]))


@pytest.mark.parametrize("names", [("😀👩‍👩‍👧", "你好"), ("$x^2$", "\n"), ("\ud800", ""), ("a\u0301", "\u200f")])
def test_no_letter_breaks_the_picture(names, tmp_path):
    plot(make(np.ones((1, 2)), names)).savefig(tmp_path / "a.png")


def test_embeddings_are_summed_and_it_is_said():
    values = np.array([[[1.0, 2.0], [4.0, -5.0]]])
    figure = plot(make(values, ("good", "bad"), ("sample", "token", "embedding")))
    np.testing.assert_allclose(box_of(figure, "bad").get_facecolor(), matplotlib.colormaps["RdBu_r"](0.5 - 1 / 6))
    assert "sum over embedding" in texts(figure)


def test_several_inputs_one_below_the_other():
    names, axes = {"a": ("good",), "b": ("bad",)}, ("sample", "token")
    both = make({"a": np.ones((1, 1)), "b": np.ones((1, 1))}, names, {"a": axes, "b": axes})
    assert {"good", "bad"} <= set(texts(plot(both)))


def test_what_must_not_be_overlooked():
    assert "all values are zero" in texts(plot(make(np.zeros((1, 1)), ("a",))))
    assert "1 of 2 values are not finite" in texts(plot(make(np.array([[1, np.nan]]), ("a", "b"))))


def test_refusals():
    with pytest.raises(PlotError, match="no tokens with names"):
        draw_text(make(np.ones((1, 2)), None))
    with pytest.raises(PlotError, match="must name at least one of the 1 samples"):
        plot(make(np.ones((1, 1)), ("a",)), samples=[3])
    with pytest.raises(PlotError, match="width must be"):
        draw_text(make(np.ones((1, 1)), ("a",)), width=1)
    with pytest.raises(PlotError, match="is not a matplotlib colour map"):
        draw_text(make(np.ones((1, 1)), ("a",)), cmap="none")
