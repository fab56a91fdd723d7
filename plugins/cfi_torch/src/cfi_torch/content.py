"""What a torch model consists of, as a hash: for this process, or (where all of it can be read) for any."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from cfi_core.framework import Content, UnseenError, identity, refuse

_LIBRARIES = ("torch", "torchaudio", "torchvision")
_LEFT_OUT = ("training", "_modules", "_with_softmax")
_CONSTANTS = (torch.dtype, torch.device, torch.layout, torch.memory_format)

Modules = Iterable[tuple[str, nn.Module]]


def fingerprint(modules: Modules) -> str:
    """Of parameters, buffers, tensors, settings, functions and hooks; another one each time if some cannot be read."""
    with suppress(UnseenError):
        return _fingerprint(modules)
    return uuid4().hex


def _fingerprint(modules: Modules) -> str:
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
    said = str((type(value).__qualname__, value.dtype, value.device, tuple(value.shape)))
    if is_traceable_wrapper_subclass(value):  # such as the quantised weights of torchao
        names, context = value.__tensor_flatten__()
        return [said, context, *(getattr(value, name) for name in names)]
    try:
        flat = value.detach().cpu().resolve_conj().contiguous().flatten().view(torch.uint8).numpy()
    except Exception as error:  # subclasses of tensors refuse in any way
        raise UnseenError(said) from error
    return [said, flat]
