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
from cfi_core.coordinates import Names, axis_of_names, label
from cfi_core.display import brief_value, html_facts, html_record, offer_figure, show_figure, show_record
from cfi_core.errors import ArgumentError, PlotError
from cfi_core.options import BUILTIN_WRITER, check_options
from cfi_core.plain import simplify
from cfi_core.requirements import unmet
from cfi_core.specs import PlotterSpec, WriterSpec, resolve

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataArray, Dataset


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
            # Errors of single values do not tell those of a sum.
            extras={name: value for name, value in self.extras.items() if name not in ("figure", "standard_error")},
            provenance={**self.provenance, "applied": applied},
        )

    def like_values(self, parts: Sequence[Any]) -> Any:
        """One thing for each array, in the structure of `values`."""
        if isinstance(self.values, Mapping):
            return dict(zip(self.values, parts, strict=True))
        return tuple(parts) if isinstance(self.values, tuple) else parts[0]

    @property
    def metadata(self) -> dict[str, Any]:
        """All but values, inputs and extras, in the types of JSON: what files of pictures carry."""
        named = ("method_key", "toolset", "route", "target", "layer", "feature_names")
        return {
            **{name: simplify(getattr(self, name)) for name in named},
            "dims": self.like_values([list(dims) for _, dims in self.parts]),
            "certificate": None if self.certificate is None else str(self.certificate),
            "provenance": simplify(self.provenance),
        }

    def plot(self, plotter: str | None = None, *, show: bool = True, **options: Any) -> Figure:
        """Draws the attribution, and shows the picture where the call stands in a notebook.

        Args:
            plotter: Name of a plotter; None takes the first that accepts it.
            show: Whether a notebook shows it at once; elsewhere nothing is ever shown.
            **options: Options of that plotter.

        Returns:
            A matplotlib figure that is not registered with pyplot. As the value of the cell that has shown it, it is
            not shown again unless it has been changed since.

        Raises:
            PlotError: No plotter accepts the axes of this attribution, or it has no such option.
        """
        spec = _plotter_for((self,), plotter, options)
        figure = resolve(spec.implementation)((self,) if spec.several else self, **options)
        if show:
            show_figure(figure, self)
        else:
            offer_figure(figure)
        return figure

    def save(self, path: str | Path, **options: Any) -> Path:
        """Writes the attribution to a file, whose suffix chooses the writer.

        `.npz` is built in, and holds everything: `cfi.load` reads it. With `cfi-matplotlib` there are `.png`, `.svg`,
        `.pdf` and `.html`, whose options are those of `plot`; they carry `metadata`.

        Args:
            path: File to write; an existing one is replaced.
            **options: Options of the writer.

        Raises:
            PlotError: No writer serves the suffix, or it has no such option.
        """
        path = Path(path)
        writer = self.outlets.writer_for(path)
        check_options(writer, options)
        resolve(writer.implementation)(self, path, **options)
        return path

    def to_xarray(self) -> DataArray | Dataset:
        """The values as `xarray.DataArray`, or as a `Dataset` with one variable for each array.

        Coordinates are the positions along each axis or the names there, and for each sample `target` (the index that
        was explained) and `class` (its name), where they are known. Attributes are texts: method, toolset, route,
        target, layer, certificate, versions and the whole provenance as JSON, so that any file format keeps them.

        Raises:
            ImportError: xarray is not installed.
        """
        try:
            import xarray  # noqa: F401
        except ImportError as error:
            raise ImportError("to_xarray needs xarray: pip install 'cfi-core[xarray]'") from error
        names = self.values if isinstance(self.values, Mapping) else range(len(self.parts))
        parts = [
            (str(name), values, dims, known)
            for name, (values, dims), known in zip(names, self.parts, self.part_names, strict=True)
        ]
        return label(self.method_key, parts, self.metadata, self.target)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values, for numpy: `np.asarray(attribution)`.

        Raises:
            ArgumentError: There are several arrays.
        """
        if len(self.parts) == 1:
            return np.array(self.parts[0][0], dtype=dtype, copy=copy)
        keys = list(self.values) if isinstance(self.values, Mapping) else range(len(self.parts))
        raise ArgumentError(
            f"This attribution holds {len(self.parts)} arrays; take one of them: "
            f"{', '.join(f'attribution.values[{key!r}]' for key in keys)}."
        )

    def _ipython_display_(self) -> None:
        """A picture and a caption, in notebooks."""
        show_record(self, self._drawn, self._caption)

    def _repr_html_(self) -> str:
        return html_record(self, self._drawn, self._caption)

    def _drawn(self) -> Any:
        """The figure that was drawn with it, or a new one."""
        return self.extras.get("figure") or self.plot(show=False)

    def _caption(self, note: str = "") -> str:
        target = self.provenance.get("target_in_words") or self.target
        shapes = ", ".join(f"{values.shape} {' × '.join(map(str, dims))}" for values, dims in self.parts)
        facts = {
            "target": target if target is None or isinstance(target, str) else brief_value(target),
            "layer": ", ".join(self.layer) if isinstance(self.layer, tuple) else self.layer,
            "route": " → ".join(self.route) or "native",
            "certificate": self.certificate,
            "values": shapes,
        }
        return html_facts(f"{self.method_key} · {self.toolset}", facts.items(), note)

    def __repr__(self) -> str:
        shapes = ", ".join(str(values.shape) for values, _ in self.parts)
        route = " → ".join(self.route) if self.route else "native"
        names = "".join(_preview(known) for known in self.part_names if known is not None)
        return f"<Attribution {self.method_key} by {self.toolset}, {route}, shape {shapes}{names}>"


def plot_together(
    attributions: Sequence[Attribution],
    *,
    titles: Sequence[str] | None = None,
    plotter: str | None = None,
    show: bool = True,
    **options: Any,
) -> Figure:
    """Draws several attributions in one figure, and shows the picture where the call stands in a notebook.

    Args:
        attributions: Of the same samples: by several methods, of several targets, models or layers.
        titles: What to write above each; None: what tells them apart.
        plotter: Name of a plotter of several attributions; None takes the first that accepts all of these.
        show: Whether a notebook shows it at once.
        **options: Options of that plotter.

    Returns:
        A matplotlib figure that is not registered with pyplot.

    Raises:
        PlotError: There is no attribution, no plotter that takes several and accepts their axes, or it has no such
            option.
    """
    if not attributions:
        raise PlotError("There is no attribution to draw.")
    spec = _plotter_for(attributions, plotter, options, several=True)
    figure = resolve(spec.implementation)(tuple(attributions), titles=titles, **options)
    if show:
        show_figure(figure)
    else:
        offer_figure(figure)
    return figure


def _plotter_for(
    attributions: Sequence[Attribution], name: str | None, options: Mapping[str, Any], *, several: bool = False
) -> PlotterSpec:
    """The one of that name, or the first that takes these attributions (of one, a plotter of one attribution).

    Raises:
        PlotError: There is none that can be used, or it has no such option.
    """
    known = attributions[0].outlets.plotters
    plotters = {plotter: spec for plotter, spec in known.items() if spec.draws == "attribution"}
    all_dims = [dims for attribution in attributions for _, dims in attribution.parts]
    if not plotters:
        brings = " or ".join(dict.fromkeys(DISTRIBUTION_OF_PLOTTER.values()))
        raise PlotError(f"No plotter is installed: pip install {brings}.")
    installed = f"installed are {', '.join(sorted(plotters))}"
    if name is not None and name not in plotters:
        raise PlotError(f"No plotter {name!r} is installed; {installed}.")
    usable = [
        spec
        for spec in plotters.values()
        if all(set(spec.accepts) <= set(dims) for dims in all_dims) and not unmet(spec.requirements)
    ]
    for spec in usable:
        if (name is None and spec.several is several) or (spec.name == name and spec.several >= several):
            check_options(spec, options, [one for one in usable if one is not spec])
            return spec
    what = "of several attributions " if several else ""
    raise PlotError(f"No usable plotter {what}accepts axes {'; '.join(map(str, all_dims))}; {installed}.")


def _preview(names: Names) -> str:
    first, several = (names, False) if isinstance(names[0], str) else (names[0], len(names) > 1)
    shown = textwrap.shorten(" ".join(map(str, first)), 60, placeholder=" …")
    return f", of {shown}" + (" and other samples" if several else "")
