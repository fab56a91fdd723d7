"""Runs one of Zennit's methods."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from inspect import signature
from math import prod
from typing import Any

import numpy as np
import torch
import zennit.attribution
from torch import Tensor, nn
from zennit.attribution import occlude_independent

from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.errors import (
    ArgumentError,
    CFIError,
    InputError,
    MethodError,
    ModelWarning,
    TargetError,
    summary,
    warn,
)
from cfi_core.progress import steps as expect
from cfi_torchgraph.calls import check_calls
from cfi_torchgraph.draws import OwnGenerators
from cfi_torchgraph.marks import without_marks
from cfi_torchgraph.nodes import is_real, tensors
from cfi_zennit.attributors import AtLayers, ScoreDrop, offsets
from cfi_zennit.conservation import COARSE, Ledger
from cfi_zennit.coverage import Family, explain, hard_gaps, list_places, rules_by_gradient
from cfi_zennit.prepare import Ruled, is_function, prepare, refuse_function
from cfi_zennit.sampling import SmoothGrad, sampling_of
from cfi_zennit.scores import Column, Explained, Start, as_it_is, ones, rectifies
from cfi_zennit.table import (
    ALL_PARAMETERS,
    ATTR_OUTPUT,
    CANONIZE,
    COMPOSITE,
    METHODS,
    NAME_MAP,
    SCORE_DROP,
    START,
    ZennitMethod,
)
from cfi_zennit.trace import Trace

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far the outputs of the form that rules attach to may be from the model's, relative to the largest: batch norms
that are merged round otherwise."""


def run(request: MethodRequest) -> MethodResult:
    """Runs the method that the request names.

    Returns:
        Raw values: one tensor for each input, or for each layer.

    Raises:
        ArgumentError: An argument is missing or does not fit (also InputError, LayerError, TargetError).
        MethodError: The model is not one that the method's rules fit.
        RouteError: The model is a function, without modules.
    """
    method = METHODS[request.method.key]
    with torch.inference_mode(False), torch.enable_grad(), without_marks(request.model):
        _check(method, request)
        if method.composite or request.init_args.get(COMPOSITE) is not None:
            return _run_with_rules(method, request)
        return _run_plain(method, request)


def _check(method: ZennitMethod, request: MethodRequest) -> None:
    if not request.inputs:
        raise ArgumentError(f"'{method.key}' needs inputs: pass inputs=….")
    if not isinstance(request.model, nn.Module):
        refuse_function(method.key, request.model)
    without = request.target is None and request.exec_args.get(ATTR_OUTPUT) is None
    if without:
        raise TargetError(f"'{method.key}' explains one output: pass target=….")
    if not request.layer and not any(map(is_real, request.inputs)):
        raise InputError(
            f"'{method.key}' differentiates by the inputs, which are whole numbers. Explain the layer that makes real "
            "numbers of them: pass layer=…, such as the embedding."
        )
    if len(request.inputs) > 1 and method.attributor in ("SmoothGrad", "Occlusion"):
        raise InputError(
            f"Zennit's '{method.key}' takes one input, but the model has {len(request.inputs)}. Captum's take several."
        )


# without rules


def _run_plain(method: ZennitMethod, request: MethodRequest) -> MethodResult:
    unused = [name for name in (*ALL_PARAMETERS, NAME_MAP) if request.init_args.get(name) is not None]
    if unused and method.attributor != "Occlusion":
        raise ArgumentError(f"{', '.join(unused)} belong to a composite: pass init_args={{'composite': …}} as well.")
    explained = Explained(request.model, _target(request), request.inputs)
    settings = _settings(method, request, explained)
    occluding = method.attributor == "Occlusion"
    model, usual = (Column(explained), as_it_is) if occluding else (explained, ones)
    attributor = _attributor(method, settings)(model=model, attr_output=_start(request, usual), **settings)
    _, packed = _call(method, attributor, _pack(explained), request)
    values = explained.unpack(packed.detach())
    return MethodResult(
        _of_inputs(method, explained, values),
        Axes.INPUT,
        applied=_list_settings(method, settings),
        sampling=sampling_of(attributor),
    )


def _attributor(method: ZennitMethod, settings: dict[str, Any]) -> Any:
    if method.attributor == "Occlusion" and settings.pop(SCORE_DROP):
        return ScoreDrop
    return _class(method)


def _class(method: ZennitMethod) -> Any:
    return SmoothGrad if method.attributor == "SmoothGrad" else getattr(zennit.attribution, method.attributor)


def _settings(method: ZennitMethod, request: MethodRequest, explained: Explained) -> dict[str, Any]:
    """Arguments of the attributor's constructor."""
    names = {"noise_level", "n_iter", "baseline_fn", "occlusion_fn", "window", "stride", SCORE_DROP}
    given = request.init_args.items()
    settings = {name: value for name, value in given if name in names and value is not None}
    if request.baselines is not None:
        baselines = _baselines(request, explained)
        if method.attributor == "IntegratedGradients":
            settings.setdefault("baseline_fn", lambda _: baselines)
        else:
            fill = partial(occlude_independent, fill_fn=lambda values: baselines.expand_as(values))
            settings.setdefault("occlusion_fn", fill)
    if settings.get(SCORE_DROP):
        inside = settings.get("occlusion_fn", occlude_independent)
        if inside is occlude_independent or _keeps_windows(inside):
            settings["occlusion_fn"] = partial(inside, invert=True)
    for name in ("window", "stride"):
        if isinstance(settings.get(name), list):
            settings[name] = tuple(settings[name])
    return settings


def _keeps_windows(function: Any) -> bool:
    """Whether it is Zennit's function, which covers what lies outside of a window unless it is told otherwise."""
    of_zennit = isinstance(function, partial) and function.func is occlude_independent
    return of_zennit and "invert" not in function.keywords


def _baselines(request: MethodRequest, explained: Explained) -> Tensor:
    given = request.baselines or ()
    parts = []
    for position in explained.places:
        like, value = request.inputs[position], given[position]
        part = value if isinstance(value, Tensor) else torch.full_like(like, 0.0 if value is None else value)
        parts.append(part.to(like).expand_as(like) if len(part) in (1, len(like)) else part.to(like))
    return explained.pack(parts)


def _of_inputs(method: ZennitMethod, explained: Explained, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A tensor for each input; zeros for one that is held because it cannot be differentiated."""
    found = dict(zip(explained.places, values, strict=True))
    if method.times_inputs:
        found = {position: value * explained.inputs[position] for position, value in found.items()}
    return tuple(
        found.get(position, torch.zeros(tuple(value.shape))) for position, value in enumerate(explained.inputs)
    )


# with rules


def _run_with_rules(method: ZennitMethod, request: MethodRequest) -> MethodResult:
    model, layers = request.model, request.layer
    if not request.method.alters_model:
        model, layers = copy.deepcopy((model, layers))
    canonized = bool(request.init_args.get(CANONIZE, True))
    ruled = prepare(model, request.inputs, method.composite or request.init_args[COMPOSITE], request.init_args)
    _check_layers(layers, ruled.seen)
    _judge(method, ruled, canonized=canonized)
    measured = ruled.family is Family.RELEVANCE and method.attributor == "Gradient"
    ledger = Ledger(len(request.inputs[0]), partial=bool(layers)) if measured else None
    explained = Explained(ruled.model, _target(request), request.inputs)
    _check_target(method, ruled, request, explained)
    settings = _settings(method, request, explained)
    begin = _note_start(_start(request, as_it_is if request.init_args.get(START) else ones), ledger)
    if layers:
        attributor: Any = AtLayers(explained, layers, ruled.placed, begin)
    else:
        attributor = _class(method)(model=explained, composite=ruled.placed, attr_output=begin, **settings)
    values = _go_back(method, attributor, ruled, ledger, _pack(explained), request)
    apart = _apart(ruled)
    _tell(method, ruled, ledger, canonized)
    return MethodResult(
        tuple(value.detach() for value in values)
        if layers
        else _of_inputs(method, explained, explained.unpack(values.detach())),
        Axes.LAYER if layers else Axes.INPUT,
        extras={"conservation": ledger.report()} if ledger is not None else {},
        applied=_list_settings(method, settings) | _describe(ruled, apart, request),
        absorbed=_absorption(ledger, layers, ruled.seen),
        sampling=sampling_of(attributor),
    )


def _check_target(method: ZennitMethod, ruled: Ruled, request: MethodRequest, explained: Explained) -> None:
    if request.target is None or request.target.function is None:
        return
    if ruled.family is Family.RECTIFIER and rectifies(explained.model, request.target, request.inputs):
        raise TargetError(
            f"'{method.key}' changes the gradient of nn.ReLU modules, and the target function rectifies values itself, "
            f"where no rule attaches. Let the function be linear, or make its rectifier a module of the model."
        )
    if ruled.family is Family.RELEVANCE:
        raise TargetError(
            f"'{method.key}' starts from the relevance of one output and cannot explain a function of several. Name "
            f"the output by its index, or give the relevance of all as exec_args={{'{ATTR_OUTPUT}': …}}."
        )


def _note_start(start: Start, ledger: Ledger | None) -> Start:
    """The start of the way back, noted in the ledger."""

    def begin(values: Tensor) -> Tensor:
        relevance = start(values)
        if ledger is not None:
            ledger.begin(values, relevance)
        return relevance

    return begin


def _go_back(
    method: ZennitMethod, attributor: Any, ruled: Ruled, ledger: Ledger | None, packed: Any, request: MethodRequest
) -> Any:
    """Both passes, the rules on their modules."""
    with ExitStack() as stack:
        if ledger is not None:
            stack.enter_context(ledger.watch(ruled.placed.places))
        stack.enter_context(attributor)
        if ledger is not None:
            ledger.attend(ruled.placed.hooks)
        _, values = _call(method, attributor, packed, request)
    return values


def _judge(method: ZennitMethod, ruled: Ruled, *, canonized: bool) -> None:
    """Refuses a model to which the rules do not attach."""
    running = {call.module for call in ruled.seen.calls} | set(ruled.model.reductions)
    if not any(one.rule is not None and one.module in running for one in ruled.placed.places):
        if is_function(ruled.model.model):
            refuse_function(method.key, ruled.model.model)
        raise MethodError(
            f"'{method.key}': no rule of the composite fits a module that runs, so the result would be the plain "
            "gradient. Use 'saliency', which says so, or a composite with rules for the modules of this model."
        )
    if hard := hard_gaps(ruled.gaps, ruled.family, canonized=canonized):
        raise MethodError(explain(method.key, hard))


def _tell(method: ZennitMethod, ruled: Ruled, ledger: Ledger | None, canonized: bool) -> None:
    """Warns where no rule matched, and where relevance leaked."""
    leaks = ledger.leaks() if ledger is not None else {}
    parts = []
    if ruled.gaps:
        parts.append(f"no rule matches {list_places(ruled.gaps)}, where Zennit takes the plain gradient")
    if leaks:
        accounts = ledger.accounts if ledger is not None else {}
        shown = [f"'{name}' ({accounts[name].rule}, {share:.1%})" for name, share in list(leaks.items())[:3]]
        more = f" and {len(leaks) - 3} more" if len(leaks) > 3 else ""
        parts.append(f"relevance leaks at {', '.join(shown)}{more}")
    if parts:
        advice = "Give rules for them in init_args={'layer_map': [(types, rule)]} or {'name_map': [(names, rule)]}"
        if not canonized:
            advice = "Leave out defaults='toolset' to have the model brought into the form that rules attach to"
        warn(f"'{method.key}': {'; '.join(parts)}. {advice}; extras['conservation'] has every layer.", ModelWarning)


def _check_layers(layers: Sequence[nn.Module], seen: Trace) -> None:
    for layer in layers:
        check_calls(len(seen.calls_of.get(layer, ())))


def _absorption(ledger: Ledger | None, layers: Sequence[nn.Module], seen: Trace) -> tuple[Any, ...] | None:
    """What was absorbed by design; not known of several layers, or of one that paths lead around."""
    if ledger is None or len(layers) > 1 or (layers and not seen.cuts(layers[0])):
        return None
    share = ledger.absorption()
    return None if share is None else (share,)


def _apart(ruled: Ruled) -> float:
    """How far the outputs are from those of the model before it was changed, relative to the largest.

    Raises:
        MethodError: Farther than rounding explains.
    """
    pairs = list(zip(tensors(ruled.seen.outputs), tensors(ruled.model.outputs), strict=True))
    apart, bound = 0.0, 0.0
    for before, after in pairs:
        if is_real(before) and before.numel() and before.shape == after.shape:
            before, after = before.detach(), after.detach()
            scale = float(before.abs().max())
            apart = max(apart, float((before - after).abs().max()) / (scale or 1.0))
            bound = max(bound, _ROUNDING.get(before.dtype, COARSE))
    if not apart <= bound:
        raise MethodError(
            f"The model gives other outputs (by a relative {apart:.1e}) in the form that Zennit's rules attach to, so "
            "its relevance would be that of another model. Is it random, or does it keep a state? Pass "
            "init_args={'canonize': False} to have the rules put on it as it is."
        )
    return apart


# both


def _target(request: MethodRequest) -> Any:
    return None if request.exec_args.get(ATTR_OUTPUT) is not None else request.target


def _start(request: MethodRequest, usual: Start) -> Start:
    """The user's own start of the way back, or else the usual one."""
    own = request.exec_args.get(ATTR_OUTPUT)
    if own is None:
        return usual

    def start(values: Tensor) -> Tensor:
        relevance = own(values) if callable(own) and not isinstance(own, Tensor) else own
        if isinstance(relevance, np.ndarray):
            relevance = torch.as_tensor(relevance)
        if request.place is not None and isinstance(relevance, Tensor) and len(relevance) == request.place[1]:
            relevance = relevance[request.place[0] :][:1]  # the function is one of all samples
        if not isinstance(relevance, Tensor) or relevance.shape != values.shape:
            found = tuple(relevance.shape) if isinstance(relevance, Tensor) else type(relevance).__name__
            raise TargetError(
                f"{ATTR_OUTPUT} gives the relevance of every output, shape {tuple(values.shape)}, but there is {found}."
            )
        if values.dim() > 2 and len(set(values.shape[1:])) == 1:
            raise TargetError(
                f"The axes of the outputs have one size ({values.shape[1]}), so that nobody could tell whether those "
                f"of {ATTR_OUTPUT} are in the same order in the model that runs. Name one output: target=(…)."
            )
        return relevance.to(values)

    return start


def _pack(explained: Explained) -> Tensor | None:
    if not explained.places:
        return None
    # Contiguous, so that the noise of SmoothGrad, which is drawn in the order of memory, is that of each axis.
    values = [explained.inputs[position].detach() for position in explained.places]
    return explained.pack([value.clone(memory_format=torch.contiguous_format) for value in values])


def _call(method: ZennitMethod, attributor: Any, packed: Any, request: MethodRequest) -> Any:
    if (steps := _steps(attributor, packed)) > 1:
        expect(steps, "masks" if method.attributor == "Occlusion" else "steps", share=len(request.inputs[0]))
    draws = nullcontext() if request.seeded or method.attributor != "SmoothGrad" else OwnGenerators(request.seed)
    try:
        with draws:
            return attributor(packed)
    except CFIError:
        raise
    except Exception as error:  # rules and the user's model raise anything; all of it is the cause
        raise MethodError(
            f"'{method.key}': zennit's {type(attributor).__name__} failed ({summary(error)}). Check the arguments "
            "against https://zennit.readthedocs.io, or try another method."
        ) from error


def _steps(attributor: Any, packed: Any) -> int:
    """How many times the attributor runs the model."""
    if not isinstance(attributor, zennit.attribution.Occlusion):
        return getattr(attributor, "n_iter", 1)
    window, stride = attributor._resolve_window_stride(packed)
    if isinstance(attributor, ScoreDrop):
        return 1 + prod(len(offsets(*each)) for each in zip(packed.shape, window, stride, strict=True))
    return 1 + prod(-(-size // step) for size, step in zip(packed.shape, stride, strict=True))


def _list_settings(method: ZennitMethod, settings: Mapping[str, Any]) -> dict[str, Any]:
    parameters = signature(getattr(zennit.attribution, method.attributor)).parameters
    numbers = {
        name: parameters[name].default for name in ("n_iter", "noise_level", "window", "stride") if name in parameters
    }
    given = {name: _plain(value) for name, value in settings.items()}
    return {"class": f"zennit.attribution.{method.attributor}", **numbers, **given}


def _describe(ruled: Ruled, apart: float, request: MethodRequest) -> dict[str, Any]:
    """Composite, the rule of each layer and what was changed."""
    changes = ruled.model.changes
    rules = {place.name: type(place.rule).__name__ for place in ruled.placed.places if place.rule is not None}
    names = (*ALL_PARAMETERS, COMPOSITE, NAME_MAP, CANONIZE, START)
    given = {name: _plain(request.init_args[name]) for name in names if request.init_args.get(name) is not None}
    return given | {
        "rules": rules | rules_by_gradient(ruled.placed, ruled.seen),
        "canonized": {
            "merged": dict(changes.merged),
            "reductions": changes.reductions,
            "repeated": dict(changes.repeated),
            "outputs_apart": apart,
        },
    }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    return getattr(value, "__qualname__", type(value).__qualname__)
