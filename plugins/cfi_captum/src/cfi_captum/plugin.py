"""What this plugin offers. Importing it imports neither torch nor captum."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_captum.table import METHODS, method_spec
from cfi_core.hookspec import hookimpl
from cfi_core.specs import MethodSpec, ToolsetSpec


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """Captum, for models of PyTorch."""
    return [
        ToolsetSpec(
            name="captum",
            framework="torch",
            requirements=("captum>=0.9", "torch>=2.13"),
            homepage="https://captum.ai",
            patches=(),  # what it draws comes from generators of its own (`cfi_captum.draws`)
        )
    ]


@hookimpl
def cfi_methods() -> Iterable[MethodSpec]:
    """Every attribution class of `captum.attr`: primary, layer and neuron."""
    return [method_spec(method) for method in METHODS.values()]
