"""SHAP's explainers on torch models: each is run once for each target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import shap
import torch
from torch import Tensor, nn

from cfi_core.contract import Axes, MethodRequest, MethodResult, Sampling, Target
from cfi_core.errors import ArgumentError, MethodError
from cfi_core.framework import rows_at_once
from cfi_core.progress import steps as expect
from cfi_core.silence import without_warnings
from cfi_shap.sampling import Kernel, errors_over_baselines, hear_gradients
from cfi_torchgraph.scores import choose, one_per_sample

_MOST_MISSING = 1e-3
"""Of the sum of all magnitudes, what rounding in single precision may take; a rule that is missed takes far more."""
_NOTHING = 1e-12
"""Less than this is no magnitude to compare with: nothing is explained."""

_BATCH = 50
"""Rows that shap's GradientExplainer takes gradients of at once, unless it is told otherwise."""


class Found(NamedTuple):
    """What an explainer gives, one array for each input.

    Attributes:
        values: Shapley values.
        errors: Their standard errors.
        draws: How many draws they are made of; None if the errors are not known.
    """

    values: Sequence[Any]
    errors: Sequence[Any] = ()
    draws: int | None = None


class Score(nn.Module):
    """The model, followed by the choice of what is explained, as one column."""

    def __init__(self, request: MethodRequest, target: Target) -> None:
        super().__init__()
        self.model, self.target, self.types = request.model, target, [x.dtype for x in request.inputs]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Of shape (samples, 1); GradientExplainer draws in single precision, whatever the model computes in."""
        outputs = self.model(*(x.to(kind) for x, kind in zip(inputs, self.types, strict=True)))
        outputs = choose(outputs, self.target.output)
        if self.target.function is not None:
            return one_per_sample(self.target.function(outputs), len(inputs[0]))[:, None]
        return outputs[(slice(None), *(self.target.index or ()))].reshape(-1, 1)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: shap calls it before it takes gradients, none of which is accumulated, and they are the user's."""


def run(request: MethodRequest) -> MethodResult:
    """Runs the method that the request names."""
    target, inputs = request.target or Target(), request.inputs
    pairs = zip(request.baselines or (0.0,) * len(inputs), inputs, strict=True)
    baselines = [base if isinstance(base, Tensor) else torch.full_like(x[:1], base) for base, x in pairs]
    values = [np.zeros(x.shape) for x in inputs]
    errors = [np.zeros(x.shape) for x in inputs]
    draws: set[int | None] = set()
    count = len(inputs[0])
    is_paired = request.method.key == "partition_shap" and len(baselines[0]) == count > 1
    chosen = target.indices(count) if target.index else [None] * count
    # The samples that are run together: those of the same target, and of a method that takes one baseline, of the same.
    every = [(index, row if is_paired else 0) for row, index in enumerate(chosen)]
    _tell_steps(request, len(baselines[0]))
    with torch.inference_mode(False), torch.enable_grad():
        for index, base in dict.fromkeys(every):
            rows = [row for row, other in enumerate(every) if other == (index, base)]
            score = Score(request, Target(target.output, index, target.function)).eval()
            own = [one[base : base + 1] for one in baselines] if is_paired else baselines
            found = _EXPLAINERS[request.method.key](request, score, [x[rows] for x in inputs], own)
            draws.add(found.draws)
            for whole, parts in ((values, found.values), (errors, found.errors if found.draws else found.values)):
                for value, part in zip(whole, parts, strict=True):
                    value[rows] = np.reshape(part, value[rows].shape)
    sampling = None if None in draws else Sampling(tuple(errors), min(filter(None, draws)), _DRAWS[request.method.key])
    return MethodResult(tuple(values), Axes.INPUT, applied=dict(request.exec_args), sampling=sampling)


def _tell_steps(request: MethodRequest, baselines: int) -> None:
    """As shap counts them, where nothing else is given."""
    count, own = len(request.inputs[0]), request.exec_args
    if request.method.key == "gradient_shap":
        expect(own.get("nsamples", 200), "samples", share=count)
    elif request.method.key == "kernel_shap":
        most = own.get("nsamples", "auto")
        total = 2 * request.inputs[0][0].numel() + 2048 if most == "auto" else most
        expect(total, "masks", share=count * baselines)
    elif request.method.key == "partition_shap":
        most = own.get("max_evals", 500)
        expect(most if isinstance(most, int) else None, "masks", share=count)


def _deep(request: MethodRequest, score: Score, inputs: list[Tensor], baselines: list[Tensor]) -> Found:
    """What DeepExplainer only warns of, or does not notice, is an error."""
    with without_warnings("unrecognized nn.Module", action="error"):
        explainer = shap.DeepExplainer(score, baselines)
        gradients = hear_gradients(explainer.explainer)
        found = explainer.shap_values(inputs, check_additivity=False)
    with torch.no_grad():
        promised = (score(*inputs) - score(*baselines).mean(0)).double().cpu().numpy()[:, 0]
    rows = np.concatenate([np.reshape(part, (len(promised), -1)) for part in found], axis=1)
    gap = (np.abs(rows.sum(1) - promised) / np.maximum(np.abs(rows).sum(1), _NOTHING)).max()
    if gap > _MOST_MISSING:
        raise MethodError(
            f"shap's DeepExplainer misses f(inputs) - mean of f(baselines) by a relative {gap:.1e}: an activation is "
            f"no module (F.relu), or used twice. Make each a module of its own, or use 'gradient_shap'."
        )
    return Found(found, errors_over_baselines(gradients, inputs, baselines), len(baselines[0]))


def _gradient(request: MethodRequest, score: Score, inputs: list[Tensor], baselines: list[Tensor]) -> Found:
    most = rows_at_once([x.shape for x in inputs], 1, _BATCH, limit=request.rows)
    draws = int(request.exec_args["nsamples"])
    explainer = shap.GradientExplainer(score, baselines, batch_size=most)
    found, spread = explainer.shap_values(inputs, rseed=request.seed, return_variances=True, **request.exec_args)
    # What shap calls the variance of the mean is that of the draws over the root of their number.
    several = spread[0] if len(inputs) > 1 else spread
    errors = [np.sqrt(one / np.sqrt(draws) * (draws / (draws - 1) if draws > 1 else np.inf)) for one in several]
    return Found(found if len(inputs) > 1 else [found], errors, draws)


def _kernel(request: MethodRequest, score: Score, inputs: list[Tensor], baselines: list[Tensor]) -> Found:
    """Every element of the input is a feature; exact where `nsamples` reaches all coalitions."""
    x, background = (_only(request, values).flatten(1).cpu().numpy() for values in (inputs, baselines))
    explainer = Kernel(_on_arrays(score, inputs[0], request.rows), background)
    found = explainer.shap_values(x, silent=True, **request.exec_args)
    is_plain = not request.exec_args.get("l1_reg")  # else features were chosen before
    return Found([found], [np.stack(explainer.errors)], explainer.coalitions if is_plain else None)


def _partition(request: MethodRequest, score: Score, inputs: list[Tensor], baselines: list[Tensor]) -> Found:
    """Owen values of the input's halves, and of their halves, which take the baseline."""
    if len(_only(request, baselines)) != 1:
        raise ArgumentError(f"'partition_shap' takes one baseline for all samples, not {len(baselines[0])}.")
    # shap's pictures have their channels last.
    order = sorted(range(inputs[0].ndim), key=lambda axis: axis == request.channel_axis[0])
    x, base = inputs[0].permute(order), baselines[0].permute(order)
    form = x.shape[1:] if x.ndim == 4 else (1, x[0].numel(), 1)

    def back(pictures: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(pictures.reshape(-1, *x.shape[1:]).transpose(np.argsort(order)))

    function, masker = _on_arrays(score, inputs[0], request.rows), shap.maskers.Image(base.reshape(form).cpu().numpy())
    explainer = shap.PartitionExplainer(lambda pictures: function(back(pictures)), masker)
    return Found([back(explainer(x.reshape(-1, *form).cpu().numpy(), silent=True, **request.exec_args).values)])


_DRAWS = {"deep_lift_shap": "baselines", "gradient_shap": "nsamples", "kernel_shap": "nsamples"}
_EXPLAINERS = {
    "deep_lift_shap": _deep,
    "gradient_shap": _gradient,
    "kernel_shap": _kernel,
    "partition_shap": _partition,
}


def _only(request: MethodRequest, values: list[Tensor]) -> Tensor:
    if len(values) != 1:
        raise ArgumentError(f"'{request.method.key}' of shap takes models of one input: use 'gradient_shap'.")
    return values[0]


def _on_arrays(score: Score, like: Tensor, limit: int | None) -> Callable[[np.ndarray], np.ndarray]:
    most = rows_at_once([like.shape], 1, limit=limit)

    def function(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            given = torch.as_tensor(rows).to(like).reshape(-1, *like.shape[1:])
            parts = [score(some).double().cpu().numpy()[:, 0] for some in given.split(most)]
            return np.concatenate(parts)

    return function
