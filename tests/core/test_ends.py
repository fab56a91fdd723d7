"""What of a model's outputs a call is about: what lies beside it is neither checked nor carried."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import targets
from cfi_core.arrays import ArrayAdapter
from cfi_core.checking.ends import Chain
from cfi_core.framework import Pick

X = np.random.default_rng(0).normal(size=(3, 4))
WEIGHTS = np.arange(1.0, 13.0).reshape(4, 3)


@pytest.fixture(autouse=True)
def toolset(omission: None) -> None:
    """Explains functions of arrays by what their outputs lose without an element."""


def scores(x: np.ndarray) -> np.ndarray:
    return x @ WEIGHTS


def beside_a_loss(x: np.ndarray) -> dict[str, Any]:
    """Nothing but the logits is a score of samples."""
    return {"loss": np.float64(np.nan), "logits": scores(x), "ids": np.arange(7)}


def nested(x: np.ndarray) -> dict[str, Any]:
    return {"heads": [scores(x), -scores(x)], "cache": np.full((2, 2), np.nan)}


def explain(model: Any, target: Any = None, x: np.ndarray = X) -> np.ndarray:
    found = cfi.attribute(model, "omit", inputs=x, target=target)
    assert isinstance(found, cfi.Attribution)
    return found.values


def test_what_lies_beside_an_output_is_not_looked_at():
    np.testing.assert_allclose(explain(beside_a_loss, 1), X * WEIGHTS[:, 1])
    np.testing.assert_allclose(explain(nested, ("heads", 1, 2)), -X * WEIGHTS[:, 2])
    with pytest.raises(cfi.InputError, match="need the sample axis first"):
        explain(nested, ("cache", 0))


def test_a_function_of_an_output_is_behind_it():
    np.testing.assert_allclose(explain(nested, ("heads", 1, lambda one: one[:, 0])), -X * WEIGHTS[:, 0])
    both = Chain(Pick(("heads", 1)), targets.class_(2))
    np.testing.assert_allclose(both(nested(X)), -scores(X)[:, 2])


def test_a_function_that_mixes_what_is_of_all_samples():
    """It is examined where it ends: nobody can tell its outputs apart."""

    def transposed(x: np.ndarray) -> dict[str, np.ndarray]:
        return {"table": scores(x).T[None]}

    found = explain(transposed, lambda outputs: outputs["table"][0, 1])
    np.testing.assert_allclose(found, X * WEIGHTS[:, 1])


def test_a_model_that_cannot_end_elsewhere(monkeypatch):
    monkeypatch.setattr(ArrayAdapter, "ended_by", lambda self, model, end: None)

    def pair(x: np.ndarray) -> dict[str, Any]:
        return {"first": scores(x), "second": -scores(x)}

    np.testing.assert_allclose(explain(pair, lambda outputs: outputs["second"][:, 1]), -X * WEIGHTS[:, 1])
    with pytest.raises(cfi.TargetError, match=r"cannot be made to end in its output \('heads', 1\)"):
        explain(lambda x: {"heads": nested(x)["heads"]}, ("heads", 1, 2))
    with pytest.raises(cfi.InputError, match="need the sample axis first"):
        explain(beside_a_loss, ("logits", 1))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda outputs: outputs["table"][0, 5], "fails on the outputs of your model .*IndexError"),
        (lambda outputs: outputs["table"][0].sum(1)[:2], r"must return one value per sample \(4 samples\)"),
    ],
)
def test_a_function_that_fails_or_gives_something_else(function, message):
    rows = np.random.default_rng(1).normal(size=(4, 4))
    with pytest.raises(cfi.TargetError, match=message):
        explain(lambda x: {"table": scores(x).T[None]}, function, rows)
