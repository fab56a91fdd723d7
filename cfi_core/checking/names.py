"""What names tell: the toolset's own words sorted into the uniform ones that they mean, and the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from cfi_core.errors import ArgumentError, LayerError
from cfi_core.records import Arguments, Original
from cfi_core.specs import UNIFORM_ARGUMENTS, Kind, MethodSpec, Role

_HINTS = {
    "inputs": "with the samples to explain, sample axis first",
    "target": "with the class index, one per sample, a tuple into the output or a callable",
    "neuron": "with the index of one unit of the layer's output, in your model's axis order",
    "baselines": "with reference inputs, in your model's axis order",
}


def sort_arguments(arguments: Arguments, method: MethodSpec) -> Arguments:
    """Checks the arguments by name, and lifts own words into the uniform ones that they mean.

    Returns:
        The arguments with `inputs`, `target`, `layer`, `neuron` and `baselines` in their uniform places, and with
        only such own arguments left as have no uniform meaning, completed by the chosen set of the method's defaults.

    Raises:
        ArgumentError: An argument is unknown, given twice, required and missing, or has no meaning here.
    """
    lifted: dict[str, Any] = {name: getattr(arguments, name) for name in UNIFORM_ARGUMENTS}
    origin = {name: name for name, value in lifted.items() if value is not None}
    init_args = _lift("init_args", arguments, method, lifted, origin)
    exec_args = _lift("exec_args", arguments, method, lifted, origin)
    one_alone = (lifted["layer"] is None) != (lifted["neuron"] is None)
    if method.kind is Kind.FEATURE_VISUALIZATION and one_alone:
        raise ArgumentError("A layer is visualised by one of its channels or units: pass both layer= and neuron=.")
    who, understood = f"{method.key} of {method.toolset}", (*method.required, *method.optional)
    if lifted["target"] is not None and arguments.of_role(Role.OWN_TARGET, method):
        given = f"as {origin['target']!r} and in the toolset's own words"
        raise ArgumentError(f"{who} got its target twice: {given}. Keep one of them.")
    for name, given in origin.items():
        if name not in understood:
            hint = f"It understands {', '.join(understood)}; leave {given!r} out."
            raise ArgumentError(f"{who} takes no {given!r}. {hint}")
    for name in method.required:
        # A missing layer is no error: the call ends in a PendingLayer.
        if name != "layer" and lifted[name] is None:
            raise ArgumentError(f"{who} needs {name!r}: pass {name}= {_HINTS[name]}.")
    init_args, exec_args = method.complete(arguments.defaults, init_args, exec_args)
    return replace(arguments, **lifted, init_args=init_args, exec_args=exec_args)


def _lift(
    where: str, arguments: Arguments, method: MethodSpec, lifted: dict[str, Any], origin: dict[str, str]
) -> Mapping[str, Any]:
    """Moves those own words (of constructor or call) that have a uniform meaning to where they mean it."""
    names, rest = getattr(method, where), {}
    for name, value in (getattr(arguments, where) or {}).items():
        role = method.roles.get(name, "" if name in names else name)
        meaning = "inputs" if role is Role.ONE_OR_SEVERAL else str(role)
        if meaning not in UNIFORM_ARGUMENTS:
            if name not in names:
                near = ", ".join(get_close_matches(name, names, n=3))
                hint = f"Nearest: {near}" if near else f"{where} may hold: {', '.join(names) or 'nothing'}"
                if name in (*method.init_args, *method.exec_args):
                    hint = f"It belongs into {'init_args' if where == 'exec_args' else 'exec_args'}"
                raise ArgumentError(f"{method.key} of {method.toolset} takes no {where}[{name!r}]. {hint}.")
            rest[name] = value
        elif value is not None:
            if meaning in origin:
                raise ArgumentError(
                    f"{meaning!r} is given twice: as {origin[meaning]!r} and as {where}[{name!r}]. Keep one of them."
                )
            lifted[meaning], origin[meaning] = value, f"{where}[{name!r}]"
    return rest


def layer_names(original: Original, layer: object) -> tuple[str, ...]:
    """Names of the layers of the model that the user referred to by object or name, one or a list of them."""
    if layer is None:
        return ()
    references = layer if isinstance(layer, list | tuple) else (layer,)
    return tuple(_layer_name(original, reference) for reference in references)


def _layer_name(original: Original, reference: object) -> str:
    adapter, model = original.adapter, original.model
    name = adapter.layer_name(model, reference)
    if name is not None:
        return name
    known = [layer.name for layer in adapter.layers(model)]
    some = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    if not isinstance(reference, str):
        what = f"The {type(reference).__name__} given as layer"
        raise LayerError(f"{what} is not part of this model. Pass one of its own layers, or a name: {some}")
    near = ", ".join(get_close_matches(reference, known, n=3, cutoff=0.4))
    hint = f"Nearest: {near}" if near else f"It has: {some}"
    raise LayerError(f"The model has no layer {reference!r}. {hint}. cfi.layers(model) lists all.")
