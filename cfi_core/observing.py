"""Tells observers what is going to happen, and what has happened."""

from __future__ import annotations

from typing import Any

from cfi_core.attribution import Attribution
from cfi_core.errors import PluginWarning, warn
from cfi_core.records import Plan
from cfi_core.registry import Registry


def tell_before_run(registry: Registry, plan: Plan) -> None:
    """Calls all `cfi_before_run` hooks."""
    _tell(registry, "cfi_before_run", plan=plan)


def tell_after_run(registry: Registry, plan: Plan, attribution: Attribution) -> None:
    """Calls all `cfi_after_run` hooks."""
    _tell(registry, "cfi_after_run", plan=plan, attribution=attribution)


def _tell(registry: Registry, hook: str, **arguments: Any) -> None:
    try:
        getattr(registry.manager.hook, hook)(**arguments)
    except Exception as error:  # noqa: BLE001 - an observer is foreign code: it must not take the host down
        warn(f"A {hook} hook failed: {error!r}.", PluginWarning)
