"""What a graph in a file may name: modules and what they are made with, functions, methods of tensors, types.

All of it computes tensors from tensors. Nothing here reads files, imports, compiles or calls what it is given, and no
setting is a number of times that something is made.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_IN_FOLDS = "kernel_size dilation padding stride"
_OF_POOLING = "kernel_size stride padding"
_SETTINGS = {
    "Module Sequential Identity Sigmoid LogSigmoid Tanh Tanhshrink Softsign": "",
    "Conv1d Conv2d Conv3d": "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode",
    "ConvTranspose1d ConvTranspose2d ConvTranspose3d": (
        "in_channels out_channels kernel_size stride padding output_padding groups bias dilation padding_mode"
    ),
    "Linear": "in_features out_features bias",
    "Embedding": "num_embeddings embedding_dim padding_idx",
    "LSTM GRU": "input_size hidden_size bias batch_first bidirectional",
    "RNN": "input_size hidden_size nonlinearity bias batch_first bidirectional",
    "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d": (
        "num_features eps momentum affine track_running_stats"
    ),
    "GroupNorm": "num_groups num_channels eps affine",
    "LayerNorm": "normalized_shape eps elementwise_affine bias",
    "RMSNorm": "normalized_shape eps elementwise_affine",
    "LocalResponseNorm": "size alpha beta k",
    "MaxPool1d MaxPool2d MaxPool3d": f"{_OF_POOLING} dilation return_indices ceil_mode",
    "AvgPool1d": f"{_OF_POOLING} ceil_mode count_include_pad",
    "AvgPool2d AvgPool3d": f"{_OF_POOLING} ceil_mode count_include_pad divisor_override",
    "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d": "output_size",
    "AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d": "output_size return_indices",
    "ZeroPad1d ZeroPad2d ZeroPad3d": "padding",
    "ConstantPad1d ConstantPad2d ConstantPad3d": "padding value",
    "Upsample": "size scale_factor mode align_corners recompute_scale_factor",
    "Fold": f"output_size {_IN_FOLDS}",
    "Unfold": _IN_FOLDS,
    "Flatten": "start_dim end_dim",
    "Unflatten": "dim unflattened_size",
    "PixelShuffle": "upscale_factor",
    "Softmax LogSoftmax": "dim",
    "ReLU ReLU6 SELU SiLU Mish Hardswish Hardsigmoid": "inplace",
    "LeakyReLU": "negative_slope inplace",
    "ELU CELU": "alpha inplace",
    "GELU": "approximate",
    "Hardtanh": "min_val max_val inplace",
    "Hardshrink Softshrink": "lambd",
    "Softplus": "beta threshold",
    "Threshold": "threshold value inplace",
    "PReLU": "num_parameters",
    "Dropout AlphaDropout": "p inplace",
}

MODULES: Mapping[str, type[nn.Module]] = {name: getattr(nn, name) for names in _SETTINGS for name in names.split()}

SETTINGS: Mapping[type[nn.Module], tuple[str, ...]] = {
    MODULES[name]: tuple(settings.split()) for names, settings in _SETTINGS.items() for name in names.split()
}
"""By what a module of a class is made; the rest of its settings stays as torch makes it."""

_OF_TORCH = """
_assert _shape_as_tensor abs acos acosh add all amax amin any arange arccos arccosh arcsin arcsinh arctan arctanh
argmax argmin argsort asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor cat ceil clamp clamp_max clamp_min constant_pad_nd cos cosh cumprod cumsum det detach
div einsum eq erf erfc exp exp2 expm1 flatten flip floor floor_divide fmod full full_like gather ge gt index_put
index_select isfinite isinf isnan isneginf isposinf le log log10 log1p log2 logical_and logical_not logical_or
logical_xor logsumexp lt masked_fill matmul maximum mean minimum mul narrow ne neg nonzero ones ones_like permute pow
prod reciprocal relu remainder repeat_interleave reshape roll round rsqrt scatter scatter_reduce select sigmoid sign
sin sinh softmax sort split sqrt square squeeze stack std sub sum t take_along_dim tan tanh tensor_split tile topk
transpose tril triu trunc unbind unflatten unique unsqueeze var where zeros zeros_like
"""
_OF_FUNCTIONAL = """
affine_grid batch_norm celu conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d elu gelu
grid_sample group_norm hardsigmoid hardtanh instance_norm layer_norm leaky_relu log_softmax logsigmoid max_pool1d
max_pool2d max_pool3d mish nll_loss normalize one_hot pad prelu relu relu6 rms_norm scaled_dot_product_attention selu
silu softmax softplus softsign unfold
"""
_OF_OPERATOR = "add eq floordiv getitem mul neg sub truediv"


def _functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for place, holder, names in (
        ("torch.nn.functional", functional, _OF_FUNCTIONAL),
        ("torch.linalg", torch.linalg, "vector_norm"),
        ("operator", operator, _OF_OPERATOR),
        ("torch", torch, _OF_TORCH),
    ):
        for name in names.split():
            yield f"{place}.{name}", getattr(holder, name)


FUNCTIONS: Mapping[str, Callable[..., Any]] = dict(_functions())

NAMES: Mapping[Callable[..., Any], str] = {function: name for name, function in FUNCTIONS.items()}
"""The other way round."""

METHODS = frozenset(("expand", "expand_as", "long", "new_zeros", "relu", "reshape", "size", "to", "unflatten", "view"))


def _types(held: Iterable[Any]) -> Iterator[tuple[str, torch.dtype]]:
    for value in held:
        if isinstance(value, torch.dtype):
            yield str(value).removeprefix("torch."), value


TYPES: Mapping[str, torch.dtype] = dict(_types(vars(torch).values()))
