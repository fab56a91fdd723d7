"""What lies behind maps: originals as they are given, and inputs of which it is told what they do not tell."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.pictures import agreement, image_of, read_images
from cfi_matplotlib.plotting import plot

pytestmark = pytest.mark.filterwarnings("error")

MAP = ("sample", "height", "width")
NHWC, NCHW = (*MAP, "channel"), ("sample", "channel", "height", "width")


def photographs(count=2, height=24, width=32):
    """Smooth pictures, each with edges of its own, whose red is everywhere stronger than its blue."""
    generator = np.random.default_rng(0)
    shapes = generator.random((count, 6, 8, 1)).repeat(height // 6, axis=1).repeat(width // 8, axis=2)
    return np.round(shapes * (220, 120, 40) + 10).astype(np.uint8)


PHOTOS = photographs()
CAFFE = PHOTOS[..., ::-1].astype(np.float32) - (103.9, 116.8, 123.7)


def made(inputs, dims=NHWC, shape=None, **facts):
    count, size = len(inputs), [inputs.shape[dims.index(name)] for name in ("height", "width")]
    values = np.random.default_rng(1).normal(size=(count, *(shape or size)))
    return Attribution(values, MAP, "saliency", "press", inputs=(inputs,), input_dims=(dims,), **facts)


def behind(figure):
    """The pictures beside the maps, and what stands above each."""
    titles = [text.get_text() for text in figure.texts]
    pictures = [axis.images[0].get_array() for axis in figure.axes if axis.get_label() != "<colorbar>"]
    return pictures[::2], titles


def words(figure):
    everything = [*figure.texts, *(text for axis in figure.axes for text in axis.texts)]
    return " ".join(text.get_text().replace("\n", " ") for text in everything)


@pytest.mark.parametrize(
    "inputs",
    [CAFFE, (PHOTOS / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225), CAFFE - 40],
    ids=["BGR, mean taken off", "standardised", "all negative"],
)
def test_a_preprocessed_photograph_is_not_drawn_in_false_colours_without_a_word(inputs):
    figure = plot(made(inputs))
    pictures, _ = behind(figure)
    for picture, sample in zip(pictures, inputs, strict=True):
        assert np.ptp(picture, axis=-1).max() < 1e-12, "grey"
        unit = (sample.mean(-1) - inputs.min()) / np.ptp(inputs)
        np.testing.assert_allclose(picture[..., 0], unit, atol=1e-9)
    assert "images= takes the original pictures" in words(figure)
    assert "input, in grey (" in words(figure)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (PHOTOS, "input"),
        (PHOTOS.astype(np.int64), "input"),
        (PHOTOS.astype(np.float32), "input"),
        (PHOTOS / 255, "input"),
        ((PHOTOS - 127.5) / 127.5, "input (−1 to 1)"),
    ],
    ids=["bytes", "whole numbers", "to 255", "to 1", "from -1 to 1"],
)
def test_values_from_black_to_white_are_shown_as_they_are(inputs, told):
    pictures, titles = behind(plot(made(inputs)))
    np.testing.assert_allclose(pictures, PHOTOS / 255, atol=1e-6)
    assert titles.count(told) == 2


def test_dark_inputs_are_brightened_and_it_is_told():
    pictures, titles = behind(plot(made(PHOTOS / 25500)))
    np.testing.assert_allclose(pictures, PHOTOS / PHOTOS.max(), atol=1e-6)
    assert f"input (0 to {PHOTOS.max() / 25500:.3g})" in titles


def test_many_channels_are_their_mean_and_one_is_grey():
    spectral = np.random.default_rng(2).random((1, 8, 12, 16))
    pictures, titles = behind(plot(made(spectral, NCHW)))
    np.testing.assert_allclose(pictures[0], spectral[0].mean(0)[..., None].repeat(3, -1), atol=1e-9)
    assert "input, mean of 8 channels" in titles
    pictures, titles = behind(plot(made(PHOTOS[..., :1])))
    np.testing.assert_allclose(pictures, (PHOTOS[..., :1] / 255).repeat(3, -1))


def test_inputs_that_are_not_finite_are_pink_and_counted():
    inputs = PHOTOS / 255
    inputs[0, :2, :3] = np.nan
    figure = plot(made(inputs))
    pictures, _ = behind(figure)
    np.testing.assert_array_equal(pictures[0][:2, :3].reshape(-1, 3), [(1, 0, 1)] * 6)
    assert "6 pixels of the input are not finite" in words(figure)


@pytest.mark.parametrize(
    "images",
    [
        PHOTOS,
        PHOTOS.transpose(0, 3, 1, 2),
        PHOTOS / 255,
        PHOTOS.astype(np.float32),
        [PHOTOS[0], PHOTOS[1] / 1.0],
        [Image.fromarray(one) for one in PHOTOS],
        [PHOTOS[0].transpose(2, 0, 1), PHOTOS[1]],
        [np.concatenate([one, np.full((24, 32, 1), 255, np.uint8)], -1) for one in PHOTOS],
    ],
    ids=["NHWC", "NCHW", "to 1", "to 255", "list", "PIL", "CHW", "opaque"],
)
def test_originals_of_every_form_are_shown_in_their_colours(images):
    figure = plot(made(CAFFE), images=images)
    pictures, titles = behind(figure)
    np.testing.assert_allclose(pictures, PHOTOS / 255, atol=1e-6)
    assert titles.count("original") == 2
    assert "grey" not in words(figure)
    assert "agrees" not in words(figure)


def test_originals_of_one_colour_and_of_other_sizes():
    small = [PHOTOS[0][::2, ::2], np.repeat(np.repeat(PHOTOS[1], 3, 0), 3, 1)]
    pictures, _ = behind(plot(made(CAFFE), images=small))
    assert [picture.shape for picture in pictures] == [(12, 16, 3), (72, 96, 3)]
    (grey,), _ = behind(plot(made(CAFFE[:1]), images=PHOTOS[0, ..., 0]))
    np.testing.assert_allclose(grey, (PHOTOS[0, ..., :1] / 255).repeat(3, -1))
    (one,), _ = behind(plot(made(CAFFE[:1]), images=PHOTOS[0]))
    np.testing.assert_allclose(one, PHOTOS[0] / 255)


def test_a_coarse_map_covers_the_whole_original():
    large = np.repeat(np.repeat(PHOTOS, 3, 1), 3, 2)
    figure = plot(made(CAFFE, shape=(3, 4)), images=large, interpolation="nearest")
    over = [axis.images[0].get_array() for axis in figure.axes if axis.get_label() != "<colorbar>"][1]
    assert over.shape == (72, 96, 3)
    tinted = (np.ptp(over, axis=-1) > 1e-3).reshape(3, 24, 4, 24)
    assert tinted.any(axis=(1, 3)).all(), "each of the 3 × 4 values has its part of the picture"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PHOTOS[:, :20], "20 × 32 pixels, and the model got 24 × 32"),
        (PHOTOS[:1], "1 pictures for 2 samples"),
        (CAFFE, "values from -.*not what the model gets"),
        ((PHOTOS / 255 - 0.45) / 0.22, "values from -.*not what the model gets"),
        ((PHOTOS - 127.5) / 127.5, "values from -.*not what the model gets"),
        (np.zeros((2, 24, 32, 5)), "1, 3 or 4 colours"),
        (["a.png", "b.png"], "arrays, tensors or PIL images"),
        (np.zeros((2, 24, 32), complex), "complex128"),
    ],
    ids=["another shape", "too few", "prepared", "standardised", "from -1", "five colours", "paths", "complex"],
)
def test_images_that_are_none_or_of_another_shape_are_refused(images, message):
    with pytest.raises(PlotError, match=message):
        plot(made(CAFFE), images=images)


def test_images_without_a_map_are_refused():
    table = Attribution(np.ones((2, 5)), ("sample", "feature"), "saliency", "press")
    with pytest.raises(PlotError, match="images= say how maps"):
        plot(table, images=PHOTOS)


def test_pictures_in_another_order_are_told():
    assert "agrees little with the input" in words(plot(made(CAFFE), images=PHOTOS[::-1]))
    assert agreement(PHOTOS[0] / 255, -CAFFE[0].mean(-1, keepdims=True)) > 0.95


def test_several_image_inputs_take_a_dict():
    inputs = (CAFFE, CAFFE[:, ::2, ::2])
    values = tuple(np.random.default_rng(1).normal(size=array.shape[:3]) for array in inputs)
    two = Attribution(values, (MAP, MAP), "saliency", "press", inputs=inputs, input_dims=(NHWC, NHWC))
    with pytest.raises(PlotError, match="dict"):
        plot(two, images=PHOTOS)
    figure = plot(two, images={0: PHOTOS, 1: PHOTOS[:, ::2, ::2]})
    assert [text.get_text() for text in figure.texts].count("original") == 4


def test_transparent_pixels_are_white():
    clear = np.zeros((4, 4, 4), np.uint8)
    np.testing.assert_array_equal(read_images([clear], 1, (4, 4), [0])[0], np.ones((4, 4, 3)))
    np.testing.assert_allclose(read_images([np.full((4, 4), 65535, np.uint16)], 1, (4, 4), [0])[0], 1.0)


def test_what_resizing_adds_beyond_black_and_white_is_cut():
    resized = PHOTOS / 255
    resized[0, 0, 0], resized[0, 0, 1] = -0.03, 1.02
    for shown in (behind(plot(made(resized)))[0], behind(plot(made(CAFFE), images=resized))[0]):
        np.testing.assert_allclose(shown, resized.clip(0, 1), atol=1e-9)


def test_the_image_behind_a_sample_is_as_the_figure_shows_it():
    np.testing.assert_allclose(image_of(made(PHOTOS), 0, 1, 2), PHOTOS[1] / 255)
    assert np.ptp(image_of(made(CAFFE), 0, 1, 2), axis=-1).max() < 1e-12
    assert image_of(Attribution(np.ones((2, 3, 3)), MAP, "saliency", "press"), 0, 0, 2) is None
