"""Dense layers and products."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import keras
import torch
from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator, tensors
from cfi_translate.keras_torch.laid import Laid
from cfi_translate.keras_torch.operators.activation import activate
from cfi_translate.keras_torch.operators.elementwise import constant_operand
from cfi_translate.keras_torch.walk import KerasWalk
from cfi_translate.keras_torch.weights import bias_of, make, tensor_of


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    units, inputs = weight.shape
    return make(nn.Linear, inputs, units, bias=bias is not None, tensors={"weight": weight, "bias": bias})


@operator("layers.Dense")
def dense(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A Linear module; its columns follow the order of a tensor that was flattened before."""
    layer, x = op.operation, inputs
    require(not getattr(layer, "lora_enabled", False), "it has LoRA weights")
    if x.flattened is None or to.calls_of(layer) > 1:
        x = to.last(x)

    def weights() -> nn.Module:
        if x.flattened is None:
            return _linear(tensor_of(layer.kernel, axes=(1, 0)), bias_of(layer))
        features, units = layer.kernel.shape
        sizes = tuple(size or 0 for size in x.flattened.shape[1:])
        axes = (len(sizes), *(axis - 1 for axis in x.flattened.axes[1:]))
        weight = tensor_of(layer.kernel, *sizes, units, axes=axes).reshape(units, features)
        return _linear(weight, bias_of(layer))

    path = to.share(op, weights)
    same = to.feature_orders.setdefault(path, x.flattened) == x.flattened
    require(same, "it is shared by tensors whose features stand in different orders")
    return activate(op, to, op.result(to.call(path, x.node), x.axes))


@operator("layers.EinsumDense")
def einsum_dense(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A Linear module where the equation contracts the last axes; Unflatten gives several output axes their shape."""
    layer, x = op.operation, to.plain(inputs)
    require(not getattr(layer, "lora_enabled", False), "it has LoRA weights")
    contracted, made, kernel = _letters(layer.equation)
    sizes = dict(zip(kernel, layer.kernel.shape, strict=True))
    inner, outer = (math.prod(sizes[letter] for letter in letters) for letters in (contracted, made))
    shape = tuple(sizes[letter] for letter in made)
    bias = layer.bias
    spans = bias is None or (math.prod(bias.shape) == outer and tuple(bias.shape)[-len(made) :] == shape)
    require(spans, "its bias does not span the axes that it makes")

    def weights() -> nn.Module:
        order = tuple(kernel.index(letter) for letter in made + contracted)
        weight = tensor_of(layer.kernel, axes=order).reshape(outer, inner)
        return _linear(weight, None if bias is None else tensor_of(bias, outer))

    node = x.node
    if len(contracted) > 1:
        node = to.function(torch.flatten, node, x.rank - len(contracted))
    node = to.call_shared(op, weights, node)
    if len(made) > 1:
        node = to.module(op, nn.Unflatten(-1, shape), node, suffix="_unflatten")
    return activate(op, to, op.result(node))


def _letters(equation: str) -> tuple[str, str, str]:
    """The axes that an equation contracts, those that it makes, and those of the kernel."""
    left, result = equation.replace(" ", "").replace("...", "").split("->")
    inputs, kernel = left.split(",")
    contracted = "".join(letter for letter in inputs if letter not in result)
    made = "".join(letter for letter in result if letter not in inputs)
    free = inputs[: len(inputs) - len(contracted)]
    last = inputs == free + contracted and result == free + made and sorted(kernel) == sorted(contracted + made)
    require(contracted and made and last, f"its equation {equation!r} is not a contraction of the last axes")
    return contracted, made, kernel


@operator("layers.Dot")
def dot(op: LayerCall, to: KerasWalk, inputs: Any) -> Laid:
    """Sums of products along one axis of each input."""
    layer = op.operation
    first, second = (to.plain(x) for x in tensors(inputs))
    one, other = (layer.axes, layer.axes) if isinstance(layer.axes, int) else layer.axes
    one, other = one % first.rank, other % second.rank
    require(first.rank in (2, 3) and second.rank in (2, 3) and one > 0 and other > 0, "its inputs have more axes")
    letters, others = "bij"[: first.rank], "bkl"[: second.rank]
    others = others[:other] + letters[one] + others[other + 1 :]
    result = "b" + "".join(letter for letter in letters[1:] + others[1:] if letter != letters[one])
    nodes = [first.node, second.node]
    if layer.normalize:
        nodes = [unit_length(to, first.node, one, 1e-12), unit_length(to, second.node, other, 1e-12)]
    node = to.function(torch.einsum, f"{letters},{others}->{result}", *nodes)
    if result == "b":
        node = to.function(torch.unsqueeze, node, 1)
    return op.result(to.marker(op, node))


def unit_length(to: KerasWalk, node: Any, axis: int, least: float) -> Any:
    """Vectors along an axis divided by their lengths, whose squares are taken for `least` where they are below."""
    squares = to.function(torch.sum, to.function(torch.square, node), axis, keepdim=True)
    scale = to.function(torch.rsqrt, to.function(torch.clamp, squares, min=least))
    return to.function(torch.mul, node, scale)


@operator("ops.Normalize")
def normalize(op: LayerCall, to: KerasWalk, x: Laid) -> Laid:
    """Vectors of length 1."""
    own, x = op.operation, to.plain(x)
    require(own.order == 2 and isinstance(own.axis, int), "it does not divide by the Euclidean norm")
    epsilon = float(keras.config.epsilon() if own.epsilon is None else own.epsilon)
    return x.like(unit_length(to, x.node, own.axis % x.rank, epsilon**2))


@operator("ops.Matmul")
def matmul(op: LayerCall, to: KerasWalk, x1: Any, x2: Any) -> Laid:
    """Matrix products; a constant second factor becomes a parameter or a buffer."""
    return op.result(to.function(torch.matmul, *_factors(op, to, (x1, x2))))


@operator("ops.Einsum")
def einsum(op: LayerCall, to: KerasWalk, *operands: Any) -> Laid:
    """Sums of products."""
    subscripts = op.operation.subscripts.replace(" ", "")
    require(re.fullmatch(r"[A-Za-z,.]*->[A-Za-z.]*", subscripts), f"its subscripts are {subscripts!r}")
    return op.result(to.function(torch.einsum, subscripts, *_factors(op, to, operands)))


def _factors(op: LayerCall, to: KerasWalk, operands: Sequence[Any]) -> list[Any]:
    """The operands of a product, in Keras's order of axes and the type of the result."""
    dtype = op.output.dtype
    return [
        to.plain(to.cast(one, dtype)).node if isinstance(one, Laid) else constant_operand(op, to, one, None, dtype)
        for one in operands
    ]
