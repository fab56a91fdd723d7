"""Warnings that are kept back in one thread, seen from libraries that look at the filters themselves."""

from __future__ import annotations

import pickle
import warnings
from threading import Thread

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from cfi_core.silence import without_warnings


def test_only_this_thread_is_silent():
    said = []

    def speak() -> None:
        with pytest.warns(UserWarning, match="out loud"):
            warnings.warn("out loud", stacklevel=1)
        said.append(True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with without_warnings("out"):
            warnings.warn("out loud", stacklevel=1)
            other = Thread(target=speak)
            other.start()
            other.join()
    assert said == [True]


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_forests_hand_the_filters_on_to_their_workers(backend):
    """They read what each filter matches, and set it up again in the worker."""
    inputs = np.random.default_rng(0).normal(size=(40, 3))
    forest = RandomForestClassifier(4, n_jobs=2, random_state=0).fit(inputs, inputs[:, 0] > 0)
    expected = forest.predict_proba(inputs)
    with without_warnings(), joblib.parallel_backend(backend):
        np.testing.assert_array_equal(forest.predict_proba(inputs), expected)


def test_elsewhere_the_filter_matches_nothing():
    with without_warnings("out"):
        _, pattern, *_ = pickle.loads(pickle.dumps(warnings.filters[0]))
    assert pattern.match("out loud") is None
