"""Hands attributions to plotters and writers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfi_core.errors import PlotError
from cfi_core.registry import registry
from cfi_core.requirements import unmet
from cfi_core.specs import PlotterSpec, resolve

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataArray, Dataset

    from cfi_core.attribution import Attribution


def draw(attribution: Attribution, name: str | None, options: Mapping[str, Any]) -> Figure:
    """Draws with the named plotter, or with the first that accepts the attribution."""
    plotters = registry().plotters
    if name is not None and name not in plotters:
        raise PlotError(f"No plotter {name!r} is installed; installed are {', '.join(sorted(plotters))}.")
    for spec in [plotters[name]] if name is not None else plotters.values():
        if _accepts(spec, attribution):
            return resolve(spec.implementation)(attribution, **options)
    dims = "; ".join(str(dims) for _, dims in attribution.parts)
    raise PlotError(f"No usable plotter accepts axes {dims}; installed are {', '.join(sorted(plotters))}.")


def write(attribution: Attribution, path: Path) -> Path:
    """Writes with the writer of the path's suffix."""
    writers = registry().writers
    spec = writers.get(path.suffix.lower())
    if spec is None:
        raise PlotError(f"No writer serves {path.suffix!r} files; there are writers for {', '.join(sorted(writers))}.")
    if missing := unmet(spec.requirements):
        raise PlotError(f"Writing {path.suffix!r} needs {', '.join(missing)}. Install it with pip.")
    resolve(spec.implementation)(attribution, path)
    return path


def to_xarray(attribution: Attribution) -> DataArray | Dataset:
    """See `Attribution.to_xarray`."""
    try:
        import xarray
    except ImportError as error:
        raise ImportError("to_xarray needs xarray: pip install 'cfi-core[xarray]'") from error
    arrays = [xarray.DataArray(values, dims=dims, name=attribution.method_key) for values, dims in attribution.parts]
    if len(arrays) == 1:
        return arrays[0]
    # Sizes differ from part to part, so every axis but the samples is named by its part.
    return xarray.Dataset(
        {
            f"{attribution.method_key}_{i}": array.rename({dim: f"{dim}_{i}" for dim in array.dims if dim != "sample"})
            for i, array in enumerate(arrays)
        }
    )


def _accepts(spec: PlotterSpec, attribution: Attribution) -> bool:
    if unmet(spec.requirements):
        return False
    return all(set(spec.accepts) <= set(dims) for _, dims in attribution.parts)
