"""What this plugin offers. Importing it imports neither torch nor the library."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import ToolsetSpec


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """TorchRay, for models of PyTorch."""
    return [
        ToolsetSpec(
            name="torchray",
            framework="torch",
            requirements=("torchray>=1.0.0.2", "torch>=2.13"),
            homepage="https://facebookresearch.github.io/TorchRay",
        )
    ]
