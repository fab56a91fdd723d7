"""Leaves no trace of a call in the process."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import RLock

import numpy as np

from cfi_core.adapters import adapter_for
from cfi_core.errors import UnknownFrameworkError
from cfi_core.registry import Registry

# Random generators and warning filters belong to the whole process: two calls at once would draw from each
# other's numbers, and restore each other's state.
_one_at_a_time = RLock()


@contextmanager
def unchanged_process(registry: Registry) -> Iterator[None]:
    """Restores global random generators, warning filters and framework settings on leaving, also after an error.

    Calls from several threads wait for each other.
    """
    with _one_at_a_time, ExitStack() as stack:
        python, numpy_state = random.getstate(), np.random.get_state()  # restored, not drawn from
        filters = warnings.filters[:]  # catch_warnings() would also reset what has been shown once
        # A framework that the process has not loaded has no state that could be lost.
        for spec in (one for one in registry.frameworks.values() if one.module in sys.modules):
            # An adapter that does not load touches nothing; it is told when a model of its framework comes.
            with suppress(UnknownFrameworkError):
                stack.enter_context(adapter_for(registry, spec.name).unchanged())
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
            warnings.filters[:] = filters  # type: ignore[index]
