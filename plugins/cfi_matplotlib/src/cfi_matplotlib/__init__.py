"""Drawings of attributions, and of what goes into a network, for Cross-Framework Introspection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfi_matplotlib.image_log import ImageLog

__all__ = ["ImageLog"]


def __getattr__(name: str) -> Any:
    """`ImageLog`, on first use: listing what is installed imports no matplotlib."""
    if name != "ImageLog":
        raise AttributeError(f"module 'cfi_matplotlib' has no attribute {name!r}")
    from cfi_matplotlib.image_log import ImageLog

    return ImageLog
