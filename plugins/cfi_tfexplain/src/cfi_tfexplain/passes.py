"""Passes of a model over many rows: compiled where that pays, and kept with the model for the next call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cfi_core.adapters import adapter_for
from cfi_core.contract import MethodRequest
from cfi_core.registry import registry

ENOUGH, OF_A_PASS = 150, 8
"""Rows from which on a model is compiled, each pass counting for so many more: as bridges do it."""

_KEPT = "_cfi_tfexplain_passes"


def passes(request: MethodRequest, rows: int, at_once: int) -> Callable[[Any], Any]:
    """What gives the outputs for a tensor of rows: the model itself, or a compiled function.

    Whether that is so depends on the call alone, so that the same call has the same passes whatever came before.

    Args:
        request: The run; its model is a twin, which keeps what is compiled.
        rows: How many there will be.
        at_once: How many of them in one pass.
    """
    model = request.model
    if rows + OF_A_PASS * -(-rows // at_once) <= ENOUGH:
        return model
    adapter = adapter_for(registry(), "tensorflow")
    inputs = [adapter.tensor(request.inputs[0], model)]
    kind = (inputs[0].dtype.name, tuple(inputs[0].shape[1:]))
    compiled = getattr(model, "__dict__", {}).get(_KEPT, {}).get(kind)
    if compiled is None:
        compiled = adapter.compiled(model, inputs)
        if compiled is None:  # as of a model of the user's own class, which has no twin to keep anything with
            return model
        vars(model).setdefault(_KEPT, {})[kind] = compiled  # past the model's __setattr__, which tracks layers
    return lambda images: compiled.run([images])
