"""The public calls. `attribute` reads top to bottom as the way of one call."""

from __future__ import annotations

import secrets
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

from cfi_core.attribution import Attribution
from cfi_core.bridging import bridge
from cfi_core.call import Call
from cfi_core.carrying import Prepared, carry, check_against_model
from cfi_core.detection import adapter_for, detect_framework
from cfi_core.errors import ArgumentError, LayerError, ModelWarning, PlotError, PluginWarning
from cfi_core.frameworks.base import Layer
from cfi_core.frameworks.structure import flatten
from cfi_core.homecoming import bring_home
from cfi_core.inputs import Probe, example_inputs, read_inputs, run_probe
from cfi_core.planning import ATTRIBUTION_KINDS, VISUALIZATION_KINDS, Plan, layer_names, make_plan
from cfi_core.registry import Registry, registry
from cfi_core.routes import choose_conversion
from cfi_core.running import run, unchanged_process
from cfi_core.specs import Kind, Translator
from cfi_core.translation import Translation, translate_along

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class PendingLayer:
    """A call that waits for a layer; `cfi.finish_execution_with_layer(pending, layer)` resumes it.

    Attributes:
        plan: What is going to happen.
        layers: The layers that can be chosen.
        prepared: The converted and certified model, which is not made again (a bridge waits for its layer).
        seconds: What the steps so far have taken.
        plot: As it was asked for.
        fingerprint: Content of the user's model when it was translated.
    """

    plan: Plan
    layers: tuple[Layer, ...]
    prepared: Prepared
    seconds: Mapping[str, float]
    plot: bool | str | Path
    fingerprint: str

    def __str__(self) -> str:
        rows = "\n".join(
            f"  {layer.name}  {layer.kind}  {layer.output_shape if layer.output_shape is not None else '?'}"
            for layer in self.layers
        )
        return (
            f"{self.plan.method.key} of {self.plan.method.toolset} needs a layer. Choose one and call "
            f"cfi.finish_execution_with_layer(pending, layer):\n{rows}"
        )

    __repr__ = __str__


def attribute(
    model: Any,
    method_key: str,
    toolset: str | None = None,
    *,
    inputs: Any = None,
    target: Any = None,
    layer: Any = None,
    neuron: Any = None,
    baselines: Any = None,
    init_args: Mapping[str, Any] | None = None,
    exec_args: Mapping[str, Any] | None = None,
    translator: Translator = None,
    head: str | None = None,
    plot: bool | str | Path = False,
    seed: int | None = None,
) -> Attribution | PendingLayer:
    """Explains a model with an introspection method, whatever framework either of them is of.

    Args:
        model: A `torch.nn.Module`, a Keras 3 model, a `tf.Module`, `tf.function` or signature of a SavedModel, an
            `onnx.ModelProto` or the path of an `.onnx` file, an ONNX Runtime session, a scikit-learn estimator, or any
            function of arrays or of one framework's tensors (the framework that `inputs` are of). It is left as it is:
            weights, mode, hooks, gradients and global random state are the same afterwards.
        method_key: For example `"grad_cam"`; `cfi.methods()` lists all.
        toolset: For example `"captum"`; None chooses one and warns if there are several.
        inputs: Array or tensor of any known framework, sample axis first, in the axis order of the model; a
            tuple for a model with several inputs.
        target: What to explain: a class index (a negative one counts from the end), a list with one per sample, a
            tuple into the output (of a model with several outputs: beginning with the output's position or key), or
            a callable of the output.
        layer: A layer of the model: the object or its name.
        neuron: Index of a unit of the layer's output (axes after the first, in the model's order), or a callable.
        baselines: Reference inputs: a number, or arrays with the axes of the inputs.
        init_args: Arguments of the toolset's constructor, in the toolset's words.
        exec_args: Arguments of the toolset's call, in the toolset's words.
        translator: Name of a translator, a list of names (a whole route), `"conversion"` or `"bridge"`.
        head: `"logit"` or `"output"`: where a softmax at the model's end is explained; None does as the
            method's paper says.
        plot: True puts a figure into `extras["figure"]` (and shows it in a notebook); a path is written to, by the
            writer of its suffix.
        seed: Seeds everything random in the method; None draws a seed, which `provenance["seed"]` tells.

    Returns:
        The attribution; or a `PendingLayer`, if the method needs a layer and none is given.

    Raises:
        UnknownMethodError: No plugin offers the method.
        UnknownFrameworkError: The model is of no known framework.
        RouteError: The toolset cannot be reached.
        ArgumentError: An argument does not fit (`InputError`, `TargetError` and `LayerError` are of this kind).
        TranslationError: The model cannot be translated (`UnfaithfulTranslationError`: not without changing it).
        MethodError: The toolset failed.
    """
    call = Call(
        model=model,
        method_key=method_key,
        toolset=toolset,
        inputs=inputs,
        target=target,
        layer=layer,
        neuron=neuron,
        baselines=baselines,
        init_args=_NOTHING if init_args is None else init_args,
        exec_args=_NOTHING if exec_args is None else exec_args,
        translator=translator,
        head=head,
        seed=seed,
    )
    return _execute(call, ATTRIBUTION_KINDS, plot)


def visualize_features(
    model: Any,
    method_key: str = "activation_maximization",
    toolset: str | None = None,
    *,
    inputs: Any = None,
    target: Any = None,
    layer: Any = None,
    neuron: Any = None,
    init_args: Mapping[str, Any] | None = None,
    exec_args: Mapping[str, Any] | None = None,
    translator: Translator = None,
    head: str | None = None,
    plot: bool | str | Path = False,
    seed: int | None = None,
) -> Attribution:
    """Makes inputs that drive an output, a channel or a unit of the model as high as they can.

    Args:
        model: As for `attribute`.
        method_key: For example `"activation_maximization"`.
        toolset: As for `attribute`.
        inputs: Where to start from; None starts from noise, if the model declares the shape of its inputs.
        target: The output to maximise.
        layer: Instead of an output: a layer, together with `neuron`.
        neuron: A channel of the layer (one index) or one unit (an index for each axis, in the model's order).
        init_args: As for `attribute`.
        exec_args: As for `attribute`; tf-keras-vis needs `{"input_range": (low, high)}`, the range of valid inputs.
        translator: As for `attribute`.
        head: As for `attribute`.
        plot: As for `attribute`.
        seed: As for `attribute`.

    Returns:
        An attribution whose values are the inputs found.

    Raises:
        CFIError: As for `attribute`.
    """
    call = Call(
        model=model,
        method_key=method_key,
        toolset=toolset,
        inputs=inputs,
        target=target,
        layer=layer,
        neuron=neuron,
        init_args=_NOTHING if init_args is None else init_args,
        exec_args=_NOTHING if exec_args is None else exec_args,
        translator=translator,
        head=head,
        seed=seed,
    )
    if (layer is None) != (neuron is None):
        raise ArgumentError("A layer is visualised by one of its channels or units: pass both layer= and neuron=.")
    result = _execute(call, VISUALIZATION_KINDS, plot)
    if isinstance(result, PendingLayer):
        raise ArgumentError(f"{method_key} needs a layer and one of its units: pass layer= and neuron=.")
    return result


def finish_execution_with_layer(pending: PendingLayer, layer: Any) -> Attribution:
    """Resumes a call that was waiting for a layer, without translating again.

    Args:
        pending: What `attribute` returned.
        layer: A layer of the user's model: the object or its name.

    Raises:
        LayerError: The layer is not part of the model, or cannot be used there.
        ArgumentError: The model has changed in the meantime.
    """
    if not isinstance(pending, PendingLayer):
        raise ArgumentError(
            f"finish_execution_with_layer takes the PendingLayer that cfi.attribute returned, not {pending!r}."
        )
    prepared = pending.prepared
    names = layer_names(prepared.home, prepared.model, layer)
    if not names:
        raise LayerError(f"Pass a layer: one of {', '.join(entry.name for entry in pending.layers)}.")
    if prepared.home.fingerprint(prepared.model) != pending.fingerprint:
        raise ArgumentError("The model has changed since the call was prepared. Call cfi.attribute again, with layer=.")
    with unchanged_process(prepared.registry):
        return _finish(prepared, names, dict(pending.seconds), pending.plot)


def plan(
    model: Any,
    method_key: str,
    toolset: str | None = None,
    *,
    inputs: Any = None,
    target: Any = None,
    layer: Any = None,
    neuron: Any = None,
    baselines: Any = None,
    init_args: Mapping[str, Any] | None = None,
    exec_args: Mapping[str, Any] | None = None,
    translator: Translator = None,
    head: str | None = None,
    seed: int | None = None,
) -> Plan:
    """Says what `attribute` (or `visualize_features`) would do with the same arguments, without doing it.

    Returns:
        The plan: method, toolset, route and why; print it.

    Raises:
        CFIError: The same errors as far as names tell: methods, routes, layers, arguments that are missing, unknown or
            given twice. What has to be compared with the model (shapes, targets) is checked when it runs.
    """
    call = Call(
        model=model,
        method_key=method_key,
        toolset=toolset,
        inputs=inputs,
        target=target,
        layer=layer,
        neuron=neuron,
        baselines=baselines,
        init_args=_NOTHING if init_args is None else init_args,
        exec_args=_NOTHING if exec_args is None else exec_args,
        translator=translator,
        head=head,
        seed=seed,
    )
    current = registry()
    with unchanged_process(current):
        return make_plan(current, call, ATTRIBUTION_KINDS | VISUALIZATION_KINDS)


def translate(model: Any, to: str, *, inputs: Any, translator: Translator = None) -> Translation:
    """Translates a model into another framework and certifies the result.

    Args:
        model: As for `attribute`.
        to: Framework to translate to, such as `"torch"` or `"tensorflow"`.
        inputs: Samples to certify the translation on, in the axis order of the model.
        translator: As for `attribute`; left out, a conversion is taken.

    Returns:
        The native model with its certificate and layer map.

    Raises:
        ArgumentError: There is no such framework, or the model is of it already; `InputError`: the inputs do not fit.
        RouteError: No translator leads there.
        TranslationError: No translator could translate it faithfully.
    """
    current = registry()
    framework = detect_framework(current, model, inputs).name
    if to == "keras":
        raise ArgumentError("Keras models are of the framework 'tensorflow': pass to='tensorflow'.")
    if framework == to:
        raise ArgumentError(f"The model already is a {to} model; there is nothing to translate.")
    if to not in current.frameworks:
        raise ArgumentError(f"There is no framework {to!r}; known are {', '.join(sorted(current.frameworks))}.")
    routes = choose_conversion(current, framework, to, translator)
    with unchanged_process(current):
        adapter = adapter_for(current, framework)
        loaded = adapter.load(model)
        probe = run_probe(adapter, adapter.twin(loaded), read_inputs(current, adapter, loaded, inputs))
        return translate_along(
            current, framework, loaded, routes, probe.inputs.arrays, flatten(probe.outputs), keep=False
        )


def layers(model: Any, inputs: Any = None) -> list[Layer]:
    """Lists the layers of a model under the names that `layer=` takes.

    Args:
        model: As for `attribute`.
        inputs: With them, output shapes are known for models of every kind.
    """
    current = registry()
    adapter = adapter_for(current, detect_framework(current, model, inputs).name)
    with unchanged_process(current):
        loaded = adapter.load(model)
        read = None if inputs is None else read_inputs(current, adapter, loaded, inputs)
        return list(adapter.layers(loaded, None if read is None else read.tensors))


def _execute(call: Call, kinds: frozenset[Kind], plot: bool | str | Path) -> Attribution | PendingLayer:
    current = registry()
    _check_plot(current, plot)
    seconds: dict[str, float] = {}
    with unchanged_process(current):
        start = perf_counter()
        plan = make_plan(current, call, kinds)
        _observe(current, "cfi_before_run", plan=plan)
        prepared = _prepare(current, plan, seconds, start)
        if plan.needs_layer:
            fingerprint = prepared.home.fingerprint(prepared.model)
            return PendingLayer(plan, _choosable(prepared), prepared, seconds, plot, fingerprint)
        return _finish(prepared, plan.layers, seconds, plot)


def _prepare(current: Registry, plan: Plan, seconds: dict[str, float], start: float) -> Prepared:
    adapter = adapter_for(current, plan.framework)
    model, call = plan.call.model, plan.call
    if adapter.in_training_mode(model):
        warnings.warn(
            "The model is in training mode. It is explained in inference mode (dropout off, fixed batch norm "
            "statistics); your model stays in training mode.",
            ModelWarning,
            stacklevel=4,
        )
    given = call.inputs is not None
    samples = len(call.target) if isinstance(call.target, list) else 1
    inputs = read_inputs(current, adapter, model, call.inputs) if given else example_inputs(adapter, model, samples)
    probe = Probe(inputs, run_probe(adapter, adapter.twin(model), inputs).outputs)
    seed = secrets.randbits(31) if call.seed is None else call.seed
    prepared = Prepared(current, plan, model, probe, given, None, seed)
    check_against_model(prepared)
    seconds["check"] = perf_counter() - start
    # A bridge is built at the layers of the call, so it waits for them.
    return prepared if plan.needs_layer and plan.route.bridge else _translated(prepared, plan.layers, seconds)


def _translated(prepared: Prepared, layers: Sequence[str], seconds: dict[str, float]) -> Prepared:
    """The call with the model that its toolset gets."""
    plan, probe = prepared.plan, prepared.probe
    if plan.route.native:
        return prepared
    start = perf_counter()
    translation = translate_along(
        prepared.registry,
        plan.framework,
        prepared.model,
        plan.routes,
        probe.inputs.arrays,
        flatten(probe.outputs),
        bridge=lambda route: bridge(prepared, route, layers),
    )
    seconds["translate and certify"] = perf_counter() - start
    return replace(prepared, translation=translation)


def _finish(
    prepared: Prepared, names: Sequence[str], seconds: dict[str, float], plot: bool | str | Path
) -> Attribution:
    if prepared.translation is None:
        prepared = _translated(prepared, names, seconds)
    start = perf_counter()
    carried = carry(prepared, names)
    if carried.warning:
        warnings.warn(carried.warning, ModelWarning, stacklevel=4)
    result = run(prepared.abroad, carried.request)
    seconds["run"] = perf_counter() - start
    attribution = bring_home(prepared, carried, result, names, seconds)
    _observe(prepared.registry, "cfi_after_run", plan=prepared.plan, attribution=attribution)
    if plot:
        try:
            _plot(attribution, plot)
        except Exception as error:  # noqa: BLE001 - a plotter is foreign code, and the attribution must not be lost
            warnings.warn(f"The attribution could not be drawn: {error}", PluginWarning, stacklevel=4)
    return attribution


def _choosable(prepared: Prepared) -> tuple[Layer, ...]:
    """The layers that the method could use."""
    listed = prepared.home.layers(prepared.model, prepared.probe.inputs.tensors)
    if prepared.plan.route.native:
        return tuple(listed)
    if prepared.translation is None:
        # What can be read in one piece can be opened by a bridge.
        return tuple(layer for layer in listed if layer.output_shape is not None)
    return tuple(layer for layer in listed if layer.name in prepared.translation.layer_map)


def _observe(current: Registry, hook: str, **arguments: Any) -> None:
    try:
        getattr(current.manager.hook, hook)(**arguments)
    except Exception as error:  # noqa: BLE001 - an observer is foreign code: it must not take the host down
        warnings.warn(f"A {hook} hook failed: {error!r}.", PluginWarning, stacklevel=4)


def _check_plot(current: Registry, plot: bool | str | Path) -> None:
    """Finds out before anything expensive runs that a picture could not be written."""
    if not isinstance(plot, str | Path):
        return
    path = Path(plot)
    if path.suffix.lower() not in current.writers:
        raise PlotError(f"No writer serves {path.suffix!r} files; there are writers for {', '.join(current.writers)}.")
    if not path.parent.is_dir():
        raise PlotError(f"There is no folder {str(path.parent)!r} to write {path.name!r} into. Make it first.")


def _plot(attribution: Attribution, plot: bool | str | Path) -> None:
    if isinstance(plot, str | Path):
        attribution.save(plot)
        return
    figure = attribution.plot()
    attribution.extras["figure"] = figure  # type: ignore[index]
    shell = sys.modules.get("IPython")
    if shell is not None and shell.get_ipython() is not None:
        shell.display.display(figure)
