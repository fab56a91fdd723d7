"""Loads `.onnx` files: sizes first, then the bytes, then what they say, and only then the weights in further files."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import GraphProto, ModelProto, TensorProto, external_data_helper

from cfi_core.errors import InputError, ModelFileError
from cfi_onnx.limits import GIB
from cfi_onnx.structure import Structure, check_in_memory, check_stored, examine, tensor_bytes
from cfi_onnx.wire import WireError, look_through

MOST_FILE = 2 * GIB - 1
"""Protobuf reads no longer messages; larger models keep their weights in further files."""

_MOST_EXTENTS = 10_000
_LONGEST_PATH = 300  # as messages show it
_LARGE = 2**16
"""Bytes from which a weight is left out where only its type and sizes matter."""


def load(path: Path) -> ModelProto:
    """The model in a file, with all its weights.

    Raises:
        InputError: There is no such file, it is no valid model, or it passes a limit.
    """
    _check_path(path)
    try:
        model, stored = _parse(path)
        structure = examine(model)
        stored += _load_further_files(structure, path.parent)
        check_stored(structure.weights, stored)
        _check_contents(structure)
        onnx.checker.check_model(hollow(model))
    except InputError as error:
        raise InputError(f"{str(path)!r} is not loaded. {error}") from None
    except Exception as error:  # the parser, the checker and the file system each raise their own kinds
        raise InputError(f"{str(path)!r} is no valid ONNX model: {_first_line(error)}.") from error
    return model


def read_model(path: Path, trust: bool) -> ModelProto:
    """The model in a file, as `load` gives it: an ONNX file runs no code, and its limits hold for everybody.

    Raises:
        ModelFileError: What `load` says.
    """
    try:
        return load(path)
    except InputError as error:
        raise ModelFileError(f"{error}") from error


def _check_path(path: Path) -> None:
    shown = str(path) if len(str(path)) <= _LONGEST_PATH else str(path)[:_LONGEST_PATH] + "…"
    try:
        if path.is_file():  # not what is neither a file nor a link to one: pipes and devices
            return
        what = "is a folder" if path.is_dir() else "is no file that is there"
    except (OSError, ValueError) as error:  # a name that is too long, for one
        raise InputError(f"{shown!r} is no path of a file ({type(error).__name__}).") from error
    raise InputError(f"There is no file {shown!r} (it {what}). Pass the path of an .onnx file.")


def from_bytes(data: bytes) -> ModelProto:
    """The model in the bytes of a file, which names no further ones.

    Raises:
        Exception: Of the kind of whatever found that it is none, or one that passes a limit.
    """
    look_through(data, len(data))
    model = ModelProto.FromString(data)
    structure = examine(model)
    check_in_memory(structure)
    check_stored(structure.weights, len(data))
    _check_contents(structure)
    onnx.checker.check_model(hollow(model))
    return model


def hollow(model: ModelProto) -> ModelProto:
    """The same graph with inputs in the place of its large weights: all that can be told of types, names and sizes.

    Weights are neither copied nor counted, so that it works for models of any size.
    """
    made = ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            _hollow_graph(value, made.graph)
        elif field.is_repeated:
            getattr(made, field.name).extend(value)
        else:
            setattr(made, field.name, value)
    return made


def _hollow_graph(graph: GraphProto, made: GraphProto) -> None:
    for field, value in graph.ListFields():
        if field.name == "initializer":
            given = {one.name for one in graph.input}
            for one in value:
                if tensor_bytes(one) < _LARGE:
                    made.initializer.append(one)
                elif one.name not in given:
                    made.input.append(onnx.helper.make_tensor_value_info(one.name, one.data_type, one.dims))
        elif field.is_repeated:
            getattr(made, field.name).extend(value)
        else:
            setattr(made, field.name, value)


def _parse(path: Path) -> tuple[ModelProto, int]:
    """The model without what lies in further files, and how many bytes its file holds."""
    with path.open("rb") as file:
        kind = os.fstat(file.fileno())
        if not stat.S_ISREG(kind.st_mode):
            raise InputError("It is no regular file.")
        size = kind.st_size
        if size > MOST_FILE:
            raise InputError(
                f"It has {size:,} bytes, and no ONNX file can have more than {MOST_FILE:,}: larger models keep their "
                f"weights in further files (onnx.save(…, save_as_external_data=True))."
            )
        stored = _stored_bytes(file.fileno(), size)
        check_stored(size, stored, "It has")
        if size:
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
                try:
                    look_through(data, size)
                except WireError as error:
                    raise ValueError(f"{error}") from error
        return ModelProto.FromString(file.read()), stored


def _stored_bytes(file: int, size: int) -> int:
    """Bytes of a file that are no hole, as far as the file system tells."""
    if not hasattr(os, "SEEK_HOLE"):
        return size
    stored = at = 0
    try:
        for _ in range(_MOST_EXTENTS):
            if at >= size:
                break
            start = os.lseek(file, at, os.SEEK_DATA)
            at = os.lseek(file, start, os.SEEK_HOLE)
            stored += at - start
    except OSError:  # no data after that place
        pass
    os.lseek(file, 0, os.SEEK_SET)
    return stored


# Weights in further files


@dataclass(frozen=True)
class _Place:
    """Where a weight lies."""

    tensor: TensorProto
    path: Path
    offset: int
    length: int


def _load_further_files(structure: Structure, folder: Path) -> int:
    """Reads the weights that lie in further files; the bytes that these hold."""
    places = [_place(one, folder) for one in structure.tensors if one.data_location == TensorProto.EXTERNAL]
    stored = 0
    for path in dict.fromkeys(one.path for one in places):
        size = path.stat().st_size
        with path.open("rb") as file:
            stored += _stored_bytes(file.fileno(), size)
        for one in places:
            if one.path == path and one.offset + one.length > size:
                raise InputError(
                    f"The weight {one.tensor.name[:80]!r} is bytes {one.offset:,} to {one.offset + one.length:,} of "
                    f"{path.name[:80]!r}, which has {size:,}. The file is broken or not complete."
                )
    # Before any byte is read.
    check_stored(sum(one.length for one in places), stored)
    for one in places:
        external_data_helper.load_external_data_for_tensor(one.tensor, str(folder))
        one.tensor.data_location = TensorProto.DEFAULT
        del one.tensor.external_data[:]
    return stored


def _place(tensor: TensorProto, folder: Path) -> _Place:
    """Where a weight lies: in a plain file of the model's folder, which `onnx` checks once more when it opens it."""
    name = tensor.name[:80]
    entries = {one.key: one.value for one in tensor.external_data}
    location = entries.get("location", "")
    pure = PurePosixPath(location), PureWindowsPath(location)
    is_inside = location and len(location) < 4096 and "\0" not in location
    if not is_inside or any(one.is_absolute() or one.drive or ".." in one.parts for one in pure):
        raise InputError(f"The weight {name!r} lies outside of the model's folder, or nowhere: {location[:80]!r}.")
    expected = tensor_bytes(tensor)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else expected
    except ValueError:
        raise InputError(f"The place of the weight {name!r} in {location[:80]!r} is no number.") from None
    if offset < 0 or length != expected:
        raise InputError(
            f"The weight {name!r} has {expected:,} bytes by its sizes, and {length:,} from byte {offset:,} of "
            f"{location[:80]!r}. The file is broken."
        )
    path = folder / location
    parts = [path, *path.parents[: len(pure[0].parts) - 1]]
    # A link could lead anywhere, and a pipe or device has no end.
    if any(one.is_symlink() for one in parts) or not path.is_file():
        raise InputError(
            f"The weight {name!r} lies in {location[:80]!r}, which is no plain file in the model's folder."
        )
    if not entries.get("length"):
        tensor.external_data.add(key="length", value=str(length))
    return _Place(tensor, path, offset, length)


def _check_contents(structure: Structure) -> None:
    for one in structure.tensors:
        if one.HasField("raw_data") and len(one.raw_data) != tensor_bytes(one):
            raise InputError(
                f"The tensor {one.name[:80]!r} has {tensor_bytes(one):,} bytes by its sizes, and the file holds "
                f"{len(one.raw_data):,}. The file is broken."
            )


def large_weights(model: ModelProto) -> Iterator[TensorProto]:
    """Those that `hollow` leaves out."""
    return (one for one in model.graph.initializer if tensor_bytes(one) >= _LARGE)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else repr(error)
