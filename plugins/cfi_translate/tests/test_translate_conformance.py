"""Our converters pass the tests that every translator can inherit."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import numpy as np
import torch
from torch import nn

from cfi_core.testing.conformance import TranslatorConformance

EXPORTED = 450
"""`torch.export.export` by itself keeps 420 objects (symbols of sizes) of each model, with a size that may be any."""
GENERATED = 20
"""`torch.fx` keeps the code that it writes, of every graph module."""


class TorchModels:
    def make_model(self) -> Any:
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 7)).eval()

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 3, 5, 6)).astype(np.float32)


class TestTorchToOnnx(TorchModels, TranslatorConformance):
    translator = "torch-export"
    target = "onnx"
    kept = EXPORTED


class TestTorchToKeras(TorchModels, TranslatorConformance):
    translator: ClassVar = ["torch-export", "onnx-keras"]
    target = "tensorflow"
    kept = EXPORTED


class TestKerasToTorch(TranslatorConformance):
    translator = "keras-torch"
    target = "torch"
    kept = GENERATED

    def make_model(self) -> Any:
        layers = keras.layers
        stack = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(7)]
        model = keras.Sequential([keras.Input((5, 6, 3)), *stack])
        generator = np.random.default_rng(3)
        model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
        return model

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 5, 6, 3)).astype(np.float32)
