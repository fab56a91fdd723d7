"""Convolutions of all kinds, padding and cropping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cfi_translate.keras_torch.activations import activated
from cfi_translate.keras_torch.builder import make, tensor_of
from cfi_translate.keras_torch.calls import Call, translates
from cfi_translate.keras_torch.values import Value, channels_first

CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ZERO_PADDING = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)

Pads = tuple[tuple[int, int], ...]


def spatial(call: Call, value: Value) -> Value:
    """The input of an operation on images, its channels second, whatever `data_format` says Keras has."""
    if getattr(call.operation, "data_format", "channels_last") == "channels_first":
        return call.builder.plain(value)
    return call.builder.channels_first(value)


def spatial_axes(call: Call, rank: int) -> tuple[int, ...]:
    """The layout that `spatial` gives."""
    if getattr(call.operation, "data_format", "channels_last") == "channels_first":
        return tuple(range(rank))
    return channels_first(rank)


def extents(value: Value) -> tuple[int, ...]:
    """Sizes of the axes after samples and channels."""
    return tuple(size for axis in value.axes[2:] if (size := value.shape[axis]) is not None)


def same_pads(sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Pads:
    """What Keras's 'same' adds before and after each axis."""
    pads = []
    for size, width, stride, rate in zip(sizes, kernel, strides, dilation, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * rate + 1 - size, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def torch_order(pads: Pads) -> tuple[int, ...]:
    """As torch's padding modules take them: the last axis first."""
    return tuple(amount for pair in reversed(pads) for amount in pair)


def padded(call: Call, node: Any, pads: Pads, name: str = "pad") -> Any:
    """Zeros around the axes after the first two; nothing where none are wanted."""
    if not any(amount for pair in pads for amount in pair):
        return node
    return call.builder.module(f"{call.path}_{name}", ZERO_PADDING[len(pads) - 1](torch_order(pads)), node)


def _pads(call: Call, value: Value, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Pads:
    padding = call.operation.padding
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "causal":
        return tuple(((width - 1) * rate, 0) for width, rate in zip(kernel, dilation, strict=True))
    call.require(padding == "same", f"its padding is {padding!r}")
    return same_pads(extents(value), kernel, strides, dilation)


def _split(pads: Pads) -> tuple[Pads, tuple[int, ...]]:
    """Padding for a module of its own, and what the convolution itself can add on both sides."""
    if all(before == after for before, after in pads):
        return ((0, 0),) * len(pads), tuple(before for before, _ in pads)
    return pads, (0,) * len(pads)


def _bias(layer: Any) -> torch.Tensor | None:
    return tensor_of(layer.bias) if layer.use_bias else None


def _convolve(call: Call, layer_weights: Callable[[], nn.Module], node: Any) -> Any:
    return call.builder.call(call.builder.shared(call.operation, call.path, layer_weights), node)


@translates("layers.Conv1D", "layers.Conv2D", "layers.Conv3D")
def convolution(call: Call) -> Value:
    """A Conv module, after padding that it cannot do itself."""
    layer, value = call.operation, spatial(call, call.input)
    rank, strides, dilation = layer.rank, tuple(layer.strides), tuple(layer.dilation_rate)
    apart, own = _split(_pads(call, value, layer.kernel_size, strides, dilation))

    def weights() -> nn.Module:
        return make(
            CONVOLUTION[rank - 1],
            value.shape[value.axes[1]],
            layer.filters,
            tuple(layer.kernel_size),
            stride=strides,
            padding=own,
            dilation=dilation,
            groups=layer.groups,
            bias=layer.use_bias,
            tensors={"weight": tensor_of(layer.kernel, axes=(rank + 1, rank, *range(rank))), "bias": _bias(layer)},
        )

    node = _called(call, value, weights, own, padded(call, value.node, apart))
    return activated(call, call.result(node, spatial_axes(call, rank + 2)))


@translates("layers.DepthwiseConv1D", "layers.DepthwiseConv2D")
def depthwise(call: Call) -> Value:
    """A Conv module with a group for each channel."""
    layer, value = call.operation, spatial(call, call.input)
    rank, strides, dilation = layer.rank, tuple(layer.strides), tuple(layer.dilation_rate)
    channels = value.shape[value.axes[1]] or 0
    apart, own = _split(_pads(call, value, layer.kernel_size, strides, dilation))
    node = _called(
        call,
        value,
        lambda: _depthwise_module(layer, layer.kernel, channels, strides, own, _bias(layer)),
        own,
        padded(call, value.node, apart),
    )
    return activated(call, call.result(node, spatial_axes(call, rank + 2)))


@translates("layers.SeparableConv1D", "layers.SeparableConv2D")
def separable(call: Call) -> Value:
    """Two Conv modules in a container, depthwise and pointwise."""
    layer, value = call.operation, spatial(call, call.input)
    rank, strides, dilation = layer.rank, tuple(layer.strides), tuple(layer.dilation_rate)
    channels = value.shape[value.axes[1]] or 0
    apart, own = _split(_pads(call, value, layer.kernel_size, strides, dilation))

    def pointwise() -> nn.Module:
        return make(
            CONVOLUTION[rank - 1],
            channels * layer.depth_multiplier,
            layer.filters,
            1,
            bias=layer.use_bias,
            tensors={
                "weight": tensor_of(layer.pointwise_kernel, axes=(rank + 1, rank, *range(rank))),
                "bias": _bias(layer),
            },
        )

    def both() -> nn.Module:
        container = nn.Sequential()
        container.add_module(
            "depthwise", _depthwise_module(layer, layer.depthwise_kernel, channels, strides, own, None)
        )
        container.add_module("pointwise", pointwise())
        return container

    node = _called(call, value, both, own, padded(call, value.node, apart))
    return activated(call, call.result(node, spatial_axes(call, rank + 2)))


def _called(call: Call, value: Value, weights: Callable[[], nn.Module], own: tuple[int, ...], node: Any) -> Any:
    """Calls the layer's module; the padding is part of it, so a shared layer must need the same each time."""
    path = call.builder.shared(call.operation, call.path, weights)
    module = call.builder.root.get_submodule(path)
    first = next(one for one in module.modules() if isinstance(one, CONVOLUTION))
    call.require(tuple(first.padding) == own, "it is shared by inputs of different sizes, which need different padding")
    return call.builder.call(path, node)


def _depthwise_module(
    layer: Any,
    kernel: Any,
    channels: int,
    strides: tuple[int, ...],
    padding: tuple[int, ...],
    bias: torch.Tensor | None,
) -> nn.Module:
    rank = layer.rank
    weight = tensor_of(kernel, axes=(rank, rank + 1, *range(rank)))
    return make(
        CONVOLUTION[rank - 1],
        channels,
        channels * layer.depth_multiplier,
        tuple(layer.kernel_size),
        stride=strides,
        padding=padding,
        dilation=tuple(layer.dilation_rate),
        groups=channels,
        bias=bias is not None,
        tensors={"weight": weight.reshape(-1, 1, *layer.kernel_size), "bias": bias},
    )


@translates("layers.Conv1DTranspose", "layers.Conv2DTranspose", "layers.Conv3DTranspose")
def transposed(call: Call) -> Value:
    """A ConvTranspose module; what torch cannot cut off on one side alone is cropped afterwards."""
    layer, value = call.operation, spatial(call, call.input)
    rank, strides, dilation = layer.rank, tuple(layer.strides), tuple(layer.dilation_rate)
    call.require(getattr(layer, "groups", 1) == 1, "torch and Keras group transposed convolutions differently")
    axes = spatial_axes(call, rank + 2)
    wanted = tuple(call.output.shape[axis] or 0 for axis in axes[2:])
    padding, extra, cropped = [], [], []
    for i, size in enumerate(extents(value)):
        width = (layer.kernel_size[i] - 1) * dilation[i] + 1
        full = (size - 1) * strides[i] + width
        total = max((-(-wanted[i] // strides[i]) - 1) * strides[i] + width - wanted[i], 0)
        before = total // 2 if layer.padding == "same" else 0
        missing = wanted[i] - (full - 2 * before)
        if missing < 0 and before + missing < 0:
            before, missing = 0, wanted[i] - full
        call.require(missing < max(strides[i], dilation[i]), "torch has no such output padding")
        padding.append(before)
        extra.append(max(missing, 0))
        cropped.append((0, min(missing, 0)))

    def weights() -> nn.Module:
        return make(
            TRANSPOSED[rank - 1],
            value.shape[value.axes[1]],
            layer.filters,
            tuple(layer.kernel_size),
            stride=strides,
            padding=tuple(padding),
            output_padding=tuple(extra),
            dilation=dilation,
            bias=layer.use_bias,
            tensors={"weight": tensor_of(layer.kernel, axes=(rank + 1, rank, *range(rank))), "bias": _bias(layer)},
        )

    path = call.builder.shared(layer, call.path, weights)
    made = call.builder.root.get_submodule(path)
    call.require(
        (made.padding, made.output_padding) == (tuple(padding), tuple(extra)),
        "it is shared by inputs of different sizes, which need different padding",
    )
    node = call.builder.call(path, value.node)
    return activated(call, call.result(padded(call, node, tuple(cropped), "crop"), axes))


@translates("layers.ZeroPadding1D", "layers.ZeroPadding2D", "layers.ZeroPadding3D")
def zero_padding(call: Call) -> Value:
    """A ZeroPad module."""
    return _bordered(call, call.operation.padding, 1)


@translates("layers.Cropping1D", "layers.Cropping2D", "layers.Cropping3D")
def cropping(call: Call) -> Value:
    """A ZeroPad module with negative amounts."""
    return _bordered(call, call.operation.cropping, -1)


@translates("layers.CenterCrop")
def center_crop(call: Call) -> Value:
    """A ZeroPad module with negative amounts; an image that is too small would be enlarged."""
    layer, value = call.operation, call.walk.cast(spatial(call, call.input), call.output.dtype)
    spare = [size - kept for size, kept in zip(extents(value), (layer.height, layer.width), strict=True)]
    call.require(min(spare) >= 0, "it enlarges its input")
    pads = tuple((-(one // 2), one // 2 - one) for one in spare)
    node = call.builder.module(call.path, ZERO_PADDING[1](torch_order(pads)), value.node, own=True)
    return call.result(node, value.axes)


@translates("ops.ExtractPatches")
def extract_patches(call: Call) -> Value:
    """The values of each window in a row: rows, columns, channels."""
    own, builder = call.operation, call.builder
    call.require(len(own.size) == 2, "its patches have three axes")
    value = spatial(call, call.input)
    kernel, strides, rates = (
        (one, one) if isinstance(one, int) else tuple(one) for one in (own.size, own.strides, own.dilation_rate)
    )
    pads = same_pads(extents(value), kernel, strides, rates) if own.padding == "same" else ((0, 0), (0, 0))
    node = padded(call, value.node, pads)
    node = builder.function(torch.nn.functional.unfold, node, kernel, dilation=rates, stride=strides)
    channels = value.shape[value.axes[1]]
    rows, columns = (call.output.shape[axis] for axis in spatial_axes(call, 4)[2:])
    node = builder.function(torch.reshape, node, (-1, channels, *kernel, rows, columns))
    node = builder.function(torch.permute, node, (0, 2, 3, 1, 4, 5))
    return call.result(builder.function(torch.flatten, node, 1, 3), spatial_axes(call, 4))


def _bordered(call: Call, amounts: Any, sign: int) -> Value:
    value = spatial(call, call.input)
    rank = value.rank - 2
    pairs = (tuple(amounts),) if rank == 1 else tuple(tuple(pair) for pair in amounts)
    pads = tuple((sign * before, sign * after) for before, after in pairs)
    node = call.builder.module(call.path, ZERO_PADDING[rank - 1](torch_order(pads)), value.node, own=True)
    return call.result(node, value.axes)
