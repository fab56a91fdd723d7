"""Step 7 of a call, its end: compare what the run fed to a converted model, and got from it, with the user's model.

A conversion that is right on some samples may be wrong where the method goes: in larger batches, at baselines, beyond
the data, after many passes. So some samples of the passes of the run itself are compared. What runs natively or over a
bridge is the user's model itself, and is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from cfi_core.certificate import Certificate, certify_at, confirm
from cfi_core.comparison import Excerpt, Side
from cfi_core.errors import FOREIGN, UnfaithfulTranslationError, told
from cfi_core.framework import Pass, Passes
from cfi_core.framework.axes import Permutation, permutation_at, unpermute
from cfi_core.heads import at_head
from cfi_core.records import Call, Carried, Prepared, Run
from cfi_core.specs import Need

MOST_SAMPLES, MOST_WITH_GRADIENTS = 32, 8  # that are compared


def confirm_run(call: Call, prepared: Prepared, carried: Carried, run: Run) -> Prepared:
    """The same, with a certificate that covers the run.

    Raises:
        UnfaithfulTranslationError: In the run, the converted model gave something else than the user's.
    """
    translation = prepared.translation
    if translation is None or run.passes is None:
        return prepared
    sides = _sides(call, prepared, carried)
    if sides is None:
        note = "the run not compared (a softmax was left out of one of the models only)"
        certificate = replace(translation.certificate, notes=(*translation.certificate.notes, note))
    else:
        certificate = _confirm(call, sides, run.passes, translation.certificate)
    if not certificate.faithful:
        names, method = ", ".join(translation.route.names), call.plan.method
        raise UnfaithfulTranslationError(
            f"While {method.key} ran, the model made by {names} gave something else than yours does for the same "
            f"samples: {'; '.join(certificate.faults)}. The result is thrown away. Try another translator "
            f"(cfi.translators() lists them), or a toolset of the model's own framework.",
            certificate,
        )
    return replace(prepared, translation=replace(translation, certificate=certificate))


def _sides(call: Call, prepared: Prepared, carried: Carried) -> tuple[Side, Side] | None:
    """Both models, up to where the method explains them; None if that is not the same place."""
    adapter, translation = call.original.adapter, prepared.translation
    assert translation is not None
    head = at_head(call, adapter, adapter.twin(call.original.model), call.inputs.passed)
    if head.explained != carried.explained:
        return None
    model = carried.request.model
    return Side(adapter, head.model), Side(prepared.adapter, model, translation.input_axes, translation.output_axes)


def _confirm(call: Call, sides: tuple[Side, Side], passes: Passes, earlier: Certificate) -> Certificate:
    method, count = call.plan.method, len(call.output_arrays)
    rules = Need.MODULES in method.needs  # of its own, which stand in for the gradient
    # A method that changes weights while it runs gets from its passes what the model alone does not give.
    kept = [] if method.alters_model else passes.kept()
    excerpts = list(_excerpts(sides[1], kept, count, with_gradients=not rules))
    certificate = earlier
    if excerpts:
        compared = sum(len(one.inputs[0]) for one in excerpts)
        label = f"{compared} of the {passes.samples} samples that the run fed to it"
        certificate = _measure(call, excerpts, lambda given: confirm(*sides, given, label, earlier, call.seed), earlier)
    elif not method.alters_model:
        certificate = replace(earlier, notes=(*earlier.notes, "the run not compared (nothing of it could be recorded)"))
    if rules and certificate.faithful:
        arrays = excerpts[0].inputs if excerpts else (*call.inputs.arrays, *call.inputs.held_arrays)
        fed = [Excerpt([array[:MOST_WITH_GRADIENTS] for array in arrays], ())]
        label, former = "samples of the run, apart from it", certificate
        certificate = _measure(
            call, fed, lambda given: certify_at(*sides, given[0].inputs, label, former, call.seed), former
        )
    return certificate


def _measure(
    call: Call, excerpts: list[Excerpt], measure: Callable[[list[Excerpt]], Certificate], earlier: Certificate
) -> Certificate:
    """On the samples; on as many at once as the user gave, if the user's model takes no other number."""
    reason = ""
    for given in (excerpts, [one.resize(call.inputs.samples) for one in excerpts]):
        try:
            return measure(given)
        except FOREIGN as error:
            reason = told(error)
    return replace(
        earlier, notes=(*earlier.notes, f"the run not compared (your model does not take its samples: {reason})")
    )


def _excerpts(side: Side, kept: Sequence[Pass], outputs: int, *, with_gradients: bool) -> Iterator[Excerpt]:
    """Samples of passes of the same kind together, in the user's axes."""

    def kind(one: Pass) -> tuple[bool, str, str]:
        taken = with_gradients and bool(one.cotangents) and bool(one.gradients)
        shapes = [array.shape[1:] for array in (*one.inputs, *one.outputs.values())]
        return (
            not taken,
            repr((sorted(one.gradients), sorted(one.cotangents)) if taken else ""),
            repr((shapes, [*one.outputs])),
        )

    for (without, *_), several in groupby(sorted(kept, key=kind), key=kind):
        passes = list(several)
        most = max(1, (MOST_SAMPLES if without else MOST_WITH_GRADIENTS) // len(passes))

        def rows(
            arrays: list[dict[int, np.ndarray]], count: int, axes: Sequence[Permutation], most: int = most
        ) -> list[Any]:
            """Of every position, some rows of each of the passes."""
            found = []
            for position in range(count):
                parts = [_some(one[position], most) for one in arrays if position in one]
                found.append(unpermute(np.concatenate(parts), permutation_at(axes, position)) if parts else None)
            return found

        width = len(passes[0].inputs)
        inputs = rows([dict(enumerate(one.inputs)) for one in passes], width, side.input_axes)
        given = rows([one.outputs for one in passes], outputs, side.output_axes)
        if without:
            yield Excerpt(inputs, given)
            continue
        cotangents = rows([one.cotangents for one in passes], outputs, side.output_axes)
        yield Excerpt(inputs, given, cotangents, rows([one.gradients for one in passes], width, side.input_axes))


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    """Some rows, the last one among them."""
    return rows[np.unique(np.linspace(len(rows) - 1, 0, most).astype(int))]
