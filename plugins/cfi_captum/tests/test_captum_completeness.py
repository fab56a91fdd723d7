"""What captum's values add up to: closed forms, no false alarms on honest models, and alarms where captum is wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule, PropagationRule
from captum_models import IMAGE, SmallCNN, images
from torch import Tensor, nn

import cfi_captum.guard
import cfi_captum.run
import cfi_core as cfi
from cfi_captum.table import METHODS
from cfi_core.specs import Kind, Total

PROMISING = [key for key, method in METHODS.items() if (one := method.completeness) and not one.unmeasured]
EXACT, IN_STEPS = 1e-5, 0.1


def explain(key: str, model: Any, inputs: Any, **arguments: Any) -> cfi.Attribution:
    model = model.eval() if isinstance(model, nn.Module) else model
    found = cfi.attribute(model, key, "captum", inputs=inputs, seed=0, **arguments)
    assert isinstance(found, cfi.Attribution)
    return found


def gap(found: cfi.Attribution) -> float:
    return found.provenance["completeness"]["gap"]


def why(found: cfi.Attribution) -> str:
    assert gap(found) is None
    return found.provenance["completeness"]["why"]


def needed(key: str, inputs: tuple[Tensor, ...], layer: str, target: Any) -> dict[str, Any]:
    """What a method is called with, besides the inputs."""
    method, arguments = METHODS[key], {}
    if "layer" in method.required:
        arguments["layer"] = layer
    arguments |= (
        {"neuron": lambda activation: activation.flatten(1)[:, :3].sum(1)} if "neuron" in method.required else {}
    )
    if "target" in method.exec_args:
        arguments["target"] = target
    if method.baselines_required:
        arguments["baselines"] = tuple(torch.randn(4, *one.shape[1:]) for one in inputs)
    if key in ("shapley_values", "shapley_value_sampling", "kernel_shap"):  # two groups for each input
        halves = [torch.arange(one[0].numel()).reshape(1, *one.shape[1:]) * 2 // one[0].numel() for one in inputs]
        arguments["exec_args"] = {"feature_mask": tuple(half + 2 * i for i, half in enumerate(halves))}
    return arguments


# closed forms


@pytest.mark.parametrize("key", PROMISING)
def test_a_linear_model_adds_up_exactly(key: str) -> None:
    """In any number of steps; a bias is the only thing that LRP absorbs."""
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Flatten(), nn.Linear(6, 3)), torch.randn(3, 4)
    found = explain(key, model, x, **needed(key, (x,), "0", [0, 2, 1]))
    # Captum's conductance leaves out the ends of the path, before the first and behind the last of its nodes.
    assert gap(found) < (2e-3 if key == "layer_conductance" else EXACT)


@pytest.mark.parametrize("n_steps", [4, 5])
def test_the_gap_of_a_square_is_one_step(n_steps: int) -> None:
    """From 0, a sum over the right ends of n steps gives (1 + 1/n) x² for x²: it takes 20 for half of the bound."""
    arguments: dict[str, Any] = {"exec_args": {"n_steps": n_steps, "method": "riemann_right"}}
    with pytest.warns(cfi.CompletenessWarning, match=rf"The {n_steps} steps are too few: .*'n_steps': 20\}}"):
        found = explain(
            "integrated_gradients", lambda x: (x**2).sum(1), torch.tensor([[1.0, 2.0], [3.0, -1.0]]), **arguments
        )
    assert gap(found) == pytest.approx(1 / n_steps, rel=1e-3)
    assert found.provenance["completeness"]["bound"] == 0.1


def test_the_gap_of_a_sixth_power_by_two_steps_of_gauss() -> None:
    """Two nodes integrate 6 x⁵ from 0 to 1 as 11/12."""
    found = explain("integrated_gradients", lambda x: (x**6).sum(1), torch.ones(1, 2), exec_args={"n_steps": 2})
    assert gap(found) == pytest.approx(1 / 12, rel=1e-3)
    assert gap(explain("integrated_gradients", lambda x: (x**6).sum(1), torch.ones(1, 2))) < EXACT


@pytest.mark.parametrize("key", ["integrated_gradients", "deep_lift", "layer_conductance"])
def test_the_gap_is_captums_own_delta(key: str) -> None:
    """Captum measures it by passes of its own, as the sum less the difference."""
    model, x, baselines = SmallCNN(), images(3), images(3)
    arguments = needed(key, (x,), "relu2", [1, 4, 0]) | {"baselines": baselines}
    own = {"return_convergence_delta": True} | ({} if key == "deep_lift" else {"n_steps": 20})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cfi.CompletenessWarning)
        found = explain(key, model, x, exec_args=own, **arguments)
    with torch.no_grad():
        f = [model(one)[torch.arange(3), torch.tensor([1, 4, 0])].double().numpy() for one in (x, baselines)]
    sizes = np.abs(found.values.astype(np.float64)).reshape(3, -1).sum(1)
    scale = np.maximum(np.abs(f[0] - f[1]), 0.25 * np.max([sizes, np.abs(f[0]), np.abs(f[1])], 0))
    assert gap(found) == pytest.approx(np.max(np.abs(found.extras["convergence_delta"]) / scale), rel=1e-3, abs=2e-6)


# honest models, with the steps that captum takes by itself


class Residual(nn.Module):
    """A path leads around `inner`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.inner, self.last = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3)
        self.behind = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        return self.last(self.behind(x + self.inner(x)))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.relu, self.last = nn.Linear(4, 6), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)
        self.softmax = nn.Softmax(1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.softmax(self.last(self.relu(self.a(a) + self.b(b))))


class Chain(nn.Sequential):
    """What LRP, too, takes: a batch normalisation with statistics of its own, a pooling, two rectifiers."""

    def __init__(self) -> None:
        norm = nn.BatchNorm2d(4)
        norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5
        convolutions = nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.MaxPool2d(2)
        super().__init__(*convolutions, nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(50, 5))


HONEST: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...], str]] = {
    "cnn": (SmallCNN, (IMAGE,), "relu2"),
    "cnn with softmax": (lambda: SmallCNN(softmax=True), (IMAGE,), "pool"),
    "chain": (Chain, ((3, 10, 16),), "4"),
    "residual": (Residual, ((4,),), "first"),
    "two inputs": (TwoInputs, ((4,), (5,)), "relu"),
}
OF_FUNCTIONS = {"residual", "two inputs", "cnn with softmax"}  # which LRP refuses: sums that are no modules, a pooling


@pytest.mark.parametrize("key", PROMISING)
@pytest.mark.parametrize("name", HONEST)
def test_honest_models_raise_no_alarm(name: str, key: str) -> None:
    """Warnings of CFI are errors in tests."""
    make, shapes, layer = HONEST[name]
    lrp = METHODS[key].completeness.total is Total.RELEVANCE
    if lrp and name in OF_FUNCTIONS:
        return
    inputs = tuple(torch.randn(3, *shape) for shape in shapes)
    layer = "conv2" if lrp and name == "cnn" else layer
    found = explain(key, make(), inputs, **needed(key, inputs, layer, [0, 2, 1]))
    assert gap(found) < (IN_STEPS if "n_steps" in METHODS[key].exec_args else EXACT)


class Tokens(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(20, 6), nn.Embedding(5, 6)
        self.first, self.function, self.second = nn.Linear(6, 8), function, nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return self.second(self.function(self.first(embedded)).mean(1))


TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


@pytest.mark.parametrize("baselines", [None, 7, torch.tensor([[1, 1, 1, 1, 1]]), TOKENS.flip(0)])
@pytest.mark.parametrize("key", ["layer_integrated_gradients", "layer_deep_lift"])
def test_tokens_add_up_at_the_embedding(key: str, baselines: Any) -> None:
    found = explain(key, Tokens(nn.ReLU()), TOKENS, layer="embedding", target=1, baselines=baselines)
    assert gap(found) < (IN_STEPS if "integrated" in key else EXACT)


def test_further_arguments_belong_to_their_samples() -> None:
    """Each sample's own are held with every baseline."""

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.last = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)

        def forward(self, x: Tensor, factor: Tensor) -> Tensor:
            return self.last(self.relu(self.first(x) * factor))

    x, factor = torch.randn(3, 3), torch.tensor([[2.0], [-3.0], [0.5]])
    for key, baselines in (
        ("deep_lift", None),
        ("deep_lift_shap", torch.randn(3, 3)),
        ("deep_lift_shap", torch.randn(2, 3)),
    ):
        own = {"additional_forward_args": factor}
        assert gap(explain(key, Held(), x, target=1, baselines=baselines, exec_args=own)) < EXACT


# LRP


@pytest.mark.parametrize(
    "rule", [EpsilonRule(0.3), GammaRule(), GammaRule(set_bias_to_zero=True), Alpha1_Beta0_Rule(), IdentityRule()]
)
def test_what_a_rule_absorbs_is_no_leak(rule: PropagationRule) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[1].rule = rule
    assert gap(explain("lrp", model, torch.randn(3, 4), target=1)) < EXACT


def test_captums_identity_rule_behind_a_rectifier_is_seen_to_leak() -> None:
    """The rectifier hands on what the rule got, not what it gave."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[2].rule = IdentityRule()
    with pytest.warns(cfi.CompletenessWarning, match="Relevance leaks"):
        explain("lrp", model, torch.randn(3, 4), target=1)


def test_a_bias_absorbs_its_own_share() -> None:
    """Of w·x + b the inputs keep w·x, by the epsilon rule."""
    model, x = nn.Sequential(nn.Linear(4, 2), nn.Flatten()), torch.randn(3, 4)
    found = explain("lrp", model, x, target=1)
    kept = (x @ model[0].weight[1]).detach().numpy()
    np.testing.assert_allclose(found.values.sum(1), kept, rtol=1e-5)
    assert gap(found) < EXACT


def test_what_a_rule_of_the_users_absorbs_is_not_known() -> None:
    class Own(EpsilonRule):
        def _create_backward_hook_input(self, inputs: Any) -> Any:
            return lambda grad: grad * inputs * 0.5

    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[0].rule = Own()
    assert why(explain("lrp", model, torch.randn(3, 4), target=1)) == "what the rules absorb by design is not known"


def test_each_layer_keeps_its_relevance() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(3, 4)
    found = explain("layer_lrp", model, x, target=1, layer=["0", "2", "4"])
    assert gap(found) < EXACT
    np.testing.assert_allclose(found.values[2].sum(1), model(x)[:, 1].detach().numpy(), rtol=1e-5)


# what goes wrong without the checks of the rules


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules attach to what they find, as in captum by itself."""
    monkeypatch.setattr(cfi_captum.run, "check_modules", lambda *_: None)
    monkeypatch.setattr(cfi_captum.guard, "check", lambda _: ())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("layer", ["embedding", "first"])
def test_deep_lift_past_a_function_is_seen_behind_tokens(layer: str) -> None:
    """Which falls back to the plain gradient."""
    torch.manual_seed(0)
    model = Tokens(nn.functional.gelu)
    with pytest.warns(cfi.CompletenessWarning, match=r"layer_deep_lift .* A rule may have attached to nothing"):
        found = explain("layer_deep_lift", model, 2 * TOKENS, layer=layer, target=1)
    assert gap(found) > 0.01


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("key", ["deep_lift", "deep_lift_shap", "layer_deep_lift", "neuron_deep_lift"])
def test_deep_lift_past_a_function_is_seen(key: str) -> None:
    class Functional(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.inner(torch.relu(self.first(x))))

    x = torch.randn(3, 4)
    with pytest.warns(cfi.CompletenessWarning):
        explain(key, Functional(), x, **needed(key, (x,), "inner" if "neuron" in key else "first", 1))


@pytest.mark.usefixtures("unchecked")
def test_a_leak_of_relevance_is_seen() -> None:
    """A factor outside of all modules multiplies what passes it."""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.last = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(2 * self.relu(self.first(x)))

    with pytest.warns(cfi.CompletenessWarning, match="Relevance leaks"):
        explain("lrp", Functional(), torch.randn(3, 4), target=1)


# what is not promised


@pytest.mark.parametrize(
    ("key", "arguments", "reason"),
    [
        ("integrated_gradients", {"init_args": {"multiply_by_inputs": False}}, "multiply_by_inputs=False"),
        ("deep_lift", {"init_args": {"multiply_by_inputs": False}}, "multiply_by_inputs=False"),
        ("deep_lift", {"exec_args": {"custom_attribution_func": lambda m, x, b: m}}, "custom_attribution_func=…"),
        (
            "layer_conductance",
            {"layer": "inner", "exec_args": {"attribute_to_layer_input": True}},
            "attribute_to_layer_input=True",
        ),
        ("gradient_shap", {"baselines": torch.zeros(2, 4)}, "in expectation only"),
        ("neuron_conductance", {"layer": "inner", "neuron": 1}, "which no output tells"),
        ("saliency", {}, "saliency promises no sum"),
        ("noise_tunnel", {"init_args": {"method": "integrated_gradients"}}, "noise_tunnel promises no sum"),
        ("layer_deep_lift", {"layer": "inner"}, "paths lead around the layer"),
        ("layer_conductance", {"layer": "inner"}, "paths lead around the layer"),
    ],
)
def test_what_is_not_promised_is_said(key: str, arguments: dict[str, Any], reason: str) -> None:
    torch.manual_seed(0)
    assert reason in why(explain(key, Residual(), torch.randn(3, 4), target=1, **arguments))


def test_around_a_layer_the_inputs_are_held() -> None:
    """Captum's layer integrated gradients moves the layer alone: its sum is what that makes of the output."""
    torch.manual_seed(0)
    model, x = Residual(), torch.randn(3, 4)
    found = explain("layer_integrated_gradients", model, x, target=1, layer="inner")
    with torch.no_grad():
        around, at_baseline = model.relu(model.first(x)), model.inner(model.relu(model.first(torch.zeros(1, 4))))
        change = model(x) - model.last(model.behind(around + at_baseline))
    np.testing.assert_allclose(found.values.sum(1), change[:, 1].numpy(), rtol=0.1)
    assert "with the layer's output that of the baselines" in found.provenance["completeness"]["against"]
    assert gap(found) < IN_STEPS


def test_a_path_around_that_vanishes_at_the_baselines_is_one() -> None:
    """A gate changes nothing where what it multiplies is zero."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.side, self.gate = nn.Linear(4, 3, bias=False), nn.Linear(4, 3), nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x) * self.gate(self.side(x))

    assert "paths lead around" in why(explain("layer_conductance", Gated(), torch.randn(3, 4), layer="first", target=1))


def test_every_method_says_what_it_promises() -> None:
    """The others attribute by a gradient, an ablation or a map, none of which has a sum."""
    silent = {key for key, method in METHODS.items() if method.completeness is None}
    assert silent == {
        *("saliency", "input_x_gradient", "guided_backprop", "guided_grad_cam", "deconvolution", "feature_ablation"),
        *("occlusion", "feature_permutation", "lime", "noise_tunnel", "layer_activation", "grad_cam"),
        *("layer_gradient_x_activation", "internal_influence", "layer_feature_ablation", "layer_feature_permutation"),
        *("neuron_gradient", "neuron_deconvolution", "neuron_guided_backprop", "neuron_feature_ablation"),
    }
    assert {METHODS[key].kind for key in PROMISING} == {Kind.ATTRIBUTION, Kind.LAYER, Kind.NEURON}
