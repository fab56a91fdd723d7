"""A folder of images as a data set, and data by their path."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core import InputError
from cfi_core.errors import FOREIGN, summary

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder and of those in it, in the order of their paths, which are their ids.

    Args:
        folder: Where they lie.
        preprocess: Makes of a `PIL.Image` (turned as its camera held it) the array that the model takes of one sample.
        suffixes: Of the files that are images.

    Raises:
        InputError: There is no such folder, or no image in it.
    """

    folder: str | os.PathLike[str]
    preprocess: Callable[[Image], Any]
    suffixes: tuple[str, ...] = SUFFIXES

    def __post_init__(self) -> None:
        # Absolute: workers, and this process later, may stand elsewhere.
        object.__setattr__(self, "folder", Path(self.folder).expanduser().absolute())
        if not callable(self.preprocess):
            raise InputError(f"preprocess={self.preprocess!r} is no function that makes an array of an image.")
        if not self.ids:
            raise InputError(f"There is no image in {self.folder} (files that end in {', '.join(self.suffixes)}).")

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Paths below the folder."""
        folder = Path(self.folder)
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}.")
        endings = (self.suffixes,) if isinstance(self.suffixes, str) else self.suffixes
        wanted = {f".{ending.lower().removeprefix('.')}" for ending in endings}
        found = (path for path in folder.rglob("*") if path.suffix.lower() in wanted and not path.is_dir())
        return tuple(sorted(path.relative_to(folder).as_posix() for path in found))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> np.ndarray:
        from PIL import Image, ImageOps

        with Image.open(Path(self.folder) / self.ids[number]) as image:
            return np.asarray(self.preprocess(ImageOps.exif_transpose(image)))


def open_path(path: str | os.PathLike[str], preprocess: Callable[[Image], Any] | None = None) -> Any:
    """Data by their path: `.npy`, `.zarr`, `file.h5:name`, or a folder of images.

    Raises:
        InputError: There is nothing of the kind.
    """
    text = os.fspath(path)
    file, _, name = text.rpartition(":")
    in_file = bool(name) and file.lower().endswith((".h5", ".hdf5"))
    place = Path(file if in_file else text).expanduser()
    if not place.exists():
        raise InputError(f"There are no data at {place}.")
    try:
        return _open_hdf5(place, name) if in_file else _open(place, preprocess)
    except InputError:
        raise
    except FOREIGN as error:
        raise InputError(f"{place} cannot be read ({summary(error)}).") from error


def _open(place: Path, preprocess: Callable[[Image], Any] | None) -> Any:
    if place.suffix == ".npy":
        return np.load(place, mmap_mode="r")
    if (place / "zarr.json").is_file() or (place / ".zarray").is_file():
        return _open_zarr(place)
    if place.is_dir() and preprocess is not None:
        return ImageFolder(place, preprocess)
    if place.is_dir():
        raise InputError(f"{place} is a folder: say how its images become what the model takes (--preprocess).")
    raise InputError(f"{place} is no .npy, .zarr, FILE.h5:NAME or folder of images.")


def _open_hdf5(file: Path, name: str) -> Any:
    try:
        import h5py
    except ImportError:
        raise InputError(f"Reading {file} needs h5py: pip install h5py.") from None
    opened = h5py.File(file, "r")
    if not isinstance(found := opened.get(name), h5py.Dataset):
        raise InputError(f"{file} has no array {name!r}; it has {', '.join(opened)}.")
    return found


def _open_zarr(place: Path) -> Any:
    import zarr

    found = zarr.open(place, mode="r")
    if not isinstance(found, zarr.Array):
        raise InputError(f"{place} is a group of arrays; name one of them: {', '.join(sorted(found))}.")
    return found
