"""Scores as a dataset: one variable per metric, over methods, samples and whatever axes the metric has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from cfi_quantus.measurement import Measured
from cfi_quantus.settings import Setting

_ARROWS = {"higher": "↑", "lower": "↓"}


def gather(
    settings: tuple[Setting, ...], measured: Mapping[str, Mapping[str, Measured]], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """All scores.

    Args:
        settings: The metrics, in the user's order.
        measured: Of each metric's label, the scores of each method.
        attrs: Of the dataset.
    """
    variables = {setting.label: _variable(setting, measured[setting.label]) for setting in settings}
    dataset = xr.Dataset(variables, attrs=dict(attrs))
    if "sample" in dataset.sizes:
        dataset = dataset.assign_coords(sample=np.arange(dataset.sizes["sample"]))
    return dataset.assign_coords(explanation=list(next(iter(measured.values()))))


def _variable(setting: Setting, of_methods: Mapping[str, Measured]) -> xr.DataArray:
    """Axes of the metric's own bear its label, because other metrics have others of the same kind."""
    first = next(iter(of_methods.values()))
    names = {dim: dim if dim == "sample" else f"{setting.label} {dim}" for dim in first.dims}
    metric = setting.metric
    attrs: dict[str, Any] = {
        "metric": metric.name,
        "category": metric.category,
        "better": metric.better,
        "citation": metric.citation,
        "quantus_class": metric.class_name,
        **{name: str(value) for name, value in setting.describe().items()},
    }
    for note in dict.fromkeys(name for one in of_methods.values() for name in one.notes):
        values = [one.notes.get(note, "") for one in of_methods.values()]
        attrs[note] = values[0] if len(set(map(str, values))) == 1 else [str(value) for value in values]
    return xr.DataArray(
        np.stack([one.values for one in of_methods.values()]),
        dims=("explanation", *names.values()),
        coords={names[dim]: values for dim, values in first.coordinates.items()},
        name=setting.label,
        attrs=attrs,
    )


def summarize(scores: xr.Dataset) -> Any:
    """A data frame to be printed: a row per method, a column per metric, means over samples and the metric's own axes.

    An arrow says whether higher (↑) or lower (↓) scores are those of the better explanation. Scores that are no numbers
    are left out.
    """
    columns = {}
    for name, variable in scores.data_vars.items():
        rest = [dim for dim in variable.dims if dim != "explanation"]
        mean = variable.mean(rest, skipna=True) if rest else variable
        columns[f"{name} {_ARROWS[variable.attrs['better']]}"] = mean.values
    means = {name: ("explanation", values) for name, values in columns.items()}
    return xr.Dataset(means, {"explanation": scores["explanation"].values}).to_dataframe()
