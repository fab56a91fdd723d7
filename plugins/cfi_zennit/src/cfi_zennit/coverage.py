"""What the rules of a composite do not reach, where Zennit takes the plain gradient without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from torch.autograd.graph import Node
from zennit.composites import BetaSmooth, DeconvNet, GuidedBackprop
from zennit.core import BasicHook, Composite, Hook
from zennit.rules import Pass, ReLUBetaSmooth

from cfi_torchgraph.nodes import base_name, sources, walk
from cfi_torchgraph.operations import NOT_RECTIFYING, head_of
from cfi_zennit.canonical import Changes, has_computed_weights
from cfi_zennit.operations import CHOOSING, MOVING, RULED_AS_MODULES
from cfi_zennit.rules import RECTIFIER_RULES, Placed, parts_of, rules_of
from cfi_zennit.trace import Call, Trace

_RECTIFYING = (BetaSmooth, DeconvNet, GuidedBackprop)
_OF_ONE_INPUT = (BasicHook.backward, Pass.backward)


class Family(StrEnum):
    """What a composite's rules are about."""

    RELEVANCE = "relevance"
    """Every module on the way carries relevance by a rule."""
    RECTIFIER = "rectifier"
    """`nn.ReLU` has another gradient."""


class Kind(StrEnum):
    """What can be done about a gap."""

    FUNCTION = "function"
    """A rule would reach it, were it a module."""
    UNKNOWN = "unknown"
    """No rule is meant for it; the plain gradient is what Zennit takes."""
    CONFUSED = "confused"
    """A rule reaches it, and would give values that belong elsewhere."""


@dataclass(frozen=True)
class Gap:
    """A place that no rule reaches, or one that it should not.

    Attributes:
        where: Operation, module and type.
        why: What would become of the method there.
        kind: What can be done about it.
    """

    where: str
    why: str
    kind: Kind


def family_of(composite: Composite, placed: Placed) -> Family:
    """What the rules are about."""
    if any(isinstance(part, _RECTIFYING) for part in parts_of(composite)):
        return Family.RECTIFIER
    rules = rules_of(composite) or [place.rule for place in placed.places if place.rule is not None]
    return Family.RECTIFIER if rules and all(isinstance(rule, RECTIFIER_RULES) for rule in rules) else Family.RELEVANCE


def find_gaps(placed: Placed, seen: Trace, family: Family, changes: Changes) -> list[Gap]:
    """All places that no rule reaches though the method wants one there, each once.

    Args:
        placed: The rules.
        seen: One pass of the user's model.
        family: What the rules are about.
        changes: What was changed since: sums are modules now, and batch norms that were merged do nothing.
    """
    rules = {place.name: place.rule for place in placed.places if place.rule is not None}
    ruled = [call for call in seen.calls if call.name in rules or call.name in changes.merged]
    find = _find_gaps if family is Family.RELEVANCE else _unchanged_rectifiers
    made = frozenset(seen.reductions if changes.reductions else ())
    gaps = dict.fromkeys(find(seen, ruled, made))
    return list(gaps | dict.fromkeys(_find_confusions(seen, rules, changes)))


def find_computed_weights(placed: Placed) -> list[Gap]:
    """Modules whose weights a rule would not change."""
    ruled = [one for one in placed.places if isinstance(one.rule, BasicHook) and has_computed_weights(one.module)]
    why = "its weights are computed from others, which the rule would change in their place"
    return [Gap(f"module '{one.name}' ({type(one.module).__name__})", why, Kind.CONFUSED) for one in ruled]


def hard_gaps(gaps: Sequence[Gap], family: Family, *, canonized: bool = True) -> list[Gap]:
    """Those that make the result another method's; the others are told."""
    worst = {Kind.CONFUSED, Kind.FUNCTION} if canonized else {Kind.CONFUSED}
    return [gap for gap in gaps if family is Family.RECTIFIER or gap.kind in worst]


def explain(key: str, gaps: Sequence[Gap]) -> str:
    """Why a method is refused."""
    return (
        f"'{key}' has no rule that fits {list_places(gaps)}: {gaps[0].why}. Use modules of their own there (nn.ReLU "
        "for relu), or another method, such as 'integrated_gradients'."
    )


def list_places(gaps: Sequence[Gap]) -> str:
    """The places, the first three by name."""
    shown = ", ".join(gap.where for gap in gaps[:3])
    return f"{shown} and {len(gaps) - 3} more" if len(gaps) > 3 else shown


def _find_gaps(seen: Trace, ruled: list[Call], made: frozenset[Node]) -> Iterator[Gap]:
    for node in seen.nodes:
        name = base_name(node)
        moves = name in MOVING and node not in seen.watch.veiled
        if moves or name in CHOOSING or node in made or any(call.holds(node) for call in ruled):
            continue
        if name in ("Add", "Sub") and not _joins(node):
            continue  # a constant is added: all relevance goes on
        function = seen.is_function(node) and (name in RULED_AS_MODULES or name == "Add")
        why = "relevance would be carried by the plain gradient"
        yield Gap(seen.where(node), why, Kind.FUNCTION if function else Kind.UNKNOWN)


def _joins(node: Node) -> bool:
    """Whether an operation joins several values that depend on the inputs."""
    return len(sources(node)) > 1


def _find_confusions(seen: Trace, rules: Mapping[str, Hook], changes: Changes) -> Iterator[Gap]:
    """Modules whose rule would not act, or would act on what it does not know of."""
    for call in seen.calls:
        rule = rules.get(call.name)
        if rule is None:
            continue
        name, kind = type(rule).__name__, f"module '{call.name}' ({type(call.module).__name__})"
        if call.inputs and not call.depends:
            yield Gap(
                kind, f"{name} acts on the first argument alone, which does not depend on the inputs", Kind.CONFUSED
            )
        if len(call.inputs) > 1 and type(rule).backward in _OF_ONE_INPUT:
            why = f"{name} would give each input the relevance of the first"
            yield Gap(f"{kind} with {len(call.inputs)} inputs", why, Kind.CONFUSED)
        inner = [one for one, _ in call.module.named_modules() if one and f"{call.name}.{one}" in rules]
        if inner and isinstance(rule, BasicHook):
            yield Gap(kind, f"{name} runs it again, with the rules of what is inside ('{inner[0]}')", Kind.CONFUSED)
        calls = seen.calls_of[call.module]
        if len(calls) > 1 and call.name not in changes.repeated and not _is_fit_for_several(rule, calls):
            yield Gap(f"{kind} used {len(calls)} times", "Zennit would mix up its uses", Kind.CONFUSED)


def _is_fit_for_several(rule: Hook, calls: list[Call]) -> bool:
    """Whether a rule keeps nothing of the way forward, and one call ends on the way back before the next begins."""
    if isinstance(rule, BasicHook | ReLUBetaSmooth):
        return False
    return all(
        {node for node, _ in earlier.outputs} <= set(walk(node for node, _ in later.inputs))
        for earlier, later in pairwise(calls)
    )


def _unchanged_rectifiers(seen: Trace, ruled: list[Call], made: frozenset[Node]) -> Iterator[Gap]:
    head = head_of(seen.nodes)
    within = {node for node in seen.nodes if any(call.holds(node) for call in ruled)}
    hidden = set(seen.watch.hidden_rectifiers(seen.nodes, within))
    for node in seen.nodes:
        smooth = base_name(node) in NOT_RECTIFYING and node not in seen.watch.veiled and node not in hidden
        if smooth or node in head or node in within:
            continue
        kind = Kind.FUNCTION if seen.is_function(node) else Kind.UNKNOWN
        what = "it rectifies values, or multiplies them by a mask that is computed from the inputs, and "
        yield Gap(seen.where(node), f"{what if node in hidden else ''}its gradient would stay as it is", kind)


def rules_by_gradient(placed: Placed, seen: Trace) -> dict[str, str]:
    """Modules without a rule that choose among values, such as max pooling: the gradient is their rule."""
    unruled = {place.name for place in placed.places if place.rule is None}
    found = {}
    for call in seen.calls:
        if call.name in unruled and not any(True for _ in call.module.children()):
            inside = {base_name(node) for node in seen.nodes if call.holds(node)}
            if inside & CHOOSING:
                found[call.name] = "gradient"
    return found
