"""Models from the output of their embedding on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cfi_core.errors import InputError
from cfi_torch.derivation import derive, view

_MARK = "_cfi_starts_at_embedding"


def find_embedding(model: nn.Module, inputs: Sequence[Any], layer: str | None = None) -> tuple[str, Tensor] | None:
    """The one layer that turns the tokens (the first input) into vectors, and its output; None if there is none.

    The layer that a model names itself (`get_input_embeddings`, as transformer libraries have it) comes first.

    Args:
        model: A twin.
        inputs: All that a forward pass takes.
        layer: The one it is, where that is known.
    """
    found = _layers_on(model, inputs)
    own = own_embedding(model)
    name = layer or next((name for name in found if model.get_submodule(name) is own), None)
    if name is None and len(found) > 1:
        # Something else may hold the same numbers as the tokens, such as positions; of other tokens it does not.
        tokens = inputs[0]
        again = _layers_on(model, [tokens.max() + tokens.min() - tokens, *inputs[1:]])
        found = {name: output for name, output in found.items() if name in again}
    if name is None and len(found) == 1:
        (name,) = found
    return (name, found[name]) if name in found else None


def _layers_on(model: nn.Module, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """What the layers without others inside give that make vectors of the first input."""
    tokens, found = inputs[0], dict[str, Tensor]()

    def note(name: str, given: Any, output: Any) -> None:
        if _is(given, tokens) and isinstance(output, Tensor) and output.shape[:-1] == tokens.shape:
            found.setdefault(name, output.detach().clone())

    named = {
        name: module for name, module in model.named_modules() if name and not any(True for _ in module.children())
    }
    with torch.no_grad(), _watch(named, note):
        model(*inputs)
    return found


def starts_at_embedding(model: nn.Module) -> bool:
    """Whether the model takes the output of its embedding, also without its softmax."""
    return bool(getattr(model, _MARK, False) or getattr(vars(model).get("_with_softmax"), _MARK, False))


def from_embedding(model: nn.Module, layer: str) -> nn.Module:
    """The same module, which takes the output of that layer in front of its inputs and uses it in its place."""
    kind: Any = type(model)
    return view(model, _class_from(kind, layer))


@functools.lru_cache(maxsize=64)
def _class_from(kind: Any, layer: str) -> type[nn.Module]:
    def forward(self: nn.Module, activation: Tensor, *inputs: Any) -> Any:
        used, embedding = [], self.get_submodule(layer)

        def call(*given: Any, **named: Any) -> Any:
            if not _is(given, inputs[0]):
                return embedding._call_impl(*given, **named)
            used.append(True)
            return activation

        # In the place of the whole call, so that rules and hooks of others see nothing of the layer.
        former = embedding._compiled_call_impl
        embedding._compiled_call_impl = call
        try:
            outputs = kind.forward(self, *inputs)
        finally:
            embedding._compiled_call_impl = former
        if not used:
            raise InputError(f"The model does not give its tokens to {layer!r} in this pass. Explain a layer instead.")
        return outputs

    derived = derive(kind, forward, f"from {layer}")
    setattr(derived, _MARK, True)
    return derived


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
