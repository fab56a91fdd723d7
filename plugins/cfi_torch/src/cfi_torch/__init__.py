"""PyTorch models as a framework of Cross-Framework Introspection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfi_torch.logger import ExplanationLogger

__all__ = ["ExplanationLogger"]


def __getattr__(name: str) -> Any:
    """`ExplanationLogger`, on first use: listing what is installed imports no torch."""
    if name != "ExplanationLogger":
        raise AttributeError(f"module 'cfi_torch' has no attribute {name!r}")
    from cfi_torch.logger import ExplanationLogger

    return ExplanationLogger
