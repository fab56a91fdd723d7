"""What a torch model consists of, as a hash: for this process, or (where all of it can be read) for any."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from cfi_core.framework import Content, UnseenError, identity, refuse

LIBRARIES = ("torch", "torchaudio", "torchvision")
_LEFT_OUT = ("training", "_modules", "_with_softmax")
_CONSTANTS = (torch.dtype, torch.device, torch.layout, torch.memory_format)

_PLAIN, _SIZED = (bool, int, float, str, type(None)), (dict, list, set, tuple)
_TABLES = (dict, OrderedDict)
_SOME = 4

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
        held.write(f"{name}:{type(module).__qualname__}:{identity(type(module).forward)}")
        _add(held, module)
    return held.hexdigest()


def glance(modules: Modules) -> Hashable:
    """Modules, settings, hooks and tensors by their identities, versions and some of their numbers."""
    marks: list[Hashable] = []
    numbers: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for name, module in modules:
        marks.append((name, id(module), id(type(module).forward), *_outline(module)))
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is None:
                continue
            if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.layout is not torch.strided:
                raise UnseenError(type(tensor).__qualname__)
            version = None if tensor.is_inference() else tensor._version
            marks.append((id(tensor), tensor.data_ptr(), version, tuple(tensor.shape)))
            numbers.setdefault((tensor.dtype, tensor.device), []).append(_some_of(tensor.detach()))
    some = (torch.cat(rows).view(torch.uint8).cpu().numpy().tobytes() for rows in numbers.values())
    return (*marks, *some)


def _outline(module: nn.Module) -> Iterator[Hashable]:
    """Settings that are words or numbers, and which other things the module holds, how many of them."""
    for key, value in vars(module).items():
        if key not in _LEFT_OUT:
            yield value if isinstance(value, _PLAIN) else (id(value), len(value) if isinstance(value, _SIZED) else 0)


def _some_of(tensor: torch.Tensor) -> torch.Tensor:
    """Up to about four of its numbers, spread over all of it where it lies in one piece."""
    if not tensor.is_contiguous():
        return tensor[(0,) * (tensor.ndim - 1)][:_SOME].contiguous()
    return tensor.view(-1)[:: max(1, tensor.numel() // _SOME)].contiguous()


def content(modules: Modules) -> str | None:
    """The same in every process; None where something cannot be read."""
    held = Content(refuse, parts=_parts, libraries=LIBRARIES)
    try:
        for name, module in modules:
            held.write(name)
            held.add(type(module))
            _add(held, module)
    except UnseenError:
        return None
    return held.hexdigest()


def _add(held: Content, module: nn.Module) -> None:
    said: list[str] = []
    others: list[tuple[str, Any]] = []
    for key, value in sorted(vars(module).items()):
        if key in _LEFT_OUT:
            continue
        if type(value) in _PLAIN:
            said.append(f"{key}={value!r}")
        elif type(value) in _TABLES and not value:  # modules have many
            said.append(f"no {key}")
        else:
            others.append((key, value))
    held.write(";".join(said))
    for key, value in others:
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
