"""Where the code of plugins is entered and left: what it raises becomes typed errors, what it returns is checked.

Each part of a call that a plugin does has one function, which enters the plugin and checks what comes back.

`origin` is the distribution, with its version, that brings the spec (`registry.origin_of(spec).label`): every error
names it. `inputs`, `outputs` (flat) and `layers` (their outputs) are shapes: tuples, sample axis first, in the layout
of the model that is run (or translated). A size that may be any is None, and so is a shape that is not known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from time import perf_counter
from typing import Any

from cfi_core.contract import (
    Axes,
    BridgedLayer,
    BridgeRequest,
    Converted,
    GuardRequest,
    MethodRequest,
    MethodResult,
    Miss,
)
from cfi_core.discovery import PluginInfo
from cfi_core.errors import FOREIGN, CFIError, MethodError, PluginWarning, TranslationError, summary, warn
from cfi_core.progress import logger_of
from cfi_core.registry import Registry
from cfi_core.specs import Guard, TranslatorSpec, resolve
from cfi_core.turns import aside
from cfi_core.validation import Refused
from cfi_core.views import protect

Shape = tuple[int | None, ...]

_OF_LAYERS = (Axes.LAYER, Axes.LAYER_MAP)
_REAL = re.compile(r"\b(bool|u?int\d+|b?float\d+\w*)\b")


@contextmanager
def foreign(kind: type[CFIError], doing: str, advice: str, passes: type[CFIError] = CFIError) -> Iterator[None]:
    """Turns whatever the code of a plugin raises into one kind of error, with the plugin's own as its cause.

    `doing` begins the message (what failed, and in which distribution), `advice` ends it. Errors that the plugin may
    raise itself (`passes`) pass, and an interrupt by the user.
    """
    try:
        yield
    except passes:
        raise
    except FOREIGN as error:
        raise kind(f"{doing} ({summary(error)}). {advice}") from error


# into the plugin


def run_method(
    request: MethodRequest, origin: str, *, inputs: Sequence[Shape] | None = None, layers: Sequence[Shape | None] = ()
) -> MethodResult:
    """Runs the implementation of a method, and checks what it returned before anything is labelled.

    `inputs` are left out where they are those of the request; without any there (feature visualization), they are the
    shapes that the model declares, with None for the number of samples. `layers` are those in `request.layer`; None
    for one that is called several times, or gives several tensors.

    Raises:
        MethodError: It failed, cannot be imported, or returned no `MethodResult`; its result holds another number of
            values than there are inputs or layers, values that are no tensors of real numbers, or values of another
            shape than their axes have.
        CFIError: What it raises itself of this kind.
    """
    method = request.method
    source = f" ({method.citation})" if method.citation else ""
    advice = f"Check the arguments against the toolset's documentation{source}."
    with foreign(MethodError, f"{method.key} of {method.toolset} failed in {origin}", advice):
        run, started = resolve(method.implementation, method.toolset), perf_counter()
        result = run(request)
    applied = getattr(result, "applied", {})
    logger_of(method.implementation).info("%s: %.2f s, with %s", method.key, perf_counter() - started, applied)
    advice = f"Leave out own arguments that change the result's form; if there are none, report it to {origin}."
    with _refusals(MethodError, f"{method.key} of {method.toolset} ({origin}) returned", advice):
        _check_result(request, result, [*map(_shape, request.inputs)] if inputs is None else inputs, layers)
    return result


def look_for_misses(request: GuardRequest, guard: Guard, origin: str) -> tuple[Miss, ...]:
    """Lets a method's guard look at a model.

    Raises:
        MethodError: It failed, cannot be imported, or returned something else than a tuple of `Miss`.
        CFIError: What it raises itself of this kind.
    """
    method = request.method
    doing, advice = f"The guard of {method.key} ({origin})", f"Report it to {origin}."
    with foreign(MethodError, f"{doing} failed", advice):
        misses = resolve(guard.check)(request)
    with _refusals(MethodError, f"{doing} returned", advice):
        _instance(misses, tuple)
        for miss in misses:
            _instance(miss, Miss)
    return misses


def run_conversion(
    step: TranslatorSpec, model: Any, examples: tuple[Any, ...], origin: str, *, outputs: Sequence[Shape] | None = None
) -> Converted:
    """Converts a model, with arrays as examples of its inputs, and checks what the conversion returned.

    Raises:
        TranslationError: It failed, cannot be imported, or returned no `Converted`, or one whose permutations do not
            fit the inputs and outputs.
    """
    advice = "Try another translator (cfi.translators() lists them) or a toolset of the model's own framework."
    with foreign(TranslationError, f"{step.name} of {origin} failed on the model", advice, TranslationError):
        convert, started = resolve(step.implementation, step.name), perf_counter()
        converted = convert(model, examples)
    logger_of(step.implementation).info("%s: %.2f s", step.name, perf_counter() - started)
    with _refusals(TranslationError, f"{step.name} ({origin}) returned", f"Report it to {origin}."):
        _check_model(converted, [*map(_shape, examples)], outputs)
        if converted.layers:
            raise Refused("layers, which only a bridge is asked for")
    return converted


def build_bridge(
    step: TranslatorSpec,
    request: BridgeRequest,
    origin: str,
    *,
    outputs: Sequence[Shape] | None = None,
    layers: Mapping[str, Shape] | None = None,
) -> Converted:
    """Builds a bridge, and checks what was built.

    Raises:
        TranslationError: It failed, cannot be imported, or returned no `Converted`, one whose permutations do not fit
            inputs, outputs and layers, or one with other layers than those that were asked for.
        CFIError: What it raises itself of this kind, such as a `LayerError`.
    """
    advice = "Pass translator='conversion' to convert the model instead"
    with foreign(TranslationError, f"{step.name} of {origin} failed on the model", f"{advice}."):
        build, started = resolve(step.implementation, step.name), perf_counter()
        converted = build(request)
    opened = ", ".join(request.layers) or "no layer"
    logger_of(step.implementation).info("%s: %.2f s, opened at %s", step.name, perf_counter() - started, opened)
    with _refusals(TranslationError, f"{step.name} ({origin}) returned", f"{advice}, and report it to {origin}."):
        _check_model(converted, [*map(_shape, request.inputs)], outputs)
        _check_layers(converted.layers, set(request.layers), layers or {})
    return converted


def ask(registry: Registry, hook: str, **arguments: Any) -> Iterator[tuple[PluginInfo, Any]]:
    """What plugins answer to a hook, one after the other, None left out.

    Warns:
        PluginWarning: One of them failed; the next is asked.
    """
    for plugin, implementation in registry.implementations(hook):
        answer = None
        with report_failures(f"The {hook} hook", plugin):
            answer = implementation(**arguments)
        if answer is not None:
            yield plugin, answer


def observe(registry: Registry, hook: str, **records: Any) -> None:
    """Shows records to all observers, to each a view of its own (`cfi_core.views.protect`).

    Warns:
        PluginWarning: An observer failed, which changes nothing.
    """
    for plugin, implementation in registry.implementations(hook):
        with report_failures(f"The {hook} hook", plugin):
            aside(implementation)(**{name: protect(record) for name, record in records.items()})


@contextmanager
def report_failures(what: str, plugin: PluginInfo) -> Iterator[None]:
    """Turns what a plugin raises where nothing depends on it into a `PluginWarning`."""
    try:
        yield
    except FOREIGN as error:
        warn(f"{what} of {plugin.label} failed ({summary(error)}). It changes nothing.", PluginWarning, error)


# out of it again


@contextmanager
def _refusals(kind: type[CFIError], doing: str, advice: str) -> Iterator[None]:
    try:
        yield
    except Refused as refusal:
        raise kind(f"{doing} {refusal}. It is not used. {advice}") from None


def _instance(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise Refused(f"a {type(value).__name__} where a {kind.__name__} is expected")


def _check_result(request: MethodRequest, result: Any, inputs: Sequence[Shape], layers: Sequence[Shape | None]) -> None:
    _instance(result, MethodResult)
    places = _places(request, result, inputs, layers)
    if len(result.values) != len(places):
        if None not in places or len(result.values) < len(places):
            noun = "layer" if result.axes in _OF_LAYERS else "input"
            raise Refused(f"{_count(len(result.values), 'value')} for {_count(len(places), noun)}")
        places = [None] * len(result.values)  # the several tensors of a layer
    for position, (value, place) in enumerate(zip(result.values, places, strict=True)):
        _check_value(value, place, f"value {position}" if len(places) > 1 else "a value", result.axes)
    for step, values in result.steps.items():
        if [tuple(one.shape) for one in values] != [tuple(one.shape) for one in result.values]:
            raise Refused(f"step {step} with other shapes than those of the values")
    if result.sampling is not None and [*map(_shape, result.sampling.errors)] != [*map(_shape, result.values)]:
        raise Refused("standard errors of other shapes than the values")


def _check_model(converted: Any, inputs: Sequence[Shape], outputs: Sequence[Shape] | None) -> None:
    _instance(converted, Converted)
    if converted.model is None:
        raise Refused("no model")
    said = {"input": (converted.input_axes, inputs), "output": (converted.output_axes, outputs)}
    for noun, (permutations, shapes) in said.items():
        if not permutations or shapes is None:  # none at all stands for: all unchanged
            continue
        if len(permutations) != len(shapes):
            raise Refused(f"{noun}_axes for {_count(len(permutations), noun)}, where there are {len(shapes)}")
        for position, (axes, shape) in enumerate(zip(permutations, shapes, strict=True)):
            _check_axes(axes, shape, f"{noun} {position}")
            if noun == "input" and axes and axes[0] != 0:
                raise Refused(f"axes {axes} of input {position}, which move the samples away from the first axis")


def _check_layers(layers: Mapping[str, BridgedLayer], asked: set[str], shapes: Mapping[str, Shape]) -> None:
    if absent := asked - set(layers):
        raise Refused(f"no layer for {', '.join(map(repr, sorted(absent)))}, which was asked for")
    if others := set(layers) - asked:
        raise Refused(f"layers for {', '.join(map(repr, sorted(others)))}, which nobody asked for")
    for name in asked & set(shapes):
        _check_axes(layers[name].axes, shapes[name], f"layer {name!r}")


def _check_axes(axes: Any, shape: Shape, place: str) -> None:
    if axes is not None and len(axes) != len(shape):
        raise Refused(f"axes {axes} of {place}, which has {_count(len(shape), 'axis', 'axes')}")


def _places(
    request: MethodRequest, result: MethodResult, inputs: Sequence[Shape], layers: Sequence[Shape | None]
) -> list[Shape | None]:
    """The shape of each value that is expected; None where it is not known."""
    if result.axes is Axes.FEATURE:
        return [(inputs[0][0] if inputs else None, None)]
    own = {**request.init_args, **request.exec_args}
    shapes, channels = list(layers), request.layer_channel_axes
    if result.axes not in _OF_LAYERS:
        shapes, channels = list(inputs) or [None], request.channel_axis
    elif result.layer is not None:
        shapes = [None]
    elif not layers or any(own.get(name) for name in request.method.native_only):  # read elsewhere than at the output
        shapes = [None] * len(request.layer)
    if not shapes:
        raise Refused(f"values with the axes of a layer ({result.axes!r}), but it was asked for none")
    if result.axes in (Axes.INPUT, Axes.LAYER):
        return shapes
    if result.axes is not Axes.LAYER_MAP and not channels:  # without inputs in the request they are not known
        return [None] * len(shapes)
    # Without a channel axis where the toolset has chosen the layer, whose shape is not known then either.
    pairs = enumerate(zip_longest(shapes, channels[: len(shapes)]))
    return [_without_channels(shape, channel, result.axes, position) for position, (shape, channel) in pairs]


def _without_channels(shape: Shape | None, channel: int | None, axes: Axes, position: int) -> Shape | None:
    if shape is None:
        return None
    if channel is None:
        place = "the layer's output" if axes in _OF_LAYERS else f"input {position}"
        raise Refused(f"a map without channels, but {place} of shape {shape} has no channel axis to leave out")
    return (*shape[:channel], *shape[channel + 1 :])


def _check_value(value: Any, expected: Shape | None, name: str, axes: Axes) -> None:
    dtype = getattr(value, "dtype", None)
    if getattr(value, "shape", None) is None or not _REAL.search(str(dtype)):
        described = type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"
        raise Refused(f"{name} that is no tensor of real numbers ({described})")
    actual = _shape(value)
    if not actual:
        raise Refused(f"{name} without axes, where the first one holds the samples")
    if expected is None or _fits(actual, expected):
        return
    reason = f"{name} of shape {actual}, where '{axes}' has shape {expected}"
    if Counter(actual) == Counter(expected):
        reason += ": its axes are in another order"
    elif _fits(actual[1:], expected[1:]):
        reason += f": it has {actual[0]} for {expected[0]} samples"
    raise Refused(reason)


def _fits(actual: Shape, expected: Shape) -> bool:
    sizes = zip(actual, expected, strict=False)
    return len(actual) == len(expected) and all(wanted in (None, size) for size, wanted in sizes)


def _shape(tensor: Any) -> Shape:
    return tuple(None if size is None else int(size) for size in tensor.shape)


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
