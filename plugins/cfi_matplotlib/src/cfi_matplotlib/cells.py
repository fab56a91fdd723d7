"""The columns of a table in words: their names, with the cell of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cfi_core import Attribution
from cfi_matplotlib.letters import cut, known, width_of

_NAME, _CELL = 34, 24  # letters


def is_of_features(attribution: Attribution) -> bool:
    """Whether there is one array with a value for each sample and feature."""
    return [(values.ndim, dims) for values, dims in attribution.parts] == [(2, ("sample", "feature"))]


def names_of(attribution: Attribution, sample: int = 0) -> list[str]:
    """The names of a sample's columns, cut in the middle where they are long; their positions, where none are known."""
    given: Any = attribution.part_names[0]
    if given is None:
        return [f"feature {position}" for position in range(attribution.parts[0][0].shape[1])]
    return [known(cut(name, _NAME)) for name in (given if isinstance(given[0], str) else given[sample])]


def labels_of(attribution: Attribution, sample: int, *, show_cells: bool = True) -> list[str]:
    """The names of the columns, with the sample's cells."""
    names, cells = names_of(attribution, sample), cells_of(attribution)
    if not show_cells or cells is None:
        return names
    return [f"{name} = {cell_in_words(cell)}" for name, cell in zip(names, cells[sample], strict=True)]


def cells_of(attribution: Attribution) -> np.ndarray | None:
    """The inputs as a table of the shape of the values, if they are one and the values are of its single columns."""
    cells = next(iter(attribution.inputs), None)
    if has_groups(attribution) and attribution.part_names[0] is None:
        return None
    return cells if cells is not None and cells.shape == attribution.parts[0][0].shape else None


def has_groups(attribution: Attribution) -> bool:
    """Whether features were put together into groups."""
    return "feature_mask" in attribution.provenance.get("exec_args", {})


def cell_in_words(cell: Any) -> str:
    """A cell in words: missing ones, dates without hours, numbers with four digits."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell):
        return "missing"
    if isinstance(cell, float | np.floating):
        return f"{cell:.0f}" if 1e3 <= abs(float(cell)) < 1e9 else f"{cell:.4g}"
    text = str(cell)
    return f"“{_shorten(text)}”" if " " in text and isinstance(cell, str) else _shorten(text.removesuffix(" 00:00:00"))


def width_of_labels(labels: Sequence[str], points: float) -> float:
    """How many inches the longest label is wide."""
    return max((width_of(label, points) for label in labels), default=0.0)


def _shorten(text: str) -> str:
    plain = known(" ".join(text.split()))
    return plain if len(plain) <= _CELL else f"{plain[: _CELL - 1]}…"
