"""SpRAy on Clever Hans: clusters of explanations tell poisoned samples from others, and not in a clean network."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spray")


@pytest.fixture(scope="module")
def found(folder: Path) -> Iterator[Any]:
    """Two seeds, a poisoned and a clean network of each."""
    sys.path.insert(0, str(EXAMPLES))
    yield import_module("spray").main(["--quick", "--output", str(folder)])
    sys.path.remove(str(EXAMPLES))


def test_what_is_suspected_is_poisoned_in_every_network(found: Any) -> None:
    assert len(found.poisoned) == 2
    for one in found.poisoned:
        assert one.precision > 0.95, one  # 0.29 by chance
        assert one.recall > 0.8, one


def test_the_clusters_are_the_truth_in_most_classes(found: Any) -> None:
    for one in found.poisoned:
        in_clusters = [rand for rand, count in zip(one.rand, one.clusters, strict=True) if count > 1]
        assert len(in_clusters) >= 8 and np.median(in_clusters) > 0.8, one


def test_a_clean_network_has_no_such_clusters(found: Any) -> None:
    for poisoned, clean in zip(found.poisoned, found.clean, strict=True):
        # Its pictures have the same squares: if it has clusters, they are of something else.
        assert max(map(abs, clean.rand)) < 0.2, clean
        assert sum(count > 1 for count in clean.clusters) < sum(count > 1 for count in poisoned.clusters)
        assert np.median(clean.gaps) < np.median(poisoned.gaps)
        assert np.median(clean.second) > 2 * np.median(poisoned.second)


def test_the_numbers_and_pictures_are_written(found: Any, folder: Path) -> None:
    written = json.loads((folder / "spray.json").read_text())
    assert [one["precision"] for one in written["poisoned"]] == [one.precision for one in found.poisoned]
    names = {path.stem for path in folder.glob("*.png")}
    assert names == {f"spray-{name}" for name in ("clusters-poisoned", "clusters-clean", "means", "top")}
