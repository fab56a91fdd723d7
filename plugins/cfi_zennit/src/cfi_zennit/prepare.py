"""Brings a model into the form that rules attach to, and chooses these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import nn

from cfi_core.errors import ArgumentError, CFIError, MethodError, RouteError, kind_of, summary
from cfi_torchgraph.nodes import is_real
from cfi_zennit.canonical import Canonical, Changes, canonize, fix_weights
from cfi_zennit.coverage import Family, Gap, family_of, find_computed_weights, find_gaps
from cfi_zennit.rules import Place, Placed, composite_of, place
from cfi_zennit.table import ALL_PARAMETERS, CANONIZE, NAME_MAP
from cfi_zennit.trace import Trace, of_whole_numbers, trace


@dataclass(frozen=True, eq=False)
class Ruled:
    """A model with a composite, ready to run.

    Attributes:
        model: The model in the form that rules attach to.
        placed: The rules.
        family: What they are about.
        seen: One pass of the model as it was.
        gaps: What no rule reaches.
    """

    model: Canonical
    placed: Placed
    family: Family
    seen: Trace
    gaps: Sequence[Gap]


def prepare(model: nn.Module, inputs: Sequence[Any], chosen: Any, init_args: Mapping[str, Any]) -> Ruled:
    """Brings a model, a copy with weights of its own, into the form that rules attach to, and chooses these.

    Raises:
        ArgumentError: The composite or its settings are none.
        MethodError: The model fails on the inputs, or no rule attaches.
    """
    settings = {name: init_args.get(name) for name in (*ALL_PARAMETERS, NAME_MAP) if name != "canonizers"}
    settings |= {name: _one_bound(name, settings.get(name)) for name in ("low", "high")}
    composite = composite_of(chosen, settings, model)
    apply_canonizers([*composite.canonizers, *(init_args.get("canonizers") or ())], model)
    if not any(map(is_real, inputs)):
        for module in model.modules():
            module.register_forward_hook(_stand_in, with_kwargs=True)
    canonized = bool(init_args.get(CANONIZE, True))
    if canonized:
        with torch.no_grad():
            model(*inputs)  # old weight norms have their weights from the last pass
        fix_weights(model)
    seen = trace_model(model, inputs)
    if canonized:
        canonical = canonize(model, seen)
        reductions = canonical.changes.reductions
        placed = place(composite, seen, canonical.names, list(canonical.modules()), reductions)
    else:
        names = {module: name for name, module in model.named_modules()}
        canonical = Canonical(model, names, Changes())
        context: dict[Any, Any] = {}
        placed = Placed([Place(name, part, composite.module_map(context, name, part)) for part, name in names.items()])
    family = family_of(composite, placed)
    gaps = find_gaps(placed, seen, family, canonical.changes)
    if not canonized:
        gaps += find_computed_weights(placed)
    return Ruled(canonical, placed, family, seen, gaps)


def _one_bound(name: str, value: Any) -> Any:
    """A bound of a box for all inputs; of a tuple, Zennit would make one array, whose first axis are the samples."""
    if not isinstance(value, tuple):
        return value
    if all(isinstance(one, int | float) and one == value[0] for one in value):
        return value[0]
    raise ArgumentError(
        f"{name} is one bound for all inputs. Where they have several, put a rule on the first layer of each: "
        "init_args={'name_map': [((name,), zennit.rules.ZBox(low, high))]}."
    )


def _stand_in(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
    """Relevance begins, without real inputs, at what modules make of whole numbers."""
    return of_whole_numbers(args, kwargs, output)


def is_function(model: nn.Module) -> bool:
    """Whether it has no modules, and is none of torch's itself."""
    return not list(model.children()) and not type(model).__module__.startswith("torch.nn.")


def refuse_function(key: str, model: Any) -> NoReturn:
    """What no rule can be put on.

    Raises:
        RouteError: Always.
    """
    raise RouteError(
        f"'{key}' puts rules on the modules of a model, but a {kind_of(model)} has none. Use a method that needs "
        "gradients only, such as 'integrated_gradients'."
    )


def apply_canonizers(canonizers: Sequence[Any], model: nn.Module) -> None:
    """Those of the user's; they are not taken back, because the model is a copy."""
    for canonizer in canonizers:
        canonizer.apply(model)


def trace_model(model: nn.Module, inputs: Sequence[Any]) -> Trace:
    """One pass of the user's model.

    Raises:
        MethodError: It fails.
    """
    try:
        return trace(model, inputs)
    except CFIError:
        raise
    except Exception as error:  # whatever the model raises on its inputs is the cause; there is no list of such errors
        raise MethodError(f"The model failed on the inputs ({summary(error)}). Check the inputs.") from error
