"""A framework made by hand in numpy: models are lists of steps, each with its derivative written out.

Its adapter offers what a host may rely on and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cfi_core.contract import BridgeRequest
from cfi_core.errors import LayerError
from cfi_core.framework import Runner

Array = np.ndarray


@dataclass(frozen=True)
class Step:
    """`compute(*values)` gives the result, `pull(values, result, cotangent)` one gradient (or None) for each value."""

    name: str
    of: tuple[str, ...]
    compute: Callable[..., Array]
    pull: Callable[[tuple[Array, ...], Array, Array], tuple[Array | None, ...]]


@dataclass(frozen=True, eq=False)
class HandModel:
    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    channel: int = -1
    log: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def by_name(self) -> dict[str, Step]:
        return {step.name: step for step in self.steps}


class HandRunner(Runner):
    """Implements `cfi_core.framework.base.Runner`."""

    def __init__(self, model: HandModel, layers: Sequence[str]) -> None:
        unknown = set(layers) - set(model.by_name)
        if unknown:
            raise LayerError(f"no step {sorted(unknown)}")
        self.model = model
        self.layers = tuple(step.name for step in model.steps if step.name in layers)

    def run(self, stage: int, values: Sequence[Array]) -> tuple[Array, ...]:
        self.model.log.append(("run", stage))
        known = self._forward(stage, values)
        return tuple(known[name] for name in self._wanted(stage))

    def linearize(self, stage: int, values: Sequence[Array]) -> tuple[tuple[Array, ...], Any]:
        self.model.log.append(("linearize", stage))
        known, given = self._forward(stage, values), self._given(stage)

        def pullback(cotangents: Sequence[Array | None], wanted: Sequence[bool]) -> tuple[Array | None, ...]:
            self.model.log.append(("pull", stage, tuple(wanted)))
            sums: dict[str, Array] = {}
            for name, cotangent in zip(self._wanted(stage), cotangents, strict=True):
                _add(sums, name, cotangent)
            for step in reversed(self.model.steps):
                if step.name in sums and step.name not in given:
                    arguments = tuple(known[name] for name in step.of)
                    found = step.pull(arguments, known[step.name], sums[step.name])
                    for name, gradient in zip(step.of, found, strict=True):
                        _add(sums, name, gradient)
            return tuple(sums.get(name) if want else None for name, want in zip(given, wanted, strict=True))

        return tuple(known[name] for name in self._wanted(stage)), pullback

    def _wanted(self, stage: int) -> tuple[str, ...]:
        return self.model.outputs if stage == len(self.layers) else (self.layers[stage],)

    def _given(self, stage: int) -> tuple[str, ...]:
        return (*self.model.inputs, *self.layers[:stage])

    def _forward(self, stage: int, values: Sequence[Array]) -> dict[str, Array]:
        known = dict(zip(self._given(stage), values, strict=True))

        def value(name: str) -> Array:
            if name not in known:
                step = self.model.by_name[name]
                known[name] = step.compute(*(value(source) for source in step.of))
            return known[name]

        for name in self._wanted(stage):
            value(name)
        return known


class HandAdapter:
    name = "hand-made"

    def runner(self, model: HandModel, inputs: Sequence[Array], layers: Sequence[str] = ()) -> HandRunner:
        return HandRunner(model, layers)

    def channel_axis(self, model: HandModel, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        return None if len(shape) < 4 else model.channel % len(shape)

    def share(self, tensor: Array) -> Array:
        return np.ascontiguousarray(tensor)

    def adopt(self, shared: Any, model: HandModel) -> Array:
        return shared if isinstance(shared, np.ndarray) else np.from_dlpack(shared)

    def same_values(self, one: Array, other: Array) -> bool:
        return np.array_equal(one, other)

    def permute(self, tensor: Array, axes: Sequence[int]) -> Array:
        return np.transpose(tensor, axes)

    def to_numpy(self, tensor: Array) -> Array:
        return tensor

    def tensor(self, value: Array, model: HandModel) -> Array:
        return np.array(value)


def request(model: HandModel, *inputs: Array, layers: Sequence[str] = ()) -> BridgeRequest:
    return BridgeRequest(HandAdapter(), model, inputs, tuple(layers))  # type: ignore[arg-type]


def _add(sums: dict[str, Array], name: str, gradient: Array | None) -> None:
    if gradient is not None:
        sums[name] = sums[name] + gradient if name in sums else gradient


# models

A, B, C, D, E, F, G, Q = (
    np.random.default_rng(number).normal(size=shape)
    for number, shape in enumerate([(3, 5), (5, 2), (3, 2), (2, 4), (5, 4), (3, 4), (4, 4), (2, 3)])
)


def residual(channel: int = -1, dtype: Any = np.float32) -> HandModel:
    """Two layers, each with a way around it, for images `x` and vectors `z`.

    first = tanh(x A)        second = first² B + x C
    scores = mean over space (second D + first E + x F) + z G        mask = second Q + x
    """
    a, b, c, d, e, f, g, q = (weight.astype(dtype) for weight in (A, B, C, D, E, F, G, Q))
    space = (1, 2) if channel == -1 else (2, 3)

    def mix(x: Array, weight: Array) -> Array:
        return np.moveaxis(np.moveaxis(x, channel, -1) @ weight, -1, channel)

    def spread(cotangent: Array, like: Array) -> Array:
        size = like.shape[space[0]] * like.shape[space[1]]
        shape = [1 if axis in space else -1 for axis in range(4)]
        shape[0] = len(cotangent)
        full = [like.shape[axis] if axis in space else 1 for axis in range(4)]
        return np.tile(cotangent.reshape(shape), full) / np.asarray(size, dtype)

    return HandModel(
        ("x", "z"),
        (
            Step("first", ("x",), lambda x: np.tanh(mix(x, a)), lambda v, r, ct: (mix(ct * (1 - r**2), a.T),)),
            Step(
                "second",
                ("first", "x"),
                lambda first, x: mix(first**2, b) + mix(x, c),
                lambda v, r, ct: (2 * v[0] * mix(ct, b.T), mix(ct, c.T)),
            ),
            Step(
                "scores",
                ("second", "first", "x", "z"),
                lambda second, first, x, z: (mix(second, d) + mix(first, e) + mix(x, f)).mean(axis=space) + z @ g,
                lambda v, r, ct: (*(mix(spread(ct, v[0]), w.T) for w in (d, e, f)), ct @ g.T),
            ),
            Step(
                "mask",
                ("second", "x"),
                lambda second, x: mix(second, q) + x,
                lambda v, r, ct: (mix(ct, q.T), ct),
            ),
        ),
        ("scores", "mask"),
        channel,
    )


def images(channel: int, samples: int = 2, dtype: Any = np.float32) -> tuple[Array, Array]:
    """Inputs `x` and `z` for `residual`; the image is not square."""
    generator = np.random.default_rng(7)
    x = generator.normal(size=(samples, 4, 6, 3)).astype(dtype)
    return np.ascontiguousarray(np.moveaxis(x, -1, channel)), generator.normal(size=(samples, 4)).astype(dtype)


TABLE = np.random.default_rng(9).normal(size=(6, 3)).astype(np.float32)


def _sum_of_squares(embedding: Array) -> Array:
    return (embedding**2).sum(axis=(1, 2), keepdims=True)[:, :, 0]


def tokens() -> HandModel:
    """`score = Σ embedding²`, of whole numbers that are looked up in a table; and which token came first."""
    return HandModel(
        ("tokens",),
        (
            Step("embedding", ("tokens",), lambda tokens: TABLE[tokens], lambda v, r, ct: (None,)),
            Step("score", ("embedding",), _sum_of_squares, lambda v, r, ct: (2 * v[0] * ct[:, :, None],)),
            Step("start", ("tokens",), lambda tokens: tokens[:, :1], lambda v, r, ct: (None,)),
        ),
        ("score", "start"),
    )
