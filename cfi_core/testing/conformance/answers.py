"""Models on which the right answer is known: what the methods of a toolset give is compared with closed forms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np

from cfi_core.specs import Kind, MethodSpec, Need, Total
from cfi_core.testing.conformance.toolset import Methods

SAMPLES, CLASSES = 3, 4
CLASS = [2, 0, 2]
"""What is explained of each sample: of two the same."""
DEAD, ALIKE = 1, (2, 4)
"""Places, counted along all axes of a sample, of an input without influence, and of two that nothing tells apart."""
ROUNDING = 1e-6


class Law(StrEnum):
    """What a method gives for an input, on a model of which that is known."""

    GRADIENT = "the gradient"
    INPUT_X_GRADIENT = "input × gradient"
    SHAPLEY = "the Shapley value: (input - baseline) × the gradient half way, where no three inputs interact"
    ABLATION = "what the score loses where this input alone takes its baseline"
    GUIDED = "the gradient, of which rectifiers let pass what is positive where they are active"
    DECONVOLVED = "the gradient, of which rectifiers let pass what is positive wherever it is"
    NONE = "nothing that is known beforehand"


LAWS: Mapping[str, Law] = {
    "saliency": Law.GRADIENT,
    "smooth_grad": Law.GRADIENT,
    "input_x_gradient": Law.INPUT_X_GRADIENT,
    "integrated_gradients": Law.SHAPLEY,
    "shapley_values": Law.SHAPLEY,
    "shapley_value_sampling": Law.SHAPLEY,
    "kernel_shap": Law.SHAPLEY,
    "gradient_shap": Law.SHAPLEY,
    "deep_lift": Law.SHAPLEY,
    "deep_lift_shap": Law.SHAPLEY,
    "feature_ablation": Law.ABLATION,
    "guided_backprop": Law.GUIDED,
    "deconvolution": Law.DECONVOLVED,
}
"""Of the keys that toolsets share. What a spec promises of the sum (`MethodSpec.completeness`) stands for the rest."""

SAMPLING = frozenset({"smooth_grad", "gradient_shap", "kernel_shap", "shapley_value_sampling"})
"""Keys of methods that draw: exact on linear models alone."""

_OF_SCORES = frozenset({Law.GRADIENT, Law.INPUT_X_GRADIENT, Law.SHAPLEY, Law.ABLATION})
_AT_RECTIFIERS = frozenset({Law.GRADIENT, Law.INPUT_X_GRADIENT, Law.GUIDED, Law.DECONVOLVED})


@dataclass(frozen=True)
class Score:
    """A product of affine functions of the inputs, for each sample its own: one of them, or two.

    Attributes:
        weights: Of shape (factors, samples, features).
        bias: Of shape (factors, samples).
    """

    weights: np.ndarray
    bias: np.ndarray

    def factors(self, x: np.ndarray) -> np.ndarray:
        """Values of the affine functions, of shape (factors, samples)."""
        return (self.weights * x).sum(axis=2) + self.bias

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Of shape (samples, features)."""
        factors = self.factors(x)
        others = [np.prod(np.delete(factors, i, axis=0), axis=0) for i in range(len(factors))]
        return sum(weights * other[:, None] for weights, other in zip(self.weights, others, strict=True))

    def expected(self, law: Law, x: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        """What the law gives, of shape (samples, features)."""
        if law is Law.GRADIENT:
            return self.gradient(x)
        if law is Law.INPUT_X_GRADIENT:
            return x * self.gradient(x)
        if law is Law.SHAPLEY:
            return (x - baseline) * self.gradient((x + baseline) / 2)
        columns = np.eye(x.shape[1], dtype=bool)
        without = [self.factors(np.where(column, baseline, x)).prod(axis=0) for column in columns]
        return self.factors(x).prod(axis=0)[:, None] - np.stack(without, axis=1)


@dataclass(frozen=True)
class Question:
    """A linear model, inputs and a baseline.

    Attributes:
        weights: Of shape (classes, features).
        bias: Of shape (classes,).
        inputs: Of shape (samples, features).
        baseline: Of shape (1, features).
    """

    weights: np.ndarray
    bias: np.ndarray
    inputs: np.ndarray
    baseline: np.ndarray

    @property
    def hidden(self) -> np.ndarray:
        """Weights of a layer before a linear rectifier, of shape (hidden, features), which leave the dead input out."""
        return np.concatenate([self.weights[::-1], -self.weights] * 2)

    @property
    def head(self) -> np.ndarray:
        """Weights of a layer after it, of shape (classes, hidden); of each unit, both signs lead to every class."""
        drawn = np.random.default_rng(8).normal(size=(CLASSES, len(self.hidden) // 2)).astype(np.float32)
        return np.concatenate([drawn, -drawn / 2], axis=1)

    def rectified(self, law: Law) -> np.ndarray:
        """What a method gives on `head @ max(hidden @ inputs, 0)`, of shape (samples, features)."""
        passing = self.head[CLASS].astype(np.float64)
        if law in (Law.GUIDED, Law.DECONVOLVED):
            passing = np.maximum(passing, 0)
        if law is not Law.DECONVOLVED:
            passing = passing * (self.inputs @ self.hidden.T > 0)
        gradient = passing @ self.hidden
        return gradient * self.inputs if law is Law.INPUT_X_GRADIENT else gradient

    @staticmethod
    def draw(features: int) -> Question:
        """With one input that has no influence, and two that nothing tells apart."""
        generator = np.random.default_rng(7)
        weights = generator.normal(size=(CLASSES, features)).astype(np.float32)
        weights[:, DEAD] = 0
        drawn = [weights, *(generator.normal(size=(rows, features)).astype(np.float32) for rows in (SAMPLES, 1))]
        for array in drawn:
            array[:, ALIKE[1]] = array[:, ALIKE[0]]
        bias = generator.normal(size=CLASSES).astype(np.float32)
        return Question(drawn[0], bias, drawn[1], drawn[2])

    def score(self, *rows: Any) -> Score:
        """The product of scores: of each factor the class that is explained, one for all samples or for each."""
        numbers = np.stack([np.broadcast_to(row, SAMPLES) for row in rows])
        return Score(self.weights[numbers].astype(np.float64), self.bias[numbers].astype(np.float64))


class KnownAnswerConformance(Methods):
    """The methods of a toolset that explain inputs, on models whose explanation is a closed form.

    On a linear model, integrated gradients, DeepLIFT and Shapley values are all gradient × (input - baseline). On the
    product of two of its scores (the target is a function), methods part; and on a rectifier.

    Attributes:
        toolset: Its name.
        arguments: For each method key, what the method needs on these models besides inputs, target and baselines.
        laws: For each method key, what it gives; not needed for keys that toolsets share (`LAWS`) and methods whose
            spec promises a sum. `Law.NONE` labels a method without a closed form.
        sampling: Keys of methods that draw, so that they are exact on linear models alone.
        within: For each method key, how far its values may be off, relative to the largest one, where that is more
            than rounding in single precision: methods that sample or fit.
        features: Shape of one sample.
    """

    arguments: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    laws: ClassVar[Mapping[str, Law]] = {}
    sampling: ClassVar[frozenset[str]] = SAMPLING
    within: ClassVar[Mapping[str, float]] = {}
    features: ClassVar[tuple[int, ...]] = (5,)

    @abstractmethod
    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> Any:
        """A model of the toolset's framework that gives `(inputs * weights[k]).sum() + bias[k]` for each class k.

        Args:
            weights: Of shape (classes, *features).
            bias: Of shape (classes,).
        """

    def make_rectified_model(self, hidden: np.ndarray, head: np.ndarray) -> Any:
        """The same without bias, then a ReLU and a second layer; asked for if a method's law is about rectifiers.

        Args:
            hidden: Of shape (hidden, *features).
            head: Of shape (classes, hidden).
        """
        raise NotImplementedError("a method that puts rules on rectifiers needs make_rectified_model")

    def law(self, method: MethodSpec) -> Law | None:
        """What a method obeys; None where nobody says it."""
        promise = method.completeness
        sums = promise is not None and promise.total in (Total.DIFFERENCE, Total.MEAN_DIFFERENCE)
        return self.laws.get(method.key) or LAWS.get(method.key) or (Law.SHAPLEY if sums else None)

    def test_every_method_has_a_law(self) -> None:
        """No method is left untested."""
        unknown = [method.key for method in self._explaining() if self.law(method) is None]
        assert not unknown, f"nobody says what {unknown} give: name a law of each in `laws`, Law.NONE if there is none"
        offered = {method.key for method in self._explaining()}
        assert set(self.laws) <= offered, f"laws for {sorted({*self.laws} - offered)}, which explain no inputs"

    def test_linear_models_are_explained_as_their_weights_say(self) -> None:
        """To 1e-6 of the largest value, unless `within` says otherwise."""
        score = self._question().score(CLASS)
        for method, found in self._on_linear_model(CLASS, self._obeying(_OF_SCORES)):
            self._compare(method, found, self._expected(method, score))

    def test_products_of_linear_scores_are_explained_as_their_gradients_say(self) -> None:
        """Where methods part: of those that neither draw nor put rules on modules."""
        methods = [m for m in self._obeying(_OF_SCORES) if Need.MODULES not in m.needs and m.key not in self.sampling]
        score = self._question().score(0, 1)
        for method, found in self._on_linear_model(lambda outputs: outputs[:, 0] * outputs[:, 1], methods):
            self._compare(method, found, self._expected(method, score))

    def test_rectifiers_are_passed_as_the_papers_say(self) -> None:
        """By gradients, and by the rules of guided backpropagation and deconvolution."""
        methods = [m for m in self._obeying(_AT_RECTIFIERS) if m.key not in self.sampling]
        if not any(self.law(method) in (Law.GUIDED, Law.DECONVOLVED) for method in methods):
            return
        question = self._question()
        model = self.make_rectified_model(question.hidden.reshape(-1, *self.features), question.head)
        for method, found in self._values(model, CLASS, methods):
            law = self.law(method)
            assert law is not None
            self._compare(method, found, question.rectified(law))

    def test_an_input_without_influence_gets_nothing(self) -> None:
        """Exactly 0 (sensitivity, or dummy); of values that sample or fit, what `within` allows for."""
        for method, found in self._on_linear_model(CLASS, self._obeying(_OF_SCORES)):
            limit = self.within.get(method.key, 0.0) * np.abs(found).max()
            dead = np.abs(found[:, DEAD]).max()
            assert dead <= limit, f"{method.key} gives an input without influence {dead}, where 0 was expected"

    def test_inputs_that_nothing_tells_apart_get_the_same(self) -> None:
        """Symmetry: equal weights, values and baselines."""
        for method, found in self._on_linear_model(CLASS, self._obeying(_OF_SCORES)):
            self._compare(method, found[:, ALIKE[0]], found[:, ALIKE[1]], np.abs(found).max())

    def _explaining(self) -> list[MethodSpec]:
        return [method for method in self.methods() if method.kind is Kind.ATTRIBUTION]

    def _obeying(self, laws: Container[Law]) -> list[MethodSpec]:
        return [method for method in self._explaining() if self.law(method) in laws]

    def _question(self) -> Question:
        return Question.draw(int(np.prod(self.features)))

    def _expected(self, method: MethodSpec, score: Score) -> np.ndarray:
        question, law = self._question(), self.law(method)
        assert law is not None
        takes = "baselines" in (*method.required, *method.optional)
        baseline = question.baseline if takes else np.zeros_like(question.baseline)
        return score.expected(law, question.inputs.astype(np.float64), baseline.astype(np.float64))

    def _on_linear_model(self, target: Any, methods: Sequence[MethodSpec]) -> Iterator[tuple[MethodSpec, np.ndarray]]:
        question = self._question()
        model = self.make_linear_model(question.weights.reshape(CLASSES, *self.features), question.bias)
        return self._values(model, target, methods)

    def _values(
        self, model: Any, target: Any, methods: Sequence[MethodSpec]
    ) -> Iterator[tuple[MethodSpec, np.ndarray]]:
        """What methods give, of shape (samples, features)."""
        question = self._question()
        inputs = question.inputs.reshape(SAMPLES, *self.features)
        for method in methods:
            promise = method.completeness
            distribution = promise is not None and promise.total is Total.MEAN_DIFFERENCE
            baselines = np.repeat(question.baseline, 1 + distribution, axis=0).reshape(-1, *self.features)
            uniform = {"target": target, "baselines": baselines}
            given = {name: uniform[name] for name in (*method.required, *method.optional) if name in uniform}
            found = self.attribute(model, method, **{"inputs": inputs, **given, **self.arguments.get(method.key, {})})
            yield method, np.asarray(found.values, np.float64).reshape(SAMPLES, -1)

    def _compare(self, method: MethodSpec, found: np.ndarray, expected: np.ndarray, scale: float = 0.0) -> None:
        limit = self.within.get(method.key, ROUNDING) * (scale or np.abs(expected).max())
        message = f"{method.key} gives something else than {self.law(method)}"
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit, err_msg=message)
