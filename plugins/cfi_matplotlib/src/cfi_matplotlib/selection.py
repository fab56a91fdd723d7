"""Which samples, channels and features are drawn, what is told of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfi_matplotlib.blocks import Choice


def choose_samples(samples: Sequence[int] | None, most: int, count: int) -> tuple[list[int], list[str]]:
    """Positions of the samples, and a note where some were left out.

    Raises:
        PlotError: A position is none of them, or there is none.
    """
    chosen = Choice(samples, most).of(count)
    cut = samples is None and count > most
    return chosen, [f"the first {most} of {count} samples are shown"] if cut else []


def strongest(strength: np.ndarray, most: int) -> list[int]:
    """The positions of the largest numbers, in their own order; what is not finite counts as the largest."""
    order = np.argsort(-np.nan_to_num(strength, nan=np.inf), kind="stable")[:most]
    return sorted(int(place) for place in order)


def cut_note(shown: int, count: int, what: str, which: str) -> list[str]:
    """What is told where not all are shown."""
    return [f"{which} {shown} of {count} {what} are shown"] if shown < count else []
