"""A torch model run in stages gives the values and gradients that torch gives by itself."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import cfi_core as cfi
from cfi_core.errors import LayerError
from cfi_core.framework import flatten
from cfi_torch.adapter import TorchAdapter
from cfi_torch.runner import TorchRunner

ADAPTER = TorchAdapter()


def opened(model: nn.Module, inputs: Sequence[Tensor], layers: Sequence[str] = ()) -> TorchRunner:
    return ADAPTER.runner(ADAPTER.twin(model), inputs, layers)


def activations(runner: TorchRunner, inputs: Sequence[Tensor]) -> list[Tensor]:
    values = list(inputs)
    for stage in range(len(runner.layers)):
        values += runner.run(stage, values)
    return values[len(inputs) :]


def pulled(
    runner: TorchRunner, inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[list[Tensor | None], dict[str, Tensor | None]]:
    """Gradients at the inputs and at every layer, by the chain rule over the stages."""
    values, pulls = list(inputs), []
    for stage in range(len(runner.layers) + 1):
        results, pull = runner.linearize(stage, values)
        pulls.append(pull)
        values += results
    values = values[: len(inputs) + len(runner.layers)]
    total: list[Tensor | None] = [None] * len(values)
    at_layers: dict[str, Tensor | None] = {}
    for stage in reversed(range(len(runner.layers) + 1)):
        if stage == len(runner.layers):
            given: Sequence[Tensor | None] = cotangents
        else:
            given = [at_layers.setdefault(runner.layers[stage], total[len(inputs) + stage])]
        gradients = pulls[stage](given, [True] * (len(inputs) + stage))
        for i, gradient in enumerate(gradients):
            if gradient is not None:
                total[i] = gradient if total[i] is None else total[i] + gradient
    return total[: len(inputs)], at_layers


def plain(model: nn.Module, inputs: Sequence[Tensor], layers: Sequence[str] = ()) -> tuple[list, list, dict]:
    """Outputs, input gradients and layer gradients of the sum of squares of all outputs, by torch alone."""
    seen: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _given, output, name=name: seen.__setitem__(name, flatten(output)[0])
        )
        for name in layers
    ]
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    outputs = flatten(model(*leaves))
    for handle in handles:
        handle.remove()
    floating = [leaf for leaf in leaves if leaf.requires_grad]
    total = sum((output.double() ** 2).sum() for output in outputs)
    gradients = torch.autograd.grad(total, [*floating, *(seen[name] for name in layers)], allow_unused=True)
    return outputs, list(gradients[: len(floating)]), dict(zip(layers, gradients[len(floating) :], strict=True))


def agree(
    model: nn.Module,
    inputs: Sequence[Tensor],
    layers: Sequence[str] = (),
    *,
    reference: nn.Module | None = None,
    **tolerance: float,
) -> TorchRunner:
    """Asserts that runner and plain torch give the same; the reference is the model itself unless told otherwise."""
    model.eval()
    reference = model if reference is None else reference.eval()
    outputs, at_inputs, at_layers = plain(reference, inputs, layers)
    runner = opened(model, inputs, layers)
    values = [*inputs, *activations(runner, inputs)]
    close: Callable[..., None] = lambda a, b: torch.testing.assert_close(a, b, **tolerance)  # noqa: E731
    for ours, theirs in zip(runner.run(len(runner.layers), values), outputs, strict=True):
        close(ours, theirs.detach())
    ours_at_inputs, ours_at_layers = pulled(runner, inputs, [2 * output.detach() for output in outputs])
    for x, ours in zip(inputs, ours_at_inputs, strict=True):
        assert (ours is None) == (not x.is_floating_point())
    for ours, theirs in zip([g for g in ours_at_inputs if g is not None], at_inputs, strict=True):
        close(ours, theirs)
    for name in layers:
        close(ours_at_layers[name], at_layers[name])
    assert_unmarked(model)
    return runner


def assert_unmarked(model: nn.Module) -> None:
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Residual(nn.Module):
    """y = (b + x) * a, with a = 2x and b = 3a."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.a.weight.fill_(2)
            self.b.weight.fill_(3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return (self.b(a) + x) * a


def test_paths_around_a_layer_count() -> None:
    """y = (3a + x)a at x = 1, a = 5 (not what the model would compute): dy/da = 6a + x, dy/dx = a."""
    runner = opened(Residual(), [torch.ones(1, 1)], ["a"])
    x, a = torch.ones(1, 1), torch.full((1, 1), 5.0)
    (y,), pull = runner.linearize(1, [x, a])
    assert y.item() == 80
    assert [g.item() for g in pull([torch.ones(1, 1)], [True, True])] == [5, 31]


def test_two_layers_that_depend_on_each_other() -> None:
    """The order is the model's own; y = (b + x)a at x = 1, a = 5, b = 7."""
    runner = opened(Residual(), [torch.ones(1, 1)], ["b", "a"])
    assert runner.layers == ("a", "b")
    x, a, b = (torch.full((1, 1), value) for value in (1.0, 5.0, 7.0))
    assert runner.run(0, [x])[0].item() == 2
    assert runner.run(1, [x, a])[0].item() == 15
    (y,), pull = runner.linearize(2, [x, a, b])
    assert y.item() == 40
    assert [g.item() for g in pull([torch.ones(1, 1)], [True, True, True])] == [5, 8, 5]
    _, pull = runner.linearize(1, [x, a])
    at_x, at_a = pull([torch.ones(1, 1)], [True, True])
    assert at_x is None and at_a.item() == 3
    assert [g and g.item() for g in pull([torch.ones(1, 1)], [True, False])] == [None, None]


def test_a_pullback_serves_again_and_takes_missing_cotangents() -> None:
    runner = opened(Residual(), [torch.ones(2, 1)])
    _, pull = runner.linearize(0, [torch.ones(2, 1)])
    first, second = pull([torch.ones(2, 1)], [True]), pull([torch.full((2, 1), 2.0)], [True])
    torch.testing.assert_close(2 * first[0], second[0])
    assert pull([None], [True]) == (None,) == pull([torch.ones(2, 1)], [False])


def test_a_first_product_frees_what_the_pass_kept() -> None:
    """Kept until later, it would cost a third more time; only who asks again pays, with a second pass."""
    kept: list[Any] = []

    class Remembering(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autograd.graph.saved_tensors_hooks(self.keep, lambda held: held[0]):
                return x.exp().sum(1)

        def keep(self, tensor: Tensor) -> Any:
            held = [tensor.detach()]
            kept.append(weakref.ref(held[0]))
            return held

    x = torch.randn(2, 3)
    runner = opened(Remembering(), [x])
    kept.clear()
    _, pull = runner.linearize(0, [x])
    expected = x.exp()
    for wave in range(3):
        (gradient,) = pull([torch.ones(2)], [True])
        assert gradient is not None
        torch.testing.assert_close(gradient, expected)
        assert sum(ref() is not None for ref in kept) == (0 if wave == 0 else 1)
    assert len(kept) == 2


def test_a_second_product_at_another_point_is_refused() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.calls += 1
            return (x**2).sum(1) * Counting.calls

    x = torch.randn(2, 3)
    _, pull = opened(Counting(), [x]).linearize(0, [x])
    pull([torch.ones(2)], [True])
    with pytest.raises(cfi.MethodError, match="Counting gives other outputs when it is run again"):
        pull([torch.ones(2)], [True])


def test_a_change_of_the_opened_activation_reaches_only_the_next_stage() -> None:
    class InPlace(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.first, self.relu = nn.ReLU(inplace), nn.ReLU(inplace)
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.relu(self.conv(self.first(x))).mul_(2) if self.relu.inplace else self.double(x))

        def double(self, x: Tensor) -> Tensor:
            return self.relu(self.conv(self.first(x))) * 2

    model, reference = InPlace(True), InPlace(False)
    reference.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 8, 8)
    kept = x.clone()
    runner = agree(model, [x], ["conv", "relu"], reference=reference)
    a = runner.run(0, [x])[0]
    torch.testing.assert_close(a, model.conv(nn.functional.relu(x)).detach())
    kept_a = a.clone()
    runner.run(1, [x, a])
    runner.linearize(2, [x, a, runner.run(1, [x, a])[0]])
    assert torch.equal(x, kept) and torch.equal(a, kept_a)


def test_results_are_not_the_models_own_memory() -> None:
    class Reusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.zeros(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.kept.detach().copy_(x * 2)

    runner = opened(Reusing(), [torch.ones(2, 3)])
    (first,) = runner.run(0, [torch.ones(2, 3)])
    (second,), _ = runner.linearize(0, [torch.full((2, 3), 2.0)])
    runner.run(0, [torch.full((2, 3), 5.0)])
    assert torch.equal(first, torch.full((2, 3), 2.0)) and torch.equal(second, torch.full((2, 3), 4.0))


def test_a_model_in_training_mode_runs_in_inference_mode_and_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 2))
    x = torch.randn(4, 3, 8, 8)
    model(x)
    before = ADAPTER.fingerprint(model)
    first, second = (opened(model, [x]).run(0, [x])[0] for _ in range(2))
    assert torch.equal(first, second)
    assert model.training and ADAPTER.fingerprint(model) == before
    torch.testing.assert_close(first, model.eval()(x).detach())


@dataclass
class Pair:
    logits: Tensor
    hidden: Tensor


class Ordered(OrderedDict):
    def to_tuple(self) -> tuple:
        return tuple(self.values())


Named = namedtuple("Named", "logits hidden")


@pytest.mark.parametrize(
    "structure",
    [
        lambda y, h: (y, [h]),
        lambda y, h: {"z": y, "a": {"inner": h}},
        Named,
        Pair,
        lambda y, h: Ordered(logits=y, nothing=None, hidden=h),
    ],
)
def test_outputs_are_flat_in_their_own_order(structure: Callable[[Tensor, Tensor], Any]) -> None:
    class Structured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            h = self.hidden(x).tanh()
            return structure(self.head(h), h)

    x = torch.randn(2, 5)
    runner = agree(Structured(), [x], ["hidden"])
    assert [tuple(output.shape) for output in runner.run(1, [x, *activations(runner, [x])])] == [(2, 3), (2, 4)]


def test_two_inputs_one_of_integers() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
            return self.head(x * self.table(tokens).mean(1))

    agree(Both(), [torch.randn(3, 4), torch.randint(0, 9, (3, 5))], ["table", "head"])


def test_tokens_alone_have_a_gradient_at_their_embedding() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).eval()
    tokens = torch.randint(0, 9, (2, 3))
    runner = opened(model, [tokens], ["0"])
    (a,) = runner.run(0, [tokens])
    (y,), pull = runner.linearize(1, [tokens, a])
    at_tokens, at_embedding = pull([torch.ones_like(y)], [True, True])
    assert at_tokens is None
    expected = model[3].weight.sum(0).view(1, 3, 4) * (1 - a.tanh() ** 2)
    torch.testing.assert_close(at_embedding, expected.detach())


def test_attention_gives_one_tensor_in_a_tuple() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            attended, _ = self.attention(x, x, x, need_weights=False)
            return self.head((x + attended).mean(1))

    model, x = Attentive(), torch.randn(2, 5, 8)
    agree(model, [x], ["attention"])
    assert ADAPTER.activations(model, [x])["attention"].shape == (2, 5, 8)
    with pytest.raises(LayerError, match=r"'attention.out_proj' .* is not called"):
        opened(model, [x], ["attention.out_proj"])


def test_transformer_encoder_with_its_fused_inference() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(40, 3)).eval()
    agree(model, [torch.randn(2, 5, 8)], ["0.layers.0", "0.layers.1.linear1"])


@pytest.mark.parametrize(
    ("conv", "shape"), [(nn.Conv1d, (2, 3, 9)), (nn.Conv2d, (2, 3, 9, 7)), (nn.Conv3d, (2, 3, 5, 6, 7))]
)
def test_convolutions_of_every_rank(conv: Any, shape: tuple[int, ...]) -> None:
    agree(nn.Sequential(conv(3, 4, 3), nn.ReLU(inplace=False), conv(4, 2, 3)), [torch.randn(shape)], ["0", "1"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_types(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    x = torch.randn(2, 6).to(dtype)
    runner = agree(model, [x], ["0"], rtol=2e-2, atol=1e-2)
    assert runner.run(0, [x])[0].dtype is dtype
    (y,), pull = runner.linearize(1, [x, *runner.run(0, [x])])
    # A host may compute in another precision than the model.
    assert y.dtype is dtype and pull([torch.ones(2, 3)], [False, True])[1].dtype is dtype


def test_other_sample_counts_and_memory_layouts() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    runner = opened(model, [torch.randn(2, 3, 8, 8)], ["1"])
    for x in (
        torch.randn(1, 3, 8, 8),
        torch.randn(5, 8, 8, 3).permute(0, 3, 1, 2),
        torch.randn(1, 3, 8, 8).expand(4, -1, -1, -1),
    ):
        outputs, at_inputs, _ = plain(model, [x])
        a = activations(runner, [x])[0]
        strided = a.transpose(2, 3).contiguous().transpose(2, 3)
        torch.testing.assert_close(runner.run(1, [x, strided])[0], outputs[0].detach())
        torch.testing.assert_close(pulled(runner, [x], [2 * outputs[0].detach()])[0][0], at_inputs[0])
        assert all(result.is_contiguous() for result in (a, *runner.run(1, [x, a])))


def test_control_flow_that_depends_on_the_data() -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.low, self.high = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.high(x) if x.sum() > 0 else self.low(x)

    model = Choosing().eval()
    x = torch.randn(2, 3)
    runner = opened(model, [x], ["first"])
    for a in (torch.ones(2, 3), -torch.ones(2, 3)):
        expected = (model.high if a.sum() > 0 else model.low)(a)
        torch.testing.assert_close(runner.run(1, [x, a])[0], expected.detach())
    taken, other = ("high", "low") if model.first(x).sum() > 0 else ("low", "high")
    with pytest.raises(LayerError, match="is not called"):
        opened(model, [x], [other])
    chosen = opened(model, [x], ["first", taken])
    with pytest.raises(LayerError, match="is not called"):
        chosen.run(1, [x, torch.ones(2, 3) if taken == "low" else -torch.ones(2, 3)])


def test_hooks_of_the_user_still_count() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    fired = []
    model[0].register_forward_hook(lambda _module, _given, output: fired.append(1) or output * 10)
    x = torch.randn(2, 3)
    runner = opened(model, [x], ["0"])
    fired.clear()
    (a,) = runner.run(0, [x])
    assert fired == [1]
    plain_first = nn.functional.linear(x, model[0].weight, model[0].bias)
    torch.testing.assert_close(a, (10 * plain_first).detach())
    torch.testing.assert_close(runner.run(1, [x, a])[0], model(x).detach())
    assert len(model[0]._forward_hooks) == 1


def test_layers_that_cannot_be_opened_are_refused_by_name() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 3)])
            self.twice, self.unused, self.fft = nn.Linear(3, 3), nn.Linear(3, 3), Fourier()

        def forward(self, x: Tensor) -> Tensor:
            hidden, _ = self.blocks[0](x)
            return self.fft(self.twice(self.twice(self.blocks[1](hidden)))).abs().sum(1)

    class Fourier(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(x)

    model, x = Several().eval(), torch.randn(2, 5, 4)
    for name, reason in {
        "blocks.0": r"'blocks.0' \(LSTM\) gives 3 values",
        "twice": r"'twice' \(Linear\) is called 2 times",
        "unused": r"'unused' \(Linear\) is not called",
        "fft": r"'fft' \(Fourier\) gives a torch.complex64 tensor",
        "nowhere": r"has no layer 'nowhere'",
    }.items():
        with pytest.raises(LayerError, match=reason):
            opened(model, [x], ["blocks.1", name])
    agree(model, [x], ["blocks.1"])


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_runs_but_is_not_opened() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    model = nn.Sequential(nn.Linear(4, 4), scripted, nn.Linear(4, 2)).eval()
    x = torch.randn(2, 4)
    for name in ("1", "1.0"):
        with pytest.raises(LayerError, match=f"'{name}' is TorchScript"):
            opened(model, [x], [name])
    agree(model, [x], ["0", "2"])
    assert list(ADAPTER.activations(model, [x])) == ["0", "2"]
    outputs, at_inputs, _ = plain(scripted, [x])
    runner = opened(scripted, [x])
    torch.testing.assert_close(runner.run(0, [x])[0], outputs[0].detach())
    torch.testing.assert_close(pulled(runner, [x], [2 * outputs[0].detach()])[0][0], at_inputs[0])


def test_no_hook_stays_behind_after_an_error() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            if x.isnan().any():
                raise ValueError("not a number")
            return self.second(x)

    model, x = Picky(), torch.randn(2, 3)
    runner = opened(model, [x], ["first", "second"])
    broken = torch.full((2, 3), torch.nan)
    for failing in (lambda: runner.run(1, [x, broken]), lambda: runner.linearize(2, [x, broken, torch.ones(2, 2)])):
        with pytest.raises(ValueError, match="not a number"):
            failing()
        assert_unmarked(runner._model)
    runner.linearize(0, [x])[1]([torch.ones(2, 3)], [True])
    assert_unmarked(runner._model)
    assert_unmarked(model)


def test_a_model_that_catches_errors_does_not_hold_a_stage_up() -> None:
    class Catching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            try:
                hidden = self.first(x)
            except:  # noqa: E722 - that is what is tried here
                hidden = x
            return self.second(hidden)

    model, x = Catching().eval(), torch.randn(2, 3)
    agree(model, [x], ["first"])


def test_a_model_that_recomputes_instead_of_keeping() -> None:
    """Activation checkpointing runs modules again in the backward pass; replaced activations stay replaced."""

    class Recomputing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(self.body, x, use_reentrant=False))

    model, x = Recomputing().eval(), torch.randn(2, 3)
    agree(model, [x], ["body.1", "body.2"])
    runner = opened(model, [x], ["body.0"])
    a = torch.randn(2, 4)
    (y,), pull = runner.linearize(1, [x, a])
    leaf = a.clone().requires_grad_()
    expected = model.head(model.body[1:](leaf))
    torch.testing.assert_close(y, expected.detach())
    at_x, at_a = pull([torch.ones_like(y)], [True, True])
    assert at_x is None
    torch.testing.assert_close(at_a, torch.autograd.grad(expected.sum(), leaf)[0])


def test_inside_another_backward_pass_another_thread_and_any_gradient_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    x = torch.randn(2, 3)
    runner = opened(model, [x], ["0"])
    expected = pulled(runner, [x], [torch.ones(2, 2)])[0][0]
    found = []

    class Inside(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            found.append(pulled(runner, [x], [torch.ones(2, 2)])[0][0])
            return gradient

    Inside.apply(torch.ones(1, requires_grad=True)).backward()
    threads = [
        threading.Thread(target=lambda: found.append(pulled(runner, [x], [torch.ones(2, 2)])[0][0])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        found.append(pulled(runner, [x], [torch.ones(2, 2)])[0][0])
    with torch.inference_mode():
        found.append(pulled(opened(model, [x], ["0"]), [x * 1], [torch.ones(2, 2)])[0][0])
    assert len(found) == 7
    for gradient in found:
        torch.testing.assert_close(gradient, expected)


def test_memory_does_not_grow_over_passes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 2)).eval()
    x = torch.randn(2, 3, 8, 8)
    runner = opened(model, [x], ["0"])

    def once() -> None:
        pulled(runner, [x], [torch.ones(2, 2)])

    once()
    gc.collect()
    gc.disable()  # so that a cycle of references shows
    try:
        before = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
        for _ in range(50):
            once()
        after = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert after == before


def test_weights_are_the_users_own_and_unchanged() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    model[1].weight.requires_grad_(False)
    parameters = dict(model.named_parameters())
    x = torch.randn(2, 3)
    runner = opened(model, [x], ["0"])
    pulled(runner, [x], [torch.ones(2, 2)])
    assert all(dict(model.named_parameters())[name] is parameter for name, parameter in parameters.items())
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, True]
    assert all(p.grad is None for p in model.parameters())
    pointers = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in runner._model.parameters()} == pointers


def test_recurrent_and_tied_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.cell = nn.GRU(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.cell(self.a(x))[0][:, -1])

    runner = agree(Tied(), [torch.randn(2, 5, 4)], ["a", "b"])
    assert runner._model.a.weight is runner._model.b.weight
    assert not any(weight.requires_grad for weight in runner._model.cell._flat_weights)


class Block(nn.Module):
    """Two convolutions with batch norms, one ReLU that is used twice, and a way around them."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.around = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(inner + self.around(x))


def test_a_residual_network() -> None:
    parts = OrderedDict(
        stem=nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)),
        layer1=nn.Sequential(Block(8, 8), Block(8, 8)),
        layer2=nn.Sequential(Block(8, 16, 2), Block(16, 16)),
        layer3=nn.Sequential(Block(16, 32, 2), Block(32, 32)),
        head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )
    model = nn.Sequential(parts).eval()
    runner = agree(model, [torch.randn(2, 3, 64, 64)], ["layer3", "layer2.0.conv1"], rtol=1e-4, atol=1e-4)
    assert runner.layers == ("layer2.0.conv1", "layer3")


def test_a_compiled_model_is_the_module_that_was_compiled() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    assert ADAPTER.load(torch.compile(model, backend="eager")) is model
    model.compile(backend="eager")
    assert ADAPTER.twin(model)._compiled_call_impl is None and model._compiled_call_impl is not None


def test_layer_gradients_of_named_layers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    x, cotangents = torch.randn(2, 3), [np.ones((2, 2), np.float32)]
    every = ADAPTER.layer_gradients(ADAPTER.twin(model), [x], cotangents)
    some = ADAPTER.layer_gradients(ADAPTER.twin(model), [x], cotangents, ["1"])
    assert list(every) == ["0", "1", "2"] and list(some) == ["1"]
    np.testing.assert_allclose(some["1"], model[2].weight.detach().numpy().sum(0)[None].repeat(2, 0), rtol=1e-6)
    np.testing.assert_array_equal(some["1"], every["1"])
    assert ADAPTER.layer_gradients(ADAPTER.twin(model), [x], cotangents, []) == {}


class Ended(nn.Module):
    """Ends in a softmax that is no module, and has a parameter, a buffer and a plain number of its own."""

    def __init__(self, *, softmax: bool = True) -> None:
        super().__init__()
        self.conv, self.model = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Flatten(), nn.Linear(144, 5))
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 5))
        self.register_buffer("shift", torch.linspace(-1, 1, 5))
        self.factor, self.softmax = 2.0, softmax

    def forward(self, x: Tensor) -> Tensor:
        scores = self.model(self.conv(x).tanh() * self.factor) * self.scale + self.shift
        return nn.functional.softmax(scores, -1) if self.softmax else scores


def ended() -> tuple[Ended, Ended, Tensor]:
    """A model, the same without its softmax, and an input."""
    model, bare = Ended().eval(), Ended(softmax=False).eval()
    bare.load_state_dict(model.state_dict())
    return model, bare, torch.randn(2, 3, 8, 8)


def logits_of(model: nn.Module, x: Tensor) -> nn.Module:
    logits = ADAPTER.without_softmax(ADAPTER.twin(model), [x])
    assert logits is not None
    return logits


def test_without_a_softmax_function_layers_keep_their_names() -> None:
    model, bare, x = ended()
    logits = logits_of(model, x)
    assert [layer.name for layer in ADAPTER.layers(logits)] == [layer.name for layer in ADAPTER.layers(model)]
    assert list(logits.state_dict()) == list(model.state_dict())
    runner = agree(logits, [x], ["conv", "model.1"], reference=bare)
    assert not any(parameter.requires_grad for parameter in runner._model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_copy_without_a_softmax_runs_the_layers_that_it_shows() -> None:
    class Copying(Ended):
        def __deepcopy__(self, memo: dict[int, Any]) -> Copying:
            memo[id(self)] = made = Copying()
            made.load_state_dict(self.state_dict())
            return made

    model, bare, x = ended()
    own = Copying().eval()
    own.load_state_dict(model.state_dict())
    for original in (model, own):
        for copied in (logits_of(original, x), copy.deepcopy(logits_of(original, x)), ADAPTER.twin(logits_of(own, x))):
            torch.testing.assert_close(copied(x), bare(x))
            copied.conv.register_forward_hook(lambda _module, _given, output: output * 0)
            torch.testing.assert_close(copied(x), bare.model(torch.zeros(2, 4, 6, 6)) * bare.scale + bare.shift)
            assert ADAPTER.in_training_mode(copied.train()) and not ADAPTER.in_training_mode(copied.eval())
    torch.testing.assert_close(model(x), bare(x).softmax(-1))


def test_without_a_softmax_function_the_model_itself_still_counts() -> None:
    """Its hooks fire, and its fingerprint follows what the model has besides layers."""
    model, bare, x = ended()
    fired = []
    model.register_forward_hook(lambda _module, _given, _output: fired.append(1))
    model.register_forward_pre_hook(lambda _module, given: (given[0] * 3,))
    logits = ADAPTER.twin(logits_of(model, x))
    fired.clear()
    torch.testing.assert_close(logits(x), bare(3 * x))
    assert fired == [1]
    before = ADAPTER.fingerprint(logits)
    assert ADAPTER.fingerprint(logits) == before
    logits.register_forward_hook(lambda _module, _given, _output: None).remove()
    assert ADAPTER.fingerprint(logits) == before
    logits._with_softmax.factor = 3.0
    assert ADAPTER.fingerprint(logits) != before


def test_a_function_without_its_softmax_still_shows_its_modules() -> None:
    net, x = nn.Linear(4, 3).double().eval(), torch.randn(2, 4).double()
    logits = logits_of(ADAPTER.load(lambda x: nn.functional.softmax(net(x), -1)), x)
    torch.testing.assert_close(logits(x), net(x))
    assert ADAPTER.tensor(np.ones((1, 4), np.float32), logits).dtype is torch.float64


class SkippingBlock(nn.Module):
    """A layer with a path around it, behind a part that records no gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.layer, self.end = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        with torch.no_grad():
            h = self.front(x)
        h = h + x
        return self.end(torch.relu(self.layer(h)) + h).tanh()


def test_one_pass_gives_all_stages_and_the_gradients_of_separate_ones() -> None:
    torch.manual_seed(0)
    model, x = SkippingBlock().eval(), torch.randn(2, 4)
    apart, together = (TorchAdapter().runner(model, [x], ["layer"]) for _ in range(2))
    (activation,) = apart.run(0, [x])
    outputs, pullback = apart.linearize(1, [x, activation])
    before = together._model.passes
    first, second = together.chain([x], [False, True])
    assert together._model.passes == before + 1
    torch.testing.assert_close(first.results[0], activation, rtol=0, atol=0)
    torch.testing.assert_close(second.results[0], outputs[0], rtol=0, atol=0)
    given = torch.randn(2, 3)
    expected, found = pullback([given], [False, True]), second.pullback([given], [False, True])
    assert found[0] is None
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=0)
    assert found[1].abs().sum() > 0
    for gradient, own in zip(second.pullback([given], [True, True]), pullback([given], [True, True]), strict=True):
        torch.testing.assert_close(gradient, own, rtol=0, atol=0)  # around the layer, too, by a pass of its own
