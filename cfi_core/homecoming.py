"""Step 8 of a call: bring the result home to the user's axes and names."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import importlib_metadata
import numpy as np
from packaging.requirements import Requirement

from cfi_core.attribution import Attribution
from cfi_core.carrying import Carried, Prepared
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.errors import MethodError, ModelWarning
from cfi_core.targets import inverse

_MAPS = {Axes.INPUT_MAP, Axes.LAYER_MAP, Axes.INPUT_SIZED_MAP}


def bring_home(
    prepared: Prepared,
    carried: Carried,
    result: MethodResult,
    layers: Sequence[str],
    seconds: dict[str, float],
) -> Attribution:
    """Makes the attribution.

    Raises:
        MethodError: The method gave NaN or infinite values.
    """
    plan, call, request = prepared.plan, prepared.plan.call, carried.request
    parts = [_part(prepared, carried, result.axes, i, value, layers) for i, value in enumerate(result.values)]
    for values, _ in parts:
        if np.issubdtype(values.dtype, np.inexact) and not np.isfinite(values).all():
            raise MethodError(
                f"{plan.method.key} of {plan.method.toolset} gave NaN or infinite values, which explain nothing. "
                f"Check the scale of inputs and outputs, or choose another method."
            )
    if all(not values.any() for values, _ in parts):
        warnings.warn(
            f"{plan.method.key} of {plan.method.toolset} is zero everywhere: what is explained does not react to this "
            f"input here (a dead unit, a saturated output, a layer that the target does not depend on), or the "
            f"method's own regularisation removed everything (LIME: pass an interpretable_model with a smaller alpha).",
            ModelWarning,
            stacklevel=5,
        )
    several = len(parts) > 1
    inputs = prepared.probe.inputs.arrays if prepared.inputs_given else ()
    return Attribution(
        values=tuple(values for values, _ in parts) if several else parts[0][0],
        dims=tuple(dims for _, dims in parts) if several else parts[0][1],
        method_key=plan.method.key,
        toolset=plan.method.toolset,
        route=prepared.translation.route.names if prepared.translation else (),
        certificate=prepared.translation.certificate if prepared.translation else None,
        target=_shown_target(call.target, request),
        layer=None if not layers else layers[0] if len(layers) == 1 else tuple(layers),
        extras={name: _numpy(prepared, value) for name, value in result.extras.items()},
        provenance=_provenance(prepared, carried, result, seconds),
        inputs=inputs,
        input_dims=tuple(prepared.home.dims(prepared.model, array.shape) for array in inputs),
    )


def _part(
    prepared: Prepared, carried: Carried, axes: Axes, position: int, value: Any, layers: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    values = np.asarray(_numpy(prepared, value))
    of_layer = axes in (Axes.LAYER, Axes.LAYER_MAP)
    layer = layers[min(position, len(layers) - 1)] if of_layer and layers else None
    home, model = prepared.home, prepared.model
    if axes in _MAPS:
        # A map has no channel axis, so there is no permutation to undo: the spatial axes must be in the same order.
        order = prepared.layer_axes(layer) if layer is not None else prepared.input_axes(position)
        shape = _shape(prepared, carried, layer, position, values.ndim + 1)
        _check_spatial_order(prepared, layer, order, shape)
        full = home.dims(model, shape, layer=layer)
        return values, tuple(name for name in full if name != "channel")
    order = prepared.layer_axes(layer) if layer is not None else prepared.input_axes(position)
    if order is not None and len(order) != values.ndim:
        raise MethodError(
            f"{prepared.plan.method.key} gave values of shape {values.shape} where {len(order)} axes were expected; "
            f"they cannot be brought home from the translated model. Leave out own arguments that change their shape."
        )
    if order is not None:
        values = np.transpose(values, inverse(order))
    return np.array(values), home.dims(model, values.shape, layer=layer)


def _shape(prepared: Prepared, carried: Carried, layer: str | None, position: int, rank: int) -> tuple[int, ...]:
    """Shape, in the user's model, of what a map was made of."""
    if layer is not None:
        shape = carried.layer_shapes.get(layer, ())
    else:
        arrays = prepared.probe.inputs.arrays
        shape = arrays[min(position, len(arrays) - 1)].shape
    return shape if len(shape) == rank else (0,) * rank


def _check_spatial_order(
    prepared: Prepared, layer: str | None, order: tuple[int, ...] | None, shape: tuple[int, ...]
) -> None:
    if order is None:
        return
    channel = prepared.home.channel_axis(prepared.model, shape, layer=layer)
    spatial = [axis for axis in order if axis != channel]
    if spatial != sorted(spatial):
        raise MethodError(
            f"The translated model holds the spatial axes of {layer or 'its input'} in another order ({order}), so a "
            f"map without a channel axis cannot be brought home. Choose another layer or translator."
        )


def _numpy(prepared: Prepared, value: Any) -> Any:
    return prepared.abroad.to_numpy(value) if prepared.abroad.is_tensor(value) else value


def _shown_target(target: Any, request: MethodRequest) -> Any:
    if target is None and request.target is None:
        return next((value for name, value in request.exec_args.items() if name == "score"), None)
    return target


def _provenance(
    prepared: Prepared, carried: Carried, result: MethodResult, seconds: dict[str, float]
) -> dict[str, Any]:
    plan = prepared.plan
    return {
        "method": plan.method.key,
        "kind": str(plan.method.kind),
        "toolset": plan.method.toolset,
        "citation": plan.method.citation,
        "model": f"{type(prepared.model).__module__}.{type(prepared.model).__qualname__}",
        "framework": plan.framework,
        "route": prepared.translation.route.names if prepared.translation else (),
        "certificate": str(prepared.translation.certificate) if prepared.translation else "native: nothing to certify",
        "explained": carried.explained,
        "neuron": plan.call.neuron if not callable(plan.call.neuron) else repr(plan.call.neuron),
        "applied": dict(result.applied),
        "init_args": {name: repr(value) for name, value in plan.call.init_args.items()},
        "exec_args": {name: repr(value) for name, value in plan.call.exec_args.items()},
        "seed": prepared.seed,
        "seconds": sum(seconds.values()),
        "seconds_per_step": dict(seconds),
        "versions": _versions(prepared),
    }


def _versions(prepared: Prepared) -> dict[str, str]:
    plan, registry = prepared.plan, prepared.registry
    requirements = [
        *registry.toolsets[plan.method.toolset].requirements,
    ]
    for step in prepared.translation.route.translators if prepared.translation else ():
        requirements.extend(step.requirements)
    names = dict.fromkeys(["cfi-core", "numpy", *(Requirement(text).name for text in requirements)])
    versions = {"python": platform.python_version()}
    for framework in (plan.framework, plan.toolset_framework):
        module = registry.frameworks[framework].module
        versions[module] = str(getattr(sys.modules.get(module), "__version__", "unknown"))
    for name in names:
        try:
            versions[name] = importlib_metadata.version(name)
        except importlib_metadata.PackageNotFoundError:
            versions[name] = "not installed as a distribution"
    return versions
