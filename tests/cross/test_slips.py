"""What people pass by mistake, as the frameworks have it: each is told with what to pass instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

import cfi_core as cfi


class Net(nn.Module):
    """The user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv2(self.conv1(x).relu()).relu().flatten(1))


class Trainer:
    """Holds the model that it trains, as Lightning's does, and has properties that fail before a run."""

    def __init__(self, model: Any) -> None:
        self.lightning_module = model

    @property
    def model(self) -> Any:
        raise RuntimeError("no run yet")


def make_keras(outputs: int = 3, activation: str = "softmax") -> keras.Model:
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv2D(4, 3, activation="relu", name="conv1")
    last = keras.layers.Dense(outputs, activation=activation, name="out")
    return keras.Sequential([keras.Input((8, 8, 3)), conv, keras.layers.Flatten(name="flat"), last])


torch.manual_seed(0)
NET = Net().eval()
KERAS = make_keras()
FIRST = torch.rand(2, 3, 8, 8)
LAST = np.ascontiguousarray(FIRST.permute(0, 2, 3, 1).numpy())
OPTIMIZER = torch.optim.Adam(NET.parameters())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Net, "the class Net, and no instance of it"),
        (keras.Sequential, "the class Sequential, and no instance of it"),
        (LogisticRegression, "the class LogisticRegression, and no instance of it"),
        (NET.state_dict(), "a dict of weights by name .'conv1.weight', 'conv1.bias'"),
        (
            {"epoch": 3, "model_state_dict": NET.state_dict(), "optimizer": OPTIMIZER.state_dict()},
            r"a checkpoint: .*under 'model_state_dict'.*load_state_dict\(checkpoint\['model_state_dict'\]\)",
        ),
        ({"model": NET, "epoch": 3}, "pass what stands under 'model'"),
        (OPTIMIZER, "an optimizer .Adam"),
        (keras.optimizers.Adam(), "an optimizer .Adam"),
        (Trainer(NET), "a Trainer, which holds a Net: pass its .lightning_module"),
        ("net.keras", r"cfi.load_model\('net.keras'\)"),
        (Path("net.pt"), r"cfi.load_model\('net.pt'\)"),
        ([NET, NET], "a list of 2 models"),
        (KERAS.get_weights(), "a list of ndarray"),
        (FIRST, "a Tensor of numbers"),
        (None, "The model is None"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_models(model: Any, said: str) -> None:
    for call in (cfi.attribute, cfi.plan):
        with pytest.raises(cfi.UnknownFrameworkError, match=said):
            call(model, "saliency", "captum", inputs=FIRST, target=0)
    with pytest.raises(cfi.UnknownFrameworkError, match=said):
        cfi.translate(model, "tensorflow", inputs=FIRST)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (1, "layer=1 is an index.*is 'conv2'"),
        (nn.Conv2d, "Of this class are 'conv1', 'conv2'"),
        (NET.conv1.weight, "a Parameter of numbers, such as a layer's weight"),
        (Net().conv1, "not part of this model.*conv1, conv2, fc"),
        (make_keras().layers[0], "a name that this model has, too. Pass layer='conv1'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_of_a_torch_model(layer: Any, said: str) -> None:
    with pytest.raises(cfi.LayerError, match=said):
        cfi.attribute(NET, "grad_cam", "captum", inputs=FIRST, target=0, layer=layer)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (keras.layers.Conv2D, "Of this class are 'conv1'"),
        (KERAS.layers[0].kernel, "of numbers, such as a layer's weight"),
        (make_keras().layers[0], "another model's .or copy's. layer.*Pass layer='conv1'"),
        (NET.conv1, "The Conv2d given as layer is not part of this model"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_of_a_keras_model(layer: Any, said: str) -> None:
    with pytest.raises(cfi.LayerError, match=said):
        cfi.attribute(KERAS, "grad_cam", "tf-keras-vis", inputs=LAST, target=0, layer=layer)


def test_a_layer_method_names_the_last_convolution() -> None:
    pending = cfi.attribute(NET, "grad_cam", "captum", inputs=FIRST, target=0)
    assert isinstance(pending, cfi.PendingLayer)
    assert "Usual is 'conv2', the last convolution; layer='auto'" in str(pending)
    pending = cfi.attribute(KERAS, "grad_cam", "tf-keras-vis", inputs=LAST, target=0)
    assert isinstance(pending, cfi.PendingLayer)
    assert pending.usual is not None
    assert pending.usual.name == "conv1"


@pytest.mark.parametrize(("toolset", "target"), [("captum", 1), ("tf-keras-vis", 1), ("captum", [1, 0])])
def test_a_sigmoid_has_one_output(toolset: str, target: Any) -> None:
    single = nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Sigmoid()).eval()
    for model, inputs in ((single, FIRST), (make_keras(1, "sigmoid"), LAST)):
        with pytest.raises(cfi.TargetError, match=r"one value for each sample.*stands for class 1"):
            cfi.attribute(model, "saliency", toolset, inputs=inputs, target=target)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.eye(3)[:2], "one-hot"),
        (tf.one_hot([1, 2], 3), "one-hot"),
        (keras.utils.to_categorical([1, 2], 3), "one-hot"),
        (pd.DataFrame(np.eye(3, dtype=int)[:2]), "one-hot"),
        (torch.tensor([1.0, 2.0]), "Class indices are whole numbers"),
        (pd.Series([0.2, 0.8]), "holds no indices"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_targets(target: Any, said: str) -> None:
    with pytest.raises(cfi.TargetError, match=said):
        cfi.attribute(NET, "saliency", "captum", inputs=FIRST, target=target)


def test_a_column_of_classes_is_one_for_each_sample() -> None:
    plain = cfi.attribute(NET, "saliency", "captum", inputs=FIRST, target=[1, 2])
    framed = cfi.attribute(NET, "saliency", "captum", inputs=FIRST, target=pd.DataFrame({"label": [1, 2]}))
    np.testing.assert_array_equal(plain.values, framed.values)  # type: ignore[union-attr]


PICTURE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (PICTURE, "is a picture .Image"),
        ([PICTURE, Image.new("RGB", (9, 8))], "is a list of 2 pictures"),
        ("cat.jpg", "is the path 'cat.jpg'"),
        ([Path("a.png"), Path("b.png")], "is a list of 2 paths"),
        (torch.utils.data.DataLoader(torch.utils.data.TensorDataset(FIRST)), "is a DataLoader, which gives batches"),
        (torch.utils.data.TensorDataset(FIRST), "is a TensorDataset, which gives batches"),
        (tf.data.Dataset.from_tensor_slices(LAST), "which gives batches"),
        ("a fine film", "is a text"),
        ((FIRST, torch.tensor([1, 2])), "If its last part are labels, leave them out"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_inputs(inputs: Any, said: str) -> None:
    with pytest.raises(cfi.InputError, match=said):
        cfi.attribute(NET, "saliency", "captum", inputs=inputs, target=0)


@pytest.mark.parametrize(
    ("key", "words", "written"),
    [
        (
            "integrated_gradients",
            {"n_steps": 20},
            'cfi.attribute(model, "integrated_gradients", "captum", exec_args={"n_steps": 20})',
        ),
        ("grad_cam", {"target_layers": ["conv2"]}, "cfi.attribute(model, \"grad_cam\", layer='conv2')"),
        (
            "occlusion",
            {"sliding_window_shapes": (3, 3, 3)},
            'cfi.attribute(model, "occlusion", "captum", exec_args={"sliding_window_shapes": (3, 3, 3)})',
        ),
        (
            "guided_grad_cam",
            {"attribute_to_layer_input": True},
            'cfi.attribute(model, "guided_grad_cam", exec_args={"attribute_to_layer_input": True})',
        ),
        ("kernel_shap", {"background": 0}, 'cfi.attribute(model, "kernel_shap", baselines=0)'),
        ("gradcam", {"seed_input": 1}, 'cfi.attribute(model, "grad_cam", inputs=1)'),
        (
            "layer_integrated_gradients",
            {"multiply_by_inputs": False},
            'cfi.attribute(model, "layer_integrated_gradients", init_args={"multiply_by_inputs": False})',
        ),
    ],
)
def test_arguments_at_the_top(key: str, words: dict[str, Any], written: str) -> None:
    with pytest.raises(cfi.ArgumentError) as caught:
        cfi.attribute(NET, key, **words)
    assert str(caught.value).endswith(f"Write: {written}")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("gradcam", "'grad_cam'"),
        ("GradCAM", "'grad_cam'"),
        ("integrated gradients", "'integrated_gradients'"),
        ("IG", "'integrated_gradients'"),
        ("smoothgrad", "'smooth_grad'"),
        ("shap", "'kernel_shap'"),
    ],
)
def test_near_misses(key: str, meant: str) -> None:
    for call in (lambda: cfi.attribute(NET, key, inputs=FIRST), lambda: cfi.methods(key)):
        with pytest.raises(cfi.UnknownMethodError, match=f"Did you mean {meant}"):
            call()


@pytest.mark.parametrize(
    ("name", "meant"), [("tf_keras_vis", "tf-keras-vis"), ("tfkerasvis", "tf-keras-vis"), ("Captum", "captum")]
)
def test_near_misses_of_toolsets(name: str, meant: str) -> None:
    with pytest.raises(cfi.UnknownMethodError, match=f"Did you mean '{meant}'"):
        cfi.attribute(NET, "saliency", name, inputs=FIRST)
    with pytest.raises(cfi.UnknownMethodError, match=f"Did you mean '{meant}'"):
        cfi.methods(toolset=name)
