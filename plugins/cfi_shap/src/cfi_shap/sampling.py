"""How well SHAP's values are known, heard while its explainers average or fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import shap
from torch import Tensor

from cfi_core.moments import Moments


class Kernel(shap.KernelExplainer):
    """KernelExplainer that notes the standard errors of its coefficients.

    Coalitions of the sizes that it goes through completely are no draws; the others are, each with its complement. The
    covariance is that of the coefficients over such draws (the sandwich estimate): the model is no noisy sum of its
    features, and is off it more in some coalitions than in others.

    Attributes:
        errors: Of each row that was explained, one for each feature.
        coalitions: The fewest that a row was run on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.errors: list[np.ndarray] = []
        self.coalitions = 2**62
        self._drawn: list[bool] = []

    def explain(self, incoming_instance: Any, **kwargs: Any) -> Any:
        """As before; a row without draws is exact."""
        self._drawn = []
        self.errors.append(np.zeros(self.data.groups_size))
        found = super().explain(incoming_instance, **kwargs)
        self.coalitions = min(self.coalitions, self.nsamplesAdded if self._drawn else 2**62)
        return found

    def addsample(self, x: Any, m: Any, w: float) -> None:
        """As before: drawn coalitions come with a weight of 1, which is changed later, the others with less."""
        self._drawn.append(w == 1)
        super().addsample(x, m, w)

    def solve(self, fraction_evaluated: float, dim: int) -> Any:
        """As before."""
        found = super().solve(fraction_evaluated, dim)
        self.errors[-1][self.varyingInds] = self._errors(found[0], dim)
        return found

    def _errors(self, found: np.ndarray, dim: int) -> np.ndarray:
        number = self.nsamplesAdded
        drawn, masks, weights = np.array(self._drawn), self.maskMatrix[:number], self.kernelWeights[:number]
        if not drawn.any():
            return np.zeros(self.M)
        if number <= self.M:
            return np.full(self.M, np.inf)
        residuals = self.ey[:number, dim] - self.fnull[dim] - masks @ found
        rows = masks[:, :-1] - masks[:, -1:]  # all values add up to what is explained, so the last follows
        inverse = np.linalg.pinv(rows.T @ (weights[:, None] * rows), hermitian=True)
        decided = weights * np.einsum("ij,jk,ik->i", rows, inverse, rows)
        scores = (residuals / np.maximum(1 - decided, 1e-6))[:, None] * rows
        pairs = _pairs(masks, drawn)
        unit = weights[drawn].min()  # of one draw: coalitions that were drawn again weigh several
        each = np.stack([scores[list(pair)].sum(0) for pair in pairs]) * unit
        times = np.array([weights[pair[0]] / unit for pair in pairs])
        spread = np.sqrt(times)[:, None] * each @ inverse
        return np.sqrt(np.square(np.column_stack([spread, -spread.sum(1)])).sum(0))


def _pairs(masks: np.ndarray, drawn: np.ndarray) -> list[tuple[int, ...]]:
    """Rows that were drawn together: a coalition, and its complement behind it."""
    left, pairs = np.flatnonzero(drawn).tolist(), []
    while left:
        together = len(left) > 1 and not (masks[left[0]] == masks[left[1]]).any()
        pairs.append(tuple(left[: 1 + together]))
        left = left[1 + together :]
    return pairs


def hear_gradients(explainer: Any) -> list[list[np.ndarray]]:
    """What DeepExplainer will multiply with the distances to its baselines, for each sample and input."""
    gradient, heard = explainer.gradient, []

    def heard_gradient(*args: Any) -> Any:
        heard.append(found := gradient(*args))
        return found

    explainer.gradient = heard_gradient
    return heard


def errors_over_baselines(
    gradients: list[list[np.ndarray]], inputs: list[Tensor], baselines: list[Tensor]
) -> list[np.ndarray]:
    """Standard errors of the means over the baselines, one array for each input."""
    errors = []
    for place, (x, base) in enumerate(zip(inputs, baselines, strict=True)):
        distances = (x[:, None] - base[None]).detach().cpu().numpy()
        each = np.stack([one[place][len(base) :] for one in gradients]) * distances
        moments = Moments()
        moments.add(each, 1)
        errors.append(moments.error_of_mean())
    return errors
