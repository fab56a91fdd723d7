"""The example of k-means as a network: the same clusters, and relevance that is kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXAMPLES))
    import kmeans_heads

    yield kmeans_heads
    sys.path.remove(str(EXAMPLES))


def test_a_head_gives_the_clusters_and_the_differences_of_distances(example: ModuleType) -> None:
    generator = np.random.default_rng(0)
    centroids, points = generator.normal(size=(4, 6)), generator.normal(size=(50, 6))
    squares = ((points[:, None] - centroids) ** 2).sum(-1)
    found = example.kmeans_head(centroids, beta=200.0).double()(torch.tensor(points)).detach().numpy()
    assert (found.argmax(1) == squares.argmin(1)).all()
    others = np.where(np.eye(4, dtype=bool), np.inf, squares[:, None, :]).min(-1)
    np.testing.assert_allclose(found, others - squares, atol=2 * np.log(3) / 200)


def test_relevance_is_kept_but_for_the_biases(example: ModuleType) -> None:
    generator = np.random.default_rng(1)
    centroids, points = generator.normal(size=(4, 6)), generator.normal(size=(5, 6)).astype(np.float32)
    found = example.explain(example.kmeans_head(centroids, beta=3.0), points, [0, 1, 2, 3, 0])
    assert found.provenance["completeness"]["gap"] < 1e-3
    of_minimum = found.extras["conservation"]["2"]
    np.testing.assert_allclose(of_minimum["leaves"], of_minimum["arrives"], rtol=1e-5)


def test_it_runs(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(str(tmp_path / "kmeans.png"))
    assert "100.0% of the digits" in capsys.readouterr().out
    assert (tmp_path / "kmeans.png").stat().st_size > 5000
