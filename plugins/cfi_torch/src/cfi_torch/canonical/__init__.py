"""Canonical copies of torch models: every operation that a rule could attach to is a module, called once.

A forward pass is recorded (`recording`), with several numbers of samples (`samples`); the operations in it are named
(`operations`), made into modules (`building`), and run in the order in which the model ran them (`model`).
"""

from cfi_torch.canonical.building import rewrite

__all__ = ["rewrite"]
