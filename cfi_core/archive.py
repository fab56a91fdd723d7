"""Attributions as `.npz` files: all of one, for `cfi.load` and for numpy, without pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cfi_core.attribution import Attribution, Outlets
from cfi_core.certificate import Certificate
from cfi_core.errors import FOREIGN, ArgumentError, PlotError, brief, summary
from cfi_core.exact import KINDS, Encoder, decode
from cfi_core.plain import simplify
from cfi_core.registry import registry
from cfi_core.validation import Refused

FORMAT, VERSION = "cfi attribution", 2
"""What `metadata` says of itself. Files of version 1, which held less, do not say it."""

FREE_SIZE, MOST_TIMES = 256 * 2**20, 20
"""A file is unpacked up to so many bytes, or so many times its own size, whichever is more."""

MOST_METADATA, MOST_ARRAYS = 64 * 2**20, 10_000

_NAMES = ("method_key", "toolset", "route", "layer", "dims", "input_dims", "feature_names")
"""Fields of names, in lists that stand for tuples."""

_FIELDS = ("values", "inputs", "target", "extras", "provenance", "certificate")


def write_npz(attribution: Attribution, path: Path) -> None:
    """Writes an attribution to a compressed `.npz` file, which `cfi.load` and `numpy.load` read without pickle.

    The arrays are `values` (or `values_0`, `values_1`, … where there are several, `values_<name>` where they have
    names), `inputs_0`, … and `extras_<name>`. `metadata` is a JSON text with everything else: `format`, `version`,
    `method_key`, `toolset`, `route`, `layer`, `dims`, `input_dims` and `feature_names` as lists; `target`,
    `provenance`, `certificate`, `values`, `inputs` and `extras` with `{"$array": name}` where an array stands, and what
    else JSON has no type for tagged in the same way (`{"$tuple": […]}`). An object of another class is kept as its
    `repr`. An existing file is replaced.

    Raises:
        PlotError: An array is of a type that numpy's format has no place for, or there are too many names.
    """
    encoder = Encoder()
    fields = {name: getattr(attribution, name) for name in _FIELDS}
    fields["extras"] = {name: value for name, value in attribution.extras.items() if name != "figure"}  # of plot=True
    metadata = {"format": FORMAT, "version": VERSION, **{name: simplify(getattr(attribution, name)) for name in _NAMES}}
    try:
        metadata |= {name: encoder.encode(value, name) for name, value in fields.items()}
    except Refused as refusal:
        raise PlotError(f"The attribution cannot be written to {path.name}: {refusal}.") from None
    text = np.array(json.dumps(metadata, ensure_ascii=False))
    if text.nbytes > MOST_METADATA:
        raise PlotError(
            f"The attribution cannot be written to {path.name}: its names and provenance take {text.nbytes:,} bytes, "
            f"and at most {MOST_METADATA:,} are read back. Write fewer samples."
        )
    arrays = {"metadata": text, **encoder.arrays}
    size = sum(array.nbytes for array in arrays.values())
    _save(np.savez_compressed, path, arrays)
    if size > max(FREE_SIZE, MOST_TIMES * path.stat().st_size):  # which is not read back
        _save(np.savez, path, arrays)


def _save(save: Callable[..., None], path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # An open file, since numpy appends ".npz" to a path that ends otherwise (".NPZ").
    with path.open("wb") as file:
        save(file, allow_pickle=False, **arrays)


def load(path: str | Path) -> Attribution:
    """Reads an attribution that `Attribution.save` wrote to an `.npz` file.

    Everything comes back as it was: values, inputs, extras, provenance, certificate, names. What no file can hold, such
    as a function as target, comes back as an object that prints alike. The attribution can be drawn and saved by what
    is installed now.

    Nothing in a file runs: there is no pickle, and what is damaged, of another kind, or unpacks to far more than its
    size is refused.

    Args:
        path: An `.npz` file.

    Raises:
        ArgumentError: It is none, or holds no attribution that this version reads.
        OSError: It is not there, or cannot be read.
    """
    path = Path(path)
    name = brief(path.name)
    if path.suffix.lower() != ".npz":
        raise ArgumentError(
            f"{name!r} is no .npz file, and pictures and pages hold no values: write the attribution with "
            f"save('{brief(path.stem)}.npz') and load that."
        )
    if path.exists() and not path.is_file():
        raise ArgumentError(f"{name!r} is no file. Pass the path of one that Attribution.save wrote.")
    try:
        arrays = _read(path)
        return _compose(_metadata(arrays), arrays)
    except OSError:
        raise
    except Refused as refusal:
        raise ArgumentError(f"{name!r} cannot be loaded: {refusal}.") from None
    except FOREIGN as error:  # a file that is damaged, or made to do harm, can break any of the parsers
        raise ArgumentError(
            f"{name!r} cannot be loaded: it is damaged, or no file that Attribution.save wrote ({summary(error)})."
        ) from error


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file, each as large as it says, and all of them within bounds."""
    with zipfile.ZipFile(path) as archive:
        members, most = archive.infolist(), max(FREE_SIZE, MOST_TIMES * path.stat().st_size)
        names = [member.filename.removesuffix(".npy") for member in members]
        size = sum(member.file_size for member in members)
        if size > most:
            raise Refused(
                f"it would take {size:,} bytes unpacked, and {most:,} are the most for a file of its size. If you "
                f"trust it, numpy.load reads its arrays"
            )
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise Refused("it is compressed in a way that numpy does not write")
        if len(set(names)) < len(names) or len(names) > MOST_ARRAYS:
            raise Refused(f"it holds {len(names)} arrays, of {len(set(names))} names")
        return {name: _read_array(archive, member) for name, member in zip(names, members, strict=True)}


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise Refused(f"{brief(member.filename)!r} is an array of an unknown format, {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        if dtype.kind not in KINDS or not dtype.itemsize:
            raise Refused(f"{brief(member.filename)!r} holds {dtype}, which no attribution has")
        count, left = prod(shape), member.file_size - file.tell()
        if min(shape, default=0) < 0 or count * dtype.itemsize != left:
            raise Refused(f"{brief(member.filename)!r} says shape {shape} of {dtype} and holds {left:,} bytes")
        flat = np.frombuffer(file.read(), dtype, count).copy()
    return flat.reshape(shape, order="F" if by_columns else "C")


def _metadata(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the file says of itself, if it is one of ours that this version reads."""
    text = arrays.get("metadata")
    if text is None or text.shape or text.dtype.kind != "U":
        raise Refused("it holds no attribution; numpy.load reads its arrays")
    if text.nbytes > MOST_METADATA:
        raise Refused(f"its metadata take {text.nbytes:,} bytes, and at most {MOST_METADATA:,} are read")
    metadata = json.loads(str(text))
    if not isinstance(metadata, dict) or metadata.get("format", FORMAT) != FORMAT:
        raise Refused("it holds no attribution; numpy.load reads its arrays")
    version = metadata.get("version", 1 if "method_key" in metadata else None)
    if version == 1:
        raise Refused(
            "an earlier version of CFI wrote it, without inputs: make the attribution again, or take its values with "
            "numpy.load"
        )
    if type(version) is not int or version != VERSION:
        raise Refused(f"its format is version {version!r}, and this is a CFI that reads version {VERSION}: update it")
    return metadata


def _compose(metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Attribution:
    read = {name: _as_tuples(metadata[name]) for name in _NAMES}
    read |= {name: decode(metadata[name], arrays) for name in _FIELDS}
    _check(read)
    plotters, writers = registry().plotters, registry().writers
    attribution = Attribution(**read, outlets=Outlets(plotters, writers))
    for values, dims in attribution.parts:
        if not isinstance(values, np.ndarray) or not _is_names(dims) or len(set(dims)) != values.ndim:
            raise Refused(f"the axes {dims!r} are not those of its values")
    return attribution


def _check(read: Mapping[str, Any]) -> None:
    """Whether each field holds what an attribution has there."""
    layer, names = read["layer"], read["feature_names"]
    right = {
        "method_key": isinstance(read["method_key"], str),
        "toolset": isinstance(read["toolset"], str),
        "route": _is_names(read["route"]),
        "layer": layer is None or isinstance(layer, str) or _is_names(layer),
        "provenance": isinstance(read["provenance"], dict),
        "extras": isinstance(read["extras"], dict),
        "certificate": isinstance(read["certificate"], Certificate | None),
        "values": type(read["values"]) is type(read["dims"])
        if isinstance(read["values"], dict)
        else isinstance(read["dims"], tuple),
        "inputs": isinstance(read["inputs"], tuple) and all(isinstance(one, np.ndarray) for one in read["inputs"]),
        "input_dims": isinstance(read["input_dims"], tuple) and all(map(_is_names, read["input_dims"])),
        "feature_names": _is_known(names, read["values"]),
    }
    if wrong := [name for name, is_right in right.items() if not is_right]:
        raise Refused(f"{', '.join(wrong)} are not what an attribution holds there")


def _as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_tuples(entry) for name, entry in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _is_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


def _is_known(names: Any, values: Any) -> bool:
    """Whether these are names of features, in the structure of the values."""
    if isinstance(values, dict) and isinstance(names, dict):
        return names.keys() == values.keys() and all(_is_known(names[name], values[name]) for name in names)
    if isinstance(values, tuple) and isinstance(names, tuple):
        return len(names) == len(values) and all(map(_is_known, names, values))
    each = names if isinstance(names, tuple) and names and isinstance(names[0], tuple) else (names,)
    return names is None or all(_is_names(one) and bool(one) for one in each)
