"""The model as TorchRay takes it: one input with its channels second, one column for each thing that is explained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cfi_core.contract import MethodRequest, Target
from cfi_core.errors import CFIError, InputError, MethodError, TargetError
from cfi_torchgraph import scores
from cfi_torchgraph.scores import one_per_sample, select

_WITHOUT_TARGET = "Without a target, the model"


class Explained(nn.Module):
    """A model for TorchRay's functions, which mark it, switch its mode and fill its gradients.

    Attributes:
        model: The model; its parameters are its own objects and take no gradients, so that none reach the user's.
        channel: Position of the channel axis of its input; None where it has none.
        dtype: Type that it computes in.
        single: Whether TorchRay computes in single precision here, whatever the model does.
        target: What is explained, as one column of the output; None for the model's own outputs.
        columns: Indices of the classes to give, instead of a target's one column.
        outputs: What the model itself gave in the last pass, before anything was chosen of it.
    """

    def __init__(self, request: MethodRequest, *, whole: bool = False, single: bool = False) -> None:
        super().__init__()
        self.model = request.model
        self.channel = request.channel_axis[0] if request.channel_axis else None
        self.dtype = request.inputs[0].dtype
        self.single = single
        self.chosen = None if request.target is None else request.target.output
        self.target = None if whole else request.target
        self.columns: tuple[int, ...] | None = None
        self.outputs: Tensor | None = None
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """What is explained, `(samples, columns, …)`, for inputs with their channels second."""
        if inputs.is_leaf and inputs.requires_grad:
            inputs = inputs.clone()  # what the model changes in place may be no leaf
        if self.channel not in (None, 1):
            inputs = inputs.movedim(1, self.channel)
        outputs = self.model(inputs.to(self.dtype))
        if self.chosen is not None or self.target is None or self.target.function is None:
            outputs = choose(outputs, self.chosen)
        self.outputs = outputs
        if self.columns is not None:
            outputs = outputs[:, list(self.columns)]
        elif self.target is not None:
            outputs = column(outputs, self.target, len(inputs))
        elif outputs.dim() == 1:
            outputs = outputs[:, None]
        return outputs.float() if self.single else outputs

    def input_of(self, request: MethodRequest) -> Tensor:
        """The request's input with its channels second, a leaf of its own."""
        value = request.inputs[0].detach().clone()
        value = value.movedim(self.channel, 1).contiguous() if self.channel not in (None, 1) else value
        return value.float() if self.single else value


def with_own_parameters(request: MethodRequest) -> MethodRequest:
    """With a model whose parameters take no gradients and are nobody else's objects, the same memory behind them."""
    if not isinstance(request.model, nn.Module):
        return request
    if any(isinstance(module, torch.jit.ScriptModule) for module in request.model.modules()):
        # The parameters of scripted modules cannot be exchanged.
        with torch.no_grad():
            model, layer = copy.deepcopy((request.model, request.layer))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return replace(request, model=model, layer=layer)
    own: dict[int, nn.Parameter] = {}
    for module in request.model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                own.setdefault(id(value), nn.Parameter(value.detach(), requires_grad=False))
                module._parameters[name] = own[id(value)]
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]
    return request


def check_inputs(request: MethodRequest, *, images: bool) -> None:
    """Refuses what TorchRay would misread.

    Raises:
        InputError: There are several inputs, whole numbers, or no images where the method is for images.
    """
    key = request.method.key
    if len(request.inputs) != 1:
        raise InputError(
            f"'{key}' of TorchRay explains models of one input, and this one has {len(request.inputs)}. Use another "
            "toolset (cfi.methods() lists them), or make the others part of the model."
        )
    value = request.inputs[0]
    # At a layer it is neither changed nor differentiated; but excitation asks what goes around the layer.
    if not value.is_floating_point() and (not request.layer or "excitation" in key):
        raise InputError(f"'{key}' changes or differentiates the input, which has type {value.dtype}. Explain a layer.")
    if images and (value.dim() != 4 or request.channel_axis[0] is None):
        raise InputError(
            f"'{key}' masks images: an input of four axes, one of which holds the channels, not one of shape "
            f"{tuple(value.shape)}. Use a method for other inputs, such as 'feature_ablation'."
        )


def class_indices(request: MethodRequest) -> tuple[int, ...]:
    """The class of each sample, where the method compares it with the other classes.

    Raises:
        TargetError: What is explained is not one column of the outputs.
    """
    target, samples = request.target, len(request.inputs[0])
    found = () if target is None or target.index is None else target.indices(samples)
    if not found or any(len(index) != 1 for index in found):
        raise TargetError(
            f"'{request.method.key}' with these arguments needs the index of a class for each sample, not a function "
            "or a position in a larger output. Pass target=3, or one index per sample."
        )
    return tuple(index[0] for index in found)


def choose(outputs: Any, which: int | str | None) -> Any:
    """One of several outputs.

    Raises:
        TargetError: There is none of that name, or it is no tensor.
    """
    found = scores.choose(outputs, which)
    if not isinstance(found, Tensor):
        raise TargetError(
            f"The model returned {type(outputs).__name__}, of which {which!r} is no tensor. Name an output by its "
            "position, key or attribute."
        )
    return found


def column(outputs: Tensor, target: Target, samples: int) -> Tensor:
    """What is explained of each sample, as one column."""
    if target.function is not None:
        values = one_per_sample(target.function(outputs), samples)
    else:
        values = select(outputs, target) if target.index else one_per_sample(outputs, samples, _WITHOUT_TARGET)
    return values[:, None]


@contextmanager
def failures(key: str) -> Iterator[None]:
    """Turns what TorchRay, the model and functions of the user's raise into one kind of error."""
    try:
        yield
    except CFIError:
        raise
    # They raise anything; all of it is the cause.
    except Exception as error:
        raise MethodError(
            f"'{key}' of TorchRay failed ({type(error).__name__}: {error}). Check its arguments."
        ) from error
