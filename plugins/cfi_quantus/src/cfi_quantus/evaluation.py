"""Measures attributions of any toolset and framework by Quantus's metrics."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

import cfi_core as cfi
from cfi_core import Attribution
from cfi_core.errors import ArgumentError, InputError
from cfi_core.specs import Head, Need
from cfi_core.subject import Subject, prepare_subject, samples_apart
from cfi_quantus.alignment import Alignment
from cfi_quantus.checks import Case
from cfi_quantus.explanation import Explainer, Explanation, read_explanation, read_method
from cfi_quantus.layout import CHANNEL, Layout, as_model, channels_first
from cfi_quantus.library import quantus
from cfi_quantus.measurement import Measured, Measurement
from cfi_quantus.presentation import classes
from cfi_quantus.scores import gather
from cfi_quantus.settings import Setting, read_metrics


def evaluate(
    model: Any,
    attributions: Any,
    metrics: Any,
    *,
    inputs: Any = None,
    target: Any = None,
    masks: Any = None,
    explain: Mapping[str, Any] | None = None,
    channels: str | None = None,
    resize: str | None = None,
    translator: str | Sequence[str] | None = None,
    batch_size: int = 64,
    seed: int | None = None,
) -> xr.Dataset:
    """Measures how good attributions are.

    Args:
        model: As for `cfi.attribute`; it is left as it is.
        attributions: An `Attribution`, an array with the axes of the inputs (or without their channels), or a mapping
            from labels to such.
        metrics: Names of Quantus's metrics; pairs of a name and a dict of arguments in Quantus's own words (those of
            the constructor, and `softmax`, `batch_size`, `custom_batch` of the call); or a mapping from labels to such.
        inputs: What was explained; None takes the inputs of the attributions.
        target: One class for all samples, or a list with one for each; None takes the target of the attributions.
        masks: For localisation: ones where the object is, zeros elsewhere; the axes of the inputs without channels.
        explain: For metrics that explain again: the arguments of `cfi.attribute` that the provenance of the
            attributions does not hold (such as `baselines`), or a mapping from labels to them.
        channels: How attributions of several channels are put together before they are measured: `"sum"`, `"mean"`,
            `"norm"`; None leaves them apart.
        resize: How maps of another size are stretched over the inputs: `"bilinear"`, `"nearest"`; None refuses them.
        translator: As for `cfi.attribute`; metrics that read or change modules need a conversion.
        batch_size: Samples at a time.
        seed: Seeds all that is random, for each metric and method anew; None draws one.

    Returns:
        One variable per metric, with the coordinates `method`, `sample` and those of the metric's own. Its attributes
        hold all settings, the dataset's where the scores come from.

    Raises:
        ArgumentError: An argument does not fit (`InputError`, `TargetError` and `LayerError` are of this kind).
        RouteError: The model cannot be brought where the metric needs it.
        MethodError: Quantus fails, or has a fault that would make the score another one.

    Warns:
        ModelWarning: Scores are no numbers, or mean less than they seem to.
    """
    given = attributions if isinstance(attributions, Mapping) else {_label(attributions): attributions}
    if not given:
        raise ArgumentError("attributions is empty: pass an Attribution, or a mapping from labels to some.")
    question = Question(
        model=model,
        attributions=given,
        settings=read_metrics(metrics),
        inputs=_common(given, "inputs", inputs),
        target=_common(given, "target", target),
        masks=masks,
        channels=channels,
        resize=resize,
        translator=translator,
        batch_size=batch_size,
        seed=secrets.randbits(31) if seed is None else seed,
    )
    return question.answer(_explanations(question, explain))


def table(
    model: Any,
    methods: Mapping[str, Any] | Sequence[str],
    metrics: Any,
    *,
    inputs: Any,
    target: Any = None,
    masks: Any = None,
    channels: str | None = None,
    resize: str | None = None,
    translator: str | Sequence[str] | None = None,
    batch_size: int = 64,
    seed: int | None = None,
) -> xr.Dataset:
    """Explains a model by several methods and measures each by several metrics.

    Args:
        model: As for `cfi.attribute`.
        methods: From labels to method keys, or to dicts of the arguments of `cfi.attribute` (`method_key`, `toolset`,
            `layer`, `baselines`, `init_args`, `exec_args`, …); or a list of method keys.
        metrics: As for `evaluate`.
        inputs: What is explained.
        target: The class that is explained and measured: one, or a list with one for each sample.
        masks: As for `evaluate`.
        channels: As for `evaluate`.
        resize: As for `evaluate`.
        translator: As for `evaluate`; of the metrics' model, a method's own stands with it.
        batch_size: As for `evaluate`.
        seed: Of the methods too, where they name none.

    Returns:
        The scores; `summarize` makes one table of them, to be printed.

    Raises:
        CFIError: As `cfi.attribute` and `evaluate`.
    """
    seed = secrets.randbits(31) if seed is None else seed
    explanations = {label: read_method(label, given, seed) for label, given in _by_label(methods).items()}
    attributions: dict[str, Attribution] = {}
    for label, one in explanations.items():
        found = cfi.attribute(model, inputs=inputs, target=target, **one.arguments)
        if not isinstance(found, Attribution):
            raise ArgumentError(f"{label} needs a layer: pass {{'layer': …}} with it. {found}")
        attributions[label] = found
    question = Question(
        model=model,
        attributions=attributions,
        settings=read_metrics(metrics),
        inputs=inputs,
        target=target,
        masks=masks,
        channels=channels,
        resize=resize,
        translator=translator,
        batch_size=batch_size,
        seed=seed,
    )
    known = {label: one.by(attributions[label].toolset) for label, one in explanations.items()}
    return question.answer(known)


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """What is to be measured of what; see `evaluate`."""

    model: Any
    attributions: Mapping[str, Any]
    settings: tuple[Setting, ...]
    inputs: Any
    target: Any
    masks: Any
    channels: str | None
    resize: str | None
    translator: str | Sequence[str] | None
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise ArgumentError(f"batch_size={self.batch_size!r} is no number of samples: pass 1 or more.")

    def answer(self, explanations: Mapping[str, Explanation | None]) -> xr.Dataset:
        """The scores of all metrics for all methods."""
        count = self._samples_apart()
        if count > 1:
            return self._join([replace(self, **self._of_sample(i, count)).answer(explanations) for i in range(count)])
        measured: dict[str, dict[str, Measured]] = {}
        attrs: dict[str, Any] = {}
        for changing in (False, True):
            settings = [one for one in self.settings if one.metric.model.is_opened is changing]
            if settings:
                with self._subject(settings, changing) as subject:
                    found, told = self._measure(subject, settings, explanations, changing)
                measured |= found
                attrs |= told
        return gather(self.settings, measured, {**attrs, **self._provenance()})

    def _samples_apart(self) -> int:
        """How many samples have to be measured one by one, as each has held inputs of its own."""
        count = samples_apart(self.model, self.inputs)
        together = [one.label for one in self.settings if one.metric.compares_samples or one.aggregate]
        if count > 1 and together:
            raise ArgumentError(
                f"{together[0]} measures samples together, and each holds inputs of its own. Leave it out, or evaluate "
                f"samples that hold the same."
            )
        return count

    def _of_sample(self, i: int, count: int) -> dict[str, Any]:
        """What belongs to one sample."""

        def row(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: row(one) for name, one in value.items()}
            if isinstance(value, Attribution):
                return replace(value, values=row(value.values), inputs=tuple(map(row, value.inputs)))
            if isinstance(value, list) or getattr(value, "shape", ())[:1] == (count,):
                return value[i : i + 1]
            return value

        return {name: row(getattr(self, name)) for name in ("inputs", "attributions", "target", "masks")}

    def _join(self, parts: list[xr.Dataset]) -> xr.Dataset:
        """The scores of all samples."""
        for name, variable in parts[0].data_vars.items():
            if "sample" not in variable.dims:
                raise ArgumentError(
                    f"{name} gives one score for all samples, and each holds inputs of its own. Leave it out."
                )
        joined = xr.concat(parts, dim="sample", combine_attrs="override")
        return joined.assign_coords(sample=np.arange(joined.sizes["sample"]))

    def _subject(self, settings: list[Setting], changing: bool) -> Any:
        needs = frozenset[Need]().union(*(one.metric.needs for one in settings))
        return prepare_subject(
            self.model,
            "torch",
            needs,
            inputs=self.inputs,
            target=self.target,
            translator=self.translator,
            head=Head.OUTPUT if changing else Head.LOGIT,
            alters_model=changing,
            seed=self.seed,
        )

    def _measure(
        self,
        subject: Subject,
        settings: list[Setting],
        explanations: Mapping[str, Explanation | None],
        changing: bool,
    ) -> tuple[dict[str, dict[str, Measured]], dict[str, Any]]:
        if len(subject.arrays) != 1:
            raise InputError(f"Quantus measures models of one input, and this one got {len(subject.arrays)}.")
        self._check_framework(subject)
        array, dims = subject.arrays[0], subject.dims[0]
        if array.dtype.kind != "f":
            raise InputError(f"Quantus perturbs inputs by real numbers; {array.dtype} inputs cannot take them.")
        layout = as_model(dims, subject.input_axes[0]) if changing else channels_first(dims)
        alignment = Alignment(dims, self.channels, self.resize)
        values = {label: alignment.align(label, one, array.shape) for label, one in self.attributions.items()}
        measurement = Measurement(subject, classes(subject), self.batch_size)
        output = subject.outputs[subject.position]
        found: dict[str, dict[str, Measured]] = {}
        for setting in settings:
            found[setting.label] = {}
            for label, one in values.items():
                case = Case(
                    setting=setting,
                    inputs=layout.show(array),
                    values=one.show(layout),
                    masks=self._masks(dims, array.shape, layout),
                    outputs=1 if output.ndim == 1 else output.shape[1],
                )
                explainer = Explainer(
                    self.model, explanations.get(label), subject, layout, alignment, f"{setting.label} of {label}"
                )
                found[setting.label][label] = measurement.measure(case, explainer, label)
        suffix = " (modules)" if changing else ""
        told = {
            f"route{suffix}": ", ".join(subject.route) or "native",
            f"certificate{suffix}": subject.certificate,
            "framework": subject.framework,
            "applied": json.dumps({label: one.applied for label, one in values.items()}),
        }
        return found, told

    def _check_framework(self, subject: Subject) -> None:
        """A plain function is of the framework that its inputs are of, and an attribution holds arrays alone."""
        for label, one in self.attributions.items():
            explained = one.provenance.get("framework") if isinstance(one, Attribution) else None
            if explained not in (None, subject.framework):
                raise ArgumentError(
                    f"{label} explains a {explained} model, and with these inputs it is one of {subject.framework}: "
                    f"pass inputs= as tensors of {explained}."
                )

    def _masks(self, dims: tuple[str, ...], shape: tuple[int, ...], layout: Layout) -> np.ndarray | None:
        if self.masks is None:
            return None
        masks = np.asarray(self.masks)
        sizes = tuple(size for name, size in zip(dims, shape, strict=True) if name != CHANNEL)
        if masks.shape != sizes or not np.isin(masks, (0, 1)).all():
            raise InputError(
                f"masks have shape {masks.shape}; pass zeros and ones of shape {sizes}: the axes of the inputs without "
                f"channels."
            )
        return layout.show_map(masks).astype(bool)

    def _provenance(self) -> dict[str, Any]:
        kind = type(self.model)
        of_methods = {
            label: {**_describe_origin(one), "channels": self.channels} for label, one in self.attributions.items()
        }
        return {
            "model": f"{kind.__module__}.{kind.__qualname__}",
            "quantus": quantus.__version__,
            "seed": self.seed,
            "target": repr(self.target),
            "methods": json.dumps(of_methods, default=str),
        }


def _describe_origin(attribution: Any) -> dict[str, Any]:
    if not isinstance(attribution, Attribution):
        return {"method": "values that were given"}
    names = ("method", "toolset", "route", "certificate", "explained", "defaults", "applied", "seed", "versions")
    return {name: attribution.provenance[name] for name in names if name in attribution.provenance}


def _by_label(methods: Any) -> Mapping[str, Any]:
    if isinstance(methods, str):
        return {methods: methods}
    named = methods if isinstance(methods, Mapping) else {str(key): key for key in methods}
    if not named:
        raise ArgumentError("methods is empty: pass method keys, or a mapping from labels to arguments.")
    return named


def _label(attributions: Any) -> str:
    return attributions.method_key if isinstance(attributions, Attribution) else "attributions"


def _common(attributions: Mapping[str, Any], name: str, given: Any) -> Any:
    """What all attributions have in common, if the user does not say it.

    Raises:
        ArgumentError: They have nothing, or not the same.
    """
    if given is not None:
        return given
    known = [one for one in attributions.values() if isinstance(one, Attribution)]
    found = [one.inputs if name == "inputs" else one.target for one in known]
    if name == "inputs":
        if not found or not all(found):
            raise ArgumentError("What was explained is not known: pass inputs=.")
        same = all(len(one) == len(found[0]) and all(map(np.array_equal, one, found[0])) for one in found)
        answer: Any = found[0] if len(found[0]) > 1 else found[0][0]
    else:
        same = all(repr(one) == repr(found[0]) for one in found)
        answer = found[0] if found else None
    if not same:
        raise ArgumentError(
            f"The attributions are of different {name.rstrip('s')}s: evaluate them apart, or pass {name}=."
        )
    return answer


def _explanations(question: Question, explain: Mapping[str, Any] | None) -> dict[str, Explanation | None]:
    if not any(one.metric.explains for one in question.settings):
        return {}
    by_label = explain is not None and all(isinstance(one, Mapping) for one in explain.values()) and bool(explain)
    by_label = by_label and set(explain or ()) <= set(question.attributions)
    return {
        label: read_explanation(label, one, ((explain or {}).get(label) if by_label else explain))
        for label, one in question.attributions.items()
    }
