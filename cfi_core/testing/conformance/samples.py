"""A small model and its inputs, on which a conformance class tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

_Result = TypeVar("_Result")
THREADS = 3


class SampleConformance(ABC):
    """Tests on a small model and its inputs."""

    @abstractmethod
    def make_model(self) -> Any:
        """A small model: of the toolset's framework, of the translator's source, of any framework to bridge from."""

    @abstractmethod
    def make_inputs(self) -> np.ndarray:
        """Two samples or more, in the model's axis order, with no two axes of one size."""

    def test_the_inputs_tell_axes_and_samples_apart(self) -> None:
        """A transposed value, a permutation told wrongly, or one sample for all would go unnoticed otherwise."""
        shape = self.make_inputs().shape
        assert shape[0] >= 2, f"inputs of shape {shape} hold one sample; make two or more"
        advice = "make them all different, so that none can be swapped"
        assert len(set(shape)) == len(shape), f"inputs of shape {shape} have axes of one size; {advice}"


def assert_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Fails if values differ by more than two frameworks do."""
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=f"{what} is another one")


@contextmanager
def raises(kind: type[Exception], what: str) -> Iterator[None]:
    """Fails unless an error of that kind is raised inside."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{what} raises no {kind.__name__}")


def in_threads(task: Callable[[int], _Result]) -> list[_Result]:
    """What a task gives in several threads at the same time, each of which is told its number."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(task, range(THREADS)))
