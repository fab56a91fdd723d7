"""TorchRay, imported without its noise; `torchray.benchmark` is never imported (it downloads, and wants pymongo)."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

from cfi_core.silence import without_warnings

with without_warnings():
    from torchray import utils
    from torchray.attribution import common, deconvnet, excitation_backprop, guided_backprop

__all__ = ["common", "deconvnet", "excitation_backprop", "guided_backprop", "private_copy", "utils"]


def private_copy(name: str, **exchanged: Any) -> ModuleType:
    """A module of `torchray.attribution` once more, known to nobody else, with some of its names exchanged."""
    spec = importlib.util.find_spec(f"torchray.attribution.{name}")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(exchanged)
    return module
