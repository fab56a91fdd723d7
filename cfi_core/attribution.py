"""The result of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataArray, Dataset

    from cfi_core.certificate import Certificate

Values = np.ndarray | tuple[np.ndarray, ...]
Dims = tuple[str, ...] | tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Values with named axes, and where they came from.

    Attributes:
        values: Raw values in the axis order of the user's own model; a tuple for several inputs or layers.
        dims: Name of each axis of `values`, such as `("sample", "channel", "height", "width")`; a tuple of
            such tuples where `values` is a tuple.
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
    """

    values: Values
    dims: Dims
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

    @property
    def parts(self) -> tuple[tuple[np.ndarray, tuple[str, ...]], ...]:
        """Each array with the names of its axes, also where there is only one."""
        if isinstance(self.values, tuple):
            return tuple(zip(self.values, self.dims, strict=True))  # type: ignore[arg-type]
        return ((self.values, self.dims),)  # type: ignore[return-value]

    def plot(self, plotter: str | None = None, **options: Any) -> Figure:
        """Draws the attribution.

        Args:
            plotter: Name of a plotter; None takes the first that accepts it.
            **options: Options of that plotter; see `cfi_core.plotting.plot` for the built-in one.

        Returns:
            A matplotlib figure that is not registered with pyplot.

        Raises:
            PlotError: No plotter accepts the axes of this attribution.
        """
        from cfi_core.output import draw

        return draw(self, plotter, options)

    def save(self, path: str | Path) -> Path:
        """Writes the attribution to a file; the suffix chooses the writer (`.npz` and `.png` are built in).

        Raises:
            PlotError: No writer serves the suffix.
        """
        from cfi_core.output import write

        return write(self, Path(path))

    def to_xarray(self) -> DataArray | Dataset:
        """The values as `xarray.DataArray`, or as a `Dataset` with one variable for each array.

        Raises:
            ImportError: xarray is not installed.
        """
        from cfi_core.output import to_xarray

        return to_xarray(self)

    def __repr__(self) -> str:
        shapes = ", ".join(str(values.shape) for values, _ in self.parts)
        route = " → ".join(self.route) if self.route else "native"
        return f"<Attribution {self.method_key} by {self.toolset}, {route}, shape {shapes}>"
