"""What this plugin offers. Importing it imports neither torch nor the library."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import ToolsetSpec


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """Zennit, for models of PyTorch."""
    return [
        ToolsetSpec(
            name="zennit",
            framework="torch",
            requirements=("zennit>=0.5.1", "torch>=2.13"),
            homepage="https://zennit.readthedocs.io",
        )
    ]
