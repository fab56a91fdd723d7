"""What a torch model consists of, as a hash: for this process, or (where all of it can be read) for any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from cfi_core.framework import Content, UnseenError, identity, refuse

_LIBRARIES = ("torch", "torchaudio", "torchvision")
_LEFT_OUT = ("training", "_modules", "_with_softmax")
_CONSTANTS = (torch.dtype, torch.device, torch.layout, torch.memory_format)

Modules = Iterable[tuple[str, nn.Module]]


def fingerprint(modules: Modules) -> str:
    """Of parameters, buffers, tensors, settings, functions and hooks."""
    # A hook may collect things in what it holds, and so would look another one after each run.
    held = Content(identity, follow=False, parts=_parts)
    for name, module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            _add_script(held, name, module)
            continue
        held.write(f"{name}:{type(module).__qualname__}:{id(type(module).forward)}")
        _add(held, module)
    return held.hexdigest()


def content(modules: Modules) -> str | None:
    """The same in every process; None where something cannot be read."""
    held = Content(refuse, parts=_parts, libraries=_LIBRARIES)
    try:
        for name, module in modules:
            held.write(name)
            held.add(type(module))
            _add(held, module)
    except UnseenError:
        return None
    return held.hexdigest()


def _add(held: Content, module: nn.Module) -> None:
    for key, value in sorted(vars(module).items()):
        if key not in _LEFT_OUT:
            held.write(key)
            held.add(value)


def _add_script(held: Content, name: str, module: torch.jit.ScriptModule) -> None:
    """TorchScript, whose class tells nothing: its code and tensors."""
    held.write(f"{name}:{module.original_name}:{getattr(module, 'code', '')}")
    for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        held.write(key)
        held.add(tensor.detach())


def _parts(value: Any) -> list[Any] | None:
    if isinstance(value, _CONSTANTS):
        return [str(value)]
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.is_meta:
        return None
    flat = value.detach().cpu().resolve_conj().contiguous().flatten().view(torch.uint8).numpy()
    return [str((value.dtype, value.device, tuple(value.shape))), flat]
