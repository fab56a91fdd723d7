"""Small models with known answers, and the requests that core would make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cfi_captum.run import run
from cfi_captum.table import METHODS, method_spec
from cfi_core.contract import MethodRequest, MethodResult, Target

CLASSES = 5
IMAGE = (3, 10, 14)


class SmallCNN(nn.Module):
    """For RGB images that are not square; every operation a module that runs once.

    Args:
        bias: Whether the layers have biases.
        inplace: Whether the rectifiers overwrite their inputs.
        average: Whether the pooling takes the mean.
        flatten_by_function: Whether the flattening is not a module.
        softmax: Whether it ends in a softmax.
    """

    def __init__(
        self,
        *,
        bias: bool = True,
        inplace: bool = False,
        average: bool = False,
        flatten_by_function: bool = False,
        softmax: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
        self.relu1 = nn.ReLU(inplace=inplace)
        self.pool = nn.AvgPool2d(2) if average else nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(4, 6, 3, bias=bias)
        self.relu2 = nn.ReLU(inplace=inplace)
        self.flatten = torch.flatten if flatten_by_function else nn.Flatten()
        self.fc1 = nn.Linear(6 * 3 * 5, 8, bias=bias)
        self.relu3 = nn.ReLU(inplace=inplace)
        self.fc2 = nn.Linear(8, CLASSES, bias=bias)
        self.softmax = nn.Softmax(1) if softmax else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.conv1(x)))
        x = self.relu2(self.conv2(x))
        x = self.flatten(x, 1) if self.flatten is torch.flatten else self.flatten(x)
        logits = self.fc2(self.relu3(self.fc1(x)))
        return logits if self.softmax is None else self.softmax(logits)


class Linear(nn.Module):
    """`output[c] = sum(weight[c] * x)` over all axes of an image."""

    def __init__(self, shape: tuple[int, ...] = IMAGE) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, *shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight)


class With(nn.Module):
    """A linear layer, a function, a linear layer."""

    def __init__(self, function: Callable[[Tensor], Tensor], size: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(size, 6)
        self.function = function
        self.second = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


def images(samples: int = 2) -> Tensor:
    return torch.randn(samples, *IMAGE)


def request(
    key: str,
    model: Any,
    *inputs: Tensor,
    target: int | Target | None = 1,
    layer: Any = (),
    neuron: Any = None,
    baselines: Any = None,
    init_args: Mapping[str, Any] | None = None,
    exec_args: Mapping[str, Any] | None = None,
    channel_axis: tuple[int | None, ...] = (1,),
    layer_channel_axis: int | None = 1,
    defaults: str = "raw",
) -> MethodRequest:
    """The request that core would make, everything carried already."""
    method = method_spec(METHODS[key])
    wrapped = {**method.defaults.raw, **(init_args or {})}.get(method.wraps)
    if wrapped in METHODS:
        method = replace(method, defaults=method.defaults.around(method_spec(METHODS[wrapped]).defaults))
    init_args, exec_args = method.complete(defaults, init_args or {}, exec_args or {})
    return MethodRequest(
        method=method,
        model=model.eval() if isinstance(model, nn.Module) else model,
        inputs=tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs),
        target=Target(index=(target,)) if isinstance(target, int) else target,
        layer=layer if isinstance(layer, tuple) else (layer,),
        neuron=neuron,
        baselines=baselines if baselines is None or isinstance(baselines, tuple) else (baselines,),
        init_args=init_args,
        exec_args=exec_args,
        channel_axis=channel_axis,
        layer_channel_axes=(layer_channel_axis,) * (len(layer) if isinstance(layer, tuple) else 1),
    )


def attribute(key: str, model: Any, *inputs: Tensor, **arguments: Any) -> MethodResult:
    return run(request(key, model, *inputs, **arguments))


def value(key: str, model: Any, *inputs: Tensor, **arguments: Any) -> Tensor:
    """The only array that the method gives."""
    (values,) = attribute(key, model, *inputs, **arguments).values
    return values


def gradient(model: Callable[[Tensor], Tensor], x: Tensor, target: int) -> Tensor:
    """Plain autograd."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, target].sum(), x)[0]
