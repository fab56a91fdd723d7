"""Each test shows a fault of tf-explain that is worked around; when one fails, the workaround can go."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from tf_explain.core.activations import ExtractActivations
from tf_explain.core.grad_cam import GradCAM
from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity
from tf_explain.core.smoothgrad import SmoothGrad
from tf_explain.core.vanilla_gradients import VanillaGradients
from tfexplain_models import build, pictures

from cfi_tfexplain.workarounds import GREY, own_tool, patches


def test_the_map_of_an_oblong_image_is_transposed_and_its_patches_are_elsewhere() -> None:
    """One bright pixel in the last row alone counts: no patch of tf-explain's covers it."""
    first = keras.Input((9, 4, 3))
    model = keras.Model(first, keras.layers.Flatten()(keras.layers.Cropping2D(((8, 0), (3, 0)))(first)))
    image = np.zeros((9, 4, 3), np.float32)
    image[8, 3] = 1
    found = OcclusionSensitivity().get_sensitivity_map(model, image, 0, 2)
    assert found.shape == (4, 9)  # of an image of 9 × 4
    assert not found.any()  # 1 less a score of 1, wherever the patch is
    covered = np.sum(patches((9, 4, 3), 2), axis=0)
    np.testing.assert_array_equal(covered, np.ones((9, 4, 3)))  # ours cover each pixel once


def test_patches_are_those_of_tf_explain_on_a_square() -> None:
    masks = patches((4, 4, 3), 2)
    seen = []
    first = keras.Input((4, 4, 3))
    model = keras.Model(first, keras.layers.Flatten()(first))
    model.predict = lambda batch, batch_size: seen.append(batch) or np.zeros((len(batch), 1))
    OcclusionSensitivity().get_sensitivity_map(model, np.zeros((4, 4, 3), np.float32), 0, 2)
    np.testing.assert_array_equal(sorted(map(tuple, np.reshape(masks, (4, -1)))), sorted(map(tuple, flat(seen[0]))))


def flat(batch: Any) -> Any:
    return (batch == GREY).reshape(len(batch), -1)


def test_noise_is_drawn_from_the_global_generator() -> None:
    before = np.random.get_state()[1].copy(), np.random.get_state()[2]
    SmoothGrad.generate_noisy_images(pictures(), 2, 1.0)
    after = np.random.get_state()[1], np.random.get_state()[2]
    assert not (np.array_equal(before[0], after[0]) and before[1] == after[1])
    np.random.seed(3)
    expected = SmoothGrad.generate_noisy_images(pictures(), 2, 1.0)
    found = own_tool("SmoothGrad", 3, compiled=False).generate_noisy_images(pictures(), 2, 1.0)
    np.testing.assert_array_equal(found, expected)


def test_a_compiled_function_holds_a_graph_of_every_model() -> None:
    before = VanillaGradients.compute_gradients.experimental_get_tracing_count()
    for _ in range(2):
        VanillaGradients.compute_gradients(pictures(), build(), 0)
    assert VanillaGradients.compute_gradients.experimental_get_tracing_count() == before + 2
    own = own_tool("VanillaGradients", 0, compiled=True).compute_gradients
    own(pictures(), build(), 0)
    assert own.experimental_get_tracing_count() == 1
    assert VanillaGradients.compute_gradients.experimental_get_tracing_count() == before + 2


def test_grad_cam_reads_a_layer_where_it_was_first_called() -> None:
    layer = keras.layers.Conv2D(2, 3, name="conv")
    keras.Sequential([keras.Input((9, 9, 3)), layer])
    first = keras.Input((6, 5, 3))
    model = keras.Model(first, keras.layers.GlobalAveragePooling2D()(layer(first)))
    with pytest.raises(ValueError, match="not connected"):
        GradCAM.get_gradients_and_filters(model, pictures(2, (6, 5)), "conv", 1, False)


def test_grad_cam_lists_a_list_of_inputs() -> None:
    with pytest.warns(UserWarning, match="The structure of `inputs`"):
        GradCAM.get_gradients_and_filters(build(), pictures(), "conv2", 1, False)


def test_grad_cam_takes_one_class_for_all_samples() -> None:
    with pytest.raises((TypeError, ValueError)), pytest.warns(UserWarning, match="structure of `inputs`"):
        GradCAM.get_gradients_and_filters(build(), pictures(), "conv2", [1, 2, 0], False)


def test_a_sequential_model_fails() -> None:
    with pytest.raises(AttributeError, match="no defined output"):
        GradCAM().explain((pictures(), None), build("sequential"), 1, "conv2")
    with pytest.raises(AttributeError, match="no defined output"):
        SmoothGrad().explain((pictures(), None), build("sequential"), 1)


@pytest.mark.parametrize(
    "draw",
    [
        lambda data, model: OcclusionSensitivity().explain(data, model, 1, 5),
        lambda data, model: ExtractActivations().explain(data, model, ["conv1"]),
    ],
)
def test_predict_prints_a_progress_bar(draw: Any, capfd: Any) -> None:
    draw((pictures(), None), build())
    assert capfd.readouterr().out
