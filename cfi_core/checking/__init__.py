"""Step 4 of a call: everything that can be known to be wrong before anything expensive runs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np

from cfi_core.adapters import as_arrays, framework_of_tensor, is_array
from cfi_core.attribution import Outlets
from cfi_core.batches import first_rows, take_rows
from cfi_core.checking.baselines import tell_zero_baseline
from cfi_core.checking.embedding import embed, layer_of_embedding, means_embeddings, needs_embedding
from cfi_core.checking.ends import end_at_target
from cfi_core.checking.inputs import (
    check_baselines,
    check_like_inputs,
    check_repeated,
    check_straight,
    check_window,
    example_inputs,
    read_inputs,
    run_as_it_is,
)
from cfi_core.checking.layers import describe_mistaken, is_auto, look_at_layers
from cfi_core.checking.purity import Examination
from cfi_core.checking.recording import Recording, may_serve
from cfi_core.checking.targets import position_of, resolve_neuron, resolve_target
from cfi_core.columns import check_columns, other_cells, turn_table
from cfi_core.errors import ArgumentError, InputError, LayerError, ModelWarning, PlotError, brief, summary, warn
from cfi_core.features import name_features
from cfi_core.holding import tell_places
from cfi_core.naming import turn_named
from cfi_core.process import first_pass
from cfi_core.progress import phase
from cfi_core.records import Arguments, Call, Choice, Features, Inputs, Original, PendingLayer, Plan
from cfi_core.registry import Registry
from cfi_core.specs import UNIFORM_ARGUMENTS, Head, Kind, MethodSpec, Need, Role
from cfi_core.strings import turn_strings
from cfi_core.tokens import as_inputs, place_baselines
from cfi_core.views import name_model

_HINTS = {
    "inputs": "with the samples to explain, sample axis first",
    "target": "with the class index, one per sample, a tuple into the output or a callable",
    "neuron": "with the index of one unit of the layer's output, in your model's axis order",
    "baselines": "with reference inputs, in your model's axis order",
}


def check_names(registry: Registry, arguments: Arguments, original: Original, choice: Choice) -> Plan:
    """Checks what names tell, without running the model.

    Raises:
        ArgumentError: An argument is unknown, given twice, missing, or has no meaning here.
        LayerError: A layer is not part of the model.
        PlotError: A picture could not be written.
    """
    if isinstance(arguments.plot, str | Path):
        path = Path(arguments.plot)
        Outlets(registry.plotters, registry.writers).writer_for(path)
        _check_place(path)
    method = choice.method
    arguments = turn_strings(turn_table(arguments, method, original.table), original)
    arguments = turn_named(arguments, method, original.names)
    arguments = _with_sample_axes(registry, arguments, original, method)
    arguments, embeddings = _take_embeddings(arguments, original, method)
    called = name_model(arguments.model, original.model)
    arguments = replace(sort_arguments(arguments, method), model=original.model, called=called)
    for name in method.native_only:
        if arguments.own.get(name) and not choice.routes[0].native:
            raise ArgumentError(
                f"{name!r} asks for a place in the translated model that cannot be compared with yours (only the "
                f"outputs of layers can). Leave it out and name the layer before it instead."
            )
    seeks_layer = is_auto(original, arguments.layer)
    layers = () if seeks_layer else _layer_names(original, arguments.layer)
    # Unless the user wishes, the raw method is explained where its paper does, and the toolset's at the output.
    head = Head.OUTPUT if arguments.defaults == "toolset" else method.head
    return Plan(
        **vars(choice),
        framework=original.framework,
        head=head if arguments.head is None else Head(arguments.head),
        layers=layers,
        needs_layer="layer" in method.required and not layers and not embeddings and not seeks_layer,
        arguments=arguments,
        embeddings=embeddings,
        seeks_layer=seeks_layer,
    )


def _take_embeddings(arguments: Arguments, original: Original, method: MethodSpec) -> tuple[Arguments, bool]:
    """Without the layer, where that stands for the output of the embedding; and whether it does."""
    words = [name for name, role in method.roles.items() if role is Role.LAYER]
    own = {where: dict(getattr(arguments, where) or {}) for where in ("init_args", "exec_args")}
    given = [arguments.layer, *(own[where].get(name) for where in own for name in (*words, "layer"))]
    if not any(means_embeddings(original, layer) for layer in given):
        return arguments, False
    if sum(layer is not None for layer in given) > 1:
        raise ArgumentError("The layer is given twice. Keep one of them.")
    for where in own.values():
        for name in (*words, "layer"):
            where.pop(name, None)
    return replace(arguments, layer=None, init_args=own["init_args"], exec_args=own["exec_args"]), True


def _check_place(path: Path) -> None:
    name, folder = brief(path.name), brief(str(path.parent))
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # too long a name, for one
        raise PlotError(f"{name!r} is no path to write to ({summary(error)}). Choose another name.") from error
    if not path.parent.is_dir():
        raise PlotError(f"There is no folder {folder!r} to write {name!r} into. Make it first.")


def check_what_is_missing(registry: Registry, plan: Plan, original: Original) -> None:
    """Finds what names do not tell to be missing; where no target is given, by one run of the model.

    Raises:
        TargetError: No target is given, and the model gives several values for each sample.
        InputError: No inputs are given, and the model does not declare their shape; or they do not fit the model.
    """
    if plan.arguments.inputs is None:
        _make_example(registry, plan, original)
        return
    if not plan.explains_target or plan.arguments.target is not None:
        return
    begun = _read(registry, plan, original)
    outputs = first_pass(registry, lambda: run_as_it_is(begun.original, begun.inputs))
    resolve_target(registry, begun.original, None, outputs, begun.inputs.samples)


@phase("running your model once")
def check(
    registry: Registry, arguments: Arguments, original: Original, choice: Choice, *, records: bool = False
) -> Call:
    """Checks what names tell, and what can be known from the user's model alone, by one forward pass.

    Args:
        registry: Of plugins.
        arguments: The call's.
        original: The model.
        choice: Method and routes.
        records: Whether the run may use the forward pass, if the method needs no other.

    Raises:
        ArgumentError: As `check_names` tells; or inputs, target, neuron, baselines or masks do not fit the model.

    Warns:
        BaselineWarning: Baselines of 0 are taken because none are given; once for each method.
        ModelWarning: The model is in training mode, or no function of each sample (see `cfi_core.checking.purity`).
    """
    plan = check_names(registry, arguments, original, choice)
    _warn_of_training(original)
    read = _read if plan.arguments.inputs is not None else _make_example
    begun = read(registry, plan, original)
    tell_zero_baseline(registry, begun.plan, begun.original)
    plan, original, inputs, arguments = begun.plan, begun.original, begun.inputs, begun.plan.arguments
    with Examination(original, inputs) as examination:
        recording = Recording(original.adapter) if records and may_serve(plan, original, inputs) else None
        given = first_pass(
            registry,
            lambda: run_as_it_is(
                original,
                inputs,
                native=plan.route.native,
                twin=examination.twin,
                batch_size=arguments.batch_size,
                run=recording,
            ),
        )
        recorded = recording.made if recording else None
        examination.recorded = recorded is not None
        check_repeated(original, inputs, given, examination.twin)
        found = (
            resolve_target(registry, original, arguments.target, given, inputs.samples)
            if plan.explains_target
            else None
        )
        ended = end_at_target(plan, original, inputs, given, found)
        _check_layers_lead(plan, ended.original)
        check_like(registry, plan, inputs)
        others = _layer_names(original, list(filter(None, arguments.of_role(Role.OTHER_LAYER, plan.method))))
        at_layers = _at_layers(plan, original, inputs)
        purity = examination.judge(ended.examined, ended.end, by_sample=ended.by_sample)
        call = Call(
            plan=plan,
            original=ended.original,
            inputs=inputs,
            outputs=ended.outputs,
            target=ended.target,
            named=None if found is None else (*found.path, found.target),
            words=found.words if found else "",
            output=position_of(ended.target, ended.outputs),
            **at_layers,
            mentioned=tuple(dict.fromkeys((*_layers_in(arguments.own, registry, original), *others))),
            seed=draw_seed() if arguments.seed is None else arguments.seed,
            seconds=perf_counter() - arguments.started,
            purity=purity,
            fingerprint=examination.fingerprint,
            features=begun.features,
            kept=begun.kept,
            recorded=recorded if purity.by_sample and ended.original is original else None,
        )
        first_pass(registry, lambda: tell_places(registry, call))
        if not plan.layers and not plan.seeks_layer and arguments.reshape is None:
            return call
        return first_pass(registry, lambda: look_at_layers(call))


def _check_layers_lead(plan: Plan, ended: Original) -> None:
    """Refuses layers that are no part of what leads to the output that the target picks."""
    for name in plan.layers:
        if ended.adapter.layer_name(ended.model, name) is None:
            raise LayerError(
                f"Layer {name!r} does not lead to the score that is explained: no path goes from it to the output that "
                f"the target names. Choose a layer in front of that output, or another target."
            )


@dataclass(frozen=True, eq=False)
class _Begun:
    """A call whose inputs are read, before the model has run on them."""

    plan: Plan
    original: Original
    inputs: Inputs
    features: tuple[Features, ...]
    kept: tuple[np.ndarray | None, ...] = ()


def _read(registry: Registry, plan: Plan, original: Original) -> _Begun:
    """With the inputs that are given, baselines of tokens in their places, and from the embedding on where need be."""
    arguments = plan.arguments
    behind = [value for value in arguments.of_role(Role.HELD, plan.method) if value is not None]
    held = tuple(part for value in behind for part in (value if type(value) is tuple else (value,)))
    check_columns(original, arguments.inputs, "inputs")
    check_columns(original, arguments.baselines, "baselines")
    inputs = replace(
        read_inputs(registry, original, arguments.inputs, held),
        other=other_cells(original.table, arguments.baselines),
    )
    features = name_features(original, arguments.inputs, arguments.feature_names, inputs.arrays)
    plan, kept = place_baselines(registry, plan, original, inputs)
    _try_baselines(plan, original, inputs)
    if needs_embedding(plan, inputs):
        plan, original, inputs = embed(registry, plan, original, inputs)
    elif plan.embeddings:
        plan = replace(plan, layers=(layer_of_embedding(original, inputs),))
    fits = [array.shape[:1] == (inputs.samples,) for array in inputs.held_arrays]
    if not plan.route.native and (len(fits) < len(inputs.held) or not all(fits)):
        raise InputError(
            f"A translated model takes tensors of {inputs.samples} samples as yours does; further arguments of its "
            f"forward pass that are others cannot be held there ({plan.route}). Make them part of the model."
        )
    return _Begun(plan, original, inputs, features, kept)


def _make_example(registry: Registry, plan: Plan, original: Original) -> _Begun:
    """With inputs that are made up, for as many samples as there are targets."""
    target = plan.arguments.target
    inputs = example_inputs(original, len(target) if isinstance(target, list) else 1)
    return _Begun(plan, original, inputs, name_features(original, None, plan.arguments.feature_names, inputs.arrays))


def _try_baselines(plan: Plan, original: Original, inputs: Inputs) -> None:
    """Whether the model takes the tokens of the baselines, where it does not say how many it knows."""
    if (trial := as_inputs(plan, original, inputs)) is None:
        return
    try:
        run_as_it_is(original, trial)
    except InputError as error:
        raise InputError(f"The baselines are no tokens of the model: {error}") from error


def draw_seed() -> int:
    """For a call that is given none."""
    return secrets.randbits(31)


def _warn_of_training(original: Original) -> None:
    adapter, model = original.adapter, original.model
    if not adapter.in_training_mode(model):
        return
    if adapter.in_training_mode(adapter.twin(model)):
        message = (
            "Part of the model stays in training mode whatever it is told (a module may have a train() of its own)."
        )
    else:
        message = (
            "The model is in training mode. It is explained in inference mode (dropout off, fixed batch norm "
            "statistics); your model stays in training mode."
        )
    warn(message, ModelWarning)


def check_layer(pending: PendingLayer, layer: Any) -> Call:
    """The call that was waiting for a layer, with the layer (see `cfi_core.finish_execution_with_layer` for errors)."""
    call, original = pending.call, pending.call.original
    embeddings = means_embeddings(original, layer)
    names = (layer_of_embedding(original, call.inputs),) if embeddings else _layer_names(original, layer)
    if not names:
        raise LayerError(f"Pass a layer: one of {', '.join(entry.name for entry in pending.layers)}. {pending.advice}")
    if original.adapter.fingerprint((call.users or original).model) != pending.fingerprint:
        raise ArgumentError("The model has changed since the call was prepared. Call cfi.attribute again, with layer=.")
    plan = replace(call.plan, layers=names, needs_layer=False, embeddings=embeddings)
    return look_at_layers(replace(call, plan=plan, **_at_layers(plan, original, call.inputs)))


def sort_arguments(arguments: Arguments, method: MethodSpec) -> Arguments:
    """Checks the arguments by name, and lifts own words into the uniform ones that they mean.

    Returns:
        The arguments with `inputs`, `target`, `layer`, `neuron` and `baselines` in their uniform places, and with
        only such own arguments left as have no uniform meaning, completed by the chosen set of the method's defaults.

    Raises:
        ArgumentError: An argument is unknown, given twice, required and missing, or has no meaning here.
    """
    lifted: dict[str, Any] = {name: getattr(arguments, name) for name in UNIFORM_ARGUMENTS}
    origin = {name: name for name, value in lifted.items() if value is not None}
    init_args = _lift("init_args", arguments, method, lifted, origin)
    exec_args = _lift("exec_args", arguments, method, lifted, origin)
    one_alone = (lifted["layer"] is None) != (lifted["neuron"] is None)
    if method.kind is Kind.FEATURE_VISUALIZATION and one_alone:
        raise ArgumentError("A layer is visualised by one of its channels or units: pass both layer= and neuron=.")
    who, understood = f"{method.key} of {method.toolset}", (*method.required, *method.optional)
    if lifted["target"] is not None and arguments.of_role(Role.OWN_TARGET, method):
        given = f"as {origin['target']!r} and in the toolset's own words"
        raise ArgumentError(f"{who} got its target twice: {given}. Keep one of them.")
    for name, given in origin.items():
        if name not in understood:
            hint = f"It understands {', '.join(understood)}; leave {given!r} out."
            raise ArgumentError(f"{who} takes no {given!r}. {hint}")
    for name in method.required:
        # A missing layer is no error: the call ends in a PendingLayer.
        if name != "layer" and lifted[name] is None:
            raise ArgumentError(f"{who} needs {name!r}: pass {name}= {_HINTS[name]}.")
    init_args, exec_args = method.complete(arguments.defaults, init_args, exec_args)
    _check_own(method, {**init_args, **exec_args})
    return replace(arguments, **lifted, init_args=init_args, exec_args=exec_args)


def _check_own(method: MethodSpec, own: Mapping[str, Any]) -> None:
    """Refuses a call without an argument of the toolset's own that it cannot do without."""
    for where in ("init_args", "exec_args"):
        missing = [name for name in method.own_required if name in getattr(method, where) and name not in own]
        if missing:
            example = ", ".join(f"{name!r}: {method.documentation.example.get(name, '…')}" for name in missing)
            raise ArgumentError(
                f"{method.key} of {method.toolset} needs {' and '.join(map(repr, missing))}: pass for example "
                f"{where}={{{example}}}. cfi.methods({method.key!r}) says what that means."
            )


def _lift(
    where: str, arguments: Arguments, method: MethodSpec, lifted: dict[str, Any], origin: dict[str, str]
) -> Mapping[str, Any]:
    """Moves those own words (of constructor or call) that have a uniform meaning to where they mean it."""
    names, rest = getattr(method, where), {}
    for name, value in (getattr(arguments, where) or {}).items():
        role = method.roles.get(name, "" if name in names else name)
        meaning = "inputs" if role is Role.ONE_OR_SEVERAL else str(role)
        if meaning not in UNIFORM_ARGUMENTS:
            if name not in names:
                near = ", ".join(get_close_matches(name, names, n=3))
                hint = f"Nearest: {near}" if near else f"{where} may hold: {', '.join(names) or 'nothing'}"
                if name in (*method.init_args, *method.exec_args):
                    hint = f"It belongs into {'init_args' if where == 'exec_args' else 'exec_args'}"
                raise ArgumentError(f"{method.key} of {method.toolset} takes no {where}[{name!r}]. {hint}.")
            rest[name] = value
        elif value is not None:
            if meaning in origin:
                raise ArgumentError(
                    f"{meaning!r} is given twice: as {origin[meaning]!r} and as {where}[{name!r}]. Keep one of them."
                )
            lifted[meaning], origin[meaning] = value, f"{where}[{name!r}]"
    return rest


def _layer_names(original: Original, layer: object) -> tuple[str, ...]:
    """Names of the layers of the model that the user referred to by object or name, one or a list of them."""
    if layer is None:
        return ()
    references = layer if isinstance(layer, list | tuple) else (layer,)
    return tuple(_layer_name(original, reference) for reference in references)


def _layer_name(original: Original, reference: object) -> str:
    adapter, model = original.adapter, original.model
    name = adapter.layer_name(model, reference)
    if name is not None:
        return name
    known = [layer.name for layer in adapter.layers(model)]
    some = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    if not isinstance(reference, str):
        raise LayerError(describe_mistaken(reference, adapter.layers(model)) + f" It has: {some}.")
    near = ", ".join(get_close_matches(reference, known, n=3, cutoff=0.4))
    hint = f"Nearest: {near}" if near else f"It has: {some}"
    raise LayerError(f"The model has no layer {brief(reference)!r}. {hint}. cfi.layers(model) lists all.")


def _with_sample_axes(registry: Registry, arguments: Arguments, original: Original, method: MethodSpec) -> Arguments:
    """With the sample axis of a single sample, in own words whose toolset knows by the model that it is missing."""
    shapes, words = original.adapter.input_shapes(original.model) or (), dict(arguments.exec_args or {})
    for name, value in words.items():
        several = method.roles.get(name) is Role.ONE_OR_SEVERAL and value is not None
        if several and len(parts := as_arrays(registry, value)) == len(shapes):
            arrays = [part if is_array(registry, part) else np.asarray(part) for part in parts]
            batch = [x[None] if len(x.shape) == len(shape) - 1 else x for x, shape in zip(arrays, shapes, strict=True)]
            words[name] = tuple(batch) if len(batch) > 1 else batch[0]
    return replace(arguments, exec_args=words)


def check_like(registry: Registry, plan: Plan, inputs: Inputs) -> None:
    """Checks baselines and own arguments that have to be like the inputs.

    Raises:
        InputError: They are not.
    """
    baselines, method = plan.arguments.baselines, plan.method
    if baselines is not None:
        check_baselines(registry, inputs, baselines)
    if Need.INPUT_GRADIENT in method.needs and "baselines" in (*method.required, *method.optional):
        check_straight(registry, inputs, baselines, method.key)
    for name, value in plan.arguments.own.items():
        match plan.method.roles.get(name):
            case Role.LIKE_INPUTS if value is not None:
                check_like_inputs(registry, inputs, value, name)
            case Role.WINDOW if value is not None:
                check_window(inputs, value, name)


def _at_layers(plan: Plan, original: Original, inputs: Inputs) -> dict[str, Any]:
    """Output shapes of the layers that are called once and give one tensor, and the neuron of such a layer, checked.

    At a layer that is called several times the toolset judges the neuron, and no translation has the layer.
    """
    shapes, neuron = {}, plan.arguments.neuron
    if plan.layers:
        adapter, samples = original.adapter, inputs.samples
        some = first_rows(samples, plan.arguments.batch_size)
        passed = take_rows(adapter, inputs.passed, samples, slice(some))
        activations = adapter.activations(adapter.twin(original.model), passed, plan.layers)
        shapes = {name: _of_samples(one.shape, some, samples) for name, one in activations.items()}
    if len(plan.layers) == 1 and plan.layers[0] in shapes:
        (layer,), channel_allowed = plan.layers, plan.method.kind is Kind.FEATURE_VISUALIZATION
        neuron = resolve_neuron(neuron, shapes[layer], channel_allowed=channel_allowed, layer=layer)
    return {"layer_shapes": MappingProxyType(shapes), "neuron": neuron}


def _of_samples(shape: tuple[int, ...], some: int, samples: int) -> tuple[int, ...]:
    """Of what a layer gives for all samples, by what it gives for some."""
    return shape if some == samples or not shape else (shape[0] * samples // some, *shape[1:])


def _layers_in(value: Any, registry: Registry, original: Original) -> Iterator[str]:
    if isinstance(value, list | tuple) or type(value) is dict:
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _layers_in(entry, registry, original)
    elif callable(value) and framework_of_tensor(registry, value) is None:
        name = original.adapter.layer_name(original.model, value)
        if name is not None:
            yield name
