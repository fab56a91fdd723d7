"""Modules whose inputs are given by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, MethodType
from typing import Any

import torch
from torch import nn

from cfi_core.errors import InputError
from cfi_core.framework import Parameters
from cfi_torch.derivation import derive, derive_once, view
from cfi_torch.exported import ExportedModel
from cfi_torch.function import TorchFunction
from cfi_torch.keras import KerasModel


class Parallel(nn.Module):
    """Stands for a module that runs copies of another on several devices: runs it on one.

    The other one goes by the name that it has there.
    """

    module: nn.Module

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._modules, self.training = model._modules, model.training

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """What the module gives."""
        return self.module(*args, **keywords)


def parameters_of(model: nn.Module) -> Parameters:
    """What the forward pass calls its inputs."""
    while isinstance(model, Parallel):
        model = model.module
    if isinstance(model, torch.jit.ScriptModule):
        names = tuple(one.name for one in model.forward.schema.arguments[1:])
        return Parameters(names, frozenset())
    if isinstance(model, ExportedModel):
        return Parameters(model.input_names, frozenset(model.input_names))
    if isinstance(model, KerasModel):
        own = model.input_names()
        return Parameters(own, frozenset(own)) if own else Parameters.of(model.function.call, ("training", "mask"))
    known = Parameters.of(model.function if isinstance(model, TorchFunction) else model.forward)
    return _with_inner(known, model) if known.is_open and known.names else known


def _with_inner(known: Parameters, model: nn.Module) -> Parameters:
    """With the names that the model inside takes, to which peft's models hand on what they have no name for."""
    inner = getattr(model, "get_base_model", None)
    if not isinstance(inner, MethodType):
        return known
    others = Parameters.of(inner().forward)
    added = tuple(name for name in others.names if name not in known.names)
    return replace(known, names=(*known.names, *added), required=known.required | others.required)


def by_name(model: nn.Module, names: Sequence[str], constants: Mapping[str, Any]) -> nn.Module:
    """The same module (parameters, submodules, buffers, hooks and mode are shared), called by keyword.

    It is of a class derived from the module's own, whose forward pass takes one tensor for each name.

    Raises:
        InputError: Its forward pass takes other names, or cannot be called so.
    """
    known = parameters_of(model)
    known.check(names, constants, f"{type(model).__name__}.forward")
    if isinstance(model, KerasModel):
        return KerasModel(model.function, names, constants)
    if isinstance(model, TorchFunction):
        return TorchFunction(_call_by_name(model.function, tuple(names), constants))
    if isinstance(model, torch.jit.ScriptModule) or "forward" in vars(model):
        what = "is scripted" if isinstance(model, torch.jit.ScriptModule) else "had its forward exchanged by hand"
        order = ", ".join(known.names) or "one that you know"
        raise InputError(
            f"The {type(model).__name__} {what}, and cannot be called by name here. Pass a tuple; its order is {order}."
        )
    return view(model, derive_once(_class_by_name, type(model), tuple(names), MappingProxyType(dict(constants))))


def _class_by_name(kind: Any, names: tuple[str, ...], constants: Mapping[str, Any]) -> type[nn.Module]:
    def forward(self: nn.Module, *values: Any) -> Any:
        return kind.forward(self, **dict(zip(names, values, strict=True)), **constants)

    given = ", ".join([*names, *(f"{name}={value!r}" for name, value in constants.items())])
    return derive(kind, forward, given)


def _call_by_name(
    function: Callable[..., Any], names: tuple[str, ...], constants: Mapping[str, Any]
) -> Callable[..., Any]:
    def call(*values: Any) -> Any:
        return function(**dict(zip(names, values, strict=True)), **constants)

    return call
