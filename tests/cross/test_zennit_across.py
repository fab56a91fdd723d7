"""Zennit on models of other frameworks: the same as natively, and its rules as their papers have them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from shared_cnn import CHANNELS, Twins, apart, to_first, to_last

import cfi_core as cfi
from cfi_core.catalogue import TOOLSETS_OF_METHOD
from cfi_core.specs import Need

import keras  # isort: skip
from torch import nn  # isort: skip
from zennit import rules  # isort: skip
from zennit.types import Convolution  # isort: skip

SLOW = Path(__file__).parents[2] / "plugins" / "cfi_zennit" / "tests"
TARGET = [1, 3]
LOW = np.full((1, CHANNELS, 1, 1), -3, np.float32)
ARGUMENTS: dict[str, dict[str, Any]] = {
    "lrp_epsilon_gamma_box": {"init_args": {"low": LOW, "high": 3.0}},
    "smooth_grad": {"init_args": {"n_iter": 4}},
    "integrated_gradients": {"baselines": 0.1},
    "occlusion": {"init_args": {"window": (3, 4, 5), "stride": (3, 2, 2)}},
}
KEYS = [key for key, toolsets in TOOLSETS_OF_METHOD.items() if "zennit" in toolsets]


def in_keras_order(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments as a user of the Keras twin writes them: channels last."""
    own = dict(arguments.get("init_args", {}))
    for name, value in own.items():
        if isinstance(value, np.ndarray):
            own[name] = to_last(value)
        elif isinstance(value, tuple):
            own[name] = (*value[1:], value[0])
    return {**arguments, "init_args": own} if own else arguments


@pytest.mark.parametrize("key", KEYS)
def test_every_method_both_ways(twins: Twins, key: str) -> None:
    arguments = ARGUMENTS.get(key, {})
    (method,) = cfi.methods(key, toolset="zennit")
    native: Any = cfi.attribute(
        twins.torch_model, key, "zennit", inputs=twins.first, target=TARGET, seed=5, **arguments
    )
    crossed: Any = cfi.attribute(
        twins.keras_model, key, "zennit", inputs=twins.last, target=TARGET, seed=5, **in_keras_order(arguments)
    )
    assert apart(native.values, to_first(crossed.values)) <= 1e-5
    assert ("bridge" in crossed.route[0]) != (Need.MODULES in method.needs)
    if "conservation" in native.extras:
        for name in ("conv1", "relu1", "pool1", "conv2", "relu2", "fc"):
            arrives = [found.extras["conservation"][name]["arrives"] for found in (native, crossed)]
            np.testing.assert_allclose(*arrives, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("layer", ["conv1", "pool1", "relu2"])
def test_relevance_at_layers_of_a_keras_model(twins: Twins, layer: str) -> None:
    native: Any = cfi.attribute(
        twins.torch_model, "zennit_lrp", "zennit", inputs=twins.first, target=TARGET, layer=layer
    )
    crossed: Any = cfi.attribute(
        twins.keras_model,
        "zennit_lrp",
        "zennit",
        inputs=twins.last,
        target=TARGET,
        layer=twins.keras_model.get_layer(layer),
    )
    assert crossed.layer == layer and crossed.dims == ("sample", "height", "width", "channel")
    assert apart(native.values, to_first(crossed.values)) <= 1e-5


def test_rules_for_layers_of_a_keras_model(twins: Twins) -> None:
    def values(model: Any, images: np.ndarray, layer: Any) -> Any:
        own = {"name_map": [(layer, rules.WSquare())]}
        found: Any = cfi.attribute(model, "zennit_lrp", "zennit", inputs=images, target=TARGET, init_args=own)
        assert found.provenance["applied"]["rules"]["conv1"] == "WSquare"
        return found.values

    native = values(twins.torch_model, twins.first, twins.torch_model.conv1)
    crossed = values(twins.keras_model, twins.last, twins.keras_model.get_layer("conv1"))
    assert apart(native, to_first(crossed)) <= 1e-5


def test_onnx_models(twins: Twins) -> None:
    model = cfi.translate(twins.torch_model, "onnx", inputs=twins.first).model
    native: Any = cfi.attribute(twins.torch_model, "zennit_lrp", "zennit", inputs=twins.first, target=TARGET)
    crossed: Any = cfi.attribute(model, "zennit_lrp", "zennit", inputs=twins.first, target=TARGET)
    assert crossed.route and apart(native.values, crossed.values) <= 1e-5


@pytest.mark.parametrize("key", [key for key in KEYS if key.startswith(("lrp_", "zennit", "guided", "excitation"))])
def test_a_plain_callable_has_no_modules(key: str) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(cfi.RouteError, match="modules"):
        cfi.attribute(lambda x: x @ weight, key, "zennit", inputs=np.ones((2, 4)), target=0)


# rules on a converted network with batch norms and a residual sum


@pytest.fixture(scope="module")
def slow() -> Iterator[ModuleType]:
    """The rules as their papers write them, which lie beside Zennit's own tests."""
    sys.path.insert(0, str(SLOW))
    import slow_rules

    yield slow_rules
    sys.path.remove(str(SLOW))


def residual() -> keras.Model:
    layers, generator = keras.layers, np.random.default_rng(3)
    x = inputs = keras.Input((6, 8, 2))
    x = layers.Conv2D(3, 3, padding="same", name="conv1")(x)
    skip = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    x = layers.Conv2D(3, 3, padding="same", use_bias=False, name="conv2")(skip)
    x = layers.Add(name="add")([layers.BatchNormalization(name="bn2")(x), skip])
    x = layers.AveragePooling2D((1, 2), name="average")(layers.ReLU(name="relu2")(x))
    x = layers.MaxPooling2D((3, 2), name="maximum")(x)
    model = keras.Model(inputs, layers.Dense(4, name="fc")(layers.Flatten(name="flatten")(x)))
    for layer in model.layers:
        layer.set_weights([np.abs(w) + 0.5 if "variance" in v.path else w for v, w in _drawn(layer, generator)])
    return model


def _drawn(layer: keras.Layer, generator: np.random.Generator) -> list[tuple[Any, np.ndarray]]:
    return [(variable, generator.normal(size=variable.shape) * 0.4) for variable in layer.weights]


def slowly(
    slow: ModuleType, model: keras.Model, image: np.ndarray, target: int, rule: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Relevance of one image, channels first, layer by layer, and the output."""

    def folded(conv: str, norm: str, shape: tuple[int, int, int]) -> Any:
        kernel, *bias = model.get_layer(conv).get_weights()
        gamma, beta, mean, variance = model.get_layer(norm).get_weights()
        weight, shift = slow.with_batch_norm(
            kernel.transpose(3, 2, 0, 1).astype(float),
            bias[0] if bias else np.zeros(3),
            *(mean, variance, gamma, beta),
            model.get_layer(norm).epsilon,
        )
        return slow.convolution(weight, shift, shape, 1)

    first, second = folded("conv1", "bn1", (2, 6, 8)), folded("conv2", "bn2", (3, 6, 8))
    average = slow.averaging((3, 6, 8), (1, 2))
    kernel, bias = model.get_layer("fc").get_weights()
    w = kernel.reshape(2, 2, 3, 4).transpose(3, 2, 0, 1).reshape(4, -1).astype(float)  # Keras flattens channels last
    x = image.ravel().astype(float)
    skip = slow.positive(first[0] @ x + first[1])
    branch = second[0] @ skip + second[1]
    joined = slow.positive(branch + skip)
    averaged = average @ joined
    won = slow.winners(averaged, (3, 6, 4), (3, 2))
    output = w @ averaged[won] + bias

    of_averaged = np.zeros_like(averaged)
    np.add.at(of_averaged, won, slow.epsilon()(averaged[won], w, bias, np.eye(4)[target] * output))
    of_joined = slow.epsilon()(joined, average, np.zeros(len(average)), of_averaged)
    halves = np.stack([branch, skip]).T
    parts = np.array([slow.shared(z, 0.0, r, slow.STABILIZER) for z, r in zip(halves, of_joined, strict=True)])
    of_skip = parts[:, 1] + rule(skip, *second, parts[:, 0])
    return rule(x, *first, of_skip).reshape(image.shape), output


@pytest.mark.parametrize("name", ["epsilon", "gamma", "zplus", "alpha_beta", "zbox", "wsquare", "flat"])
def test_rules_on_a_converted_network_are_those_of_their_papers(slow: ModuleType, name: str) -> None:
    rule, paper = {
        "epsilon": (rules.Epsilon(0.03), slow.epsilon(0.03)),
        "gamma": (rules.Gamma(0.4), slow.gamma(0.4)),
        "zplus": (rules.ZPlus(), slow.z_plus()),
        "alpha_beta": (rules.AlphaBeta(2, 1), slow.alpha_beta(2.0, 1.0)),
        "zbox": (rules.ZBox(-3.0, 4.0), slow.z_box(-3.0, 4.0)),
        "wsquare": (rules.WSquare(), slow.w_square()),
        "flat": (rules.Flat(), slow.flat()),
    }[name]
    model = residual()
    images = np.random.default_rng(5).normal(size=(2, 2, 6, 8)).astype(np.float32)
    found: Any = cfi.attribute(
        model,
        "lrp_epsilon_plus",
        "zennit",
        inputs=to_last(images),
        target=1,
        init_args={"layer_map": [(Convolution, rule)]},
    )
    expected = [slowly(slow, model, image, 1, paper) for image in images]
    np.testing.assert_allclose(np.asarray(model(to_last(images))), [output for _, output in expected], rtol=1e-4)
    assert apart(np.array([values for values, _ in expected]), to_first(found.values)) <= 1e-5
    assert set(found.provenance["applied"]["canonized"]["merged"]) == {"bn1", "bn2"}


def test_modules_of_conversions_are_torchs() -> None:
    """Zennit's maps go by torch's classes."""
    made = cfi.translate(residual(), "torch", inputs=np.zeros((2, 6, 8, 2), np.float32)).model
    kinds = {type(module) for module in made.modules()}
    assert {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d, nn.MaxPool2d, nn.Linear} <= kinds
