"""Methods with rules of their own, on models that come from elsewhere: converted, then rewritten for the rules."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
import torch
from captum.attr._utils.custom_modules import Addition_Module
from onnx import TensorProto, helper, numpy_helper
from shared_cnn import apart, to_first
from torch import nn

import cfi_core as cfi


class Ends(nn.Module):
    """A rectifier up to a highest value, of rectifiers that captum knows."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.lower, self.upper, self.most = nn.ReLU(), nn.ReLU(), most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lower(x) - self.upper(x - self.most)


class ByHand(nn.Module):
    """The network of this page as captum wants it: every operation a module, each used once."""

    def __init__(self, weights: list[np.ndarray], most: float | None) -> None:
        super().__init__()
        self.c1, self.c2, self.d = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 5)
        self.act1, self.act2 = (nn.ReLU() if most is None else Ends(most) for _ in range(2))
        self.add, self.pool, self.flat = Addition_Module(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        with torch.no_grad():
            for place, layer in enumerate((self.c1, self.c2, self.d)):
                kernel = torch.tensor(weights[2 * place])
                layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
                layer.bias.copy_(torch.tensor(weights[2 * place + 1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act1(self.c1(x))
        return self.d(self.flat(self.pool(self.add(x, self.act2(self.c2(x))))))


def keras_model(most: float | None) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers, activation = keras.layers, keras.layers.ReLU(most)  # one layer for both uses
    inputs = keras.Input((12, 16, 3))
    x = activation(layers.Conv2D(4, 3, name="c1", bias_initializer="normal")(inputs))
    y = activation(layers.Conv2D(4, 3, padding="same", name="c2", bias_initializer="normal")(x))
    scores = layers.Dense(5, name="d")(layers.GlobalAveragePooling2D()(layers.Add()([x, y])))
    return keras.Model(inputs, scores)


def onnx_model(weights: list[np.ndarray], most: float | None) -> onnx.ModelProto:
    """The same network in ONNX's operators."""
    held = {f"w{place}": value for place, value in enumerate(weights)}
    held |= {name: held[name].transpose(3, 2, 0, 1) for name in ("w0", "w2")}
    held |= {"low": np.array(0, np.float32), "high": np.array(most or 0, np.float32)}
    bounds = ["Relu"] if most is None else ["Clip", "low", "high"]
    activate = lambda name, made: helper.make_node(bounds[0], [name, *bounds[1:]], [made])  # noqa: E731
    nodes = [
        helper.make_node("Conv", ["x", "w0", "w1"], ["c1"], name="c1"),
        activate("c1", "a1"),
        helper.make_node("Conv", ["a1", "w2", "w3"], ["c2"], name="c2", pads=[1, 1, 1, 1]),
        activate("c2", "a2"),
        helper.make_node("Add", ["a1", "a2"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w4", "w5"], ["y"], name="d"),
    ]
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    initializers = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 3, 12, 16])], [value("y", ["n", 5])], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("source", ["keras", "onnx"])
@pytest.mark.parametrize(
    ("key", "most"), [("deep_lift", None), ("deep_lift", 0.4), ("lrp", None), ("guided_backprop", None)]
)
def test_a_converted_model_is_explained_as_one_made_for_the_rules(source: str, key: str, most: float | None) -> None:
    model = keras_model(most)
    weights = model.get_weights()
    images = np.random.default_rng(0).normal(size=(2, 12, 16, 3)).astype(np.float32)
    own = cfi.attribute(ByHand(weights, most).eval(), key, "captum", inputs=to_first(images), target=1)
    if source == "keras":
        values = to_first(cfi.attribute(model, key, "captum", inputs=images, target=1).values)
    else:
        values = cfi.attribute(onnx_model(weights, most), key, "captum", inputs=to_first(images), target=1).values
    assert apart(own.values, values) < 1e-5


@pytest.mark.parametrize("key", ["guided_backprop", "deconvolution"])
def test_a_rectifier_with_an_end_is_one_in_keras_too(key: str) -> None:
    model = keras_model(0.4)
    images = np.random.default_rng(0).normal(size=(2, 12, 16, 3)).astype(np.float32)
    found = cfi.attribute(model, key, "captum", inputs=images, target=1)
    assert any("Rectifier" in repair for repair in found.provenance["repaired"])
    plain = cfi.attribute(model, "saliency", "captum", inputs=images, target=1)
    assert apart(plain.values, found.values) > 0.01


def test_layers_of_a_converted_and_rewritten_model_go_by_the_users_names() -> None:
    model = keras_model(None)
    images = np.random.default_rng(0).normal(size=(2, 12, 16, 3)).astype(np.float32)
    by_hand = ByHand(model.get_weights(), None).eval()
    for layer in ("c1", "c2"):
        found = cfi.attribute(model, "layer_lrp", "captum", inputs=images, target=1, layer=layer)
        own = cfi.attribute(by_hand, "layer_lrp", "captum", inputs=to_first(images), target=1, layer=layer)
        assert found.layer == layer
        assert found.provenance["repaired"]
        assert apart(own.values, to_first(found.values)) < 1e-5
