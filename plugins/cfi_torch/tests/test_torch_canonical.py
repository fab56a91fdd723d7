"""Canonical copies of torch models: the same values, for any number of samples; operations as modules; refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfi_core.errors import MethodError
from cfi_core.framework import Canonical, flatten
from cfi_torch.adapter import TorchAdapter

ADAPTER = TorchAdapter()


class Plain(nn.Module):
    """Two linear layers, a convolution, an activation, weights without a layer, and a function that uses them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(inplace=True)
        self.weight, self.function = nn.Parameter(torch.randn(6)), function
        self.register_buffer("shift", torch.randn(6))
        self.plain = torch.randn(6)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def rewrite(model: nn.Module, *inputs: Tensor, **arguments: Any) -> Canonical:
    return ADAPTER.canonical(ADAPTER.twin(model), inputs, arguments.pop("modules", {}), **arguments)


def agree(model: nn.Module, *inputs: Tensor, **arguments: Any) -> Canonical:
    """Checks the copy with other inputs in other numbers, and its gradients."""
    model = model.eval()
    made = rewrite(model, *inputs, **arguments)
    for samples in (1, 2, 5, 6):
        others = [torch.randn(samples, *one.shape[1:]) if one.is_floating_point() else one[:1] for one in inputs]
        others = [one if len(one) == samples else one.repeat(samples, *[1] * (one.ndim - 1)) for one in others]
        pairs = []
        for each in (model, made.model):
            leaves = [one.clone().requires_grad_(one.is_floating_point()) for one in others]
            outputs = flatten(each(*(one * 1 if one.requires_grad else one for one in leaves)))
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            total = sum((output**2).sum() for output in outputs if output.requires_grad)
            pairs.append((outputs, torch.autograd.grad(total, wanted, allow_unused=True) if wanted else ()))
        (outputs, gradients), (found, found_gradients) = pairs
        torch.testing.assert_close(found, outputs, rtol=0, atol=0)
        torch.testing.assert_close(found_gradients, gradients, rtol=1e-6, atol=1e-6)
    return made


def both_parts(model: Plain, x: Tensor) -> Tensor:
    y = model.one(x)
    y[:, :3] += 1
    y[:, 0] = x[:, 0]
    return model.two(y)


def zeroed_part(model: Plain, x: Tensor) -> Tensor:
    y = model.one(x).clone()
    y[:, 1:4].zero_()
    y[0:, 4:].fill_(2.0)
    y[..., 0].copy_(x[:, 1])
    return model.two(y)


def without_gradient(model: Plain, x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = torch.sigmoid(model.two(x))
    return model.one(x) * gate


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "nothing": lambda model, x: x,
    "weights": lambda model, x: F.linear(x, model.two.weight, model.shift) * model.weight + model.plain,
    "tied": lambda model, x: F.linear(model.one(x), model.one.weight),
    "samples by shape": lambda model, x: model.one(x).reshape(x.shape[0], -1),
    "samples by size": lambda model, x: model.one(x).view(x.size(0) * 2, 3).view(x.size(0), -1),
    "samples by len": lambda model, x: model.one(x) / len(x) + torch.arange(len(x))[:, None],
    "samples in a new tensor": lambda model, x: model.one(x) + torch.ones(len(x), 6, dtype=x.dtype),
    "samples as an index": lambda model, x: model.one(x)[torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long)],
    "in place": lambda model, x: model.one(x).add_(x).mul_(2).sigmoid_(),
    "parts": both_parts,
    "parts set": zeroed_part,
    "no gradient": without_gradient,
    "detached": lambda model, x: model.one(x) + model.two(x).detach(),
    "dict": lambda model, x: {"a": model.one(x), "b": (model.two(x), [x])},
    "chunks": lambda model, x: torch.cat([F.silu(part) for part in model.one(x).chunk(3, 1)], 1),
    "values and places": lambda model, x: model.one(x).max(1).values + model.one(x).max(dim=1)[0],
    "einsum": lambda model, x: torch.einsum("bi,bj->bij", model.one(x), x).sum(2),
    "attention": lambda model, x: F.scaled_dot_product_attention(model.one(x)[:, None], x[:, None], x[:, None])[:, 0],
    "where": lambda model, x: torch.where(x > 0, model.one(x), x.new_zeros(x.shape)),
    "masked": lambda model, x: model.one(x).masked_fill_(x > 0, -1.0).softmax(-1),
    "transposed": lambda model, x: (model.one(x).T @ model.two(x)).T[None].expand(len(x), 6, 6),
    "aten": lambda model, x: torch.ops.aten.relu(model.one(x)),
    "control flow by shapes": lambda model, x: model.one(x) if x.shape[1] == 6 and x.ndim == 2 else model.two(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_copy_computes_the_same_for_any_number_of_samples(name: str) -> None:
    agree(Plain(FUNCTIONS[name]), torch.randn(3, 6))


def test_tokens_and_several_inputs() -> None:
    def function(model: Plain, tokens: Tensor, x: Tensor) -> Tensor:
        return F.embedding(tokens, model.two.weight).mean(1) + model.one(x)

    made = agree(Plain(function), torch.tensor([[1, 2], [3, 4]]), torch.randn(2, 6))
    assert isinstance(made.model.embedding, nn.Embedding)


def test_one_activation_for_all_becomes_one_for_each() -> None:
    made = agree(Plain(lambda model, x: model.act(model.two(model.act(model.one(x))))), torch.randn(3, 6))
    assert [type(layer) for layer in (made.model.act, made.model.act_1)] == [nn.ReLU, nn.ReLU]
    assert not made.model.act.inplace
    assert "act" not in made.layers
    assert "a module used 2 times → copies: 'act_1'" in made.repairs


def test_a_layer_used_twice_has_weights_of_its_own_on_the_same_memory() -> None:
    made = agree(Plain(lambda model, x: model.one(model.one(x))), torch.randn(3, 6))
    first, second = made.model.one.weight, made.model.one_1.weight
    assert first is not second
    assert first.data_ptr() == second.data_ptr()


def test_weights_are_those_of_the_model() -> None:
    model = Plain(lambda model, x: F.linear(model.one(x), model.two.weight) * model.weight)
    made = agree(model, torch.randn(3, 6))
    assert made.model.one.weight is model.one.weight
    assert made.model.weight is model.weight
    assert made.model.linear.weight.data_ptr() == model.two.weight.data_ptr()


@dataclass(frozen=True)
class Case:
    function: Callable[[Tensor], Tensor]
    expected: nn.Module
    shape: tuple[int, ...] = (6,)


MODULES = {
    "relu": Case(lambda x: x.relu(), nn.ReLU()),
    "clamp": Case(lambda x: torch.clamp(x, min=0), nn.ReLU()),
    "relu6": Case(F.relu6, nn.ReLU6()),
    "clamp to 6": Case(lambda x: x.clamp(0, 6), nn.ReLU6()),
    "hardtanh": Case(lambda x: F.hardtanh(x, -2, 0.5), nn.Hardtanh(-2, 0.5)),
    "leaky_relu": Case(lambda x: F.leaky_relu(x, negative_slope=0.2), nn.LeakyReLU(0.2)),
    "elu": Case(lambda x: F.elu(x, 0.7), nn.ELU(0.7)),
    "gelu": Case(lambda x: F.gelu(x, approximate="tanh"), nn.GELU("tanh")),
    "silu": Case(F.silu, nn.SiLU()),
    "softplus": Case(lambda x: F.softplus(x, 2), nn.Softplus(2)),
    "sigmoid": Case(torch.sigmoid, nn.Sigmoid()),
    "tanh": Case(lambda x: x.tanh(), nn.Tanh()),
    "softmax": Case(lambda x: F.softmax(x, -1), nn.Softmax(-1)),
    "log_softmax": Case(lambda x: x.log_softmax(dim=1), nn.LogSoftmax(1)),
    "flatten": Case(lambda x: torch.flatten(x, 1), nn.Flatten(1), (2, 3)),
    "dropout": Case(lambda x: F.dropout(x, 0.3, training=False), nn.Dropout(0.3)),
    "max_pool1d": Case(lambda x: F.max_pool1d(x, 2), nn.MaxPool1d(2), (3, 8)),
    "max_pool2d": Case(lambda x: F.max_pool2d(x, 3, stride=2, padding=1), nn.MaxPool2d(3, 2, 1), (3, 8, 9)),
    "max_pool3d": Case(lambda x: F.max_pool3d(x, 2, 1), nn.MaxPool3d(2, 1), (1, 4, 4, 4)),
    "avg_pool2d": Case(lambda x: F.avg_pool2d(x, 2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True), (3, 7, 7)),
    "adaptive_avg_pool2d": Case(lambda x: F.adaptive_avg_pool2d(x, (1, 2)), nn.AdaptiveAvgPool2d((1, 2)), (3, 6, 6)),
    "adaptive_max_pool2d": Case(lambda x: F.adaptive_max_pool2d(x, 2), nn.AdaptiveMaxPool2d(2), (3, 6, 6)),
}


class Between(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.function = nn.Identity(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.function(x))


@pytest.mark.parametrize("name", MODULES)
def test_functions_become_torchs_own_modules(name: str) -> None:
    case = MODULES[name]
    made = agree(Between(case.function), torch.randn(2, *case.shape))
    (module,) = (one for key, one in made.model.named_children() if key != "inner")
    assert type(module) is type(case.expected)
    assert repr(module) == repr(case.expected)
    assert not module.training


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x, w: F.conv1d(x, w(4, 3, 2), w(4), stride=2), (3, 9)),
        (lambda x, w: F.conv2d(x, w(6, 1, 3, 3), None, 1, 1, 1, 3), (3, 8, 9)),
        (lambda x, w: F.conv2d(x, w(4, 3, 3, 3), w(4), padding="same"), (3, 8, 9)),
        (lambda x, w: F.conv3d(x, w(2, 3, 2, 2, 2), dilation=2), (3, 5, 5, 5)),
        (lambda x, w: F.linear(x, w(4, 6)), (6,)),
        (lambda x, w: F.layer_norm(x, (6,), w(6), w(6)), (6,)),
        (lambda x, w: F.group_norm(x, 2, w(4), w(4)), (4, 5)),
        (lambda x, w: F.prelu(x, w(1)), (6,)),
    ],
)
def test_functions_with_weights_become_modules_on_these_weights(function: Any, shape: tuple[int, ...]) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held, self.inner = nn.ParameterList(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            place = iter(range(9))

            def weight(*sizes: int) -> Tensor:
                number = next(place)
                if number == len(self.held):
                    self.held.append(torch.randn(sizes))
                return self.held[number]

            return self.inner(function(x, weight))

    model = Weighted()
    model(torch.randn(2, *shape))
    made = agree(model, torch.randn(2, *shape))
    (module,) = (one for key, one in made.model.named_children() if key != "inner")
    mine = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    assert {one.data_ptr() for one in model.parameters()} <= mine


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 5, 4), (3, 4, 3, 2)])
@pytest.mark.parametrize("is_affine", [True, False])
def test_a_batch_norm_with_its_statistics(shape: tuple[int, ...], *, is_affine: bool) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.randn(3))
            self.register_buffer("var", torch.rand(3))
            self.weight, self.bias = (nn.Parameter(torch.randn(3)) if is_affine else None for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(x, self.mean, self.var, self.weight, self.bias, eps=0.1)

    made = agree(Normed(), torch.randn(2, *shape))
    assert isinstance(made.model.batch_norm, nn.modules.batchnorm._BatchNorm)
    assert made.model.batch_norm.affine is is_affine


class Toolset(nn.Module):
    """What a toolset makes for an operation."""

    def __init__(self, function: Callable[..., Tensor], **settings: Any) -> None:
        super().__init__()
        self.function, self.settings = function, settings

    def forward(self, *tensors: Tensor, **sizes: Any) -> Tensor:
        return self.function(*tensors, **sizes)


def test_a_toolset_makes_its_own_modules() -> None:
    def function(model: Plain, x: Tensor) -> Tensor:
        return model.one(x) + F.leaky_relu(model.two(x), 0.3)

    modules = {"add": partial(Toolset, torch.add), "leaky_relu": lambda **settings: Toolset(F.elu, **settings)}
    made = rewrite(Plain(function), torch.randn(3, 6), modules=modules)
    assert type(made.model.add) is Toolset
    assert made.model.leaky_relu.settings == {"negative_slope": 0.3}


def test_any_function_and_every_use_can_be_modules() -> None:
    def function(model: Plain, x: Tensor) -> Tensor:
        y = model.one(x)
        return 2 * F.relu(y).view(len(x), -1) + y

    made = agree(Plain(function), torch.randn(3, 6), modules={"function": Toolset, "copy": nn.Identity})
    names = dict(made.model.named_children())
    assert {"relu", "relu_copy", "view", "mul", "add"} <= {name.strip("_").replace("rmul", "mul") for name in names}


def test_names_that_modules_have_already() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program, self.relu = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.aten.add.Tensor(F.relu(self.relu(self.program(x))).double().float(), x)

    made = agree(Named(), torch.randn(3, 6), modules={"function": Toolset})
    assert {"program", "relu", "relu_1", "double_1", "float_1", "add"} == set(dict(made.model.named_children()))


def test_functions_of_several_results_stay_functions() -> None:
    def function(model: Plain, x: Tensor) -> Tensor:
        first, second = model.one(x).chunk(2, 1)
        return torch.cat([first, 2 * second], 1)

    names = dict(agree(Plain(function), torch.randn(3, 6), modules={"function": Toolset}).model.named_children())
    assert "cat" in names
    assert "chunk" not in names


def test_known_modules_stay_and_others_are_replaced() -> None:
    class Mine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x)

    model = nn.Sequential(nn.Linear(6, 6), Mine(), nn.Linear(6, 6), nn.GELU())
    opened = agree(model, torch.randn(3, 6))
    assert type(opened.model.get_submodule("1.relu")) is nn.ReLU
    kept = rewrite(model, torch.randn(3, 6), knows=lambda module: isinstance(module, Mine))
    assert type(kept.model.get_submodule("1")) is Mine
    modules = {"elementwise": Toolset}
    replaced = agree(model, torch.randn(3, 6), modules=modules, knows=lambda module: isinstance(module, nn.ReLU))
    assert type(replaced.model.get_submodule("1.relu")) is nn.ReLU
    assert type(replaced.model.get_submodule("3")) is Toolset


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.side = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)) + sum(side(x) for side in self.side))


def test_layers_keep_names_and_outputs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Residual(), nn.Sequential(Residual(), nn.AdaptiveAvgPool2d(1)))
    x = torch.randn(2, 3, 8, 8)
    made = agree(model, x)
    expected, found = (ADAPTER.activations(each, (x,)) for each in (model, made.model))
    assert set(made.layers) == set(expected)
    for name, layer in made.layers.items():
        torch.testing.assert_close(torch.tensor(found[layer]), torch.tensor(expected[name]), rtol=0, atol=0)
    assert made.outputs_only == {"1", "2", "2.0"}


def test_copies_of_the_copy_and_its_double() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), Residual(), nn.Softmax(1)).eval(), torch.randn(2, 3, 8, 8)
    made = rewrite(model, x).model
    for copied in (copy.deepcopy(made), ADAPTER.twin(made), ADAPTER.twin(made, share_weights=False)):
        torch.testing.assert_close(copied(x), model(x), rtol=0, atol=0)
    double = ADAPTER.in_double(made)
    torch.testing.assert_close(double(x.double()), ADAPTER.in_double(model)(x.double()), rtol=0, atol=0)
    logits = ADAPTER.without_softmax(ADAPTER.twin(made), (x,))
    torch.testing.assert_close(logits(x), model[:2](x), rtol=0, atol=0)


def test_a_model_of_a_fixed_number_of_samples() -> None:
    def function(model: Plain, x: Tensor) -> Tensor:
        return model.one(x.view(3, 6))

    model, x = Plain(function).eval(), torch.randn(3, 6)
    torch.testing.assert_close(rewrite(model, x).model(x), model(x), rtol=0, atol=0)


def test_hooks_of_the_users_count() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    model[0].register_forward_hook(lambda module, args, output: 2 * output)
    model[1].register_forward_hook(lambda module, args, output: output + 1)
    agree(model, torch.randn(3, 6))


def test_what_torch_brings() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    agree(encoder, torch.randn(2, 5, 8))
    agree(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.ReLU()), torch.randn(3, 6))


class Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def viewed(model: Plain, x: Tensor) -> Tensor:
    y = model.one(x)
    y.view(-1, 2, 3).mul_(2)
    return model.two(y)


def by_data(model: Plain, x: Tensor) -> Tensor:
    y = model.one(x)
    y.data.mul_(2)
    return model.two(y)


REFUSALS: dict[str, tuple[Callable[..., Any], str]] = {
    "branch": (lambda model, x: model.one(x) if x.sum() > 0 else model.two(x), r"decides in Python.*`__bool__`"),
    "item": (lambda model, x: model.one(x) * x.max().item(), r"decides in Python.*`item`"),
    "numpy": (lambda model, x: torch.from_numpy(x.detach().numpy()), r"decides in Python.*`numpy`"),
    "own gradient": (lambda model, x: model.two(Opaque.apply(model.one(x))), "gradient of its own .`OpaqueBackward`"),
    "samples": (lambda model, x: model.one(x) if len(x) > 2 else model.two(x), "depends on the number of samples"),
    "share of samples": (lambda model, x: model.one(x) * (1 / len(x)), "depends on the number of samples at `mul`"),
    "view": (viewed, "writes into a tensor of which it uses another view"),
    "data": (by_data, r"writes into the data of a tensor"),
    "out": (lambda model, x: torch.add(x, 1, out=torch.empty(len(x), 6)), "writes the result of `add` into a tensor"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_recorded_is_named(name: str) -> None:
    function, message = REFUSALS[name]
    with pytest.raises(MethodError, match=message):
        rewrite(Plain(function).eval(), torch.randn(3, 6))


def test_the_place_is_named() -> None:
    with pytest.raises(MethodError, match="in module '1'"):
        rewrite(nn.Sequential(nn.Linear(6, 6), Plain(REFUSALS["item"][0])).eval(), torch.randn(3, 6))


def test_scripted_parts() -> None:
    traced = torch.jit.trace(nn.ReLU(), torch.randn(2, 6))
    with pytest.raises(MethodError, match="scripted"):
        rewrite(nn.Sequential(nn.Linear(6, 6), traced).eval(), torch.randn(3, 6))


def test_no_trace_is_left() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Residual()).eval()
    before = ADAPTER.fingerprint(model)
    made = rewrite(model, torch.randn(2, 3, 8, 8))
    made.model(torch.randn(2, 3, 8, 8)).sum().backward()
    for parameter in model.parameters():
        parameter.grad = None
    assert ADAPTER.fingerprint(model) == before
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in made.model.modules())
