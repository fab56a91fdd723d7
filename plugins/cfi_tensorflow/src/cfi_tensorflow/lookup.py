"""TensorFlow functions from the output of their embedding on: of the `tf.gather` that looks vectors up for tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cfi_core.framework import flatten
from cfi_tensorflow.graphs import Trace
from cfi_tensorflow.logits import TracedLogits
from cfi_tensorflow.outputs import dense

_GATHERS = frozenset({"Gather", "GatherV2", "ResourceGather"})


class TracedLookup(TracedLogits):
    """A model, as it was when it was traced, that takes the vectors of its tokens in front of its inputs."""

    def __init__(self, original: Any, trace: Trace, name: str) -> None:
        """Takes a view of the original model, its trace and the name of the lookup in it."""
        opened = replace(trace, inputs=(trace.taps[name], *trace.inputs))
        super().__init__(original, opened)
        self._fingerprint = f"{original.fingerprint()}:from {name}"

    def input_shapes(self) -> tuple[tuple[int | None, ...], ...] | None:
        """Not declared: the original's are those of its tokens."""
        return None

    def declares_integer(self, position: int) -> bool | None:
        """The vectors are none; behind them stand the original's inputs."""
        return False if position == 0 else self._original.declares_integer(position - 1)

    def floating_type(self) -> Any:
        """That of the vectors."""
        return self._trace.inputs[0].dtype


def split_lookup(
    original: Any, trace: Trace | None, inputs: Sequence[Any], layer: str | None
) -> tuple[str, Any, TracedLookup] | None:
    """Name and result of the one lookup by the tokens, the first input, and the model from there on."""
    if trace is None or not trace.differentiable:
        return None
    found = [name for name in _lookups(trace) if layer in (None, name)]
    if len(found) != 1 or not trace.agrees(inputs, flatten(dense(original.run(inputs)))):
        return None
    (name,) = found
    return name, trace.activations(inputs, found)[name], TracedLookup(original, trace, name)


def _lookups(trace: Trace) -> list[str]:
    """Names of what looks vectors up in a table by the tokens alone."""
    tokens, places = trace.inputs[0], {tensor.name: i for i, tensor in enumerate(trace.inputs)}
    found: Mapping[str, Any] = {
        name: tap
        for name, tap in trace.taps.items()
        if tap.op.type in _GATHERS and tap.shape.rank is not None and tap.shape.rank == (tokens.shape.rank or 0) + 1
    }
    return [
        name
        for name, tap in found.items()
        if not _sources(tap.op.inputs[0], places) and _sources(tap.op.inputs[1], places) == {0}
    ]


def _sources(tensor: Any, places: Mapping[str, int]) -> set[int]:
    """Positions of the inputs that a tensor of the graph is made of."""
    waiting, seen, sources = [tensor], set[str](), set[int]()
    while waiting:
        one = waiting.pop()
        if one.name in seen:
            continue
        seen.add(one.name)
        if one.name in places:
            sources.add(places[one.name])
        else:
            waiting.extend(one.op.inputs)
    return sources
