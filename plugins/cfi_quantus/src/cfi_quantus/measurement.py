"""Runs one of Quantus's metrics on the attributions of one method."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cfi_core.errors import CFIError, MethodError, ModelWarning, warn
from cfi_core.silence import without_warnings
from cfi_core.subject import Subject
from cfi_quantus.checks import Case, check_case, check_randomisable, check_shift
from cfi_quantus.explanation import Explainer
from cfi_quantus.library import PyTorchModel
from cfi_quantus.presentation import Presented, Randomisable, gives_probabilities
from cfi_quantus.settings import Setting
from cfi_quantus.specs import Model, Scores
from cfi_quantus.workarounds import MENDED, MENDED_DEFAULTS, forget_models, mend_areas, metric_of, shift

_CHILD = "model."
_SAME = 0.99
"""Similarity of two explanations of one model below which its methods' noise counts: rounding keeps far above."""
_LONGEST = 300


@dataclass(frozen=True, eq=False)
class Measured:
    """The scores of one method's attributions by one metric.

    Attributes:
        values: Samples first, where there are any.
        dims: Names of their axes; those that are the metric's own without its label.
        coordinates: Of these axes, where they have some.
        notes: What the reader should know of how they came about.
    """

    values: np.ndarray
    dims: tuple[str, ...]
    coordinates: Mapping[str, list[Any]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Measurement:
    """What is common to all metrics of one group that are measured on one model.

    Attributes:
        subject: The model.
        classes: That are measured, one per sample.
        batch_size: Samples at a time, where a metric's setting names none.
    """

    subject: Subject
    classes: np.ndarray
    batch_size: int

    def measure(self, case: Case, explainer: Explainer, label: str) -> Measured:
        """Runs a metric.

        Raises:
            MethodError: Quantus fails, or cannot measure this model.

        Warns:
            ModelWarning: Scores are no numbers, perturbations changed nothing, or randomisation left something.
        """
        check_case(case)
        setting = case.setting
        if setting.metric.explains:
            explainer.check(case.values, self.classes)
        softmax, notes = self._softmax(setting, case.outputs)
        model = self._model(case, explainer, softmax)
        if setting.metric.model is Model.CHANGES_WEIGHTS:
            notes["left"] = check_randomisable(setting.label, self.subject.model)
        if setting.metric.model is Model.SHIFTS_INPUTS:
            self._check_shift(case)
        self.subject.reseed()
        try:
            with without_warnings(), mend_areas():
                raw = self._call(case, model, explainer)
        except CFIError:
            raise
        except Exception as error:  # Quantus raises AssertionError, ValueError, IndexError and others
            raise MethodError(
                f"{setting.label} of {label}: Quantus failed ({_message(error)}). {setting.metric.hint}"
            ) from error
        finally:
            forget_models()
        if isinstance(model, Presented) and model.rows:
            notes["unchanged"] = model.unchanged / model.rows
        measured = _read_scores(setting, raw, notes)
        _tell(setting, label, measured, model)
        return measured

    def _softmax(self, setting: Setting, outputs: int) -> tuple[bool, dict[str, Any]]:
        """Whether a softmax is to be added, and what is measured, in words."""
        if setting.metric.model is Model.NOTHING:
            return False, {"output": "not used"}
        probabilities = gives_probabilities(self.subject)
        if outputs == 1:
            return False, {"output": "the model's output as it is (it has one, so no softmax)"}
        if probabilities:
            told_so = "" if setting.wants_softmax else "; no softmax was found at its end to leave out"
            only_labels = setting.metric.explains and not setting.metric.compares_outputs
            if not (setting.wants_softmax or only_labels):
                warn(
                    f"{setting.label} measures logits, and the model gives probabilities{told_so}: the probabilities "
                    f"are measured. Pass a model that gives logits, or softmax=True.",
                    ModelWarning,
                )
            return False, {"output": f"probabilities, as the model gives them{told_so}"}
        if setting.wants_softmax:
            return True, {"output": "probabilities: the softmax of the logits"}
        return False, {"output": self.subject.explained}

    def _model(self, case: Case, explainer: Explainer, softmax: bool) -> torch.nn.Module:
        match case.setting.metric.model:
            case Model.READS_MODULES | Model.SHIFTS_INPUTS:
                return self.subject.model
            case Model.CHANGES_WEIGHTS:
                return Randomisable(self.subject.model, self.subject.position, softmax=softmax)
        size = case.setting.batch_size or self.batch_size
        return Presented(self.subject, explainer.layout, softmax=softmax, batch_size=size)

    def _call(self, case: Case, model: torch.nn.Module, explainer: Explainer) -> Any:
        setting, metric = case.setting, case.setting.metric
        size = setting.batch_size or self.batch_size
        if metric.compares_samples:
            size = len(case.inputs)
        elif metric.single_samples:
            size = 1
        arguments: dict[str, Any] = {
            "model": model,
            "x_batch": case.inputs.copy(),
            "y_batch": self.classes.copy(),
            "a_batch": None if metric.makes_first else case.values.copy(),
            "channel_first": True,
            "explain_func": explainer,
            "explain_func_kwargs": {},
            "softmax": False,  # the model that Quantus is given has it already, if it is wanted
            "batch_size": size,
            "device": str(device) if (device := self.subject.tensors[0].device).type != "cpu" else None,
        }
        if metric.masks:
            arguments["s_batch"] = case.masks
        if setting.custom_batch is not None:
            arguments["custom_batch"] = np.asarray(setting.custom_batch)
        return _make(setting, case.outputs, self.subject)(**arguments)

    def _check_shift(self, case: Case) -> None:
        amount = case.setting.value("input_shift")

        def run(model: torch.nn.Module, arrays: np.ndarray) -> np.ndarray:
            return np.asarray(PyTorchModel(model, softmax=False).predict(arrays))

        def shifted() -> np.ndarray:
            copy = PyTorchModel(self.subject.model).add_mean_shift_to_first_layer(amount, case.inputs[:1].shape)
            return run(copy, shift(case.inputs, amount))

        with without_warnings():
            check_shift(case.setting.label, shifted, lambda: run(self.subject.model, case.inputs))
        forget_models()


def _make(setting: Setting, outputs: int, subject: Subject) -> Any:
    """Quantus's metric object, quiet, its faults mended where an argument can."""
    quantus_class = MENDED.get(setting.metric.name, setting.quantus_class)
    init = {**MENDED_DEFAULTS.get(setting.metric.name, {}), **setting.init}
    if setting.takes("num_classes"):
        init.setdefault("num_classes", outputs)
    if "distance_func" in init and setting.takes("distance_func"):
        init["distance_func"] = metric_of(init["distance_func"])
    if init.get("layer_names"):
        init["layer_names"] = subject.layer_names(init["layer_names"])
    quiet = {"disable_warnings": True, "display_progressbar": False}
    # Constructors print what they think of other values of these.
    late = {name: init.pop(name) for name in ("abs", "normalise") if name in init}
    if "return_aggregate" in inspect.signature(quantus_class.__init__).parameters:
        quiet["return_aggregate"] = False
    metric = quantus_class(**init, **quiet)
    for attribute, value in late.items():
        setattr(metric, attribute, value)
    return metric


def _read_scores(setting: Setting, raw: Any, notes: dict[str, Any]) -> Measured:
    kind = setting.metric.scores
    if kind is Scores.PERCENTAGES:
        values = np.array(list(raw.values()), float)
        return _aggregate(setting, Measured(values, ("percentage",), {"percentage": list(raw)}, notes))
    if kind is Scores.STEPS:
        return _aggregate(setting, Measured(np.array(raw, float), ("step",), {}, notes))
    if kind is Scores.LAYERS:
        return _aggregate(setting, _read_layers(setting, raw, notes))
    values = np.array(raw, float)
    dims = ("sample", "step")[: values.ndim]
    return _aggregate(setting, Measured(values, dims, {}, notes))


def _read_layers(setting: Setting, raw: Mapping[str, Any], notes: dict[str, Any]) -> Measured:
    """Without the comparison of the model with itself, which is no score: it is told apart."""
    scores = {name.removeprefix(_CHILD): np.array(values, float) for name, values in raw.items()}
    notes["original"] = float(np.mean(scores.pop("original")))
    values = np.stack(list(scores.values()), axis=1)
    if setting.average is not None:
        return Measured(values.mean(1) if setting.average == "average" else values[:, -1], ("sample",), {}, notes)
    return Measured(values, ("sample", "layer"), {"layer": list(scores)}, notes)


def _aggregate(setting: Setting, measured: Measured) -> Measured:
    if setting.aggregate is None:
        return measured
    return Measured(np.asarray(setting.aggregate(measured.values), float), (), {}, measured.notes)


def _tell(setting: Setting, label: str, measured: Measured, model: torch.nn.Module) -> None:
    who = f"{setting.label} of {label}"
    if left := measured.notes.get("left"):
        warn(f"{who}: Quantus did not randomise {left} (no module with reset_parameters() holds them).", ModelWarning)
    if (own := measured.notes.get("original", 1.0)) < _SAME:
        draws = setting.metric.makes_first
        why = "two draws of its noise differ so much; pass a larger nr_samples" if draws else "the method is random"
        warn(
            f"{who}: explained twice, the unchanged model is only {own:.2f} similar to itself, so {why}. Scores of "
            f"changed models mean as much.",
            ModelWarning,
        )
    perturbs = setting.metric.category == "Faithfulness" and setting.takes("perturb_func")
    if perturbs and isinstance(model, Presented) and 0 < model.rows == model.unchanged:
        warn(f"{who}: no perturbation changed any input. Pass another perturb_baseline.", ModelWarning)
    if wrong := int((~np.isfinite(measured.values)).sum()):
        warn(
            f"{who}: {wrong} of {measured.values.size} scores are no finite numbers (a prediction that changed, "
            f"attributions or outputs that are constant).",
            ModelWarning,
        )


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}"
