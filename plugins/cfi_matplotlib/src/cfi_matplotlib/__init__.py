"""Drawings of attributions, and of what goes into a network, for Cross-Framework Introspection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfi_matplotlib.comparisons import side_by_side
    from cfi_matplotlib.image_log import ImageLog

__all__ = ["ImageLog", "side_by_side"]

_PLACES = {"ImageLog": "image_log", "side_by_side": "comparisons"}


def __getattr__(name: str) -> Any:
    """The public names, on first use: listing what is installed imports no matplotlib."""
    if name not in _PLACES:
        raise AttributeError(f"module 'cfi_matplotlib' has no attribute {name!r}")
    return getattr(import_module(f"cfi_matplotlib.{_PLACES[name]}"), name)
