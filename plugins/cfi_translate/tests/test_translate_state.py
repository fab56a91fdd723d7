"""Nothing of the process or of the model is left changed, whether a translation succeeds or fails."""

from __future__ import annotations

import logging
import os
import warnings

import keras
import numpy as np
import pytest
import torch
from torch import nn
from translate_cases import images, permuted

from cfi_core.errors import TranslationError
from cfi_translate import keras_export, onnx_to_keras, onnx_to_torch, tf_to_onnx, torch_to_onnx

NHWC = (0, 2, 3, 1)


def state() -> dict[str, object]:
    import onnx2keras.converter
    import tf2onnx.tf_loader
    from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

    root = logging.getLogger()
    return {
        "image format": keras.config.image_data_format(),
        "policy": keras.config.dtype_policy().name,
        "logging": (root.level, list(root.handlers), logging.getLogger("onnx2keras").level),
        "numpy.object": "object" in vars(np),
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "torch random numbers": torch.get_rng_state().tolist(),
        "numpy random numbers": np.random.get_state()[1].tolist(),
        "converters": id(onnx2keras.converter.AVAILABLE_CONVERTERS),
        "clone": onnx2keras.converter._clone_layer_channels_last,
        "grappler": tf2onnx.tf_loader.tf_optimize_grappler,
        "handlers": (TransposeOptimizer._mul_handler, TransposeOptimizer._add_handler),
        "gradients": torch.is_grad_enabled(),
        "exporter log": torch._C._jit_is_onnx_log_enabled(),
    }


class Sorted(nn.Module):
    """No converter has this."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x, 1)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Dropout()).eval()


@pytest.mark.parametrize("image_format", ["channels_last", "channels_first"])
def test_success(image_format: str) -> None:
    usual = keras.config.image_data_format()
    keras.config.set_image_data_format(image_format)
    try:
        model, array = small(), images()
        # What the libraries do when they are imported for the first time is theirs.
        onnx_to_torch.convert(torch_to_onnx.convert(model, (array,)).model, (array,))
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        before = state()
        exported = torch_to_onnx.convert(model, (array,))
        onnx_to_keras.convert(exported.model, (array,))
        onnx_to_torch.convert(exported.model, (array,))
        assert state() == before
        assert not any(module.training for module in model.modules())
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    finally:
        keras.config.set_image_data_format(usual)


@pytest.mark.parametrize("translator", [tf_to_onnx, keras_export], ids=lambda module: module.NAME)
def test_success_from_keras(translator) -> None:
    model = keras.Sequential([keras.layers.Input((12, 17, 3)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()])
    before = state()
    translator.convert(model, (permuted(images(), NHWC),))
    assert state() == before


def test_failure() -> None:
    array = images()
    before = state()
    exported = torch_to_onnx.convert(Sorted(), (array,)).model
    with pytest.raises(TranslationError):
        onnx_to_keras.convert(exported, (array,))
    with pytest.raises(TranslationError):
        torch_to_onnx.convert(nn.AdaptiveAvgPool2d(7), (array,))
    with pytest.raises(TranslationError):
        tf_to_onnx.convert(lambda x: undefined(x), (array,))  # noqa: F821 - the user's mistake
    assert state() == before


def test_failure_inside_onnx2keras(monkeypatch: pytest.MonkeyPatch) -> None:
    exported = torch_to_onnx.convert(small(), (images(),)).model
    monkeypatch.setattr(keras.layers.Flatten, "__init__", lambda self, **settings: 1 / 0)
    before = state()
    with pytest.raises(TranslationError, match="ZeroDivisionError"):
        onnx_to_keras.convert(exported, (images(),))
    assert state() == before


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    torch._C._jit_set_onnx_log_enabled(True)  # as an export of the user's leaves it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exported = torch_to_onnx.convert(small(), (images(),)).model
        onnx_to_keras.convert(exported, (images(),))
        onnx_to_torch.convert(exported, (images(),))
        with pytest.raises(TranslationError):
            torch_to_onnx.convert(nn.AdaptiveAvgPool2d(7), (images(),))
    assert capfd.readouterr() == ("", "")
