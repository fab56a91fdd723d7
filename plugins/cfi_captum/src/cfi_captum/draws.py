"""Random numbers of a run from generators of its own, where captum draws from torch's and numpy's global ones.

The global ones belong to the user's other threads, too. The numbers are those that captum's users get who seed them.
"""

from __future__ import annotations

import importlib.util
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any

import captum.attr
import numpy as np

from cfi_torchgraph.draws import OwnGenerators

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
        with OwnGenerators(seed):
            yield
    finally:
        _numpys_of_run.reset(token)


_heard: ContextVar[Callable[[Any, int, Any, int], None] | None] = ContextVar("heard", default=None)


@contextmanager
def hear_tunnels(heard: Callable[[Any, int, Any, int], None]) -> Iterator[None]:
    """Tells what this thread's noise tunnels average inside: the list of a tunnel's sums, output, values, draws."""
    token = _heard.set(heard)
    try:
        yield
    finally:
        _heard.reset(token)


def captum_class(name: str) -> Any:
    """A class of `captum.attr`; of one that draws from numpy, a copy that draws from the generator of the run."""
    return next((vars(module)[name] for module in _copies() if _defines(module, name)), getattr(captum.attr, name))


def make_explainer(name: str, model: Any, init_args: Mapping[str, Any]) -> Any:
    """An explainer of that class of `captum.attr`."""
    if name in ("Lime", "KernelShap"):
        _load_regressions()
    explainer = captum_class(name)(model, **init_args)
    if name == "Lime" and init_args.get("interpretable_model") is None:
        # Its Lasso draws a number from numpy's generator, of which it makes no use.
        vars(explainer.interpretable_model).get("construct_kwargs", {}).setdefault("random_state", 0)
    return explainer


@cache
def _load_regressions() -> None:
    """Before captum does: scikit-learn loads what draws from Python's generator while it is loaded (rich's styles).

    What other threads draw meanwhile is more than that, and stays drawn.
    """
    state = random.getstate()
    with suppress(ImportError):  # captum tells what it lacks
        importlib.import_module("sklearn.linear_model")
    if threading.active_count() == 1:
        random.setstate(state)


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
        if _defines(module, "NoiseTunnel"):
            _let_hear(module.NoiseTunnel)
        if "np" in vars(module):
            vars(module)["np"] = _Numpy()
    return tuple(copies.values())


def _let_hear(tunnel: Any) -> None:
    """Of a copy of the class, which nobody else has."""
    update = tunnel._update_sum_attribution_and_sq

    def heard_update(sums: list[Any], squares: list[Any], values: Any, place: int, draws: int) -> None:
        if heard := _heard.get():
            heard(sums, place, values, draws)
        update(sums, squares, values, place, draws)

    tunnel._update_sum_attribution_and_sq = staticmethod(heard_update)


class _Numpy:
    """Stands for numpy in a copy of a module."""

    def __getattr__(self, name: str) -> Any:
        return _numpys_of_run.get(np.random) if name == "random" else getattr(np, name)
