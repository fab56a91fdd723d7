"""What is asked: one question to several implementations, methods, targets or models, as the cases that answer it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from cfi_core.adapters import as_array
from cfi_core.detection import load_original
from cfi_core.errors import ArgumentError, UnknownMethodError
from cfi_core.explainer import ATTRIBUTION_KINDS
from cfi_core.finding import find_methods
from cfi_core.framework.axes import Permutation, permute
from cfi_core.records import Arguments, Original
from cfi_core.registry import Registry
from cfi_core.specs import UNIFORM_ARGUMENTS, MethodSpec, Role

_OWN = ("init_args", "exec_args")


@dataclass(frozen=True, eq=False)
class Case:
    """One implementation, asked about one target of one model.

    Attributes:
        label: What tells it from the other cases.
        model: The user's model.
        model_name: What tells its model from the others; empty where there is one.
        target_name: What tells its target from the others; empty where there is one.
        method: What runs.
        arguments: Of `cfi.attribute`, besides the model, method and toolset.
    """

    label: str
    model: Any
    model_name: str
    target_name: str
    method: MethodSpec
    arguments: Mapping[str, Any]

    @property
    def call(self) -> dict[str, Any]:
        """All arguments of `cfi.attribute`."""
        return {
            "model": self.model,
            "method_key": self.method.key,
            "toolset": self.method.toolset,
            **self.arguments,
        }

    @property
    def own(self) -> dict[str, Any]:
        """The arguments that the user gave in the toolset's words."""
        return {**(self.arguments["init_args"] or {}), **(self.arguments["exec_args"] or {})}

    def place_of(self, name: str) -> str:
        """Where an own argument belongs."""
        return "init_args" if name in self.method.init_args else "exec_args"

    def changed(self, settings: Mapping[str, Any]) -> Case:
        """With other values of own arguments, or of arguments of the call."""
        arguments = dict(self.arguments)
        for name, value in settings.items():
            if name in self.arguments:
                arguments[name] = value
            else:
                place = self.place_of(name)
                arguments[place] = {**(arguments[place] or {}), name: value}
        return replace(self, arguments=arguments)


@dataclass(frozen=True, eq=False)
class Question:
    """The cases, and what was told or refused on the way to them."""

    cases: tuple[Case, ...]
    notes: tuple[str, ...]


def ask(
    registry: Registry, model: Any, methods: Any, toolsets: str | Sequence[str] | None, arguments: Mapping[str, Any]
) -> Question:
    """Expands a question into its cases (see `cfi_core.compare`).

    Raises:
        ArgumentError: Nothing is compared, or an argument is understood by none.
        UnknownMethodError: No installed toolset offers a method.
    """
    models, notes = _name_models(model), list[str]()
    found = list(_find(registry, _name_methods(methods, toolsets), arguments, notes))
    _refuse_unused(arguments, [spec for _, spec, _ in found])
    is_own = _is_by_models(arguments["target"], models)
    targets = [("", None)] if is_own else _name_targets(arguments["target"], arguments["inputs"])
    own_models = list(_for_each_model(registry, models, arguments, notes))
    several = (len(models) > 1, len({name for name, *_ in found}) > 1, len(targets) > 1)
    cases = []
    for (name, one, common), (of_method, spec, own), (of_target, target) in product(own_models, found, targets):
        label = "/".join(part for part, counts in zip((name, of_method, of_target), several, strict=True) if counts)
        given = _understood(spec, {**common, **({} if is_own else {"target": target}), **own}, notes)
        cases.append(Case(label or of_method, one, name * several[0], of_target * several[2], spec, given))
    if len(cases) < 2:
        only = f"{found[0][1].toolset} alone offers it here" if found else "nothing was asked"
        raise ArgumentError(
            f"There is nothing to compare {found[0][0]!r} with: {only}. Name several methods, toolsets, models, "
            "or a dict of targets; cfi.methods() lists what there is."
        )
    return Question(tuple(cases), tuple(dict.fromkeys(notes)))


# models


def _name_models(model: Any) -> dict[str, Any]:
    if isinstance(model, Mapping):
        return {str(name): one for name, one in model.items()}
    if not isinstance(model, list | tuple):
        return {"": model}
    return dict(zip(_number([type(one).__name__ for one in model]), model, strict=True))


def _number(names: Sequence[str]) -> list[str]:
    """The names, those that are there several times with a number behind."""
    return [name if names.count(name) == 1 else f"{name} {names[:i].count(name) + 1}" for i, name in enumerate(names)]


def _for_each_model(
    registry: Registry, models: Mapping[str, Any], arguments: Mapping[str, Any], notes: list[str]
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each model with the arguments for it: its own where they are given by the models' names, in its own axes."""
    first: Original | None = None
    for name, model in models.items():
        given = {key: value[name] if _is_by_models(value, models) else value for key, value in arguments.items()}
        shared = given["inputs"] is arguments["inputs"] and len(models) > 1
        original = load_original(registry, model, given["inputs"]) if shared else None
        first = first or original
        order = _order(first, original, given["inputs"]) if first and original else None
        if order is not None:
            given = _turn(registry, given, order, name)
            notes.append(f"inputs of {name} are those of {next(iter(models))} with the axes in the order {order}")
        yield name, model, given


def _is_by_models(value: Any, models: Mapping[str, Any]) -> bool:
    """Whether it is a dict with an entry for each of several models."""
    return isinstance(value, Mapping) and len(models) > 1 and set(map(str, value)) == set(models)


def _order(first: Original, other: Original, inputs: Any) -> Permutation:
    """How the axes of the first model's input stand in the other's."""
    shape = getattr(inputs, "shape", None)
    if shape is None:
        return None
    known, wanted = (one.adapter.dims(one.model, tuple(shape)) for one in (first, other))
    return None if known == wanted or set(known) != set(wanted) else tuple(known.index(name) for name in wanted)


def _turn(registry: Registry, given: Mapping[str, Any], order: tuple[int, ...], name: str) -> dict[str, Any]:
    """Inputs and baselines in another order of axes; what has axes in a toolset's own words must be given by models."""
    if isinstance(given["neuron"], tuple) or any(given[place] for place in _OWN):
        raise ArgumentError(
            f"The inputs of {name!r} have their axes in another order than those of the first model, and neuron=, "
            f"init_args= and exec_args= may speak of axes: give these as a dict by the names of the models."
        )

    def turned(value: Any) -> Any:
        shape = getattr(value, "shape", ())
        return permute(as_array(registry, value, "inputs"), order) if len(shape) == len(order) else value

    return {**given, "inputs": turned(given["inputs"]), "baselines": turned(given["baselines"])}


# methods


def _name_methods(methods: Any, toolsets: Any) -> list[tuple[str, dict[str, Any]]]:
    """What was asked of each method: a name of the user's or nothing, and the arguments of `cfi.attribute`."""
    if isinstance(methods, Mapping):
        entries = [(str(name), one) for name, one in methods.items()]
    else:
        entries = [("", one) for one in (methods if isinstance(methods, list | tuple) else [methods])]
    asked = []
    for name, one in entries:
        if not isinstance(one, str | Mapping) or (isinstance(one, Mapping) and "method_key" not in one):
            raise ArgumentError(
                f"A method is a key, or a dict of arguments of cfi.attribute with 'method_key' among them, not {one!r}."
            )
        arguments = {"method_key": one} if isinstance(one, str) else dict(one)
        chosen = arguments.pop("toolset", toolsets)
        for toolset in chosen if isinstance(chosen, list | tuple) else [chosen]:
            asked.append((name, {**arguments, "toolset": toolset}))
    return asked


def _find(
    registry: Registry, asked: Sequence[tuple[str, dict[str, Any]]], arguments: Mapping[str, Any], notes: list[str]
) -> Iterator[tuple[str, MethodSpec, dict[str, Any]]]:
    """The methods with a name for each, and what was asked of it alone."""
    found: list[tuple[str, MethodSpec, dict[str, Any]]] = []
    errors = []
    for name, own in asked:
        key, toolset = own.pop("method_key"), own.pop("toolset")
        if unknown := [word for word in own if word not in arguments]:
            raise ArgumentError(f"{key!r} got {unknown[0]!r}, which cfi.compare does not take: {', '.join(arguments)}.")
        common = {word: arguments[word] for word in (*_OWN, "defaults")} | own
        try:
            specs = find_methods(registry, Arguments(None, key, toolset, **common), ATTRIBUTION_KINDS)
        except UnknownMethodError as error:
            errors.append(error)
            continue
        found += [(name, spec, own) for spec in specs]
    if errors and (not found or len(asked) == len(errors) + 1):
        raise errors[0]
    notes += [str(error) for error in errors]
    labels = _number([_label(name, spec, found) for name, spec, _ in found])
    yield from ((label, spec, own) for label, (_, spec, own) in zip(labels, found, strict=True))


def _label(name: str, spec: MethodSpec, found: Sequence[tuple[str, MethodSpec, Any]]) -> str:
    """What tells a method from the others: the user's name for it, or key and toolset as far as these differ."""
    if name:
        return name if sum(other == name for other, *_ in found) == 1 else f"{name}, {spec.toolset}"
    several = len({one.key for _, one, _ in found}) > 1, len({one.toolset for _, one, _ in found}) > 1
    return " by ".join([spec.key] * (several[0] or not several[1]) + [spec.toolset] * several[1])


def _understood(spec: MethodSpec, given: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The arguments that a method understands; the others are told."""
    arguments, understood = dict(given), {*spec.required, *spec.optional}
    for name in UNIFORM_ARGUMENTS:
        if arguments[name] is not None and name not in understood and name != "inputs":
            notes.append(f"{spec.key} of {spec.toolset} takes no {name}: it is run without")
            arguments[name] = None
    for place in _OWN:
        own = arguments[place] or {}
        known = {name: value for name, value in own.items() if name in getattr(spec, place) or name in understood}
        for name in own.keys() - known.keys():
            notes.append(f"{spec.key} of {spec.toolset} takes no {name!r} in {place}: it is run without")
        arguments[place] = known or None
    return arguments


def _refuse_unused(arguments: Mapping[str, Any], specs: Sequence[MethodSpec]) -> None:
    """An argument that no method understands is a mistake."""
    uniform = {name for spec in specs for name in (*spec.required, *spec.optional)}
    unused = [name for name in UNIFORM_ARGUMENTS[1:] if arguments[name] is not None and name not in uniform]
    for place in _OWN:
        known = {name for spec in specs for name in getattr(spec, place)} | uniform
        unused += [name for name in arguments[place] or {} if name not in known]
    if unused:
        raise ArgumentError(f"None of the methods that are compared takes {unused[0]!r}. Leave it out.")


# targets


def _name_targets(target: Any, inputs: Any) -> list[tuple[str, Any]]:
    """The targets: several in a dict, or in a list that has no entry for each sample."""
    if isinstance(target, Mapping):
        return [(str(name), one) for name, one in target.items()]
    if isinstance(target, list) and len(target) > 1 and len(target) != count_samples(inputs):
        return [(f"target {one}", one) for one in target]
    return [("", target)]


def count_samples(inputs: Any) -> int:
    """How many samples there are; 0 where it cannot be seen."""
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else [inputs]
    lengths = [len(one) for one in parts if hasattr(one, "__len__") and not isinstance(one, str)]
    return max(lengths, default=0)


def same(one: Any, other: Any) -> bool:
    """Whether two settings are the same, arrays included; yes and no are not 1 and 0."""
    if one is other or isinstance(one, bool) != isinstance(other, bool):
        return one is other
    try:
        found = one == other
        return bool(np.array_equal(one, other)) if hasattr(found, "shape") else bool(found)
    except Exception:  # noqa: BLE001 - whatever the user's own objects raise when they are compared
        return False


OWN_ROLES = (None, Role.WINDOW)
"""Roles of own arguments that are settings, not part of the question."""
