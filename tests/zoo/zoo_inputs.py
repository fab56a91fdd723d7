"""Inputs of the models of the zoo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TOKENS, LENGTH = 50, 9


def examples(shapes: Sequence[tuple[int, ...] | None], samples: int, seed: int) -> tuple[np.ndarray, ...]:
    """Normally distributed arrays of these shapes, and tokens in the place of None."""
    generator = np.random.default_rng(seed)
    return tuple(
        generator.integers(0, TOKENS, (samples, LENGTH))
        if shape is None
        else generator.normal(size=(samples, *shape)).astype(np.float32)
        for shape in shapes
    )
