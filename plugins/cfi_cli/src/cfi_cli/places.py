"""Where answers are written: looked at before anything runs, so that no run is lost to a wrong path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cfi_core as cfi
from cfi_cli.terminal import say


def check_places(places: Sequence[Path], suffixes: Sequence[str], *, folders: bool = False) -> None:
    """Refuses what cannot be written to.

    Args:
        places: What `-o` names.
        suffixes: Of the files that can be written.
        folders: Whether a folder will do, which is what a name without a suffix means.

    Raises:
        ArgumentError: A name has none of the suffixes, or there is no place for it.
    """
    for place in places:
        known = ", ".join(sorted(suffixes))
        if is_folder(place):
            if not folders:
                raise cfi.ArgumentError(f"-o {place}: name a file that ends in one of {known}.")
            if place.exists() and not place.is_dir():
                raise cfi.ArgumentError(
                    f"-o {place} exists and is no folder: name one, or a file that ends in {known}."
                )
        elif place.suffix.lower() not in suffixes:
            raise cfi.ArgumentError(f"-o {place}: nothing writes {place.suffix!r} files here. Known are {known}.")
        _check_above(place)


def is_folder(place: Path) -> bool:
    """Whether a folder is meant."""
    return not place.suffix or place.is_dir()


def make_folder(place: Path) -> None:
    """The folder that `-o` names; one that was not there is told."""
    if not place.exists():
        say(f"-o {place} has no suffix, so it becomes a folder.")
        with writing(place):
            place.mkdir(parents=True)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """What is written inside fails in words.

    Raises:
        ArgumentError: The system refuses it.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise cfi.ArgumentError(f"-o {place} cannot be written: {error.strerror or error}.") from error


def _check_above(place: Path) -> None:
    """That the folder in which something has to be made is one, and ours."""
    there = next(one for one in (place, *place.absolute().parents) if one.exists())
    if there != place and not there.is_dir():
        raise cfi.ArgumentError(f"-o {place}: {there} is no folder.")
    if not os.access(there, os.W_OK):
        raise cfi.ArgumentError(f"-o {place}: nothing can be written to {there}.")
