"""Excitation backprop once more, slowly, from Zhang et al. 2016 (equations 1 to 4): parent by parent, on matrices.

The winner's probability of a neuron i goes to its children j in proportion to `activation[j] * weight[i, j]`, over all
connections that excite (weights that are not negative), and to none where nothing excites it.
"""

from __future__ import annotations

import numpy as np


def to_children(activation: np.ndarray, weight: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Probabilities of the children of a linear map: `weight` is (parents, children), without biases."""
    found = np.zeros(activation.size)
    for parent in range(len(weight)):
        excitation = np.maximum(weight[parent], 0) * activation
        if excitation.sum() > 0:
            found += p[parent] * excitation / excitation.sum()
    return found


def convolution(weight: np.ndarray, shape: tuple[int, int, int], padding: int = 0, stride: int = 1) -> np.ndarray:
    """The matrix of a convolution, (parents, children), both flattened as (channel, row, column)."""
    channels, height, width = shape
    size = weight.shape[2]
    rows = (height + 2 * padding - size) // stride + 1
    columns = (width + 2 * padding - size) // stride + 1
    matrix = np.zeros((len(weight), rows, columns, channels, height, width))
    for out, row, column in np.ndindex(len(weight), rows, columns):
        for channel, down, right in np.ndindex(channels, size, size):
            y, x = row * stride + down - padding, column * stride + right - padding
            if 0 <= y < height and 0 <= x < width:
                matrix[out, row, column, channel, y, x] = weight[out, channel, down, right]
    return matrix.reshape(len(weight) * rows * columns, -1)


def average(shape: tuple[int, int, int], size: int, stride: int) -> np.ndarray:
    """The matrix of an average pool."""
    channels = shape[0]
    weight = np.zeros((channels, channels, size, size))
    for channel in range(channels):
        weight[channel, channel] = 1 / size**2
    return convolution(weight, shape, stride=stride)


def max_pool(activation: np.ndarray, size: int, p: np.ndarray) -> np.ndarray:
    """The largest child of each window wins all."""
    channels, height, width = activation.shape
    found = np.zeros_like(activation)
    winners = p.reshape(channels, height // size, width // size)
    for channel, row, column in np.ndindex(winners.shape):
        window = activation[channel, row * size : (row + 1) * size, column * size : (column + 1) * size]
        y, x = np.unravel_index(window.argmax(), window.shape)
        found[channel, row * size + y, column * size + x] += winners[channel, row, column]
    return found
