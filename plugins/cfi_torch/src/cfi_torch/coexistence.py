"""Keeps torch and tensorflow from crashing each other in one process.

`libtriton.so` (which CUDA builds of torch bring) and tensorflow export LLVM symbols of the same names.
When triton is loaded after tensorflow, its calls land in tensorflow's LLVM and the process dies of a
segmentation fault (tensorflow issue 124205). Loaded first, or with `RTLD_DEEPBIND`, triton finds its own.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from cfi_core.adapters import is_importable
from cfi_core.turns import Lock

_TRITON_LIBRARY = "triton._C.libtriton"
_lock = Lock()


def load_triton() -> None:
    """Loads triton so that it cannot meet tensorflow's symbols; without the two there is nothing to guard against."""
    if _TRITON_LIBRARY in sys.modules or not (is_importable("triton") and is_importable("tensorflow")):
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
