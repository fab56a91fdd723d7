"""Tells observers what is going to happen, and what has happened."""

from __future__ import annotations

from cfi_core.attribution import Attribution
from cfi_core.boundary import observe
from cfi_core.records import Plan
from cfi_core.registry import Registry


def tell_before_run(registry: Registry, plan: Plan) -> None:
    """Calls all `cfi_before_run` hooks."""
    observe(registry, "cfi_before_run", plan=plan)


def tell_after_run(registry: Registry, plan: Plan, attribution: Attribution) -> None:
    """Calls all `cfi_after_run` hooks."""
    observe(registry, "cfi_after_run", plan=plan, attribution=attribution)
