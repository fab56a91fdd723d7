"""The first pass of a call, recorded where the run needs the very same one: once for checks and method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cfi_core.framework import FrameworkAdapter, Recorded
from cfi_core.records import Inputs, Original, Plan


def may_serve(plan: Plan, original: Original, inputs: Inputs) -> bool:
    """Whether the method runs the model once, as it is, on the inputs as they are, over a bridge.

    Natively nothing stands between the toolset and the model, where such a pass could be handed over.
    On a device of its own the values would have to come to the host, to be compared.
    """
    method, arguments = plan.method, plan.arguments
    is_plain = not (plan.layers or plan.needs_layer or plan.seeks_layer or plan.embeddings or original.embedding)
    others = any(arguments.own.get(name) for name in method.alone_with)
    return (
        method.once
        and is_plain
        and not others
        and plan.route.bridge
        and arguments.batch_size is None
        and inputs.given
        and not inputs.held
        and inputs.other is None
        and not original.adapter.is_accelerated(original.model)
    )


class Recording:
    """Runs the model as `FrameworkAdapter.outputs` does, and keeps the last pass, if it can be kept."""

    def __init__(self, adapter: FrameworkAdapter) -> None:
        self._adapter = adapter
        self.made: Recorded | None = None

    def __call__(self, model: Any, inputs: Sequence[Any]) -> Any:
        """What the model gives for the inputs."""
        self.made = None
        try:
            self.made = self._adapter.record(model, inputs)
        except Exception:  # noqa: BLE001 - of the user's model: without recording it may run, or it tells what is wrong
            self.made = None
        return self._adapter.outputs(model, inputs) if self.made is None else self.made.outputs
