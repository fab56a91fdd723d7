"""Step 7 of a call: run the method."""

from __future__ import annotations

import random

import numpy as np

from cfi_core.contract import MethodRequest, MethodResult
from cfi_core.errors import CFIError, MethodError
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.specs import resolve


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
