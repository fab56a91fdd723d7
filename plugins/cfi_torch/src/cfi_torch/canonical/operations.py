"""Names for what functions and modules of torch do, with their settings: the operations of a canonical copy.

The names are those of torch's functions. Each operation has the module of `torch.nn` that does the same, and an
elementwise one a function too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from cfi_torch.canonical.program import Constant, Ref, Sized, Step, Weight, inside, words
from cfi_torch.canonical.recording import function_name

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """What a step does.

    Attributes:
        name: `"relu"`, `"max_pool"`, `"add"`, …
        operands: What its module takes.
        settings: What its module is made with.
        own: Makes torch's own module for it; None if there is none.
        function: For an elementwise operation, the function of its one operand.
    """

    name: str
    operands: tuple[Any, ...]
    settings: Settings = field(default_factory=dict)
    own: Callable[[], nn.Module] | None = None
    function: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class _Activation:
    """An elementwise function that is a module of torch's too."""

    module: type[nn.Module]
    function: Callable[..., Any]
    settings: tuple[tuple[str, Any], ...] = ()  # names and defaults, in the order of the function's arguments


_ACTIVATIONS = {
    "relu": _Activation(nn.ReLU, torch.relu),
    "relu6": _Activation(nn.ReLU6, F.relu6),
    "hardtanh": _Activation(nn.Hardtanh, F.hardtanh, (("min_val", -1.0), ("max_val", 1.0))),
    "leaky_relu": _Activation(nn.LeakyReLU, F.leaky_relu, (("negative_slope", 0.01),)),
    "elu": _Activation(nn.ELU, F.elu, (("alpha", 1.0),)),
    "selu": _Activation(nn.SELU, torch.selu),
    "celu": _Activation(nn.CELU, torch.celu, (("alpha", 1.0),)),
    "gelu": _Activation(nn.GELU, F.gelu, (("approximate", "none"),)),
    "silu": _Activation(nn.SiLU, F.silu),
    "mish": _Activation(nn.Mish, F.mish),
    "softplus": _Activation(nn.Softplus, F.softplus, (("beta", 1.0), ("threshold", 20.0))),
    "softsign": _Activation(nn.Softsign, F.softsign),
    "sigmoid": _Activation(nn.Sigmoid, torch.sigmoid),
    "logsigmoid": _Activation(nn.LogSigmoid, F.logsigmoid),
    "tanh": _Activation(nn.Tanh, torch.tanh),
    "tanhshrink": _Activation(nn.Tanhshrink, F.tanhshrink),
    "hardswish": _Activation(nn.Hardswish, F.hardswish),
    "hardsigmoid": _Activation(nn.Hardsigmoid, F.hardsigmoid),
    "hardshrink": _Activation(nn.Hardshrink, F.hardshrink, (("lambd", 0.5),)),
    "softshrink": _Activation(nn.Softshrink, F.softshrink, (("lambd", 0.5),)),
}
ELEMENTWISE = frozenset(_ACTIVATIONS)
_ALIASES = {"log_sigmoid": "logsigmoid", "swish": "silu", "expit": "sigmoid"}
_UNARY = words(
    "abs absolute __abs__ exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan asin acos atan "
    "sinh cosh asinh acosh atanh erf erfc erfinv sinc sign sgn floor ceil round trunc frac lgamma digamma logit "
    "clamp clip clamp_min clamp_max pow __pow__ __rpow__ __rtruediv__ __rdiv__ maximum minimum xlogy threshold "
    "nan_to_num heaviside arctan arcsin arccos"
)
"""Elementwise, where they have one operand that depends on the inputs, and numbers besides."""
_SUMS = frozenset({"add", "__add__", "__radd__"})
_PRODUCTS = frozenset({"mul", "__mul__", "__rmul__", "multiply"})
_WINDOW = (("kernel_size", None), ("stride", None), ("padding", 0))
_MAX = (*_WINDOW, ("dilation", 1), ("ceil_mode", False))
_MEAN = (*_WINDOW, ("ceil_mode", False), ("count_include_pad", True))
_POOLINGS: Mapping[str, tuple[type[nn.Module], tuple[tuple[str, Any], ...]]] = {
    "max_pool1d": (nn.MaxPool1d, _MAX),
    "max_pool2d": (nn.MaxPool2d, _MAX),
    "max_pool3d": (nn.MaxPool3d, _MAX),
    "avg_pool1d": (nn.AvgPool1d, _MEAN),
    "avg_pool2d": (nn.AvgPool2d, (*_MEAN, ("divisor_override", None))),
    "avg_pool3d": (nn.AvgPool3d, (*_MEAN, ("divisor_override", None))),
    **{
        f"adaptive_{of}_pool{n}d": (getattr(nn, f"Adaptive{of.title()}Pool{n}d"), (("output_size", None),))
        for of in ("avg", "max")
        for n in (1, 2, 3)
    },
}
_DROPOUTS = {
    "dropout": nn.Dropout,
    "feature_dropout": nn.Dropout1d,
    "dropout1d": nn.Dropout1d,
    "dropout2d": nn.Dropout2d,
    "dropout3d": nn.Dropout3d,
    "alpha_dropout": nn.AlphaDropout,
    "feature_alpha_dropout": nn.FeatureAlphaDropout,
}
_CONVOLUTIONS = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


class _Unknown(Exception):
    """The step has no name, or not with these arguments."""


def operation(step: Step, weights: Mapping[str, torch.Tensor], depends: Callable[[Any], bool]) -> Operation | None:
    """The operation of a function; None if it has no name.

    Args:
        step: The call.
        weights: Parameters and buffers of the model.
        depends: Whether something among the arguments depends on the inputs.
    """
    name = function_name(step.function)
    try:
        return _find(_ALIASES.get(name, name), step, weights, depends)
    except (_Unknown, TypeError):
        return None


def operation_of(module: nn.Module, args: tuple[Any, ...]) -> Operation | None:
    """The operation of one of torch's own modules; None if it is no elementwise one."""
    for name, kind in _ACTIVATIONS.items():
        if type(module) is kind.module:
            return _activation(name, args[0], {key: getattr(module, key) for key, _ in kind.settings})
    return None


def _find(name: str, step: Step, weights: Mapping[str, torch.Tensor], depends: Callable[[Any], bool]) -> Operation:
    args, kwargs = step.args, step.kwargs
    if name in _ACTIVATIONS:
        given = _bind(args, kwargs, "input", *_ACTIVATIONS[name].settings, ("inplace", False))
        settings = {key: given[key] for key, _ in _ACTIVATIONS[name].settings}
        return _activation(name, given["input"], settings)
    if name in ("clamp", "clip", "clamp_min", "clamp_max"):
        return _clamp(name, step)
    if name in ("softmax", "log_softmax"):
        return _softmax(name, args, kwargs)
    if name in _POOLINGS:
        return _pooling(name, args, kwargs)
    if name in _DROPOUTS:
        return _dropout(name, args, kwargs)
    if name == "flatten":
        given = _bind(args, kwargs, "input", ("start_dim", 0), ("end_dim", -1))
        settings = {key: given[key] for key in ("start_dim", "end_dim")}
        return Operation("flatten", (given["input"],), settings, lambda: nn.Flatten(**settings))
    if name in _WEIGHTED:
        return _WEIGHTED[name](step, _Weights(weights))
    if name in ("cat", "concat", "concatenate"):
        given = _bind(args, kwargs, "tensors", ("dim", 0))
        return Operation("cat", tuple(given["tensors"]), {"dim": given["dim"]})
    if name in _SUMS:
        given = _bind(args, kwargs, "input", "other", ("alpha", 1))
        if given["alpha"] == 1 and depends(given["input"]) and depends(given["other"]):
            return Operation("add", (given["input"], given["other"]))
    if name in _PRODUCTS and len(args) == 2 and args[0] == args[1] and isinstance(args[0], Ref):
        return Operation("elementwise", args[:1], function=torch.square)
    if name in _UNARY:
        return _unary(step, depends)
    raise _Unknown


def _activation(name: str, operand: Any, settings: dict[str, Any]) -> Operation:
    kind = _ACTIVATIONS[name]
    if name == "hardtanh" and (settings["min_val"], settings["max_val"]) == (0, 6):
        return _activation("relu6", operand, {})
    return Operation(name, (operand,), settings, lambda: kind.module(**settings), partial(kind.function, **settings))


def _clamp(name: str, step: Step) -> Operation:
    names = {"clamp_min": ("min",), "clamp_max": ("max",)}.get(name, ("min", "max"))
    given = {"min": None, "max": None} | _bind(step.args, step.kwargs, "input", *((one, None) for one in names))
    low, high = given["min"], given["max"]
    if any(isinstance(end, Ref | Weight | Constant | Sized) for end in (low, high)):
        raise _Unknown
    if low == 0 and high is None:
        return _activation("relu", given["input"], {})
    if low is not None and high is not None:
        return _activation("hardtanh", given["input"], {"min_val": low, "max_val": high})
    return Operation("elementwise", (given["input"],), function=partial(torch.clamp, min=low, max=high))


def _softmax(name: str, args: tuple[Any, ...], kwargs: Settings) -> Operation:
    given = _bind(
        args, {key: one for key, one in kwargs.items() if key != "_stacklevel"}, "input", "dim", ("dtype", None)
    )
    if given["dtype"] is not None or given["dim"] is None:
        raise _Unknown
    kind = nn.Softmax if name == "softmax" else nn.LogSoftmax
    return Operation(name, (given["input"],), {"dim": given["dim"]}, lambda: kind(dim=given["dim"]))


def _pooling(name: str, args: tuple[Any, ...], kwargs: Settings) -> Operation:
    kind, settings = _POOLINGS[name]
    given = _bind(args, kwargs, "input", *settings, ("return_indices", False))
    if given["return_indices"] or (settings[0][0] == "kernel_size" and given["kernel_size"] is None):
        raise _Unknown
    if given.get("stride", 1) in ((), []):
        given["stride"] = None
    chosen = {key: given[key] for key, _ in settings}
    if any(True for _ in inside(chosen)):
        raise _Unknown
    return Operation(name.rpartition("_")[0] + "_pool", (given["input"],), chosen, lambda: kind(**chosen))


def _dropout(name: str, args: tuple[Any, ...], kwargs: Settings) -> Operation:
    given = _bind(args, kwargs, "input", ("p", 0.5), ("training", True), ("inplace", False), ("train", None))
    if given["training"] if given["train"] is None else given["train"]:
        raise _Unknown  # random also in inference mode
    return Operation("dropout", (given["input"],), {"p": given["p"]}, lambda: _DROPOUTS[name](p=given["p"]))


def _unary(step: Step, depends: Callable[[Any], bool]) -> Operation:
    flat = list(inside((step.args, step.kwargs)))
    if len(flat) != 1 or not isinstance(flat[0], Ref) or not depends(flat[0]) or step.function is None:
        raise _Unknown
    place = next((place for place, one in enumerate(step.args) if one == flat[0]), None)
    if place is None:
        raise _Unknown
    before, after = step.args[:place], step.args[place + 1 :]
    function = partial(_apply, step.function, before, after, dict(step.kwargs))
    return Operation("elementwise", (flat[0],), function=function)


def _apply(function: Any, before: Any, after: Any, kwargs: Any, value: Any) -> Any:
    return function(*before, value, *after, **kwargs)


# functions with weights


@dataclass(frozen=True)
class _Weights:
    """Finds the tensors that stand as references among arguments."""

    known: Mapping[str, torch.Tensor]

    def find(self, given: Settings, *names: str) -> dict[str, torch.Tensor | None]:
        """Those of these names; None for one that is not there."""
        return {name: None if given[name] is None else self._tensor(given[name]) for name in names}

    def _tensor(self, value: Any) -> torch.Tensor:
        if not isinstance(value, Weight):
            raise _Unknown
        return self.known[value.name]


def _with_weights(
    name: str, operand: Any, make: Callable[[], nn.Module], held: Mapping[str, torch.Tensor | None], **settings: Any
) -> Operation:
    return Operation(name, (operand,), settings, own=partial(_with, make, **held))


def _linear(step: Step, weights: _Weights) -> Operation:
    given = _bind(step.args, step.kwargs, "input", "weight", ("bias", None))
    held = weights.find(given, "weight", "bias")
    weight, has_bias = held["weight"], held["bias"] is not None
    if weight is None or weight.ndim != 2:
        raise _Unknown
    height, width = weight.shape
    return _with_weights("linear", given["input"], lambda: nn.Linear(width, height, has_bias, device="meta"), held)


def _convolution(name: str, step: Step, weights: _Weights) -> Operation:
    places = (("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
    given = _bind(step.args, step.kwargs, "input", "weight", *places)
    held = weights.find(given, "weight", "bias")
    settings = {key: _alone(given[key]) for key in ("stride", "padding", "dilation", "groups")}
    weight, has_bias = held["weight"], held["bias"] is not None
    if weight is None or any(True for _ in inside(settings)):
        raise _Unknown
    channels, kernel = (weight.shape[1] * settings["groups"], weight.shape[0]), tuple(weight.shape[2:])
    make = partial(_CONVOLUTIONS[name], *channels, kernel, bias=has_bias, device="meta", **settings)
    return _with_weights(name, given["input"], make, held, **settings)


def _batch_norm(step: Step, weights: _Weights) -> Operation:
    places = (("weight", None), ("bias", None), ("training", False), ("momentum", 0.1), ("eps", 1e-5))
    given = _bind(step.args, step.kwargs, "input", "running_mean", "running_var", *places)
    held = weights.find(given, "running_mean", "running_var", "weight", "bias")
    mean, is_affine = held["running_mean"], held["weight"] is not None
    if given["training"] or mean is None or held["running_var"] is None or is_affine != (held["bias"] is not None):
        raise _Unknown
    make = partial(_BATCH_NORMS[step.rank], len(mean), given["eps"], affine=is_affine, device="meta")
    return _with_weights("batch_norm", given["input"], make, held)


def _layer_norm(step: Step, weights: _Weights) -> Operation:
    places = (("weight", None), ("bias", None), ("eps", 1e-5))
    given = _bind(step.args, step.kwargs, "input", "normalized_shape", *places)
    held = weights.find(given, "weight", "bias")
    is_affine = held["weight"] is not None
    make = partial(
        nn.LayerNorm,
        given["normalized_shape"],
        given["eps"],
        is_affine,
        bias=held["bias"] is not None,
        device="meta",
    )
    if held["bias"] is not None and not is_affine:
        raise _Unknown
    return _with_weights("layer_norm", given["input"], make, held)


def _group_norm(step: Step, weights: _Weights) -> Operation:
    places = (("weight", None), ("bias", None), ("eps", 1e-5))
    given = _bind(step.args, step.kwargs, "input", "num_groups", *places)
    held = weights.find(given, "weight", "bias")
    weight = held["weight"]
    if weight is None or held["bias"] is None:
        raise _Unknown
    make = partial(nn.GroupNorm, given["num_groups"], len(weight), given["eps"], device="meta")
    return _with_weights("group_norm", given["input"], make, held)


def _prelu(step: Step, weights: _Weights) -> Operation:
    given = _bind(step.args, step.kwargs, "input", "weight")
    held = weights.find(given, "weight")
    if held["weight"] is None:
        raise _Unknown
    return _with_weights("prelu", given["input"], partial(nn.PReLU, held["weight"].numel(), device="meta"), held)


def _embedding(step: Step, weights: _Weights) -> Operation:
    """Of `torch.nn.functional`; the function of torch takes weights first, and is not one of these."""
    places = (("padding_idx", None), ("max_norm", None), ("norm_type", 2.0), ("scale_grad_by_freq", False))
    given = _bind(step.args, step.kwargs, "input", "weight", *places, ("sparse", False))
    held = weights.find(given, "weight")
    if held["weight"] is None or given["max_norm"] is not None:
        raise _Unknown
    return _with_weights("embedding", given["input"], partial(nn.Embedding, *held["weight"].shape, device="meta"), held)


_WEIGHTED: Mapping[str, Callable[[Step, _Weights], Operation]] = {
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "prelu": _prelu,
    "embedding": _embedding,
    **{name: partial(_convolution, name) for name in _CONVOLUTIONS},
}


def _with(make: Callable[[], nn.Module], **tensors: torch.Tensor | None) -> nn.Module:
    """A module on these very weights; parameters of its own, so that a change of one module's is not another's."""
    module = make()
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if name in module._parameters:
            module._parameters[name] = nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
        else:
            module._buffers[name] = tensor.detach()
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.is_meta:  # a count of batches, which inference needs not
            module._buffers[name] = torch.zeros((), dtype=buffer.dtype)
    return module


def _alone(value: Any) -> Any:
    """Settings of every axis in a tuple, as the modules keep them."""
    return tuple(value) if isinstance(value, list | tuple) else value


def _bind(args: tuple[Any, ...], kwargs: Settings, *names: str | tuple[str, Any]) -> dict[str, Any]:
    """Arguments by name, with defaults."""
    known = [name if isinstance(name, str) else name[0] for name in names]
    given = {name[0]: name[1] for name in names if not isinstance(name, str)}
    given |= dict(zip(known, args, strict=False)) | {_KEYWORDS.get(key, key): one for key, one in kwargs.items()}
    if len(args) > len(known) or given.keys() != set(known):
        raise _Unknown
    return given


_KEYWORDS = {"self": "input", "axis": "dim"}
