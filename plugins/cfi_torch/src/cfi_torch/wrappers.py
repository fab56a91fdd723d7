"""What people put around a module, taken off: methods and partial calls, parallel copies, compilation, offloading."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from cfi_torch.derivation import derive, derive_once, view
from cfi_torch.naming import Parallel

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def unwrap(model: Any) -> Any:
    """The module that does the work, with the layers that the user knows by name; anything else as it is."""
    # Compiled code has the hooks of its first run built in, so layers could not be read from it.
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return Parallel(model)
    return model if isinstance(model, nn.Module) else _of_method(model)


def parallel_parts(model: nn.Module, memo: dict[int, Any]) -> None:
    """Makes copies of a model have plain modules where it runs parts of itself on several devices or processes.

    A copy of a distributed module would talk to the other processes.

    Args:
        model: May hold such modules.
        memo: Of `copy.deepcopy`.
    """
    for module in model.modules():
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            memo[id(module)] = copy.deepcopy(Parallel(module), memo)


def is_offloaded(model: nn.Module) -> bool:
    """Whether hooks of accelerate bring the weights when a module runs."""
    return any(_offloads(getattr(module, "_hf_hook", None)) for module in model.modules())


def with_weights(twin: nn.Module) -> nn.Module:
    """A copy of an offloaded model that holds its weights itself."""
    if is_offloaded(twin):
        sys.modules["accelerate.hooks"].remove_hook_from_module(twin, recurse=True)
    return twin


def _offloads(hook: Any) -> bool:
    return bool(getattr(hook, "offload", False)) or any(map(_offloads, getattr(hook, "hooks", ())))


def _of_method(function: Any) -> Any:
    """A method of a module, or a partial call of one, as the module with that forward pass; otherwise the function."""
    args: tuple[Any, ...] = ()
    inner: Any = function
    keywords: dict[str, Any] = {}
    while isinstance(inner, functools.partial):
        inner, args, keywords = inner.func, (*inner.args, *args), {**inner.keywords, **keywords}
    if isinstance(inner, nn.Module):
        inner = inner.forward
    name = getattr(inner, "__name__", "")
    if args and isinstance(args[0], nn.Module) and getattr(type(args[0]), name, None) is inner:
        inner, args = getattr(args[0], name), args[1:]
    module = getattr(inner, "__self__", None)
    if not inspect.ismethod(inner) or not isinstance(module, nn.Module) or _is_changed(module):
        return function
    method = inner.__func__
    if method is type(module).forward and not args and not keywords:
        return module
    return view(module, derive_once(_class_of_method, type(module), (method, args), keywords))


def _is_changed(module: nn.Module) -> bool:
    """Whether the module's own call does something else than its class says, which a method does not do."""
    return "forward" in vars(module) or any(vars(module).get(table) for table in _HOOKS)


def _class_of_method(
    kind: type[nn.Module], how: tuple[Callable[..., Any], tuple[Any, ...]], keywords: Mapping[str, Any]
) -> type[nn.Module]:
    """With a method, and the arguments that are given to it in front, as its forward pass."""
    method, args = how

    @functools.wraps(method)
    def forward(self: nn.Module, *values: Any, **named: Any) -> Any:
        return method(self, *args, *values, **{**keywords, **named})

    parameters = list(inspect.signature(method).parameters.values())
    left = [one for one in (parameters[0], *parameters[1 + len(args) :]) if one.name not in keywords]
    forward.__signature__ = inspect.Signature(left)  # type: ignore[attr-defined]
    return derive(kind, forward, method.__name__)
