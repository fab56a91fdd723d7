"""Toolsets for functions of arrays, right ones and faulty ones, with closed forms on linear functions.

`weigh` gives each element its weight times what it has more than the baseline: the answer that every axiom demands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Completeness, Defaults, Kind, MethodSpec, Need, ToolsetSpec, Total

_RAW = {"absolute": False, "unit_range": False}
_OWN = {"absolute": True, "unit_range": True}


def weigh(request: MethodRequest) -> np.ndarray:
    """By covering one element after the other."""
    inputs = request.inputs[0]
    base = np.broadcast_to(0 if request.baselines is None else request.baselines[0], inputs.shape)
    full, values = _score(request, inputs), np.zeros(inputs.shape)
    for place in np.ndindex(inputs.shape[1:]):
        covered = inputs.copy()
        covered[(slice(None), *place)] = base[(slice(None), *place)]
        values[(slice(None), *place)] = full - _score(request, covered)
    return values


def _score(request: MethodRequest, inputs: np.ndarray) -> np.ndarray:
    assert request.target is not None
    indices = request.target.indices(len(inputs))
    return np.array([row[index] for row, index in zip(request.model(inputs), indices, strict=True)])


def plain(request: MethodRequest) -> np.ndarray:
    values = weigh(request)
    return np.maximum(values, 0) if request.exec_args.get("positive") else values


def tidy(request: MethodRequest) -> np.ndarray:
    values = weigh(request)
    values = np.abs(values) if request.exec_args["absolute"] else values
    rows = values.reshape(len(values), -1)
    low, high = (limit.reshape(-1, *(1,) * (values.ndim - 1)) for limit in (rows.min(1), rows.max(1)))
    return (values - low) / (high - low) if request.exec_args["unit_range"] else values


def coarse(request: MethodRequest) -> np.ndarray:
    """Two steps are half of it, four three quarters, …: an approximation."""
    return weigh(request) * (1 - 1 / request.exec_args["steps"])


def noisy(request: MethodRequest) -> np.ndarray:
    values = weigh(request)
    draws = np.random.default_rng(request.seed).normal(size=(request.exec_args["draws"], *values.shape))
    return values + 0.1 * draws.mean(0)


def biased(request: MethodRequest) -> np.ndarray:
    return noisy(request) + 1


def exchanged(request: MethodRequest) -> np.ndarray:
    """The first two elements get each other's."""
    values = weigh(request)
    return values[:, [1, 0, *range(2, values.shape[1])]]


def mixed(request: MethodRequest) -> np.ndarray:
    """Every sample gets a share of the others'."""
    values = weigh(request)
    return values + 0.1 * values.mean(0)


def spilt(request: MethodRequest) -> np.ndarray:
    """A tenth of what each element has goes to the next one."""
    values = weigh(request)
    return 0.9 * values + 0.1 * np.roll(values, 1, axis=1)


def short(request: MethodRequest) -> np.ndarray:
    """The largest value of each sample is cut off."""
    values = weigh(request)
    return np.minimum(values, 0.9 * values.max(1, keepdims=True))


def powered(request: MethodRequest) -> np.ndarray:
    return weigh(request) * (request.exec_args.get("power") or 1.0)


def deaf(request: MethodRequest) -> np.ndarray:
    """Takes the number, and forgets it."""
    return weigh(request) + 0.01 * weigh(request) ** 2


def _alike(**raw: Any) -> Defaults:
    return Defaults(raw=raw, toolset=raw)


_STEPS = {"exec_args": ("steps",), "defaults": _alike(steps=8), "common": {"steps": "steps"}}
_DRAWS = {"exec_args": ("draws",), "defaults": _alike(draws=4), "common": {"draws": "samples"}}
_METHODS: Mapping[str, tuple[Callable[[MethodRequest], np.ndarray], dict[str, Any]]] = {
    "plain": (plain, {"exec_args": ("positive",), "defaults": _alike(positive=False)}),
    "complete": (weigh, {"completeness": Completeness(total=Total.DIFFERENCE)}),
    "tidy": (tidy, {"exec_args": tuple(_RAW), "defaults": Defaults(raw=_RAW, toolset=_OWN)}),
    "coarse": (coarse, _STEPS),
    "noisy": (noisy, _DRAWS),
    "biased": (biased, _DRAWS),
    "exchanged": (exchanged, {}),
    "mixed": (mixed, {}),
    "spilt": (spilt, {}),
    "short": (short, {}),
    "powered": (powered, {"exec_args": ("power",)}),
    "deaf": (deaf, {"exec_args": ("power",)}),
}


class Toolsets:
    """The plugin."""

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name=name, framework="numpy", patches=()) for name in _METHODS]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        return [
            MethodSpec(
                key="weigh",
                toolset=name,
                kind=Kind.ATTRIBUTION,
                needs=frozenset({Need.FORWARD}),
                implementation=f"{__name__}:run",
                optional=("target", "baselines"),
                **fields,
            )
            for name, (_, fields) in _METHODS.items()
        ]


def run(request: MethodRequest) -> MethodResult:
    function, _ = _METHODS[request.method.toolset]
    return MethodResult((function(request),), Axes.INPUT, applied=dict(request.exec_args))
