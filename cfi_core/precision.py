"""Models in half precision that are to be converted: a copy in single precision takes their place."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from cfi_core.checking.inputs import run_original
from cfi_core.distance import relative_difference
from cfi_core.framework import FrameworkAdapter, flatten
from cfi_core.records import Call, Inputs

_HALF = frozenset({"float16", "bfloat16"})
_SAME = {"float16": 2.0**-7, "bfloat16": 2.0**-5}
"""Relative differences of outputs that the rounding of these types explains: eight units in the last place."""


def in_single(call: Call) -> Call:
    """The same call on a copy of the model in single precision, where conversions would round in other places.

    That is where the model computes in half precision and no bridge is taken. What the conversion makes is measured
    against the copy, and the copy's outputs against the model's.
    """
    adapter, route = call.original.adapter, call.plan.route
    coarse = _HALF & adapter.precision(call.original.model)
    if route.native or route.bridge or not coarse or not call.inputs.given:
        return call
    with suppress(Exception):  # of the user's model, which may fix its types in its code
        single = adapter.in_single(call.original.model)
        if single is not None:
            moved = _on(call, single)
            apart = relative_difference(call.output_arrays, flatten(moved.outputs))
            if apart <= max(_SAME[name] for name in coarse):
                names = " and ".join(sorted(coarse))
                told = f"converted from a copy in float32, whose outputs differ by {apart:.1e} from the {names} ones"
                return replace(moved, precision=told, users=call.original)
    return call


def _on(call: Call, single: object) -> Call:
    original, inputs = replace(call.original, model=single), _inputs(call.inputs, call.original.adapter, single)
    return replace(call, original=original, inputs=inputs, outputs=run_original(original, inputs))


def _inputs(inputs: Inputs, adapter: FrameworkAdapter, single: object) -> Inputs:
    tensors = tuple(adapter.tensor(array, single) for array in inputs.arrays)
    held = tuple(
        adapter.tensor(adapter.to_numpy(one), single) if adapter.is_tensor(one) else one for one in inputs.held
    )
    arrays = tuple(adapter.to_numpy(tensor) for tensor in tensors)
    return replace(inputs, tensors=tensors, arrays=arrays, held=held)
