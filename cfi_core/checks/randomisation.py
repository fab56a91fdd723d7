"""Parameter randomisation: whether the explanation depends on what the model has learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cfi_core.adapters import adapter_for
from cfi_core.attribution import Attribution
from cfi_core.checks.places import read_choice, read_count
from cfi_core.checks.question import Question
from cfi_core.checks.results import Check, Curve, mean_of
from cfi_core.comparing.measures import ranks
from cfi_core.errors import FOREIGN, CFIError, MethodError, summary
from cfi_core.framework import FrameworkAdapter
from cfi_core.process import keep_process
from cfi_core.registry import registry

Weights = Mapping[str, Sequence[np.ndarray]]

SAME = 0.5
"""A rank correlation from which on two explanations have more in common than not."""

EQUAL = 0.9
"""A rank correlation from which on they are the same for all that matters."""

_CITATION = "Adebayo et al. 2018, Sanity Checks for Saliency Maps"
_ORDERS = ("cascade", "all")


def measure_randomisation(
    model: Any,
    attribution: Attribution,
    name: str,
    *,
    inputs: Any = None,
    target: Any = None,
    explain: Mapping[str, Any] | None = None,
    seed: int | None = None,
    order: str = "cascade",
    steps: int = 8,
    draws: int = 3,
) -> Check:
    """The rank correlation of the values with those of the model whose parameters were drawn anew.

    Matrices and kernels are drawn from a normal distribution around zero, of the size that they had; biases and scales
    from one with the mean and the spread that they had. Running statistics stay. The model itself is not touched.

    Args:
        model: The user's, of a framework that can exchange the parameters of a copy.
        attribution: What is checked.
        name: Of the metric.
        inputs: As for `check`.
        target: As for `check`.
        explain: As for `check`.
        seed: Of the parameters.
        order: `"cascade"`: from the last layer to the first, those before stay random; `"all"`: at once.
        steps: How often the cascade explains at most; further layers are taken together.
        draws: How many times all parameters are drawn; the last number is the mean over these.

    Raises:
        MethodError: The model has no parameters that could be exchanged.
        ArgumentError: It cannot be explained again.
        CFIError: As `cfi.attribute`.
    """
    question = Question.of(model, attribution, inputs, target, explain, seed)
    read_choice("order", order, _ORDERS)
    steps, draws = read_count("steps", steps), read_count("draws", draws)
    adapter, loaded, weights = _weights(question)
    before = question.explain_as_given()
    layers = list(weights)[::-1]
    groups = [layers] if order == "all" else [list(one) for one in np.array_split(layers, min(steps, len(layers)))]
    generator = np.random.default_rng(question.seed)

    def compare(drawn: Weights) -> tuple[np.ndarray, np.ndarray]:
        after = question.explain(model=_copy(adapter, loaded, drawn))
        return correlations(before, after), correlations(before, after, absolute=True)

    found = [compare(drawn) for drawn in _cascade(weights, groups, generator)]
    # With few values, or few that differ, one draw may agree by chance.
    whole = [found[-1]]
    for _ in range(draws - 1):
        whole += [compare(drawn) for drawn in _cascade(weights, [layers], generator)]
    signed, absolute = (
        np.array([*(pair[i] for pair in found[:-1]), np.mean([pair[i] for pair in whole], axis=0)]).T for i in (0, 1)
    )
    least = min(mean_of(pair[0]) for pair in whole)
    depends = "does not depend" if least >= EQUAL else "hardly depends"
    verdict = (
        f"the explanation {depends} on the parameters: with all of them random, its rank correlation with the given "
        f"one is {mean_of(signed[:, -1]):.2f}"
    )
    return Check(
        name=name,
        scores=signed[:, -1],
        better="lower",
        means="rank correlation of the values with those of the model with random parameters",
        reference=np.zeros(1),
        reference_is="unrelated values",
        verdict=verdict if least >= SAME else "",
        place="last layer randomised",
        places=tuple(str(group[-1]) for group in groups),
        curves=(Curve("values", signed), Curve("absolute values", absolute)),
        settings={
            "order": order,
            "draws": draws,
            "layers": [list(map(str, group)) for group in groups],
            "absolute values": absolute[:, -1].tolist(),
        },
        citation=_CITATION,
    )


def _weights(question: Question) -> tuple[FrameworkAdapter, Any, Weights]:
    current, model = registry(), question.model
    with keep_process(current):
        adapter = adapter_for(current, question.framework)
        loaded = adapter.load(model)
        try:
            weights = adapter.weights(loaded)
        except FOREIGN as error:
            raise MethodError(f"the parameters of your model cannot be read ({summary(error)}).") from error
    if not weights:
        raise MethodError(
            f"a {type(model).__name__} of {question.framework} has no parameters that can be seen and exchanged in a "
            f"copy: pass the model that holds them, if there is one, and not a function that calls it."
        )
    return adapter, loaded, weights


def _cascade(weights: Weights, groups: list[list[str]], generator: np.random.Generator) -> Iterator[Weights]:
    """More and more layers with parameters drawn anew."""
    drawn: dict[str, list[np.ndarray]] = {}
    for group in groups:
        drawn |= {str(layer): [draw(array, generator) for array in weights[str(layer)]] for layer in group}
        yield drawn


def draw(array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A parameter of the same shape and size."""
    values = np.asarray(array, np.float64)
    if values.ndim > 1:
        return generator.normal(0, np.sqrt((values**2).mean()), values.shape)
    return generator.normal(values.mean(), values.std(), values.shape) if values.size else values


def _copy(adapter: FrameworkAdapter, model: Any, weights: Weights) -> Any:
    try:
        with keep_process(registry()):
            return adapter.with_weights(model, weights)
    except CFIError:
        raise
    except FOREIGN as error:
        raise MethodError(f"a copy of your model cannot hold other parameters ({summary(error)}).") from error


def correlations(before: Sequence[np.ndarray], after: Sequence[np.ndarray], *, absolute: bool = False) -> np.ndarray:
    """Spearman's rank correlation of each sample; NaN where all values of one side are equal."""
    pairs = []
    for parts in (before, after):
        rows = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        pairs.append(np.array([ranks(np.abs(row) if absolute else row) for row in rows]))
    one, other = (places - places.mean(1, keepdims=True) for places in pairs)
    scale = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return np.divide((one * other).sum(1), scale, out=np.full_like(scale, np.nan), where=scale > 0)
