"""The command `cfi`, and reports on one page of HTML, for Cross-Framework Introspection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfi_cli.page import Chapter, Explanation, Sample, report
    from cfi_cli.predictions import Prediction

__all__ = ["report", "Chapter", "Explanation", "Sample", "Prediction"]


def __getattr__(name: str) -> Any:
    """What makes reports, on first use: the command alone needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module 'cfi_cli' has no attribute {name!r}")
    return getattr(import_module("cfi_cli.predictions" if name == "Prediction" else "cfi_cli.page"), name)
