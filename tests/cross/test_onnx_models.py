"""A model that is an ONNX file goes to either framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from shared_cnn import Twins, apart

import cfi_core as cfi


@pytest.fixture(scope="module")
def onnx_file(softmax_twins: Twins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    torch.onnx.export(
        softmax_twins.torch_model,
        (torch.tensor(softmax_twins.first),),
        path,
        dynamo=False,
        opset_version=13,
        input_names=["image"],
        dynamic_axes={"image": {0: "n"}},
    )
    return path


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_an_onnx_model_is_explained_by_either_toolset(softmax_twins, onnx_file, toolset, as_file):
    model = str(onnx_file) if as_file else onnx.load(onnx_file)
    crossed = cfi.attribute(model, "saliency", toolset, inputs=softmax_twins.first, target=[1, 3])
    native = cfi.attribute(softmax_twins.torch_model, "saliency", "captum", inputs=softmax_twins.first, target=[1, 3])
    assert crossed.dims == ("sample", "channel", "height", "width")
    assert apart(native.values, crossed.values) < 1e-4
    assert "logit" in crossed.provenance["explained"]
    assert crossed.certificate.faithful
    assert "ONNX models have no gradients" in str(crossed.certificate)


def test_its_layers_go_by_node_names(softmax_twins, onnx_file):
    names = [layer.name for layer in cfi.layers(str(onnx_file))]
    assert "/relu2/Relu" in names
    crossed = cfi.attribute(
        str(onnx_file), "grad_cam", "tf-keras-vis", inputs=softmax_twins.first, target=0, layer="/relu2/Relu"
    )
    native = cfi.attribute(
        softmax_twins.torch_model, "grad_cam", "captum", inputs=softmax_twins.first, target=0, layer="relu2"
    )
    assert apart(native.values, crossed.values) < 1e-4


def test_translate_to_either_framework(softmax_twins, onnx_file):
    for framework in ("torch", "tensorflow"):
        translation = cfi.translate(str(onnx_file), framework, inputs=softmax_twins.first)
        assert translation.certificate.faithful
        assert "/conv2/Conv" in translation.layer_map


def test_a_missing_or_broken_file(tmp_path):
    with pytest.raises(cfi.InputError, match="no file"):
        cfi.attribute("nowhere.onnx", "saliency", "captum", inputs=np.zeros((1, 3, 4, 4)), target=0)
