"""Quantus 0.6's own faults, mended in one place; each has a test that fails when it is no longer needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import quantus
from quantus.functions.perturb_func import baseline_replacement_by_mask
from quantus.helpers import utils
from quantus.helpers.model.pytorch_model import PyTorchModel
from scipy.spatial import distance

SEUCLIDEAN = "seuclidean"


@contextmanager
def mend_areas() -> Iterator[None]:
    """Areas under curves, which Quantus computes with a function that numpy 2.4 has no more."""
    if hasattr(np, "trapz"):
        yield
        return
    former, utils.calculate_auc = utils.calculate_auc, _area
    try:
        yield
    finally:
        utils.calculate_auc = former


def _area(values: Any, dx: int = 1, batched: bool = False) -> Any:
    return np.trapezoid(np.asarray(values), dx=dx, axis=1 if batched else -1)


def forget_models() -> None:
    """Quantus keeps every model it has seen for ever, in caches of methods."""
    PyTorchModel._get_last_softmax_layer_index.cache_clear()
    PyTorchModel._get_model_with_linear_top.cache_clear()


def shift(arr: np.ndarray, input_shift: float, **_: Any) -> np.ndarray:
    """Shifts all of an input; Quantus's own perturbation of Input Invariance leaves out the first value."""
    return arr + np.asarray(input_shift, arr.dtype)


def replace_by_mask(arr: np.ndarray, mask: np.ndarray, **given: Any) -> np.ndarray:
    """Replaces a segment in all channels; Quantus's own perturbation of IROF takes one channel alone."""
    return baseline_replacement_by_mask(arr, np.broadcast_to(mask, arr.shape), **given)


def metric_of(distance_func: Any) -> Any:
    """A distance for Sufficiency, which hands to each an argument that only `seuclidean` takes."""
    if distance_func == SEUCLIDEAN:
        return distance_func
    function = distance_func if callable(distance_func) else getattr(distance, distance_func)
    return _without_variances(function)


def _without_variances(function: Callable[..., Any]) -> Callable[..., Any]:
    def measure(one: np.ndarray, other: np.ndarray, V: Any = None) -> Any:
        return function(one, other)

    return measure


class SmoothMPRT(quantus.SmoothMPRT):
    """Explains with what it is given; Quantus's own takes `quantus.explain` whatever `explain_func` is."""

    def explain_smooth_batch_numpy(
        self, model: Any, x_batch: np.ndarray, y_batch: np.ndarray, std: Any, **_: Any
    ) -> np.ndarray:
        """The mean over noisy inputs, the last one without noise, as in Quantus."""
        total: Any = 0.0
        for draw in range(self.nr_samples):
            last = draw == self.nr_samples - 1
            noise = np.zeros_like(x_batch) if last else np.random.randn(*x_batch.shape) * std
            total = total + self.explain_func(model=model, inputs=x_batch + noise, targets=y_batch) / self.nr_samples
        return np.asarray(total)
