"""A toolset whose methods have faults that published libraries had, as they had them: what a comparison must find.

What is right in them is captum's, Zennit's or torch's own code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import captum.attr
import torch
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.composites import LayerMapComposite
from zennit.rules import ReLUBetaSmooth

from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Defaults, Head, Kind, MethodSpec, Need, ToolsetSpec

_GRADIENT = frozenset({Need.FORWARD, Need.INPUT_GRADIENT})
_LAYER_GRADIENT = frozenset({Need.FORWARD, Need.LAYER, Need.LAYER_GRADIENT})


def deep_lift(request: MethodRequest, x: Tensor) -> Tensor:
    """Captum's own: contributions get lost where a ReLU is followed by max pooling."""
    (indices,) = zip(*_indices(request), strict=True)
    found: Any = captum.attr.DeepLift(request.model).attribute(x, target=list(indices))
    return found.detach()


class _Forgetful(ReLUBetaSmooth):
    """The parameter is lost where the hook is copied for each module."""

    def copy(self) -> ReLUBetaSmooth:
        return ReLUBetaSmooth()


def beta_smooth(request: MethodRequest, x: Tensor) -> Tensor:
    """Zennit's, before its rule copied its parameter."""
    rule = _Forgetful(beta_smooth=request.init_args.get("beta_smooth", 10.0))
    composite = LayerMapComposite(layer_map=[(nn.ReLU, rule)])
    with Gradient(model=request.model, composite=composite, attr_output=lambda out: _marks(request, out)) as attributor:
        return attributor(x.clone().requires_grad_())[1].detach()


def occlusion(request: MethodRequest, x: Tensor) -> Tensor:
    """tf-explain's: patches are placed column by column along the wrong axes, and read row by row."""
    size = request.exec_args["patch_size"]
    height, width = x.shape[2:]
    maps = torch.zeros(len(x), math.ceil(height / size), math.ceil(width / size))
    patches = []
    for left in range(0, height, size):
        for top in range(0, width, size):
            covered = x.clone()
            covered[:, :, top : top + size, left : left + size] = 0
            patches.append(covered)
    places = [(row, column) for column in range(maps.shape[2]) for row in range(maps.shape[1])]
    with torch.no_grad():
        for (row, column), covered in zip(places, patches, strict=True):
            maps[:, row, column] = _score(request, x) - _score(request, covered)
    return maps.repeat_interleave(size, 1)[:, :height].repeat_interleave(size, 2)[:, :, :width]


def grad_cam(request: MethodRequest, x: Tensor) -> Tensor:
    """Channels taken for the last axis, as in a model of the other framework."""
    activation, gradient = _at_layer(request, x)
    weights = gradient.mean((1, 2))
    return (activation * weights[:, None, None, :]).sum(1)


def integrated_gradients(request: MethodRequest, x: Tensor) -> Tensor:
    """Captum's trapezoidal rule: as many steps as points, where there is one less, so that the weights miss one."""
    steps = request.exec_args["n_steps"]
    base = torch.zeros_like(x) if request.baselines is None else request.baselines[0] + torch.zeros_like(x)
    weights = torch.full((steps,), 1 / steps)
    weights[[0, -1]] /= 2
    points = zip(torch.linspace(0, 1, steps), weights, strict=True)
    return sum(weight * _gradient(request, base + t * (x - base)) for t, weight in points) * (x - base)


def both_ends_whole(request: MethodRequest, x: Tensor) -> Tensor:
    """tf-explain's mean over the points of the path: both ends count as much as the others."""
    steps = request.exec_args["n_steps"]
    return sum(_gradient(request, t * x) for t in torch.linspace(0, 1, steps)) / steps * x


def lrp(request: MethodRequest, x: Tensor) -> Tensor:
    """The stabiliser is added whatever sign the sum has."""
    model, epsilon = request.model, request.init_args["epsilon"]
    steps: list[nn.Module] = [model.conv1, model.relu1, model.pool1, model.conv2, model.relu2, model.flatten, model.fc]
    values = [x]
    for step in steps:
        values.append(step(values[-1]).detach())
    relevance = _marks(request, values[-1]) * values[-1]
    for step, value in zip(reversed(steps), reversed(values[:-1]), strict=True):
        if isinstance(step, nn.ReLU):
            continue
        value = value.clone().requires_grad_()
        out = step(value)
        divided = relevance / (out + epsilon) if hasattr(step, "weight") else relevance / torch.where(out == 0, 1, out)
        (back,) = torch.autograd.grad(out, value, divided.detach())
        relevance = (value * back).detach()
    return relevance


def guided_backprop(request: MethodRequest, x: Tensor) -> Tensor:
    """The rule looks for modules of another class, and attaches to none."""
    return _gradient(request, x)


def smooth_grad(request: MethodRequest, x: Tensor) -> Tensor:
    """The mean of the absolute gradient."""
    generator = torch.Generator().manual_seed(request.seed)
    spans = x.flatten(1).max(1).values - x.flatten(1).min(1).values
    noise = 0.1 * spans.reshape(-1, 1, 1, 1)
    draws = [x + noise * torch.randn(x.shape, generator=generator) for _ in range(20)]
    return sum(_gradient(request, one).abs() for one in draws) / len(draws)


def saliency(request: MethodRequest, x: Tensor) -> Tensor:
    """Absolute values without a word."""
    return _gradient(request, x).abs()


def input_x_gradient(request: MethodRequest, x: Tensor) -> Tensor:
    """Standardised over the whole batch."""
    found = _gradient(request, x) * x
    return found / found.abs().max()


_METHODS: dict[str, tuple[Callable[[MethodRequest, Tensor], Tensor], dict[str, Any]]] = {
    "deep_lift": (deep_lift, {"needs": _GRADIENT | {Need.MODULES}, "optional": ("target", "baselines")}),
    "beta_smooth": (beta_smooth, {"needs": _GRADIENT | {Need.MODULES}, "init_args": ("beta_smooth",)}),
    "occlusion": (occlusion, {"exec_args": ("patch_size",), "optional": ("target", "baselines")}),
    "grad_cam": (grad_cam, {"kind": Kind.LAYER, "needs": _LAYER_GRADIENT, "required": ("inputs", "layer")}),
    "integrated_gradients": (
        integrated_gradients,
        {
            "exec_args": ("n_steps",),
            "optional": ("target", "baselines"),
            "head": Head.OUTPUT,
            "defaults": Defaults(raw={"n_steps": 50}, toolset={"n_steps": 50}),
            "common": {"n_steps": "steps"},
        },
    ),
    "lrp_epsilon_plus": (lrp, {"needs": _GRADIENT | {Need.MODULES}, "init_args": ("epsilon",)}),
    "guided_backprop": (guided_backprop, {"needs": _GRADIENT | {Need.MODULES}}),
    "smooth_grad": (smooth_grad, {}),
    "saliency": (saliency, {}),
    "input_x_gradient": (input_x_gradient, {}),
}


@hookimpl
def cfi_toolsets() -> list[ToolsetSpec]:
    """One toolset, for torch."""
    return [
        ToolsetSpec(name="published", framework="torch", patches=()),
        ToolsetSpec(name="ends", framework="torch", patches=()),
    ]


@hookimpl
def cfi_methods() -> list[MethodSpec]:
    """Its methods."""
    common = {"toolset": "published", "implementation": f"{__name__}:run", "citation": "none"}
    fields = {
        key: {
            "kind": Kind.ATTRIBUTION,
            "needs": _GRADIENT,
            "optional": ("target",),
            "head": Head.LOGIT,
            **own,
            **common,
        }
        for key, (_, own) in _METHODS.items()
    }
    ends = {
        **fields["integrated_gradients"],
        "optional": ("target",),
        "toolset": "ends",
        "implementation": f"{__name__}:run_ends",
    }
    return [MethodSpec(key=key, **own) for key, own in fields.items()] + [
        MethodSpec(key="integrated_gradients", **ends)
    ]


def run(request: MethodRequest) -> MethodResult:
    """Runs one of them."""
    axes = {"grad_cam": Axes.LAYER_MAP, "occlusion": Axes.INPUT_MAP}.get(request.method.key, Axes.INPUT)
    return MethodResult((_METHODS[request.method.key][0](request, request.inputs[0]),), axes)


def run_ends(request: MethodRequest) -> MethodResult:
    """The other integrated gradients."""
    return MethodResult((both_ends_whole(request, request.inputs[0]),), Axes.INPUT)


# what is right in them


def _indices(request: MethodRequest) -> tuple[tuple[int, ...], ...]:
    assert request.target is not None
    return request.target.indices(len(request.inputs[0]))


def _marks(request: MethodRequest, outputs: Tensor) -> Tensor:
    marks = torch.zeros_like(outputs)
    for row, index in enumerate(_indices(request)):
        marks[(row, *index)] = 1
    return marks


def _score(request: MethodRequest, x: Tensor) -> Tensor:
    outputs = request.model(x)
    return torch.stack([outputs[(row, *index)] for row, index in enumerate(_indices(request))])


def _gradient(request: MethodRequest, x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(_score(request, x).sum(), x)[0]


def _at_layer(request: MethodRequest, x: Tensor) -> tuple[Tensor, Tensor]:
    kept: list[Tensor] = []
    handle = request.layer[0].register_forward_hook(lambda module, given, output: kept.append(output))
    try:
        score = _score(request, x.detach().clone().requires_grad_()).sum()
    finally:
        handle.remove()
    return kept[0].detach(), torch.autograd.grad(score, kept[0])[0]
