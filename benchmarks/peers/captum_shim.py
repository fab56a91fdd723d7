"""Captum's attribution classes, made to repeat each of their calls through CFI."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator, Mapping
from functools import partial
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
        kind.attribute = _repeating(kind, kind.attribute, benchmark)
    # It uses one of the others, on inputs that are none.
    loader = captum.attr.DataLoaderAttribution
    loader.attribute = _repeating(loader, loader.attribute, benchmark)


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
        if benchmark.inside or type(self) is not kind:
            return original(self, *args, **kwargs)
        benchmark.inside = True  # one method uses another
        failure = result = None
        try:
            result = original(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the test gets it
            failure = error
        finally:
            benchmark.inside = False
        asked = None
        with contextlib.suppress(TypeError):  # arguments that are none of the library's
            given = dict(list(signature.bind(self, *args, **kwargs).arguments.items())[1:])
            of_the_inner = given.pop("kwargs", {})
            asked = _asked(self, {**given, **of_the_inner})
        if asked is not None:
            model = asked.model
            again = partial(_again, model, original, self, result)
            benchmark.repeat(asked, again, failure)
        if failure is not None:
            raise failure
        return result

    return attribute


def _again(model: Any, original: Any, explainer: Any, result: Any, words: Mapping[str, Any], double: bool) -> list[Any]:
    """The library's values in inference mode, as CFI explains all models; those of the test, if it runs only once."""
    training = [module for module in model.modules() if module.training] if isinstance(model, torch.nn.Module) else []
    for module in training:
        module.training = False
    if double:
        model.double()
    try:
        return _flat(original(explainer, **words))
    except Exception:  # noqa: BLE001 - LRP takes away rules, a forward function may use up its graph
        return _flat(result)
    finally:
        if double:
            model.float()  # each weight as it was
        for module in training:
            module.training = True


def _asked(explainer: Any, given: dict[str, Any]) -> Asked | None:
    if "_cfi_given" not in vars(explainer):
        return None
    key, delta = _keys()[type(explainer).__name__], bool(given.get("return_convergence_delta"))
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
