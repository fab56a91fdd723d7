"""Step 7 of a call: run the method, and leave no trace of it in the process."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock

import numpy as np

from cfi_core.contract import MethodRequest, MethodResult
from cfi_core.detection import adapter_for
from cfi_core.errors import CFIError, MethodError
from cfi_core.frameworks.base import FrameworkAdapter
from cfi_core.registry import Registry
from cfi_core.specs import resolve

# Random generators and warning filters belong to the whole process: two calls at once would draw from each
# other's numbers, and restore each other's state.
_one_at_a_time = RLock()


def run(adapter: FrameworkAdapter, request: MethodRequest) -> MethodResult:
    """Runs the method with all random generators seeded.

    Raises:
        MethodError: The toolset failed; its own error is the cause.
    """
    method = request.method
    np.random.seed(request.seed % 2**32)  # toolsets draw from numpy's global generator
    random.seed(request.seed)
    with adapter.seeded(request.seed):
        try:
            return resolve(method.implementation)(request)
        except CFIError:
            raise
        except Exception as error:  # a toolset is foreign code and may raise anything
            raise MethodError(
                f"{method.key} of {method.toolset} failed: {type(error).__name__}: {error} "
                f"Check the arguments against the toolset's documentation ({method.citation})."
            ) from error


@contextmanager
def unchanged_process(registry: Registry) -> Iterator[None]:
    """Restores global random generators, warning filters and framework settings on leaving, also after an error.

    Calls from several threads wait for each other.
    """
    python, numpy_state = random.getstate(), np.random.get_state()  # restored, not drawn from
    with _one_at_a_time, ExitStack() as stack:
        for spec in registry.frameworks.values():
            # A framework that the process has not loaded has no state that could be lost.
            if spec.module in sys.modules:
                stack.enter_context(adapter_for(registry, spec.name).unchanged())
        stack.enter_context(_unchanged_filters())
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


@contextmanager
def _unchanged_filters() -> Iterator[None]:
    # warnings.catch_warnings() would also reset what has been shown once; only the list of filters is kept.
    filters = warnings.filters[:]
    try:
        yield
    finally:
        warnings.filters[:] = filters  # type: ignore[index]
