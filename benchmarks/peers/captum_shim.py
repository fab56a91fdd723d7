"""Captum's attribution classes, made to repeat each of their calls through CFI."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import captum.attr
import torch
from calls import Asked, Benchmark

import cfi_core as cfi

OTHER = "tensorflow"
TESTS = "tests/attr"


def install(benchmark: Benchmark) -> None:
    """Replaces constructor and `attribute` of every class that CFI offers, in this process."""
    for kind in _classes():
        kind.__init__ = _remembering(kind, kind.__init__)
        if kind is captum.attr.NoiseTunnel or "attribute" in vars(kind):
            kind.attribute = _repeating(kind, kind.attribute, benchmark)


def _classes() -> list[type]:
    """Those of all methods of the toolset; the provenance of each names its class, so the plugin's table is asked."""
    from cfi_captum.table import METHODS

    return [getattr(captum.attr, method.captum_class) for method in METHODS.values()]


@functools.cache
def _keys() -> dict[str, str]:
    from cfi_captum.table import METHODS

    return {method.captum_class: key for key, method in METHODS.items()}


def _remembering(kind: type, original: Any) -> Any:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def constructor(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is kind:
            self.__dict__.setdefault(
                "_cfi_given", dict(list(signature.bind(self, *args, **kwargs).arguments.items())[1:])
            )
        original(self, *args, **kwargs)

    return constructor


def _repeating(kind: type, original: Any, benchmark: Benchmark) -> Any:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def attribute(self: Any, *args: Any, **kwargs: Any) -> Any:
        if benchmark.inside or type(self) is not kind or "_cfi_given" not in vars(self):
            return original(self, *args, **kwargs)
        given = dict(list(signature.bind(self, *args, **kwargs).arguments.items())[1:])
        given |= given.pop("kwargs", {})
        benchmark.inside = True  # one method uses another
        failure = result = None
        try:
            result = original(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the test gets it
            failure = error
        finally:
            benchmark.inside = False
        delta = bool(given.get("return_convergence_delta"))
        asked = _asked(self, given, delta)
        if asked is not None:
            benchmark.repeat(asked, lambda: _flat(original(self, *args, **kwargs)), failure)
        if failure is not None:
            raise failure
        return result

    return attribute


def _asked(explainer: Any, given: dict[str, Any], delta: bool) -> Asked | None:
    key = _keys()[type(explainer).__name__]
    constructor = dict(explainer._cfi_given)
    if key == "noise_tunnel":
        inner = constructor["attribution_method"]
        if type(inner).__name__ not in _keys() or "_cfi_given" not in vars(inner):
            return None
        constructor = {**inner._cfi_given, "method": _keys()[type(inner).__name__]}
    model = constructor.pop("forward_func", None) or constructor.pop("model", None)
    constructor.pop("model", None)

    def read(attribution: cfi.Attribution) -> list[Any]:
        values = [*_flat(attribution.values)]
        return values + ([*_flat(attribution.extras["convergence_delta"])] if delta else [])

    return Asked(model, key, "captum", constructor, given, read)


def _flat(values: Any) -> list[Any]:
    return list(_leaves(values))


def _leaves(values: Any) -> Iterator[Any]:
    if isinstance(values, tuple | list):
        for value in values:
            yield from _leaves(value)
    else:
        yield values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
