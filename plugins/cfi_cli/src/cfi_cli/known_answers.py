"""A test of every toolset on a model whose right explanation is known: how `cfi doctor` finds what is broken.

A linear model of its framework, whose gradient is its weights and whose Shapley values are weights times inputs; for
trees, one with a single split. Nothing is compared with what CFI gave before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

import cfi_core as cfi
from cfi_core.errors import FOREIGN, summary

_SHAPE, _CLASSES, _CLASS = (3, 4, 5), 3, 1
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Outcome:
    """What a test found.

    Attributes:
        toolset: What was tested.
        passed: Whether it gave the right values; None where it could not be tested.
        told: What was done, or what is wrong.
        seconds: That it took, imports included.
    """

    toolset: str
    passed: bool | None
    told: str
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Question:
    """A model, inputs, and the right answers by methods."""

    model: Any
    inputs: np.ndarray
    target: int | None
    answers: Mapping[str, np.ndarray]


def check_toolset(toolset: str, framework: str) -> Outcome:
    """Explains a model that is known in a usable toolset, and compares with the closed form."""
    started = perf_counter()
    if framework not in _QUESTIONS:
        return Outcome(toolset, None, f"not tested: there is no model of {framework} to test it on")
    try:
        asked = _QUESTIONS[framework]()
    except ImportError as error:
        return Outcome(toolset, None, f"not tested: {error}")
    offered = {spec.key for spec in cfi.methods(toolset=toolset)}
    key = next((key for key in asked.answers if key in offered), None)
    if key is None:
        return Outcome(toolset, None, "not tested: none of its methods has a known answer here")
    try:
        passed, told = _ask(asked, key, toolset)
    except FOREIGN as error:  # whatever is broken is what is sought
        passed, told = False, f"{key} failed: {summary(error)}"
    return Outcome(toolset, passed, told, perf_counter() - started)


def _ask(asked: Question, key: str, toolset: str) -> tuple[bool, str]:
    (spec,) = cfi.methods(key, toolset=toolset)
    arguments: dict[str, Any] = {"target": asked.target} if asked.target is not None else {}
    if "baselines" in spec.required:
        arguments["baselines"] = _background(asked)
    made = cfi.attribute(asked.model, key, toolset, inputs=asked.inputs, seed=0, **arguments)
    assert isinstance(made, cfi.Attribution)  # these methods take no layer
    (values, _), *_ = made.parts
    expected = asked.answers[key]
    if values.shape != expected.shape:
        return False, f"{key} gave values of shape {values.shape} instead of {expected.shape}"
    apart = float(np.abs(values - expected).max() / np.abs(expected).max())
    return (
        apart <= _TOLERANCE,
        f"{key} of a known model is {'right' if apart <= _TOLERANCE else 'WRONG'}, within {apart:.0e}",
    )


def _background(asked: Question) -> Any:
    return np.array([[0.0, 0.0], [1.0, 0.0]]) if "tree_shap" in asked.answers else np.zeros_like(asked.inputs)


def _linear(channels_last: bool, build: Callable[[np.ndarray], Any]) -> Question:
    """The question of a model that multiplies a flat image with weights."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((*_SHAPE, _CLASSES)).astype(np.float32)
    inputs = generator.standard_normal((1, *_SHAPE)).astype(np.float32)
    if channels_last:
        weights, inputs = np.moveaxis(weights, 0, 2), np.moveaxis(inputs, 1, 3)
    gradient = weights[None, ..., _CLASS]
    products = gradient * inputs
    shapley = dict.fromkeys(("integrated_gradients", "input_x_gradient", "feature_ablation", "kernel_shap"), products)
    model = build(weights.reshape(-1, _CLASSES))
    return Question(model, np.ascontiguousarray(inputs), _CLASS, {"saliency": gradient, **shapley})


def _torch() -> Question:
    import torch

    def build(weights: np.ndarray) -> Any:
        linear = torch.nn.Linear(*weights.shape, bias=False)
        linear.weight = torch.nn.Parameter(torch.from_numpy(weights.T.copy()))
        return torch.nn.Sequential(torch.nn.Flatten(), linear).eval()

    return _linear(False, build)


def _tensorflow() -> Question:
    import keras

    def build(weights: np.ndarray) -> Any:
        dense = keras.layers.Dense(_CLASSES, use_bias=False)
        model = keras.Sequential([keras.Input((*_SHAPE[1:], _SHAPE[0])), keras.layers.Flatten(), dense])
        dense.set_weights([weights])
        return model

    return _linear(True, build)


def _trees() -> Question:
    """One split: 0 or 2 by the first feature, beside a background of one row on each side."""
    from sklearn.tree import DecisionTreeRegressor

    model = DecisionTreeRegressor(max_depth=1, random_state=0).fit([[0.0, 0.0], [1.0, 0.0]], [0.0, 2.0])
    return Question(model, np.array([[1.0, 0.0]]), None, {"tree_shap": np.array([[1.0, 0.0]])})


_QUESTIONS: Mapping[str, Callable[[], Question]] = {"torch": _torch, "tensorflow": _tensorflow, "trees": _trees}
