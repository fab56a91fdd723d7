"""Attributions brought to the inputs, and arrays to Quantus's axes: permuted, never reshaped."""

from __future__ import annotations

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import Attribution
from cfi_quantus.alignment import Alignment
from cfi_quantus.layout import as_model, channels_first

FIRST = ("sample", "channel", "height", "width")
LAST = ("sample", "height", "width", "channel")
IMAGES = np.arange(2 * 4 * 5 * 3.0).reshape(2, 4, 5, 3)


def test_channels_come_first_and_go_home():
    layout = channels_first(LAST)
    shown = layout.show(IMAGES)
    assert shown.shape == (2, 3, 4, 5) and shown[1, 2, 3, 4] == IMAGES[1, 3, 4, 2]
    np.testing.assert_array_equal(layout.bring_home(shown), IMAGES)
    assert layout.show_map(IMAGES[..., 0]).shape == (2, 1, 4, 5)
    shown += 1  # a copy
    assert IMAGES[0, 0, 0, 0] == 0


def test_tables_get_a_channel():
    layout, rows = channels_first(("sample", "feature")), np.ones((2, 6))
    assert layout.show(rows).shape == (2, 1, 6) and layout.bring_home(layout.show(rows)).shape == (2, 6)


def test_axes_of_a_model_that_quantus_gets_itself():
    layout = as_model(LAST, (0, 3, 1, 2))
    assert layout.show(IMAGES).shape == (2, 3, 4, 5) and layout.channel == 1
    assert layout.show_map(IMAGES[..., 0]).shape == (2, 1, 4, 5)
    assert as_model(("sample", "feature"), None).channel is None
    with pytest.raises(cfi.MethodError, match="spatial axes in another order"):
        as_model(LAST, (0, 3, 2, 1)).show_map(IMAGES[..., 0])


@pytest.mark.parametrize(("how", "expected"), [("sum", 12.0), ("mean", 4.0), ("norm", np.sqrt(9 + 16 + 25))])
def test_channels_are_put_together_if_asked(how, expected):
    values = np.broadcast_to([3.0, 4, 5], IMAGES.shape)
    found = Alignment(LAST, channels=how).align("it", values, IMAGES.shape)
    assert found.is_map and found.applied == f"{how} over channels"
    np.testing.assert_allclose(found.array, np.full((2, 4, 5), expected))


def test_maps_of_another_size_are_stretched_if_asked():
    small = np.array([[[0.0, 4], [8, 12]]] * 2)
    with pytest.raises(cfi.InputError, match=r"a map of size \(2, 2\) for inputs of size \(4, 5\). Pass resize="):
        Alignment(LAST).align("it", small, IMAGES.shape)
    found = Alignment(LAST, resize="nearest").align("it", small, IMAGES.shape)
    np.testing.assert_array_equal(found.array[0], [[0, 0, 0, 4, 4]] * 2 + [[8, 8, 8, 12, 12]] * 2)
    found = Alignment(LAST, resize="bilinear").align("it", small, IMAGES.shape)
    assert found.applied == "resized (bilinear)" and 0 < found.array[0, 1, 2] < 12


def test_values_of_a_layer_are_refused():
    of_layer = Attribution(np.ones((2, 4, 5, 8)), LAST, "layer_activation", "captum", layer="conv")
    with pytest.raises(cfi.InputError, match="Pass attributions of the inputs, or a map over them"):
        Alignment(LAST).align("it", of_layer, IMAGES.shape)
    several = Attribution((IMAGES, IMAGES), (LAST, LAST), "saliency", "captum")
    with pytest.raises(cfi.InputError, match="several inputs or layers"):
        Alignment(LAST).align("it", several, IMAGES.shape)


def test_axes_that_are_swapped_are_refused():
    square = np.ones((2, 4, 4, 4))
    swapped = Attribution(square, FIRST, "saliency", "captum")
    with pytest.raises(cfi.InputError, match="have the axes"):
        Alignment(LAST).align("it", swapped, square.shape)
