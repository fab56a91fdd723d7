"""What a run may leave behind: on the model, in the process, in memory."""

from __future__ import annotations

import gc
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cfi_core.adapters import adapter_for
from cfi_core.detection import detect_framework
from cfi_core.framework import FrameworkAdapter
from cfi_core.registry import registry

Tree = Mapping[str, Any]

_STATM = Path("/proc/self/statm")
_PAGE = 4096
_GROWTH = 16 * 2**20
"""Bytes by which resident memory may grow over a hundred calls on a small model: allocators keep some at hand."""

_STRAY = 8
"""Objects that come and go in any process."""

_HALVES = 3
"""In so many halves one after the other memory has to grow to count as lost."""


def adapter_of(model: Any) -> FrameworkAdapter:
    """The adapter of the framework that a model lives in."""
    return adapter_for(registry(), detect_framework(registry(), model).name)


@contextmanager
def unchanged(model: Any, culprit: str) -> Iterator[None]:
    """Fails if the model holds something else afterwards, as far as its adapter can tell, or bears marks."""
    adapter = adapter_of(model)
    before = adapter.fingerprint(model)
    known = adapter.fingerprint(model) == before  # otherwise it is another one each time, and cannot tell a change
    marks = marks_on(model, adapter)
    yield
    assert not known or adapter.fingerprint(model) == before, f"{culprit} changed the model"
    left = differences(marks, marks_on(model, adapter))
    assert not left, f"{culprit} left marks on the model: {', '.join(left)}"


@contextmanager
def keep_process(culprit: str) -> Iterator[None]:
    """Fails if generators, warning filters or environment variables of the process are others afterwards."""
    before = process_state()
    yield
    left = differences(before, process_state())
    assert not left, f"{culprit} changed the process: {', '.join(left)}"


def marks_on(model: Any, adapter: FrameworkAdapter) -> Tree:
    """The attributes of the model and its layers: what each is, and how much it holds. A hook makes one hold more."""
    objects = {"model": model}
    for layer in adapter.layers(adapter.load(model)):
        objects[layer.name] = adapter.layer_object(adapter.load(model), layer.name)
    attributes = ((name, *pair) for name, owner in objects.items() for pair in vars_of(owner).items())
    return {f"{name}.{attribute}": _form(value) for name, attribute, value in attributes}


def vars_of(owner: Any) -> Tree:
    """The attributes that an object itself has."""
    return dict(getattr(owner, "__dict__", {}))


def _form(value: Any) -> Any:
    if isinstance(value, (Mapping, Sequence, set)):
        return type(value), len(value)
    return id(value) if callable(value) else type(value)


def process_state() -> Tree:
    """Generators, warning filters and environment variables of the process."""
    current = registry()
    loaded = [spec.name for spec in current.frameworks.values() if spec.module in sys.modules]
    return {
        "Python's generator": random.getstate(),
        "numpy's generator": repr(np.random.get_state()),
        **{f"the generators of {name}": adapter_for(current, name).random_state() for name in loaded},
        "the environment": dict(os.environ),
        "the warning filters": list(warnings.filters),
    }


def differences(before: Tree, after: Tree) -> list[str]:
    """Names of what is another one, or there once only."""
    return [name for name in {**before, **after} if (name in before, name in after) != (True, True)] + [
        name for name in before if name in after and not same(before[name], after[name])
    ]


def same(one: Any, other: Any) -> bool:
    """Whether two values, arrays among them, are equal to the last bit."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind in "fc")
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return bool(one is other or one == other)


@dataclass(frozen=True)
class Memory:
    """How much the process holds.

    Attributes:
        objects: Live Python objects, as the garbage collector counts them.
        resident: Bytes of resident memory; 0 where the system does not tell.
    """

    objects: int
    resident: int

    @staticmethod
    def now() -> Memory:
        """After what nobody refers to is gone."""
        gc.collect()
        resident = int(_STATM.read_text().split()[1]) * _PAGE if _STATM.exists() else 0
        return Memory(len(gc.get_objects()), resident)


def assert_flat(repeat: Callable[[], Any], times: int, what: str, *, kept: int = 0) -> None:
    """Fails if memory grows with repetitions: by an object for each of them, or by much resident memory.

    The first half of the repetitions fills what is kept by right, such as caches. `kept` objects of each repetition
    are allowed for. What is lost is lost in each of several halves; memory that is handed out in pieces may grow once.
    """
    half = times // 2
    for _ in range(half):
        repeat()
    for _ in range(_HALVES):
        before = Memory.now()
        for _ in range(half):
            repeat()
        after = Memory.now()
        grown, resident = after.objects - before.objects, after.resident - before.resident
        if grown < max(half - _STRAY, _STRAY) + kept * half and resident < _GROWTH:
            return
    raise AssertionError(f"{what}: {half} rounds leave {grown} objects behind, and {resident / 2**20:.0f} MiB")
