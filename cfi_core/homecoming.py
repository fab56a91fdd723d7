"""Step 8 of a call: bring the result home to the user's axes and names, and draw it if the user asked for it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from packaging.requirements import Requirement

from cfi_core.attribution import Attribution, Outlets
from cfi_core.boundary import observe
from cfi_core.columns import describe_table
from cfi_core.completeness import measure_completeness
from cfi_core.contract import Axes, MethodResult
from cfi_core.errors import FOREIGN, MethodError, ModelWarning, PluginWarning, summary, warn
from cfi_core.features import TOKEN_AXES, name_axes, name_tokens, names_along
from cfi_core.framework.axes import Permutation, unpermute
from cfi_core.grid import is_turned
from cfi_core.holding import tell_held
from cfi_core.laying import LaidOut, lay_out, unshow
from cfi_core.prediction import predict
from cfi_core.preparation import come_home
from cfi_core.progress import phase
from cfi_core.records import Call, Carried, Prepared, Run
from cfi_core.registry import Registry
from cfi_core.requirements import version_of
from cfi_core.sampling import measure_sampling
from cfi_core.seeking import ground_of
from cfi_core.specs import Kind, Role, Spec

_MAPS = {Axes.INPUT_MAP, Axes.LAYER_MAP, Axes.INPUT_SIZED_MAP}
_OF_LAYERS = {Axes.LAYER, Axes.LAYER_MAP}
_OF_INPUTS = {Axes.INPUT, Axes.INPUT_MAP}
_SEEN = "types, shapes, target and finite values of this batch; what else is measured, of others (see cfi.Explainer)"


@phase("bringing the result home")
def bring_home(registry: Registry, call: Call, prepared: Prepared, carried: Carried, made: Run) -> Attribution:
    """Makes the attribution.

    Raises:
        MethodError: The method gave NaN or infinite values.

    Warns:
        CompletenessWarning: The values do not add up to what the method promises.
        ModelWarning: The values are zero everywhere.
        SamplingWarning: They are made of too few draws.
        PluginWarning: It could not be drawn.
    """
    plan, result = call.plan, made.result
    layers = _explained_layers(call, prepared, result)
    parts = [_label(call, prepared, carried, layers, result.axes, i, value) for i, value in enumerate(result.values)]
    values, dims = zip(*parts, strict=True)
    _check_values(call, values)
    completeness = measure_completeness(registry, call, prepared, carried, result, values)
    values = tuple(_without_kept(call, result.axes, i, value) for i, value in enumerate(values))
    laid = lay_out(call, layers, carried, result.axes, values, dims)
    errors = _bring_errors(call, prepared, carried, layers, result, dims)
    provenance = _provenance(registry, call, prepared, carried, result)
    provenance |= {"completeness": completeness, "layer": call.sought or "as given", "grid": laid.told}
    provenance["batch_size"] = None if made.batch is None else dict(made.batch)
    provenance["sampling"] = measure_sampling(call, result.sampling, laid.values, errors)
    attribution = _compose(registry, call, prepared, result, layers, laid, errors, provenance)
    attribution.extras.update(_steps(call, prepared, carried, layers, result))  # type: ignore[attr-defined]
    if plan.arguments.unpacked is not None and plan.method.kind is not Kind.FEATURE_VISUALIZATION:
        attribution = come_home(plan.arguments.unpacked, attribution, result.axes)
    observe(registry, "cfi_after_run", plan=plan, attribution=attribution)
    if plan.arguments.plot:
        _draw(attribution, plan.arguments.plot)
    return attribution


def _compose(
    registry: Registry,
    call: Call,
    prepared: Prepared,
    result: MethodResult,
    layers: tuple[str, ...],
    laid: LaidOut,
    errors: Sequence[np.ndarray],
    provenance: Mapping[str, Any],
) -> Attribution:
    """The record, with values under the names of the inputs where these have some."""
    plan, original, count = call.plan, call.original, len(laid.values)
    inputs = call.inputs.arrays if call.inputs.given else ()
    if original.table is not None:
        inputs = (original.table.shown,)
    names = original.names.explained if original.names and not original.table else ()
    is_named = result.axes in _OF_INPUTS and count == len(names)
    known = [names_along(call, result.axes, i, dims) for i, dims in enumerate(laid.dims)]

    def arrange(each: Sequence[Any]) -> Any:
        return dict(zip(names, each, strict=True)) if is_named else tuple(each) if count > 1 else each[0]

    extras = {name: prepared.as_numpy(value) for name, value in result.extras.items()} | dict(laid.extras)
    if errors:
        extras["standard_error"] = arrange(errors)
    return Attribution(
        values=arrange(laid.values),
        dims=arrange(laid.dims),
        method_key=plan.method.key,
        toolset=plan.method.toolset,
        route=prepared.translation.route.names if prepared.translation else (),
        certificate=prepared.certificate,
        # As the user gave it, in whichever words.
        target=next(iter(plan.arguments.of_role(Role.OWN_TARGET, plan.method)), plan.arguments.target),
        layer=layers if len(layers) > 1 else next(iter(layers), None),
        extras=extras,
        provenance=provenance,
        inputs=inputs,
        input_dims=tuple(name_axes(call, array.shape, None) for array in inputs),
        feature_names=arrange(known) if any(known) else None,
        outlets=Outlets(registry.plotters, registry.writers),
    )


def _steps(
    call: Call, prepared: Prepared, carried: Carried, layers: tuple[str, ...], result: MethodResult
) -> dict[str, Any]:
    """What the values were on the way, in the user's axes behind one of the steps; nothing where none were kept."""
    if not result.steps:
        return {}
    kept = [
        np.stack([_label(call, prepared, carried, layers, result.axes, i, one)[0] for one in values])
        for i, values in enumerate(zip(*result.steps.values(), strict=True))
    ]
    return {"steps": kept[0] if len(kept) == 1 else tuple(kept), "step_numbers": np.array(list(result.steps))}


def _explained_layers(call: Call, prepared: Prepared, result: MethodResult) -> tuple[str, ...]:
    """Names, in the user's model, of the layers that the values are of."""
    if result.layer is None:
        return call.plan.layers
    if prepared.translation is None and prepared.repair is None:
        return (result.layer,)
    known = prepared.translation.layer_map if prepared.translation else prepared.repair.canonical.layers  # type: ignore[union-attr]
    for name in known:
        if prepared.layer_name(name) == result.layer:
            return (name,)
    raise MethodError(
        f"{call.plan.method.key} of {call.plan.method.toolset} took layer {result.layer!r} of the translated model, "
        f"which corresponds to none of your model. Name another layer."
    )


def _label(
    call: Call,
    prepared: Prepared,
    carried: Carried,
    layers: tuple[str, ...],
    axes: Axes,
    position: int,
    value: Any,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Values in the user's axes, and the names of these."""
    values = np.asarray(prepared.as_numpy(value))
    if axes is Axes.FEATURE:
        return values, ("sample", "feature")
    layer = layers[min(position, len(layers) - 1)] if axes in _OF_LAYERS and layers else None
    if layer is not None and layer in carried.shown:
        return unshow(call, layer, carried.shown[layer], values, name_axes(call, call.layer_shapes[layer], layer))
    order = prepared.layer_axes(layer) if layer is not None else prepared.input_axes(position)
    if axes in _MAPS:
        shape = _unmapped_shape(call, layer, order, position, values.ndim + 1)
        # What has the size of the input was stretched along the layer's axes.
        for name in layers if axes is Axes.INPUT_SIZED_MAP else ():
            if is_turned(ground_of(call), name):
                raise MethodError(
                    f"Layer {name!r} holds the axes of your image in another order, and {call.plan.method.toolset} "
                    f"stretches its map over the image as if they were the image's own. Take the map of the layer "
                    f"itself (defaults='raw'), or another layer."
                )
            if name in carried.shown:
                continue
            along = prepared.layer_axes(name)
            _unmapped_shape(call, name, along, position, len(along or ()))
        full = name_axes(call, shape, layer)
        return values, tuple(name for name in full if name not in ("channel", TOKEN_AXES[-1]))
    if order is not None and len(order) != values.ndim:
        raise MethodError(
            f"{call.plan.method.key} gave values of shape {values.shape} where {len(order)} axes were expected; "
            f"they cannot be brought home from the translated model. Leave out own arguments that change their shape."
        )
    values = np.array(unpermute(values, order))
    dims = name_axes(call, values.shape, layer)
    return values, name_tokens(call, axes, layer, dims, values.shape)


def _bring_errors(
    call: Call,
    prepared: Prepared,
    carried: Carried,
    layers: tuple[str, ...],
    result: MethodResult,
    dims: Sequence[tuple[str, ...]],
) -> tuple[np.ndarray, ...]:
    """The standard errors of drawn values, in the axes of the values; none of a method that does not draw."""
    if result.sampling is None:
        return ()
    parts = [
        _label(call, prepared, carried, layers, result.axes, i, value)[0]
        for i, value in enumerate(result.sampling.errors)
    ]
    parts = [_without_kept(call, result.axes, i, value) for i, value in enumerate(parts)]
    return lay_out(call, layers, carried, result.axes, parts, dims).values


def _without_kept(call: Call, axes: Axes, position: int, values: np.ndarray) -> np.ndarray:
    """With 0 for tokens that the baselines keep: they are no features, whatever group or window they stand in."""
    keep = call.kept[position] if axes is Axes.INPUT and position < len(call.kept) else None
    return values if keep is None else np.where(keep.reshape(*keep.shape, *(1,) * (values.ndim - 2)), 0, values)


def _unmapped_shape(call: Call, layer: str | None, order: Permutation, position: int, rank: int) -> tuple[int, ...]:
    """Shape, in the user's model, of what a map was made of.

    A map has no channel axis, so there is no permutation to undo: the spatial axes must be in the same order.
    """
    arrays, adapter = call.inputs.arrays, call.original.adapter
    read = arrays[min(position, len(arrays) - 1)].shape if layer is None else call.layer_shapes.get(layer, ())
    shape = read if len(read) == rank else (0,) * rank
    channel = None if order is None else adapter.channel_axis(call.original.model, shape, layer=layer)
    spatial = [axis for axis in order or () if axis != channel]
    if spatial != sorted(spatial):
        raise MethodError(
            f"The translated model holds the spatial axes of {layer or 'its input'} in another order ({order}), so a "
            f"map without a channel axis cannot be brought home. Choose another layer or translator."
        )
    return shape


def _check_values(call: Call, parts: Sequence[np.ndarray]) -> None:
    method = call.plan.method
    if not all(np.isfinite(values).all() for values in parts if np.issubdtype(values.dtype, np.inexact)):
        raise MethodError(
            f"{method.key} of {method.toolset} gave NaN or infinite values, which explain nothing. "
            f"Check the scale of inputs and outputs, or choose another method."
        )
    if not any(values.any() for values in parts):
        warn(
            f"{method.key} of {method.toolset} is zero everywhere: what is explained does not react to this "
            f"input here (a dead unit, a saturated output, a layer that the target does not depend on), or the "
            f"method's own regularisation removed everything (LIME: pass an interpretable_model with a smaller alpha).",
            ModelWarning,
        )


def _provenance(
    registry: Registry, call: Call, prepared: Prepared, carried: Carried, result: MethodResult
) -> dict[str, Any]:
    plan, arguments, translation = call.plan, call.plan.arguments, prepared.translation
    translated = {} if translation is None else {"translate and certify": prepared.seconds}
    seconds = {"check": call.seconds, **translated, "run": perf_counter() - carried.started}
    return {
        "method": plan.method.key,
        "kind": str(plan.method.kind),
        "toolset": plan.method.toolset,
        "citation": plan.method.citation,
        "model": arguments.called,
        "framework": plan.framework,
        "route": translation.route.names if translation else (),
        "certificate": str(prepared.certificate or "native: nothing to certify"),
        "repaired": prepared.repair.canonical.repairs if prepared.repair else (),
        "function": call.purity.found,
        "checks": "in full" if call.in_full else _SEEN,
        **({"precision": call.precision} if call.precision else {}),
        "explained": carried.explained,
        "target": _describe_target(call),
        "classes": _classes(call),
        "predicted": None if plan.method.kind is Kind.FEATURE_VISUALIZATION else predict(call),
        "target_in_words": call.words,
        "inputs": f"the output of layer {call.original.embedding!r}" if call.original.embedding else "as given",
        "held": tell_held(call),
        **describe_table(call.original.table, plan.arguments.baselines),
        "neuron": repr(arguments.neuron) if callable(arguments.neuron) else arguments.neuron,
        "defaults": arguments.defaults,
        "applied": dict(result.applied),
        "init_args": {name: repr(value) for name, value in (arguments.init_args or {}).items()},
        "exec_args": {name: repr(value) for name, value in (arguments.exec_args or {}).items()},
        "seed": call.seed,
        "seconds": sum(seconds.values()),
        "seconds_per_step": seconds,
        "versions": _versions(registry, call, prepared),
    }


def _describe_target(call: Call) -> Any:
    """What was explained, as indices of the output in the user's axes; a function by its name."""
    if call.named is None:
        return None
    *path, target = call.named
    what = repr(target.function) if target.function is not None else target.index
    return (*path, what) if path else what


def _classes(call: Call) -> tuple[str, ...] | None:
    """Names of the explained classes, one for all samples or one for each, where the model knows them."""
    names, target = call.original.adapter.class_names(call.original.model), call.target
    if names is None or target is None or not target.index or len(names) != call.output_arrays[call.output].shape[-1]:
        return None
    indices = target.index if target.per_sample else (target.index,)
    return tuple(names[index[-1]] for index in indices)  # type: ignore[index]


def _versions(registry: Registry, call: Call, prepared: Prepared) -> dict[str, str]:
    """Versions of all that took part, as far as metadata and loaded modules tell."""
    plan, translation = call.plan, prepared.translation
    frameworks = [registry.frameworks[name] for name in (plan.framework, plan.toolset_framework)]
    steps = translation.route.translators if translation else ()
    specs: list[Spec] = [plan.method, *steps, *frameworks]
    required = [registry.toolsets[plan.method.toolset].requirements, *(step.requirements for step in steps)]
    names = ("cfi-core", "numpy", *(Requirement(text).name for text in chain.from_iterable(required)))
    modules = [(spec.module, sys.modules.get(spec.module)) for spec in frameworks]
    return {
        "python": platform.python_version(),
        **{name: str(getattr(module, "__version__", "unknown")) for name, module in modules},
        **{plugin.distribution: plugin.version for plugin in map(registry.origin_of, specs)},
        **{name: version_of(name) or "not installed as a distribution" for name in names},
    }


def _draw(attribution: Attribution, plot: bool | str | Path) -> None:
    try:
        if isinstance(plot, str | Path):
            attribution.save(plot)
            return
        attribution.extras["figure"] = attribution.plot()  # type: ignore[index]
    except FOREIGN as error:  # the attribution must not be lost with it
        warn(f"The attribution could not be drawn ({summary(error)}).", PluginWarning, error)
