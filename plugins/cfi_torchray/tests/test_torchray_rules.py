"""What TorchRay's rules would overlook is handed to them, or refused; nothing becomes the plain gradient unsaid."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, relu
from torchray_models import CLASSES, Called, Plain, Residual, images, seeded

import cfi_core as cfi

TARGET = [1, 3]
KEYS = ("deconvolution", "guided_backprop")


def explain(model: nn.Module, key: str, **arguments: Any) -> cfi.Attribution:
    return cfi.attribute(model, key, "torchray", **{"inputs": images(), "target": TARGET, **arguments})


def unused(x: Tensor) -> Tensor:
    """In place, by a statement whose value nobody takes."""
    torch.relu_(x)
    return x


def unused_method(x: Tensor) -> Tensor:
    x.relu_()
    return x


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.relu": lambda x: torch.relu(x),
    "Tensor.relu": lambda x: x.relu(),
    "imported before": lambda x: relu(x),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu_": lambda x: F.relu_(x),
    "torch.relu_, a statement": unused,
    "Tensor.relu_, a statement": unused_method,
    "clamp": lambda x: x.clamp(min=0),
    "torch.clamp": lambda x: torch.clamp(x, 0),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp_": lambda x: x.clamp_(min=0),
    "clip": lambda x: x.clip(0),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "aten": lambda x: torch.ops.aten.relu(x),
    "aten, overload": lambda x: torch.ops.aten.relu.default(x),
    "module in place": nn.ReLU(inplace=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", KEYS)
def test_every_rectifier_gets_the_rule(key: str, way: str) -> None:
    expected = explain(seeded(Plain), key).values
    found = explain(seeded(Called, WAYS[way]), key)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-9)
    direct = way in ("torch.relu", "F.relu", "F.relu in place", "torch.relu_, a statement", "module in place")
    assert bool(found.provenance["applied"]["repaired"]) != direct


@pytest.mark.parametrize("bounded", [nn.ReLU6(), nn.Hardtanh(0, 6), F.relu6, lambda x: x.clamp(0, 6)])
def test_a_bounded_rectifier_is_a_rectifier_with_a_bound(bounded: Callable[[Tensor], Tensor]) -> None:
    inputs = 40 * images()
    found = explain(seeded(Called, bounded), "guided_backprop", inputs=inputs).values
    taken: list[Tensor] = []

    def rule(x: Tensor) -> Tensor:
        taken.append(x)
        y = x.clamp(0, 6)
        if y.requires_grad:
            y.register_hook(lambda g: g.clamp(min=0))
        return y

    model = seeded(Called, rule)
    x = torch.tensor(inputs, requires_grad=True)
    expected = torch.autograd.grad(model(x)[[0, 1], TARGET].sum(), x)[0]
    assert any((one > 6).any() for one in taken)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": nn.ELU(),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "sign": lambda x: x * (1 + x.sign()) / 2,
    "sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("way", OTHERS)
@pytest.mark.parametrize("key", [*KEYS, "excitation_backprop"])
def test_other_activations_are_refused_by_name(key: str, way: str) -> None:
    with pytest.raises(cfi.MethodError, match=f"`({way}|mul|div)`"):
        explain(seeded(Called, OTHERS[way]), key, target=1)


@pytest.mark.parametrize("key", KEYS)
def test_a_model_without_rectifiers_is_refused(key: str) -> None:
    with pytest.raises(cfi.MethodError, match="none lies between"):
        explain(seeded(Plain, nn.Identity), key)
    with pytest.raises(cfi.MethodError, match="none lies between"):
        explain(seeded(Plain), key, layer="8")


def make_scripted() -> torch.jit.ScriptModule:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated
        return torch.jit.trace(seeded(Plain), torch.tensor(images()), check_trace=False)


@pytest.mark.parametrize("key", [*KEYS, "excitation_backprop"])
def test_scripted_and_compiled_models_are_refused(key: str) -> None:
    with pytest.raises(cfi.MethodError, match="scripted or compiled"):
        explain(make_scripted(), key)
    with pytest.raises(cfi.MethodError, match="scripted or compiled"):
        explain(nn.Sequential(torch.compile(seeded(Plain), backend="eager")).eval(), key)


def test_scripted_models_have_gradients() -> None:
    scripted = make_scripted()
    np.testing.assert_allclose(
        explain(scripted, "saliency").values, explain(seeded(Plain), "saliency").values, rtol=1e-5
    )
    assert all(one.grad is None and one.requires_grad for one in scripted.parameters())


def test_what_lies_before_the_layer_needs_no_rule() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.second(F.gelu(self.first(x)))))

    model, rows = seeded(Mixed), images(2, (5,))
    with pytest.raises(cfi.MethodError, match="gelu"):
        explain(model, "guided_backprop", inputs=rows)
    assert np.any(explain(model, "guided_backprop", inputs=rows, layer="second").values)


def test_a_sigmoid_at_the_head_is_no_activation_between_layers() -> None:
    model = nn.Sequential(seeded(Plain), nn.Sigmoid()).eval()
    assert np.any(explain(model, "guided_backprop").values)


def test_products_of_activations_are_refused_by_excitation_backprop() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate, self.head = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.first(x)) * F.relu(self.gate(x)))

    with pytest.raises(cfi.MethodError, match="mul"):
        explain(seeded(Gated), "excitation_backprop", inputs=images(2, (5,)))


@pytest.mark.parametrize("way", ["Tensor.relu", "clamp"])
def test_with_torchrays_faults_a_miss_is_refused_and_the_way_out_is_named(way: str) -> None:
    for own in ({"defaults": "toolset"}, {"init_args": {"workarounds": False}}):
        with pytest.raises(cfi.MethodError, match=r"(relu|clamp).*workarounds"):
            explain(seeded(Called, WAYS[way]), "guided_backprop", **own)


def test_a_residual_sum_that_torchray_does_not_know_is_refused_with_its_faults() -> None:
    model = seeded(Residual)
    model.forward = lambda x: model.head(
        F.adaptive_avg_pool2d(model.relu(model.second(model.relu(model.first(x))) + model.first(x)), 1).flatten(1)
    )
    with pytest.raises(cfi.MethodError, match=r"residual connection.*`add`"):
        explain(model, "excitation_backprop", init_args={"workarounds": False})


def test_a_layer_that_is_called_twice_or_never_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same, self.unused, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.same(F.relu(self.same(x)))))

    for layer in ("same", "unused"):
        with pytest.raises(cfi.LayerError):
            explain(seeded(Twice), "saliency", inputs=images(2, (5,)), layer=layer)
