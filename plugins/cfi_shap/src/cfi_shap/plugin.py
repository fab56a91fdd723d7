"""What this plugin offers. Importing it imports neither torch nor the library."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import ToolsetSpec


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """SHAP."""
    return [
        ToolsetSpec(
            name="shap",
            framework="torch",
            requirements=("shap>=0.51",),
            homepage="https://shap.readthedocs.io",
        )
    ]
