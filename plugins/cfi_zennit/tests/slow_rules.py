"""The rules of layer-wise relevance propagation as their papers write them: one unit after the other, in numpy.

A layer is a matrix `w` (outputs, inputs) and a bias `b`, which counts as an input of one. `x` are the layer's inputs,
`r` the relevance of its outputs; all are flat. Nothing here knows torch's autograd or Zennit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Rule = Callable[[Array, Array, Array, Array], Array]
STABILIZER = 1e-6


def shared(contributions: Array, bias: float, r: float, stabilizer: float) -> Array:
    """Relevance of one unit shared by contributions."""
    total = contributions.sum() + bias
    return contributions / (total + (stabilizer if total >= 0 else -stabilizer)) * r


def each_unit(rule: Callable[[Array, Array, float, float], Array]) -> Rule:
    """The sum over all units of what `rule(x, weights, bias, relevance)` gives of one."""

    def of_layer(x: Array, w: Array, b: Array, r: Array) -> Array:
        total = np.zeros_like(x)
        for unit in range(len(w)):
            total = total + rule(x, w[unit], b[unit], r[unit])
        return total

    return of_layer


def positive(values: Array | float) -> Array:
    return np.maximum(values, 0.0)


def negative(values: Array | float) -> Array:
    return np.minimum(values, 0.0)


def epsilon(amount: float = 1e-6) -> Rule:
    """Bach et al. 2015, equation 58."""
    return each_unit(lambda x, w, b, r: shared(x * w, b, r, amount))


def gamma(amount: float = 0.25) -> Rule:
    """Montavon et al. 2019, section 10.2.3, made general for inputs of both signs by Andéol et al. 2021."""

    def of_unit(x: Array, w: Array, b: float, r: float) -> Array:
        z = x @ w + b
        if z == 0:
            return np.zeros_like(x)
        favoured, other = (positive, negative) if z > 0 else (negative, positive)
        contributions = positive(x) * (w + amount * favoured(w)) + negative(x) * (w + amount * other(w))
        return shared(contributions, float(b + amount * favoured(b)), r, STABILIZER)

    return each_unit(of_unit)


def alpha_beta(alpha: float, beta: float) -> Rule:
    """Bach et al. 2015, equation 60: positive and negative contributions apart, the bias in one of them, once."""

    def of_unit(x: Array, w: Array, b: float, r: float) -> Array:
        z = x * w
        helping = shared(positive(z), float(positive(b)), r, STABILIZER)
        return alpha * helping - beta * shared(negative(z), float(negative(b)), r, STABILIZER)

    return each_unit(of_unit)


def z_plus() -> Rule:
    """Montavon et al. 2017, equation 7, as alpha-beta with (1, 0)."""
    return alpha_beta(1.0, 0.0)


def z_box(low: float, high: float) -> Rule:
    """Montavon et al. 2017, table 1."""

    def of_unit(x: Array, w: Array, b: float, r: float) -> Array:
        return shared(x * w - low * positive(w) - high * negative(w), 0.0, r, STABILIZER)

    return each_unit(of_unit)


def w_square() -> Rule:
    """Montavon et al. 2017, table 1."""
    return each_unit(lambda x, w, b, r: shared(w**2, b**2, r, STABILIZER))


def flat() -> Rule:
    """Lapuschkin et al. 2019: the same to every input that the unit is connected to."""
    return each_unit(lambda x, w, b, r: shared((w != 0).astype(float), 0.0, r, STABILIZER))


def convolution(weight: Array, bias: Array, shape: tuple[int, int, int], padding: int) -> tuple[Array, Array]:
    """The matrix of a convolution with stride one over images of that shape, and its bias for every unit."""
    channels, height, width = shape
    out, _, rows, columns = weight.shape
    tall, wide = height + 2 * padding - rows + 1, width + 2 * padding - columns + 1
    matrix = np.zeros((out, tall, wide, channels, height, width))
    for o, y, x, c, dy, dx in np.ndindex(out, tall, wide, channels, rows, columns):
        to_y, to_x = y + dy - padding, x + dx - padding
        if 0 <= to_y < height and 0 <= to_x < width:
            matrix[o, y, x, c, to_y, to_x] += weight[o, c, dy, dx]
    return matrix.reshape(out * tall * wide, -1), np.repeat(bias, tall * wide)


def with_batch_norm(
    weight: Array, bias: Array, mean: Array, variance: Array, factor: Array, shift: Array, eps: float
) -> tuple[Array, Array]:
    """A convolution whose outputs are normalised."""
    scale = factor / np.sqrt(variance + eps)
    return weight * scale[:, None, None, None], (bias - mean) * scale + shift


def averaging(shape: tuple[int, int, int], window: tuple[int, int]) -> Array:
    """The matrix of an average pooling without overlap."""
    channels, height, width = shape
    tall, wide = height // window[0], width // window[1]
    matrix = np.zeros((channels, tall, wide, channels, height, width))
    for c, y, x, dy, dx in np.ndindex(channels, tall, wide, *window):
        matrix[c, y, x, c, y * window[0] + dy, x * window[1] + dx] = 1 / (window[0] * window[1])
    return matrix.reshape(channels * tall * wide, -1)


def winners(values: Array, shape: tuple[int, int, int], window: tuple[int, int]) -> Array:
    """For each window of a max pooling, the position of its largest value."""
    members = averaging(shape, window) > 0
    return np.array([np.flatnonzero(row)[np.argmax(values[row])] for row in members])
