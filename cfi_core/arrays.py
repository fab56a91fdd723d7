"""Functions of numpy arrays as models: Python functions, and estimators by the scores that they give."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from cfi_core.adapters import adapter_for, framework_of_tensor
from cfi_core.errors import InputError
from cfi_core.framework import FrameworkAdapter, Parameters, Runner, flatten, map_structure
from cfi_core.framework.axes import Arrays
from cfi_core.registry import registry

_SCORES = ("predict_proba", "decision_function")
_MOST_COLOURS = 4


class ArrayModel:
    """A function of numpy arrays, and what is known of the arrays that it takes.

    What the function holds cannot be seen, so each of these is a model of its own: nothing is ever taken for it that
    was made for an earlier one.

    Attributes:
        function: Takes one array per input.
        shapes: Of its inputs, sample axis first; None where nothing declares them.
        columns: Names of the columns of the table that it takes; None where it knows none.
        classes: Names of the classes that it scores; None where it knows none.
        on_frames: The function that takes a data frame in the place of the array.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        shapes: tuple[tuple[int | None, ...], ...] | None = None,
        columns: tuple[str, ...] | None = None,
        classes: tuple[str, ...] | None = None,
        on_frames: Callable[[Any], Any] | None = None,
    ) -> None:
        self.function = function
        self.shapes = shapes
        self.columns = columns
        self.classes = classes
        self.on_frames = on_frames

    def __call__(self, *inputs: np.ndarray) -> Any:
        """Runs the function on copies, and copies what it gives: it may write to the ones and reuse the others.

        Raises:
            InputError: It gives nothing.
        """
        # Copies rather than read-only views, which compiled code (such as scikit-learn's) may refuse.
        outputs = self.function(*(np.array(array, order="C") for array in inputs))
        if not flatten(outputs):
            raise InputError("The function gives nothing. It must return an array with the sample axis first.")
        return map_structure(lambda output: np.array(_as_array(output)), outputs)


class ArrayAdapter(FrameworkAdapter):
    """Functions are known by their outputs only: they have neither layers nor gradients."""

    name = "numpy"

    def load(self, model: Any) -> ArrayModel:
        """A function as it is; an estimator by the scores that it gives.

        An estimator gives its class probabilities, or else its decision function, or else (a regressor) its
        predictions. One that was fitted on a data frame gets data frames of the same columns.

        Raises:
            InputError: It has no scores, or is no function at all.
        """
        if isinstance(model, ArrayModel):
            return model
        if isinstance(model, type):
            raise InputError(f"{model.__name__} is a class. Pass an instance of it, fitted.")
        # xgboost's boosters take arrays in `inplace_predict`, and something of their own in `predict`.
        name = next((name for name in (*_SCORES, "inplace_predict", "predict") if hasattr(model, name)), "")
        if name in _SCORES or (name and not callable(model)):
            scores, owner = _scores_of(model, name), model
        elif callable(model):
            scores, owner = model, getattr(model, "__self__", None)
        else:
            raise InputError(
                f"A {type(model).__name__} is no function of arrays. Pass a function, or an estimator with "
                f"predict_proba, decision_function or predict."
            )
        features = getattr(owner, "n_features_in_", None)
        shapes = ((None, int(features)),) if isinstance(features, int | np.integer) else None
        columns, classes = _columns(owner), _names(getattr(owner, "classes_", None))
        return ArrayModel(_on_frames(scores, owner), shapes, columns, classes, scores)

    def input_shapes(self, model: ArrayModel) -> tuple[tuple[int | None, ...], ...] | None:
        """The shape that an estimator was fitted on."""
        return model.shapes

    def class_names(self, model: ArrayModel) -> tuple[str, ...] | None:
        """The classes of an estimator that have names; numbers are indices of their own."""
        return model.classes

    def columns(self, model: ArrayModel) -> tuple[str, ...] | None:
        """Those of the data frame that an estimator was fitted on."""
        return model.columns

    def takes_one_table(self, model: ArrayModel) -> bool:
        """Whether it is an estimator."""
        return model.shapes is not None or model.columns is not None

    def on_frames(self, model: ArrayModel, columns: Sequence[Any]) -> Callable[[Any], Any] | None:
        """The function, or the estimator's scores, which may pick columns by their names."""
        return model.on_frames

    def input_names(self, model: ArrayModel) -> tuple[str, ...] | None:
        """Parameters of the function; an estimator takes one table."""
        return Parameters.of(model.function).names or None if model.shapes is None else None

    def by_name(self, model: ArrayModel, names: Sequence[str], constants: Mapping[str, Any]) -> ArrayModel:
        """The function, called by keyword."""
        if model.shapes is not None:
            return super().by_name(model, names, constants)
        Parameters.of(model.function).check(names, constants, "the function")
        function, given = model.function, dict(constants)
        return ArrayModel(lambda *arrays: function(**dict(zip(names, arrays, strict=True)), **given))

    def bind(self, model: ArrayModel, held: Sequence[Any]) -> ArrayModel:
        """The function with these arguments behind the others."""

        def call(*arrays: np.ndarray) -> Any:
            return model.function(*arrays, *(_repeat(value, len(arrays[0])) for value in held))

        return ArrayModel(call, None if model.shapes is None else model.shapes[: len(model.shapes) - len(held)])

    def ended_by(self, model: ArrayModel, end: Callable[[Any], Any]) -> ArrayModel:
        """The function, followed by that; what is known of it stays."""
        ended, function = copy.copy(model), model.function
        ended.function = lambda *arrays: end(function(*arrays))
        return ended

    def channel_axis(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        """The last axis where it is short enough for colours, axis 1 otherwise."""
        if len(shape) <= 2:
            return None
        last = shape[-1]
        return len(shape) - 1 if last is not None and 0 < last <= _MOST_COLOURS else 1

    def outputs(self, model: ArrayModel, inputs: Arrays) -> Any:
        """What the function gives, as arrays."""
        return model(*inputs)

    def runner(self, model: ArrayModel, inputs: Arrays, layers: Sequence[str] = ()) -> ArrayRunner:
        """A runner of the one stage there is."""
        for name in layers:
            self.layer_object(model, name)  # refuses
        return ArrayRunner(model)


class ArrayRunner(Runner):
    """One stage: the function."""

    def __init__(self, model: ArrayModel) -> None:
        self._model = model

    def run(self, stage: int, values: Arrays) -> tuple[np.ndarray, ...]:
        """The outputs."""
        return tuple(flatten(self._model(*values)))


def _repeat(value: Any, samples: int) -> Any:
    """One sample as many."""
    return np.repeat(value, samples, axis=0) if isinstance(value, np.ndarray) and value.shape[:1] == (1,) else value


def _names(labels: Any) -> tuple[str, ...] | None:
    """Labels that are all words."""
    is_words = isinstance(labels, list | np.ndarray) and all(isinstance(one, str) for one in labels)
    return tuple(map(str, labels)) if is_words else None


def _columns(owner: Any) -> tuple[str, ...] | None:
    """Of the data frame that an estimator was fitted on; CatBoost numbers those of an array."""
    named = _names(getattr(owner, "feature_names_in_", None)) or _names(getattr(owner, "feature_names_", None))
    return None if named is None or all(map(str.isdigit, named)) else named


def _as_array(value: Any) -> np.ndarray:
    """What a function gives, which may compute with tensors of any framework inside."""
    framework = framework_of_tensor(registry(), value)
    array = np.asarray(value) if framework is None else adapter_for(registry(), framework).to_numpy(value)
    return array.astype(np.float32) if array.dtype.kind == "V" else array  # bfloat16 and its like, which numpy lacks


def _scores_of(estimator: Any, name: str) -> Callable[[np.ndarray], Any]:
    kind, scores = type(estimator).__name__, getattr(estimator, name)
    if name == "predict" and np.size(getattr(estimator, "classes_", ())):
        raise InputError(
            f"The {kind} gives class labels only, which cannot be explained: it has neither predict_proba nor "
            f"decision_function. Configure it to give probabilities (such as voting='soft' of a VotingClassifier), or "
            f"pass a function that gives scores."
        )

    def scores_if_fitted(array: Any) -> Any:
        try:
            return scores(array)
        except ValueError as error:
            if type(error).__name__ != "NotFittedError":  # of whatever library
                raise
            raise InputError(f"The {kind} is not fitted yet: call fit before explaining it.") from error

    return scores_if_fitted


def _on_frames(scores: Callable[..., Any], owner: Any) -> Callable[..., Any]:
    """The scores of an estimator that was fitted on a data frame, which may pick columns by their names."""
    columns = getattr(owner, "feature_names_in_", None)
    if columns is None:
        return scores
    try:
        pandas = import_module("pandas")
    except ImportError:
        return scores  # fitted elsewhere; without frames it warns that the names are missing, or tells what it lacks
    return lambda array: scores(pandas.DataFrame(array, columns=list(columns)))
