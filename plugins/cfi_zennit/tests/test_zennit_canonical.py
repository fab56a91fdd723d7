"""Batch norms and sums are found in the graph, and outputs stay what they were."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import slow_rules as slow
import torch
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import BetaSmooth
from zennit_models import CLASSES, Residual, attribute, images, randomize, relevance

import cfi_core as cfi
from cfi_zennit.canonical import InTurn, canonize, merge
from cfi_zennit.trace import trace


def canonized(model: nn.Module, *inputs: Tensor) -> Any:
    return canonize(model, trace(model, inputs))


LINEAR: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[..., nn.Module]]] = {
    "Linear": (lambda: nn.Linear(4, 6), (3, 4), nn.BatchNorm1d),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3), (3, 4, 9), nn.BatchNorm1d),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2), (3, 4, 7, 9), nn.BatchNorm2d),
    "Conv3d": (lambda: nn.Conv3d(4, 6, 2), (3, 4, 3, 4, 5), nn.BatchNorm3d),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), (3, 4, 9), nn.BatchNorm1d),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (3, 4, 5, 6), nn.BatchNorm2d),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 6, 2, groups=2), (3, 4, 3, 4, 5), nn.BatchNorm3d),
}


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_is_merged_into_every_linear_layer(kind: str, affine: bool) -> None:
    make, shape, norm = LINEAR[kind]
    model = nn.Sequential(make(), norm(6, affine=affine, eps=0.1)).double().eval()
    randomize(model.double())
    model.double()
    x = torch.randn(shape, dtype=torch.float64)
    expected = model(x)
    made = canonized(model, x)
    assert made.changes.merged == {"1": "0"}
    torch.testing.assert_close(made(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model[0](x), expected, rtol=1e-12, atol=1e-12)  # all of it is in the linear layer


def test_a_linear_layer_over_features_is_no_partner_of_a_batch_norm_over_channels() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).double().eval()
    randomize(model)
    x = torch.randn(2, 4, 4, dtype=torch.float64)
    expected = model.double()(x)
    made = canonized(model, x)
    assert not made.changes.merged
    assert torch.equal(made(x), expected)


class Shuffled(nn.Module):
    """Neighbours in the order of definition are none in the graph, and the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 3, 3)
        self.of_second = nn.BatchNorm1d(3)
        self.second = nn.Conv1d(3, 3, 3)
        self.of_first = nn.BatchNorm1d(3)
        self.alone = nn.BatchNorm1d(3)
        self.fc = nn.Linear(3, CLASSES)
        randomize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.of_first(self.first(x)).relu()
        x = self.of_second(self.second(x)).relu()
        return self.fc(self.alone(x).mean(-1))


def test_batch_norms_are_found_by_the_graph_not_by_the_order_of_definition() -> None:
    model, x = Shuffled().eval(), torch.randn(2, 2, 9)
    expected = model(x)
    made = canonized(model, x)
    assert made.changes.merged == {"of_first": "first", "of_second": "second"}
    torch.testing.assert_close(made(x), expected)


def test_zennit_alone_would_take_the_wrong_neighbour() -> None:
    """If this fails, Zennit's canonizer looks at the graph, and this plugin's could go."""
    model, x = Shuffled().eval(), torch.randn(2, 2, 9)
    expected = model(x)
    (merged,) = SequentialMergeBatchNorm().apply(model)[:1]
    assert not torch.allclose(model(x), expected, rtol=1e-2)
    merged.remove()


def test_a_value_that_others_use_as_well_keeps_its_batch_norm() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3)
            randomize(self)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.bn(x) + x

    model, x = Forked().eval(), torch.randn(2, 2, 9)
    expected = model(x)
    made = canonized(model, x)
    assert not made.changes.merged and len(made.changes.reductions) == 1
    torch.testing.assert_close(made(x), expected)


def test_shared_weights_are_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.bn = nn.Conv1d(2, 2, 3), nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2)
            self.two.weight = self.one.weight
            randomize(self)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.bn(self.one(x)))

    model, x = Tied().eval(), torch.randn(2, 2, 9)
    assert not canonized(model, x).changes.merged


def test_batch_norms_with_statistics_of_the_batch_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    assert not canonized(model, torch.randn(2, 2, 9)).changes.merged


class Adding(nn.Module):
    """Sums two halves of its input in one of the ways that Python and torch have."""

    def __init__(self, add: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.add = nn.Linear(4, 4), nn.Linear(4, 4), add
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.add(self.first(x), self.second(x)))


def in_place(a: Tensor, b: Tensor) -> Tensor:
    a += b
    return a


def in_place_unseen(a: Tensor, b: Tensor) -> Tensor:
    a.add_(b)  # what it returns is not used
    return a


ADDING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "operator": lambda a, b: a + b,
    "function": torch.add,
    "method": lambda a, b: a.add(b),
    "in place": in_place,
    "in place, unseen": in_place_unseen,
    "sum": lambda a, b: sum([a, b]),  # type: ignore[arg-type, return-value]
    "broadcast": lambda a, b: a + b[:, :1],
}


@pytest.mark.parametrize("way", ADDING)
def test_sums_are_found_however_they_are_written(way: str) -> None:
    model, x = Adding(ADDING[way]).double().eval(), torch.randn(2, 4, dtype=torch.float64)
    found = attribute(model, "lrp_epsilon_plus", x)
    assert found.provenance["applied"]["canonized"]["reductions"] == ("sum 1",)
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    for one, values in zip(x.numpy(), found.values, strict=True):
        halves = [weights[f"{name}.weight"] @ one + weights[f"{name}.bias"] for name in ("first", "second")]
        added = np.stack(np.broadcast_arrays(halves[0], halves[1][:1] if way == "broadcast" else halves[1]))
        output = weights["fc.weight"] @ added.sum(0) + weights["fc.bias"]
        start = np.eye(CLASSES)[1] * output
        arriving = slow.epsilon()(added.sum(0), weights["fc.weight"], weights["fc.bias"], start)
        parts = np.array([slow.shared(z, 0.0, r, slow.STABILIZER) for z, r in zip(added.T, arriving, strict=True)]).T
        if way == "broadcast":
            parts[1] = np.eye(4)[0] * parts[1].sum()
        expected = sum(
            slow.epsilon()(one, weights[f"{name}.weight"], weights[f"{name}.bias"], part)
            for name, part in zip(("first", "second"), parts, strict=True)
        )
        np.testing.assert_allclose(values, expected, rtol=1e-8)


def test_a_scaled_sum_is_told(recwarn: Any) -> None:
    model = Adding(lambda a, b: torch.add(a, b, alpha=2)).eval()
    with pytest.raises(cfi.MethodError, match="the function `add`"):
        attribute(model, "lrp_epsilon_plus", torch.randn(2, 4))


def test_modules_that_run_several_times_keep_each_run_apart() -> None:
    """A linear layer used twice, the second time on what the first gave."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.again, self.relu, self.fc = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.relu(self.again(self.relu(self.again(x)))))

    class Once(nn.Module):
        def __init__(self, twice: Twice) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Linear(4, 4), nn.Linear(4, 4), twice.fc
            self.r1, self.r2 = nn.ReLU(), nn.ReLU()
            self.a.load_state_dict(twice.again.state_dict())
            self.b.load_state_dict(twice.again.state_dict())

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.r2(self.b(self.r1(self.a(x)))))

    model, x = Twice().double().eval(), torch.randn(2, 4, dtype=torch.float64)
    found = attribute(model, "lrp_epsilon_plus", x)
    assert found.provenance["applied"]["canonized"]["repeated"] == {"again": 2, "relu": 2}
    np.testing.assert_allclose(found.values, relevance(Once(model).double().eval(), "lrp_epsilon_plus", x), rtol=1e-12)


def test_in_turn_shares_weights_and_takes_no_hooks() -> None:
    module = nn.Linear(3, 3)
    module.register_forward_hook(lambda *_: None)
    turns = InTurn(module, 3).turns
    assert all(turn.weight is module.weight for turn in turns)
    hook = turns[1].register_forward_hook(lambda *_: None)
    assert len(module._forward_hooks) == 1
    hook.remove()


def test_outputs_are_compared_before_and_after() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.passes = nn.Linear(4, CLASSES), [0]

        def forward(self, x: Tensor) -> Tensor:
            self.passes[0] += 1
            return self.fc(x + self.passes[0] % 2)

    with pytest.warns(cfi.CFIWarning), pytest.raises(cfi.MethodError, match="gives other outputs"):
        attribute(Counting().eval(), "lrp_epsilon_plus", torch.randn(2, 4))


def test_what_was_changed_is_told_and_the_users_model_is_as_it_was() -> None:
    model, x = Residual().eval(), images(dtype=torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = attribute(model, "zennit_lrp", x)
    told = found.provenance["applied"]["canonized"]
    assert told["merged"] == {"bn1": "conv1", "bn2": "conv2"}
    assert told["reductions"] == ("sum 1",) and told["repeated"] == {"relu": 2}
    assert told["outputs_apart"] < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.relu.inplace


def test_zennits_own_merging_leaves_a_factor_behind() -> None:
    """If this fails, Zennit's `MergeBatchNorm` is exact."""
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, eps=0.1)).eval()
    x = torch.randn(2, 2, 9)
    expected = model(x)
    SequentialMergeBatchNorm().apply(model)
    assert not torch.allclose(model(x), expected, rtol=1e-2)


def test_zennits_own_merging_fails_without_affine_parameters() -> None:
    """If this fails, Zennit takes batch norms without affine parameters."""
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, affine=False)).eval()
    with pytest.raises(AttributeError):
        SequentialMergeBatchNorm().apply(model)
    merge(*model)


class Branches(nn.Module):
    """One rectifier, in place, for both branches and what follows; or one for each use."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.a, self.b, self.c, self.fc = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)
        one = nn.ReLU(inplace=True)
        self.relu1, self.relu2, self.relu3 = (one if shared else nn.ReLU() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.relu1(self.a(x)), self.relu2(self.b(x))
        return self.fc(self.relu3(self.c(left + right)) + left)


@pytest.mark.parametrize(
    "key", ["guided_backprop", "deconvolution", "beta_smooth", "lrp_epsilon_plus", "excitation_backprop"]
)
def test_a_rectifier_in_place_that_all_branches_share(key: str) -> None:
    shared, apart = Branches(shared=True).double().eval(), Branches(shared=False).double().eval()
    apart.load_state_dict(shared.state_dict())
    x = torch.randn(3, 4, dtype=torch.float64)
    np.testing.assert_allclose(relevance(shared, key, x), relevance(apart, key, x), rtol=1e-12, atol=1e-15)


def test_zennit_alone_mixes_up_uses_of_one_module() -> None:
    """If this fails, Zennit keeps what it stores for each call, and `InTurn` could go."""
    shared, apart = Branches(shared=True).eval(), Branches(shared=False).eval()
    shared.relu1.inplace = False
    apart.load_state_dict(shared.state_dict())
    x = torch.randn(3, 4)
    found = []
    for model in (shared, apart):
        with Gradient(model=model, composite=BetaSmooth()) as attributor:
            found.append(attributor(x.clone(), torch.eye(CLASSES)[[1] * 3])[1])
    assert not torch.allclose(found[0], found[1], rtol=1e-2)


def test_a_model_that_is_one_layer() -> None:
    model, x = nn.Linear(7, 2).double().eval(), torch.randn(1, 7, dtype=torch.float64)
    weight, bias = model.weight.detach().numpy(), model.bias.detach().numpy()
    expected = slow.epsilon()(x[0].numpy(), weight, bias, (weight @ x[0].numpy() + bias) * [0, 1])
    np.testing.assert_allclose(relevance(model, "lrp_epsilon_plus", x), expected[None], rtol=1e-9)


@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
)
def test_weights_that_are_computed_get_the_rule_of_weights(norm: Callable[[nn.Module], nn.Module]) -> None:
    """Zennit's rules change parameters: of a weight norm these are others, or none, and the rule is another."""

    def network(conv: nn.Module) -> nn.Sequential:
        return nn.Sequential(conv, nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(72, CLASSES))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model, x = network(norm(nn.Conv2d(2, 3, 3))).train(), images()
    randomize(model)
    model.double()
    with torch.no_grad():
        model(x)  # spectral norms begin with this
    model = model.double().eval()
    plain = network(nn.Conv2d(2, 3, 3)).double().eval()
    state = {name: value for name, value in model.state_dict().items() if name in plain.state_dict()}
    plain.load_state_dict(state, strict=False)
    with torch.no_grad():
        model(x)
        plain[0].weight.copy_(model[0].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = attribute(model, "lrp_epsilon_alpha2_beta1", x)
    np.testing.assert_allclose(found.values, relevance(plain, "lrp_epsilon_alpha2_beta1", x), rtol=1e-8, atol=1e-12)
    assert found.provenance["applied"]["canonized"]["merged"] == {"1": "0"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(cfi.MethodError, match="weights are computed from others"):
        attribute(model, "lrp_epsilon_plus", x, defaults="toolset")
