"""Leaves no trace of a call in a model that writes to itself while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cfi_core.records import Original, Purity


@contextmanager
def keep_model(original: Original, purity: Purity | None = None) -> Iterator[None]:
    """Undoes on leaving what passes have written to the user's model, unless it is known to leave itself alone."""
    state = original.adapter.state(original.model) if purity is None or purity.writes else None
    try:
        yield
    finally:
        if state is not None:
            state.restore()
