"""What this plugin offers. Importing it imports neither tensorflow nor the library."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import MethodSpec, ToolsetSpec
from cfi_tfexplain.table import METHODS, TOOLSET


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """tf-explain, for Keras models."""
    return [
        ToolsetSpec(
            name=TOOLSET,
            framework="tensorflow",
            requirements=(
                "tf-explain>=0.3.1,<0.4",
                "tensorflow>=2.20",
                "keras>=3.15",
            ),
            homepage="https://tf-explain.readthedocs.io",
            patches=(),  # its noise is drawn from a generator of the run's own (`cfi_tfexplain.workarounds`)
        )
    ]


@hookimpl
def cfi_methods() -> Iterable[MethodSpec]:
    """The seven classes of `tf_explain.core`."""
    return [method.spec for method in METHODS.values()]
