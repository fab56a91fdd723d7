"""Models that bring their own preparation: they are explained without it, and the explanation comes home through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cfi_core.adapters import find_type
from cfi_core.attribution import Attribution
from cfi_core.boundary import foreign
from cfi_core.catalogue import PREPARATIONS
from cfi_core.contract import Axes, Unpacked
from cfi_core.errors import ArgumentError, InputError
from cfi_core.records import Arguments
from cfi_core.registry import Registry
from cfi_core.requirements import unmet
from cfi_core.specs import MethodSpec, PreparationSpec, resolve


def unpack(registry: Registry, arguments: Arguments, methods: Sequence[MethodSpec]) -> Arguments:
    """The arguments for the model inside and what its preparation makes of the inputs; of any other as they are.

    Raises:
        ArgumentError: No installed plugin knows this preparation.
        InputError: The preparation refuses the inputs.
    """
    made = _unpack(registry, arguments.model, arguments.inputs)
    if made is None:
        return arguments
    takes_baselines = all("baselines" in (*method.required, *method.optional) for method in methods)
    return replace(
        arguments,
        model=made.model,
        inputs=made.inputs,
        feature_names=made.feature_names if arguments.feature_names is None else arguments.feature_names,
        baselines=made.baselines if arguments.baselines is None and takes_baselines else arguments.baselines,
        unpacked=made,
    )


def unpack_model(registry: Registry, model: Any, inputs: Any) -> tuple[Any, Any]:
    """The same for a call that takes a model and inputs alone."""
    made = _unpack(registry, model, inputs)
    return (model, inputs) if made is None else (made.model, made.inputs)


def come_home(unpacked: Unpacked, attribution: Attribution, axes: Axes) -> Attribution:
    """The attribution on what the user gave to the preparation, as far as it leads back, and what it did."""
    parts = attribution.parts
    came = [pair for part in parts if unpacked.home and (pair := unpacked.home(*part, axes)) is not None]
    is_home = len(came) == len(parts)
    pairs = came if is_home else parts
    values: Any = [pair[0] for pair in pairs]
    dims: Any = [pair[1] for pair in pairs]
    names: Any = attribution.part_names
    alone = len(parts) == 1
    shown: dict[str, Any] = {}
    if is_home and unpacked.shown:
        arrays, axes_shown = zip(*unpacked.shown, strict=True)
        shown = {"inputs": arrays, "input_dims": axes_shown}
    if is_home and any(one.shape != other.shape for (one, _), (other, _) in zip(came, parts, strict=True)):
        # Errors of single values do not tell those of what they were made into.
        shown["extras"] = {name: value for name, value in attribution.extras.items() if name != "standard_error"}
    where = "values are on what was given" if is_home else unpacked.stays
    return replace(
        attribution,
        values=values[0] if alone else attribution.like_values(values),
        dims=dims[0] if alone else attribution.like_values(dims),
        feature_names=names[0] if alone else attribution.feature_names,
        provenance={**attribution.provenance, "preparation": "; ".join(filter(None, (unpacked.did, where)))},
        **shown,
    )


def _unpack(registry: Registry, model: Any, inputs: Any) -> Unpacked | None:
    specs = sorted(registry.preparations.values(), key=lambda spec: (not spec.model_types, spec.name))
    for spec in specs:
        if spec.model_types and not any(find_type(*pair, model) for pair in spec.model_types):
            continue
        if (made := _call(registry, spec, model, inputs)) is not None:
            return made
    for known in PREPARATIONS:
        absent = known["name"] not in set(registry.preparations)
        if absent and any(find_type(module, name, model) for module, name in known["model_types"]):
            raise ArgumentError(
                f"A {type(model).__name__} prepares its inputs itself, which {known['distribution']} understands: "
                f"pip install {known['distribution']}. Or pass the model inside it, with what it is given there."
            )
    return None


def _call(registry: Registry, spec: PreparationSpec, model: Any, inputs: Any) -> Unpacked | None:
    origin = registry.origin_of(spec).label
    if missing := unmet(spec.requirements):
        raise ArgumentError(f"A {type(model).__name__} needs {', '.join(missing)} to be unpacked. Install it with pip.")
    with foreign(InputError, f"The preparation of the {type(model).__name__} ({origin}) fails", "Check the inputs."):
        made: Unpacked | None = resolve(spec.implementation)(model, inputs)
    return made
