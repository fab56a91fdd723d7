"""Spectral clustering: a graph of neighbours, the lowest eigenvalues of its Laplacian, and groups in its eigenvectors.

What scikit-learn's `SpectralClustering` does in one step is taken apart here, because the eigenvalues are needed: the
gap between them says how many clusters there are (von Luxburg 2007, "A tutorial on spectral clustering").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cfi_core.errors import ArgumentError

CUT = 0.01
"""Added to both eigenvalues of a gap. Of the links of the smaller side of any split at least half of the second
eigenvalue lead out of it (Cheeger's inequality): groups that one link in a hundred joins are as good as separate, and
how much smaller an eigenvalue is says nothing."""

_DENSE = 1500
"""Up to so many samples all of the matrix is taken, which is quicker."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Of the normalized Laplacian of a graph of neighbours.

    Attributes:
        eigenvalues: The lowest ones, in order; as many of them are zero as the graph has components.
        vectors: Their eigenvectors (sample, eigenvalue), orthonormal.
    """

    eigenvalues: np.ndarray
    vectors: np.ndarray

    @property
    def gaps(self) -> np.ndarray:
        """How many times each eigenvalue the next one is: the first gap is that behind one cluster."""
        return gaps_between(self.eigenvalues)

    def groups(self, count: int, seed: int) -> np.ndarray:
        """The group of each sample, the largest first (Ng, Jordan and Weiss 2001)."""
        from sklearn.cluster import KMeans

        rows = self.vectors[:, :count]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(lengths > 0, lengths, 1)
        found = KMeans(count, n_init=10, random_state=seed).fit_predict(rows)
        order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
        return np.argsort(order)[found]


def gaps_between(eigenvalues: np.ndarray) -> np.ndarray:
    """A gap behind each eigenvalue but the last: k clusters have k that are small and one that is large beside them.

    Differences do not show that: where the eigenvalues of a class rise by 0.1 from one to the next, the step from 0 to
    0.07 is no larger than others, and yet it is the one from two separate groups to two that are not.
    """
    return (eigenvalues[1:] + CUT) / (eigenvalues[:-1] + CUT)


def spectrum_of(points: np.ndarray, neighbours: int, count: int, seed: int) -> Spectrum:
    """The spectrum of the graph in which each sample is joined to its nearest ones, by either of the two.

    Args:
        points: (sample, coordinate).
        neighbours: How many nearest samples each is joined to.
        count: Least number of eigenvalues; where the graph falls into more components, one more than there are.
        seed: For the vector that the iteration starts from.

    Raises:
        ArgumentError: scikit-learn is not installed.
    """
    try:
        from scipy.sparse import csgraph
        from sklearn.neighbors import kneighbors_graph
    except ImportError as error:
        raise ArgumentError("Clusters are found by scikit-learn: pip install 'cfi-scale[clusters]'.") from error
    graph = kneighbors_graph(points, neighbours)
    graph = graph.maximum(graph.T)
    components, component = csgraph.connected_components(graph, directed=False)
    laplacian = csgraph.laplacian(graph, normed=True)
    count = min(max(count, components + 1), len(points))
    if len(points) <= _DENSE:
        return _dense(laplacian, count)
    return _sparse(laplacian, graph, component, count, seed)


def _dense(laplacian: Any, count: int) -> Spectrum:
    from scipy.linalg import eigh

    values, vectors = eigh(laplacian.toarray(), subset_by_index=(0, count - 1))
    return Spectrum(np.maximum(values, 0), vectors)


def _sparse(laplacian: Any, graph: Any, component: np.ndarray, count: int, seed: int) -> Spectrum:
    """By Lanczos iteration.

    It misses some of several equal eigenvalues. But those that are zero are known: a vector for each component. So they
    are taken out, and only the others are looked for.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    known = _null_space(graph, component)
    start = np.random.default_rng(seed).normal(size=len(component))
    turned = LinearOperator(  # the lowest become the highest; the known ones go to zero
        laplacian.shape, lambda vector: 2 * (vector - known @ (known.T @ vector)) - laplacian @ vector, dtype=float
    )
    values, vectors = eigsh(turned, k=count - known.shape[1], which="LA", v0=start - known @ (known.T @ start))
    order = np.argsort(-values)
    zeros = np.zeros(known.shape[1])
    return Spectrum(
        np.concatenate([zeros, np.maximum(2 - values[order], 0)]), np.concatenate([known, vectors[:, order]], axis=1)
    )


def _null_space(graph: Any, component: np.ndarray) -> np.ndarray:
    """An orthonormal vector (sample, component) for each component: the square roots of the degrees of its samples."""
    roots = np.sqrt(np.asarray(graph.sum(1), float).ravel())
    vectors = roots[:, None] * (component[:, None] == np.arange(component.max() + 1))
    return vectors / np.linalg.norm(vectors, axis=0)
