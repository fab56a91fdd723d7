"""What a forward pass could write to: parameters, buffers, and numbers that modules count with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import xxhash
from torch import nn

from cfi_core.framework import State
from cfi_torch.content import LIBRARIES
from cfi_torch.function import TorchFunction, modules_behind

LARGEST_COPY = 2 << 30
"""In bytes: of models that hold more a hash is kept, which tells a change and cannot undo it."""

Slot = tuple[dict[str, Any], str]
"""Where a module holds something: the table, and the key in it."""


@dataclass(frozen=True)
class _Held:
    """A tensor of a module, as it was."""

    slot: Slot
    tensor: torch.Tensor
    memory: torch.Tensor  # of the tensor, should it be given another
    values: torch.Tensor | str  # a copy of its bytes, or their hash
    differentiated: bool


class ModelState(State):
    """Of all modules, by dotted names, which are the same in a twin. Copies lie in the machine's own memory."""

    def __init__(self, model: nn.Module, *, passes_alone: bool = False) -> None:
        found = dict(_tensors(model))
        is_large = sum(tensor.numel() * tensor.element_size() for _, tensor in found.values()) > LARGEST_COPY
        self.is_whole, may_write = not is_large, not (passes_alone and _is_of_libraries(model))
        self._held: dict[str, _Held] = {}
        for name, (slot, tensor) in found.items():
            if (values := _bytes(tensor)) is not None:
                is_copied = not is_large and (may_write or not isinstance(tensor, nn.Parameter))
                kept = _copy(values, tensor) if is_copied else _hash(values)
                self._held[name] = _Held(slot, tensor, tensor.data, kept, tensor.requires_grad)
        self._numbers = list(_numbers(model))

    def changes(self, model: nn.Module) -> tuple[str, ...]:
        """Names of tensors with other values. One that has another shape, or is new, is taken for a cache."""
        now = {name: tensor for name, (_, tensor) in _tensors(model) if name in self._held}
        found = tuple(name for name, tensor in now.items() if self._has_changed(name, tensor))
        self.is_whole = self.is_whole and all(isinstance(self._held[name].values, torch.Tensor) for name in found)
        return found

    def numbers(self, model: nn.Module) -> Mapping[str, float]:
        """Whole and other numbers, without marks that are true or false."""
        return {name: table[key] for name, (table, key), _ in _numbers(model)}

    def restore(self) -> None:
        """Writes to what has changed, and to nothing else."""
        for name, held in self._held.items():
            table, key = held.slot
            if isinstance(table, dict) and table.get(key) is not held.tensor:  # TorchScript's are none
                table[key] = held.tensor
            if held.tensor.data_ptr() != held.memory.data_ptr():
                held.tensor.data = held.memory
            if isinstance(held.values, torch.Tensor) and self._has_changed(name, held.memory):
                held.memory.copy_(held.values.view(held.memory.dtype).reshape(held.memory.shape))
            if held.tensor.requires_grad != held.differentiated:
                held.tensor.requires_grad_(held.differentiated)
        for _, (table, key), value in self._numbers:
            if table.get(key) != value:
                table[key] = value

    def _has_changed(self, name: str, tensor: torch.Tensor) -> bool:
        held = self._held[name]
        if (tensor.shape, tensor.dtype) != (held.memory.shape, held.memory.dtype):
            return False
        values = _bytes(tensor)
        if values is None:
            return False
        return _hash(values) != held.values if isinstance(held.values, str) else not torch.equal(values, held.values)


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules, and those that can be seen behind a function."""
    yield from model.named_modules()
    for part in modules_behind(model.function) if isinstance(model, TorchFunction) else ():
        yield from part.named_modules(prefix=type(part).__name__)


def _tensors(model: nn.Module) -> Iterator[tuple[str, tuple[Slot, torch.Tensor]]]:
    for prefix, module in _modules(model):
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    yield f"{prefix}.{key}".lstrip("."), ((table, key), tensor)


def _numbers(model: nn.Module) -> Iterator[tuple[str, Slot, float]]:
    for prefix, module in _modules(model):
        for key, value in vars(module).items():
            if type(value) in (int, float):
                yield f"{prefix}.{key}".lstrip("."), (vars(module), key), value


def _copy(values: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Of a tensor's bytes, which on another device, or in another order, are a copy already."""
    return values.clone() if values.data_ptr() == tensor.data_ptr() else values


def _is_of_libraries(model: nn.Module) -> bool:
    """Whether nothing runs but the modules of torch and its libraries, which do not write to their parameters.

    Of these a hash is enough, which takes a tenth of the time of a copy, and no memory.
    """
    return not isinstance(model, TorchFunction) and all(map(_is_plain, model.modules()))


def _is_plain(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule) or not _is_known(type(module)):
        return False
    for name, value in vars(module).items():
        if name == "forward" or (name.endswith("_hooks") and value):
            return False
        if callable(value) and not isinstance(value, nn.Module | torch.Tensor) and not _is_known(value):
            return False
    return True


def _is_known(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").partition(".")[0] in LIBRARIES


def _bytes(tensor: torch.Tensor) -> torch.Tensor | None:
    """Its values on the CPU; None of a kind that has none, or that cannot be read."""
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        return None
    try:
        return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
    except Exception:  # noqa: BLE001 - subclasses of tensors refuse in any way
        return None


def _hash(values: torch.Tensor) -> str:
    return str(xxhash.xxh3_128_hexdigest(values.numpy()))
