"""Graphs of torch's own modules: where modules, parameters and constants stand, and under which names."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import nn

from cfi_translate.torch_graph import TorchGraph, identifier


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("conv1", "conv1"), ("a/b c", "a_b_c"), ("0", "0"), ("class", "class_"), ("forward", "forward_"), ("", "_")],
)
def test_names_are_those_that_a_module_can_have(name, wanted):
    assert identifier(name) == wanted
    assert identifier(wanted) == wanted


def test_a_graph_computes_what_was_written():
    graph = TorchGraph("the model")
    x = graph.input("x.1")
    linear = nn.Linear(3, 2)
    path = graph.attach("block.linear", linear)
    once = graph.call(path, x)
    scale = graph.parameter("block.scale", torch.tensor([2.0, 3.0]))
    shift = graph.constant("block.shift", torch.tensor([1.0, 0.5]))
    y = graph.function(operator.add, graph.function(torch.mul, once, scale), shift)
    module = graph.finish([graph.method("relu", y), graph.function(torch.mul, graph.call(path, x), graph.again(scale))])
    values = torch.randn(4, 3)
    relu, product = module(x_1=values)
    torch.testing.assert_close(relu, (linear(values) * scale_of(module) + torch.tensor([1.0, 0.5])).relu())
    torch.testing.assert_close(product, linear(values) * scale_of(module))
    assert type(module).__name__ == "the_model" and not module.training
    assert {name for name, _ in module.named_parameters()} == {
        "block.linear.weight",
        "block.linear.bias",
        "block.scale",
    }
    assert {name for name, _ in module.named_buffers()} == {"block.shift"}


def scale_of(module):
    return module.block.scale


def test_taken_names_are_numbered_and_reserved_ones_kept():
    graph = TorchGraph("model")
    graph.reserve("relu")
    assert graph.attach("relu", nn.ReLU()) == "relu_1"
    assert graph.attach("relu", nn.ReLU(), reserved=True) == "relu"
    assert graph.attach("relu", nn.ReLU(), reserved=True) == "relu_2"
    assert graph.attach("outer.inner", nn.ReLU()) == "outer.inner"
    assert graph.attach("outer", nn.ReLU()) == "outer_1"
    assert graph.attach("norm", nn.LayerNorm(2, bias=False)) == "norm"
    assert graph.attach("norm.weight", nn.ReLU()) == "norm.weight_1"
    assert graph.attach("norm.bias", nn.ReLU()) == "norm.bias_1"


def test_modules_that_are_not_called_are_left_out():
    graph = TorchGraph("model")
    x = graph.input("x")
    unused = graph.attach("unused", nn.Linear(2, 2))
    path = graph.attach("used", nn.ReLU())
    assert not graph.is_called(path) and graph.holds(unused) and not graph.holds("other")
    y = graph.call(path, x)
    assert graph.is_called(path) and isinstance(graph.get(path), nn.ReLU)
    assert [name for name, _ in graph.finish([y]).named_children()] == ["used"]


def test_integers_are_no_parameters():
    graph = TorchGraph("model")
    x = graph.input("x")
    module = graph.finish([graph.function(torch.add, x, graph.parameter("count", torch.tensor([1, 2])))])
    assert not list(module.parameters()) and [name for name, _ in module.named_buffers()] == ["count"]
