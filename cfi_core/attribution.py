"""The result of a call, with all that it takes to draw and to write it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.catalogue import DISTRIBUTION_OF_PLOTTER, DISTRIBUTION_OF_WRITER
from cfi_core.certificate import Certificate
from cfi_core.errors import ArgumentError, PlotError
from cfi_core.requirements import unmet
from cfi_core.specs import PlotterSpec, WriterSpec, resolve

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataArray, Dataset

Names = tuple[str, ...] | tuple[tuple[str, ...], ...]
"""Of features: the same for all samples, or those of each sample."""

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
        feature_names: Names of the features or tokens along the axis `token`, or else the last one: a tuple for all
            samples, or one for each sample; in a tuple or dict (None where there are none) where `values` is one.
            None without names.
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
    feature_names: Any = None
    outlets: Outlets = field(default_factory=Outlets, repr=False)

    @property
    def parts(self) -> tuple[tuple[np.ndarray, tuple[str, ...]], ...]:
        """Each array with the names of its axes, also where there is only one."""
        if isinstance(self.values, Mapping):
            return tuple((values, self.dims[name]) for name, values in self.values.items())  # type: ignore[call-overload]
        if isinstance(self.values, tuple):
            return tuple(zip(self.values, self.dims, strict=True))  # type: ignore[arg-type]
        return ((self.values, self.dims),)  # type: ignore[return-value]

    @property
    def part_names(self) -> tuple[Names | None, ...]:
        """The names of the features of each array."""
        known = self.feature_names
        if isinstance(known, Mapping):
            return tuple(known.values())
        if known is None:
            return (None,) * len(self.parts)
        return tuple(known) if isinstance(self.values, tuple) else (known,)

    def sum(self, axis: str) -> Attribution:
        """The values summed over an axis, such as `"embedding"`, which leaves one for each token.

        Raises:
            ArgumentError: There is no such axis, or it is that of the samples.
        """
        return self._reduce("sum", axis, lambda values, place: values.sum(place))

    def mean(self, axis: str) -> Attribution:
        """The mean of the values over an axis; errors as for `sum`."""
        return self._reduce("mean", axis, lambda values, place: values.mean(place))

    def norm(self, axis: str) -> Attribution:
        """The Euclidean length of the values along an axis, which has no sign; errors as for `sum`."""
        return self._reduce("norm", axis, lambda values, place: np.linalg.norm(values, axis=place))

    def _reduce(self, how: str, axis: str, reduction: Callable[[np.ndarray, int], np.ndarray]) -> Attribution:
        """With one axis less wherever it is, and that told in the provenance."""
        named = list(dict.fromkeys(name for _, dims in self.parts for name in dims if name != "sample"))
        if axis not in named:
            raise ArgumentError(f"There is no axis {axis!r} to take the {how} over: there are {', '.join(named)}.")
        values, dims, names = [], [], []
        for (array, own), known in zip(self.parts, self.part_names, strict=True):
            has = axis in own
            values.append(reduction(array, own.index(axis)) if has else array)
            dims.append(tuple(name for name in own if name != axis))
            names.append(None if has and axis == axis_of_names(own) else known)
        applied = dict(self.provenance.get("applied", {}))
        applied["reduced"] = (*applied.get("reduced", ()), f"{how} over {axis}")
        return replace(
            self,
            values=self.like_values(values),
            dims=self.like_values(dims),
            feature_names=self.like_values(names) if any(names) else None,
            extras={name: value for name, value in self.extras.items() if name != "figure"},
            provenance={**self.provenance, "applied": applied},
        )

    def like_values(self, parts: Sequence[Any]) -> Any:
        """One thing for each array, in the structure of `values`."""
        if isinstance(self.values, Mapping):
            return dict(zip(self.values, parts, strict=True))
        return tuple(parts) if isinstance(self.values, tuple) else parts[0]

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
        arrays = [
            xarray.DataArray(values, coords=_coordinates(dims, known), dims=dims, name=self.method_key)
            for (values, dims), known in zip(self.parts, self.part_names, strict=True)
        ]
        if len(arrays) == 1:
            return arrays[0]
        # Sizes differ from part to part, so every axis but the samples is named by its part.
        dataset = xarray.Dataset()
        names = self.values if isinstance(self.values, Mapping) else range(len(arrays))
        for name, array in zip(names, arrays, strict=True):
            renamed = {dim: f"{dim}_{name}" for dim in (*array.dims, *array.coords) if dim != "sample"}
            dataset[f"{self.method_key}_{name}"] = array.rename(renamed)
        return dataset

    def __repr__(self) -> str:
        shapes = ", ".join(str(values.shape) for values, _ in self.parts)
        route = " → ".join(self.route) if self.route else "native"
        names = "".join(_preview(known) for known in self.part_names if known is not None)
        return f"<Attribution {self.method_key} by {self.toolset}, {route}, shape {shapes}{names}>"


def axis_of_names(dims: Sequence[str]) -> str:
    """The axis that the names of features go along."""
    return "token" if "token" in dims else dims[-1]


def _coordinates(dims: Sequence[str], names: Names | None) -> dict[str, Any]:
    """The names along their axis; those of each sample as `<axis>_name`."""
    if names is None:
        return {}
    axis = axis_of_names(dims)
    if isinstance(names[0], str):
        return {axis: list(names)}
    return {f"{axis}_name": (("sample", axis), np.array(names, dtype=object))}


def _preview(names: Names) -> str:
    first, several = (names, False) if isinstance(names[0], str) else (names[0], len(names) > 1)
    shown = textwrap.shorten(" ".join(map(str, first)), 60, placeholder=" …")
    return f", of {shown}" + (" and other samples" if several else "")
