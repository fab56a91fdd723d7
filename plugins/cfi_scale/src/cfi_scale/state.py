"""How far a store is, read from the store alone."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cfi_scale.store import BAD, EXPLAINED, Store, place_of

_ERRORS = 5


@dataclass(frozen=True)
class Status:
    """How far a store is.

    Attributes:
        path: Of the store.
        question: What is asked: method, toolset, hash of the model, target, sizes.
        samples: How many there are to be; of a stream that is not at its end, how many there is room for.
        explained: How many are explained.
        bad: How many could not be.
        complete: Whether a run came to its end.
        errors: The most frequent errors, how often each came, and the id of one sample that has it.
        bytes: What the attributions of all samples take, before they are packed.
        rounding: How far off half precision is, relative to a sample's largest value; None where values are kept.
    """

    path: Path
    question: Mapping[str, Any]
    samples: int
    explained: int
    bad: int
    complete: bool
    errors: tuple[tuple[str, int, str], ...]
    bytes: int
    rounding: float | None = None

    def __str__(self) -> str:
        asked = self.question
        lines = [
            f"store      {self.path}",
            f"method     {asked['method_key']}" + (f" of {asked['toolset']}" if asked["toolset"] else ""),
            f"model      {asked['model'][:16]}",
            f"samples    {self.explained:,} explained, {self.bad:,} could not be{self._left}",
            f"chunks     of {asked['chunk_size']} samples, {asked['batch_size']} at a time",
            f"values     {_size(self.bytes)}, {asked['dtype']}",
        ]
        if self.rounding is not None:
            lines.append(f"rounding   at most {self.rounding:.1e} of a sample's largest value")
        lines += [f"error      {count:,} × {text} (such as {name})" for text, count, name in self.errors]
        lines.append("complete" if self.complete else "not complete: the same call, or command, goes on with the rest")
        return "\n".join(lines)

    @property
    def _left(self) -> str:
        if self.question["samples"] is None and not self.complete:
            return "; how many are left of the stream is not known"
        return f", {self.samples - self.explained - self.bad:,} left of {self.samples:,}"


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def status(store: str | os.PathLike[str]) -> Status:
    """How far a store is, also one that grows.

    Raises:
        StoreError: There is none, or it is of another kind.
    """
    opened = Store(place_of(store))
    own, samples = opened.own, int(opened.own["samples"])
    states = opened.states()
    sizes = [
        int(np.prod(one.shape)) * np.dtype(one.dtype).itemsize
        for name, one in opened.variables.items()
        if name.startswith("attribution")
    ]
    return Status(
        path=opened.path,
        question=own["question"],
        samples=samples,
        explained=int((states == EXPLAINED).sum()),
        bad=int((states == BAD).sum()),
        complete=bool(own.get("complete", False)),
        errors=_errors(opened, np.flatnonzero(states == BAD)),
        bytes=samples * sum(sizes),
        rounding=own.get("rounding"),
    )


def _errors(store: Store, places: np.ndarray) -> tuple[tuple[str, int, str], ...]:
    """The most frequent ones."""
    texts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for number in np.unique(places // store.chunk):
        start = int(number) * store.chunk
        stop = min(start + store.chunk, int(store.own["samples"]))
        errors, ids = store.read("error", start, stop), store.read("id", start, stop)
        for place in places[(places >= start) & (places < stop)] - start:
            texts[str(errors[place])] += 1
            names.setdefault(str(errors[place]), str(ids[place]))
    return tuple((text, count, names[text]) for text, count in texts.most_common(_ERRORS))


def as_json(found: Status) -> str:
    """The same for programs."""
    held = {name: getattr(found, name) for name in Status.__dataclass_fields__}
    return json.dumps({**held, "path": str(found.path)}, ensure_ascii=False, indent=2)
