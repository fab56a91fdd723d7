"""Frameworks that must be loaded with care, because of others in the same process."""

from __future__ import annotations

from cfi_core.boundary import report_failures
from cfi_core.registry import Registry
from cfi_core.registry import registry as current_registry
from cfi_core.specs import resolve


def load_safely(registry: Registry | None = None) -> None:
    """Lets every framework take its precautions (`FrameworkSpec.before_use`) before any of them is loaded.

    Safe to call at any time, also several times. Core calls it before it loads an adapter.

    Args:
        registry: What is installed; left out, that of the process.

    Warns:
        PluginWarning: A precaution failed, or cannot be imported; other frameworks are loaded without it.
    """
    current = current_registry() if registry is None else registry
    for spec in current.frameworks.values():
        if spec.before_use:
            with report_failures(f"The precaution for {spec.name}", current.origin_of(spec)):
                resolve(spec.before_use)()
