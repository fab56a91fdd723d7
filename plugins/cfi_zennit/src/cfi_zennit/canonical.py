"""The form of a model that Zennit's rules attach to, made by looking at what runs and not at how it was written.

Zennit's own canonizers find batch norms by the order in which modules were defined and sums by the class of
torchvision's blocks. Here both come from the graph of one forward pass.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from zennit.types import Convolution, Linear

from cfi_torchgraph.nodes import base_name
from cfi_torchgraph.operations import BATCH_NORM, WEIGHTED
from cfi_zennit.reductions import AsModules
from cfi_zennit.trace import Call, Trace

_SOURCES: dict[type, tuple[str, ...]] = {WeightNorm: ("g", "v"), SpectralNorm: ("orig",)}


class InTurn(nn.Module):
    """Stands for a module that a model calls several times: each call goes to a module of its own.

    Zennit keeps one activation for each module, that of its last call.
    """

    def __init__(self, module: nn.Module, times: int) -> None:
        super().__init__()
        self.turns = nn.ModuleList([module, *(_likeness(module) for _ in range(1, times))])
        self.next = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The next module's output; after the last comes the first again."""
        turn = self.turns[self.next % len(self.turns)]
        self.next += 1
        return turn(*args, **kwargs)


@dataclass(frozen=True)
class Changes:
    """What was changed, by names of the user's model.

    Attributes:
        merged: For each batch norm that was merged, the linear layer that took it in.
        reductions: Names of the sums and means that became modules.
        repeated: Modules that run several times, and how often.
    """

    merged: dict[str, str] = field(default_factory=dict)
    reductions: tuple[str, ...] = ()
    repeated: dict[str, int] = field(default_factory=dict)


class Canonical(nn.Module):
    """A model whose sums and means are modules, and whose modules are called once each.

    Attributes:
        model: The model, changed.
        names: Of all modules, what they are called in the user's model, and what stands for sums and means.
        reductions: Modules for sums and means.
        changes: What was changed.
        outputs: What the model returned last.
    """

    def __init__(
        self, model: nn.Module, names: dict[nn.Module, str], changes: Changes, reductions: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.model = model
        self.reductions = nn.ModuleList(reductions)
        self.names, self.changes = names, changes
        self.outputs: Any = None

    def forward(self, *inputs: Any) -> Any:
        """Runs the model, its modules starting over."""
        for module in self.model.modules():
            if isinstance(module, InTurn):
                module.next = 0
        with AsModules(self.reductions):
            self.outputs = self.model(*inputs)
        return self.outputs


def canonize(model: nn.Module, seen: Trace) -> Canonical:
    """Changes a model, which must be a copy with weights of its own, after what was seen of it in one pass."""
    changes = plan(model, seen)
    names = {module: name for name, module in model.named_modules()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # sums are found by what depends on the inputs
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # rules keep inputs, which must stay as they are
    for batch_norm, linear in changes.merged.items():
        merge(model.get_submodule(linear), model.get_submodule(batch_norm))
    for name, times in changes.repeated.items():
        module = model.get_submodule(name)
        turn = InTurn(module, times)
        names |= dict.fromkeys(turn.turns, name)
        _replace(model, module, turn)
    names |= dict(zip(seen.modules, changes.reductions, strict=True))
    return Canonical(model, names, changes, seen.modules)


def has_computed_weights(module: nn.Module) -> bool:
    """Whether weights are computed from others before each call (weight or spectral norm, any parametrisation).

    Zennit's rules change parameters, which would be these others, or none.
    """
    return parametrize.is_parametrized(module) or any(type(one) in _SOURCES for one in _hooks(module).values())


def fix_weights(model: nn.Module) -> None:
    """Makes computed weights parameters, on a copy with weights of its own."""
    for module in list(model.modules()):
        values: dict[str, Tensor] = {}
        if parametrize.is_parametrized(module):
            values |= {name: getattr(module, name) for name in module.parametrizations}
            # Not by torch's own function, which takes the weight from the class, and so from the user's model.
            module.__class__ = type(module).__mro__[1]
            del module._modules["parametrizations"]
        for key, hook in list(_hooks(module).items()):
            if type(hook) in _SOURCES:
                values[hook.name] = vars(module).pop(hook.name)
                del module._forward_pre_hooks[key]
                for source in _SOURCES[type(hook)]:
                    del module._parameters[f"{hook.name}_{source}"]
        for name, value in values.items():
            setattr(module, name, nn.Parameter(value.detach().clone(), False))


def _hooks(module: nn.Module) -> dict[int, Any]:
    return dict(module._forward_pre_hooks)


def plan(model: nn.Module, seen: Trace) -> Changes:
    """What is to be changed."""
    several = {module: calls for module, calls in seen.calls_of.items() if len(calls) > 1}
    return Changes(
        merged={batch_norm.name: linear.name for batch_norm, linear in _pairs(model, seen)},
        reductions=tuple(map(seen.name_of_reduction, range(len(seen.reductions)))),
        repeated={calls[0].name: len(calls) for module, calls in several.items() if not list(module.children())},
    )


def merge(linear: nn.Module, batch_norm: nn.Module) -> None:
    """Takes a batch norm in inference mode into the linear layer in front of it, and leaves the identity behind.

    As Zennit's `MergeBatchNorm`, which gives wrong weights for grouped transposed convolutions, fails without affine
    parameters, and leaves a factor of `1 / sqrt(1 + eps)` behind.
    """
    weight, bias = linear.weight, linear.bias
    assert isinstance(weight, Tensor) and isinstance(batch_norm, _BatchNorm)
    mean, variance = batch_norm.running_mean, batch_norm.running_var
    assert mean is not None and variance is not None
    scale = (variance.double() + batch_norm.eps).rsqrt()
    if batch_norm.weight is not None:
        scale = scale * batch_norm.weight.detach().double()
    shift = -mean.double() if not isinstance(bias, Tensor) else bias.detach().double() - mean.double()
    shift = shift * scale
    if batch_norm.bias is not None:
        shift = shift + batch_norm.bias.detach().double()
    linear.weight = nn.Parameter((weight.detach().double() * _along(scale, linear)).to(weight.dtype), False)
    linear.bias = nn.Parameter(shift.to(weight.dtype), False)
    batch_norm.running_mean, batch_norm.running_var = torch.zeros_like(mean), torch.ones_like(variance)
    batch_norm.weight = batch_norm.bias = None
    batch_norm.eps = 0.0


def _along(scale: Tensor, linear: nn.Module) -> Tensor:
    """A number for each output channel, laid along the weight."""
    weight = linear.weight
    assert isinstance(weight, Tensor)
    if not isinstance(linear, _ConvTransposeNd):
        return scale.reshape(-1, *[1] * (weight.dim() - 1))
    groups = scale.reshape(linear.groups, 1, -1)
    of_inputs = groups.expand(linear.groups, linear.in_channels // linear.groups, -1)
    return of_inputs.reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))


def _pairs(model: nn.Module, seen: Trace) -> Iterator[tuple[Call, Call]]:
    """Every batch norm that can be merged, and the linear layer in front of it in the graph."""
    owners = Counter(id(one) for module in model.modules() for one in module._parameters.values() if one is not None)
    linear = [call for call in seen.calls if _is_plain_linear(call, seen, owners)]
    for call in seen.calls:
        if not _is_plain_batch_norm(call, seen):
            continue
        for before in linear:
            feeds = before.outputs == call.inputs and all(map(call.holds, seen.consumers[call.inputs[0]]))
            channels = isinstance(before.module, Convolution) or before.ranks == (2,)
            if feeds and channels and before.module.weight.dtype == call.module.running_mean.dtype:
                yield call, before


def _is_plain_linear(call: Call, seen: Trace, owners: Counter[int]) -> bool:
    """Whether a call is the only one of a linear layer that has its weights for itself and is nothing more."""
    module = call.module
    return (
        isinstance(module, Linear)
        and len(seen.calls_of[module]) == 1
        and len(call.outputs) == 1
        and base_name(call.outputs[0][0]) in WEIGHTED  # a hook of the user's may have changed what it computes
        and not parametrize.is_parametrized(module)
        and all(owners[id(one)] == 1 for one in module._parameters.values() if one is not None)
        and isinstance(module._parameters.get("weight"), Tensor)
    )


def _is_plain_batch_norm(call: Call, seen: Trace) -> bool:
    """Whether a call is the only one of a batch norm with statistics of its own."""
    module = call.module
    return (
        isinstance(module, _BatchNorm)
        and not module.training
        and module.running_mean is not None
        and module.running_var is not None
        and len(seen.calls_of[module]) == 1
        and len(call.inputs) == 1
        and not parametrize.is_parametrized(module)
        and base_name(call.outputs[0][0]) in BATCH_NORM
    )


def _likeness(module: nn.Module) -> nn.Module:
    """A module with the same weights, with places for hooks of its own where those of the user's are."""
    made = copy.copy(module)
    for name, value in vars(module).items():
        if name == "_parameters" or name.endswith("_hooks"):
            vars(made)[name] = copy.copy(value)
    return made


def _replace(model: nn.Module, module: nn.Module, other: nn.Module) -> None:
    """Puts another module in all places of a module."""
    for parent in list(model.modules()):
        if parent is not other and not isinstance(parent, InTurn):
            for key, child in parent._modules.items():
                if child is module:
                    parent._modules[key] = other
