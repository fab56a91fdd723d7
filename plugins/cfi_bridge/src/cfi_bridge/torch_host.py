"""Models of other frameworks as modules of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from cfi_bridge.span import Examples, Span, refuse_second_derivatives, span
from cfi_core.adapters import adapter_for
from cfi_core.contract import BridgeRequest, Converted
from cfi_core.errors import InputError
from cfi_core.registry import registry


def bridge(request: BridgeRequest) -> Converted:
    """Wraps a model so that it runs in its own framework, inside torch's autograd.

    Inputs, layers and images among the outputs have their channels on axis 1. The layers that were asked for are the
    submodules `layers.0`, `layers.1`, … in the order in which the model computes them; forward hooks read and replace
    their activations.

    Raises:
        LayerError: A layer cannot be opened.
    """
    spanned, examples = span(request, adapter_for(registry(), "torch"), channels_last=False)
    model = BridgedModel(spanned, examples).eval()
    names = [f"layers.{position}" for position in range(len(spanned.layer_axes))]
    return Converted(model, spanned.input_axes, spanned.output_axes, spanned.layers(names), spanned.runner)


class TorchTap(nn.Identity):
    """Stands for a layer of the model: what goes through is its activation.

    Attributes:
        layer: The layer's name in the model.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, activation: Tensor) -> Tensor:
        """The activation; one that depends on no gradient so far can be differentiated by from here on."""
        if torch.is_grad_enabled() and activation.is_floating_point() and not activation.requires_grad:
            # As in a model of torch's own, where the layer's parameters have a gradient (an embedding of tokens).
            return activation.detach().requires_grad_()
        return activation

    def extra_repr(self) -> str:
        """The layer's name in the model."""
        return repr(self.layer)


class BridgedModel(nn.Module):
    """A model of another framework.

    Attributes:
        layers: A tap for each opened layer.
        like: Of the device and floating point type that the model takes its inputs in.
    """

    like: Tensor

    def __init__(self, spanned: Span, examples: Examples) -> None:
        super().__init__()
        self._span = spanned
        self.layers = nn.ModuleList(TorchTap(name) for name in spanned.runner.layers)
        first = examples.inputs[0]
        device = first.device if isinstance(first, Tensor) else None
        self.register_buffer("like", torch.empty(0, device=device), persistent=False)
        inputs = [spanned.outwards(value, None, self) for value in examples.inputs]
        results = [spanned.outwards(value, None, self) for value in examples.outputs]
        self._dtypes = tuple(value.dtype for value in inputs)
        floating = next((value.dtype for value in (*inputs, *results) if value.is_floating_point()), torch.float32)
        self.like = self.like.to(floating)

    def forward(self, *inputs: Tensor) -> Any:
        """The model's output; several as a flat tuple.

        Raises:
            InputError: Not as many inputs as the model takes.
        """
        if len(inputs) != len(self._dtypes):
            raise InputError(
                f"The {self._span.original.name} model takes {len(self._dtypes)} inputs, got {len(inputs)}: pass one "
                f"tensor for each."
            )
        values = [_in_type(value, dtype) for value, dtype in zip(inputs, self._dtypes, strict=True)]
        for stage, tap in enumerate(self.layers):
            values.append(tap(*self._results(stage, values)))
        results = self._results(len(self.layers), values)
        return results[0] if len(results) == 1 else results

    def __repr__(self) -> str:
        layers = ", ".join(tap.layer for tap in self.layers)
        count = len(self._dtypes)
        return (
            f"{type(self).__name__}(a {self._span.original.name} model with {count} input{'s' * (count > 1)}"
            f"{f'; layers: {layers}' if layers else ''})"
        )

    def _results(self, stage: int, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled() and any(value.requires_grad for value in values):
            return _InAnotherFramework.apply(self, stage, *values)
        return self._span.run(stage, values, self)


class _InAnotherFramework(torch.autograd.Function):
    """One stage as a node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, model: BridgedModel, stage: int, *values: Tensor) -> tuple[Tensor, ...]:
        results, ctx.pullback = model._span.linearize(stage, values, model)
        ctx.set_materialize_grads(False)
        # Memory may be shared with the other framework, whose record of this pass knows nothing of changes in place.
        ctx.save_for_backward(*values, *results)
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        values = ctx.saved_tensors  # raises where one was changed in place, or where the graph is used up
        wanted = ctx.needs_input_grad[2:]
        gradients = ctx.pullback(cotangents, wanted)
        if torch.is_grad_enabled():
            gradients = _first_order(gradients, (*values[: len(wanted)], *cotangents))
        return (None, None, *gradients)


class _FirstOrder(torch.autograd.Function):
    """Gradients that cannot be differentiated in turn."""

    @staticmethod
    def forward(ctx: Any, gradients: tuple[Tensor, ...], *sources: Tensor | None) -> tuple[Tensor, ...]:
        return gradients

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> NoReturn:
        refuse_second_derivatives()


def _first_order(gradients: Sequence[Tensor | None], sources: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients, with an error instead of a missing path where they are differentiated in turn."""
    found = iter(_FirstOrder.apply(tuple(one for one in gradients if one is not None), *sources))
    return [None if one is None else next(found) for one in gradients]


def _in_type(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The input in the type that the model takes there; whether numbers are whole ones is the caller's to say."""
    same_kind = value.is_floating_point() == dtype.is_floating_point and torch.bool not in (value.dtype, dtype)
    return value.to(dtype) if same_kind else value
