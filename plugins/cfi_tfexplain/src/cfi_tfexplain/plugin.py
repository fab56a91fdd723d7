"""What this plugin offers. Importing it imports neither tensorflow nor the library."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import ToolsetSpec


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """tf-explain, for Keras models."""
    return [
        ToolsetSpec(
            name="tf-explain",
            framework="tensorflow",
            requirements=("tf-explain>=0.3.1", "tensorflow>=2.20"),
            homepage="https://tf-explain.readthedocs.io",
        )
    ]
