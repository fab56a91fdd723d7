"""How the work arrives in a process of another machine."""

from __future__ import annotations

import cloudpickle

from cfi_core.coexistence import load_safely
from cfi_scale.work import Worker


def unpack(packed: bytes) -> Worker:
    """The worker of a process; frameworks are loaded with care of each other, before any of them is."""
    load_safely()
    return Worker(cloudpickle.loads(packed))
