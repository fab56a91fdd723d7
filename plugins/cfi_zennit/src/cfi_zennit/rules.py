"""Which of Zennit's rules goes to which module: composites, and where they are put."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import nn
from zennit.composites import COMPOSITES, LayerMapComposite, MixedComposite, NameMapComposite
from zennit.core import Composite, Hook
from zennit.rules import Pass, ReLUBetaSmooth, ReLUDeconvNet, ReLUGuidedBackprop
from zennit.types import Activation, Linear

from cfi_core.errors import ArgumentError
from cfi_zennit.trace import Call, Trace

RECTIFIER_RULES = (ReLUDeconvNet, ReLUGuidedBackprop, ReLUBetaSmooth)
"""Rules of methods that change the gradient of rectifiers; all others carry relevance."""

_AVERAGE = nn.AvgPool2d(1)


@dataclass(frozen=True, eq=False)
class Place:
    """A module and the rule that it gets.

    Attributes:
        name: What the module is called in the user's model.
        module: The module.
        rule: Template of the rule; None where the composite has none for it.
    """

    name: str
    module: nn.Module
    rule: Hook | None


class Placed(Composite):
    """A composite whose rules are chosen already; Zennit's own walks through modules as they were defined."""

    def __init__(self, places: Sequence[Place]) -> None:
        super().__init__()
        self.places = places
        self.hooks: list[tuple[Place, Hook]] = []

    def register(self, module: nn.Module) -> None:
        """Puts a copy of each rule on its module."""
        self.remove()
        for place in self.places:
            if place.rule is not None:
                hook = place.rule.copy()
                self.hooks.append((place, hook))  # Zennit holds hooks weakly
                self.hook_refs.add(hook)
                self.handles.append(hook.register(place.module))

    def remove(self) -> None:
        """Takes all hooks off again."""
        super().remove()
        self.hooks.clear()


def composite_of(chosen: Any, settings: Mapping[str, Any], model: nn.Module, *, strict: bool = True) -> Composite:
    """The composite that is asked for.

    Args:
        chosen: A composite, its class, or one of the names in `zennit.composites.COMPOSITES`.
        settings: Arguments of the composite's constructor, and `name_map`, whose rules go before all others.
        model: The model whose modules are named.
        strict: Whether names must be those of modules.

    Raises:
        ArgumentError: There is no such composite, it takes no such arguments or needs others, or names of modules or
            rules are none.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    name_map = settings.pop("name_map", None)
    inner = chosen if isinstance(chosen, Composite) else _construct(chosen, settings)
    if isinstance(chosen, Composite) and settings:
        raise ArgumentError(
            f"{', '.join(settings)} cannot be set on a composite that is made already. Pass them to "
            f"{type(chosen).__name__}, or name the composite instead."
        )
    if name_map is not None:
        inner = MixedComposite([NameMapComposite(_named(name_map, model)), inner])
    if strict:
        _check_names(inner, model)
    return inner


def place(
    composite: Composite,
    seen: Trace,
    names: Mapping[nn.Module, str],
    modules: Iterable[nn.Module],
    reductions: Sequence[str] = (),
) -> Placed:
    """Chooses the rule of each module that runs, in the order in which they run.

    Modules are the first linear ones where nothing linear lies between them and the model's inputs, of several
    branches each. Attention counts as an activation in Zennit, which it is not: it gets a rule only by its own type.
    Upsampling gets the rule of average pooling where it has none.

    Args:
        composite: What chooses.
        seen: What one pass of the user's model showed.
        names: What the modules are called there; others get no rule.
        modules: All modules, with those that stand for repeated ones, or for sums and means.
        reductions: Names of the latter.
    """
    by_name: dict[str, list[nn.Module]] = {}
    for module in modules:
        if module in names:
            by_name.setdefault(names[module], []).append(module)
    chooser, firsts = _Chooser(composite), seen.firsts(Linear)
    chosen = {call.name: chooser.rule(call.name, call.module, call in firsts) for call in _once(seen.calls)}
    places = [Place(name, module, rule) for name, rule in chosen.items() for module in by_name.get(name, ())]
    ruled = [call for call in seen.calls if chosen[call.name] is not None]
    for name, node in zip(reductions, seen.reductions, strict=bool(reductions)):
        if not any(call.made(node) for call in ruled):  # of which the rule of the whole module counts
            places += [Place(name, module, chooser.rule(name, module, False)) for module in by_name[name]]
    return Placed(places)


def _once(calls: Iterable[Call]) -> Iterator[Call]:
    """The first call of each module."""
    met: set[str] = set()
    for call in calls:
        if call.name not in met:
            met.add(call.name)
            yield call


class _Chooser:
    """Asks a composite for rules, module by module in the order in which they run."""

    def __init__(self, composite: Composite) -> None:
        self._composite = composite
        self._context: dict[Any, Any] = {}  # in which composites note that they have seen a first layer

    def rule(self, name: str, module: nn.Module, is_first: bool) -> Hook | None:
        """The rule of a module."""
        choose = self._composite.module_map
        found: Hook | None = choose({} if is_first else self._context, name, module)
        if found is None and isinstance(module, nn.Upsample):  # weighted averages, which Zennit has no rule for
            found = choose(self._context, name, _AVERAGE)
        if is_first and isinstance(module, Linear):
            choose(self._context, name, module)  # from here on, a first layer has been seen
        if isinstance(module, nn.MultiheadAttention) and _is_by_activation(self._composite, found):
            return None
        return found


def _construct(chosen: Any, settings: Mapping[str, Any]) -> Composite:
    kind = COMPOSITES.get(chosen) if isinstance(chosen, str) else chosen
    if not (isinstance(kind, type) and issubclass(kind, Composite)):
        raise ArgumentError(
            f"composite={chosen!r} is no composite of Zennit's. Pass one, or one of these names: "
            f"{', '.join(COMPOSITES)}."
        )
    parameters = inspect.signature(kind).parameters
    if unknown := [name for name in settings if name not in parameters]:
        raise ArgumentError(
            f"{kind.__name__} takes no {', '.join(map(repr, unknown))}. It takes: {', '.join(parameters)}."
        )
    required = [name for name, one in parameters.items() if one.default is inspect.Parameter.empty]
    if missing := [name for name in required if name not in settings]:
        example = ", ".join(f"{name!r}: …" for name in missing)
        raise ArgumentError(
            f"{kind.__name__} needs {' and '.join(missing)}: pass init_args={{{example}}}. `low` and `high` are the "
            "lowest and highest values that inputs can have, numbers or arrays with the axes of the inputs."
        )
    try:
        return kind(**settings)
    except (TypeError, ValueError, AttributeError) as error:
        raise ArgumentError(f"{kind.__name__} does not take these arguments: {error}.") from error


def _named(name_map: Any, model: nn.Module) -> list[tuple[tuple[str, ...], Hook]]:
    """A name map with names alone: modules stand for their names, one name for a tuple of it."""
    known = {module: name for name, module in model.named_modules()}
    named = []
    for entry in name_map:
        if not (isinstance(entry, tuple | list) and len(entry) == 2):
            raise ArgumentError(f"name_map holds {entry!r}. Pass a list of pairs: names of modules, and a rule.")
        given, rule = entry
        given = given if isinstance(given, tuple | list) else (given,)
        named.append((tuple(known.get(one, "") if isinstance(one, nn.Module) else one for one in given), rule))
    return named


def _check_names(composite: Composite, model: nn.Module) -> None:
    """A name that no module bears would be passed over without a word, and so would what is no rule."""
    known = {name for name, _ in model.named_modules() if name}
    for one in parts_of(composite):
        maps = [getattr(one, name, None) or () for name in ("name_map", "layer_map", "first_map")]
        for _, rule in chain(*maps):
            if not isinstance(rule, Hook):
                raise ArgumentError(f"{rule!r} is no rule. Pass an instance of one, such as zennit.rules.Epsilon().")
        for names, _ in maps[0]:
            if absent := [name for name in names if name not in known]:
                raise ArgumentError(
                    f"The model that runs has no module {', '.join(map(repr, absent))}, which a name map speaks of. "
                    f"It has: {', '.join(sorted(known)[:12])}. Of a translated model, pass layers of your own model."
                )


def rules_of(composite: Composite) -> list[Hook]:
    """The rules in the maps of a composite; none of one that chooses by a function of its own."""
    maps = [getattr(one, name, None) or () for one in parts_of(composite) for name in ("name_map", "layer_map")]
    return [rule for _, rule in chain(*maps)]


def parts_of(composite: Composite) -> Iterator[Composite]:
    """A composite and those that it consists of."""
    yield composite
    for one in getattr(composite, "composites", ()):
        yield from parts_of(one)


def _is_by_activation(composite: Composite, rule: Hook | None) -> bool:
    """Whether a rule was chosen because of Zennit's type of all activations, and not of a module's own."""
    maps = [one.layer_map for one in parts_of(composite) if isinstance(one, LayerMapComposite)]
    return isinstance(rule, Pass) and any(types is Activation and rule is one for entry in maps for types, one in entry)
