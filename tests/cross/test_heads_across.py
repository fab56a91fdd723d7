"""Where a softmax is explained has one meaning on every route."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import zoom
from shared_cnn import Twins, apart

import cfi_core as cfi

TARGET = 2


def slow_score_cam(model: Any, images: np.ndarray) -> np.ndarray:
    """One masked image at a time; the weight is what the model gives for it, as it is."""
    import keras

    activation = np.asarray(keras.Model(model.inputs, model.get_layer("conv2").output)(images))
    maps = np.zeros(activation.shape[:3])
    for sample, image in enumerate(images):
        for channel in range(activation.shape[-1]):
            map_ = activation[sample, :, :, channel]
            mask = zoom(map_, [big / small for big, small in zip(image.shape, map_.shape, strict=False)], order=1)
            mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-7)
            maps[sample] += map_ * np.asarray(model((image * mask[:, :, None])[None]))[0, TARGET]
    return maps


@pytest.mark.parametrize("head", ["output", "logit"])
@pytest.mark.parametrize("translator", ["native", "bridge", "conversion"])
def test_score_cam_weighs_by_the_probability_once(softmax_twins: Twins, translator: str, head: str) -> None:
    native = translator == "native"
    model = softmax_twins.keras_model if native else softmax_twins.torch_model
    inputs = softmax_twins.last if native else softmax_twins.first
    arguments: dict[str, Any] = {} if native else {"translator": translator}
    result = cfi.attribute(
        model, "score_cam", "tf-keras-vis", inputs=inputs, target=TARGET, layer="conv2", head=head, **arguments
    )
    assert isinstance(result, cfi.Attribution)
    assert apart(slow_score_cam(softmax_twins.keras_model, softmax_twins.last), result.values) < 1e-4


@pytest.mark.parametrize("translator", [None, "conversion"])
def test_tf_keras_vis_s_own_users_are_told_of_its_second_softmax_on_every_route(
    softmax_twins: Twins, translator: str | None
) -> None:
    with pytest.warns(cfi.ModelWarning, match="softmaxes of probabilities"):
        cfi.attribute(
            softmax_twins.torch_model,
            "score_cam",
            "tf-keras-vis",
            inputs=softmax_twins.first[:1],
            target=TARGET,
            layer="conv2",
            translator=translator,
            defaults="toolset",
        )
