"""Every translator, alone and in chains, against the model's own framework."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from torch import nn
from translate_cases import (
    cotangent,
    difference,
    images,
    in_keras,
    in_onnxruntime,
    in_torch,
    keras_models,
    permuted,
    torch_models,
)

from cfi_translate import keras_export, onnx_to_keras, onnx_to_torch, tf_to_onnx, torch_to_onnx

TOLERANCE = 2e-5
NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


@pytest.fixture(scope="module")
def torch_cases():
    return torch_models()


@pytest.fixture(scope="module")
def keras_cases():
    return keras_models()


@pytest.mark.parametrize("name", sorted(torch_models()))
def test_torch_to_keras(torch_cases, name: str) -> None:
    model, array = torch_cases[name], images()
    exported = torch_to_onnx.convert(model, (array,))
    converted = onnx_to_keras.convert(exported.model, (array,))
    weights = cotangent(tuple(model(torch.tensor(array)).shape))
    output, gradient = in_torch(model, array, weights)

    assert difference(in_onnxruntime(exported.model, array), output) < TOLERANCE
    assert exported.input_axes == (None,)
    assert converted.input_axes == (NHWC,)
    assert converted.output_axes == ((NHWC,) if output.ndim == 4 else (None,))
    here = permuted(weights, converted.output_axes[0])
    keras_output, keras_gradient = in_keras(converted.model, permuted(array, NHWC), here)
    assert difference(keras_output, permuted(output, converted.output_axes[0])) < TOLERANCE
    assert difference(keras_gradient, permuted(gradient, NHWC)) < TOLERANCE
    # Another batch size, native layers only, and a model that clones.
    assert converted.model(permuted(array[:1], NHWC)).shape[0] == 1
    assert not [layer for layer in converted.model.layers if isinstance(layer, keras.layers.Lambda)]
    assert all(weight.dtype == "float32" for weight in converted.model.weights)
    keras.models.clone_model(converted.model)


@pytest.mark.parametrize("translator", [tf_to_onnx, keras_export], ids=lambda module: module.NAME)
@pytest.mark.parametrize("name", sorted(keras_models()))
def test_keras_to_torch(keras_cases, name: str, translator) -> None:
    model, array = keras_cases[name], permuted(images(), NHWC)
    exported = translator.convert(model, (array,))
    there = permuted(array, exported.input_axes[0])
    converted = onnx_to_torch.convert(exported.model, (there,))
    weights = cotangent(tuple(model(array).shape))
    output, gradient = in_keras(model, array, weights)

    axes = [one for one in (exported.output_axes[0], converted.output_axes[0]) if one]
    assert difference(in_onnxruntime(exported.model, there), permuted(output, exported.output_axes[0])) < TOLERANCE
    for one in axes:
        output, weights = permuted(output, one), permuted(weights, one)
    input_axes = [one for one in (exported.input_axes[0], converted.input_axes[0]) if one]
    # Channels-first on arrival, whichever of the two steps made it so; a model without images may stay as it is.
    assert input_axes == [NCHW] or (name == "features" and not input_axes)
    for one in input_axes:
        gradient = permuted(gradient, one)
    arrived = permuted(there, converted.input_axes[0])
    torch_output, torch_gradient = in_torch(converted.model, arrived, weights)
    assert difference(torch_output, output) < TOLERANCE
    assert difference(torch_gradient, gradient) < TOLERANCE
    for samples in (1, 5):
        assert converted.model(torch.tensor(np.resize(arrived, (samples, *arrived.shape[1:])))).shape[0] == samples
    assert not converted.model.training


def test_names_and_native_modules_on_arrival_in_torch(keras_cases) -> None:
    array = permuted(images(), NHWC)
    exported = tf_to_onnx.convert(keras_cases["residual"], (array,))
    converted = onnx_to_torch.convert(exported.model, (permuted(array, NCHW),))
    modules = dict(converted.model.named_children())
    expected = {
        "first": nn.Conv2d,
        "norm": nn.BatchNorm2d,
        "six": nn.ReLU6,
        "pool": nn.MaxPool2d,
        "second": nn.ReLU,
        "depthwise": nn.Conv2d,
        "flat": nn.Flatten,
        "hidden": nn.ReLU,
        "logits": nn.Linear,
        "softmax": nn.Softmax,
    }
    assert {name: type(modules[name]) for name in expected} == expected
    assert "initializers" not in modules


def test_names_and_native_layers_on_arrival_in_keras(torch_cases) -> None:
    exported = torch_to_onnx.convert(torch_cases["residual"], (images(),))
    converted = onnx_to_keras.convert(exported.model, (images(),))
    layers = {layer.name: type(layer) for layer in converted.model.layers}
    expected = {
        "features.0": keras.layers.Conv2D,
        "features.1": keras.layers.BatchNormalization,
        "features.2": keras.layers.ReLU,
        "features.3": keras.layers.MaxPooling2D,
        "relu": keras.layers.Activation,
        "relu_1": keras.layers.Activation,
        "pool": keras.layers.GlobalAveragePooling2D,
        "fc": keras.layers.Dense,
    }
    assert {name: layers[name] for name in expected} == expected
    assert isinstance(converted.model.layers[-1], keras.layers.Softmax)


def test_layer_of_the_same_name_has_the_same_activation(keras_cases) -> None:
    array, source = permuted(images(), NHWC), keras_cases["residual"]
    exported = tf_to_onnx.convert(source, (array,))
    converted = onnx_to_torch.convert(exported.model, (permuted(array, NCHW),))
    seen = {}
    for name in ("first", "norm", "second", "third"):
        converted.model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.detach().numpy()})
        )
    converted.model(torch.tensor(permuted(array, NCHW)))
    for name, activation in seen.items():
        tap = keras.Model(source.inputs, source.get_layer(name).output)
        assert difference(activation, permuted(tap(array, training=False).numpy(), NCHW)) < TOLERANCE


def test_torch_module_arrives_in_torch_again(torch_cases) -> None:
    model, array = torch_cases["branches"], images()
    exported = torch_to_onnx.convert(model, (array,))
    converted = onnx_to_torch.convert(exported.model, (array,))
    weights = cotangent(tuple(model(torch.tensor(array)).shape))
    for one, other in zip(in_torch(converted.model, array, weights), in_torch(model, array, weights), strict=True):
        assert difference(one, other) < TOLERANCE


def test_torch_callable() -> None:
    array = images()
    exported = torch_to_onnx.convert(lambda x: torch.relu(x) * 2, (array,))
    assert difference(in_onnxruntime(exported.model, array), np.maximum(array, 0) * 2) == 0


def test_tensorflow_callable() -> None:
    array = images()[:, 0, 0]
    exported = tf_to_onnx.convert(lambda x: tf.nn.relu(x) * 2, (array,))
    assert difference(in_onnxruntime(exported.model, array), np.maximum(array, 0) * 2) == 0


def test_subclassed_keras_model_in_inference_mode() -> None:
    class Noisy(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.drop = keras.layers.Dropout(0.5)
            self.dense = keras.layers.Dense(3)

        def call(self, x, training=None):
            return self.dense(self.drop(x, training=training))

    array = images()[:, 0, 0]
    model = Noisy()
    expected = model(array, training=False).numpy()
    exported = tf_to_onnx.convert(model, (array,))
    assert difference(in_onnxruntime(exported.model, array), expected) < TOLERANCE


def test_several_inputs_and_outputs() -> None:
    layers = keras.layers
    picture, number = keras.Input((12, 17, 3)), keras.Input((5,))
    features = layers.Concatenate()([layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(picture)), number])
    model = keras.Model([picture, number], [layers.Dense(3)(features), layers.Dense(2)(features)])
    arrays = permuted(images(), NHWC), images()[:, 0, 0, :5].copy()
    exported = tf_to_onnx.convert(model, arrays)
    assert exported.input_axes == (NCHW, None)
    carried = permuted(arrays[0], NCHW), arrays[1]
    in_torch_now = onnx_to_torch.convert(exported.model, carried)
    back = onnx_to_keras.convert(exported.model, carried)
    expected = [one.numpy() for one in model(list(arrays), training=False)]
    torch_outputs = in_torch_now.model(*map(torch.tensor, carried))
    keras_outputs = back.model(list(arrays), training=False)
    for position, one in enumerate(expected):
        assert difference(torch_outputs[position].detach().numpy(), one) < TOLERANCE
        assert difference(keras_outputs[position].numpy(), one) < TOLERANCE


def test_baked_batch_size_is_freed() -> None:
    """A file exported for two samples, with a reshape to (2, -1), takes five."""
    weight = np.random.default_rng(0).normal(size=(3 * 4 * 6, 5)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Relu", ["x"], ["r"], name="rectify"),
            onnx.helper.make_node("Reshape", ["r", "shape"], ["f"], name="flat"),
            onnx.helper.make_node("MatMul", ["f", "w"], ["y"], name="fc"),
        ],
        "baked",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3, 4, 6])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 5])],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(np.array([2, -1]), "shape")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    array = np.random.default_rng(0).normal(size=(5, 3, 4, 6)).astype(np.float32)
    expected = np.maximum(array, 0).reshape(5, -1) @ weight
    in_torch_now = onnx_to_torch.convert(model, (array[:2],)).model
    in_keras_now = onnx_to_keras.convert(model, (array[:2],)).model
    assert difference(in_torch_now(torch.tensor(array)).detach().numpy(), expected) < TOLERANCE
    assert difference(in_keras_now(permuted(array, NHWC)).numpy(), expected) < TOLERANCE
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2, "the user's model was changed"
