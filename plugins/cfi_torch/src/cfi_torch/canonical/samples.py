"""Frees a recording from the number of samples that it was made with.

A model may compute with the number of samples in any way: `x.view(len(x), -1)`. Nothing of that can be seen in one
recording, where it is a number like any other. So the pass is recorded with several numbers, and what differs between
the recordings is that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

import torch

from cfi_core.errors import MethodError
from cfi_torch.canonical.program import Constant, Ref, Sized, Step, Weight, map_entries
from cfi_torch.canonical.recording import Recording

COUNTS = (2, 3, 4)
"""Two numbers tell a factor and an offset, the third whether that is all; one sample would hide squeezed axes."""


def record_for_any(make: Callable[[int], Recording], given: int) -> Recording:
    """One recording that is right for any number of samples; for the given one, if the model takes no other.

    Raises:
        MethodError: What the model does depends on the number in another way than by whole multiples of it.
    """
    recordings: list[Recording] = []
    refusals: list[MethodError] = []
    for count in COUNTS:
        try:
            recordings.append(make(count))
        except MethodError as error:
            refusals.append(error)
        except Exception:  # noqa: BLE001 - the model may take a fixed number of samples, and says so in any way
            continue
    if refusals:
        raise refusals[0]
    if len(recordings) < len(COUNTS):
        return make(given)
    return _Merger([one.samples for one in recordings]).merge(recordings)


class _Merger:
    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = counts
        self._where = ""

    def merge(self, recordings: Sequence[Recording]) -> Recording:
        first, *others = recordings
        if any(len(one.steps) != len(first.steps) or one.calls != first.calls for one in others):
            self._refuse()
        steps = tuple(self._step(each) for each in zip(*(one.steps for one in recordings), strict=True))
        constants = [one.constants for one in recordings]
        if len({len(each) for each in constants}) > 1 or not all(map(_are_equal, zip(*constants, strict=True))):
            self._refuse()
        return replace(first, steps=steps, output=self._value([one.output for one in recordings]))

    def _step(self, steps: Sequence[Step]) -> Step:
        first = steps[0]
        self._where = f" at `{first.module or getattr(first.function, '__name__', first.function)}`" + (
            f" in module '{first.scope}'" if first.scope else ""
        )
        for one in steps[1:]:
            alike = one.function == first.function and one.records == first.records
            if not alike or (one.module, one.scope) != (first.module, first.scope):
                self._refuse()
        return replace(
            first, args=self._value([one.args for one in steps]), kwargs=self._value([one.kwargs for one in steps])
        )

    def _value(self, values: Sequence[Any]) -> Any:
        first = values[0]
        if any(type(one) is not type(first) for one in values):
            self._refuse()
        if isinstance(first, Ref | Weight | Constant):
            return first if all(one == first for one in values) else self._refuse()
        if isinstance(first, Mapping):
            is_alike = all(list(one) == list(first) for one in values)
        elif isinstance(first, tuple | list):
            is_alike = all(len(one) == len(first) for one in values)
        elif isinstance(first, slice):
            is_alike = True
        else:
            return self._plain(values)
        return map_entries(lambda *each: self._value(each), *values) if is_alike else self._refuse()

    def _plain(self, values: Sequence[Any]) -> Any:
        first = values[0]
        with suppress(Exception):  # values of any class may refuse to be compared
            if all(one is first or bool(one == first) or (one != one and first != first) for one in values):
                return first
        if type(first) is int:
            factor, rest = divmod(values[1] - first, self._counts[1] - self._counts[0])
            offset = first - factor * self._counts[0]
            if not rest and all(
                one == factor * count + offset for one, count in zip(values, self._counts, strict=True)
            ):
                return Sized(factor, offset)
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise MethodError(
            f"what the model does depends on the number of samples{self._where}: with {self._counts[0]} it is not what "
            f"it is with {self._counts[1]}. Rewrite that place so that it does not."
        )


def _are_equal(tensors: Sequence[torch.Tensor]) -> bool:
    first = tensors[0]
    alike = all(one.shape == first.shape and one.dtype == first.dtype for one in tensors)
    return alike and all(one is first or torch.equal(one, first) for one in tensors)
