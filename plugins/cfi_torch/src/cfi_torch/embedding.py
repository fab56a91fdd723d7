"""Models from the output of their embedding on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cfi_core.errors import InputError
from cfi_torch.naming import derive, view


def find_embedding(model: nn.Module, inputs: Sequence[Any]) -> tuple[str, Tensor] | None:
    """The one layer that turns the tokens (the first input) into vectors, and its output; None if there is none.

    The layer that a model names itself (`get_input_embeddings`, as transformer libraries have it) comes first.

    Args:
        model: A twin.
        inputs: All that a forward pass takes.
    """
    tokens, found = inputs[0], dict[str, Tensor]()

    def note(name: str, given: Any, output: Any) -> None:
        if _is(given, tokens) and isinstance(output, Tensor) and output.shape[:-1] == tokens.shape:
            found.setdefault(name, output.detach().clone())

    named = {
        name: module for name, module in model.named_modules() if name and not any(True for _ in module.children())
    }
    with torch.no_grad(), _watch(named, note):
        model(*inputs)
    own = own_embedding(model)
    name = next((name for name in found if named[name] is own), None if len(found) != 1 else next(iter(found)))
    return None if name is None else (name, found[name])


def from_embedding(model: nn.Module, layer: str) -> nn.Module:
    """The same module, which takes the output of that layer in front of its inputs and uses it in its place."""
    kind: Any = type(model)
    return view(model, _class_from(kind, layer))


@functools.lru_cache(maxsize=64)
def _class_from(kind: Any, layer: str) -> type[nn.Module]:
    def forward(self: nn.Module, activation: Tensor, *inputs: Any) -> Any:
        used: list[bool] = []

        def give(_module: nn.Module, given: Any, _output: Any) -> Tensor | None:
            if not _is(given, inputs[0]):
                return None
            used.append(True)
            return activation

        handle = self.get_submodule(layer).register_forward_hook(give)
        try:
            outputs = kind.forward(self, *inputs)
        finally:
            handle.remove()
        if not used:
            raise InputError(f"The model does not give its tokens to {layer!r} in this pass. Explain a layer instead.")
        return outputs

    return derive(kind, forward, f"from {layer}")


def own_embedding(model: nn.Module) -> nn.Module | None:
    """The layer that the model names itself as its embedding."""
    try:
        own = model.get_input_embeddings()
    except (AttributeError, NotImplementedError, TypeError):
        return None
    return own if isinstance(own, nn.Module) else None


def _is(given: Any, tokens: Tensor) -> bool:
    first = given[0] if isinstance(given, tuple) and given else None
    if not isinstance(first, Tensor) or first.shape != tokens.shape or first.is_floating_point():
        return False
    return first is tokens or torch.equal(first.to(tokens.dtype), tokens)


@contextmanager
def _watch(modules: dict[str, nn.Module], note: Callable[[str, Any, Any], None]) -> Iterator[None]:
    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, given, output: note(name, given, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
