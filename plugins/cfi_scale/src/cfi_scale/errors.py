"""Errors of this package; each says what to do next."""

from __future__ import annotations

from cfi_core import CFIError


class StoreError(CFIError):
    """The store cannot be used: it answers another question, another run writes to it, or the disk is full."""


class RunError(CFIError):
    """A run cannot go on: too many samples failed, or workers were lost. What is in the store stays valid."""
