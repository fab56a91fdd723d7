"""What this plugin offers. Importing it imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import PreparationSpec


@hookimpl
def cfi_preparations() -> Iterable[PreparationSpec]:
    """Pipelines, which begin with a tokenizer or an image processor."""
    yield PreparationSpec(
        name="transformers",
        model_types=(("transformers.pipelines.base", "Pipeline"),),
        implementation="cfi_transformers.pipelines:unpack",
        requirements=("transformers>=5.12", "torch>=2.13"),
    )
