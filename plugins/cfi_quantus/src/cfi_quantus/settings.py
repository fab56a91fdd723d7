"""What the user asks of a metric, in Quantus's own words, checked by name against Quantus's own signatures."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np

from cfi_core.errors import ArgumentError
from cfi_quantus.library import quantus
from cfi_quantus.specs import QuantusMetric, find_metric

_CALL = ("softmax", "batch_size", "custom_batch")
"""Arguments of the call that are the user's; CFI gives all others."""

_GIVEN = {
    "disable_warnings": "Quantus's notes are left out",
    "display_progressbar": "there is no progress bar",
    "default_plot_func": "nothing is drawn",
    "s_batch": "pass masks=",
    "a_batch": "they are the attributions",
    "x_batch": "pass inputs=",
    "y_batch": "pass target=",
    "channel_first": "the axes are known",
    "explain_func": "CFI explains, with the method of the attributions",
    "explain_func_kwargs": "pass explain= with arguments of cfi.attribute",
    "model_predict_kwargs": "make them part of the model",
    "device": "the model stays on its own",
    "return_sample_correlation": "Quantus has renamed it to return_average_correlation",
}
_AVERAGES = ("return_average_correlation", "return_last_correlation")


@dataclass(frozen=True, eq=False)
class Setting:
    """One metric with its arguments.

    Attributes:
        label: What the user calls it.
        metric: The metric.
        init: Arguments of Quantus's constructor, its defaults left out.
        softmax: Whether probabilities are measured; None: as Quantus has it, if the model has several outputs.
        batch_size: Samples at a time; None: as the call has it.
        custom_batch: What Focus takes besides.
        aggregate: Puts the scores of all samples together; None: they stay apart.
        average: Of randomised layers: `"average"` or `"last"`; None: all.
    """

    label: str
    metric: QuantusMetric
    init: Mapping[str, Any]
    softmax: bool | None = None
    batch_size: int | None = None
    custom_batch: Any = None
    aggregate: Any = None
    average: str | None = None

    @property
    def quantus_class(self) -> Any:
        """The class in quantus."""
        return getattr(quantus, self.metric.class_name)

    def takes(self, name: str) -> bool:
        """Whether the constructor has an argument of that name."""
        return name in _parameters(self.quantus_class)

    def value(self, name: str) -> Any:
        """Of an argument of the constructor, Quantus's default if it is not given."""
        if name in self.init:
            return self.init[name]
        return inspect.signature(self.quantus_class.__init__).parameters[name].default

    @property
    def wants_softmax(self) -> bool:
        """What Quantus measures where nothing is said."""
        default = inspect.signature(self.quantus_class.__call__).parameters["softmax"].default
        return bool(default) if self.softmax is None else self.softmax

    def describe(self) -> dict[str, str]:
        """Arguments, Quantus's own defaults included, in words."""
        names = [name for name in _parameters(self.quantus_class) if name not in _GIVEN]
        unused = ("return_aggregate", "aggregate_func", *_AVERAGES)
        return {name: _word(self.value(name)) for name in names if name not in unused}


def read_metrics(metrics: Any) -> tuple[Setting, ...]:
    """The metrics that the user asks for.

    Args:
        metrics: A name, a pair of a name and a dict of arguments, a list of such, or a mapping from labels to them.

    Raises:
        ArgumentError: A metric or an argument is not known, or CFI gives it; two metrics have one label.
    """
    if isinstance(metrics, Mapping):
        asked = [(str(label), *_pair(given)) for label, given in metrics.items()]
    else:
        several = not (isinstance(metrics, str) or _is_pair(metrics))
        given = list(metrics) if several and isinstance(metrics, Iterable) else [metrics]
        pairs = map(_pair, given)
        asked = [(find_metric(name).name, name, arguments) for name, arguments in pairs]
    if not asked:
        raise ArgumentError("metrics is empty; cfi_quantus.metrics() lists those of Quantus.")
    labels = [label for label, *_ in asked]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ArgumentError(f"{', '.join(twice)} stand twice in metrics: pass a mapping from labels to metrics.")
    return tuple(_setting(label, find_metric(name), arguments) for label, name, arguments in asked)


def _is_pair(given: Any) -> bool:
    return isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[1], Mapping)


def _pair(given: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(given, str):
        return given, {}
    if _is_pair(given):
        return given[0], given[1]
    raise ArgumentError(f"A metric is a name or a pair of a name and a dict of arguments, not {given!r}.")


def _setting(label: str, metric: QuantusMetric, arguments: Mapping[str, Any]) -> Setting:
    parameters = _parameters(getattr(quantus, metric.class_name))
    for name in arguments:
        if name in _GIVEN:
            raise ArgumentError(f"{label} takes no {name!r} here: {_GIVEN[name]}.")
        if name not in (*parameters, *_CALL) or (name == "custom_batch" and metric.name != "Focus"):
            known = sorted({*parameters, "softmax", "batch_size"} - {*_GIVEN})
            near = ", ".join(get_close_matches(name, known, n=3)) or ", ".join(known)
            raise ArgumentError(f"Quantus's {metric.class_name} takes no {name!r}. It takes {near}.")
    init = {name: _copy(value) for name, value in arguments.items() if name not in _CALL}
    aggregate = (init.pop("aggregate_func", None) or np.mean) if init.pop("return_aggregate", False) else None
    init.pop("aggregate_func", None)
    averages = [name for name in _AVERAGES if init.pop(name, False)]
    if len(averages) > 1 or (averages[:1] == [_AVERAGES[0]] and init.get("skip_layers")):
        raise ArgumentError(f"{label}: {' and '.join(_AVERAGES)} exclude each other, and the former skip_layers.")
    return Setting(
        label=label,
        metric=metric,
        init=init,
        softmax=arguments.get("softmax"),
        batch_size=arguments.get("batch_size"),
        custom_batch=arguments.get("custom_batch"),
        aggregate=aggregate,
        average=averages[0].split("_")[1] if averages else None,
    )


def _parameters(quantus_class: Any) -> list[str]:
    names = list(inspect.signature(quantus_class.__init__).parameters)
    return [name for name in names if name not in ("self", "kwargs")]


def _copy(value: Any) -> Any:
    """Quantus writes into what it is given."""
    return copy.deepcopy(value) if isinstance(value, dict | list | np.ndarray) else value


def _word(value: Any) -> str:
    if isinstance(value, partial):
        return f"{_word(value.func)}({', '.join(f'{name}={one!r}' for name, one in value.keywords.items())})"
    return getattr(value, "__name__", None) or repr(value)
