"""What no rule reaches is told, or refused; nothing becomes the plain gradient without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zennit import rules
from zennit.core import Hook
from zennit_models import CLASSES, Plain, attribute, images, relevance, warned

import cfi_core as cfi

RECTIFYING = ["guided_backprop", "deconvolution", "beta_smooth"]


class With(nn.Module):
    """A linear layer, something, a linear layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.function = nn.Linear(5, 6), nn.Linear(6, CLASSES), function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


def vectors(samples: int = 2) -> Tensor:
    return torch.randn(samples, 5)


def with_module(model: With, module: nn.Module) -> With:
    made = With(module)
    made.load_state_dict(model.state_dict(), strict=False)
    return made.eval()


@pytest.mark.parametrize("key", RECTIFYING)
@pytest.mark.parametrize("function", [F.relu, torch.relu, lambda x: x.relu(), lambda x: x.clamp(min=0)])
def test_rectifiers_by_functions_become_modules(key: str, function: Any) -> None:
    model, x = With(function).eval(), vectors()
    found = attribute(model, key, x)
    np.testing.assert_allclose(found.values, relevance(with_module(model, nn.ReLU()), key, x), rtol=1e-5, atol=1e-7)
    if key != "beta_smooth":
        assert found.provenance["applied"]["rules"] and found.provenance["repaired"]


@pytest.mark.parametrize("key", ["guided_backprop", "deconvolution"])
@pytest.mark.parametrize("function", [nn.ReLU6(), F.relu6, lambda x: x.clamp(0, 6)])
def test_rectifiers_with_a_highest_value_get_the_rule_of_relu(key: str, function: Any) -> None:
    """Of units above six, guided backpropagation hands on nothing, as the gradient."""
    model, x = With(function).double().eval(), 8 * vectors().double()
    before, w = model.first(x).detach(), [part.weight.detach() for part in (model.first, model.second)]
    assert (before > 6).any()
    arriving = w[1][1].clamp(min=0).expand_as(before)
    expected = arriving * ((before > 0) & (before < 6)) if key == "guided_backprop" else arriving
    np.testing.assert_allclose(relevance(model, key, x), (expected @ w[0]).numpy(), rtol=1e-6)


@pytest.mark.parametrize("key", RECTIFYING)
@pytest.mark.parametrize("function", [F.gelu, nn.GELU(), nn.Sequential(nn.ReLU(), nn.SiLU())])
def test_activations_that_get_no_rule_are_refused(key: str, function: Any) -> None:
    with pytest.raises(cfi.MethodError, match="its gradient would stay as it is"):
        attribute(With(function).eval(), key, vectors())


@pytest.mark.parametrize("key", RECTIFYING)
def test_as_zennit_has_it_a_rectifier_by_a_function_is_refused(key: str) -> None:
    model = nn.Sequential(With(F.relu), nn.ReLU(), nn.Linear(CLASSES, CLASSES)).eval()
    with pytest.raises(cfi.MethodError, match="its gradient would stay as it is"):
        attribute(model, key, vectors(), defaults="toolset")


@pytest.mark.parametrize("key", RECTIFYING)
def test_without_any_rectifier_the_result_would_be_the_gradient(key: str) -> None:
    with pytest.raises(cfi.MethodError, match="plain gradient"):
        attribute(nn.Sequential(nn.Linear(5, 6), nn.Linear(6, CLASSES)).eval(), key, vectors())


ACTIVATIONS = [
    (F.gelu, nn.GELU()),
    (torch.tanh, nn.Tanh()),
    (F.silu, nn.SiLU()),
    (lambda x: x.clamp(0, 0.2), nn.Hardtanh(0, 0.2)),
    (F.leaky_relu, nn.LeakyReLU()),
]


@pytest.mark.parametrize("place", range(len(ACTIVATIONS)))
def test_activations_by_functions_become_modules_with_a_rule(place: int) -> None:
    """The gradient, which Zennit takes of functions, would lose relevance."""
    function, module = ACTIVATIONS[place]
    model, x = With(function).eval(), vectors()
    found = attribute(model, "lrp_epsilon_plus", x)
    np.testing.assert_allclose(
        found.values, relevance(with_module(model, module), "lrp_epsilon_plus", x), rtol=1e-5, atol=1e-7
    )
    assert found.provenance["completeness"]["gap"] < 1e-3
    assert "Pass" in found.provenance["applied"]["rules"].values() and found.provenance["repaired"]


def test_a_rule_of_the_users_is_not_lost_where_a_model_is_rewritten() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    model = With(nn.Sequential(Own())).eval()
    arguments = {"layer_map": [(Own, rules.Epsilon(1e-3))]}
    found = attribute(model, "lrp_epsilon_plus", vectors(), init_args=arguments)
    assert found.provenance["applied"]["rules"]["function.0"] == "Epsilon"
    model.second = nn.Sequential(With(torch.tanh), nn.Linear(CLASSES, CLASSES)).eval()
    model.second[0].first = nn.Linear(6, 6)
    with pytest.raises(cfi.MethodError, match=r"the rule of 'function.0' \(Own\) would be lost"):
        attribute(model.eval(), "lrp_epsilon_plus", vectors(), init_args=arguments)


@pytest.mark.parametrize("function", [F.relu, torch.relu, lambda x: x.relu()])
def test_of_relu_the_gradient_is_its_rule(function: Any) -> None:
    """Units that are off get no relevance from the rules of LRP, so `Pass` and the gradient agree."""
    model, module = With(function).eval(), With(nn.ReLU())
    module.load_state_dict(model.state_dict())
    x = vectors()
    for key in ("lrp_epsilon_plus", "lrp_epsilon_alpha2_beta1_flat"):
        np.testing.assert_allclose(relevance(model, key, x), relevance(module.eval(), key, x), rtol=1e-6)


def test_linear_functions_are_refused() -> None:
    weight = torch.randn(6, 6)
    with pytest.raises(cfi.MethodError, match="relevance would be carried by the plain gradient"):
        attribute(With(lambda x: F.linear(x, weight)).eval(), "lrp_epsilon_plus", vectors())


def test_a_module_without_a_rule_is_told() -> None:
    model = With(nn.LayerNorm(6)).eval()
    _, said = warned(model, "lrp_epsilon_plus", vectors())
    assert "no rule matches `native_layer_norm` in module 'function' (LayerNorm)" in said


def test_a_rule_of_the_users_makes_the_warning_go() -> None:
    model = With(nn.LayerNorm(6)).eval()
    for arguments in ({"layer_map": [(nn.LayerNorm, rules.Pass())]}, {"name_map": [(("function",), rules.Pass())]}):
        found = attribute(model, "lrp_epsilon_plus", vectors(), init_args=arguments)
        assert found.provenance["applied"]["rules"]["function"] == "Pass"


@pytest.mark.parametrize(
    "layer",
    [
        nn.Identity(),
        nn.Dropout(),
        nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten()),
        lambda x: x + 1,
        lambda x: x.flip(1),
    ],
)
def test_what_only_moves_values_needs_no_rule(layer: Any) -> None:
    found = attribute(With(layer).eval(), "lrp_epsilon_plus", vectors())
    assert found.provenance["completeness"]["gap"] < 1e-3


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attention(x, x, x, need_weights=False)[0][:, 0])


def test_attention_is_no_activation() -> None:
    """Zennit counts it as one, and `Pass` would hand relevance through as if nothing had happened."""
    model, x = Attending().eval(), torch.randn(2, 4, 6)
    found, said = warned(model, "lrp_epsilon_plus", x)
    assert "MultiheadAttention" in said and "attention" not in found.provenance["applied"]["rules"]


class OfQuery(Hook):
    """Of a user's: all relevance to the query."""

    def backward(self, module: nn.Module, grad_input: tuple[Any, ...], grad_output: tuple[Any, ...]) -> tuple[Any, ...]:
        return (grad_output[0], *(None if one is None else torch.zeros_like(one) for one in grad_input[1:]))


def test_a_rule_of_the_users_for_attention_is_taken() -> None:
    model, x = Attending().eval(), torch.randn(2, 4, 6)
    found = attribute(model, "lrp_epsilon_plus", x, init_args={"layer_map": [(nn.MultiheadAttention, OfQuery())]})
    assert found.provenance["applied"]["rules"]["attention"] == "OfQuery"
    np.testing.assert_allclose(
        found.values.sum((1, 2)), [sum(found.extras["conservation"]["fc"]["leaves"][[i]]) for i in (0, 1)], rtol=1e-5
    )


def test_a_rule_on_a_module_with_several_inputs_is_refused() -> None:
    """Zennit would give each of them the relevance of the first."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.join, self.fc = (
                nn.Linear(5, 4),
                nn.Linear(5, 3),
                nn.Bilinear(4, 3, 6),
                nn.Linear(6, CLASSES),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.join(self.a(x), self.b(x)))

    model = Joined().eval()
    assert "'join'" in warned(model, "lrp_epsilon_plus", vectors())[1]
    with pytest.raises(cfi.MethodError, match="each input the relevance of the first"):
        attribute(model, "lrp_epsilon_plus", vectors(), init_args={"layer_map": [(nn.Bilinear, rules.Epsilon())]})


class Masked(nn.Module):
    """Takes what does not depend on the inputs first."""

    def forward(self, mask: Tensor, x: Tensor) -> Tensor:
        return x * mask


class Masking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.masked, self.second = nn.Linear(5, 6), Masked(), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.masked(torch.ones(6), self.first(x)))


def test_a_rule_whose_first_argument_is_a_constant_is_refused() -> None:
    """Zennit would leave it out without a word."""
    with pytest.raises(cfi.MethodError, match="acts on the first argument alone"):
        attribute(Masking().eval(), "lrp_epsilon_plus", vectors(), init_args={"layer_map": [(Masked, rules.Norm())]})


def test_a_rule_around_others_is_refused() -> None:
    """Zennit runs the module again, and the rules inside would act on that."""
    model = nn.Sequential(nn.Sequential(nn.Linear(5, 6), nn.ReLU()), nn.Linear(6, CLASSES)).eval()
    with pytest.raises(cfi.MethodError, match="with the rules of what is inside"):
        attribute(model, "lrp_epsilon_plus", vectors(), init_args={"name_map": [("0", rules.Epsilon())]})


def test_sums_inside_a_module_with_a_rule_are_not_counted() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.flip(1)

    model = With(Doubled()).eval()
    found = attribute(model, "lrp_epsilon_plus", vectors(), init_args={"layer_map": [(Doubled, rules.Norm())]})
    assert "function" in found.extras["conservation"] and not any("sum" in one for one in found.extras["conservation"])
    assert found.provenance["completeness"]["gap"] < 1e-3


class Concatenated(nn.Module):
    """A module with several inputs that only moves them, and one that adds them."""

    class Join(nn.Module):
        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return torch.cat([a, b + c], 1)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(5, 3), nn.Linear(5, 3)
        self.join, self.fc = self.Join(), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.join(self.a(x), self.b(x), self.c(x)))


def test_modules_with_several_inputs_by_what_happens_inside() -> None:
    found = attribute(Concatenated().eval(), "lrp_epsilon_plus", vectors())
    assert found.provenance["completeness"]["gap"] < 1e-3
    assert "sum 1 in 'join'" in found.extras["conservation"]


def test_models_with_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Linear(5, 4), nn.Conv1d(2, 4, 3), nn.Linear(4, CLASSES)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.fc(torch.relu(self.a(x)) + self.b(y).relu().amax(-1))

    model = Two().eval()
    inputs = (vectors(), torch.randn(2, 2, 7))
    found = attribute(model, "lrp_epsilon_plus_flat", inputs)
    assert [values.shape for values in found.values] == [(2, 5), (2, 2, 7)]
    assert found.provenance["completeness"]["gap"] < 1e-3
    rules_placed = found.provenance["applied"]["rules"]
    assert rules_placed["a"] == rules_placed["b"] == "Flat"  # both are first layers
    boxed = attribute(model, "lrp_epsilon_gamma_box", inputs, init_args={"low": (-4.0, -4.0), "high": (4.0, 4.0)})
    by_name = {"name_map": [("b", rules.ZBox(-4.0, 4.0))]}  # the box is for convolutions
    for values, others in zip(
        boxed.values, attribute(model, "lrp_epsilon_plus", inputs, init_args=by_name).values, strict=True
    ):
        np.testing.assert_allclose(values, others, rtol=1e-5)
    with pytest.raises(cfi.ArgumentError, match="one bound for all inputs"):
        attribute(model, "lrp_epsilon_gamma_box", inputs, init_args={"low": (-4.0, -3.0), "high": (4.0, 4.0)})
    assert all(np.abs(values).max() > 0 for values in found.values)


class UNet(nn.Module):
    """Transposed convolution, upsampling, padding, a skip connection by concatenation; smaller outputs than inputs."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.down = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.middle = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3), nn.ReLU())
        self.up = nn.Sequential(nn.Upsample(scale_factor=2, mode=mode), nn.ReplicationPad2d(1))
        self.transposed = nn.Sequential(nn.ConvTranspose2d(4, 4, 4, stride=2, padding=0), nn.BatchNorm2d(4), nn.ReLU())
        self.out = nn.Conv2d(8, 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.pad(x))
        return self.out(torch.cat([self.up(self.middle(x)), self.transposed(x)], 1))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("key", ["lrp_epsilon_plus", "lrp_epsilon_alpha2_beta1_flat", "excitation_backprop"])
def test_segmentation_networks(mode: str, key: str) -> None:
    model, x = UNet(mode).eval(), images(dtype=torch.float32)
    assert model(x).shape[2:] != x.shape[2:]
    found = attribute(model, key, x, target=(2, 1, 3))
    assert found.values.shape == x.shape
    assert max(np.abs(one["leak"]).max() for one in found.extras["conservation"].values()) < 1e-3
    if key != "excitation_backprop":
        assert found.provenance["completeness"]["gap"] < 1e-3


def test_single_outputs() -> None:
    """A binary classifier with one output: no target is needed."""
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1)).eval()
    x = vectors()
    found = attribute(model, "lrp_epsilon_plus_flat", x, target=None)
    np.testing.assert_allclose(found.values, relevance(model, "lrp_epsilon_plus_flat", x, target=0), rtol=1e-6)
    squeezed = attribute(nn.Sequential(model, nn.Flatten(0)).eval(), "lrp_epsilon_plus_flat", x, target=None)
    np.testing.assert_allclose(found.values, squeezed.values, rtol=1e-6)


def test_models_in_training_mode() -> None:
    model, x = Plain().eval(), images(dtype=torch.float32)
    model.insert(1, nn.BatchNorm2d(3))
    model.insert(2, nn.Dropout())
    expected = relevance(model.eval(), "lrp_epsilon_plus", x)
    with pytest.warns(cfi.CFIWarning, match="training mode"):
        found = relevance(model.train(), "lrp_epsilon_plus", x)
    np.testing.assert_array_equal(found, expected)
    assert model.training and model[1].num_batches_tracked == 0


@pytest.mark.parametrize("key", ["lrp_epsilon_plus", "guided_backprop"])
def test_a_function_has_no_modules(key: str) -> None:
    weight = torch.randn(5, CLASSES)
    with pytest.raises(cfi.CFIError) as refused:
        attribute(lambda x: torch.relu(x) @ weight, key, vectors())
    assert isinstance(refused.value, cfi.RouteError)


def test_a_function_of_arrays_has_no_modules() -> None:
    weight = np.random.default_rng(0).normal(size=(5, CLASSES))
    with pytest.raises(cfi.RouteError):
        attribute(lambda x: x @ weight, "lrp_epsilon_plus", np.ones((2, 5)))


def test_an_embedding_is_explained_at_its_output() -> None:
    model = nn.Sequential(nn.Embedding(11, 5), nn.Flatten(), nn.Linear(15, 6), nn.ReLU(), nn.Linear(6, CLASSES)).eval()
    tokens = torch.randint(0, 11, (2, 3))
    found = attribute(model, "lrp_epsilon_plus", tokens, layer="0")
    assert found.values.shape == (2, 3, 5)
    assert found.provenance["completeness"]["gap"] < 1e-3
    for start in (None, "embeddings"):
        again = attribute(model, "lrp_epsilon_plus", tokens, layer=start)
        np.testing.assert_array_equal(again.values, found.values)


class LinearAttention(nn.Module):
    """Reshapes, softmax, two sums of products, a group norm (Shen et al. 2021, Efficient Attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(2, 12, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(4, 2, 1), nn.GroupNorm(1, 2))
        self.fc = nn.Linear(96, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).flatten(2).reshape(len(x), 3, 2, 2, 48).unbind(1)
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
        out = torch.einsum("bhde,bhdn->bhen", context, q.softmax(-2) * 0.7)
        return self.fc(self.to_out(out.reshape(len(x), 4, 6, 8)).flatten(1))


def test_linear_attention_is_told_operation_by_operation() -> None:
    found, said = warned(LinearAttention().eval(), "lrp_epsilon_plus", images(dtype=torch.float32))
    assert "native_group_norm" in said and " more, where Zennit takes the plain gradient" in said
    assert "relevance leaks at" in said
    accounts = found.extras["conservation"]
    assert accounts["to_out.1"]["rule"] == "gradient" and "function bmm" in accounts


def test_transformers_are_told_and_run() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, CLASSES)).eval()
    found, said = warned(model, "lrp_epsilon_plus", torch.randn(2, 4, 6))
    assert "LayerNorm" in said
    placed = found.provenance["applied"]["rules"]
    assert any("sum" in name for name in placed) and "0.self_attn" not in placed and placed["0.linear1"] == "Epsilon"
