"""Activation functions."""

from __future__ import annotations

from typing import Any

import torch

from cfi_translate.grammar import Converter, require
from cfi_translate.torch_export.onnx_graph import OnnxGraph, OnnxValue
from cfi_translate.torch_export.operators.elementwise import unary
from cfi_translate.torch_export.table import TorchOp, operator

for _name in ("relu", "sigmoid", "tanh", "selu", "mish"):
    operator(_name)(unary(_name.capitalize()))
operator("hardswish")(unary("HardSwish"))
operator("hardsigmoid")(unary("HardSigmoid", alpha=1 / 6, beta=0.5))


@operator("silu")
def silu(op: TorchOp, to: OnnxGraph, x: Any) -> OnnxValue:
    return to.node("Mul", x, to.node("Sigmoid", x))


@operator("gelu")
def gelu(op: TorchOp, to: OnnxGraph, x: Any, approximate: str) -> OnnxValue:
    return to.node("Gelu", x, approximate=approximate)


def _by_alpha(kind: str) -> Converter:
    return lambda op, to, x, alpha: to.node(kind, x, alpha=float(alpha))


operator("leaky_relu")(_by_alpha("LeakyRelu"))
operator("celu")(_by_alpha("Celu"))


@operator("elu")
def elu(op: TorchOp, to: OnnxGraph, x: Any, alpha: float, scale: float, input_scale: float) -> OnnxValue:
    require(scale == 1 and input_scale == 1, "it is scaled")
    return to.node("Elu", x, alpha=float(alpha))


@operator("prelu")
def prelu(op: TorchOp, to: OnnxGraph, x: OnnxValue, slope: Any) -> OnnxValue:
    require(isinstance(slope, torch.Tensor), "its slope is computed")
    return to.node("PRelu", x, slope.reshape(-1, *(1,) * (len(x.shape) - 2)) if len(x.shape) > 2 else slope)


@operator("rrelu")
def rrelu(op: TorchOp, to: OnnxGraph, x: Any, lower: float, upper: float, training: bool, generator: Any) -> OnnxValue:
    require(not training, "its result is random")
    return to.node("LeakyRelu", x, alpha=(lower + upper) / 2)


@operator("softplus")
def softplus(op: TorchOp, to: OnnxGraph, x: Any, beta: float, threshold: float) -> OnnxValue:
    scaled = to.scale(x, beta, op.dtype)
    soft = to.scale(to.node("Softplus", scaled), 1 / beta, op.dtype)
    if threshold >= 20:  # beyond it both agree to the last bit of a float32
        return soft
    return to.node("Where", to.node("Greater", scaled, to.scalar(threshold, op.dtype)), x, soft)


@operator("log_sigmoid")
def log_sigmoid(op: TorchOp, to: OnnxGraph, x: Any) -> OnnxValue:
    return to.node("Neg", to.node("Softplus", to.node("Neg", x)))


@operator("hardshrink")
def hard_shrink(op: TorchOp, to: OnnxGraph, x: Any, threshold: float) -> OnnxValue:
    return to.node("Shrink", x, lambd=float(threshold), bias=0.0)


@operator("softshrink")
def soft_shrink(op: TorchOp, to: OnnxGraph, x: Any, threshold: float) -> OnnxValue:
    return to.node("Shrink", x, lambd=float(threshold), bias=float(threshold))


def _softmax(kind: str) -> Converter:
    return lambda op, to, x, axis, dtype=None: to.node(kind, to.cast(x, op.dtype), axis=axis)


operator("softmax.int", "_softmax")(_softmax("Softmax"))
operator("log_softmax.int", "_log_softmax")(_softmax("LogSoftmax"))
