"""While passes are recorded, CFI stands in for methods of Keras, and leaves what others have put there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras.src.ops.function import Function

from cfi_core.framework import Passes
from cfi_tensorflow.adapter import TensorFlowAdapter

ADAPTER = TensorFlowAdapter()
X = np.ones((3, 4), np.float32)
PLACES = [(Function, "_run_through_graph"), (TensorFlowTrainer, "predict")]


@pytest.fixture
def model() -> keras.Model:
    given = keras.Input((4,))
    return keras.Model(given, keras.layers.Dense(2)(given))


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    former = [getattr(owner, name) for owner, name in PLACES]
    yield
    for (owner, name), method in zip(PLACES, former, strict=True):
        setattr(owner, name, method)


def somebodys(name: str, calls: list[str]) -> Callable[..., Any]:
    """A function in the place of the present one, which it calls."""
    owner = {name: owner for owner, name in PLACES}[name]
    present = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return present(*args, **kwargs)

    setattr(owner, name, call)
    return call


def run(model: keras.Model) -> int:
    """How many passes are recorded of one by each method."""
    passes = Passes(0)
    with ADAPTER.watch_passes(model, passes):
        model(X)
        model.predict(X, verbose=0)
    return passes.count


def test_the_methods_are_the_librarys_own_afterwards(model: keras.Model) -> None:
    before = [getattr(owner, name) for owner, name in PLACES]
    assert run(model) == 2
    assert [getattr(owner, name) for owner, name in PLACES] == before


@pytest.mark.parametrize("name", [name for _, name in PLACES])
def test_what_somebody_put_there_before_is_called_and_stays(model: keras.Model, name: str) -> None:
    calls: list[str] = []
    call = somebodys(name, calls)
    for count in (1, 2):
        assert run(model) == 2
        assert call in [getattr(owner, name) for owner, name in PLACES] and calls.count(name) >= count


@pytest.mark.parametrize("name", [name for _, name in PLACES])
def test_what_somebody_puts_there_meanwhile_stays_and_works(model: keras.Model, name: str) -> None:
    calls: list[str] = []
    with ADAPTER.watch_passes(model, Passes(0)):
        call = somebodys(name, calls)
    assert call in [getattr(owner, name) for owner, name in PLACES]
    for count in (1, 2):
        assert run(model) == 2 and calls.count(name) >= count
    assert call in [getattr(owner, name) for owner, name in PLACES]
    assert np.allclose(model.predict(X, verbose=0), model(X))


@pytest.mark.parametrize("name", [name for _, name in PLACES])
def test_what_somebody_puts_back_in_between_is_the_librarys(model: keras.Model, name: str) -> None:
    owner = {name: owner for owner, name in PLACES}[name]
    before = getattr(owner, name)
    with ADAPTER.watch_passes(model, Passes(0)):
        somebodys(name, [])
    setattr(owner, name, before)
    assert run(model) == 2
    assert getattr(owner, name) is before
