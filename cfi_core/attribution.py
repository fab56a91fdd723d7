"""The result of a call, with all that it takes to draw and to write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.catalogue import DISTRIBUTION_OF_PLOTTER, DISTRIBUTION_OF_WRITER
from cfi_core.certificate import Certificate
from cfi_core.errors import PlotError
from cfi_core.requirements import unmet
from cfi_core.specs import PlotterSpec, WriterSpec, resolve

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataArray, Dataset

BUILTIN_WRITER = WriterSpec(name="npz", suffixes=(".npz",), implementation="cfi_core.builtin:write_npz")


@dataclass(frozen=True)
class Outlets:
    """What can draw an attribution, by name, and what can write it, by file suffix."""

    plotters: Mapping[str, PlotterSpec] = field(default_factory=dict)
    writers: Mapping[str, WriterSpec] = field(default_factory=lambda: {".npz": BUILTIN_WRITER})

    def writer_for(self, path: Path) -> WriterSpec:
        """The writer of a path's suffix.

        Raises:
            PlotError: There is none that can be used.
        """
        suffix = path.suffix.lower()
        if suffix not in self.writers:
            known, distribution = ", ".join(sorted(self.writers)), DISTRIBUTION_OF_WRITER.get(suffix)
            hint = f" pip install {distribution} brings one." if distribution else ""
            raise PlotError(f"No writer serves {path.suffix!r} files; there are writers for {known}.{hint}")
        writer = self.writers[suffix]
        if missing := unmet(writer.requirements):
            raise PlotError(f"Writing {path.suffix!r} needs {', '.join(missing)}. Install it with pip.")
        return writer


@dataclass(frozen=True, eq=False)
class Attribution:
    """Values with named axes, and where they came from.

    Attributes:
        values: Raw values in the axis order of the user's own model; a tuple for several inputs or layers; by name
            where the inputs were given by name.
        dims: Name of each axis of `values`, such as `("sample", "channel", "height", "width")`; a tuple (or dict) of
            such tuples where `values` is one.
        method_key: Method that was run.
        toolset: Toolset that ran it.
        route: Names of the translators from the user's model to the toolset; empty when native.
        certificate: Evidence that the translated model computes the same; None when native.
        target: What was explained, as the user gave it.
        layer: Name of the layer in the user's model (a tuple for several); None for input attributions.
        extras: Further results of the method, such as a convergence delta.
        provenance: Everything needed to tell how the values came about: versions, seed, the choice of
            logit or probability, what was applied to the raw values, seconds.
        inputs: The user's inputs as numpy arrays, one per model input; empty if there were none.
        input_dims: Name of each axis of each input.
        outlets: The plotters and writers that were installed when it was made.
    """

    values: np.ndarray | tuple[np.ndarray, ...] | Mapping[str, np.ndarray]
    dims: tuple[str, ...] | tuple[tuple[str, ...], ...] | Mapping[str, tuple[str, ...]]
    method_key: str
    toolset: str
    route: tuple[str, ...] = ()
    certificate: Certificate | None = None
    target: Any = None
    layer: str | tuple[str, ...] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[np.ndarray, ...] = ()
    input_dims: tuple[tuple[str, ...], ...] = ()
    outlets: Outlets = field(default_factory=Outlets, repr=False)

    @property
    def parts(self) -> tuple[tuple[np.ndarray, tuple[str, ...]], ...]:
        """Each array with the names of its axes, also where there is only one."""
        if isinstance(self.values, Mapping):
            return tuple((values, self.dims[name]) for name, values in self.values.items())  # type: ignore[call-overload]
        if isinstance(self.values, tuple):
            return tuple(zip(self.values, self.dims, strict=True))  # type: ignore[arg-type]
        return ((self.values, self.dims),)  # type: ignore[return-value]

    def plot(self, plotter: str | None = None, **options: Any) -> Figure:
        """Draws the attribution.

        Args:
            plotter: Name of a plotter; None takes the first that accepts it.
            **options: Options of that plotter.

        Returns:
            A matplotlib figure that is not registered with pyplot.

        Raises:
            PlotError: No plotter accepts the axes of this attribution.
        """
        plotters, all_dims = self.outlets.plotters, [dims for _, dims in self.parts]
        if not plotters:
            raise PlotError(f"No plotter is installed: pip install {' or '.join(DISTRIBUTION_OF_PLOTTER.values())}.")
        installed = f"installed are {', '.join(sorted(plotters))}"
        if plotter is not None and plotter not in plotters:
            raise PlotError(f"No plotter {plotter!r} is installed; {installed}.")
        for spec in plotters.values() if plotter is None else [plotters[plotter]]:
            if all(set(spec.accepts) <= set(dims) for dims in all_dims) and not unmet(spec.requirements):
                return resolve(spec.implementation)(self, **options)
        raise PlotError(f"No usable plotter accepts axes {'; '.join(map(str, all_dims))}; {installed}.")

    def save(self, path: str | Path) -> Path:
        """Writes the attribution to a file; the suffix chooses the writer (`.npz` and `.png` are built in).

        Raises:
            PlotError: No writer serves the suffix.
        """
        path = Path(path)
        resolve(self.outlets.writer_for(path).implementation)(self, path)
        return path

    def to_xarray(self) -> DataArray | Dataset:
        """The values as `xarray.DataArray`, or as a `Dataset` with one variable for each array.

        Raises:
            ImportError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("to_xarray needs xarray: pip install 'cfi-core[xarray]'") from error
        arrays = [xarray.DataArray(values, dims=dims, name=self.method_key) for values, dims in self.parts]
        if len(arrays) == 1:
            return arrays[0]
        # Sizes differ from part to part, so every axis but the samples is named by its part.
        dataset = xarray.Dataset()
        names = self.values if isinstance(self.values, Mapping) else range(len(arrays))
        for name, array in zip(names, arrays, strict=True):
            dims = {dim: f"{dim}_{name}" for dim in array.dims if dim != "sample"}
            dataset[f"{self.method_key}_{name}"] = array.rename(dims)
        return dataset

    def __repr__(self) -> str:
        shapes = ", ".join(str(values.shape) for values, _ in self.parts)
        route = " → ".join(self.route) if self.route else "native"
        return f"<Attribution {self.method_key} by {self.toolset}, {route}, shape {shapes}>"
