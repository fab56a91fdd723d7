"""The store: a group of zarr (version 3) that any xarray reads, also while it grows.

Every variable has the samples as its first axis and is cut along it into the same chunks, each of which is a file that
zarr writes under another name and then renames. Of a chunk, `status` is written last: its file is the mark that the
chunk is whole. What is not there yet reads as status 0.

The metadata of all variables stand, consolidated, in the file of the group, which is replaced as a whole: who opens the
store sees one moment of it, also while a stream of unknown length makes it longer.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np

from cfi_core import ArgumentError
from cfi_core.errors import FOREIGN, summary
from cfi_scale.errors import StoreError

FORMAT = 1
ABSENT, EXPLAINED, BAD = 0, 1, 2
"""What `status` holds of a sample: not there yet, explained, or why not in `error`."""

_GROUP = "zarr.json"
_OWN = "cfi_scale"
_LEFT = ".partial"
_WRITERS = 4


@dataclass(frozen=True, eq=False)
class Variable:
    """A variable of the store.

    Attributes:
        dims: Names of its axes behind that of the samples.
        shape: Their lengths.
        dtype: `"str"` for texts.
        fill: What is read of samples that are not there.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    fill: Any

    @classmethod
    def of(cls, values: np.ndarray, dims: tuple[str, ...] = ()) -> Variable:
        """What holds such values, their first axis that of the samples."""
        kind = "str" if values.dtype.kind in "OUT" else str(values.dtype)
        return cls(dims, tuple(map(int, values.shape[1:])), kind, _fill_of(kind))

    def empty(self, samples: int) -> np.ndarray:
        """Of so many samples that are not there."""
        return np.full((samples, *self.shape), self.fill, object if self.dtype == "str" else self.dtype)


def _fill_of(kind: str) -> Any:
    """NaN, -1 or nothing."""
    if kind == "str":
        return ""
    return {"f": np.nan, "c": np.nan, "i": -1}.get(np.dtype(kind).kind, 0)


@dataclass(frozen=True, eq=False)
class Layout:
    """What a store holds.

    Attributes:
        variables: By name.
        coordinates: Names along other axes than that of the samples: dims and values, by name.
        attributes: Of the whole, as texts.
        chunk: How many samples a chunk has.
    """

    variables: Mapping[str, Variable]
    coordinates: Mapping[str, tuple[tuple[str, ...], np.ndarray]]
    attributes: Mapping[str, str]
    chunk: int


@dataclass(frozen=True, eq=False)
class Store:
    """A store that exists."""

    path: Path
    _arrays: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def own(self) -> dict[str, Any]:
        """What this package wrote about it: the question, the chunks, how many samples there are."""
        return dict(read_own(self.path))

    @property
    def chunk(self) -> int:
        """How many samples a chunk has."""
        return int(self.own["chunk_size"])

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """Those that the store has."""
        found = {}
        for name in self.own["variables"]:
            array = self._array(name)
            kind = "str" if array.dtype.kind in "OUT" else str(array.dtype)
            dims = tuple(array.metadata.dimension_names or ())[1:]
            found[name] = Variable(dims, tuple(array.shape[1:]), kind, _fill_of(kind))
        return found

    def done(self) -> set[int]:
        """Numbers of the chunks that are whole."""
        found = set()
        with suppress(FileNotFoundError), os.scandir(self.path / "status" / "c") as entries:
            found = {int(one.name) for one in entries if one.name.isdigit() and one.stat().st_size}
        return found

    def write(self, number: int, variables: Mapping[str, np.ndarray]) -> None:
        """Writes a chunk, and marks it.

        Raises:
            StoreError: It cannot be written; what is in the store stays as it is.
        """
        start = number * self.chunk
        rows = slice(start, start + len(variables["status"]))
        arrays = {name: self._array(name, rows.stop) for name in self.own["variables"]}

        def write(name: str) -> None:
            arrays[name][rows] = variables[name]

        with self._writing(f"Chunk {number}"):
            with ThreadPoolExecutor(_WRITERS) as pool:  # one would mostly wait for the threads of zarr
                list(pool.map(write, arrays.keys() - {"status"}))
            write("status")

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Values of some samples.

        Raises:
            StoreError: They are damaged.
        """
        array = self._array(name)
        try:
            return np.asarray(array[start:stop])
        except FOREIGN as error:  # whatever zarr's codecs make of broken bytes
            number = self._find_damaged(array, start, stop)
            raise StoreError(
                f"Chunk {number} of {name!r} in {self.path} cannot be read ({summary(error)}). Remove "
                f"{self.path / 'status' / 'c' / str(number)} and start the run again: it makes the chunk anew."
            ) from error

    def states(self) -> np.ndarray:
        """`status` of all samples, as `read` gives it: the files of most chunks are equal, and unpacked once."""
        found = np.full(int(self.own["samples"]), ABSENT, np.uint8)
        unpacked: dict[bytes, np.ndarray] = {}
        for number in sorted(self.done()):
            start = number * self.chunk
            packed = (self.path / "status" / "c" / str(number)).read_bytes()
            if packed not in unpacked:
                unpacked[packed] = self.read("status", start, start + self.chunk)
            rows = unpacked[packed][: max(len(found) - start, 0)]
            found[start : start + len(rows)] = rows
        return found

    def _find_damaged(self, array: Any, start: int, stop: int) -> int:
        """The number of the first chunk that cannot be read."""
        for number in range(start // self.chunk, -(-stop // self.chunk)):
            try:
                array[number * self.chunk : (number + 1) * self.chunk]
            except FOREIGN:
                return number
        return start // self.chunk

    def _array(self, name: str, samples: int = 0) -> Any:
        """The array, opened once; anew where it has become longer."""
        if name not in self._arrays or self._arrays[name].shape[0] < samples:
            import zarr

            try:
                self._arrays[name] = zarr.open_array(self.path, path=name, mode="r+", zarr_format=3)
            except FOREIGN as error:
                raise StoreError(
                    f"The store {self.path} has lost its variable {name!r} ({summary(error)}). Name another place."
                ) from error
        return self._arrays[name]

    def forget(self, number: int) -> None:
        """Takes the mark from a chunk, which is then explained again."""
        (self.path / "status" / "c" / str(number)).unlink(missing_ok=True)

    def resize(self, samples: int) -> None:
        """Makes all variables as long; readers see the old length, then the new one.

        Raises:
            StoreError: That cannot be written.
        """
        with self._writing("The length"):
            for name in self.own["variables"]:
                array = self._array(name)
                if array.shape[0] != samples:
                    array.resize((samples, *array.shape[1:]))
            self._write_group(samples=samples)

    def settle(self, **facts: Any) -> None:
        """Notes how a run ended.

        Raises:
            StoreError: That cannot be written.
        """
        with self._writing("The end"):
            self._write_group(**facts)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(_say_not_written(self.path, what, error)) from error

    def _write_group(self, **facts: Any) -> None:
        held = {**read_own(self.path), **facts}
        if held == read_own(self.path) and "samples" not in facts:
            return
        group = json.loads((self.path / _GROUP).read_text())
        group["attributes"][_OWN] = json.dumps(held, ensure_ascii=False)
        _consolidate(self.path, group)
        self.own.update(facts)

    def clean(self) -> None:
        """Removes what writers left behind that were killed while they wrote."""
        for folder, _, files in os.walk(self.path):
            for name in files:
                if name.endswith(_LEFT):
                    (Path(folder) / name).unlink(missing_ok=True)
        for left in self.path.parent.glob(f".{escape(self.path.name)}.*{_LEFT}"):
            shutil.rmtree(left, ignore_errors=True)


def create(path: Path, layout: Layout, own: Mapping[str, Any], samples: int) -> Store:
    """Makes a store without any sample, as a whole: it is not there before all of it is.

    Raises:
        StoreError: It cannot be written.
    """
    made = path.parent / f".{path.name}.{uuid4().hex}{_LEFT}"
    held = {"format": FORMAT, **own, "chunk_size": layout.chunk, "variables": list(layout.variables)}
    try:
        _make(made, layout, {**held, "samples": samples}, samples)
        made.rename(path)
    except OSError as error:
        raise StoreError(f"The store {path} cannot be made ({error}). Choose another place, or make room.") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return Store(path)


def _make(path: Path, layout: Layout, own: Mapping[str, Any], samples: int) -> None:
    import zarr
    from zarr.codecs import ZstdCodec

    attributes = {**layout.attributes, _OWN: json.dumps(own, ensure_ascii=False)}
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    packed = ZstdCodec(level=1, checksum=True)  # a damaged chunk is an error, not values
    for name, one in layout.variables.items():
        group.create_array(
            name,
            shape=(samples, *one.shape),
            chunks=(layout.chunk, *(max(size, 1) for size in one.shape)),
            dtype=str if one.dtype == "str" else one.dtype,
            fill_value=one.fill,
            compressors=packed,
            dimension_names=("sample", *one.dims),
        )
    for name, (dims, values) in layout.coordinates.items():
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=str if values.dtype.kind in "OUT" else values.dtype,
            dimension_names=dims,
        )
        array[...] = values.astype(object) if values.dtype.kind in "OUT" else values
    _consolidate(path, json.loads((path / _GROUP).read_text()))


def _consolidate(path: Path, group: dict[str, Any]) -> None:
    """Writes the file of the group with the metadata of all arrays in it, at once."""
    found = sorted(one.parent.name for one in path.glob(f"*/{_GROUP}"))
    arrays = {name: json.loads((path / name / _GROUP).read_text()) for name in found}
    group["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": arrays}
    replace_file(path / _GROUP, json.dumps(group, indent=2, ensure_ascii=False))


def replace_file(path: Path, text: str) -> None:
    """Writes a file as a whole: readers see the old one, or the new one."""
    made = path.with_name(f"{path.name}.{uuid4().hex}{_LEFT}")
    try:
        with made.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error}). Make room, and start the run again.") from error
    finally:
        made.unlink(missing_ok=True)


def read_own(path: Path) -> Mapping[str, Any]:
    """What this package wrote about a store.

    Raises:
        StoreError: There is none, or it is of another kind.
    """
    try:
        attributes = json.loads((path / _GROUP).read_text())["attributes"]
        own: Mapping[str, Any] = json.loads(attributes[_OWN])
        known = own["format"]
    except FileNotFoundError:
        there = "What is there was not written by cfi_scale: name another place." if path.exists() else ""
        raise StoreError(f"There is no store at {path}. {there}".strip()) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} was not written by cfi_scale, or is damaged ({type(error).__name__}). Name another place."
        ) from error
    if known != FORMAT:
        raise StoreError(f"{path} is of format {known}, and this version knows {FORMAT}. Update cfi-scale.")
    return own


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Holds the place of a store, so that one run at a time writes to it.

    The system lets go of it when the process ends, however it does.

    Raises:
        StoreError: Another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # another system, without such locks
        yield
        return
    lock = path.parent / f".{path.name}.lock"
    with _open_lock(path, lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"Another run writes to {path}. Wait for it, or end it; cfi status {path} says how far it is."
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        if not _is_at(lock, file.fileno()):  # another run ended, and took it away, just before it was locked here
            raise StoreError(f"Another run has just written to {path}. Start this one again.")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _open_lock(path: Path, lock: Path) -> IO[str]:
    """Makes the folder of the store, and the file beside it that is locked.

    Raises:
        StoreError: Nothing can be written there, or it lies in another store.
    """
    inside = [one for one in path.parents if (one / _GROUP).is_file()]
    if inside:
        raise StoreError(f"{path} lies in {inside[0]}, which is a store or group itself. Name a place outside of it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return lock.open("w")
    except OSError as error:
        raise StoreError(f"Nothing can be written beside {path} ({error}). Name another place.") from error


def place_of(store: str | os.PathLike[str]) -> Path:
    """Where a store is, or shall be.

    Raises:
        ArgumentError: It is no path of a folder.
    """
    if not isinstance(store, str | os.PathLike) or isinstance(os.fspath(store), bytes) or not os.fspath(store):
        raise ArgumentError(f"store={store!r} is no path. Pass the folder that the store is, or shall be.")
    if "://" in os.fspath(store):
        raise ArgumentError(f"store={os.fspath(store)!r} is an address. A store is a folder, also of a mounted disk.")
    return Path(store).expanduser()


def _is_at(path: Path, opened: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(opened))
    except FileNotFoundError:
        return False


def _say_not_written(path: Path, what: str, error: OSError) -> str:
    free = shutil.disk_usage(path).free
    return (
        f"{what} of {path} cannot be written ({error}; {free / 2**20:,.0f} MiB are free there). What is in "
        f"the store stays valid. Make room, and start the run again: it goes on where it stopped."
    )
