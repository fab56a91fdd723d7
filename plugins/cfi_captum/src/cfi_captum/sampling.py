"""How well values are known that captum draws: heard while it averages or fits, so that nothing is run or drawn again.

An average of draws has their standard deviation over the square root of their number as its standard error. What a
regression gives has the covariance of its coefficients: here the sandwich estimate (White 1980) with each residual
divided by what its row leaves to the others (MacKinnon and White 1985, HC3), since the model is no noisy line and is
off it more in some places than in others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from captum.attr._core.lime import construct_feature_mask
from torch import Tensor

from cfi_captum.draws import hear_tunnels
from cfi_captum.table import DRAWING
from cfi_core.contract import Sampling
from cfi_core.moments import Moments

_ANCHOR = 1e5
"""KernelShap's first two rows, of all features and of none, weigh a million: they are conditions, not draws."""

_DECIDES = 1 - 1e-6
"""A row with this leverage decides a coefficient alone: nothing tells how far it is off."""


_ERRORS: Mapping[str, Callable[[Moments], np.ndarray]] = {
    "smoothgrad": Moments.error_of_mean,
    "smoothgrad_sq": Moments.error_of_mean_square,
    "vargrad": Moments.error_of_variance,
}


@dataclass
class Hearing:
    """What is heard of one run.

    Attributes:
        key: Of the method; inside a noise tunnel, of the one that it wraps.
        average: What a noise tunnel makes of its draws, in captum's words.
        tunnels: For each noise tunnel that ran, the one that ended last behind: the moments of each output's draws.
        moments: Likewise, of each input.
        fits: The standard errors of what each regression gave, and how many rows were drawn for it.
    """

    key: str
    average: str = "smoothgrad"
    tunnels: dict[int, tuple[Any, dict[int, Moments]]] = field(default_factory=dict)
    moments: list[Moments] = field(default_factory=list)
    fits: list[tuple[np.ndarray, int]] = field(default_factory=list)

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Hears the noise tunnels that run inside."""
        with hear_tunnels(self._add_to_tunnel):
            yield

    def attach(self, explainer: Any) -> None:
        """Hears an explainer that draws without a noise tunnel."""
        self.moments, self.fits = [], []
        if self.key == "shapley_value_sampling":
            _Orders(explainer, self.moments)
        elif self.key == "deep_lift_shap":
            self._hear_baselines(explainer)
        elif self.key in ("lime", "kernel_shap"):
            explainer.interpretable_model = _Fitted(explainer.interpretable_model, self.fits)

    def sampling(self, values: tuple[Tensor, ...], call: Any, tunnel: Any) -> Sampling | None:
        """How well the values are known; None where it was not heard, or they are no plain averages.

        A noise tunnel's draws are not independent where what it wraps draws too, or where it draws the baselines: they
        share a pool of these.
        """
        if tunnel is not None and (self.key in DRAWING or tunnel.get("draw_baseline_from_distrib")):
            return None
        errors, draws, argument = self._errors(call, tunnel)
        if len(errors) != len(values):
            return None
        pairs = zip(errors, values, strict=True)
        fitting = [error.reshape(value.shape) for error, value in pairs if error.size == value.numel()]
        return Sampling(tuple(fitting), draws, argument) if len(fitting) == len(values) else None

    def _errors(self, call: Any, tunnel: Any) -> tuple[list[np.ndarray], int, str]:
        if self.fits and tunnel is None:
            errors = _spread_over_features([one for one, _ in self.fits], call)
            return errors, min(rows for _, rows in self.fits), "n_samples"
        if self.moments and tunnel is None:
            errors = [one.error_of_mean() for one in self.moments]
            return errors, self.moments[0].draws, "baselines" if self.key == "deep_lift_shap" else "n_samples"
        if self.tunnels:
            _, found = [*self.tunnels.values()][-1]
            errors = [_ERRORS[self.average](found[place]) for place in sorted(found)]
            return errors, found[0].draws, "n_samples" if tunnel is None else "nt_samples"
        return [], 0, "n_samples"

    def _add_to_tunnel(self, tunnel: Any, place: int, values: Tensor, draws: int) -> None:
        """Draws of one output, those of each sample next to each other."""
        _, moments = self.tunnels.pop(id(tunnel), (tunnel, {}))
        grouped = values.reshape(-1, draws, *values.shape[1:])
        moments.setdefault(place, Moments(2 if self.average == "smoothgrad" else 4)).add(_numpy(grouped), 1)
        self.tunnels[id(tunnel)] = tunnel, moments

    def _hear_baselines(self, explainer: Any) -> None:
        average = explainer._compute_mean_across_baselines

        def heard(samples: int, baselines: int, values: Tensor) -> Tensor:
            self.moments.append(Moments())
            self.moments[-1].add(_numpy(values.reshape(samples, baselines, *values.shape[1:])), 1)
            return average(samples, baselines, values)

        explainer._compute_mean_across_baselines = heard


class _Orders:
    """Hears what each order of the features gives to each, as ShapleyValueSampling goes through them."""

    def __init__(self, explainer: Any, moments: list[Moments]) -> None:
        self.moments = moments
        self.run, self.perturb = explainer._strict_run_forward, explainer._perturbation_generator
        explainer._strict_run_forward, explainer._perturbation_generator = self.forward, self.perturbations
        self.first: Tensor | None = None
        self.masks: Any = None

    def forward(self, *args: Any) -> Any:
        outputs = self.run(*args)
        if self.first is None:
            self.first = outputs.detach()
        elif self.masks is not None:
            self._add(outputs.detach())
        return outputs

    def perturbations(self, inputs: Any, *args: Any) -> Iterator[Any]:
        """One order of the features, some of them at a time."""
        assert self.first is not None
        self.former, samples = self.first, len(inputs[0])
        self.given = [torch.zeros(one.shape, dtype=torch.float64, device=one.device) for one in inputs]
        if self.first.shape[:1] != (samples,) or self.first.numel() != samples:
            self.moments.clear()  # one output of all samples, or several of each: no value for a sample
            yield from self.perturb(inputs, *args)
            return
        if not self.moments:
            self.moments.extend(Moments() for _ in inputs)
        for step in self.perturb(inputs, *args):
            self.masks = step[3]
            yield step
        self.masks = None
        for one, given in zip(self.moments, self.given, strict=True):
            one.add(_numpy(given[None]))

    def _add(self, outputs: Tensor) -> None:
        samples = len(self.former)
        every = torch.cat((self.former.reshape(samples), outputs.reshape(-1)))
        gained = (every[samples:] - every[:-samples]).double().reshape(-1, samples)
        self.former = every[-samples:]
        for total, mask in zip(self.given, self.masks, strict=True):
            steps = gained.reshape(*gained.shape, *(1,) * (total.dim() - 1)).to(total.device)
            total += (steps * mask.to(total.dtype)).sum(0)


# regressions


class _Fitted:
    """Stands for an interpretable model, and notes how well what it gives is known."""

    def __init__(self, model: Any, fits: list[tuple[np.ndarray, int]]) -> None:
        self._model, self._fits = model, fits

    def fit(self, train_data: Any, **options: Any) -> Any:
        fitted = self._model.fit(train_data, **options)
        # Not through the loader, which draws a random number whenever it begins.
        tensors = getattr(train_data.dataset, "tensors", ())
        if len(tensors) == 3 and type(self._model).__name__ in _KNOWN:
            rows, outputs, weights = (one.detach().cpu().double().numpy() for one in tensors)
            linear = self._model.linear
            found, bias = (one.detach().cpu().double().numpy().reshape(-1) for one in (linear.weight, linear.bias))
            residuals, weights = outputs.reshape(-1) - bias - rows @ found, weights.reshape(-1)
            if type(self._model).__name__ == "SkLearnLasso":
                alpha = self._model.construct_kwargs.get("alpha", 1.0)
                errors = errors_of_lasso(rows, residuals, weights, found, alpha)
            else:
                errors = errors_of_fit(rows, residuals, weights)
            self._fits.append((errors, len(rows)))
        return fitted

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


_KNOWN = ("SkLearnLasso", "SkLearnLinearRegression")


def errors_of_fit(rows: np.ndarray, residuals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Standard errors of the coefficients of a weighted least squares fit whose rows were drawn.

    Args:
        rows: Of shape (rows, features), without the column of ones for the intercept.
        residuals: What the fit leaves of each row.
        weights: Of the rows; conditions weigh many times more than draws.

    Returns:
        One for each feature; infinite where there are no more draws than coefficients.
    """
    count, drawn = rows.shape[1], weights < _ANCHOR
    if drawn.sum() <= count + 1 - min(2, int((~drawn).sum())):
        return np.full(count, np.inf)
    design, inverse, decided = _solve(rows, weights)
    if (decided[drawn] > _DECIDES).any():
        return np.full(count, np.inf)
    scores = (weights * residuals / (1 - np.minimum(decided, _DECIDES)))[drawn, None] * design[drawn]
    return np.sqrt(np.square(scores @ inverse)[:, :count].sum(0))


def errors_of_lasso(
    rows: np.ndarray, residuals: np.ndarray, weights: np.ndarray, found: np.ndarray, alpha: float
) -> np.ndarray:
    """The same of a fit with a penalty of `alpha` times the coefficients' absolute values.

    Each coefficient is what a fit without the penalty would give, moved towards 0 by a threshold, and 0 below it: its
    error is the spread of that around the normal distribution of the other, also where it is 0 here.
    """
    kept = found != 0
    if len(rows) <= kept.sum() + 1:
        return np.full(len(found), np.inf)
    design, inverse, decided = _solve(rows[:, kept], weights)
    scores = weights * residuals / (1 - np.minimum(decided, _DECIDES))
    # What is left of each feature that was dropped, when the others have told what they know of it.
    others = rows[:, ~kept] - design @ (inverse @ (design.T @ (weights[:, None] * rows[:, ~kept])))
    curvature = np.maximum((weights[:, None] * others**2).sum(0), 1e-12)
    pulled, moved = alpha * weights.sum(), np.zeros(len(found))
    threshold, spread = np.zeros(len(found)), np.zeros(len(found))
    # The penalty weighs as much as the rows do, so each brings its part of it.
    signs = np.append(np.sign(found[kept]), 0)
    each = scores[:, None] * design - alpha * weights[:, None] * signs
    spread[kept] = np.sqrt(np.square(each @ inverse)[:, :-1].sum(0))
    threshold[kept] = pulled * np.diag(inverse)[:-1]
    moved[kept] = found[kept] + threshold[kept] * signs[:-1]
    spread[~kept] = np.sqrt(np.square(scores[:, None] * others).sum(0)) / curvature
    threshold[~kept] = pulled / curvature
    moved[~kept] = (weights * residuals) @ others / curvature
    return _spread_behind(threshold, moved, spread)


def _solve(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a one for the intercept, the inverse of their curvature, and how far each decides the fit alone."""
    design = np.column_stack([rows, np.ones(len(rows))])
    inverse = np.linalg.pinv(design.T @ (weights[:, None] * design), hermitian=True)
    return design, inverse, weights * np.einsum("ij,jk,ik->i", design, inverse, design)


def _spread_behind(threshold: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The standard deviation of normal numbers after they are moved towards 0 by a threshold."""
    places = np.linspace(-5, 5, 201)
    chances = np.exp(-(places**2) / 2)
    chances /= chances.sum()
    points = centre + spread * places[:, None]
    moved = np.sign(points) * np.maximum(np.abs(points) - threshold, 0)
    mean = chances @ moved
    return np.sqrt(np.maximum(chances @ (moved - mean) ** 2, 0))


def _spread_over_features(errors: list[np.ndarray], call: Any) -> list[np.ndarray]:
    """Errors of features, one array for each sample, as captum lays their values over the elements of the inputs."""
    inputs = call["inputs"] if isinstance(call["inputs"], tuple) else (call["inputs"],)
    if len(errors) != len(inputs[0]):
        return []
    each = np.stack(errors)
    if not call.get("return_input_shape", True):
        return [each]
    masks, _ = construct_feature_mask(call.get("feature_mask"), inputs)
    wide = [mask.cpu().expand(one.shape).reshape(len(one), -1).numpy() for mask, one in zip(masks, inputs, strict=True)]
    return [np.take_along_axis(each, mask, 1).reshape(one.shape) for mask, one in zip(wide, inputs, strict=True)]


def _numpy(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu().numpy())
