"""What autograd's graph does not show: masks without a gradient, values that are rectified by any means."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from cfi_torchgraph.nodes import base_name, walk
from cfi_torchgraph.operations import NOT_RECTIFYING
from cfi_torchgraph.testing import NO_RECTIFIERS, REFUSED_RECTIFIERS, Function
from cfi_torchgraph.watch import Watch


def watched(function: Function, x: Tensor, *, values: bool = True) -> tuple[Watch, list[str]]:
    """The mode, and the names of the operations that need a rule: those that do not rectify by themselves."""
    watch = Watch(values=values)
    with watch:
        output = function(2 * x.requires_grad_()).sum()
    nodes = list(walk([output.grad_fn]))
    found = set(watch.hidden_rectifiers(nodes, set()))
    found |= {node for node in nodes if base_name(node) not in NOT_RECTIFYING or node in watch.veiled}
    return watch, [base_name(node) for node in found]


@pytest.mark.parametrize("way", REFUSED_RECTIFIERS)
def test_every_rectifier_is_seen(way: str) -> None:
    assert watched(REFUSED_RECTIFIERS[way], torch.randn(3, 6))[1]


@pytest.mark.parametrize("way", NO_RECTIFIERS)
def test_nothing_else_is_taken_for_one(way: str) -> None:
    assert not watched(NO_RECTIFIERS[way], torch.randn(3, 6))[1]


@pytest.mark.parametrize("way", ["h * (h > 0)", "heaviside", "data", "no_grad", "mul_", "amax", "gather"])
def test_where_no_unit_is_off_a_rectifier_is_seen_too(way: str) -> None:
    assert watched(REFUSED_RECTIFIERS[way], 1 + torch.rand(3, 6))[1]


def test_values_are_compared_along_the_ways_that_no_rule_is_on() -> None:
    watch, x = Watch(values=True), torch.randn(3, 6, requires_grad=True)
    with watch:
        h = 2 * x
        on = h.relu()
        output = on.flip(1).flip(1).sum()
    nodes = list(walk([output.grad_fn]))
    assert on.grad_fn is not None
    assert set(watch.hidden_rectifiers(nodes, set())) and not set(watch.hidden_rectifiers(nodes, {on.grad_fn}))


def test_a_factor_is_hidden_if_it_is_computed_from_the_inputs() -> None:
    def hidden(function: Function) -> list[str]:
        watch, _ = watched(function, torch.randn(3, 6), values=False)
        return [base_name(node) for node in watch.hidden if node is not None]

    mask, other = torch.rand(3, 6) > 0.5, torch.randn(3, 6)
    assert hidden(lambda h: h * (h > 0)) == ["Mul"]
    assert hidden(lambda h: h + h.detach().round()) == ["Add"]
    assert hidden(lambda h: h[:, h.detach().sum(0).argsort()]) == ["Index"]
    for function in (
        lambda h: h * mask,
        lambda h: h * (other > 0),
        lambda h: h * torch.full_like(h, 2.0) * h.new_ones(6) * torch.rand_like(h),
        lambda h: h * other.expand_as(h).to(h),
        lambda h: h.view(-1) * other.view(-1),
    ):
        assert not hidden(function)


def test_a_change_of_a_part_in_place_is_told_apart() -> None:
    def veiled(name: str, *args: object) -> bool:
        def change(h: Tensor) -> Tensor:
            h = h.clone()
            getattr(h[:, 1:3], name)(*args)
            return h

        return bool(watched(change, torch.randn(3, 6), values=False)[0].veiled)

    assert veiled("abs_") and veiled("sigmoid_") and veiled("clamp_", 0)
    assert not any((veiled("add_", 1), veiled("mul_", 2), veiled("zero_"), veiled("copy_", torch.ones(3, 2))))


def test_nothing_is_kept_of_the_values() -> None:
    watch, x = Watch(values=True), torch.randn(3, 6, requires_grad=True)
    with watch:
        h = 2 * x
        output = (h * (h > 0)).sum()
    seen = weakref.ref(h)
    del h, output
    gc.collect()
    assert seen() is None
