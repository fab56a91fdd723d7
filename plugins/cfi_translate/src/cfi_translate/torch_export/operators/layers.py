"""Layers with weights: linear, convolution, normalisation, embedding."""

# What a function writes is said by its decorator.

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cfi_translate.torch_export.emitter import UNREAD, Emitter, Filled, Value
from cfi_translate.torch_export.normalization_modules import BATCH_NORM
from cfi_translate.torch_export.operators.registry import WRITERS, writes


@writes("linear")
def linear(emit: Emitter, x: Any, weight: Any, bias: Any) -> Value:
    if len(x.shape) == 2 and len(weight.shape) == 2:
        return emit.op("Gemm", x, weight, bias, transB=1)
    if len(weight.shape) != 2:
        raise emit.refuse("its weight is no matrix")
    if isinstance(weight, torch.Tensor):
        product = emit.op("MatMul", x, weight.t().contiguous())
    else:
        product = emit.op("MatMul", x, emit.op("Transpose", weight, perm=[1, 0]))
    return product if bias is None else emit.op("Add", product, bias)


@writes("addmm")
def addmm(emit: Emitter, bias: Any, x: Any, weight: Any, beta: float, alpha: float) -> Value:
    return emit.op("Gemm", x, weight, bias, beta=float(beta), alpha=float(alpha))


@writes("conv1d", "conv2d", "conv3d", "conv1d.padding", "conv2d.padding", "conv3d.padding")
def convolution(
    emit: Emitter, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Value:
    kernel = tuple(weight.shape[2:])
    _refuse_unbatched(emit, x, len(kernel))
    stride, dilation = _each(stride, kernel), _each(dilation, kernel)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        pads = [one // 2 for one in total] + [one - one // 2 for one in total]
    else:
        pads = _each(padding, kernel) * 2
    return emit.op(
        "Conv",
        x,
        weight,
        bias,
        kernel_shape=list(kernel),
        strides=stride,
        pads=pads,
        dilations=dilation,
        group=groups,
    )


@writes("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
def transposed_convolution(
    emit: Emitter,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Value:
    kernel = tuple(weight.shape[2:])
    _refuse_unbatched(emit, x, len(kernel))
    return emit.op(
        "ConvTranspose",
        x,
        weight,
        bias,
        kernel_shape=list(kernel),
        strides=_each(stride, kernel),
        pads=_each(padding, kernel) * 2,
        output_padding=_each(output_padding, kernel),
        dilations=_each(dilation, kernel),
        group=groups,
    )


@writes("batch_norm")
def batch_normalization(
    emit: Emitter,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    training: bool,
    _momentum: Any,
    eps: float,
    *_: Any,
) -> Value:
    if training or mean is None or variance is None:
        raise emit.refuse("it normalizes by the statistics of its batch, not by learnt ones")
    weight, bias = _scale(x, weight, bias, tuple(mean.shape))
    return emit.op("BatchNormalization", x, weight, bias, mean, variance, epsilon=eps)


def _learnt_batch_normalization(
    emit: Emitter, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, eps: float
) -> Value:
    return batch_normalization(emit, x, weight, bias, mean, variance, False, None, eps)


WRITERS[BATCH_NORM] = _learnt_batch_normalization


@writes("_native_batch_norm_legit_no_training")
def native_batch_normalization(
    emit: Emitter, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, _momentum: Any, eps: float
) -> list[Any]:
    return [batch_normalization(emit, x, weight, bias, mean, variance, False, None, eps), UNREAD, UNREAD]


@writes("native_layer_norm")
def native_layer_normalization(emit: Emitter, x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> list[Any]:
    return [layer_normalization(emit, x, shape, weight, bias, eps, False), UNREAD, UNREAD]


@writes("native_group_norm")
def native_group_normalization(
    emit: Emitter, x: Any, weight: Any, bias: Any, _samples: Any, _channels: Any, _pixels: Any, groups: int, eps: float
) -> list[Any]:
    return [group_normalization(emit, x, groups, weight, bias, eps), UNREAD, UNREAD]


@writes("convolution")
def any_convolution(
    emit: Emitter,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Value:
    if transposed:
        return transposed_convolution(emit, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolution(emit, x, weight, bias, stride, padding, dilation, groups)


@writes("layer_norm")
def layer_normalization(emit: Emitter, x: Any, shape: Any, weight: Any, bias: Any, eps: float, _fast: bool) -> Value:
    weight = _scale(x, weight, None, tuple(shape))[0]
    return emit.op("LayerNormalization", x, weight, bias, axis=-len(shape), epsilon=eps)


@writes("group_norm")
def group_normalization(
    emit: Emitter, x: Any, groups: int, weight: Any, bias: Any, eps: float, _fast: bool = True
) -> Value:
    weight, bias = _scale(x, weight, bias, (x.shape[1],))
    return emit.op("GroupNormalization", x, weight, bias, num_groups=groups, epsilon=eps)


@writes("instance_norm")
def instance_normalization(
    emit: Emitter,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    use_input: bool,
    _momentum: Any,
    eps: float,
    *_: Any,
) -> Value:
    if not use_input:
        return batch_normalization(emit, x, weight, bias, mean, variance, False, _momentum, eps)
    weight, bias = _scale(x, weight, bias, (x.shape[1],))
    return emit.op("InstanceNormalization", x, weight, bias, epsilon=eps)


@writes("rms_norm")
def root_mean_square_normalization(emit: Emitter, x: Any, shape: Any, weight: Any, eps: float | None) -> Value:
    axes = np.arange(-len(shape), 0)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    mean = emit.op("ReduceMean", emit.op("Mul", x, x), axes, keepdims=1)
    root = emit.op("Sqrt", emit.op("Add", mean, emit.scalar(eps, x.dtype)))
    normalized = emit.op("Div", x, root)
    return normalized if weight is None else emit.op("Mul", normalized, weight)


@writes("embedding")
def embedding(emit: Emitter, weight: Any, indices: Any, *_: Any) -> Value:
    return emit.op("Gather", weight, indices, axis=0)


def _scale(x: Value, weight: Any, bias: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Weight and bias, where they are left out as constants."""
    weight = torch.ones(shape, dtype=x.dtype) if weight is None else weight
    return weight, torch.zeros(shape, dtype=x.dtype) if bias is None else bias


def _each(value: Any, kernel: tuple[int, ...]) -> list[int]:
    """One number for each axis."""
    values = [value] if isinstance(value, int) else list(value)
    return values * len(kernel) if len(values) == 1 else values


def _refuse_unbatched(emit: Emitter, x: Value | Filled, axes: int) -> None:
    if len(x.shape) != axes + 2:
        raise emit.refuse("its input has no sample axis")
