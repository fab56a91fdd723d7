"""Values of tokens laid out over the image, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from cfi_core.contract import Axes
from cfi_core.framework import Layout, Placed
from cfi_core.laying import OTHERS, lay_out, unshow
from cfi_core.testing.fake import NetworkAdapter

GRID = Placed(Layout((2, 3), (1, 2, 3, 4, 5, 6), 2, others=(0,)), ("height", "width"), ("class token",), "by its count")
PLAIN = Placed(Layout((2, 3), tuple(range(6)), 1), ("height", "width"), (), "as it stands")
TOKENS = np.arange(2 * 7 * 4.0).reshape(2, 7, 4)
ORIGINAL = SimpleNamespace(adapter=NetworkAdapter(), model=None)
DIMS = ("sample", "token", "channel")


def call(**more):
    return SimpleNamespace(
        **{"placed": {"a": GRID, "b": PLAIN}, "layer_shapes": {"a": TOKENS.shape}, "original": ORIGINAL, **more}
    )


def carried(*, shown=False):
    return SimpleNamespace(shown=shown, cut=False)


def test_tokens_lie_on_their_grid_and_others_apart():
    found = lay_out(call(), ["a"], carried(), Axes.LAYER, [TOKENS], [DIMS])
    np.testing.assert_array_equal(found.values[0], TOKENS[:, 1:].reshape(2, 2, 3, 4))
    assert found.dims == (("sample", "height", "width", "channel"),)
    np.testing.assert_array_equal(found.extras[OTHERS], TOKENS[:, :1])
    assert found.told["a"] == {
        "size": (2, 3),
        "found": "by its count",
        OTHERS: "class token: their values, by channel",
    }


def test_maps_keep_their_axes_and_get_their_names():
    maps, dims = np.zeros((2, 4, 2, 3)), ("sample", "channel", "axis_2", "axis_3")
    found = lay_out(call(), ["b", "a"], carried(), Axes.LAYER, [maps, TOKENS], [dims, DIMS])
    assert found.values[0] is maps and found.dims[0] == ("sample", "channel", "height", "width")
    assert found.values[1].shape == (2, 2, 3, 4) and set(found.told) == {"a", "b"}
    unplaced = lay_out(call(placed={}), ["a"], carried(), Axes.LAYER, [TOKENS], [DIMS])
    assert unplaced.values[0] is TOKENS and unplaced.dims == (DIMS,) and not unplaced.told and not unplaced.extras


def test_what_is_no_value_of_a_layer_stays():
    image = np.zeros((2, 3, 5, 5))
    found = lay_out(call(), ["a"], carried(), Axes.INPUT, [image], [("sample", "channel", "height", "width")])
    assert found.values[0] is image and found.told["a"]["size"] == (2, 3) and not found.extras
    weights = np.zeros((2, 7))
    assert lay_out(call(), ["a"], carried(), Axes.LAYER, [weights], [DIMS[:2]]).values[0] is weights


def test_a_shown_layer_without_other_tokens_has_nothing_apart():
    found = lay_out(call(), ["b"], carried(shown=True), Axes.LAYER_MAP, [np.zeros((2, 2, 3))], [("sample", "y", "x")])
    assert not found.extras and found.dims == (("sample", "y", "x"),) and OTHERS not in found.told["b"]


def test_a_layer_that_was_shown_as_a_map_gets_its_own_axes_again():
    shown = np.arange(2 * 4 * 2 * 3.0).reshape(2, 4, 2, 3)  # channels in front, as the toolset wants them
    values, names = unshow(call(), "a", 1, shown, DIMS)
    np.testing.assert_array_equal(values, shown.transpose(0, 2, 3, 1))
    assert names == ("sample", "height", "width", "channel")
    values, names = unshow(call(), "a", 1, shown[:, 0], DIMS)
    np.testing.assert_array_equal(values, shown[:, 0])
    assert names == ("sample", "height", "width")


@pytest.mark.parametrize(("axes", "places"), [((0, 2, 1), (1, 2, 3, 4, 5, 6)), (None, (1, 2, 3, 4, 5, 6))])
def test_layouts_of_turned_outputs(axes, places):
    layout = GRID.layout.turned(axes, TOKENS.shape)
    turned = TOKENS if axes is None else TOKENS.transpose(axes)
    assert layout.order == places and layout.channel == (2 if axes is None else 1)
    np.testing.assert_array_equal(layout.in_space(turned), GRID.layout.in_space(TOKENS))
    np.testing.assert_array_equal(layout.elsewhere(turned), TOKENS[:, :1])
    assert GRID.layout.back == (6, 0, 1, 2, 3, 4, 5) and not GRID.layout.is_plain and PLAIN.layout.is_plain
