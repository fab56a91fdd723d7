"""Quantus 0.6's own faults, mended in one place; each has a test that fails when it is no longer needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy.spatial import distance

from cfi_quantus.library import PyTorchModel, baseline_replacement_by_mask, quantus, utils

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


class SensitivityN(quantus.SensitivityN):
    """Compares the drop from removing n features with the sum over them; Quantus itself takes the last step alone."""

    def custom_postprocess(self, x_batch: np.ndarray, **given: Any) -> None:
        """The correlation over samples for each n, as in Quantus."""
        scores = self.evaluation_scores[0]
        scores["att_sums"] = np.cumsum(scores["att_sums"], axis=1)
        super().custom_postprocess(x_batch=x_batch, **given)


class Monotonicity(quantus.Monotonicity):
    """Adds features of the inputs to the baseline; Quantus's own adds the baseline to itself, and is always content."""

    def evaluate_batch(
        self, model: Any, x_batch: np.ndarray, y_batch: np.ndarray, a_batch: np.ndarray, **_: Any
    ) -> list[bool]:
        """Whether the output never falls while features are added, the least important first (Arya et al. 2019)."""
        samples, flat = np.arange(len(x_batch)), x_batch.reshape(len(x_batch), -1)
        order = np.argsort(np.broadcast_to(a_batch, x_batch.shape).reshape(flat.shape), axis=1)
        value = self.perturb_func.keywords["perturb_baseline"]
        baseline = utils.get_baseline_value(value=value, arr=flat, return_shape=flat.shape, batched=True)
        shown = np.array(baseline, flat.dtype)
        outputs = []
        for start in range(0, flat.shape[1], self.features_in_step):
            added = order[:, start : start + self.features_in_step]
            shown[samples[:, None], added] = flat[samples[:, None], added]
            outputs.append(model.predict(shown.reshape(x_batch.shape))[samples, y_batch])
        return [bool(rises.all()) for rises in np.diff(np.stack(outputs, axis=1)) >= 0]


MENDED = {"Monotonicity-Arya": Monotonicity, "Smooth MPRT": SmoothMPRT, "SensitivityN": SensitivityN}
"""Classes in place of Quantus's own, by the names of metrics."""

MENDED_DEFAULTS: dict[str, dict[str, Any]] = {
    "IROF": {"perturb_func": replace_by_mask},
    "InputInvariance": {"perturb_func": shift},
}
"""Arguments of constructors in place of Quantus's own defaults, by the names of metrics."""
