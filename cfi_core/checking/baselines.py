"""A baseline of 0 that nobody chose is told, once for each method."""

from __future__ import annotations

from cfi_core.errors import BaselineWarning, warn
from cfi_core.records import Original, Plan
from cfi_core.registry import Registry
from cfi_core.specs import MethodSpec, Role

_told: set[tuple[str, str]] = set()


def tell_zero_baseline(registry: Registry, plan: Plan, original: Original) -> None:
    """Says that 0 stands for "absent", where that is the method's default and not the user's choice.

    Warns:
        BaselineWarning: So it is, and this process was not told of this method before.
    """
    method = _inner(registry, plan)
    if not method.zero_baseline or plan.arguments.baselines is not None or original.table is not None:
        return
    settings = {**method.defaults.choose(plan.arguments.defaults), **plan.arguments.own}
    standing = ("baselines", *method.instead_of_baselines, *_names_of_baselines(method))
    if any(settings.get(name) is not None and settings[name] is not False for name in standing):
        return
    if (name := (method.toolset, method.key)) in _told:
        return
    _told.add(name)
    warn(
        f"{method.key} of {method.toolset} takes a baseline of 0 for every element, since you give none: values say "
        f"what an input adds to that. Where 0 is no absence (a black pixel, an unscaled column), pass baselines=: the "
        f"mean of your data, a blurred image, a row of a typical sample, a token's name. baselines=0 says that 0 is "
        f"meant. This is told once for each method.",
        BaselineWarning,
    )


def _inner(registry: Registry, plan: Plan) -> MethodSpec:
    """The method itself; the one inside of a method that wraps another."""
    method = plan.method
    key = str(plan.arguments.own.get(method.wraps)) if method.wraps else method.key
    return registry.methods.get((key, method.toolset)) or method


def _names_of_baselines(method: MethodSpec) -> list[str]:
    return [name for name, role in method.roles.items() if role is Role.BASELINES]
