"""Each thing that would be silently wrong, or fail deep inside, is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from cfi_core.contract import MethodResult, Target
from cfi_core.errors import ArgumentError, InputError, LayerError, MethodError, TargetError
from cfi_tfkerasvis.workarounds import (
    STEPS_LIMIT,
    BinaryScore,
    CategoricalScore,
    GuidedBackpropagation,
    ReplaceToLinear,
)

Ask = Callable[..., MethodResult]


# models


def test_a_subclassed_model(ask: Ask, images: Any, target: Target) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x: Any) -> Any:
            return self.dense(keras.ops.reshape(x, (-1, 240)))

    model = Own()
    model(images)
    with pytest.raises(MethodError, match=r"Own defines its own `call`.*keras\.Model"):
        ask("saliency", model, images, target)


def test_a_functional_subclass_that_overrides_call(ask: Ask, images: Any, target: Target) -> None:
    class Doubled(keras.Model):
        def call(self, x: Any) -> Any:
            return 2 * super().call(x)

    first = keras.Input((10, 8, 3))
    model = Doubled(first, keras.layers.Dense(4)(keras.layers.Flatten()(first)))
    with pytest.raises(MethodError, match="defines its own `call`"):
        ask("saliency", model, images, target)


def test_a_sequential_without_shape(ask: Ask, images: Any, target: Target) -> None:
    with pytest.raises(MethodError, match="not built"):
        ask("saliency", keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)]), images, target)


def test_something_else(ask: Ask, images: Any, target: Target) -> None:
    with pytest.raises(MethodError, match="Keras 3 models"):
        ask("saliency", tf.identity, images, target)


# inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: tf.cast(x, tf.uint8), "uint8"),
        (lambda x: tf.cast(x, tf.int64), "int64"),
        (lambda x: x[0], "shape"),
        (lambda x: tf.transpose(x, (0, 3, 1, 2)), "shape"),
        (lambda x: x[:0], "samples"),
        (lambda x: [x, x], "1 inputs"),
    ],
)
def test_inputs_that_do_not_fit(ask: Ask, model: Any, images: Any, target: Target, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask("saliency", model, change(images), target)


def test_no_inputs(ask: Ask, cnn: Any, target: Target) -> None:
    with pytest.raises(ArgumentError, match="seed_input"):
        ask("saliency", cnn(), (), target)


# targets


@pytest.mark.parametrize(
    "target",
    [
        None,
        Target(index=(4,)),
        Target(index=(-5,)),
        Target(index=(0, 0)),
        Target(index=((0,), (1,))),
        Target(output="nowhere"),
        Target(function=lambda output: output),
        Target(function=lambda output: tf.reduce_sum(output)),
        Target(function=lambda output: tf.constant([1.0, 2.0, 3.0])),
    ],
)
def test_targets_that_name_no_value_of_the_output(ask: Ask, cnn: Any, images: Any, target: Target | None) -> None:
    model = cnn()
    if target is not None and target.output is not None:
        model = keras.Model(model.inputs, {"a": model.outputs[0], "b": model.get_layer("flatten").output})
    with pytest.raises(TargetError):
        ask("saliency", model, images, target)


def test_a_structured_output_needs_a_choice(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    model = cnn()
    model = keras.Model(model.inputs, [model.outputs[0], model.get_layer("flatten").output])
    with pytest.raises(TargetError, match="2 outputs"):
        ask("saliency", model, images, target)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (CategoricalScore([0, 1]), "2 targets for 3 samples"),
        (CategoricalScore([0, 1, 2, 3]), "4 targets for 3 samples"),
        (CategoricalScore(4), "class index 4"),
        (CategoricalScore(-5), "class index -5"),
        (CategoricalScore([1.5]), "integers"),
        (BinaryScore([True, False]), "2 targets for 3 samples"),
        (lambda output: (output[0, 1], output[1, 1]), "one value for each sample"),
        (lambda output: output[0, 1], "one value for each sample"),
        (3, "cannot be called"),
        ([CategoricalScore(0), CategoricalScore(1)], "2 score functions"),
    ],
)
def test_own_scores_that_leave_samples_out(ask: Ask, cnn: Any, images: Any, score: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        ask("saliency", cnn(), images, exec_args={"score": score})


def test_target_and_score(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    with pytest.raises(TargetError, match="one of them"):
        ask("saliency", cnn(), images, target, exec_args={"score": CategoricalScore(0)})


# layers


def test_no_layer(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    with pytest.raises(ArgumentError, match="penultimate_layer"):
        ask("grad_cam", cnn(), images, target)


@pytest.mark.parametrize("layer", ["nowhere", 17])
def test_an_unknown_layer(ask: Ask, model: Any, images: Any, target: Target, layer: Any) -> None:
    with pytest.raises(LayerError, match="the model has"):
        ask("grad_cam", model, images, target, exec_args={"penultimate_layer": layer})


def test_a_layer_without_space(ask: Ask, model: Any, images: Any, target: Target) -> None:
    with pytest.raises(LayerError, match=r"'flatten' gives .*before the image is pooled or flattened"):
        ask("grad_cam", model, images, target, layer="flatten")


def test_a_layer_of_a_nested_model(ask: Ask, images: Any, target: Target) -> None:
    first = keras.Input((10, 8, 3))
    backbone = keras.Model(first, keras.layers.Conv2D(3, 3, name="inner")(first), name="backbone")
    outer = keras.Input((10, 8, 3))
    model = keras.Model(outer, keras.layers.Dense(4)(keras.layers.Flatten()(backbone(outer))))
    with pytest.raises(LayerError, match="nested"):
        ask("grad_cam", model, images, target, exec_args={"penultimate_layer": backbone.get_layer("inner")})
    assert ask("grad_cam", model, images, target, layer="backbone").values[0].shape == (3, 8, 6)


def test_a_layer_that_is_called_twice(ask: Ask, images: Any, target: Target) -> None:
    first = keras.Input((10, 8, 3))
    conv = keras.layers.Conv2D(3, 3, padding="same", name="twice")
    model = keras.Model(first, keras.layers.Dense(4)(keras.layers.Flatten()(conv(conv(first)))))
    with pytest.raises(LayerError, match="2 times"):
        ask("grad_cam", model, images, target, layer="twice")


def test_a_layer_that_does_not_lead_to_the_output(ask: Ask, images: Any) -> None:
    first = keras.Input((10, 8, 3))
    aside = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, name="aside")(first))
    model = keras.Model(first, [keras.layers.Dense(4)(keras.layers.Flatten()(first)), aside])
    with pytest.raises(LayerError, match="does not lead"):
        ask("grad_cam", model, images, Target(output=0, index=(1,)), layer="aside")


def test_a_layer_with_channels_first(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    with pytest.raises(LayerError, match="channels_last"):
        ask("grad_cam", cnn(), images, target, layer="conv2", layer_channel_axis=1)


# arguments and settings


def test_reducing_an_axis_that_is_not_the_channels(ask: Ask) -> None:
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)])
    own = {"keepdims": False}
    with pytest.raises(ArgumentError, match="keepdims"):
        ask("saliency", model, tf.ones((2, 7)), Target(index=(0,)), exec_args=own, channel_axis=(None,))


def test_smooth_grad_without_smoothing(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    with pytest.raises(ArgumentError, match="smooth_samples"):
        ask("smooth_grad", cnn(), images, target, exec_args={"smooth_samples": 0})


def test_an_unknown_own_argument(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    with pytest.raises(ArgumentError, match=r"\['expand_cam'\].*keepdims"):
        ask("saliency", cnn(), images, target, exec_args={"expand_cam": True})


def test_a_limit_from_the_environment(
    ask: Ask, cnn: Any, images: Any, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STEPS_LIMIT, "2")
    with pytest.raises(MethodError, match=STEPS_LIMIT):
        ask("saliency", cnn(), images, target)


def test_the_toolsets_own_error_is_the_cause(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    def broken(gradient: Any) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(MethodError, match="ZeroDivisionError: mine") as caught:
        ask("saliency", cnn(), images, target, exec_args={"gradient_modifier": broken})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("key", ["saliency", "grad_cam", "score_cam"])
def test_values_that_are_not_finite(ask: Ask, cnn: Any, images: Any, target: Target, key: str) -> None:
    model = cnn()
    kernel = model.get_layer("conv1").get_weights()[0]
    kernel[0, 0, 0, 0] = np.nan
    model.get_layer("conv1").set_weights([kernel, model.get_layer("conv1").get_weights()[1]])
    with pytest.raises(MethodError, match="not finite"):
        ask(key, model, images, target, layer=None if key == "saliency" else "conv2")


# modifiers that would do nothing


def test_replace_to_linear_on_a_softmax_layer(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    body = cnn()
    model = keras.Model(body.inputs, keras.layers.Softmax(name="separate")(body.outputs[0]))
    with pytest.raises(MethodError, match=r"ReplaceToLinear does nothing.*'separate'"):
        ask("saliency", model, images, target, init_args={"model_modifier": ReplaceToLinear()})


def test_a_modifier_of_a_model_that_cannot_be_cloned(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    body = cnn()
    model = keras.Model(body.inputs, keras.layers.Lambda(lambda x: tf.nn.softmax(x))(body.outputs[0]))
    with pytest.raises(MethodError, match=r"cannot clone(.|\n)*leave out model_modifier"):
        ask("saliency", model, images, target, init_args={"model_modifier": ReplaceToLinear()})


@pytest.mark.parametrize(
    ("relu", "name"),
    [
        (lambda x: keras.layers.ReLU(name="apart")(x), "apart"),
        (lambda x: keras.ops.relu(x), "relu"),
        (
            lambda x: keras.Sequential(
                [keras.Input((8, 6, 2)), keras.layers.Conv2D(2, 1, activation="relu")], name="nested"
            )(x),
            "nested",
        ),
    ],
)
def test_guided_backpropagation_on_a_relu_it_cannot_see(
    ask: Ask, images: Any, target: Target, relu: Any, name: str
) -> None:
    first = keras.Input((10, 8, 3))
    x = relu(keras.layers.Conv2D(2, 3, activation="relu")(first))
    model = keras.Model(first, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    with pytest.raises(MethodError, match=f"GuidedBackpropagation does not attach.*{name}"):
        ask("saliency", model, images, target, init_args={"model_modifier": GuidedBackpropagation()})


def test_guided_backpropagation_without_any_relu(ask: Ask, images: Any, target: Target) -> None:
    first = keras.Input((10, 8, 3))
    model = keras.Model(first, keras.layers.Dense(4, activation="tanh")(keras.layers.Flatten()(first)))
    with pytest.raises(MethodError, match="GuidedBackpropagation"):
        ask("saliency", model, images, target, init_args={"model_modifier": GuidedBackpropagation()})


def test_a_modifier_that_is_none(ask: Ask, cnn: Any, images: Any, target: Target) -> None:
    with pytest.raises(MethodError, match="cannot be called"):
        ask("saliency", cnn(), images, target, init_args={"model_modifier": "linear"})


class Forgetful(keras.layers.Layer):  # type: ignore[misc]
    """Its configuration does not hold its factor."""

    factor = 1.0

    def call(self, x: Any) -> Any:
        return x * self.factor


def test_a_model_whose_clone_computes_something_else(ask: Ask, images: Any, target: Target) -> None:
    first = keras.Input((10, 8, 3))
    forgetful = Forgetful()
    forgetful.factor = 3.0
    x = keras.layers.Conv2D(2, 3, activation="relu")(forgetful(first))
    model = keras.Model(first, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    with pytest.raises(MethodError, match="get_config"):
        ask("saliency", model, images, target, init_args={"model_modifier": GuidedBackpropagation()})


# Score-CAM's own softmax


def test_score_cam_on_one_logit(ask: Ask, images: Any) -> None:
    first = keras.Input((10, 8, 3))
    features = keras.layers.Conv2D(2, 3, name="conv")(first)
    model = keras.Model(first, keras.layers.Dense(1)(keras.layers.Flatten()(features)))
    with pytest.raises(MethodError, match="two classes"):
        ask("score_cam", model, images, Target(index=(0,)), layer="conv")


def test_score_cam_with_a_tabular_input(ask: Ask) -> None:
    image, extra = keras.Input((6, 5, 3)), keras.Input((4,))
    flat = keras.layers.Flatten()(keras.layers.Conv2D(3, 3, name="conv")(image))
    model = keras.Model([image, extra], keras.layers.Dense(3)(keras.layers.Concatenate()([flat, extra])))
    with pytest.raises(MethodError, match="masks every input"):
        ask("score_cam", model, [tf.ones((1, 6, 5, 3)), tf.ones((1, 4))], Target(index=(0,)), layer="conv")
