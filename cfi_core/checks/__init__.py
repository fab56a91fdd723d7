"""Checks of an explanation: whether it tells of this model, and how well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from inspect import Parameter, signature
from typing import Any

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.checks.question import Question
from cfi_core.checks.results import Check, Checks, Curve
from cfi_core.errors import FOREIGN, ArgumentError, CFIError, InputError, MethodError, ModelWarning, summary, warn
from cfi_core.progress import phase, show
from cfi_core.records import check_progress
from cfi_core.registry import Registry, registry
from cfi_core.requirements import unmet
from cfi_core.specs import MetricSpec, resolve
from cfi_core.spelling import nearest

__all__ = ["Check", "Checks", "Curve", "check"]

OWN = "cfi"
"""The library whose metrics run if none is named."""


def check(
    attribution: Attribution,
    model: Any,
    *,
    inputs: Any = None,
    target: Any = None,
    explain: Mapping[str, Any] | None = None,
    checks: str | Sequence[Any] | Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool | None = None,
    seed: int | None = None,
) -> Checks:
    """Checks an explanation: does it depend on what the model has learnt, and does it tell what the model does?

    The model is run as it is, in its own framework; only what explains again takes the route of the attribution.

    Args:
        attribution: Of `cfi.attribute`, or of `cfi.load`.
        model: The one that was explained. It is left as it is.
        inputs: What was explained, as it was given to `cfi.attribute`; None takes the inputs of the attribution.
        target: What was explained; None takes the target of the attribution.
        explain: Arguments of `cfi.attribute` that the provenance does not hold (`baselines`, `head`, what `init_args`
            and `exec_args` held as objects), for checks that explain again.
        checks: Names of metrics, each alone, in a pair with a dict of its own options, or as a key of a mapping with
            such a dict as its value: CFI's own (`"parameter_randomisation"`, `"deletion"`, `"insertion"`,
            `"infidelity"`, `"max_sensitivity"`, `"completeness"`; their options stand in docs/checking.md), and those
            of plugins (`"Faithfulness Correlation"`; `"quantus:Infidelity"` says whose). None runs all of CFI's own
            that can run, and tells why others cannot.
        progress: As for `cfi.attribute`.
        seed: Of all that is random; None draws one.

    Returns:
        The numbers, what they mean and what to hold them against; print it, or draw it with `plot`.

    Raises:
        ArgumentError: An argument is of the wrong form, or a metric has no such name.
        UnknownFrameworkError: The model is of no known framework.
        CFIError: A check that was asked for by its name cannot run.

    Warns:
        ModelWarning: A check says that something is wrong with the explanation.
    """
    question = Question.of(model, attribution, inputs, target, explain, seed)
    current = registry()
    asked = _read(current, checks)
    given = {"inputs": inputs, "target": target, "explain": explain, "seed": question.seed}
    found, left_out = {}, {}
    check_progress(progress)
    with show(progress):
        _check_model(question)
        for spec, options in asked:
            try:
                with phase(f"checking {spec.name}"):
                    found[spec.name] = _run(spec, question, options, given)
            except CFIError as error:
                if checks is not None:
                    raise _named(spec, error) from error
                left_out[spec.name] = str(error)
    made = Checks(attribution, found, left_out, question.seed)
    for text in made.warnings:
        warn(f"{attribution.method_key} of {attribution.toolset}, {text}.", ModelWarning)
    return made


def _check_model(question: Question) -> None:
    """That it is a model, of the framework of the one that was explained; inputs that are missing are told later."""
    with suppress(InputError):
        assert question.framework


def _named(spec: MetricSpec, error: CFIError) -> CFIError:
    """The error with the name of the check in front, of the same kind where that is made of a message alone."""
    text = f"{spec.name} cannot run: {error}"
    return type(error)(text) if type(error).__init__ in (Exception.__init__, CFIError.__init__) else MethodError(text)


def _read(current: Registry, checks: Any) -> list[tuple[MetricSpec, dict[str, Any]]]:
    """The metrics that are asked for, with their options."""
    if checks is None:
        return [(spec, {}) for (_, library), spec in current.metrics.items() if library == OWN]
    if not isinstance(checks, str | Mapping | Sequence):
        raise ArgumentError(f"checks={checks!r} is none of a name, a list of names, and a mapping of names to dicts.")
    entries = checks.items() if isinstance(checks, Mapping) else [checks] if isinstance(checks, str) else list(checks)
    if not entries:
        raise ArgumentError("checks is empty: name some, or leave it out to run all that can run.")
    found = []
    for entry in entries:
        if not isinstance(entry, str) and not _is_pair(entry):
            raise ArgumentError(f"checks holds {entry!r}, which is neither a name nor a pair of a name and a dict.")
        name, options = (entry, {}) if isinstance(entry, str) else entry
        found.append((_find(current, name), dict(options)))
    return found


def _is_pair(entry: Any) -> bool:
    is_two = isinstance(entry, tuple | list) and len(entry) == 2
    return is_two and isinstance(entry[0], str) and isinstance(entry[1], Mapping)


def _find(current: Registry, asked: str) -> MetricSpec:
    """The metric of that name; CFI's own before others."""
    library, _, name = asked.rpartition(":")
    known = {key: spec for key, spec in current.metrics.items() if library in ("", key[1])}
    exact = [spec for (one, _), spec in known.items() if one == name]
    for matches in (exact, [spec for (one, _), spec in known.items() if one.lower() == name.lower()]):
        own = [spec for spec in matches if spec.library == OWN]
        if matches and (own or len(matches) == 1):
            return (own or matches)[0]
        if matches:
            those = ", ".join(sorted(f"{spec.library}:{spec.name}" for spec in matches))
            raise ArgumentError(f"Several libraries have a metric {name!r}: name one of {those}.")
    names = sorted({one for one, _ in known})
    near = nearest(name, names)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are {', '.join(names)}."
    raise ArgumentError(f"There is no metric {asked!r}. {hint}{current.absence_note()}")


def _run(spec: MetricSpec, question: Question, options: dict[str, Any], given: Mapping[str, Any]) -> Check:
    if missing := unmet(spec.requirements):
        raise MethodError(f"{spec.name} needs {', '.join(missing)}. Install it with pip.")
    function = resolve(spec.implementation)
    parameters = list(signature(function).parameters.values())[3:]
    known = [one.name for one in parameters if one.kind is Parameter.KEYWORD_ONLY]
    if unknown := [name for name in options if name not in known]:
        own = [name for name in known if name not in given]
        raise ArgumentError(f"it has no option {unknown[0]!r}; its options are {', '.join(own) or 'none'}.")
    told = {name: value for name, value in given.items() if name in known and value is not None}
    try:
        made = function(question.model, question.attribution, spec.name, **{**told, **options})
    except CFIError:
        raise
    except FOREIGN as error:  # of the user's model, or of a library
        raise MethodError(f"it failed: {summary(error)}.") from error
    return made if isinstance(made, Check) else _from_dataset(spec, made)


def _from_dataset(spec: MetricSpec, data: Any) -> Check:
    """What another library's metric gave, as `xarray.Dataset`: the mean over all but the samples."""
    names = list(getattr(data, "data_vars", ()))
    if len(names) != 1:
        raise MethodError(f"it gave {type(data).__name__} with {len(names)} scores, and one was expected.")
    variable = data[names[0]]
    values, dims = np.asarray(variable.values, np.float64), [str(one) for one in variable.dims]
    rest = tuple(axis for axis, name in enumerate(dims) if name != "sample")
    further = [name for name in dims if name not in ("sample", "explanation")]
    means = f"{spec.category.lower()}, {spec.library}'s {spec.name}"
    return Check(
        name=spec.name,
        scores=np.atleast_1d(values.mean(rest)),
        better=spec.better,
        means=f"{means}, the mean over {' and '.join(further)}" if further else means,
        settings={str(name): value for name, value in variable.attrs.items()},
        citation=spec.citation,
    )
