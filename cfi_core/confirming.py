"""Step 7 of a call, its end: compare what the run fed to a converted model, and got from it, with the user's model.

A conversion that is right on some samples may be wrong where the method goes: in larger batches, at baselines, beyond
the data, after many passes. So some samples of the passes of the run itself are compared. What runs natively or over a
bridge is the user's model itself, and is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cfi_core.certificate import Certificate, certify_at, confirm
from cfi_core.distance import Excerpt, Opened, Pair, Side, is_floating
from cfi_core.errors import FOREIGN, UnfaithfulTranslationError, summary
from cfi_core.framework import Pass, Passes
from cfi_core.framework.axes import Permutation, permutation_at, unpermute
from cfi_core.progress import phase
from cfi_core.records import Call, Carried, Prepared, Run
from cfi_core.reference import reference_of
from cfi_core.specs import Need

MOST_SAMPLES, MOST_WITH_GRADIENTS = 32, 8  # that are compared


@phase("comparing the run with your model")
def confirm_run(call: Call, prepared: Prepared, carried: Carried, run: Run) -> Prepared:
    """The same, with a certificate that covers the run.

    Raises:
        UnfaithfulTranslationError: In the run, the converted model gave something else than the user's.
    """
    certificate = prepared.certificate
    if certificate is not None and not call.in_full:
        certificate = replace(certificate, notes=(*certificate.notes, "the run not compared: others of its kind were"))
        return _with_certificate(prepared, certificate)
    if certificate is None or run.passes is None:
        return prepared
    sides = _sides(call, prepared, carried)
    if sides is None:
        note = "the run not compared (the softmax that was left out of the converted model was not found in yours)"
        certificate = replace(certificate, notes=(*certificate.notes, note))
    else:
        certificate = _confirm(call, sides, run.passes, prepared, certificate)
    if not certificate.faithful:
        names, method = _makers(prepared), call.plan.method
        raise UnfaithfulTranslationError(
            f"While {method.key} ran, the model made by {names} gave something else than yours does for the same "
            f"samples: {'; '.join(certificate.faults)}. The result is thrown away. Try another translator "
            f"(cfi.translators() lists them), or a toolset of the model's own framework.",
            certificate,
        )
    return _with_certificate(prepared, certificate)


def lacks_evidence(call: Call, prepared: Prepared) -> bool:
    """Whether a bridge that was to hand on a pass of the model's own made others in the run, without evidence."""
    recorded, translation = call.recorded, prepared.translation
    return bool(recorded and translation and translation.once and (recorded.missed or not recorded.taken))


def _with_certificate(prepared: Prepared, certificate: Certificate) -> Prepared:
    if prepared.repair:
        return replace(prepared, repair=replace(prepared.repair, certificate=certificate))
    assert prepared.translation is not None
    return replace(prepared, translation=replace(prepared.translation, certificate=certificate))


def _makers(prepared: Prepared) -> str:
    """What made the model that ran, in words."""
    names = prepared.translation.route.names if prepared.translation else ()
    return ", ".join([*names, *(["rewriting it for the method's rules"] if prepared.repair else [])])


def _sides(call: Call, prepared: Prepared, carried: Carried) -> tuple[Side, Side] | None:
    """Both models, up to where the method explains the converted one; None if that place is not found in the user's."""
    translation, model = prepared.translation, carried.request.model
    reference = reference_of(call, cut=carried.cut, counts=True)
    if reference is None:
        return None
    original = Side(call.original.adapter, reference.model, compiled=reference.compiled)
    axes = (translation.input_axes, translation.output_axes) if translation else ()
    return original, Side(prepared.adapter, model, *axes)


def _confirm(
    call: Call, sides: tuple[Side, Side], passes: Passes, prepared: Prepared, earlier: Certificate
) -> Certificate:
    method, count = call.plan.method, len(call.output_arrays)
    rules = Need.MODULES in method.needs  # of its own, which stand in for the gradient
    # A method that changes weights while it runs gets from its passes what the model alone does not give.
    kept = [] if method.alters_model else passes.records()
    found = [(name, prepared.layer_name(name)) for name in call.plan.layers]
    layers = [(name, prepared.layer_axes(user)) for user, name in found if name is not None]
    excerpts = [
        _excerpt(
            Pair(_open(sides, group[0], call.plan.layers, layers), by_sample=call.purity.by_sample),
            group,
            count,
            with_gradients=not rules,
        )
        for group in _alike(kept, with_gradients=not rules)
    ]
    certificate = earlier
    compared = sum(len(one.inputs[0]) for one in excerpts)
    label = f"{compared} of the {passes.samples} samples that the run fed to it"
    for excerpt in excerpts:
        certificate = _measure(call, excerpt, lambda one, known: confirm(one, label, known, call.seed), certificate)
    if not excerpts and not method.alters_model:
        certificate = replace(earlier, notes=(*earlier.notes, "the run not compared (nothing of it could be recorded)"))
    if rules and certificate.faithful:
        arrays = excerpts[0].inputs if excerpts else (*call.inputs.arrays, *call.inputs.held_arrays)
        fed = Excerpt(Pair(sides), [array[:MOST_WITH_GRADIENTS] for array in arrays], ())
        apart = "samples of the run (compared apart from the method's rules)"
        certificate = _measure(
            call, fed, lambda one, known: certify_at(*sides, one.inputs, apart, known, call.seed), certificate
        )
    return certificate


def _measure(
    call: Call, excerpt: Excerpt, measure: Callable[[Excerpt, Certificate], Certificate], known: Certificate
) -> Certificate:
    """On the samples; in portions of as many as the user gave, if the user's model takes no other number."""
    reason, size = "", call.inputs.samples
    count = -(-len(excerpt.inputs[0]) // size) * size
    for portions in ([excerpt], [excerpt.resize(count).take(range(at, at + size)) for at in range(0, count, size)]):
        certificate = known
        try:
            for one in portions:
                certificate = measure(one, certificate)
            return certificate
        except FOREIGN as error:
            reason = summary(error)
    note = f"the run not compared (your model does not take its samples: {reason})"
    return replace(known, notes=(*known.notes, note))


def _alike(kept: Sequence[Pass], *, with_gradients: bool) -> list[list[Pass]]:
    """Passes of the same kind together: the same arrays of the same shapes."""
    groups: dict[str, list[Pass]] = {}
    for one in kept:
        given = [(*enumerate(one.inputs),), one.outputs.items(), one.activations.items()]
        back = [one.cotangents.items(), _gradients(one).items()] if with_gradients and _gradients(one) else []
        kind = [[(position, array.shape[1:]) for position, array in arrays] for arrays in (*given, *back)]
        groups.setdefault(repr(kind), []).append(one)
    return [*groups.values()]


def _gradients(one: Pass) -> dict[int, np.ndarray]:
    """At what took the place of activations, or else at the inputs; none without what they were taken with."""
    return (one.at_layers if one.activations else one.gradients) if one.cotangents else {}


def _open(
    sides: tuple[Side, Side], one: Pass, names: Sequence[str], layers: Sequence[tuple[str, Permutation]]
) -> tuple[Side, Side]:
    """Both models, opened at the layers whose activations were replaced in a pass."""
    if not one.activations:
        return sides
    places, inputs = sorted(one.activations), len(one.inputs)
    original, translated = sides
    own = tuple(permutation_at(translated.input_axes, i) for i in range(inputs))
    axes = tuple(layers[place][1] for place in places)
    at = (tuple(names[place] for place in places), tuple(layers[place][0] for place in places))
    return (
        Opened(original.adapter, original.model, (), original.output_axes, layers=at[0], inputs=inputs),
        Opened(
            translated.adapter,
            translated.model,
            (*own, *axes),
            translated.output_axes,
            layers=at[1],
            inputs=inputs,
        ),
    )


def _excerpt(pair: Pair, passes: Sequence[Pass], count: int, *, with_gradients: bool) -> Excerpt:
    """Some samples of passes of the same kind, in the user's axes; of models with so many outputs."""
    side, one = pair.models[1], passes[0]
    taken = sorted(_gradients(one)) if with_gradients else []
    places = _choose(passes, MOST_WITH_GRADIENTS if taken else MOST_SAMPLES)

    def rows(
        arrays: Callable[[Pass], Mapping[int, np.ndarray]], axes: Mapping[int, Permutation]
    ) -> dict[int, np.ndarray]:
        """Of every position, rows of each of the passes."""
        return {
            i: unpermute(np.concatenate([arrays(each)[i][at] for each, at in places]), axes.get(i))
            for i in sorted(arrays(one))
        }

    width, of_outputs = len(one.inputs), dict(enumerate(side.output_axes))
    of_inputs = dict(enumerate(side.input_axes[:width]))
    of_layers = dict(zip(sorted(one.activations), side.input_axes[width:], strict=False))
    inputs = [*rows(lambda each: dict(enumerate(each.inputs)), of_inputs).values()]
    replaced = rows(lambda each: each.activations, of_layers)
    outputs = rows(lambda each: each.outputs, of_outputs)
    arrays = [*inputs, *replaced.values()]
    if not taken:
        return Excerpt(replace(pair, asked=(*outputs,)), arrays, [*outputs.values()])
    back = rows(_gradients, of_layers if replaced else of_inputs)
    cotangents = rows(lambda each: each.cotangents, of_outputs)
    positions = [*replaced] or range(len(inputs))
    found = [i for i, array in zip(positions, arrays[side.first :], strict=True) if is_floating(array)]
    pair = replace(pair, asked=(*outputs,), taken=tuple(found.index(i) for i in taken))
    return Excerpt(pair, arrays, [*outputs.values()], [*map(cotangents.get, range(count))], [*back.values()])


def _choose(passes: Sequence[Pass], most: int) -> list[tuple[Pass, np.ndarray]]:
    """Which rows of which passes: several of those in front (the first, the largest, the last), one of each other."""
    front = most // 8 + 1
    counts = [min(front if place < 3 else 1, len(one.rows)) for place, one in enumerate(passes[:most])]
    while sum(counts) > most:
        counts.pop()
    while sum(counts) < most and any(count < len(one.rows) for count, one in zip(counts, passes, strict=False)):
        spare = (place for place, count in enumerate(counts) if count < len(passes[place].rows))
        counts[min(spare, key=counts.__getitem__)] += 1
    rows = ((count, len(passes[place].rows), place) for place, count in enumerate(counts))
    chosen = (np.arange(count) if count > 1 or place < 3 else np.array([place % size]) for count, size, place in rows)
    return list(zip(passes, chosen, strict=False))
