"""Frameworks that must be loaded with care, because of others in the same process."""

from __future__ import annotations

from cfi_core.boundary import take_precaution
from cfi_core.registry import Registry
from cfi_core.registry import registry as current_registry


def load_safely(registry: Registry | None = None) -> None:
    """Lets every framework take its precautions (`FrameworkSpec.before_use`) before any of them is loaded.

    Safe to call at any time, also several times. Core calls it before it loads an adapter.

    Args:
        registry: What is installed; left out, that of the process.
    """
    current = current_registry() if registry is None else registry
    for spec in current.frameworks.values():
        if spec.before_use:
            take_precaution(spec, current.origin_of(spec))
