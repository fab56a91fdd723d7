"""Step 7 of a call: run the method, and check what it gives before anything is labelled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial

from cfi_core.batches import Division, ran_out
from cfi_core.boundary import Shape, run_method
from cfi_core.contract import MethodRequest, MethodResult
from cfi_core.errors import CFIError, OutOfMemoryError, summary
from cfi_core.framework import Passes
from cfi_core.framework.axes import Permutation
from cfi_core.holding import is_apart, is_bound, join
from cfi_core.process import generators
from cfi_core.progress import count, is_shown, phase
from cfi_core.records import Call, Carried, Parts, Portion, Prepared, Run
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
        if carried.parts is not None:
            return _run_parts(registry, call, prepared, carried.parts, passes)
        try:
            with (
                call.recorded.handed()
                if call.recorded is not None and translation is not None and translation.once
                else nullcontext()
            ):
                return Run(_run_all(registry, call, prepared, carried, passes), passes)
        except CFIError as error:
            if isinstance(error, OutOfMemoryError) or not ran_out(error, (call.original.adapter, prepared.adapter)):
                raise
            raise OutOfMemoryError(
                f"{call.plan.method.key} of {call.plan.method.toolset} ran out of memory ({summary(error)}). Pass "
                f"batch_size='auto', which divides samples and steps so that they fit, or a number of rows."
            ) from error


def _run_parts(registry: Registry, call: Call, prepared: Prepared, asked: Parts, passes: Passes | None) -> Run:
    """Some samples after the other; where memory did not suffice, once more with half as many rows."""
    division = Division(registry, call, prepared, alone=is_bound(call) or is_apart(call))
    parts: list[Call] = []
    results: list[MethodResult] = []
    at, samples = 0, call.inputs.samples
    while at < samples:
        portion = asked.take(range(at, min(at + division.together, samples)), division.rows)
        if passes is not None:
            passes.held = portion.held
        try:
            with division.watch() as heard:
                results.append(_run_one(registry, portion.call, prepared, portion, passes, heard))
        except Exception as error:  # raised again, unless half as many rows may fit
            if not division.ran_out(error):
                raise
            division.halve(error)
            asked.renew()
        else:
            parts.append(portion.call)
            at += portion.call.inputs.samples
            continue
        division.release()  # now that the error, which held what ran, is gone
    return Run(join(parts, results, prepared.as_numpy), passes, division.notes())


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
    registry: Registry,
    call: Call,
    prepared: Prepared,
    asked: Carried | Portion,
    passes: Passes | None,
    heard: Callable[[int], None] | None = None,
) -> MethodResult:
    request, origin = asked.request, registry.origin_of(call.plan.method).label
    # Where the method makes the inputs, they are of any number of samples.
    shapes = [array.shape if call.inputs.given else (None, *array.shape[1:]) for array in call.inputs.arrays]
    inputs = [_permute(shape, prepared.input_axes(i)) or () for i, shape in enumerate(shapes)]
    with generators(registry, request) as seeded, ExitStack() as stack:
        request = replace(_users_functions_aside(request), seeded=seeded)
        if passes is not None:
            stack.enter_context(prepared.adapter.watch_passes(request.model, passes, request.layer))
        elif is_shown() or heard is not None:
            stack.enter_context(prepared.adapter.count_passes(request.model, partial(_tell_pass, heard)))
        return run_method(request, origin, inputs=inputs, layers=asked.layer_shapes)


def _tell_pass(heard: Callable[[int], None] | None, rows: int) -> None:
    """Of a pass of so many rows, to whoever waits, and to whoever looks at the memory."""
    count(rows)
    if heard is not None:
        heard(rows)


def _users_functions_aside(request: MethodRequest) -> MethodRequest:
    """What is explained may be a function that waits for other calls."""
    target = request.target
    if target is not None and target.function is not None:
        target = replace(target, function=aside(target.function))
    return replace(request, target=target, neuron=aside(request.neuron) if callable(request.neuron) else request.neuron)


def _permute(shape: Shape | None, axes: Permutation) -> Shape | None:
    return shape if shape is None or axes is None else tuple(shape[axis] for axis in axes)
