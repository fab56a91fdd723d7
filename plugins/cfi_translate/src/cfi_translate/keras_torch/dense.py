"""Dense and embedding layers, and layers that do nothing in inference."""

from __future__ import annotations

import torch
from torch import nn

from cfi_translate.keras_torch.activations import activated
from cfi_translate.keras_torch.builder import make, tensor_of
from cfi_translate.keras_torch.calls import Call, translates
from cfi_translate.keras_torch.values import Value


@translates("layers.Dense")
def dense(call: Call) -> Value:
    """A Linear module; its columns follow the order of a tensor that was flattened before."""
    layer, value = call.operation, call.input
    call.require(not getattr(layer, "lora_enabled", False), "it has LoRA weights")
    if value.flattened is None or call.walk.calls_of(layer) > 1:
        value = call.builder.last(value)

    def weights() -> nn.Module:
        inputs, units = layer.kernel.shape
        if value.flattened is None:
            weight = tensor_of(layer.kernel, axes=(1, 0))
        else:
            sizes = tuple(size or 0 for size in value.flattened.shape[1:])
            rank = len(sizes)
            weight = tensor_of(
                layer.kernel, *sizes, units, axes=(rank, *(axis - 1 for axis in value.flattened.axes[1:]))
            ).reshape(units, inputs)
        return make(
            nn.Linear,
            inputs,
            units,
            bias=layer.use_bias,
            tensors={"weight": weight, "bias": tensor_of(layer.bias) if layer.use_bias else None},
        )

    path = call.builder.shared(layer, call.path, weights)
    call.require(
        call.walk.feature_orders.setdefault(path, value.flattened) == value.flattened,
        "it is shared by tensors whose features stand in different orders",
    )
    return activated(call, call.result(call.builder.call(path, value.node), value.axes))


@translates("layers.EinsumDense")
def einsum_dense(call: Call) -> Value:
    """A Linear module where the equation contracts the last axes; Unflatten gives several output axes their shape."""
    layer, value = call.operation, call.builder.plain(call.input)
    call.require(not getattr(layer, "lora_enabled", False), "it has LoRA weights")
    left, result = layer.equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    inputs, result = inputs.replace("...", ""), result.replace("...", "")
    contracted = "".join(letter for letter in inputs if letter not in result)
    made = "".join(letter for letter in result if letter not in inputs)
    free = inputs[: len(inputs) - len(contracted)]
    call.require(
        bool(contracted and made)
        and inputs == free + contracted
        and result == free + made
        and sorted(kernel) == sorted(contracted + made),
        f"its equation {layer.equation!r} is not a contraction of the last axes",
    )
    sizes = dict(zip(kernel, layer.kernel.shape, strict=True))
    outer, inner = _product(sizes[letter] for letter in made), _product(sizes[letter] for letter in contracted)
    out_shape = tuple(sizes[letter] for letter in made)
    has_bias = layer.bias is not None
    call.require(
        not has_bias or (_product(layer.bias.shape) in (outer,) and tuple(layer.bias.shape)[-len(made) :] == out_shape),
        "its bias does not span the axes that it makes",
    )

    def weights() -> nn.Module:
        order = tuple(kernel.index(letter) for letter in made + contracted)
        return make(
            nn.Linear,
            inner,
            outer,
            bias=has_bias,
            tensors={
                "weight": tensor_of(layer.kernel, axes=order).reshape(outer, inner),
                "bias": tensor_of(layer.bias, outer) if has_bias else None,
            },
        )

    builder, node = call.builder, value.node
    if len(contracted) > 1:
        node = builder.function(torch.flatten, node, value.rank - len(contracted))
    node = builder.call(builder.shared(layer, call.path, weights), node)
    if len(made) > 1:
        node = builder.module(f"{call.path}_unflatten", nn.Unflatten(-1, out_shape), node)
    return activated(call, call.result(node))


def _product(sizes: object) -> int:
    total = 1
    for size in sizes:  # type: ignore[attr-defined]
        total *= int(size)
    return total


@translates("layers.Embedding")
def embedding(call: Call) -> Value:
    """An Embedding module; zeros are masked if the layer says so."""
    layer, value, builder = call.operation, call.builder.plain(call.input), call.builder
    call.require(not getattr(layer, "lora_enabled", False), "it has LoRA weights")
    table = layer.embeddings
    node = builder.call(
        builder.shared(
            layer,
            call.path,
            lambda: make(nn.Embedding, *table.shape, tensors={"weight": tensor_of(table)}),
        ),
        builder.graph.call_method("long", (value.node,)),
    )
    mask = None
    if layer.mask_zero:
        mask = Value(builder.function(torch.ne, value.node, 0), value.shape, value.axes, "bool")
    return call.result(node, mask=mask)


@translates("layers.Masking")
def masking(call: Call) -> Value:
    """Masks the time steps whose features all have one value, and sets them to zero."""
    builder, value = call.builder, call.builder.plain(call.input)
    differs = builder.function(torch.ne, value.node, float(call.operation.mask_value))
    kept = builder.function(torch.any, differs, -1, keepdim=True)
    node = builder.function(torch.masked_fill, value.node, builder.function(torch.logical_not, kept), 0.0)
    mask = Value(builder.function(torch.squeeze, kept, -1), value.shape[:-1], value.axes[:-1], "bool")
    return call.result(builder.marker(call.path, node), mask=mask)


@translates(
    "layers.Dropout",
    "layers.AlphaDropout",
    "layers.SpatialDropout1D",
    "layers.SpatialDropout2D",
    "layers.SpatialDropout3D",
    "layers.GaussianDropout",
    "layers.GaussianNoise",
)
def dropout(call: Call) -> Value:
    """Noise of training: a Dropout module where torch has the same, otherwise an Identity."""
    kind, value = type(call.operation).__name__, call.input
    rate = float(getattr(call.operation, "rate", 0) or 0)
    module = {"Dropout": nn.Dropout, "AlphaDropout": nn.AlphaDropout}.get(kind)
    made = nn.Identity() if module is None else module(rate)
    return value.like(call.builder.module(call.path, made, value.node, own=True))


@translates("layers.Identity", "layers.ActivityRegularization")
def identity(call: Call) -> Value:
    """Nothing."""
    return call.input.like(call.builder.marker(call.path, call.input.node))


_AUGMENTATIONS = (
    *("AugMix", "CutMix", "MixUp", "RandAugment"),
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomElasticTransform"),
    *("RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert"),
    *("RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness"),
    *("RandomShear", "RandomTranslation", "RandomZoom"),
)
"""Layers that change images in training alone; `RandomCrop` is none of them."""


@translates(*(f"layers.{name}" for name in _AUGMENTATIONS))
def augmentation(call: Call) -> Value:
    """Nothing, in inference, but the layer's type."""
    call.require("float" in call.input.dtype, "it is given integers, whose type it may not change as it announces")
    value = call.walk.cast(call.input, call.output.dtype)
    return value.like(call.builder.module(call.path, nn.Identity(), value.node, own=True))
