"""Random numbers of a run from generators of its own, where captum draws from torch's and numpy's global ones.

The global ones belong to the user's other threads, too. The numbers are those that captum's users get who seed them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from inspect import isfunction, signature
from types import ModuleType
from typing import Any

import captum.attr
import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

DRAWING = frozenset(
    {
        *("noise_tunnel", "gradient_shap", "layer_gradient_shap", "neuron_gradient_shap", "shapley_value_sampling"),
        *("lime", "kernel_shap", "feature_permutation", "layer_feature_permutation"),
    }
)
"""Keys of the methods that draw."""

_TAKE_GENERATOR = frozenset(
    {
        *(torch.normal, torch.randperm, torch.bernoulli, torch.multinomial, torch.rand, torch.randn, torch.randint),
        # Lime and Kernel SHAP train a linear module, with batches of a DataLoader, which draws a seed.
        *(torch.Tensor.random_, torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.bernoulli_),
        *(init for init in vars(nn.init).values() if isfunction(init) and "generator" in signature(init).parameters),
    }
)
# Captum's modules that draw from numpy, each after those that it takes classes and functions from.
_MODULES = {
    "captum._utils.common": {},
    "captum.attr._core.noise_tunnel": {"_expand_and_update_baselines": "captum._utils.common"},
    "captum.attr._core.gradient_shap": {"NoiseTunnel": "captum.attr._core.noise_tunnel"},
    "captum.attr._core.layer.layer_gradient_shap": {"NoiseTunnel": "captum.attr._core.noise_tunnel"},
    "captum.attr._core.neuron.neuron_gradient_shap": {"GradientShap": "captum.attr._core.gradient_shap"},
}
_numpys_of_run: ContextVar[np.random.RandomState] = ContextVar("numpys_of_run")


@contextmanager
def own_generators(seed: int) -> Iterator[None]:
    """What this thread draws inside comes from generators of its own, as the classes of `captum_class` do it."""
    token = _numpys_of_run.set(np.random.RandomState(seed % 2**32))
    try:
        with _OwnGenerators(seed):
            yield
    finally:
        _numpys_of_run.reset(token)


def captum_class(name: str) -> Any:
    """A class of `captum.attr`; of one that draws from numpy, a copy that draws from the generator of the run."""
    return next((vars(module)[name] for module in _copies() if _defines(module, name)), getattr(captum.attr, name))


def make_explainer(name: str, model: Any, init_args: Mapping[str, Any]) -> Any:
    """An explainer of that class of `captum.attr`."""
    explainer = captum_class(name)(model, **init_args)
    if name == "Lime" and init_args.get("interpretable_model") is None:
        # Its Lasso draws a number from numpy's generator, of which it makes no use.
        vars(explainer.interpretable_model).get("construct_kwargs", {}).setdefault("random_state", 0)
    return explainer


def _defines(module: ModuleType, name: str) -> bool:
    return getattr(vars(module).get(name), "__module__", "") == module.__name__


@cache
def _copies() -> tuple[ModuleType, ...]:
    """The modules once more, known to nobody else."""
    copies: dict[str, ModuleType] = {}
    for name, taken in _MODULES.items():
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        copies[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        vars(module).update({word: vars(copies[origin])[word] for word, origin in taken.items()})
        if "np" in vars(module):
            vars(module)["np"] = _Numpy()
    return tuple(copies.values())


class _Numpy:
    """Stands for numpy in a copy of a module."""

    def __getattr__(self, name: str) -> Any:
        return _numpys_of_run.get(np.random) if name == "random" else getattr(np, name)


class _OwnGenerators(TorchFunctionMode):
    """Hands torch's functions a generator for the device that they draw on; a mode is its thread's alone."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _TAKE_GENERATOR and kwargs.get("generator") is None:
            tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
            like = next(tensors, None)
            device = torch.device(kwargs.get("device") or "cpu") if like is None else like.device
            kwargs = {**kwargs, "generator": self._generator(device)}
        return func(*args, **kwargs)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]
