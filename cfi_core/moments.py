"""Sums of random draws and of their powers, from which the spread of what is made of them follows."""

from __future__ import annotations

from typing import Any

import numpy as np


class Moments:
    """Sums of the first powers of draws, in double precision; the draws themselves are not kept.

    Attributes:
        draws: How many there were.
    """

    def __init__(self, powers: int = 2) -> None:
        self.draws = 0
        self._sums: list[Any] = [0.0] * powers

    def add(self, draws: Any, axis: int = 0) -> None:
        """An array of further draws, which lie along an axis of it."""
        values = np.asarray(draws, np.float64)
        self.draws += values.shape[axis]
        power = np.ones(())
        for place in range(len(self._sums)):
            power = power * values
            self._sums[place] = self._sums[place] + power.sum(axis)

    def error_of_mean(self) -> np.ndarray:
        """The standard error of the mean of the draws; infinite if there is one alone."""
        first, second = self._means()[:2]
        return self._error(second - first**2)

    def error_of_mean_square(self) -> np.ndarray:
        """The same of the mean of their squares; takes four powers."""
        _, second, _, fourth = self._means()
        return self._error(fourth - second**2)

    def error_of_variance(self) -> np.ndarray:
        """The same of their variance; takes four powers."""
        first, second, third, fourth = self._means()
        variance = second - first**2
        return self._error(fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4 - variance**2)

    def _means(self) -> list[np.ndarray]:
        return [one / self.draws for one in self._sums]

    def _error(self, variance: np.ndarray) -> np.ndarray:
        """Of a mean of draws with that variance among them."""
        if self.draws < 2:
            return np.full(np.shape(variance), np.inf)
        return np.sqrt(np.maximum(variance, 0) / (self.draws - 1))
