"""Records what the passes of a run feed to a torch model, and what goes back through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from cfi_core.framework import Pass, Passes, flatten

Read = Callable[[torch.Tensor], np.ndarray]


@contextmanager
def watch_passes(model: nn.Module, passes: Passes, layers: Sequence[Any], read: Read) -> Iterator[None]:
    """Hooks the model and these layers before anybody else does: what others make of results is not the model's."""
    watch = _Watch(passes, read)
    others = {i: one for i, one in enumerate(layers) if isinstance(one, nn.Module) and one is not model}
    handles = [model.register_forward_pre_hook(watch.enter), model.register_forward_hook(watch.leave)]
    try:
        for position, layer in others.items():
            handles += [layer.register_forward_pre_hook(watch.enter_layer)]
            handles += [layer.register_forward_hook(watch.leave_layer)]
            # The one place that sees what the hooks of others have made of a call.
            layer._compiled_call_impl = partial(watch.call_layer, position, layer)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in others.values():
            layer._compiled_call_impl = None


@contextmanager
def count_passes(model: nn.Module, count: Callable[[int], None]) -> Iterator[None]:
    """Counts the samples of each forward pass."""

    def leave(module: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        tensors = [one for one in args if isinstance(one, torch.Tensor) and one.ndim]
        count(len(tensors[0]) if tensors else 1)

    handle = model.register_forward_hook(leave)
    try:
        yield
    finally:
        handle.remove()


class _Watch:
    """Taps lie between what the model is called with and what it computes with; gradients show there and at outputs."""

    def __init__(self, passes: Passes, read: Read) -> None:
        self._passes, self._read = passes, read
        self._taps: tuple[Any, ...] = ()
        self._known: list[Pass] = []  # the pass that the taps belong to, once it is known
        self._computed: Any = None  # by the layer that is called
        self._given: dict[int, torch.Tensor] = {}  # in the place of what layers computed
        self._copies: set[int] = set()  # of these, what is but a copy of it, through which gradients go on
        self._changed = False

    def enter(self, model: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before a pass."""
        self._known, self._given, self._copies, self._changed = [], {}, set(), False
        self._taps = tuple(self._tap("gradients", position, one) for position, one in enumerate(args))
        return self._taps

    def leave(self, model: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        """After a pass, whose arguments may be others than it was called with."""
        if (
            not args
            or not all(isinstance(one, torch.Tensor) and one.numel() for one in args)
            or not all(isinstance(one, torch.Tensor) and one.ndim and len(one) == len(args[0]) for one in args)
        ):
            return
        kept = self._passes.open(len(args[0]), _extremes(args[0]))
        kept.changed = self._changed or any(len(one) != kept.samples for one in self._given.values())
        if all(one is tap for one, tap in zip(args, self._taps, strict=False)):
            self._known.append(kept)
        kept.inputs = [self._rows(kept, one) for one in args]
        kept.activations = {i: self._rows(kept, one) for i, one in self._given.items() if not kept.changed}
        for position, output in enumerate(flatten(outputs)):
            if isinstance(output, torch.Tensor) and output.ndim and len(output) == kept.samples:
                kept.outputs[position] = self._rows(kept, output)
                if output.requires_grad:
                    output.register_hook(partial(self._keep, [kept], "cotangents", position))

    def enter_layer(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """Before a layer, and before what others do to its arguments."""
        self._computed = args

    def leave_layer(self, layer: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        """After a layer, and before what others do to its outputs."""
        self._changed |= any(one is not given for one, given in zip(args, self._computed, strict=False))
        self._computed = outputs

    def call_layer(self, position: int, layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The call of a layer."""
        outputs = layer._call_impl(*args, **kwargs)
        if outputs is self._computed:
            return outputs
        if not isinstance(outputs, torch.Tensor) or not outputs.ndim or position in self._given:
            self._changed = True
            return outputs
        if outputs.grad_fn is not None and _is_equal(outputs, self._computed):
            # What comes back at a copy before this one comes through this one too: no model opened at both tells that.
            self._given = {place: one for place, one in self._given.items() if place not in self._copies}
            self._copies.add(position)
        self._given[position] = outputs.detach().clone()  # what follows may change it in place
        return self._tap("at_layers", position, outputs)

    def _tap(self, what: str, position: int, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not (value.requires_grad and torch.is_grad_enabled()):
            return value
        tap = value.view_as(value)
        tap.register_hook(partial(self._keep, self._known, what, position))
        return tap

    def _keep(self, kept: list[Pass], what: str, position: int, gradient: torch.Tensor) -> None:
        for one in kept:
            if what != "at_layers" or position in one.activations:
                getattr(one, what).setdefault(position, self._rows(one, gradient))

    def _rows(self, kept: Pass, tensor: torch.Tensor) -> np.ndarray:
        return np.array(self._read(tensor.detach()[torch.as_tensor(kept.rows, device=tensor.device)]))


def _is_equal(one: torch.Tensor, other: Any) -> bool:
    return isinstance(other, torch.Tensor) and one.shape == other.shape and torch.equal(one, other)


def _extremes(values: torch.Tensor) -> list[int]:
    """The samples with the largest and the smallest value."""
    if not values.numel() or values.is_complex():
        return []
    rows = values.detach().reshape(len(values), -1)
    return [int(rows.amax(1).argmax()), int(rows.amin(1).argmin())]
