"""Trees and their ensembles as models, and TreeExplainer on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import shap

from cfi_core.arrays import ArrayAdapter, ArrayModel
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.errors import MethodError, TargetError


class TreeModel(ArrayModel):
    """Trees by the scores that they give, or by the log odds that they add up to (`margins`)."""

    def __init__(self, scores: ArrayModel, trees: Any, *, margins: bool = False) -> None:
        super().__init__(scores.function, scores.shapes, scores.columns, scores.classes, scores.on_frames)
        self.trees, self.margins = trees, margins


class TreeAdapter(ArrayAdapter):
    """Runs them as core runs estimators; they stay within reach."""

    name = "trees"

    def load(self, model: Any) -> TreeModel:
        """The trees, by their probabilities or predictions."""
        return model if isinstance(model, TreeModel) else TreeModel(super().load(model), model)

    def without_softmax(self, model: TreeModel, inputs: Sequence[Any]) -> TreeModel | None:
        """Log odds, of boosted classifiers."""
        if not isinstance(model, TreeModel):  # on the cells of a table
            return None
        function = _margins(model.trees)
        if function is None:
            return None
        margins = ArrayModel(lambda rows: _by_class(np.asarray(function(rows)), 1), model.shapes)
        margins.columns, margins.classes = model.columns, model.classes
        return TreeModel(margins, model.trees, margins=True)


def tree_shap(request: MethodRequest) -> MethodResult:
    """TreeExplainer, with the baselines as background."""
    model, x, target = request.model, request.inputs[0], request.target
    if not isinstance(model, TreeModel):
        raise MethodError(
            "'tree_shap' compares numbers with a background of numbers, which categories, missing values and columns "
            "that are held are not. Use 'kernel_shap' or 'shapley_value_sampling', which exchange whole cells."
        )
    if _margins(model.trees) and not model.margins:
        raise MethodError(
            "Boosted trees add up to log odds: pass head='logit' to explain these. What TreeExplainer gives for "
            "probabilities are rescaled log odds, no Shapley values; 'kernel_shap' gives such."
        )
    if target is not None and target.function is not None:
        raise TargetError("'tree_shap' explains an output of the trees, no function of it. Pass a class as target.")
    (background,) = request.baselines or (0.0,)
    background = background if isinstance(background, np.ndarray) else np.full_like(x[:1], background)
    masker = shap.maskers.Independent(background, max_samples=len(background))  # an array is cut to a hundred rows
    values = np.asarray(shap.TreeExplainer(model.trees, masker).shap_values(x, check_additivity=False))
    if target is not None and target.index:
        classes = [index[0] for index in target.indices(len(x))]
        values = _by_class(values, 2)[np.arange(len(x)), :, classes]
    return MethodResult((values,), Axes.INPUT)


def _margins(trees: Any) -> Callable[[Any], Any] | None:
    for mark, word in (("get_booster", "output_margin"), ("booster_", "raw_score")):  # XGBoost, LightGBM
        if hasattr(trees, mark) and hasattr(trees, "predict_proba"):
            return partial(trees.predict, **{word: True})
    return getattr(trees, "decision_function", None)


def _by_class(values: np.ndarray, axis: int) -> np.ndarray:
    """Of two classes, libraries give the second one's values alone."""
    return values if values.ndim > axis else np.stack([-values, values], axis=axis)
