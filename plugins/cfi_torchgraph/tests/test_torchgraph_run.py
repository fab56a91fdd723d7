"""What runs of methods share: targets, calls of layers, random numbers, and that nothing is left behind."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cfi_core as cfi
from cfi_core.contract import Target
from cfi_torchgraph.calls import check_calls, one_call_of_each
from cfi_torchgraph.draws import OwnGenerators
from cfi_torchgraph.marks import without_marks
from cfi_torchgraph.rectifiers import Rectifier, knows_rectifier, rectifier
from cfi_torchgraph.scores import choose, one_per_sample, select


def test_an_output_is_chosen_by_position_key_or_attribute() -> None:
    pair = namedtuple("pair", "scores features")(1, 2)
    assert choose(pair, None) is pair
    assert (choose(pair, 1), choose({"features": 2}, "features"), choose(pair, "features")) == (2, 2, 2)
    with pytest.raises(cfi.TargetError, match="no output 'logits'"):
        choose(pair, "logits")


def test_the_samples_of_an_index_repeat() -> None:
    output = torch.arange(12.0).reshape(4, 3)
    assert select(output, Target(index=(2,))).tolist() == [2, 5, 8, 11]
    assert select(output, Target(index=((0,), (1,)))).tolist() == [0, 4, 6, 10]


@pytest.mark.parametrize("values", [torch.zeros(2), torch.zeros(2, 1)])
def test_one_value_for_each_sample(values: Tensor) -> None:
    assert one_per_sample(values, 2).shape == (2,)


def test_one_number_for_one_sample() -> None:
    assert one_per_sample(torch.tensor(3.0), 1).shape == one_per_sample(3.0, 1).shape == (1,)


@pytest.mark.parametrize("values", [torch.zeros(3), torch.zeros(2, 2), torch.tensor(1.0), 1.0, None])
def test_anything_else_is_refused(values: Any) -> None:
    with pytest.raises(cfi.TargetError, match=r"must return one value per sample \(2 samples\)"):
        one_per_sample(values, 2)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice, self.never = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(self.twice(self.once(x)))


def test_a_layer_is_called_once() -> None:
    model = Twice()
    for name, said in {"twice": "called 2 times", "never": "does not call the layer"}.items():
        with pytest.raises(cfi.LayerError, match=said), one_call_of_each(model, [model.get_submodule(name)]):
            model(torch.zeros(1, 3))
    with one_call_of_each(model, [model.once]):
        model(torch.zeros(1, 3))
        model(torch.zeros(1, 3))  # once in each pass
    assert not any(module._forward_pre_hooks for module in model.modules())
    check_calls(1)


def test_an_absent_layer_is_told_where_the_method_failed_for_want_of_it() -> None:
    model = Twice()

    def fail(layer: nn.Module) -> None:
        with one_call_of_each(model, [layer]):
            model(torch.zeros(1, 3))
            raise cfi.MethodError("no gradient")

    with pytest.raises(cfi.LayerError, match="does not call"):
        fail(model.never)
    with pytest.raises(cfi.MethodError, match="no gradient"):
        fail(model.once)


def test_draws_are_those_of_a_seeded_process_and_leave_its_generator_alone() -> None:
    def draw() -> list[Tensor]:
        linear = nn.Linear(2, 2)  # draws by nn.init
        shapes = torch.zeros(3)
        return [torch.randn(2), torch.rand_like(shapes), torch.randperm(5), shapes.normal_(), linear.weight.detach()]

    torch.manual_seed(7)
    expected = draw()
    state = torch.get_rng_state()
    with OwnGenerators(7):
        found = draw()
    assert all(map(torch.equal, found, expected))
    assert torch.equal(torch.get_rng_state(), state)


def test_no_mark_is_left_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    kept = model[1].register_forward_hook(lambda *args: None)

    def fail() -> None:
        with without_marks(model, "no module"):
            model[0].rule = 3
            model[0].register_forward_hook(lambda *args: None)
            model[1].register_full_backward_hook(lambda *args: None)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not hasattr(model[0], "rule") and not model[0]._forward_hooks and not model[1]._backward_hooks
    assert list(model[1]._forward_hooks) == [kept.id]


def test_rectifiers_with_a_highest_value_are_relus() -> None:
    x = torch.tensor([-1.0, 2.0, 9.0])
    for module, most in ((rectifier(), 6), (rectifier(min_val=0, max_val=3), 3)):
        assert isinstance(module, Rectifier) and knows_rectifier(module)
        assert module(x).tolist() == [0, 2, most]
    assert not knows_rectifier(rectifier(min_val=-1, max_val=1))
