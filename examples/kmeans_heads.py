"""Why is a digit in its cluster? K-means as a network, explained by layer-wise relevance propagation.

The discriminant of cluster `c` is `f_c(x) = min over k != c of |x - m_k|**2 - |x - m_c|**2`: positive where `x` belongs
to `c`, and linear in `x` before the minimum (Kauffmann et al. 2022, From Clustering to Cluster Explanations via Neural
Networks). So it is a linear layer and a pooling, on which Zennit's rules work, alone or behind other layers.

    python examples/kmeans_heads.py kmeans.png
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch import Tensor, nn
from zennit.core import Hook
from zennit.rules import Epsilon

import cfi_core as cfi


class SoftMinimum(nn.Module):
    """The soft minimum over the last axis, `-log(mean(exp(-beta * x))) / beta`.

    Its gradient shares by `softmin(beta * x)`, which is the rule that the paper gives to the minimum: all relevance
    goes on, and most to the nearest competitor.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, values: Tensor) -> Tensor:
        """The minima."""
        return (np.log(values.shape[-1]) - torch.logsumexp(-self.beta * values, -1)) / self.beta


def kmeans_head(centroids: np.ndarray, beta: float) -> nn.Sequential:
    """A head that gives the discriminants of all clusters, shape (samples, clusters), for features in front of it."""
    count, size = centroids.shape
    linear = nn.Linear(size, count * (count - 1))
    others = [[k for k in range(count) if k != c] for c in range(count)]
    weights = [2 * (centroids[c] - centroids[k]) for c in range(count) for k in others[c]]
    biases = [(centroids[k] ** 2).sum() - (centroids[c] ** 2).sum() for c in range(count) for k in others[c]]
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(np.array(weights)))
        linear.bias.copy_(torch.tensor(np.array(biases)))
    return nn.Sequential(linear, nn.Unflatten(1, (count, count - 1)), SoftMinimum(beta)).eval()


def explain(model: nn.Module, images: np.ndarray, clusters: Any) -> cfi.Attribution:
    """Relevance of each pixel for membership in a cluster.

    `zennit.core.Hook()`, which changes nothing, says that the gradient is the rule of the minimum.
    """
    rules = [(nn.Linear, Epsilon(1e-6)), (SoftMinimum, Hook())]
    found = cfi.attribute(
        model, "zennit_lrp", inputs=images, target=clusters, init_args={"composite": "epsilon_plus", "layer_map": rules}
    )
    assert isinstance(found, cfi.Attribution)
    return found


def main(path: str) -> None:
    """Clusters scikit-learn's digits, explains one member of each cluster, and draws them."""
    pixels = load_digits().data.astype(np.float32) / 16
    kmeans = KMeans(10, n_init=4, random_state=0).fit(pixels)
    model = kmeans_head(kmeans.cluster_centers_, beta=5.0)
    discriminants = model(torch.tensor(pixels)).detach().numpy()
    print(
        f"The network puts {np.mean(discriminants.argmax(1) == kmeans.labels_):.1%} of the digits where k-means does."
    )
    members = np.array([np.flatnonzero(kmeans.labels_ == cluster)[0] for cluster in range(10)])
    found = explain(model, pixels[members], list(range(10)))
    kept = found.values.sum(1) / discriminants[members, range(10)]
    print(f"Of the discriminants, pixels keep {kept.min():.2f} to {kept.max():.2f}; the rest is the biases'.")
    figure = Figure((10, 2.2))
    for place, (image, relevance) in enumerate(zip(pixels[members], found.values, strict=True)):
        for row, picture, colours in ((0, image, "gray_r"), (1, relevance, "seismic")):
            axes = figure.add_subplot(2, 10, row * 10 + place + 1)
            bound = np.abs(picture).max()
            axes.imshow(picture.reshape(8, 8), cmap=colours, vmin=-bound if row else 0, vmax=bound)
            axes.set_axis_off()
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "kmeans.png")
