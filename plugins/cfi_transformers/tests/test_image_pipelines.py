"""Pipelines of images: values come home on the user's pixels, where resizing and cropping is all that was done."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Occlusion, Saliency
from PIL import Image
from transformers import CLIPImageProcessor, ViTImageProcessor

import cfi_core as cfi
from cfi_core.contract import Axes
from cfi_transformers.pictures import Pictures, Span, as_pictures, find_frame

IMAGES = [np.random.default_rng(seed).integers(0, 256, (40, 64, 3), np.uint8) for seed in (0, 1)]
HWC = ("sample", "height", "width", "channel")


def prepared(pipe):
    return torch.cat([pipe.preprocess(Image.fromarray(image))["pixel_values"] for image in IMAGES])


def test_a_crop_is_brought_home_to_the_bit(image_pipeline):
    pipe = image_pipeline("resnet", CLIPImageProcessor(do_resize=False, crop_size={"height": 32, "width": 32}))
    found = cfi.attribute(pipe, "saliency", "captum", inputs=IMAGES, target="dog")
    own = Saliency(lambda x: pipe.model(x).logits).attribute(prepared(pipe).requires_grad_(), target=1, abs=False)
    expected = np.zeros((2, 40, 64, 3), np.float32)
    expected[:, 4:36, 16:48] = own.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found.values, expected)
    assert found.dims == HWC and found.input_dims == (HWC,)
    np.testing.assert_array_equal(found.inputs[0], np.stack(IMAGES))
    assert "rows 4 to 36 and columns 16 to 48" in found.provenance["preparation"]


def test_what_was_resized_keeps_its_sum_and_its_place(image_pipeline):
    pipe = image_pipeline("vit", ViTImageProcessor(size={"height": 32, "width": 32}))
    window = {"sliding_window_shapes": (3, 8, 8), "strides": (3, 8, 8)}
    for given in (IMAGES, np.stack(IMAGES), [Image.fromarray(image) for image in IMAGES]):
        found = cfi.attribute(pipe, "occlusion", "captum", inputs=given, target="dog", exec_args=window)
        own = Occlusion(lambda x: pipe.model(x).logits).attribute(prepared(pipe), target=1, **window).numpy()
        # Patch by patch: 8 × 8 of the model's pixels are 10 × 16 of the user's.
        ours = found.values.reshape(2, 4, 10, 4, 16, 3).sum((2, 4))
        theirs = own.reshape(2, 3, 4, 8, 4, 8).sum((3, 5)).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_map_keeps_its_values(image_pipeline):
    pipe = image_pipeline("resnet", CLIPImageProcessor(do_resize=False, crop_size={"height": 32, "width": 32}))
    layer = pipe.model.resnet.encoder.stages[0]
    found = cfi.attribute(pipe, "grad_cam", "captum", inputs=IMAGES, target="dog", layer=layer)
    own = LayerGradCam(lambda x: pipe.model(x).logits, layer).attribute(prepared(pipe), target=1).detach().numpy()[:, 0]
    cell = 32 // own.shape[-1]
    expected = np.zeros((2, 40, 64))
    expected[:, 4:36, 16:48] = own.repeat(cell, 1).repeat(cell, 2)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-7)
    assert found.dims == ("sample", "height", "width")


def test_axes_are_those_of_the_users_picture(image_pipeline):
    pipe = image_pipeline("vit", ViTImageProcessor(size={"height": 32, "width": 32}))
    last = cfi.attribute(pipe, "saliency", "captum", inputs=IMAGES[0], target=1)
    first = cfi.attribute(pipe, "saliency", "captum", inputs=IMAGES[0].transpose(2, 0, 1), target=1)
    assert first.dims == ("sample", "channel", "height", "width")
    np.testing.assert_allclose(first.values.transpose(0, 2, 3, 1), last.values, rtol=1e-5, atol=1e-7)


def test_what_stays_is_told(image_pipeline):
    padded = image_pipeline("resnet", CLIPImageProcessor(do_resize=False, crop_size={"height": 80, "width": 80}))
    found = cfi.attribute(padded, "saliency", "captum", inputs=IMAGES, target=1)
    assert found.values.shape == (2, 3, 80, 80)
    assert "not by resizing and cropping alone" in found.provenance["preparation"]
    plain = image_pipeline("vit", ViTImageProcessor(size={"height": 32, "width": 32}))
    found = cfi.attribute(plain, "saliency", "captum", inputs=[IMAGES[0], IMAGES[0][:30]], target=1)
    assert found.values.shape == (2, 3, 32, 32) and "different sizes" in found.provenance["preparation"]
    layer = cfi.attribute(plain, "layer_activation", "captum", inputs=IMAGES, layer="vit.layernorm")
    assert "values are on the pixels that the model was given" in layer.provenance["preparation"]


def test_inputs_by_name_are_given_to_the_model_inside(image_pipeline):
    pipe = image_pipeline("vit", ViTImageProcessor(size={"height": 32, "width": 32}))
    found = cfi.attribute(pipe, "saliency", "captum", inputs={"pixel_values": prepared(pipe)}, target=1)
    assert found.values.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("given", "said"),
    [([IMAGES[0] / 255], "An array of float64"), (["no such file"], "Incorrect image source"), ([], "inputs is empty")],
)
def test_refusals(image_pipeline, given, said):
    pipe = image_pipeline("vit", ViTImageProcessor(size={"height": 32, "width": 32}))
    with pytest.raises(cfi.InputError, match=said):
        cfi.attribute(pipe, "saliency", "captum", inputs=given, target=1)


# where pixels come from


@pytest.mark.parametrize("shape", [(480, 640, 3), (51, 37, 3), (3, 40, 64)])
def test_frames_are_those_of_the_processor(shape):
    """Resized so that the shorter side has 72 pixels, of which the middle 64 are left."""
    height, width = (size for size in shape if size != 3)
    short = min(height, width)
    processor = CLIPImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64})
    rows, columns = find_frame(
        np.zeros(shape, np.uint8), lambda image: processor(images=image, return_tensors="np")["pixel_values"][0]
    )
    for span, size in ((rows, height), (columns, width)):
        resized = int(72 * size / short)
        assert span.count == 64 and span.step == pytest.approx(size / resized, rel=1e-12)
        assert span.start == pytest.approx((resized - 64) // 2 * size / resized, abs=1e-9)


def flip(image):
    return image[:, ::-1].transpose(2, 0, 1) / 255


def turn(image):
    return image.transpose(2, 1, 0) / 255


def grey(image):
    return image.mean(-1)[None] / 255


def blank(image):
    return np.zeros((3, 8, 8))


@pytest.mark.parametrize("prepare", [flip, turn, grey, blank])
def test_what_is_more_than_resizing_and_cropping_is_found(prepare):
    assert find_frame(np.zeros((40, 64, 3), np.uint8), prepare) is None


def test_shares_add_up():
    span = Span(size=10, start=1.5, step=1.75, count=4)
    np.testing.assert_allclose(span.shares(4).sum(0), 1, rtol=1e-12)
    np.testing.assert_allclose(span.shares(2).sum(0), 1, rtol=1e-12)
    inside = span.covers(4).sum(1)
    np.testing.assert_allclose(inside, [0, 0.5, 1, 1, 1, 1, 1, 1, 0.5, 0], rtol=1e-12)


def test_only_values_of_pixels_come_home():
    pictures = Pictures(IMAGES, lambda image: image.transpose(2, 0, 1) / 255)
    assert pictures.bring_home(np.zeros((2, 5)), ("sample", "unit"), Axes.LAYER) is None
    assert pictures.bring_home(np.zeros((2, 4, 8, 8)), ("sample", "channel", "height", "width"), Axes.LAYER) is None
    assert as_pictures(Image.fromarray(IMAGES[0]))[0].shape == (40, 64, 3)
