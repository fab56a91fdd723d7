"""Keras and TensorFlow models as a framework of Cross-Framework Introspection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfi_tensorflow.callback import ExplanationCallback

__all__ = ["ExplanationCallback"]


def __getattr__(name: str) -> Any:
    """`ExplanationCallback`, on first use: listing what is installed imports no tensorflow."""
    if name != "ExplanationCallback":
        raise AttributeError(f"module 'cfi_tensorflow' has no attribute {name!r}")
    from cfi_tensorflow.callback import ExplanationCallback

    return ExplanationCallback
