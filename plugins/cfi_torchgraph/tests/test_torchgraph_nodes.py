"""The names of operations and the way through the graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cfi_torchgraph.nodes import base_name, is_of_whole_numbers, operation, sources, tensors, walk
from cfi_torchgraph.operations import chooses_against_constant, head_of, is_linear


def test_names() -> None:
    x = torch.randn(1, 2, 4, requires_grad=True)
    assert (base_name(x.relu().grad_fn), operation(x.relu().grad_fn)) == ("Relu", "relu")
    assert operation(F.leaky_relu(x).grad_fn) == "leaky_relu"
    y = 2 * x
    assert base_name(y.copy_(x).grad_fn) == "Copy"


def test_a_walk_ends_at_the_stops_and_visits_a_node_once() -> None:
    x = torch.randn(3, requires_grad=True)
    middle = x.sin()
    output = middle.cos() + middle.exp()
    names = [base_name(node) for node in walk([output.grad_fn, None])]
    assert sorted(names) == ["AccumulateGrad", "Add", "Cos", "Exp", "Sin"]
    assert sorted(base_name(node) for node in walk([output.grad_fn], [middle.grad_fn])) == ["Add", "Cos", "Exp"]


def test_what_is_overwritten_is_no_source() -> None:
    x = torch.randn(3, requires_grad=True)
    old, new = x.sin(), x.cos()
    assert [base_name(node) for node in sources(old.clone().copy_(new).grad_fn)] == ["Cos"]


def test_tensors_in_structures() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert list(tensors({"a": [one, (two, "b")], "c": 3})) == [one, two]


def test_an_embedding_is_of_whole_numbers() -> None:
    embedding, ids = nn.Embedding(4, 3).requires_grad_(False), torch.tensor([[1, 2]])
    assert is_of_whole_numbers((ids,), {}, embedding(ids))
    assert not is_of_whole_numbers((torch.zeros(2),), {}, torch.zeros(2))
    assert not is_of_whole_numbers((), {}, torch.zeros(2)) and not is_of_whole_numbers((ids,), {}, ids)


def test_a_product_is_linear_in_one_factor() -> None:
    x, weight = torch.randn(2, 3, requires_grad=True), torch.randn(3, 3)
    norm = nn.BatchNorm1d(3).eval()
    for linear in (x * 2, x @ weight, F.linear(x, weight, weight[0]), x / 3, norm(x), x.mean(1), F.pad(x, (1, 1))):
        assert is_linear(linear.grad_fn), linear.grad_fn
    for curved in (x * x, x @ x.T, torch.ones(3) / x, norm.train()(x), x.relu(), x.amax(1)):
        assert not is_linear(curved.grad_fn), curved.grad_fn


def test_a_maximum_with_a_constant() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    assert chooses_against_constant(torch.stack([x, torch.zeros(2, 3)]).flip(1).amax(0).grad_fn)
    assert not chooses_against_constant(torch.stack([x, -x]).amax(0).grad_fn)
    assert not chooses_against_constant(x.T.amax(0).grad_fn)


def test_the_head_is_a_sigmoid_at_the_end() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    ends = {head: list(walk([head.grad_fn])) for head in (x.sin().sigmoid().squeeze(0), x.sigmoid().sin())}
    first, second = (head_of(nodes) for nodes in ends.values())
    assert {base_name(node) for node in first} == {"Squeeze", "Sigmoid"} and not second
