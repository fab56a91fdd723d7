"""Each test shows a fault of tf-keras-vis that is worked around; when one fails, the workaround can go."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from cfi_tfkerasvis.workarounds import (
    STEPS_LIMIT,
    ActivationMaximization,
    CategoricalScore,
    Gradcam,
    GradcamPlusPlus,
    Layercam,
    Norm,
    ReplaceToLinear,
    Rotate2D,
    Saliency,
    Scorecam,
    fresh_optimizer,
    from_layer,
    gives_its_own,
    own_names,
    seeded_modifiers,
)

# tf-keras-vis passes a list of one where the model was built from a tensor, of which Keras warns.
pytestmark = pytest.mark.filterwarnings("ignore:The structure of `inputs`:UserWarning")

CAM = {"expand_cam": False, "normalize_cam": False, "seek_penultimate_conv_layer": False}


def test_import_warns_of_deprecation() -> None:
    statement = "from scipy.ndimage.interpolation import zoom"
    assert statement in inspect.getsource(sys.modules[GradcamPlusPlus.__module__])
    with pytest.warns(DeprecationWarning, match=r"removed in SciPy 2\.0"):
        exec(statement)


def test_replace_to_linear_fails_on_a_sequential(cnn: Any) -> None:
    with pytest.raises(AttributeError, match="output_names"):
        Saliency(cnn("sequential", "softmax"), model_modifier=ReplaceToLinear())


def test_cams_fail_on_a_nested_model(images: Any) -> None:
    first, outer = keras.Input((10, 8, 3)), keras.Input((10, 8, 3))
    backbone = keras.Model(first, keras.layers.Conv2D(3, 3)(first), name="backbone")
    model = keras.Model(outer, keras.layers.Dense(4)(keras.layers.Flatten()(backbone(outer))))
    with pytest.raises(ValueError, match="not connected"):
        GradcamPlusPlus(model)(CategoricalScore(1), images, "backbone", **CAM)


def test_score_cam_leaves_its_compiled_function_and_a_progress_bar(
    cnn: Any, images: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    model = cnn()
    Scorecam(model)(CategoricalScore(0), images, "conv2", **CAM)
    assert model.predict_function is not None
    assert capfd.readouterr().out


def test_score_cam_lets_samples_choose_each_others_maps(cnn: Any, images: Any) -> None:
    tool = Scorecam(cnn())
    keras.config.disable_interactive_logging()
    try:
        batch = tool(CategoricalScore(1), images, "conv2", max_N=2, **CAM)
        alone = [tool(CategoricalScore(1), images[i : i + 1], "conv2", max_N=2, **CAM) for i in range(3)]
    finally:
        keras.config.enable_interactive_logging()
    assert not np.allclose(batch, np.concatenate(alone), rtol=1e-3)


def test_grad_cam_plus_plus_drops_the_relu_of_its_weights_with_that_of_its_map(cnn: Any, images: Any) -> None:
    tool = GradcamPlusPlus(cnn())
    with_both = tool(CategoricalScore(1), images, "conv2", **CAM)
    with_none = tool(CategoricalScore(1), images, "conv2", activation_modifier=None, **CAM)
    assert not np.allclose(np.maximum(with_none, 0), with_both, rtol=1e-3)


@pytest.mark.parametrize(("shift", "wrong"), [(100.0, np.isnan), (-150.0, lambda values: values == 0)])
def test_grad_cam_plus_plus_overflows(cnn: Any, images: Any, shift: float, wrong: Any) -> None:
    model = cnn()
    model.get_layer("head").bias.assign_add([shift] * 4)
    assert wrong(np.asarray(GradcamPlusPlus(model)(CategoricalScore(1), images, "conv2", **CAM))).all()


def test_the_environment_limits_samples(cnn: Any, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setenv(STEPS_LIMIT, "2")

    def counting(gradient: Any) -> Any:
        calls.append(1)
        return gradient

    Saliency(cnn())(CategoricalScore(0), images, smooth_samples=5, gradient_modifier=counting)
    assert len(calls) == 2


def test_rotations_cannot_be_seeded(images: Any) -> None:
    def rotated(seeded: bool) -> Any:
        np.random.seed(0)
        tf.random.set_seed(0)
        modifier = Rotate2D(degree=20)
        return (seeded_modifiers(modifier, 7) if seeded else modifier)(images)

    assert not np.array_equal(rotated(seeded=False), rotated(seeded=False))
    np.testing.assert_array_equal(rotated(seeded=True), rotated(seeded=True))


def test_of_two_regularizers_of_one_name_one_is_dropped(cnn: Any) -> None:
    tool = ActivationMaximization(cnn())
    two = [Norm(weight=1.0, p=1), Norm(weight=2.0, p=2)]
    (kept,) = tool._get_regularizers(two).values()
    assert len(kept) == 1
    (kept,) = tool._get_regularizers(own_names(two)).values()
    assert len(kept) == 2
    assert [regularizer.name for regularizer in two] == ["Norm", "Norm"]


def test_an_optimizer_serves_once(cnn: Any, images: Any) -> None:
    tool = ActivationMaximization(cnn())
    optimizer = keras.optimizers.Adam(0.5)
    tool(CategoricalScore(0), images, steps=1, optimizer=optimizer)
    with pytest.raises(ValueError, match="Unknown variable"):
        tool(CategoricalScore(0), images, steps=1, optimizer=optimizer)
    again = fresh_optimizer(optimizer)
    tool(CategoricalScore(0), images, steps=1, optimizer=again)
    assert again.learning_rate == optimizer.learning_rate


class GoneBack(keras.layers.Layer):
    """Hands on, and counts how often a gradient comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def call(self, x: Any) -> Any:
        @tf.custom_gradient
        def hand_on(x: Any) -> Any:
            def gradient(given: Any) -> Any:
                self.count += 1
                return given

            return tf.identity(x), gradient

        return hand_on(x)


@pytest.mark.parametrize("tool", [Gradcam, GradcamPlusPlus, Layercam])
def test_cams_go_back_behind_their_layer(tool: Any, images: Any) -> None:
    x = keras.Input((10, 8, 3))
    counts = GoneBack()
    h = keras.layers.Conv2D(4, 3, padding="same")(counts(x))
    layer = keras.layers.Conv2D(4, 3, padding="same", activation="tanh")
    y = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Add()([layer(h), h])))  # a path around the layer
    model = keras.Model(x, y)
    assert gives_its_own(model, layer)
    plain = tool(model)(CategoricalScore(1), images, layer, **CAM)
    assert counts.count == 1
    ended = from_layer(tool, layer)(model)(CategoricalScore(1), images, layer, **CAM)
    assert counts.count == 1
    np.testing.assert_array_equal(ended, plain)


def test_a_layer_that_hands_on_its_input_may_give_what_others_take() -> None:
    x = keras.Input((10, 8, 3))
    h = keras.layers.Conv2D(4, 3)(x)
    shared, alone = keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)
    y = keras.layers.Add()([alone(shared(h)), h])
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(y)))
    assert not gives_its_own(model, shared)
    assert gives_its_own(model, alone)
