"""Models that captum's rules do not attach to are explained by way of a canonical copy: numbers, layers, traces."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, GammaRule
from captum_models import With
from torch import Tensor, nn

import cfi_captum.guard
import cfi_captum.run
import cfi_core as cfi
from cfi_captum.table import METHODS, Rule
from cfi_core.translation.store import cache
from cfi_torch.adapter import TorchAdapter
from cfi_torchgraph.rectifiers import Rectifier

RECTIFIED = ("guided_backprop", "deconvolution")
DIFFERENCES = ("deep_lift", "deep_lift_shap")
IMAGES = (3, 12, 16)


def explain(key: str, model: nn.Module, x: Any, **arguments: Any) -> cfi.Attribution:
    method = METHODS[key]
    if method.baselines_required:
        arguments.setdefault("baselines", 0.5 * torch.cat([x, x.flip(0)]))
    if "neuron" in method.required:
        arguments.setdefault("neuron", lambda activation: activation.flatten(1)[:, ::2].sum(1))
    else:
        arguments.setdefault("target", 1)
    found = cfi.attribute(model.eval(), key, "captum", inputs=x, seed=0, **arguments)
    assert isinstance(found, cfi.Attribution)
    return found


def same(
    key: str, functional: nn.Module, modular: nn.Module, x: Any, *, repaired: bool = True, **arguments: Any
) -> cfi.Attribution:
    """Both models hold the same weights; the second is what one would write by hand."""
    modular.load_state_dict(functional.state_dict())
    expected, found = (explain(key, model, x, **arguments) for model in (modular, functional))
    assert expected.provenance["repaired"] == ()
    assert found.provenance["repaired"] != () or not repaired
    assert not repaired or found.certificate.faithful
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-6 * np.abs(expected.values).max())
    assert np.abs(expected.values).max() > 0
    return found


# against the same network rewritten by hand


class Block(nn.Module):
    def __init__(self, channels: int, *, by_hand: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        if by_hand:
            self.relu1, self.relu2, self.add = nn.ReLU(), nn.ReLU(), Addition_Module()
        self.by_hand = by_hand

    def forward(self, x: Tensor) -> Tensor:
        if self.by_hand:
            y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
            return self.relu2(self.add(y, x))
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        y += x
        return torch.relu_(y)


class ResNet(nn.Module):
    """With everything as a function that can be one; or as modules, each used once."""

    def __init__(self, *, by_hand: bool = False) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=not by_hand)
        self.pool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(Block(4, by_hand=by_hand), Block(4, by_hand=by_hand))
        self.fc = nn.Linear(4, 5)
        if by_hand:
            self.average, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.by_hand = by_hand

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        if self.by_hand:
            return self.fc(self.flatten(self.average(self.layer1(self.pool(x)))))
        x = self.layer1(F.max_pool2d(x, 2))
        return self.fc(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))


def resnets() -> tuple[nn.Module, nn.Module]:
    functional = ResNet()
    for module in functional.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    return functional, ResNet(by_hand=True)


@pytest.mark.parametrize("key", [key for key, method in METHODS.items() if method.rule is not Rule.NONE])
def test_a_resnet_of_functions_is_explained_as_one_of_modules(key: str) -> None:
    # Relevance sums up to the output only where nothing leads around the layer.
    arguments = (
        {"layer": "norm" if key == "layer_lrp" else "layer1.1.norm1"} if "layer" in METHODS[key].required else {}
    )
    functional, modular = resnets()
    same(key, functional, modular, torch.randn(2, *IMAGES), **arguments)


@pytest.mark.parametrize("key", ["layer_deep_lift", "neuron_deep_lift", "neuron_guided_backprop"])
@pytest.mark.parametrize("layer", ["layer1.0", "layer1", "layer1.1.conv1", "relu", "fc"])
def test_layers_keep_their_names(key: str, layer: str) -> None:
    functional, modular = resnets()
    # Nothing behind (or before) the last ones needs a rule.
    repaired = not (key.startswith("layer") and layer in ("layer1", "fc")) and layer != "relu"
    same(key, functional, modular, torch.randn(2, *IMAGES), layer=layer, repaired=repaired)


@pytest.mark.parametrize("key", [*RECTIFIED, *DIFFERENCES, "lrp"])
def test_the_noise_tunnel_wraps_a_guarded_method(key: str) -> None:
    functional, modular = resnets()
    exec_args = {"nt_samples": 3, "stdevs": 0.1} | ({"draw_baseline_from_distrib": True} if "shap" in key else {})
    arguments = {"baselines": torch.randn(3, *IMAGES)} if "shap" in key else {}
    same(
        "noise_tunnel",
        functional,
        modular,
        torch.randn(2, *IMAGES),
        init_args={"method": key},
        exec_args=exec_args,
        **arguments,
    )


class UNet(nn.Module):
    """Down, up, and across."""

    def __init__(self, *, by_hand: bool = False) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.Conv2d(8, 2, 3, padding=1)
        self.relu1, self.relu2, self.relu3 = (nn.ReLU() for _ in range(3))
        self.pool, self.by_hand = nn.MaxPool2d(2), by_hand

    def forward(self, x: Tensor) -> Tensor:
        if self.by_hand:
            x = self.relu1(self.down(x))
            y = self.relu3(self.up(self.relu2(self.deep(self.pool(x)))))
        else:
            x = self.relu1(self.down(x))
            y = self.relu1(self.up(self.relu1(self.deep(F.max_pool2d(x, (2, 2))))))
        return self.last(torch.cat([x, y], 1))


@pytest.mark.parametrize("key", [*RECTIFIED, *DIFFERENCES])
def test_a_unet_with_one_rectifier_for_all(key: str) -> None:
    # Guided backpropagation takes any number of uses, and a pooling as it is.
    x, repaired = torch.randn(2, *IMAGES), key in DIFFERENCES
    same(key, UNet(), UNet(by_hand=True), x, target=(1, 4, 5), repaired=repaired)


class Perceptron(nn.Module):
    """Two layers and what lies between."""

    def __init__(self, function: Callable[[Tensor], Tensor], size: int = 5) -> None:
        super().__init__()
        self.first, self.function, self.second = nn.Linear(size, 7), function, nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


# against the papers


def weights(model: Perceptron) -> tuple[np.ndarray, ...]:
    tensors = (model.first.weight, model.first.bias, model.second.weight, model.second.bias)
    return tuple(tensor.detach().double().numpy() for tensor in tensors)


ELEMENTWISE = {
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "GELU": nn.GELU(),
    "silu": F.silu,
    "SiLU": nn.SiLU(inplace=True),
    "mish": F.mish,
    "relu6": F.relu6,
    "ReLU6": nn.ReLU6(inplace=True),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.25),
    "clamp": lambda x: x.clamp(-0.5, 0.25),
    "clamp_min": lambda x: x.clamp(min=0.1),
    "hardswish": nn.Hardswish(),
    "selu": torch.selu,
    "elu": F.elu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "sin": lambda x: x.sin(),
    "square": lambda x: x * x,
    "power": lambda x: x**3,
    "reciprocal": lambda x: 1 / (x + 20),
    "abs": abs,
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_deep_lift_of_any_elementwise_function(name: str) -> None:
    """Shrikumar et al. 2017: the multiplier of a function is its difference over that of its input."""
    model, x, baseline = Perceptron(ELEMENTWISE[name]), torch.randn(4, 5), torch.randn(1, 5)
    found = explain("deep_lift", model, x, baselines=baseline)
    first, bias, second, _ = weights(model)
    function = lambda z: ELEMENTWISE[name](torch.tensor(z)).numpy()  # noqa: E731
    expected = np.zeros((4, 5))
    for sample in range(4):
        difference = x[sample].double().numpy() - baseline[0].double().numpy()
        z, z0 = (first @ one.double().numpy() + bias for one in (x[sample], baseline[0]))
        multipliers = (function(z.copy()) - function(z0.copy())) / (z - z0)
        for feature in range(5):
            expected[sample, feature] = difference[feature] * sum(
                second[1, unit] * multipliers[unit] * first[unit, feature] for unit in range(7)
            )
    np.testing.assert_allclose(found.values, expected, rtol=2e-4, atol=1e-6)
    assert found.provenance["completeness"]["gap"] < 1e-5


@pytest.mark.parametrize("function", [F.relu6, nn.ReLU6(), lambda x: x.clamp(0, 6), lambda x: torch.clip(x, 0, 6)])
def test_a_rectifier_that_ends_is_one_of_two(function: Any) -> None:
    """`relu6(x) = relu(x) - relu(x - 6)`, whose rules add up to that of the whole."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lower, self.upper = nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.lower(x) - self.upper(x - 6)

    same("deep_lift", Perceptron(function), Perceptron(Two()), 8 * torch.randn(3, 5), baselines=torch.randn(1, 5))


RECTIFIERS = {
    "relu": (F.relu, np.inf),
    "Tensor.relu": (lambda x: x.relu(), np.inf),
    "aten": (torch.ops.aten.relu, np.inf),
    "in place": (lambda x: F.relu(x, inplace=True), np.inf),
    "clamp": (lambda x: x.clamp(min=0), np.inf),
    "relu6": (F.relu6, 6),
    "ReLU6": (nn.ReLU6(), 6),
    "clamp to 2": (lambda x: torch.clamp(x, 0, 2), 2),
    "Hardtanh": (nn.Hardtanh(0, 3), 3),
}


@pytest.mark.parametrize("key", RECTIFIED)
@pytest.mark.parametrize("name", RECTIFIERS)
def test_rectifiers_of_all_kinds(key: str, name: str) -> None:
    """Positive gradients pass: where the rectifier lets some (Springenberg et al. 2014), or anywhere (Zeiler)."""
    function, most = RECTIFIERS[name]
    model, x = Perceptron(function), 4 * torch.randn(4, 5)
    found = explain(key, model, x)
    first, bias, second, _ = weights(model)
    for sample in range(4):
        z = first @ x[sample].double().numpy() + bias
        passes = (z > 0) & (z < most) if key == "guided_backprop" else np.ones(7, bool)
        expected = first.T @ np.where(passes, np.maximum(second[1], 0), 0)
        np.testing.assert_allclose(found.values[sample], expected, rtol=1e-4, atol=1e-6)
    plain = cfi.attribute(model, "saliency", "captum", inputs=x, target=1)
    assert np.abs(plain.values - found.values).max() > 0.01


PASSING = ["gelu", "SiLU", "mish", "relu6", "hardtanh", "hardswish", "selu", "elu", "leaky_relu", "tanh"]


@pytest.mark.parametrize("name", PASSING)
def test_relevance_passes_an_activation(name: str) -> None:
    """Bach et al. 2015, equations 56 and 58: as it is through an activation, by contributions through a layer."""
    model, x = Perceptron(ELEMENTWISE[name]), torch.randn(4, 5)
    found = explain("lrp", model, x)
    first, bias, second, last = weights(model)
    for sample in range(4):
        a0 = x[sample].double().numpy()
        z1 = first @ a0 + bias
        a1 = ELEMENTWISE[name](torch.tensor(z1.copy())).numpy()
        out = second @ a1 + last
        relevance = np.array([a1[unit] * second[1, unit] / out[1] * out[1] for unit in range(7)])
        expected = [sum(a0[i] * first[unit, i] / z1[unit] * relevance[unit] for unit in range(7)) for i in range(5)]
        np.testing.assert_allclose(found.values[sample], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("function", [F.relu, nn.ReLU(), F.gelu, nn.GELU(), nn.ReLU6()])
def test_relevance_of_a_value_that_an_activation_and_a_sum_take(function: Any) -> None:
    """A residual connection before the activation: each use gets its share."""

    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(5, 5) for _ in range(3))
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.third(x + self.second(self.function(x)))

    model, x = Before(), torch.randn(3, 5)
    found = explain("lrp", model, x)
    one, two, three = (layer.weight.detach().double().numpy() for layer in (model.first, model.second, model.third))
    bias = [layer.bias.detach().double().numpy() for layer in (model.first, model.second, model.third)]
    for sample in range(3):
        a0 = x[sample].double().numpy()
        z1 = one @ a0 + bias[0]
        a1 = function(torch.tensor(z1.copy())).numpy()
        z2 = two @ a1 + bias[1]
        total = z1 + z2
        relevance = three[1] * total  # of the sum: contributions to the output
        of_z1, of_z2 = relevance * z1 / total, relevance * z2 / total
        of_z1 = of_z1 + a1 * (two.T @ (of_z2 / z2))
        np.testing.assert_allclose(found.values[sample], a0 * (one.T @ (of_z1 / z1)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("function", [lambda x: x + 1, lambda x: 2 * x, lambda x: x + x, lambda x: x - x.mean(1, True)])
def test_relevance_of_linear_functions(function: Any) -> None:
    """Relevance that is not kept back by a bias is conserved."""
    found = explain("lrp", With(function).double(), torch.randn(3, 4).double())
    assert found.provenance["completeness"]["gap"] < 1e-5


def test_a_rule_of_the_users_stays_on_its_module() -> None:
    functional, modular = Perceptron(F.relu), Perceptron(nn.ReLU())
    for model in (functional, modular):
        model.first.rule, model.second.rule = GammaRule(0.5), Alpha1_Beta0_Rule()
    epsilon = explain("lrp", Perceptron(F.relu), torch.randn(3, 5))
    found = same("lrp", functional, modular, torch.randn(3, 5))
    assert np.abs(found.values - epsilon.values).max() > 0.01


def test_relevance_of_parts() -> None:
    """A shuffle of channels, as in ShuffleNet: values are moved, and relevance with them."""

    class Shuffled(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            first, second = self.first(x)[:, :6].chunk(2, 1)
            both = torch.stack([F.relu(second), first], 2).reshape(len(x), -1)
            return self.second(torch.cat([both, x[:, :1]], 1))

    found = explain("lrp", Shuffled(F.relu).double(), torch.randn(3, 5).double())
    assert found.provenance["completeness"]["gap"] < 1e-5


# what cannot be repaired


class Attention(nn.Module):
    """As in BERT, with what that is made of."""

    def __init__(self, *, normalize: bool = True) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
        self.norm = nn.LayerNorm(6) if normalize else nn.Identity()
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 6**0.5
        mixed = F.softmax(scores, -1) @ self.value(x)
        return self.out(F.gelu(self.norm(x + mixed)).mean(1))


@pytest.mark.parametrize("key", [*DIFFERENCES, "lrp", "guided_backprop"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_block_of_a_transformer_has_no_rules(key: str, normalize: bool) -> None:
    with pytest.raises(cfi.MethodError, match=f"'{key}' (has no rule for|changes the gradient of)"):
        explain(key, Attention(normalize=normalize), torch.randn(2, 4, 6))


@pytest.mark.parametrize("key", RECTIFIED)
@pytest.mark.parametrize("function", [F.gelu, F.silu, nn.LeakyReLU(), torch.tanh, lambda x: x.clamp(-1, 1), torch.exp])
def test_what_is_no_rectifier(key: str, function: Any) -> None:
    with pytest.raises(cfi.MethodError, match=r"changes the gradient of nn.ReLU modules only, but the model computes"):
        explain(key, Perceptron(function), torch.randn(2, 5))


@pytest.mark.parametrize("key", ["deep_lift", "lrp", "guided_backprop"])
@pytest.mark.parametrize("function", [lambda x: x * torch.sigmoid(x), lambda x: x / x.norm(dim=1, keepdim=True)])
def test_products_have_no_rule(key: str, function: Any) -> None:
    with pytest.raises(cfi.MethodError, match=f"'{key}' (has no rule for|changes the gradient of)"):
        explain(key, Perceptron(function), torch.randn(2, 5))


@pytest.mark.parametrize("function", [torch.sigmoid, torch.exp, F.softplus, lambda x: x.clamp(min=0.5)])
def test_relevance_of_what_is_not_zero_at_zero(function: Any) -> None:
    with pytest.raises(cfi.MethodError, match=r"no rule for module .* This is said of a canonical copy"):
        explain("lrp", Perceptron(function), torch.randn(2, 5))


def test_a_decision_by_values_is_named() -> None:
    model = Perceptron(lambda x: F.relu(x) if bool(x.sum() > 0) else F.relu(2 * x))
    influence = pytest.warns(cfi.ModelWarning, match="samples influence each other")
    with (
        influence,
        pytest.raises(cfi.MethodError, match=r"could not be rewritten.*decides in Python by values.*`__bool__`"),
    ):
        explain("deep_lift", model, torch.randn(2, 5))


def test_a_gradient_of_ones_own_is_named() -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.relu()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad

    with pytest.raises(cfi.MethodError, match=r"could not be rewritten.*a gradient of its own \(`OpaqueBackward`\)"):
        explain("deep_lift", Perceptron(Opaque.apply), torch.randn(2, 5))


def test_a_copy_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite = TorchAdapter.canonical

    def wrong(self: TorchAdapter, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        made = rewrite(self, model, *args, **kwargs)
        with torch.no_grad():
            made.model.second.bias = nn.Parameter(made.model.second.bias + 0.01)
        return made

    monkeypatch.setattr(TorchAdapter, "canonical", wrong)
    with pytest.raises(cfi.MethodError, match="rewritten for the method's rules computes something else: outputs on"):
        explain("deep_lift", Perceptron(F.relu), torch.randn(2, 5))


# layers


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last, self.relu = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.gelu(self.relu(self.inner(self.relu(self.first(x))))))


def test_a_layer_that_is_called_twice_has_no_one_output() -> None:
    x, model = torch.randn(2, 5), Twice()
    assert explain("layer_deep_lift", model, x, layer="inner").provenance["repaired"]
    with pytest.raises(cfi.LayerError, match=r"'relu'.*calls it several times.*Layers that can: first, inner, last"):
        explain("layer_deep_lift", model, x, layer=model.relu)


def test_what_goes_into_a_block_is_not_there() -> None:
    functional, modular = resnets()
    arguments = {"exec_args": {"attribute_to_layer_input": True}}
    same("layer_deep_lift", functional, modular, torch.randn(2, *IMAGES), layer="layer1.0.conv2", **arguments)
    with pytest.raises(cfi.LayerError, match=r"attribute_to_layer_input: what goes into layer 'layer1\.0'"):
        explain("layer_deep_lift", functional, torch.randn(2, *IMAGES), layer="layer1.0", **arguments)


def test_a_call_that_waited_for_its_layer() -> None:
    functional, _ = resnets()
    x = torch.randn(2, *IMAGES)
    pending = cfi.attribute(functional.eval(), "layer_deep_lift", "captum", inputs=x, target=1, seed=0)
    assert isinstance(pending, cfi.PendingLayer)
    found = cfi.finish_execution_with_layer(pending, "layer1.0")
    np.testing.assert_array_equal(found.values, explain("layer_deep_lift", functional, x, layer="layer1.0").values)
    assert found.provenance["repaired"]


# heads and structures


@pytest.mark.parametrize("key", ["deep_lift", "lrp", "guided_backprop"])
@pytest.mark.parametrize("head", [None, "output"])
def test_a_softmax_at_the_end_is_cut_before_the_rules_are_looked_for(key: str, head: str | None) -> None:
    class Ends(Perceptron):
        end = staticmethod(lambda x: F.softmax(x, -1))

        def forward(self, x: Tensor) -> Tensor:
            return self.end(super().forward(x))

    x, model = torch.randn(3, 5), Ends(F.relu)
    if key == "lrp" and head == "output":
        with pytest.raises(cfi.MethodError, match="no rule for module 'softmax'"):
            explain(key, model, x, head=head)
        return
    # DeepLIFT's rule of a softmax is not complete, and CFI says so, on modules as well.
    told = pytest.warns(cfi.CompletenessWarning) if (key, head) == ("deep_lift", "output") else nullcontext()
    with told:
        found = explain(key, model, x, head=head)
    if head == "output":
        modular = Ends(nn.ReLU())
        modular.end = nn.Softmax(-1)
        modular.load_state_dict(model.state_dict())
        with pytest.warns(cfi.CompletenessWarning) if key == "deep_lift" else nullcontext():
            expected = explain(key, modular, x, head=head).values
        np.testing.assert_allclose(found.values, expected, atol=1e-6)
    else:
        without = Perceptron(F.relu)
        without.load_state_dict(model.state_dict())
        np.testing.assert_allclose(found.values, explain(key, without, x).values, atol=1e-6)
        assert "left out" in found.provenance["explained"]


def test_a_model_without_misses_at_its_logits_is_left_alone() -> None:
    class Ends(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return F.softmax(super().forward(x), -1)

    assert explain("deep_lift", Ends(nn.ReLU()), torch.randn(3, 5)).provenance["repaired"] == ()


def test_outputs_in_a_dict_and_values_in_dicts() -> None:
    class Structured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
            values = {"sum": F.relu(self.first(x)), "other": [F.relu(self.first(y))]}
            both = values["sum"] - 2 * values["other"][0]
            return {"scores": self.second(both), "features": (both, {"x": x})}

    model, x, y = Structured().eval(), torch.randn(3, 5), torch.randn(3, 5)
    found = cfi.attribute(model, "deep_lift", "captum", inputs=(x, y), target=("scores", 1))
    total = sum(part.sum(1) for part in found.values)
    zero = torch.zeros(1, 5)
    expected = (model(x, y)["scores"] - model(zero, zero)["scores"])[:, 1].detach().numpy()
    np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-6)


def test_another_output_may_have_no_rule() -> None:
    class Two(Perceptron):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), x * x.roll(1, 1)

    assert explain("deep_lift", Two(nn.ReLU()), torch.randn(3, 5), target=(0, 1)).provenance["repaired"] == ()
    with pytest.raises(cfi.MethodError, match="no rule for the function `mul`"):
        explain("deep_lift", Two(nn.ReLU()), torch.randn(3, 5), target=(1, 1))


def test_further_arguments_of_the_forward_pass() -> None:
    class Masked(Perceptron):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.second(F.relu(self.first(x * mask)))

    model, x, mask = Masked(F.relu).eval(), torch.randn(3, 5), torch.tensor([[1.0, 0, 1, 0, 1]]).repeat(3, 1)
    found = explain("deep_lift", model, x, exec_args={"additional_forward_args": (mask,)})
    expected = (model(x, mask) - model(torch.zeros(3, 5), mask))[:, 1].detach().numpy()
    np.testing.assert_allclose(found.values.sum(1), expected, rtol=1e-4, atol=1e-6)
    assert not found.values[:, [1, 3]].any()


# what stays as it was


def test_the_users_model_is_left_alone() -> None:
    model, x = ResNet().train(), torch.randn(2, *IMAGES)
    adapter, state = TorchAdapter(), {name: value.clone() for name, value in model.state_dict().items()}
    before, modules = adapter.fingerprint(model), dict(model.named_modules())
    for key in ("deep_lift", "lrp", "guided_backprop"):
        with pytest.warns(cfi.ModelWarning, match="training mode"):
            cfi.attribute(model, key, "captum", inputs=x, target=1)
    assert adapter.fingerprint(model) == before
    assert dict(model.named_modules()) == modules
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert not hasattr(module, "rule")
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_copy_is_made_once_and_anew_when_the_model_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    rewrite = TorchAdapter.canonical
    monkeypatch.setattr(TorchAdapter, "canonical", lambda *args, **kwargs: made.append(1) or rewrite(*args, **kwargs))
    model, x = Perceptron(F.relu), torch.randn(3, 5)
    first = explain("deep_lift", model, x)
    np.testing.assert_array_equal(explain("deep_lift", model, x).values, first.values)
    explain("deep_lift", model, torch.randn(4, 5))
    assert len(made) == 1
    with torch.no_grad():
        model.second.weight.mul_(2)
    np.testing.assert_allclose(explain("deep_lift", model, x).values, 2 * first.values, rtol=1e-5)
    assert len(made) == 2


def test_the_copy_goes_with_its_model() -> None:
    model = Perceptron(F.relu)
    explain("deep_lift", model, torch.randn(3, 5))
    gone = weakref.ref(model)
    assert any("canonical" in key[2] for key in cache)
    del model
    gc.collect()
    assert gone() is None
    assert not any("canonical" in key[2] for key in cache)


def test_threads_share_one_model() -> None:
    model, x = ResNet().eval(), torch.randn(4, *IMAGES)
    keys = ("deep_lift", "guided_backprop", "deconvolution", "lrp") * 2
    alone = [explain(key, model, x).values for key in keys]
    together: dict[int, np.ndarray] = {}

    def run(place: int) -> None:
        together[place] = explain(keys[place], model, x).values

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(keys))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, values in enumerate(alone):
        np.testing.assert_array_equal(together[place], values)


# without the guard, the answers would be wrong ones


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules attach to what they find, as in captum by itself."""
    monkeypatch.setattr(cfi_captum.guard, "check", lambda _: ())
    monkeypatch.setattr(cfi_captum.run, "check_modules", lambda *_: None)


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("function", [F.relu, nn.ReLU6(), F.gelu, F.silu])
def test_without_the_guard_guided_backpropagation_is_the_plain_gradient(function: Any) -> None:
    model, x = Perceptron(function), 4 * torch.randn(3, 5)
    plain = cfi.attribute(model.eval(), "saliency", "captum", inputs=x, target=1)
    for key in RECTIFIED:
        np.testing.assert_allclose(explain(key, model, x).values, plain.values, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("unguarded")
def test_without_the_guard_deep_lift_is_the_plain_gradient() -> None:
    model, x = Perceptron(F.relu), torch.randn(3, 5)
    plain = cfi.attribute(model.eval(), "input_x_gradient", "captum", inputs=x, target=1)
    with pytest.warns(cfi.CompletenessWarning):
        np.testing.assert_allclose(explain("deep_lift", model, x).values, plain.values, rtol=1e-5, atol=1e-7)


def test_rectifier_is_a_rectifier_up_to_its_highest_value() -> None:
    assert Rectifier(6)(torch.tensor([-1.0, 2.0, 7.0])).tolist() == [0, 2, 6]


def test_what_a_copy_gives_in_the_run_is_compared() -> None:
    """DeepLIFT runs inputs and baselines together, which is twice as many samples as were measured before."""

    class Many(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (2.0 if len(x) > 8 else 1.0)

    with pytest.raises(
        cfi.UnfaithfulTranslationError, match=r"While deep_lift ran, .*rewriting it for the method's rul"
    ):
        explain("deep_lift", Many(F.relu), torch.randn(5, 5))


class Tokens(nn.Module):
    """What is made of whole numbers, with everything behind the embedding as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.first, self.second = nn.Embedding(20, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.second(F.gelu(F.relu6(self.first(self.embedding(tokens)))).mean(1))


@pytest.mark.parametrize("layer", ["embedding", "first"])
def test_tokens_are_explained_at_their_embedding(layer: str) -> None:
    model, tokens = Tokens().eval(), torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    found = explain("layer_deep_lift", model, tokens, layer=layer, baselines=torch.zeros_like(tokens))
    expected = (model(tokens) - model(torch.zeros_like(tokens)))[:, 1].detach().numpy()
    np.testing.assert_allclose(found.values.sum((1, 2)), expected, rtol=1e-4, atol=1e-6)
    assert found.provenance["repaired"]
