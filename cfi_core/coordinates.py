"""What xarray knows of an attribution beside its values: coordinates along the axes, and attributes in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.plain import simplify

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

Names = tuple[str, ...] | tuple[tuple[str, ...], ...]
"""Of features: the same for all samples, or those of each sample."""

Part = tuple[str, np.ndarray, tuple[str, ...], Names | None]
"""Name of an array, the array, the names of its axes and of its features."""


def axis_of_names(dims: Sequence[str]) -> str:
    """The axis that the names of features go along."""
    return "token" if "token" in dims else dims[-1]


def label(name: str, parts: Sequence[Part], metadata: Mapping[str, Any], target: Any) -> DataArray | Dataset:
    """One array with coordinates and attributes, or a dataset of several that share the samples.

    Args:
        name: Of the one array; of several the beginning of theirs.
        parts: What there is.
        metadata: `Attribution.metadata`, from which the attributes are made: texts, which every file format keeps.
        target: As the user gave it.
    """
    import xarray

    attributes = _attributes(metadata)
    arrays = []
    for _, values, dims, names in parts:
        coordinates = _along_axes(values.shape, dims, names)
        if "sample" in dims:
            samples = values.shape[dims.index("sample")]
            coordinates |= _of_samples(samples, target, metadata["provenance"])
        arrays.append(xarray.DataArray(values, coords=coordinates, dims=dims, name=name, attrs=attributes))
    if len(arrays) == 1:
        return arrays[0]
    # Sizes differ from part to part, so every axis but the samples is named by its part.
    dataset = xarray.Dataset(attrs=attributes)
    for (part, *_), array in zip(parts, arrays, strict=True):
        own = {one: f"{one}_{part}" for one in array.coords if set(array[one].dims) - {"sample"}}
        dataset[f"{name}_{part}"] = array.rename(own)
    return dataset


def _along_axes(shape: Sequence[int], dims: Sequence[str], names: Names | None) -> dict[str, Any]:
    """Positions along every axis, or the names there; those of each sample as `<axis>_name`."""
    found: dict[str, Any] = {dim: np.arange(size) for dim, size in zip(dims, shape, strict=True)}
    if names is not None:
        axis = axis_of_names(dims)
        if isinstance(names[0], str):
            found[axis] = np.array(names, dtype=str)
        else:
            found[f"{axis}_name"] = (("sample", axis), np.array(names, dtype=str))
    return found


def _of_samples(samples: int, target: Any, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The explained index of each sample and its class, as far as they can be told."""
    found: dict[str, Any] = {}
    indices = _indices(samples, target, provenance.get("target"))
    if indices is not None:
        found["target"] = ("sample", np.array(indices))
    classes = provenance.get("classes") or ()
    if len(classes) in (1, samples):
        found["class"] = ("sample", np.array([*classes] * (samples if len(classes) == 1 else 1), dtype=str))
    return found


def _indices(samples: int, given: Any, resolved: Any) -> list[int] | list[str] | None:
    """One for each sample: whole numbers, or texts where an index is a tuple or a name; None where there is none.

    Args:
        samples: How many there are.
        given: The target as the user gave it, which counts where it was not resolved.
        resolved: `provenance["target"]`: an index, or one for each sample, maybe behind the path to an output.
    """
    if resolved is None:
        each = simplify(given) if isinstance(given, str | int | list | np.ndarray | np.integer) else None
        per_sample = isinstance(each, list) and len(each) == samples
    else:
        each = resolved
        if isinstance(each, list) and each and isinstance(each[-1], list) and not isinstance(each[0], list):
            each = each[-1]
        per_sample = isinstance(each, list) and len(each) == samples and all(isinstance(one, list) for one in each)
        if not isinstance(each, list) or any(isinstance(one, str) for one in each):  # a function
            return None
    if each is None:
        return None
    found = [_index(one) for one in each] if per_sample else [_index(each)] * samples
    return found if all(isinstance(one, int) for one in found) else list(map(str, found))


def _index(value: Any) -> Any:
    while isinstance(value, list) and len(value) == 1:
        (value,) = value
    return tuple(value) if isinstance(value, list) else value


def _attributes(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Texts, since netCDF and zarr keep no others alike."""
    provenance = metadata["provenance"]
    texts = {
        "method": metadata["method_key"],
        "toolset": metadata["toolset"],
        "route": " → ".join(metadata["route"]) or "native",
        "target": provenance.get("target_in_words") or metadata["target"],
        "layer": metadata["layer"],
        "certificate": metadata["certificate"],
        **{name: provenance.get(name) for name in ("kind", "framework", "model", "explained", "citation", "seed")},
        "versions": provenance.get("versions"),
        "provenance": provenance,
    }
    return {name: _text(value) for name, value in texts.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
