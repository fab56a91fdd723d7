"""Keeps torch and tensorflow from crashing each other in one process.

`libtriton.so` (which CUDA builds of torch bring) and tensorflow export LLVM symbols of the same names.
When triton is loaded after tensorflow, its calls land in tensorflow's LLVM and the process dies of a
segmentation fault (tensorflow issue 124205). Loaded first, or with `RTLD_DEEPBIND`, triton finds its own.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from threading import Lock

_TRITON_LIBRARY = "triton._C.libtriton"
_lock = Lock()


def load_safely() -> None:
    """Loads triton so that it cannot meet tensorflow's symbols; does nothing where there is no triton.

    Safe to call at any time and in any order of imports; core calls it before it hands a model to
    another framework. Without tensorflow installed there is nothing to guard against.
    """
    if _TRITON_LIBRARY in sys.modules or not (_installed("triton") and _installed("tensorflow")):
        return
    with _lock:
        if _TRITON_LIBRARY in sys.modules or sys.platform != "linux":
            return
        flags = sys.getdlopenflags()
        sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
        try:
            import_module(_TRITON_LIBRARY)
        finally:
            sys.setdlopenflags(flags)


def _installed(module: str) -> bool:
    if module in sys.modules:
        # A module may be hidden on purpose (`sys.modules["triton"] = None`).
        return sys.modules[module] is not None
    return find_spec(module) is not None
