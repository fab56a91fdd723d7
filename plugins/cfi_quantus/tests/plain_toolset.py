"""A toolset of gradients, written out, for the tests: CFI has to carry it, and Quantus can be called with the same."""

from __future__ import annotations

import numpy as np
import torch

from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Head, Kind, MethodSpec, Need, Role, ToolsetSpec


def gradient(model, inputs, classes) -> torch.Tensor:
    """Of the outputs of those classes with respect to the inputs."""
    inputs = inputs.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        outputs = model(inputs)
        picked = outputs[torch.arange(len(inputs)), torch.as_tensor(classes)]
        return torch.autograd.grad(picked.sum(), inputs)[0]


def run(request: MethodRequest) -> MethodResult:
    (inputs,) = request.inputs
    classes = [index[0] for index in request.target.indices(len(inputs))]
    values, axes = gradient(request.model, inputs, classes), Axes.INPUT
    match request.method.key:
        case "plain_input_x_gradient":
            base = 0 if request.baselines is None else request.baselines[0]
            values = values * (inputs - base)
        case "plain_noise":
            values = torch.as_tensor(
                np.random.default_rng([request.seed, abs(int(1e6 * values.sum()))]).normal(size=inputs.shape)
            )
        case "plain_map":
            values, axes = values.abs().sum(1), Axes.INPUT_MAP
        case "plain_mask":
            values = values * request.exec_args["mask"]
        case "plain_window":
            size = request.exec_args["window"]
            values = values * torch.as_tensor(float(size[0] + 10 * size[-1]))
    return MethodResult((values,), axes)


def _method(key: str, **fields) -> MethodSpec:
    return MethodSpec(
        key=key,
        toolset="plain",
        kind=Kind.ATTRIBUTION,
        needs=frozenset({Need.FORWARD, Need.INPUT_GRADIENT}),
        implementation="plain_toolset:run",
        required=("inputs", "target"),
        head=Head.LOGIT,
        **fields,
    )


@hookimpl
def cfi_toolsets():
    return [ToolsetSpec(name="plain", framework="torch", patches=())]


@hookimpl
def cfi_methods():
    return [
        _method("plain_gradient"),
        _method("plain_input_x_gradient", optional=("baselines",)),
        _method("plain_noise"),
        _method("plain_map"),
        _method("plain_mask", exec_args=("mask",), roles={"mask": Role.LIKE_INPUTS}),
        _method("plain_window", exec_args=("window",), roles={"window": Role.WINDOW}),
    ]
