"""Steps 1 to 4 of a call: what would happen, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from cfi_core.call import Call, sort_arguments
from cfi_core.detection import adapter_for, detect_framework
from cfi_core.errors import LayerError
from cfi_core.finding import find_methods
from cfi_core.frameworks.base import FrameworkAdapter
from cfi_core.registry import Registry
from cfi_core.routes import Route, choose
from cfi_core.specs import Head, Kind, MethodSpec, Role

ATTRIBUTION_KINDS = frozenset({Kind.ATTRIBUTION, Kind.LAYER, Kind.NEURON})
VISUALIZATION_KINDS = frozenset({Kind.FEATURE_VISUALIZATION})


@dataclass(frozen=True, eq=False)
class Plan:
    """What a call will do: print it to read it.

    Attributes:
        method: The method that will run.
        framework: The framework of the user's model.
        toolset_framework: The framework that the method runs in.
        routes: The routes to the toolset, the one to try first in front.
        reason: Why this route.
        others: Toolsets that would have served too.
        head: Where a softmax head is explained.
        layers: Names of the layers in the user's model; empty for methods without one, and while none is chosen.
        needs_layer: The method needs a layer and none was given: the call will end in a `PendingLayer`.
        call: The arguments, sorted.
    """

    method: MethodSpec
    framework: str
    toolset_framework: str
    routes: tuple[Route, ...]
    reason: str
    others: tuple[str, ...]
    head: Head
    layers: tuple[str, ...]
    needs_layer: bool
    call: Call

    @property
    def route(self) -> Route:
        """The route that is tried first."""
        return self.routes[0]

    def __str__(self) -> str:
        lines = [
            f"method    {self.method.key} ({self.method.kind})",
            f"toolset   {self.method.toolset}" + (f"; also offered by {', '.join(self.others)}" if self.others else ""),
            f"model     {type(self.call.model).__name__}, {self.framework}",
            f"route     {self.route}: {self.reason}",
            f"needs     {', '.join(sorted(self.method.needs))}",
            f"head      a softmax at the end is explained at its {self.head}",
        ]
        if len(self.routes) > 1:
            lines.insert(4, f"          if that fails: {'; '.join(str(route) for route in self.routes[1:])}")
        if self.layers or self.needs_layer:
            lines.append(f"layer     {', '.join(self.layers) or 'to be chosen (the call returns a PendingLayer)'}")
        lines.append(f"citation  {self.method.citation}")
        return "\n".join(lines)


def make_plan(registry: Registry, call: Call, kinds: frozenset[Kind]) -> Plan:
    """Takes steps 1 to 4.

    Raises:
        CFIError: Some kind of it, for whatever stands in the way.
    """
    found = find_methods(registry, call.method_key, call.toolset, kinds)
    methods = tuple(_as_called(registry, method, call) for method in found)
    framework = detect_framework(registry, call.model, _given_inputs(found, call))
    choice = choose(registry, methods, framework.name, call.translator)
    adapter = adapter_for(registry, framework.name)
    sorted_call = replace(sort_arguments(call, choice.method), model=adapter.load(call.model))
    layers = layer_names(adapter, sorted_call.model, sorted_call.layer)
    return Plan(
        method=choice.method,
        framework=framework.name,
        toolset_framework=registry.toolsets[choice.method.toolset].framework,
        routes=choice.routes,
        reason=choice.reason,
        others=choice.others,
        head=Head(call.head) if call.head is not None else choice.method.head,
        layers=layers,
        needs_layer="layer" in choice.method.required and not layers,
        call=sorted_call,
    )


def _given_inputs(methods: Sequence[MethodSpec], call: Call) -> Any:
    """The inputs, in whichever words they were given."""
    if call.inputs is not None:
        return call.inputs
    names = (name for method in methods for name, role in method.roles.items() if role is Role.INPUTS)
    return next((call.exec_args[name] for name in names if name in call.exec_args), None)


def _as_called(registry: Registry, method: MethodSpec, call: Call) -> MethodSpec:
    """The method with what it needs when it is called with these arguments."""
    given = {**call.init_args, **call.exec_args}
    needs = {need for name, need in method.argument_needs.items() if given.get(name)}
    return _with_wrapped(registry, replace(method, needs=method.needs | needs), call)


def _with_wrapped(registry: Registry, method: MethodSpec, call: Call) -> MethodSpec:
    """The method with what the method that it wraps needs and explains, if the call names one."""
    wrapped = registry.methods.get((str(call.init_args.get(method.wraps)), method.toolset))
    if not method.wraps or wrapped is None:
        return method
    return replace(
        method,
        kind=wrapped.kind,
        needs=method.needs | wrapped.needs,
        required=tuple(dict.fromkeys((*method.required, *wrapped.required))),
        head=wrapped.head,
        citation=f"{method.citation}; {wrapped.citation}",
        alters_model=method.alters_model or wrapped.alters_model,
    )


def layer_names(adapter: FrameworkAdapter, model: object, layer: object) -> tuple[str, ...]:
    """Names of the layers that the user referred to by object or name, one or a list of them.

    Raises:
        LayerError: One of them is not part of the model; names the nearest.
    """
    if layer is None:
        return ()
    references = tuple(layer) if isinstance(layer, list | tuple) else (layer,)
    names = tuple(adapter.layer_name(model, reference) for reference in references)
    for reference, name in zip(references, names, strict=True):
        if name is None:
            raise LayerError(_unknown_layer(adapter, model, reference))
    return names  # type: ignore[return-value]


def _unknown_layer(adapter: FrameworkAdapter, model: object, reference: object) -> str:
    known = [layer.name for layer in adapter.layers(model)]
    if not isinstance(reference, str):
        kind = type(reference).__name__
        return f"The {kind} given as layer is not part of this model. Pass one of its own layers, or a name: " + _some(
            known
        )
    near = get_close_matches(reference, known, n=3, cutoff=0.4)
    if near:
        return f"The model has no layer {reference!r}. Nearest: {', '.join(near)}. cfi.layers(model) lists all."
    return f"The model has no layer {reference!r}. It has: {_some(known)}. cfi.layers(model) lists all."


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
