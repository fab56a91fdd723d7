"""Every method against the formula of its paper, written down with plain TensorFlow and numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import zoom

from cfi_core.contract import Axes, MethodResult, Target
from cfi_core.specs import Head
from cfi_tfkerasvis.workarounds import (
    BinaryScore,
    CategoricalScore,
    Gradcam,
    GradcamPlusPlus,
    GuidedBackpropagation,
    ReplaceToLinear,
)

Ask = Callable[..., MethodResult]
LABELS = (2, 0, 3)
CAMS = ["grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam"]

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def tapped(model: Any, images: Any, layer: str = "conv2") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of `LABELS`, activation of the layer, and the scores' gradient with respect to it."""
    both = keras.Model(model.inputs, [model.outputs[0], model.get_layer(layer).output])
    with tf.GradientTape() as tape:
        output, activation = both(images)
        scores = tf.gather(output, LABELS, batch_dims=1)
    gradient = tape.gradient(scores, activation)
    return scores.numpy(), activation.numpy().astype(np.float64), gradient.numpy().astype(np.float64)


def input_gradient(model: Any, images: Any) -> np.ndarray:
    with tf.GradientTape() as tape:
        tape.watch(images)
        scores = tf.gather(model(images), LABELS, batch_dims=1)
    return tape.gradient(scores, images).numpy()


def plus_plus(activation: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Equations 5, 7 and 19 of Chattopadhay et al., without exp(S), alphas normalised as in the authors' code."""
    total = activation.sum(axis=(1, 2), keepdims=True)
    denominator = 2 * gradient**2 + gradient**3 * total
    alpha = np.divide(gradient**2, denominator, out=np.zeros_like(gradient), where=denominator != 0)
    norm = alpha.sum(axis=(1, 2), keepdims=True)
    alpha = np.divide(alpha, norm, out=np.zeros_like(alpha), where=norm != 0)
    weights = (alpha * np.maximum(gradient, 0)).sum(axis=(1, 2), keepdims=True)
    return (weights * activation).sum(axis=-1)


def assert_close(values: np.ndarray, expected: np.ndarray, relative: float = 1e-5) -> None:
    assert values.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(values - expected).max() <= relative * np.abs(expected).max()


# saliency


def test_saliency_is_the_signed_gradient(ask: Ask, model: Any, images: Any, target: Target) -> None:
    result = ask("saliency", model, images, target)
    assert_close(result.values[0], input_gradient(model, images))
    assert (result.values[0] < 0).any()
    assert result.axes is Axes.INPUT
    assert result.applied["normalize_map"] is False


def test_saliency_post_processing_is_there_when_asked_for(ask: Ask, model: Any, images: Any, target: Target) -> None:
    own = {"keepdims": False, "normalize_map": True, "gradient_modifier": tf.abs}
    result = ask("saliency", model, images, target, exec_args=own)
    map_ = np.abs(input_gradient(model, images)).max(axis=-1)
    low, high = map_.min(axis=(1, 2), keepdims=True), map_.max(axis=(1, 2), keepdims=True)
    assert_close(result.values[0], (map_ - low) / (high - low), 1e-4)
    assert result.axes is Axes.INPUT_MAP
    assert result.applied["gradient_modifier"] == "abs"


def test_smooth_grad_is_the_mean_gradient_over_noise(ask: Ask, model: Any, images: Any, target: Target) -> None:
    np.random.seed(11)
    result = ask("smooth_grad", model, images, target, exec_args={"smooth_samples": 4, "smooth_noise": 0.1})
    np.random.seed(11)
    x = images.numpy()
    spread = 0.1 * (x.max(axis=(1, 2, 3), keepdims=True) - x.min(axis=(1, 2, 3), keepdims=True))
    noisy = x + np.random.normal(0.0, np.broadcast_to(spread, (4, 3, 1, 1, 1)), (4, *x.shape))
    expected = np.mean([input_gradient(model, tf.constant(n.astype(np.float32))) for n in noisy], axis=0)
    assert_close(result.values[0], expected)


def test_smooth_grad_takes_twenty_samples_and_says_so(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    model = cnn()
    assert ask("smooth_grad", model, images, target).applied["smooth_samples"] == 20
    np.random.seed(1)
    smoothed = ask("saliency", model, images, target, exec_args={"smooth_samples": 3})
    np.random.seed(1)
    named = ask("smooth_grad", model, images, target, exec_args={"smooth_samples": 3})
    np.testing.assert_array_equal(smoothed.values[0], named.values[0])


# class activation maps


@pytest.mark.parametrize("layer", ["conv2", "pool"])
def test_grad_cam(ask: Ask, model: Any, images: Any, target: Target, layer: str) -> None:
    _, activation, gradient = tapped(model, images, layer)
    expected = (gradient.mean(axis=(1, 2), keepdims=True) * activation).sum(axis=-1)
    result = ask("grad_cam", model, images, target, layer=layer)
    assert_close(result.values[0], expected)
    assert (result.values[0] < 0).any()
    assert result.axes is Axes.LAYER_MAP


def test_layer_cam(ask: Ask, model: Any, images: Any, target: Target) -> None:
    _, activation, gradient = tapped(model, images)
    expected = (np.maximum(gradient, 0) * activation).sum(axis=-1)
    assert_close(ask("layer_cam", model, images, target, layer="conv2").values[0], expected)


def test_grad_cam_plus_plus(ask: Ask, model: Any, images: Any, target: Target) -> None:
    _, activation, gradient = tapped(model, images)
    result = ask("grad_cam_plus_plus", model, images, target, layer="conv2")
    assert_close(result.values[0], plus_plus(activation, gradient), 1e-4)
    assert result.applied["scale"] == "each map divided by exp(score)"


@pytest.mark.parametrize("own", [{"activation_modifier": tf.nn.relu}, {"gradient_modifier": lambda g: 2 * g}])
def test_a_modifier_changes_nothing_but_what_it_modifies(
    ask: Ask, model: Any, images: Any, target: Target, own: dict[str, Any]
) -> None:
    """The factor exp(score) is as it is without a modifier."""
    _, activation, gradient = tapped(model, images)
    map_ = plus_plus(activation, (2 if "gradient_modifier" in own else 1) * gradient)
    result = ask("grad_cam_plus_plus", model, images, target, layer="conv2", exec_args=own)
    assert_close(result.values[0], np.maximum(map_, 0) if "activation_modifier" in own else map_, 1e-4)
    assert result.applied["scale"] == "each map divided by exp(score)"


def test_grad_cam_plus_plus_of_two_outputs_is_divided_by_the_sum_of_their_exponentials(ask: Ask, images: Any) -> None:
    first = keras.Input((10, 8, 3))
    features = keras.layers.Conv2D(4, 3, activation="relu", name="conv2")(first)
    flat = keras.layers.Flatten()(features)
    model = keras.Model(first, [keras.layers.Dense(4)(flat), keras.layers.Dense(2)(flat)])
    own = {"score": [CategoricalScore(2), CategoricalScore(1)]}
    theirs = GradcamPlusPlus(model)(own["score"], images, "conv2", expand_cam=False, normalize_cam=False)
    one, other = model(images)
    factor = np.exp(one[:, 2]) + np.exp(other[:, 1])
    ours = ask("grad_cam_plus_plus", model, images, layer="conv2", exec_args=own).values[0]
    assert_close(np.maximum(ours, 0) * factor[:, None, None], np.asarray(theirs), 1e-4)


def test_grad_cam_plus_plus_is_that_of_tf_keras_vis(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    model = cnn()
    theirs = GradcamPlusPlus(model)(
        CategoricalScore(list(LABELS)), images, "conv2", expand_cam=False, normalize_cam=False
    )
    ours = ask("grad_cam_plus_plus", model, images, target, layer="conv2").values[0]
    factor = np.exp(tapped(model, images)[0])[:, None, None]
    assert_close(np.maximum(ours, 0) * factor, np.asarray(theirs), 1e-4)


@pytest.mark.parametrize("shift", [120.0, -150.0])
def test_grad_cam_plus_plus_survives_large_scores(
    ask: Ask, cnn: Any, images: Any, target: Target, shift: float
) -> None:
    model = cnn()
    head = model.get_layer("head")
    head.bias.assign(head.bias + shift)
    _, activation, gradient = tapped(model, images)
    result = ask("grad_cam_plus_plus", model, images, target, layer="conv2")
    assert_close(result.values[0], plus_plus(activation, gradient), 1e-4)
    assert result.applied["scale"] == "each map divided by exp(score)"


def score_cam(model: Any, images: np.ndarray, softmax: bool = True) -> np.ndarray:
    """Slow Score-CAM: one masked image at a time, the class probability (or the model's output) as weight."""
    _, activation, _ = tapped(model, tf.constant(images))
    maps = np.zeros(activation.shape[:3])
    for sample, (image, label) in enumerate(zip(images, LABELS, strict=True)):
        for channel in range(activation.shape[-1]):
            map_ = activation[sample, :, :, channel].astype(np.float32)
            mask = zoom(map_, [big / small for big, small in zip(image.shape, map_.shape, strict=False)], order=1)
            mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-7)
            output = model((image * mask[:, :, None])[None]).numpy()[0].astype(np.float64)
            probabilities = np.exp(output - output.max()) / np.exp(output - output.max()).sum()
            maps[sample] += map_ * (probabilities if softmax else output)[label]
    return maps


def test_score_cam(ask: Ask, model: Any, images: Any, target: Target, capfd: pytest.CaptureFixture[str]) -> None:
    result = ask("score_cam", model, images, target, layer="conv2")
    assert_close(result.values[0], score_cam(model, images.numpy()), 1e-4)
    assert "softmax" in result.applied
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_score_cam_of_the_output_as_it_is(
    ask: Ask, cnn: Any, kind: str, images: Any, target: Target, activation: str | None
) -> None:
    model = cnn(kind, activation)
    result = ask("score_cam", model, images, target, layer="conv2", head=Head.OUTPUT)
    assert_close(result.values[0], score_cam(model, images.numpy(), softmax=False), 1e-4)
    assert result.applied["softmax"].startswith("none")


def test_score_cam_of_two_outputs_as_they_are(ask: Ask, images: Any) -> None:
    first = keras.Input((10, 8, 3))
    features = keras.layers.Conv2D(4, 3, activation="relu", name="conv2")(first)
    flat = keras.layers.Flatten()(features)
    heads = [keras.layers.Dense(4)(flat), keras.layers.Dense(1, activation="sigmoid")(flat)]
    model = keras.Model(first, heads)

    def both(first_weight: float, second_weight: float) -> np.ndarray:
        own = {"score": [lambda o: first_weight * o[:, 2], lambda o: second_weight * o[:, 0]]}
        return ask("score_cam", model, images, layer="conv2", head=Head.OUTPUT, exec_args=own).values[0]

    assert_close(both(1, 1), both(1, 0) + both(0, 1))
    one = keras.Model(first, heads[1])
    alone = ask("score_cam", one, images, Target(index=(0,)), layer="conv2", head=Head.OUTPUT)
    assert_close(both(0, 1), alone.values[0])


def test_score_cam_on_a_layer_as_large_as_the_input(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    result = ask("score_cam", cnn(), images, target, layer="conv1")
    assert result.values[0].shape == (3, 10, 8)


def test_score_cam_of_a_batch_is_that_of_its_samples(ask: Ask, cnn: Any, images: Any) -> None:
    model = cnn()
    own = {"max_N": 2}
    batch = ask("score_cam", model, images, Target(index=(1,)), layer="conv2", exec_args=own).values[0]
    for sample in range(3):
        one = ask("score_cam", model, images[sample : sample + 1], Target(index=(1,)), layer="conv2", exec_args=own)
        np.testing.assert_allclose(batch[sample], one.values[0][0], rtol=1e-5)


@pytest.mark.parametrize("key", CAMS)
def test_expanded_maps_have_the_size_of_the_input(ask: Ask, model: Any, images: Any, target: Target, key: str) -> None:
    raw = ask(key, model, images, target, layer="conv2").values[0]
    result = ask(key, model, images, target, layer="conv2", exec_args={"expand_cam": True})
    assert result.axes is Axes.INPUT_SIZED_MAP
    assert_close(result.values[0], zoom(raw, (1, 2, 2), order=1), 1e-4)


@pytest.mark.parametrize("key", CAMS)
def test_post_processing_is_there_when_asked_for(ask: Ask, cnn: Any, images: Any, target: Target, key: str) -> None:
    own = {"normalize_cam": True, "activation_modifier": tf.nn.relu}
    result = ask(key, cnn(), images, target, layer="conv2", exec_args=own)
    assert result.values[0].min() == 0
    assert 0.99 < result.values[0].max() <= 1
    assert result.applied["normalize_cam"] is True


def test_own_words_alone(ask: Ask, cnn: Any, images: Any) -> None:
    model = cnn()
    own = {"score": CategoricalScore(list(LABELS)), "seed_input": images, "penultimate_layer": "conv2"}
    result = ask("grad_cam", model, (), exec_args=own)
    theirs = Gradcam(model)(**own, activation_modifier=None, expand_cam=False, normalize_cam=False)
    np.testing.assert_allclose(result.values[0], np.asarray(theirs), rtol=1e-5, atol=1e-7)
    by_constructor = ask(
        "grad_cam",
        model,
        (),
        init_args={"layer": model.get_layer("conv2")},
        exec_args={"score": CategoricalScore(list(LABELS)), "seed_input": images},
    )
    np.testing.assert_array_equal(by_constructor.values[0], result.values[0])


# targets and heads


@pytest.mark.parametrize(
    "indices", [[np.int64(2), np.int64(0), np.int64(3)], [tf.constant(2), tf.constant(0), tf.constant(3)]]
)
def test_own_score_may_hold_any_integers(ask: Ask, cnn: Any, images: Any, target: Target, indices: Any) -> None:
    model = cnn()
    score = CategoricalScore([int(i) for i in indices])
    score.indices = [np.asarray(indices)]
    own = ask("saliency", model, images, exec_args={"score": score})
    np.testing.assert_array_equal(own.values[0], ask("saliency", model, images, target).values[0])


def test_one_own_index_is_for_all_samples(ask: Ask, cnn: Any, images: Any) -> None:
    model = cnn()
    own = ask("saliency", model, images, exec_args={"score": CategoricalScore(1)})
    np.testing.assert_array_equal(own.values[0], ask("saliency", model, images, Target(index=(1,))).values[0])


def test_target_function(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    model = cnn()
    by_function = Target(function=lambda output: tf.gather(output, LABELS, batch_dims=1))
    np.testing.assert_allclose(
        ask("saliency", model, images, by_function).values[0],
        ask("saliency", model, images, target).values[0],
        rtol=1e-5,
        atol=1e-7,
    )


def test_softmax_in_the_last_layer_explained_at_the_logit(ask: Ask, cnn: Any, kind: str, images: Any) -> None:
    """`ReplaceToLinear` works on a Sequential too, and finds nothing to do where the softmax is cut already."""
    probabilities, logits = cnn(kind, "softmax"), cnn(kind)
    expected = input_gradient(logits, images)
    own = {"init_args": {"model_modifier": ReplaceToLinear()}}
    replaced = ask("saliency", probabilities, images, Target(index=((2,), (0,), (3,))), **own)
    assert_close(replaced.values[0], expected)
    assert "copy" in " ".join(replaced.applied)
    cut = ask("saliency", logits, images, Target(index=((2,), (0,), (3,))), **own)
    assert_close(cut.values[0], expected)


def test_softmax_in_the_last_layer_explained_at_the_output(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    model = cnn(activation="softmax")
    result = ask("saliency", model, images, target, head=Head.OUTPUT)
    assert_close(result.values[0], input_gradient(model, images))


def test_a_modifier_works_with_a_layer_method(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    own = {"model_modifier": [ReplaceToLinear()], "clone": False}
    replaced = ask("grad_cam", cnn(activation="softmax"), images, target, layer="conv2", init_args=own)
    _, activation, gradient = tapped(cnn(), images)
    assert_close(replaced.values[0], (gradient.mean(axis=(1, 2), keepdims=True) * activation).sum(axis=-1))


def test_guided_backpropagation(ask: Ask, cnn: Any, images: Any) -> None:
    """Against the rule of Springenberg et al. by hand, on one ReLU with positive weights behind it."""
    first = keras.Input((4, 5, 3))
    conv = keras.layers.Conv2D(2, 1, activation="relu", use_bias=False, name="conv")
    tail = keras.layers.Dense(1, use_bias=False, name="tail")
    model = keras.Model(first, tail(keras.layers.Flatten()(conv(first))))
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32))
    kernel, weights = (np.asarray(layer.get_weights()[0], np.float64) for layer in (conv, tail))
    pre = x.numpy().astype(np.float64) @ kernel[0, 0]
    backward = weights.reshape(1, 4, 5, 2)
    expected = ((pre > 0) * np.maximum(backward, 0)) @ kernel[0, 0].T
    result = ask("saliency", model, x, init_args={"model_modifier": GuidedBackpropagation()})
    assert_close(result.values[0], expected)


def two_headed() -> Any:
    image, extra = keras.Input((6, 5, 3), name="image"), keras.Input((4,), name="extra")
    features = keras.layers.Conv2D(3, 3, activation="relu", name="conv")(image)
    flat = keras.layers.Flatten()(features)
    z = keras.layers.Dense(3, name="z")(flat)
    a = keras.layers.Dense(2, name="a")(keras.layers.Concatenate()([flat, extra]))
    return keras.Model([image, extra], {"z": z, "a": a})


@pytest.mark.parametrize(("output", "uses_extra"), [("z", False), ("a", True)])
def test_outputs_by_name_and_several_inputs(ask: Ask, output: str, uses_extra: bool) -> None:
    keras.utils.set_random_seed(0)
    model = two_headed()
    generator = np.random.default_rng(1)
    inputs = [tf.constant(generator.normal(size=s).astype(np.float32)) for s in ((2, 6, 5, 3), (2, 4))]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        score = model(inputs)[output][:, 1]
    expected = tape.gradient(score, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    target = Target(output=output, index=(1,))
    result = ask("saliency", model, inputs, target, channel_axis=(3, None))
    for value, gradient in zip(result.values, expected, strict=True):
        np.testing.assert_allclose(value, gradient, rtol=1e-5, atol=1e-7)
    assert np.any(result.values[1]) == uses_extra
    cam = ask("grad_cam_plus_plus", model, inputs, target, layer="conv")
    assert cam.values[0].shape == (2, 4, 3)


def test_one_value_per_sample_needs_no_target(ask: Ask, images: Any) -> None:
    model = keras.Sequential([keras.Input((10, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    expected = np.broadcast_to(model.layers[-1].get_weights()[0].reshape(1, 10, 8, 3), images.shape)
    np.testing.assert_allclose(ask("saliency", model, images).values[0], expected, rtol=1e-6)
    signs = ask("saliency", model, images, exec_args={"score": BinaryScore([True, False, True])}).values[0]
    np.testing.assert_allclose(signs, expected * np.array([1, -1, 1]).reshape(3, 1, 1, 1), rtol=1e-6)


def test_structured_output_index(ask: Ask, images: Any) -> None:
    model = keras.Sequential([keras.Input((10, 8, 3)), keras.layers.Conv2D(2, 1, use_bias=False)])
    kernel = model.layers[0].get_weights()[0][0, 0]
    values = ask("saliency", model, images, Target(index=(4, 3, 1))).values[0]
    expected = np.zeros(images.shape)
    expected[:, 4, 3] = kernel[:, 1]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_nested_backbone_is_a_layer(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    flat = cnn()
    backbone = keras.Model(flat.inputs[0], flat.get_layer("conv2").output, name="backbone")
    outer = keras.Input((10, 8, 3))
    tail = [flat.get_layer("flatten"), flat.get_layer("head")]
    nested = keras.Sequential([outer, backbone, *tail])
    expected = ask("grad_cam", flat, images, target, layer="conv2").values[0]
    assert_close(ask("grad_cam", nested, images, target, layer="backbone").values[0], expected)
    own = {"model_modifier": ReplaceToLinear()}
    assert_close(ask("grad_cam", nested, images, target, layer="backbone", init_args=own).values[0], expected)


def test_layer_that_first_belonged_to_another_model(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    """`layer.output` is what the layer gave first; the class activation map must be of this model."""
    conv = keras.layers.Conv2D(3, 3, activation="relu", name="shared")
    elsewhere = keras.Input((12, 12, 3))
    keras.Model(elsewhere, conv(elsewhere))
    first = keras.Input((10, 8, 3))
    model = keras.Model(first, keras.layers.Dense(4)(keras.layers.Flatten()(conv(first))))
    with tf.GradientTape() as tape:
        activation = conv(images)
        tape.watch(activation)
        output = model.layers[-1](tf.reshape(activation, (3, -1)))
        scores = tf.gather(output, LABELS, batch_dims=1)
    gradient = tape.gradient(scores, activation).numpy()
    expected = (gradient.mean(axis=(1, 2), keepdims=True) * activation.numpy()).sum(axis=-1)
    assert_close(ask("grad_cam", model, images, target, layer="shared").values[0], expected)


@pytest.mark.parametrize("key", ["saliency", "smooth_grad", *CAMS])
def test_what_was_applied_can_be_written_down(ask: Ask, cnn: Any, images: Any, target: Target, key: str) -> None:
    layer = "conv2" if key in CAMS else None
    own = {"init_args": {"model_modifier": GuidedBackpropagation()}}
    applied = ask(key, cnn(), images, target, layer=layer, **own).applied
    assert json.loads(json.dumps(applied)) == applied
