"""What a torch model consists of, as a hash: for this process, or (where all of it can be read) for any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from cfi_core.framework import Content, UnseenError

_LIBRARIES = ("torch", "torchaudio", "torchvision")
_LEFT_OUT = ("training", "_modules", "_with_softmax")
_CONSTANTS = (torch.dtype, torch.device, torch.layout, torch.memory_format)

Parts = Iterable[tuple[str, nn.Module]]


def fingerprint(parts: Parts) -> str:
    """Of parameters, buffers, tensors, settings, functions and hooks."""
    return _digest(parts, lasting=False)


def content(parts: Parts) -> str | None:
    """The same in every process; None where something cannot be read."""
    try:
        return _digest(parts, lasting=True)
    except UnseenError:
        return None


def _digest(parts: Parts, *, lasting: bool) -> str:
    # A hook may collect things in what it holds, and so would look another one after each run.
    held = Content(lasting=lasting, follow=lasting, known=_known, libraries=_LIBRARIES)
    for name, module in parts:
        kind = type(module)
        held.write(f"{name}:{held.of_class(kind) if lasting else f'{kind.__qualname__}:{id(kind.forward)}'}")
        for key, value in sorted(vars(module).items()):
            if key not in _LEFT_OUT:
                held.write(key)
                held.add(value)
    return held.hexdigest()


def _known(value: Any) -> tuple[str, np.ndarray | None] | None:
    if isinstance(value, _CONSTANTS):
        return str(value), None
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.is_meta:
        return None
    flat = value.detach().cpu().resolve_conj().contiguous().flatten().view(torch.uint8).numpy()
    return str((value.dtype, value.device, tuple(value.shape))), flat
