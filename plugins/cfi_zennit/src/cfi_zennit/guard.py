"""The guard of the methods with rules: where these would attach to nothing, or wrongly."""

from __future__ import annotations

import copy

import torch
from torch import nn
from zennit.layer import Sum

from cfi_core.contract import GuardRequest, Miss
from cfi_core.errors import MethodError
from cfi_torchgraph.rectifiers import Rectifier
from cfi_zennit.canonical import plan
from cfi_zennit.coverage import Gap, Kind, explain, family_of, find_gaps, hard_gaps
from cfi_zennit.prepare import apply_canonizers, is_function, refuse_function, trace_model
from cfi_zennit.rules import Placed, composite_of, place
from cfi_zennit.table import ALL_PARAMETERS, CANONIZE, COMPOSITE, METHODS, NAME_MAP


def knows_relevance(module: nn.Module) -> bool:
    """Whether it is Zennit's own, which is as well known as torch's."""
    return isinstance(module, Sum)


def check(request: GuardRequest) -> tuple[Miss, ...]:
    """Runs the model once and looks at what it computed.

    Raises:
        ArgumentError: The composite or its settings are none.
        RouteError: The model is a function.
        MethodError: The model fails, a rule would act wrongly, or rewriting would lose rules of the user's.
    """
    method, given = METHODS[request.method.key], request.init_args
    chosen = method.composite or given.get(COMPOSITE)
    if chosen is None or not given.get(CANONIZE, True) or not isinstance(request.model, nn.Module):
        return ()
    if is_function(request.model):
        refuse_function(method.key, request.model)
    with torch.inference_mode(False), torch.enable_grad():
        settings = {name: given.get(name) for name in (*ALL_PARAMETERS, NAME_MAP) if name != "canonizers"}
        settings |= {name: 0.0 for name in ("low", "high") if settings.get(name) is not None}  # not carried yet
        composite = composite_of(chosen, settings, request.model, strict=False)
        canonizers = [*composite.canonizers, *(given.get("canonizers") or ())]
        model = copy.deepcopy(request.model) if canonizers else request.model
        apply_canonizers(canonizers, model)
        seen = trace_model(model, request.inputs)
        names = {module: name for name, module in model.named_modules()}
        placed = place(composite, seen, names, names)
        family = family_of(composite, placed)
        gaps = hard_gaps(find_gaps(placed, seen, family, plan(model, seen)), family)
        _keep_rules(method.key, placed, gaps)
    return tuple(Miss(gap.where, explain(method.key, [gap])) for gap in gaps)


def _keep_rules(key: str, placed: Placed, gaps: list[Gap]) -> None:
    """A module of the user's own is taken apart where the model is rewritten, so that its rule would have no place."""
    if confused := [gap for gap in gaps if gap.kind is Kind.CONFUSED]:
        raise MethodError(explain(key, confused))
    own = [one for one in placed.places if one.rule is not None and not _stays(one.module)]
    if own and gaps:
        raise MethodError(
            f"{explain(key, gaps)} The model could be rewritten for it, but the rule of '{own[0].name}' "
            f"({type(own[0].module).__name__}) would be lost."
        )


def _stays(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.") or isinstance(module, Rectifier | Sum)
