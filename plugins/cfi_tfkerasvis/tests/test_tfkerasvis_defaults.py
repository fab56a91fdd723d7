"""`defaults="toolset"` against tf-keras-vis called by hand, to the last bit; `defaults="raw"` beside it."""

from __future__ import annotations

import random
import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import cfi_core as cfi
from cfi_core.errors import ModelWarning
from cfi_tfkerasvis.plugin import WORKAROUNDS
from cfi_tfkerasvis.workarounds import (
    ActivationMaximization,
    CategoricalScore,
    Gradcam,
    GradcamPlusPlus,
    Jitter,
    Layercam,
    Norm,
    Rotate2D,
    Saliency,
    Scorecam,
    TotalVariation2D,
)

SEED = 11
LABELS = [2, 0, 3]
CAMS = {"grad_cam": Gradcam, "grad_cam_plus_plus": GradcamPlusPlus, "layer_cam": Layercam, "score_cam": Scorecam}

# tf-keras-vis passes a list of one where the model was built from a tensor, of which Keras warns.
pytestmark = pytest.mark.filterwarnings("ignore:The structure of `inputs`:UserWarning")


@pytest.fixture(params=[None, "softmax"], ids=["logits", "softmax"])
def head(request: pytest.FixtureRequest) -> Any:
    return request.param


def seed_all() -> None:
    tf.random.set_seed(SEED)
    np.random.seed(SEED)  # SmoothGrad and Jitter draw from it
    random.seed(SEED)


def own_modifiers() -> list[Any]:
    """Those of the signature, whose rotation draws from a generator that nobody seeds, unless as CFI does it."""
    rotate = Rotate2D(degree=1)
    rotate.random_generator = np.random.default_rng(SEED + 1)
    return [Jitter(jitter=4), rotate]


def by_cfi(model: Any, key: str, images: Any, **arguments: Any) -> tuple[cfi.Attribution, list[str]]:
    """The attribution, and what CFI warned of."""
    arguments = {"target": LABELS, "seed": SEED, "defaults": "toolset", **arguments}
    if key in CAMS:
        arguments = {"layer": "conv2", **arguments}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = cfi.attribute(model, key, "tf-keras-vis", inputs=images, **arguments)
    assert isinstance(result, cfi.Attribution)
    return result, [str(warning.message) for warning in caught if issubclass(warning.category, ModelWarning)]


def test_saliency(cnn: Any, kind: str, head: str | None, images: Any) -> None:
    model = cnn(kind, head)
    expected = Saliency(model)(CategoricalScore(LABELS), images)
    result, _ = by_cfi(model, "saliency", images)
    np.testing.assert_array_equal(result.values, expected)
    assert result.dims == ("sample", "height", "width")
    assert result.provenance["defaults"] == "toolset"
    assert result.provenance["applied"]["normalize_map"] is True
    assert "logit" not in result.provenance["explained"]


def test_smooth_grad(cnn: Any, head: str | None, images: Any) -> None:
    model = cnn(activation=head)
    seed_all()
    expected = Saliency(model)(CategoricalScore(LABELS), images, smooth_samples=20, smooth_noise=0.20)
    result, _ = by_cfi(model, "smooth_grad", images)
    np.testing.assert_array_equal(result.values, expected)
    assert not np.array_equal(by_cfi(model, "smooth_grad", images, seed=SEED + 1)[0].values, expected)


@pytest.mark.parametrize("key", CAMS)
def test_class_activation_maps(cnn: Any, kind: str, head: str | None, images: Any, key: str) -> None:
    model = cnn(kind, head)
    expected = CAMS[key](model)(CategoricalScore(LABELS), images, penultimate_layer="conv2")
    result, told = by_cfi(model, key, images)
    np.testing.assert_array_equal(result.values, expected)
    assert result.values.shape == images.shape[:3]
    assert result.dims == ("sample", "height", "width")
    assert result.values.max() > 0.99
    # A softmax of probabilities is what Score-CAM's users get from such a model, and hardly what they want.
    assert bool(told) == (key == "score_cam" and head == "softmax")


def test_activation_maximization(cnn: Any, head: str | None) -> None:
    """From noise of its own, in the range of its own, with its own modifiers and regularizers."""
    model = cnn(activation=head)
    seed_all()
    expected = ActivationMaximization(model)(CategoricalScore(2), input_modifiers=own_modifiers(), steps=20)
    result = cfi.visualize_features(
        model, toolset="tf-keras-vis", target=2, defaults="toolset", exec_args={"steps": 20}, seed=SEED
    )
    np.testing.assert_array_equal(result.values, expected)
    assert result.dims == ("sample", "height", "width", "channel")
    other = cfi.visualize_features(
        model, toolset="tf-keras-vis", target=2, defaults="toolset", exec_args={"steps": 20}, seed=SEED + 1
    )
    assert not np.array_equal(other.values, expected)


def test_activation_maximization_from_given_inputs(cnn: Any) -> None:
    model, start = cnn(), np.random.default_rng(0).uniform(90, 160, (2, 10, 8, 3)).astype(np.float32)
    seed_all()
    expected = ActivationMaximization(model)(CategoricalScore([1, 3]), start, input_modifiers=own_modifiers(), steps=15)
    result = cfi.visualize_features(
        model,
        toolset="tf-keras-vis",
        inputs=start,
        target=[1, 3],
        defaults="toolset",
        seed=SEED,
        exec_args={"steps": 15},
    )
    np.testing.assert_array_equal(result.values, expected)
    assert result.provenance["applied"]["optimizer"] is None
    assert result.provenance["applied"]["input_range"] == [[0.0, 255.0]]


def test_activation_maximization_of_a_channel(cnn: Any) -> None:
    model = cnn()
    part = keras.Model(model.inputs[0], model.get_layer("conv2").output)
    seed_all()
    expected = ActivationMaximization(part)(CategoricalScore(4), input_modifiers=own_modifiers(), steps=10)
    result = cfi.visualize_features(
        model,
        toolset="tf-keras-vis",
        layer="conv2",
        neuron=4,
        defaults="toolset",
        exec_args={"steps": 10},
        seed=SEED,
    )
    np.testing.assert_array_equal(result.values, expected)


def test_of_several_inputs_the_first_alone_is_regularized(cnn: Any) -> None:
    image, extra = keras.Input((6, 5, 3), name="image"), keras.Input((4,), name="extra")
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(image), extra])
    model = keras.Model([image, extra], keras.layers.Dense(3)(joined))
    seed_all()
    expected = ActivationMaximization(model)(CategoricalScore(1), input_modifiers=own_modifiers(), steps=5)
    result = cfi.visualize_features(
        model, toolset="tf-keras-vis", target=1, defaults="toolset", exec_args={"steps": 5}, seed=SEED
    )
    for values, by_hand in zip(result.values, expected, strict=True):
        np.testing.assert_array_equal(values, by_hand)
    assert list(result.provenance["applied"]["regularizers"]) == ["image"]


# explicit arguments win


def test_settings_of_the_call_win_over_those_of_the_set(cnn: Any, images: Any) -> None:
    model = cnn()
    score = CategoricalScore(LABELS)
    own = {"keepdims": True, "gradient_modifier": None}
    result, _ = by_cfi(model, "saliency", images, exec_args=own)
    np.testing.assert_array_equal(result.values, Saliency(model)(score, images, **own))
    assert result.dims == ("sample", "height", "width", "channel")
    for key, tool in CAMS.items():
        own = {"expand_cam": False, "activation_modifier": None}
        result, _ = by_cfi(model, key, images, exec_args=own)
        np.testing.assert_array_equal(result.values, tool(model)(score, images, "conv2", **own))
        assert result.values.shape == (3, 5, 4)
        assert result.dims == ("sample", "height", "width")


def test_words_of_tf_keras_vis(cnn: Any, images: Any) -> None:
    model = cnn()
    own = {"score": CategoricalScore(LABELS), "seed_input": images, "penultimate_layer": "conv2"}
    result = cfi.attribute(model, "grad_cam", "tf-keras-vis", exec_args=own, defaults="toolset")
    assert isinstance(result, cfi.Attribution)
    np.testing.assert_array_equal(result.values, Gradcam(model)(**own))


def test_the_head_wins(cnn: Any, images: Any) -> None:
    at_logit, told = by_cfi(cnn(activation="softmax"), "score_cam", images, head="logit")
    expected = Scorecam(cnn())(CategoricalScore(LABELS), images, "conv2")
    np.testing.assert_array_equal(at_logit.values, expected)
    assert not told and "logit" in at_logit.provenance["explained"]


def test_own_optimizer_regularizers_and_range(cnn: Any) -> None:
    model, start = cnn(), np.random.default_rng(0).uniform(0, 1, (1, 10, 8, 3)).astype(np.float32)

    def own() -> dict[str, Any]:
        return {
            "input_range": (0.0, 1.0),
            "input_modifiers": None,
            "regularizers": [TotalVariation2D(weight=0.1), Norm(weight=0.2, p=2)],
            "optimizer": keras.optimizers.Adam(0.05),
            "steps": 10,
        }

    expected = ActivationMaximization(model)(CategoricalScore(1), start, **own())
    result = cfi.visualize_features(
        model, toolset="tf-keras-vis", inputs=start, target=1, exec_args=own(), defaults="toolset", seed=SEED
    )
    np.testing.assert_array_equal(result.values, expected)


# what only tf-keras-vis's users have


def test_another_layer_is_sought_and_told(cnn: Any, kind: str, images: Any) -> None:
    model = cnn(kind)
    for layer, sought in (("pool", "conv1"), ("head", "conv2")):
        expected = Gradcam(model)(CategoricalScore(LABELS), images, penultimate_layer=layer)
        result, told = by_cfi(model, "grad_cam", images, layer=layer)
        np.testing.assert_array_equal(result.values, expected)
        assert f"the convolution '{sought}' in place of layer '{layer}'" in told[0]
        assert result.provenance["applied"]["penultimate_layer"] == {"Tap": {"layer": sought}}
        assert result.layer == sought
    own = {"seek_penultimate_conv_layer": False}
    expected = Gradcam(model)(CategoricalScore(LABELS), images, penultimate_layer="pool", **own)
    result, told = by_cfi(model, "grad_cam", images, layer="pool", exec_args=own)
    np.testing.assert_array_equal(result.values, expected)
    assert not told


def test_score_cam_of_a_batch_with_the_largest_maps(cnn: Any, images: Any) -> None:
    model, own = cnn(), {"max_N": 2}
    expected = Scorecam(model)(CategoricalScore(LABELS), images, "conv2", **own)
    result, told = by_cfi(model, "score_cam", images, exec_args=own)
    np.testing.assert_array_equal(result.values, expected)
    assert "choose each other's maps" in told[0]
    mended, told = by_cfi(model, "score_cam", images, exec_args=own, init_args={WORKAROUNDS: True})
    assert not told and not np.allclose(mended.values, expected, rtol=1e-3)


def test_overflow_is_no_map(cnn: Any, images: Any) -> None:
    model = cnn()
    model.get_layer("head").bias.assign_add([100.0] * 4)
    with np.errstate(invalid="ignore"):
        assert np.isnan(GradcamPlusPlus(model)(CategoricalScore(LABELS), images, "conv2")).all()
    with pytest.raises(cfi.MethodError, match="not finite"):
        by_cfi(model, "grad_cam_plus_plus", images)
    mended, _ = by_cfi(model, "grad_cam_plus_plus", images, init_args={WORKAROUNDS: True})
    assert mended.values.max() > 0.99


def test_a_map_of_other_axes_than_the_input_is_not_stretched() -> None:
    first = keras.Input((6, 4, 3))
    x = keras.layers.Reshape((24, 3))(first)
    x = keras.layers.Conv1D(2, 3, name="conv")(x)
    model = keras.Model(first, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(cfi.ArgumentError, match="expand_cam"):
        by_cfi(model, "grad_cam", np.ones((3, 6, 4, 3), np.float32), layer="conv", target=1)


def test_channels_that_are_not_last_are_not_reduced() -> None:
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(4)])
    with pytest.raises(cfi.ArgumentError, match="keepdims=True"):
        by_cfi(model, "saliency", np.ones((3, 7), np.float32))
    kept, _ = by_cfi(model, "saliency", np.ones((3, 7), np.float32), exec_args={"keepdims": True})
    assert kept.values.shape == (3, 7)
