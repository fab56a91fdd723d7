"""What a torch model consists of, as a hash: for this process, or (where all of it can be read) for any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any

import numpy as np
import torch
import xxhash
from torch import nn

_LEFT_OUT = ("training", "_modules", "_with_softmax")
_WORDS = (int, float, complex, str, bytes)
_CONSTANTS = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)
_LIBRARIES = ("torch", "torchvision", "builtins")

Parts = Iterable[tuple[str, nn.Module]]


class _UnseenError(Exception):
    """Something whose content cannot be read."""


def fingerprint(parts: Parts) -> str:
    """Of parameters, buffers, tensors, settings, functions and hooks; functions and other objects by identity."""
    return _digest(parts, lambda kind: str(id(kind.forward)), lambda value: f"{type(value).__qualname__}@{id(value)}")


def content(parts: Parts) -> str | None:
    """The same in every process, by the code of the modules' own classes; None where something cannot be read.

    Functions that this code calls are not followed.
    """
    try:
        return _digest(parts, _code_of, _readable)
    except _UnseenError:
        return None


def _digest(parts: Parts, code: Callable[[type[nn.Module]], str], other: Callable[[Any], str]) -> str:
    digest = xxhash.xxh3_128()
    for name, module in parts:
        digest.update(f"{name}:{type(module).__qualname__}:{code(type(module))}".encode())
        for key, value in sorted(vars(module).items()):
            if key not in _LEFT_OUT:
                digest.update(f";{key}=".encode())
                _add(digest, value, other)
    return digest.hexdigest()


def _add(digest: Any, value: Any, other: Callable[[Any], str], depth: int = 4) -> None:
    if isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta:
        digest.update(str((value.dtype, value.device, tuple(value.shape))).encode())
        digest.update(value.detach().cpu().resolve_conj().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(str((value.dtype, value.shape)).encode())
        digest.update(np.ascontiguousarray(value).data)
    elif value is None or isinstance(value, _WORDS):
        digest.update(repr(value).encode())
    elif isinstance(value, Mapping | list | tuple | set | frozenset) and depth:
        entries = list(value.items()) if isinstance(value, Mapping) else list(value)
        digest.update(f"{type(value).__name__}[{len(entries)}]".encode())
        for entry in entries:
            _add(digest, entry, other, depth - 1)
    else:
        # A function or another object: another one in its place is noticed.
        digest.update(other(value).encode())


def _readable(value: Any) -> str:
    """Objects of which all is said by a name, by torch's version or by their parts."""
    if isinstance(value, _CONSTANTS):
        return str(value)
    if isinstance(value, partial):
        given = [*value.args, *sorted((value.keywords or {}).items())]
        return f"partial({_readable(value.func)},{','.join(map(_readable, given))})"
    if value is None or isinstance(value, _WORDS):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{','.join(map(_readable, value))}]"
    if isinstance(value, type) and (issubclass(value, nn.Module) or _is_of_library(value)):
        return f"{value.__module__}.{value.__qualname__}:{_code_of(value)}"
    if isinstance(value, BuiltinFunctionType | FunctionType) and _is_of_library(value):
        return f"{value.__module__}.{value.__qualname__}"
    raise _UnseenError


def _code_of(kind: type) -> str:
    """Code of a class and of those that it is made of, as far as they are no library's."""
    said = []
    for base in kind.__mro__:
        said.append(f"{base.__module__}.{base.__qualname__}")
        if not _is_of_library(base):
            said += [
                f"{name}:{_instructions(value.__code__)}"
                for name, value in sorted(vars(base).items())
                if isinstance(value, FunctionType)
            ]
    return ";".join(said)


def _instructions(code: CodeType) -> str:
    constants = [_instructions(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return f"{code.co_code.hex()}{code.co_names}[{','.join(constants)}]"


def _is_of_library(value: Any) -> bool:
    return (value.__module__ or "builtins").partition(".")[0] in _LIBRARIES
