"""The user's model up to where a method explains it: what its runs are compared with, and its sums measured against.

A model that is asked for often is compiled, where its adapter can do so: that takes as long as some passes.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from threading import Lock
from typing import Any

from cfi_core.batches import some_passed
from cfi_core.heads import at_head, place_of
from cfi_core.records import Call

USES = 4
"""Calls with runs to compare, from which on a model is compiled: by then its passes have cost about as much as that."""


@dataclass(frozen=True)
class Reference:
    """The model.

    Attributes:
        model: As it is, a twin.
        compiled: What stands for it in forward passes and gradients; None if nothing does.
    """

    model: Any
    compiled: Any = None


@dataclass(eq=False)
class _Kept:
    """What is known of a model at one head, with one content."""

    fingerprint: str
    uses: int = 0
    reference: Reference | None = None


_kept: dict[int, dict[tuple[Any, ...], _Kept]] = {}
_lock = Lock()


def reference_of(call: Call, *, cut: bool, counts: bool = False) -> Reference | None:
    """The user's model, ending where the method explains it; None if the softmax to cut off is not found in it.

    Args:
        call: The call.
        cut: Whether a softmax was left out of the model that the method ran on.
        counts: Whether a run is compared with it.
    """
    kept = _entry(call, cut=cut)
    if kept is None:
        model = _model(call, cut=cut)
        return None if model is None else Reference(model)
    with _lock:
        kept.uses += counts
        uses, found = kept.uses, kept.reference
    if found is not None:
        return found
    model = _model(call, cut=cut)
    if model is None:
        return None
    if not counts or uses != USES:
        return Reference(model)
    made = Reference(
        model, call.original.adapter.compiled(model, some_passed(call, call.inputs.passed, call.original.adapter))
    )
    with _lock:
        kept.reference = made if made.compiled is not None else None
    return made


def forget_references() -> None:
    """Forgets what was compiled."""
    with _lock:
        _kept.clear()


def _model(call: Call, *, cut: bool) -> Any | None:
    adapter = call.original.adapter
    twin = adapter.twin(call.original.model)
    if not cut:
        return twin
    head = at_head(call, adapter, twin, call.inputs.passed)
    return head.model if head.cut else None


def _entry(call: Call, *, cut: bool) -> _Kept | None:
    """Where the model is kept; nowhere, if something else than its content may decide what it computes."""
    model = call.original.model
    if not call.purity.by_sample or not call.fingerprint or call.inputs.held:
        return None
    signature = tuple((array.shape[1:], array.dtype.str) for array in call.inputs.arrays)
    key = (place_of(call) if cut else "", signature)
    with _lock:
        if id(model) not in _kept:
            try:
                weakref.finalize(model, _kept.pop, id(model), None).atexit = False
            except TypeError:  # a protobuf message
                return None
            _kept[id(model)] = {}
        of_model = _kept[id(model)]
        if key not in of_model or of_model[key].fingerprint != call.fingerprint:
            of_model[key] = _Kept(call.fingerprint)
        return of_model[key]
