"""Pooling, with Keras's meaning of 'same': what is added at the borders does not count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator, optional
from cfi_translate.keras_torch.laid import Laid
from cfi_translate.keras_torch.operators.convolution import as_images
from cfi_translate.keras_torch.walk import KerasWalk
from cfi_translate.semantics.windows import Window
from cfi_translate.torch_modules import (
    ADAPTIVE_AVERAGE_POOLINGS,
    ADAPTIVE_MAXIMUM_POOLINGS,
    AVERAGE_POOLINGS,
    MAXIMUM_POOLINGS,
    Modules,
    padding_module,
)


@operator("layers.MaxPooling1D", "layers.MaxPooling2D", "layers.MaxPooling3D")
def max_pooling(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A MaxPool module; padded with minus infinity where its own padding cannot do it."""
    x = as_images(op, to, inputs)
    area, node = _window(op.operation, x.extents), x.node
    ceil = _ceil_mode(area, x.extents)
    if ceil is None:
        node = to.module(op, padding_module(area.pairs, -math.inf), node, suffix="_pad")
        area, ceil = area.pad(), False
    module = MAXIMUM_POOLINGS[area.rank](area.kernel, area.strides, padding=area.begin, ceil_mode=ceil)
    return op.result(to.module(op, module, node), x.axes)


@operator("layers.AveragePooling1D", "layers.AveragePooling2D", "layers.AveragePooling3D")
def average_pooling(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """An AvgPool module that counts no padding; weighted afterwards where its own padding cannot do it."""
    x = as_images(op, to, inputs)
    area = _window(op.operation, x.extents)
    pool, ceil = partial(AVERAGE_POOLINGS[area.rank], area.kernel, area.strides), _ceil_mode(area, x.extents)
    if ceil is not None:
        module = pool(padding=area.begin, ceil_mode=ceil, count_include_pad=False)
        return op.result(to.module(op, module, x.node), x.axes)
    node = to.module(op, padding_module(area.pairs), x.node, suffix="_pad")
    node = to.module(op, pool(), node, suffix="_window")
    weights = np.prod(area.kernel) / area.counts(x.extents, None)
    node = to.function(torch.mul, node, to.buffer(f"{op.path}_weights", weights.astype(x.dtype)))
    return op.result(to.marker(op, node), x.axes)


def _window(layer: Any, sizes: Sequence[int]) -> Window:
    kernel, zeros = tuple(layer.pool_size), (0,) * len(layer.pool_size)
    area = Window(kernel, tuple(layer.strides), (1,) * len(kernel), zeros, zeros)
    return area if layer.padding == "valid" else area.pad_alike(sizes)


def _ceil_mode(area: Window, sizes: Sequence[int]) -> bool | None:
    """The ceil mode in which torch, which pads as much behind as before, has the same windows; None if it has not.

    In ceil mode the last window may reach beyond the padding.
    """
    if any(2 * before > width for before, width in zip(area.begin, area.kernel, strict=True)):
        return None
    alike, wanted = area.pad(area.begin, area.begin), area.steps(sizes)
    if alike.steps(sizes) == wanted:
        return False
    return True if alike.round_up(sizes).steps(sizes) == wanted else None


@operator("layers.GlobalAveragePooling1D", "layers.GlobalAveragePooling2D", "layers.GlobalAveragePooling3D")
def global_average(op: LayerCall, to: KerasWalk, inputs: Laid, mask: Any = None) -> Laid:
    """AdaptiveAvgPool to size 1, then Flatten."""
    mask = optional(mask, "mask")
    if mask is not None:
        return _masked_average(op, to, inputs, mask)
    x = as_images(op, to, inputs)
    return _drop_space(op, to, x, ADAPTIVE_AVERAGE_POOLINGS[x.rank - 2](1))


@operator("layers.GlobalMaxPooling1D", "layers.GlobalMaxPooling2D", "layers.GlobalMaxPooling3D")
def global_maximum(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """A MaxPool over everything, then Flatten."""
    x = as_images(op, to, inputs)
    return _drop_space(op, to, x, MAXIMUM_POOLINGS[x.rank - 2](x.extents))


def _adaptive_pool(modules: Modules, op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    x, size = as_images(op, to, inputs), op.operation.output_size
    module = modules[x.rank - 2](size if isinstance(size, int) else tuple(size))
    return op.result(to.module(op, module, x.node), x.axes)


for _kind, _modules in (("Average", ADAPTIVE_AVERAGE_POOLINGS), ("Max", ADAPTIVE_MAXIMUM_POOLINGS)):
    operator(*(f"layers.Adaptive{_kind}Pooling{rank}D" for rank in (1, 2, 3)))(partial(_adaptive_pool, _modules))


def _drop_space(op: LayerCall, to: KerasWalk, x: Laid, module: nn.Module) -> Laid:
    node = to.module(op, module, x.node)
    if op.operation.keepdims:
        return op.result(node, x.axes)
    return op.result(to.module(op, nn.Flatten(1), node, suffix="_flatten"))


def _masked_average(op: LayerCall, to: KerasWalk, inputs: Laid, mask: Laid) -> Laid:
    """The mean over the time steps that the mask leaves."""
    keep = bool(op.operation.keepdims)
    require(op.operation.data_format == "channels_last" and mask.dtype == "bool", "its mask does not fit")
    x, left = to.plain(inputs), to.function(torch.unsqueeze, to.plain(mask).node, 2)
    hidden = to.function(torch.masked_fill, x.node, to.function(torch.logical_not, left), 0.0)
    total = to.function(torch.sum, hidden, 1, keepdim=keep)
    count = to.function(torch.sum, left, 1, keepdim=keep)
    return op.result(to.marker(op, to.function(torch.div, total, count)))
