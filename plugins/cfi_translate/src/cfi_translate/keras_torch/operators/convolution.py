"""Convolutions of all kinds, padding and cropping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator
from cfi_translate.keras_torch.graph import LaidGraph
from cfi_translate.keras_torch.laid import Laid, channels_first
from cfi_translate.keras_torch.operators.activation import activate
from cfi_translate.keras_torch.walk import KerasWalk
from cfi_translate.keras_torch.weights import bias_of, make, tensor_of
from cfi_translate.semantics.windows import Window
from cfi_translate.torch_modules import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, padding_module

_CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def as_images(op: LayerCall, to: LaidGraph, x: Laid) -> Laid:
    """The input of an operation on images, its channels second, whatever `data_format` says Keras has."""
    return to.lay(x, image_axes(op, x.rank))


def image_axes(op: LayerCall, rank: int) -> tuple[int, ...]:
    """The layout that `as_images` gives."""
    first = getattr(op.operation, "data_format", "channels_last") == "channels_first"
    return tuple(range(rank)) if first else channels_first(rank)


def _pad(op: LayerCall, to: KerasWalk, node: Any, pads: Sequence[tuple[int, int]], suffix: str = "_pad") -> Any:
    """Zeros around the axes after the first two; nothing where none are wanted."""
    return to.module(op, padding_module(pads), node, suffix=suffix) if any(map(any, pads)) else node


def _window(layer: Any, sizes: Sequence[int]) -> Window:
    """The layer's window on data of these sizes."""
    zeros = (0,) * len(layer.kernel_size)
    area = Window(tuple(layer.kernel_size), tuple(layer.strides), tuple(layer.dilation_rate), zeros, zeros)
    if layer.padding == "causal":
        return area.pad([extent - 1 for extent in area.extent])
    require(layer.padding in ("valid", "same"), f"its padding is {layer.padding!r}")
    return area if layer.padding == "valid" else area.pad_alike(sizes)


# What a convolution adds on both sides itself, and the channels that go in.
_MakeModule = Callable[[tuple[int, ...], int], nn.Module]


def _convolve(op: LayerCall, to: KerasWalk, inputs: Laid, module: _MakeModule) -> Laid:
    """Calls the layer's module, after padding that it cannot do itself."""
    x = as_images(op, to, inputs)
    area = _window(op.operation, x.extents)
    own = area.begin if area.is_symmetric else (0,) * area.rank
    node = x.node if area.is_symmetric else _pad(op, to, x.node, area.pairs)
    path = to.share(op, lambda: module(own, x.channels))
    convolution = next(one for one in to.get(path).modules() if isinstance(one, _CONVOLUTION))
    _require_same(convolution.padding, own)
    return activate(op, to, op.result(to.call(path, node), x.axes))


def _require_same(held: Any, wanted: Any) -> None:
    """Padding is part of the module, so a shared layer must need the same each time."""
    require(held == wanted, "it is shared by inputs of different sizes, which need different padding")


def _module(
    weight: torch.Tensor, bias: torch.Tensor | None, strides: Any, padding: Any, dilation: Any, groups: int = 1
) -> nn.Module:
    filters, channels, *kernel = weight.shape
    return make(
        CONVOLUTIONS[len(kernel)],
        channels * groups,
        filters,
        tuple(kernel),
        stride=tuple(strides),
        padding=padding,
        dilation=tuple(dilation),
        groups=groups,
        bias=bias is not None,
        tensors={"weight": weight, "bias": bias},
    )


def _kernel(layer: Any, kernel: Any) -> torch.Tensor:
    """Filters × channels × sizes."""
    return tensor_of(kernel, axes=(layer.rank + 1, layer.rank, *range(layer.rank)))


def _depthwise_module(
    layer: Any, kernel: Any, bias: torch.Tensor | None, padding: tuple[int, ...], channels: int
) -> nn.Module:
    weight = tensor_of(kernel, axes=(layer.rank, layer.rank + 1, *range(layer.rank)))
    weight = weight.reshape(-1, 1, *layer.kernel_size)
    return _module(weight, bias, layer.strides, padding, layer.dilation_rate, groups=channels)


@operator("layers.Conv1D", "layers.Conv2D", "layers.Conv3D")
def convolution(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A Conv module."""
    layer = op.operation

    def module(padding: tuple[int, ...], channels: int) -> nn.Module:
        weight = _kernel(layer, layer.kernel)
        return _module(weight, bias_of(layer), layer.strides, padding, layer.dilation_rate, layer.groups)

    return _convolve(op, to, inputs, module)


@operator("layers.DepthwiseConv1D", "layers.DepthwiseConv2D")
def depthwise_convolution(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A Conv module with a group for each channel."""
    layer = op.operation

    def module(padding: tuple[int, ...], channels: int) -> nn.Module:
        return _depthwise_module(layer, layer.kernel, bias_of(layer), padding, channels)

    return _convolve(op, to, inputs, module)


@operator("layers.SeparableConv1D", "layers.SeparableConv2D")
def separable_convolution(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """Two Conv modules in a container, depthwise and pointwise."""
    layer, ones = op.operation, (1,) * op.operation.rank

    def module(padding: tuple[int, ...], channels: int) -> nn.Module:
        both = nn.Sequential()
        both.add_module("depthwise", _depthwise_module(layer, layer.depthwise_kernel, None, padding, channels))
        pointwise = _kernel(layer, layer.pointwise_kernel)
        both.add_module("pointwise", _module(pointwise, bias_of(layer), ones, (0,) * layer.rank, ones))
        return both

    return _convolve(op, to, inputs, module)


@operator("layers.Conv1DTranspose", "layers.Conv2DTranspose", "layers.Conv3DTranspose")
def transposed_convolution(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A ConvTranspose module; what torch cannot cut off on one side alone is cropped afterwards."""
    layer, x = op.operation, as_images(op, to, inputs)
    require(getattr(layer, "groups", 1) == 1, "torch and Keras group transposed convolutions differently")
    axes = image_axes(op, x.rank)
    wanted = tuple(op.output.shape[axis] or 0 for axis in axes[2:])
    settings = zip(x.extents, wanted, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    padding, extra, cropped = zip(*(_transposed_padding(layer.padding, *one) for one in settings), strict=True)

    def weights() -> nn.Module:
        return make(
            TRANSPOSED_CONVOLUTIONS[layer.rank],
            x.channels,
            layer.filters,
            tuple(layer.kernel_size),
            stride=tuple(layer.strides),
            padding=padding,
            output_padding=extra,
            dilation=tuple(layer.dilation_rate),
            bias=layer.use_bias,
            tensors={"weight": _kernel(layer, layer.kernel), "bias": bias_of(layer)},
        )

    path = to.share(op, weights)
    made = to.get(path)
    _require_same((made.padding, made.output_padding), (padding, extra))
    node = _pad(op, to, to.call(path, x.node), tuple((0, amount) for amount in cropped), "_crop")
    return activate(op, to, op.result(node, axes))


def _transposed_padding(
    padding: str, size: int, wanted: int, width: int, stride: int, rate: int
) -> tuple[int, int, int]:
    """Padding and output padding of torch's along one axis, and what is added (below 0: cut off) at the end."""
    width = (width - 1) * rate + 1
    full = (size - 1) * stride + width
    total = max((-(-wanted // stride) - 1) * stride + width - wanted, 0)
    before = total // 2 if padding == "same" else 0
    missing = wanted - (full - 2 * before)
    if missing < 0 and before + missing < 0:
        before, missing = 0, wanted - full
    require(missing < max(stride, rate), "torch has no such output padding")
    return before, max(missing, 0), min(missing, 0)


@operator("layers.ZeroPadding1D", "layers.ZeroPadding2D", "layers.ZeroPadding3D")
def zero_padding(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A ZeroPad module."""
    return _add_borders(op, to, as_images(op, to, inputs), op.operation.padding, 1)


@operator("layers.Cropping1D", "layers.Cropping2D", "layers.Cropping3D")
def cropping(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A ZeroPad module with negative amounts."""
    return _add_borders(op, to, as_images(op, to, inputs), op.operation.cropping, -1)


@operator("layers.CenterCrop")
def center_crop(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A ZeroPad module with negative amounts; an image that is too small would be enlarged."""
    layer, x = op.operation, to.cast(as_images(op, to, inputs), op.output.dtype)
    spare = [size - kept for size, kept in zip(x.extents, (layer.height, layer.width), strict=True)]
    require(min(spare) >= 0, "it enlarges its input")
    return _add_borders(op, to, x, [(one // 2, one - one // 2) for one in spare], -1)


def _add_borders(op: LayerCall, to: KerasWalk, x: Laid, amounts: Any, sign: int) -> Laid:
    pairs = (amounts,) if x.rank == 3 else amounts
    pads = tuple((sign * before, sign * after) for before, after in pairs)
    return op.result(to.module(op, padding_module(pads), x.node), x.axes)


@operator("ops.Unfold")
def unfold(op: LayerCall, to: KerasWalk, images: Laid) -> Laid:
    """An Unfold module; Keras too has the channels second here, whatever `data_format` says."""
    own = op.operation
    module = nn.Unfold(own.kernel_size, own.dilation, own.padding, own.stride)
    return op.result(to.module(op, module, to.plain(images).node))


@operator("ops.Fold")
def fold(op: LayerCall, to: KerasWalk, columns: Laid) -> Laid:
    """A Fold module."""
    own = op.operation
    module = nn.Fold(own.output_size, own.kernel_size, own.dilation, own.padding, own.stride)
    return op.result(to.module(op, module, to.plain(columns).node))


@operator("ops.ExtractPatches")
def extract_patches(op: LayerCall, to: KerasWalk, images: Laid) -> Laid:
    """The values of each window in a row: rows, columns, channels."""
    own = op.operation
    require(len(own.size) == 2, "its patches have three axes")
    x = as_images(op, to, images)
    kernel, strides, rates = (
        (one, one) if isinstance(one, int) else tuple(one) for one in (own.size, own.strides, own.dilation_rate)
    )
    area = Window(kernel, strides, rates, (0, 0), (0, 0))
    node = _pad(op, to, x.node, (area.pad_alike(x.extents) if own.padding == "same" else area).pairs)
    node = to.function(torch.nn.functional.unfold, node, kernel, dilation=rates, stride=strides)
    rows, columns = (op.output.shape[axis] for axis in image_axes(op, 4)[2:])
    node = to.function(torch.reshape, node, (-1, x.channels, *kernel, rows, columns))
    node = to.function(torch.permute, node, (0, 2, 3, 1, 4, 5))
    return op.result(to.function(torch.flatten, node, 1, 3), image_axes(op, 4))
