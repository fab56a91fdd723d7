"""What this plugin offers. Importing it imports neither torch nor zennit."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import MethodSpec, ToolsetSpec
from cfi_zennit.table import METHODS, method_spec


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """Zennit, for models of PyTorch."""
    return [
        ToolsetSpec(
            name="zennit",
            framework="torch",
            requirements=("zennit>=0.5.1", "torch>=2.13"),
            homepage="https://zennit.readthedocs.io",
            patches=(),  # what it draws comes from a generator of its own (`cfi_torchgraph.draws`)
        )
    ]


@hookimpl
def cfi_methods() -> Iterable[MethodSpec]:
    """Zennit's attributors and composites."""
    return [method_spec(method) for method in METHODS.values()]
