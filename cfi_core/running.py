"""Step 7 of a call: run the method, and check what it gives before anything is labelled."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from cfi_core.boundary import Shape, run_method
from cfi_core.contract import MethodRequest, MethodResult
from cfi_core.framework import Passes
from cfi_core.framework.axes import Permutation
from cfi_core.holding import join
from cfi_core.process import generators
from cfi_core.progress import count, is_shown, phase
from cfi_core.records import Call, Carried, Portion, Prepared, Run
from cfi_core.registry import Registry
from cfi_core.turns import aside


def run(registry: Registry, call: Call, prepared: Prepared, carried: Carried) -> Run:
    """Runs the method, everything random in it seeded (see `cfi_core.boundary.run_method` for what can fail).

    Where held inputs are constants of the model, it runs once with those of each sample.
    """
    translation = prepared.translation
    is_converted = prepared.repair is not None or (translation is not None and not translation.route.bridge)
    passes = Passes(carried.request.seed) if is_converted and call.in_full else None
    if passes is not None:
        passes.types = carried.types
    with phase(f"running {call.plan.method.key} of {call.plan.method.toolset}"):
        return Run(_run_all(registry, call, prepared, carried, passes), passes)


def _run_all(
    registry: Registry, call: Call, prepared: Prepared, carried: Carried, passes: Passes | None
) -> MethodResult:
    if carried.portions is None:
        return _run_one(registry, call, prepared, carried, passes)
    parts, results = [], []
    for portion in carried.portions():
        if passes is not None:
            passes.held = portion.held
        results.append(_run_one(registry, portion.call, prepared, portion, passes))
        parts.append(portion.call)
    return join(parts, results, prepared.as_numpy)


def _run_one(
    registry: Registry, call: Call, prepared: Prepared, asked: Carried | Portion, passes: Passes | None
) -> MethodResult:
    request, origin = asked.request, registry.origin_of(call.plan.method).label
    # Where the method makes the inputs, they are of any number of samples.
    shapes = [array.shape if call.inputs.given else (None, *array.shape[1:]) for array in call.inputs.arrays]
    inputs = [_permute(shape, prepared.input_axes(i)) or () for i, shape in enumerate(shapes)]
    with generators(registry, request) as seeded, ExitStack() as stack:
        request = replace(_users_functions_aside(request), seeded=seeded)
        if passes is not None:
            stack.enter_context(prepared.adapter.watch_passes(request.model, passes, request.layer))
        elif is_shown():
            stack.enter_context(prepared.adapter.count_passes(request.model, count))
        return run_method(request, origin, inputs=inputs, layers=asked.layer_shapes)


def _users_functions_aside(request: MethodRequest) -> MethodRequest:
    """What is explained may be a function that waits for other calls."""
    target = request.target
    if target is not None and target.function is not None:
        target = replace(target, function=aside(target.function))
    return replace(request, target=target, neuron=aside(request.neuron) if callable(request.neuron) else request.neuron)


def _permute(shape: Shape | None, axes: Permutation) -> Shape | None:
    return shape if shape is None or axes is None else tuple(shape[axis] for axis in axes)
