"""What this plugin registers; imports no framework."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import ANY, RUNNABLE, TranslatorSpec


@hookimpl
def cfi_translators() -> Iterable[TranslatorSpec]:
    """One bridge into each framework that has toolsets; from any framework whose adapter can run its models."""
    return [
        TranslatorSpec(
            name="bridge-to-torch",
            source=ANY,
            target="torch",
            preserves=RUNNABLE,
            cost=1,
            implementation="cfi_bridge.torch_host:bridge",
            requirements=("cfi-torch", "torch>=2.13"),
            kind="bridge",
        ),
        TranslatorSpec(
            name="bridge-to-keras",
            source=ANY,
            target="tensorflow",
            preserves=RUNNABLE,
            cost=1,
            implementation="cfi_bridge.keras_host:bridge",
            requirements=("cfi-tensorflow", "tensorflow>=2.20", "keras>=3.15"),
            kind="bridge",
        ),
    ]
