"""Activation maximization: what is maximised, where it starts, what bounds it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import cfi_core as cfi
from cfi_core.contract import Axes, MethodResult, Target
from cfi_core.errors import ArgumentError, LayerError, TargetError
from cfi_tfkerasvis.workarounds import (
    ActivationMaximization,
    Callback,
    CategoricalScore,
    Jitter,
    Norm,
    ReplaceToLinear,
    TotalVariation2D,
)

Ask = Callable[..., MethodResult]
ROTATION = {"Rotate2D": {"axes": [1, 2], "degree": 1.0}}
UNIT = {"input_range": (0.0, 1.0), "steps": 15}

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def test_a_class_score_rises_within_the_range(ask: Ask, model: Any) -> None:
    result = ask("activation_maximization", model, (), Target(index=(2,)), exec_args=UNIT)
    image = result.values[0]
    assert image.shape == (1, 10, 8, 3)
    assert result.axes is Axes.INPUT
    assert image.min() >= 0
    assert image.max() <= 1
    np.testing.assert_allclose(result.extras["scores"], model(image).numpy()[:, 2], rtol=1e-5)
    assert result.extras["scores"] > result.extras["initial_scores"]
    assert json.loads(json.dumps(result.applied)) == result.applied


def test_the_first_step_is_that_of_rmsprop(ask: Ask, cnn: Any) -> None:
    """One step from a given image, without modifiers: x + lr * g / sqrt((1 - rho) g² + eps), then clipped."""
    model = cnn()
    start = tf.constant(np.random.default_rng(0).uniform(0.2, 0.8, (2, 10, 8, 3)).astype(np.float32))
    own = {"input_range": (0.0, 1.0), "steps": 1, "input_modifiers": None, "regularizers": [Norm(weight=2.0, p=2)]}
    result = ask("activation_maximization", model, start, Target(index=((1,), (3,))), exec_args=own)
    with tf.GradientTape() as tape:
        tape.watch(start)
        norm = tf.sqrt(tf.reduce_sum(start**2, axis=(1, 2, 3))) / np.sqrt(240.0)
        loss = 2.0 * norm - tf.gather(model(start), (1, 3), batch_dims=1)
    gradient = tape.gradient(loss, start).numpy().astype(np.float64)
    step = 1 / 255 * gradient / np.sqrt(0.001 * gradient**2 + 1e-7)
    expected = np.clip(start.numpy() - step, 0, 1)
    np.testing.assert_allclose(result.values[0], expected, rtol=1e-4, atol=1e-5)
    assert result.applied["optimizer"]["RMSprop"]["learning_rate"] == pytest.approx(1 / 255)


@pytest.mark.parametrize(
    ("neuron", "reading"),
    [
        ((3,), lambda activation: activation[..., 3].mean(axis=(1, 2))),
        (3, lambda activation: activation[..., 3].mean(axis=(1, 2))),
        ((2, 1, 4), lambda activation: activation[:, 2, 1, 4]),
        (lambda output: tf.reduce_max(output[..., 0], axis=(1, 2)), lambda a: a[..., 0].max(axis=(1, 2))),
    ],
)
def test_a_channel_a_unit_or_a_function_of_a_layer(ask: Ask, model: Any, neuron: Any, reading: Any) -> None:
    result = ask("activation_maximization", model, (), layer="conv2", neuron=neuron, exec_args=UNIT)
    features = keras.Model(model.inputs[0], model.get_layer("conv2").output)
    np.testing.assert_allclose(result.extras["scores"], reading(features(result.values[0]).numpy()), rtol=1e-5)
    assert result.extras["scores"] > result.extras["initial_scores"]


def test_a_unit_of_a_dense_layer_is_the_class(ask: Ask, cnn: Any) -> None:
    model = cnn()
    by_layer = ask("activation_maximization", model, (), layer="head", neuron=(1,), exec_args=UNIT | {"steps": 3})
    assert by_layer.extras["scores"] == pytest.approx(model(by_layer.values[0]).numpy()[:, 1], rel=1e-5)


def test_one_image_for_each_target(ask: Ask, cnn: Any) -> None:
    model = cnn()
    still = UNIT | {"input_modifiers": None}
    together = ask("activation_maximization", model, (), Target(index=((0,), (3,))), exec_args=still)
    assert together.values[0].shape == (2, 10, 8, 3)
    own = ask("activation_maximization", model, (), exec_args=still | {"score": CategoricalScore([0, 3])})
    np.testing.assert_array_equal(own.values[0], together.values[0])
    first = ask("activation_maximization", model, (), Target(index=((0,),)), exec_args=still)
    np.testing.assert_allclose(first.values[0][0], together.values[0][0], rtol=1e-4, atol=1e-5)


def test_the_seed_decides(ask: Ask, cnn: Any) -> None:
    model, results = cnn(), []
    for seed in (1, 1, 2):
        np.random.seed(seed)  # core seeds the global generators with the request's seed
        result = ask("activation_maximization", model, (), Target(index=(0,)), exec_args=UNIT, seed=seed)
        results.append(result.values[0])
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_the_step_fits_the_range(ask: Ask, cnn: Any) -> None:
    """In units of the range, 0…1 is the same run as 0…255.

    The head is large because the optimizer's epsilon and the regularizers are the same in both.
    """
    small, large = cnn(), cnn()
    for model in (small, large):
        model.get_layer("head").kernel.assign(1000 * model.get_layer("head").kernel)
    conv = large.get_layer("conv1")
    conv.set_weights([conv.get_weights()[0] / 255, conv.get_weights()[1]])
    start = tf.constant(np.random.default_rng(0).uniform(0, 1, (1, 10, 8, 3)).astype(np.float32))
    own = {"steps": 2, "input_modifiers": None, "regularizers": None}
    results = [
        ask("activation_maximization", m, x, Target(index=(0,)), exec_args=own | {"input_range": (0.0, high)})
        for m, x, high in ((small, start, 1.0), (large, start * 255, 255.0))
    ]
    moved = [result.values[0] / high - start.numpy() for result, high in zip(results, (1, 255), strict=True)]
    assert np.median(np.abs(moved[0])) > 1e-2
    assert np.median(np.abs(moved[0] - moved[1])) < 1e-2 * np.median(np.abs(moved[0]))
    for result, high in zip(results, (1, 255), strict=True):
        assert result.applied["optimizer"]["RMSprop"]["learning_rate"] == pytest.approx(high / 255)


def test_the_default_regularizers_are_those_of_tf_keras_vis(ask: Ask, cnn: Any) -> None:
    result = ask("activation_maximization", cnn(), (), Target(index=(0,)), exec_args=UNIT | {"steps": 1})
    (applied,) = result.applied["regularizers"].values()
    theirs = inspect.signature(ActivationMaximization.__call__).parameters["regularizers"].default
    assert applied == [{type(entry).__name__: vars(entry)} for entry in theirs]


def test_tabular_input_has_no_image_modifiers(ask: Ask) -> None:
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)])
    result = ask("activation_maximization", model, (), Target(index=(1,)), exec_args=UNIT)
    assert result.values[0].shape == (1, 7)
    assert list(result.applied["input_modifiers"].values()) == [[]]


def test_the_image_is_not_moved_away_from_a_unit_at_one_place(ask: Ask, cnn: Any) -> None:
    result = ask("activation_maximization", cnn(), (), layer="conv2", neuron=(2, 1, 4), exec_args=UNIT)
    assert list(result.applied["input_modifiers"].values()) == [[]]
    by_channel = ask("activation_maximization", cnn(), (), layer="conv2", neuron=(4,), exec_args=UNIT)
    assert list(by_channel.applied["input_modifiers"].values()) == [[{"Jitter": {"jitter": 4}}, ROTATION]]


def test_two_inputs(ask: Ask) -> None:
    image, extra = keras.Input((6, 5, 3), name="image"), keras.Input((4,), name="extra")
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(image), extra])
    model = keras.Model([image, extra], keras.layers.Dense(3)(joined))
    result = ask("activation_maximization", model, (), Target(index=(1,)), exec_args=UNIT)
    assert [value.shape for value in result.values] == [(1, 6, 5, 3), (1, 4)]
    with pytest.raises(ArgumentError, match="dict by input name"):
        ask("activation_maximization", model, (), Target(index=(1,)), exec_args=UNIT | {"regularizers": [Norm()]})
    different = {"input_range": [(0.0, 1.0), (0.0, 2.0)]}
    with pytest.raises(ArgumentError, match="optimizer"):
        ask("activation_maximization", model, (), Target(index=(1,)), exec_args=UNIT | different)


def test_own_modifiers_regularizers_optimizer(ask: Ask, cnn: Any) -> None:
    optimizer = keras.optimizers.Adam(0.05)
    own = UNIT | {
        "input_modifiers": [Jitter(jitter=2)],
        "regularizers": [TotalVariation2D(weight=0.1)],
        "optimizer": optimizer,
        "input_range": None,
    }
    result = ask("activation_maximization", cnn(), (), Target(index=(0,)), exec_args=own)
    assert result.extras["scores"] > result.extras["initial_scores"]
    assert result.applied["input_modifiers"] == [{"Jitter": {"jitter": 2}}]
    assert "Adam" in result.applied["optimizer"]
    assert not optimizer.built


def test_a_softmax_head_with_a_modifier(ask: Ask, cnn: Any) -> None:
    own = {"model_modifier": ReplaceToLinear()}
    model = cnn(activation="softmax")
    result = ask("activation_maximization", model, (), Target(index=(2,)), init_args=own, exec_args=UNIT)
    np.testing.assert_allclose(result.extras["scores"], cnn()(result.values[0]).numpy()[:, 2], rtol=1e-5)


# refusals


def test_the_input_range_must_be_given(ask: Ask, cnn: Any) -> None:
    with pytest.raises(ArgumentError, match="input_range"):
        ask("activation_maximization", cnn(), (), Target(index=(0,)))


@pytest.mark.parametrize("given", [(1.0, 0.0), 3, (0, 1, 2), [(0, 1), (0, 1)], ("a", "b")])
def test_a_range_that_is_none(ask: Ask, cnn: Any, given: Any) -> None:
    with pytest.raises(ArgumentError, match="input_range"):
        ask("activation_maximization", cnn(), (), Target(index=(0,)), exec_args={"input_range": given})


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps(ask: Ask, cnn: Any, steps: Any) -> None:
    with pytest.raises(ArgumentError, match="steps"):
        ask("activation_maximization", cnn(), (), Target(index=(0,)), exec_args=UNIT | {"steps": steps})


def test_an_open_input_size_needs_inputs(ask: Ask) -> None:
    first = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(first))
    model = keras.Model(first, keras.layers.Dense(2)(pooled))
    with pytest.raises(ArgumentError, match="inputs"):
        ask("activation_maximization", model, (), Target(index=(0,)), exec_args=UNIT)
    start = tf.zeros((1, 9, 7, 3)) + 0.5
    assert ask("activation_maximization", model, start, Target(index=(0,)), exec_args=UNIT).values[0].shape == (
        1,
        9,
        7,
        3,
    )


def test_what_to_maximise_must_be_said_once(ask: Ask, cnn: Any) -> None:
    model, target = cnn(), Target(index=(0,))
    with pytest.raises(TargetError, match="target"):
        ask("activation_maximization", model, (), exec_args=UNIT)
    with pytest.raises(TargetError, match="`layer` and `neuron`"):
        ask("activation_maximization", model, (), target, layer="conv2", neuron=(0,), exec_args=UNIT)
    with pytest.raises(ArgumentError, match="neuron"):
        ask("activation_maximization", model, (), layer="conv2", exec_args=UNIT)
    with pytest.raises(LayerError, match="layer"):
        ask("activation_maximization", model, (), neuron=(0,), exec_args=UNIT)
    with pytest.raises(TargetError, match="score"):
        ask("activation_maximization", model, (), target, exec_args=UNIT | {"score": CategoricalScore(0)})


@pytest.mark.parametrize("neuron", [(5,), (0, 0), (9, 0, 0), (0, 0, 0, 0)])
def test_a_neuron_out_of_range(ask: Ask, cnn: Any, neuron: Any) -> None:
    with pytest.raises(TargetError, match="neuron"):
        ask("activation_maximization", cnn(), (), layer="conv2", neuron=neuron, exec_args=UNIT)


def test_a_score_that_does_not_depend_on_the_input(ask: Ask, cnn: Any) -> None:
    constant = Target(function=lambda output: tf.constant(output.numpy()[:, 0]))
    with pytest.raises(TargetError, match="does not depend"):
        ask("activation_maximization", cnn(), (), constant, exec_args=UNIT)


# kernel inspection: what makes a filter react


def ascend(front: Any, start: np.ndarray, channel: int, rate: float, steps: int, penalty: Any = None) -> np.ndarray:
    """Gradient ascent on the mean of a filter's output, written out."""
    image = tf.Variable(start)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            gain = tf.reduce_sum(tf.reduce_mean(front(image)[..., channel], axis=(1, 2)))
            if penalty is not None:
                gain -= penalty(image)
        image.assign_add(rate * tape.gradient(gain, image))
    return image.numpy()


@pytest.mark.parametrize("regularized", [False, True])
def test_kernel_inspection_is_gradient_ascent_on_a_filter(model: Any, regularized: bool) -> None:
    start = np.random.default_rng(1).uniform(-0.1, 0.1, (2, 10, 8, 3)).astype(np.float32)
    front = keras.Model(model.inputs, model.get_layer("conv2").output)

    def penalty(image: Any) -> Any:
        """Total variation and absolute value, each as a mean over the image."""
        variation = tf.image.total_variation(image) / float(np.prod(image.shape[1:]))
        return tf.reduce_sum(0.5 * variation) + 0.2 * tf.reduce_sum(tf.reduce_mean(tf.abs(image), axis=(1, 2, 3)))

    own = {
        "input_range": None,
        "steps": 20,
        "optimizer": keras.optimizers.SGD(0.5),
        "input_modifiers": None,
        "regularizers": [TotalVariation2D(weight=0.5), Norm(weight=0.2, p=1)] if regularized else None,
    }
    found = cfi.visualize_features(
        model, toolset="tf-keras-vis", inputs=start, layer="conv2", neuron=3, exec_args=own, seed=0
    )
    expected = ascend(front, start, 3, 0.5, 20, penalty if regularized else None)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)
    assert (found.extras["scores"] > found.extras["initial_scores"]).all()
    if regularized:
        plain = ascend(front, start, 3, 0.5, 20)
        assert (
            (tf.image.total_variation(tf.constant(expected)) < tf.image.total_variation(tf.constant(plain)))
            .numpy()
            .all()
        )


def test_steps_on_the_way_are_kept_on_request(ask: Ask, cnn: Any) -> None:
    """They are what shorter runs end with, from the start on; and they change nothing."""
    model, start = cnn(), tf.constant(np.random.default_rng(0).uniform(0, 1, (2, 10, 8, 3)).astype(np.float32))
    still = {"input_range": (0.0, 1.0), "input_modifiers": None}

    def run(steps: int, **init_args: Any) -> MethodResult:
        target = Target(index=((1,), (3,)))
        own = {"exec_args": still | {"steps": steps}, "init_args": init_args}
        return ask("activation_maximization", model, start, target, **own)

    result = run(6, keep_steps=3)
    assert list(result.steps) == [0, 2, 4, 6]
    np.testing.assert_array_equal(result.steps[0][0], start)
    for steps in (2, 4, 6):
        np.testing.assert_array_equal(result.steps[steps][0], run(steps).values[0])
    assert result.extras["step_scores"].shape == (4, 2)
    np.testing.assert_allclose(result.extras["step_scores"][0], result.extras["initial_scores"], rtol=1e-6)
    np.testing.assert_allclose(result.extras["step_scores"][-1], result.extras["scores"], rtol=1e-6)
    assert not run(2).steps and "step_scores" not in run(2).extras


@pytest.mark.parametrize("number", [-1, 16, True, "all"])
def test_a_number_of_kept_steps_that_is_none_is_refused(ask: Ask, cnn: Any, number: Any) -> None:
    with pytest.raises(ArgumentError, match="`keep_steps` must be a number from 0 to the 15 `steps`"):
        ask("activation_maximization", cnn(), (), Target(index=(0,)), exec_args=UNIT, init_args={"keep_steps": number})


def test_own_callbacks_are_called_beside(ask: Ask, cnn: Any) -> None:
    called = []

    class Count(Callback):
        def __call__(self, i: int, *_: Any, **__: Any) -> None:
            called.append(i)

    own = {"exec_args": UNIT | {"callbacks": Count(), "steps": 3}, "init_args": {"keep_steps": 1}}
    assert list(ask("activation_maximization", cnn(), (), Target(index=(0,)), **own).steps) == [0, 3]
    assert called == [0, 1, 2]
