"""What rows compute by hand: derivatives in the model's own framework, and slow perturbations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Predict = Callable[[np.ndarray], np.ndarray]
"""Of samples, one value for each."""


def torch_gradient(score: Callable[[Any], Any], inputs: Any) -> np.ndarray:
    """The derivative of a score with respect to a torch tensor; the score is summed over its samples."""
    import torch

    leaf = torch.as_tensor(inputs).detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
    return gradient.detach().float().numpy()


def torch_layer(score: Callable[[], Any], layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a module gives in one pass, and the derivative of the score with respect to it."""
    import torch

    kept: list[Any] = []

    def keep(module: Any, inputs: Any, output: Any) -> Any:
        kept.append(output[0] if isinstance(output, tuple) else output)
        kept[-1].requires_grad_()

    handle = layer.register_forward_hook(keep)
    try:
        total = score().sum()
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(total, kept[0])
    return kept[0].detach().float().numpy(), gradient.detach().float().numpy()


def torch_output(score: Callable[..., Any]) -> Predict:
    """A score of torch tensors as a function of arrays, without gradients."""
    import torch

    def predict(samples: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return score(torch.as_tensor(samples)).float().numpy()

    return predict


def keras_gradient(score: Callable[[Any], Any], inputs: np.ndarray) -> np.ndarray:
    """The derivative of a score with respect to a TensorFlow tensor."""
    import tensorflow as tf

    tensor = tf.convert_to_tensor(inputs)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        total = tf.reduce_sum(score(tensor))
    return tape.gradient(total, tensor).numpy()


def jax_gradient(score: Callable[[Any], Any], inputs: np.ndarray) -> np.ndarray:
    """The derivative of a score with respect to a JAX array."""
    import jax
    import jax.numpy as jnp

    return np.asarray(jax.grad(lambda x: score(x).sum())(jnp.asarray(inputs)))


def cam(activation: np.ndarray, gradient: np.ndarray, channel: int) -> np.ndarray:
    """Grad-CAM without its rectifier (Selvaraju et al. 2017): weights are the means of the gradient over the map."""
    maps = tuple(axis for axis in range(1, activation.ndim) if axis != channel)
    return (activation * gradient.mean(maps, keepdims=True)).sum(channel)


def ablation(predict: Predict, samples: np.ndarray, baseline: Any = 0) -> np.ndarray:
    """What each feature adds: the score less the one with the baseline in its place."""
    values = np.zeros(samples.shape, np.float64)
    filled = np.broadcast_to(np.asarray(baseline, samples.dtype), samples.shape)
    whole = predict(samples)
    for place in np.ndindex(samples.shape[1:]):
        changed = samples.copy()
        changed[:, *place] = filled[:, *place]
        values[:, *place] = whole - predict(changed)
    return values


def group_ablation(predict: Predict, samples: np.ndarray, mask: np.ndarray, baseline: Any = 0) -> np.ndarray:
    """What each group of features adds, written to each of its features."""
    values = np.zeros(samples.shape, np.float64)
    groups, whole = np.broadcast_to(mask, samples.shape), predict(samples)
    for group in np.unique(groups):
        changed = np.where(groups == group, np.asarray(baseline, samples.dtype), samples)
        gain = (whole - predict(changed)).reshape(-1, *(1,) * (samples.ndim - 1))
        values += np.where(groups == group, gain, 0)
    return values


def shapley(predict: Predict, samples: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Shapley values by their definition, over all subsets of the features of a table."""
    from itertools import combinations
    from math import factorial

    features = samples.shape[1]
    values = np.zeros(samples.shape, np.float64)
    for feature in range(features):
        others = [one for one in range(features) if one != feature]
        for size in range(features):
            weight = factorial(size) * factorial(features - size - 1) / factorial(features)
            for subset in combinations(others, size):
                without = np.broadcast_to(baseline, samples.shape).copy()
                without[:, list(subset)] = samples[:, list(subset)]
                joined = without.copy()
                joined[:, feature] = samples[:, feature]
                values[:, feature] += weight * (predict(joined) - predict(without))
    return values


def integrate(
    gradient: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray, baseline: Any, steps: int
) -> np.ndarray:
    """Integrated gradients (Sundararajan et al. 2017) by the Gauss–Legendre rule, as captum sums them."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    start = np.broadcast_to(np.asarray(baseline, inputs.dtype), inputs.shape)
    total = sum(
        weight / 2 * gradient((start + (node + 1) / 2 * (inputs - start)).astype(inputs.dtype)).astype(np.float64)
        for node, weight in zip(nodes, weights, strict=True)
    )
    return total * (inputs - start)


def keras_layer(score: Callable[[], Any], layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a Keras layer gives where it is called first, and the derivative of the score with respect to it."""
    import tensorflow as tf

    kept: list[Any] = []
    call = layer.call

    def keep(*given: Any, **named: Any) -> Any:
        kept.append(call(*given, **named))
        return kept[-1]

    layer.call = keep
    try:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(score())
    finally:
        layer.call = call
    return kept[0].numpy(), tape.gradient(total, kept[0]).numpy()


def keras_from(layer: Any, score: Callable[[], Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Of vectors in place of what a Keras layer gives where it is called first: the derivative of the score there."""
    import tensorflow as tf

    def gradient(vectors: np.ndarray) -> np.ndarray:
        tensor, calls, call = tf.convert_to_tensor(vectors), [], layer.call

        def replace(*given: Any, **named: Any) -> Any:
            calls.append(1)
            return tensor if len(calls) == 1 else call(*given, **named)

        layer.call = replace
        try:
            with tf.GradientTape() as tape:
                tape.watch(tensor)
                total = tf.reduce_sum(score())
        finally:
            layer.call = call
        return tape.gradient(total, tensor).numpy()

    return gradient
