"""Operators as native Keras layers, in the place of onnx2keras's own converters.

`op` is the node and `to` makes the layers that are named after it. The operands are what onnx2keras has made of the
node's inputs: Keras tensors, and arrays of constants. The graph is built channels-first and onnx2keras then rebuilds
every layer channels-last. Which fault of onnx2keras each function repairs stands in `workarounds.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers
from onnx import NodeProto

from cfi_translate.grammar import Operators, require
from cfi_translate.keras_layers import LowestPadding2D
from cfi_translate.program import Operation, describe, plain
from cfi_translate.semantics.values import is_standard
from cfi_translate.semantics.windows import Window, window_of

NAME = "onnx2keras"
FIRST = "channels_first"
FLATTEN_CHANNELS_LAST = "FlattenChannelsLast"
"""Our own operator: joins the axes of an image channels-last."""

OWN_CONVERTERS_OF_ONNX2KERAS = ("Relu", "Sigmoid", "Tanh")
"""Operators that onnx2keras converts to the native layer by itself."""

operator = Operators(NAME, describe)


@dataclass(frozen=True)
class LayerMaker:
    """Makes layers that are named after a node, and calls them."""

    name: str

    def __call__(self, make: Callable[..., Any], value: Any, *settings: Any, suffix: str = "", **options: Any) -> Any:
        """The output of a new layer."""
        return make(*settings, name=f"{self.name}{suffix}", **options)(value)

    def with_weights(self, layer: Any, value: Any, *weights: np.ndarray | None) -> Any:
        """The output of a layer that has these weights, without those that are None."""
        result = layer(value)
        layer.set_weights([one for one in weights if one is not None])
        return result


Converter = Callable[[NodeProto, Mapping[str, Any], dict[str, Any], dict[str, Any], str, Any], None]


def converters() -> dict[str, Converter]:
    """The functions of the table with the signature with which onnx2keras calls its own."""
    return dict.fromkeys(operator, _convert)


def _convert(
    node: NodeProto,
    attributes: Mapping[str, Any],
    made: dict[str, Any],
    functions: dict[str, Any],
    output: str,
    name: Any,
) -> None:
    settings = {key: plain(value) for key, value in attributes.items()}
    operation = Operation(node.op_type, node.name, 0, (), (), settings)
    maker = LayerMaker(name[0] if isinstance(name, list) else name)
    values = [made[one] if one else None for one in node.input]
    made[output] = operator.convert(node.op_type, operation, maker, *values)


def _is_constant(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _sizes(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape[2:])


def _is_same(area: Window, tensor: Any) -> bool:
    """Whether TensorFlow's "same" pads exactly so, for the (fixed) size of this input."""
    return area == area.pad_alike(_sizes(tensor))


@operator("Conv")
def convolution(op: Operation, to: LayerMaker, tensor: Any, kernel: Any, bias: Any = None) -> Any:
    possible = _is_constant(kernel) and (bias is None or _is_constant(bias)) and kernel.ndim == 4
    require(possible, "only two-dimensional convolutions with constant weights are supported")
    filters, per_group, *size = kernel.shape
    area, groups = window_of(op, size, _sizes(tensor)), op.attributes["group"]
    possible = max(area.strides) == 1 or not area.is_dilated
    require(possible, "TensorFlow has no convolution with both strides and dilations")
    padding = "same" if area.is_padded and _is_same(area, tensor) else "valid"
    if area.is_padded and padding == "valid":
        tensor = to(layers.ZeroPadding2D, tensor, area.pairs, data_format=FIRST, suffix=".pad")
    settings = {
        "kernel_size": area.kernel,
        "strides": area.strides,
        "padding": padding,
        "dilation_rate": area.dilations,
        "use_bias": bias is not None,
        "data_format": FIRST,
        "name": to.name,
    }
    if per_group == 1 and groups > 1 and area.strides[0] == area.strides[1]:
        layer = layers.DepthwiseConv2D(depth_multiplier=filters // groups, depthwise_initializer="zeros", **settings)
        weight = kernel.transpose(2, 3, 0, 1).reshape(*size, groups, filters // groups)
    else:
        layer = layers.Conv2D(filters, groups=groups, kernel_initializer="zeros", **settings)
        weight = kernel.transpose(2, 3, 1, 0)
    return to.with_weights(layer, tensor, weight, bias)


@operator("MaxPool", "AveragePool")
def pooling(op: Operation, to: LayerMaker, tensor: Any) -> Any:
    is_average, sizes = op.kind == "AveragePool", _sizes(tensor)
    area = window_of(op, op.attributes["kernel_shape"], sizes)
    possible = area.rank == 2 and not area.is_dilated
    require(possible, "only two-dimensional pooling without dilations is supported")
    whole = area.round_up(sizes) if op.attributes["ceil_mode"] else area
    possible = whole == area or not is_average
    require(possible, "an average over the partial windows of ceil_mode is not supported")
    padding = "valid"
    if whole.is_padded:
        counts_padding = is_average and op.attributes["count_include_pad"]
        is_same = not counts_padding and _is_same(whole, tensor)
        possible = is_same or not is_average or counts_padding
        require(possible, "an average that leaves out this padding is not supported")
        if not is_same:
            pad = layers.ZeroPadding2D if is_average else LowestPadding2D
            tensor = to(pad, tensor, whole.pairs, data_format=FIRST, suffix=".pad")
        padding = "same" if is_same else "valid"
    pool = layers.AveragePooling2D if is_average else layers.MaxPooling2D
    return to(pool, tensor, area.kernel, strides=area.strides, padding=padding, data_format=FIRST)


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pooling(op: Operation, to: LayerMaker, tensor: Any) -> Any:
    pool = layers.GlobalAveragePooling2D if op.kind == "GlobalAveragePool" else layers.GlobalMaxPooling2D
    return to(pool, tensor, keepdims=True, data_format=FIRST)


@operator("Flatten", FLATTEN_CHANNELS_LAST)
def flatten(op: Operation, to: LayerMaker, tensor: Any) -> Any:
    require(op.attributes.get("axis", 1) == 1, "only a Flatten that keeps the first axis is supported")
    is_image = len(tensor.shape) == 4 and tuple(tensor.shape[2:]) != (1, 1)
    if is_image and op.kind == "Flatten":
        # After the change of the axis order the same Permute brings the channels to the front again.
        tensor = to(layers.Permute, tensor, (3, 1, 2), suffix=".channels_first")
    # Keras's Flatten reorders channels-first images by itself; this one is to join the axes as they are.
    return to(layers.Flatten, tensor, data_format="channels_last")


@operator("Gemm", "MatMul")
def dense(op: Operation, to: LayerMaker, tensor: Any, weight: Any, bias: Any = None) -> Any:
    settings = op.attributes
    possible = _is_constant(weight) and weight.ndim == 2 and len(tensor.shape) == 2 and not settings.get("transA")
    require(possible, "only a product of samples in rows with a constant matrix is supported")
    matrix = weight.T if settings.get("transB") else weight
    units = matrix.shape[1]
    possible = bias is None or (_is_constant(bias) and bias.size in (1, units))
    require(possible, "only a constant bias for each column is supported")
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1), (units,)) * np.float32(settings["beta"])
    layer = layers.Dense(units, use_bias=bias is not None, kernel_initializer="zeros", name=to.name)
    return to.with_weights(layer, tensor, matrix * np.float32(settings.get("alpha", 1.0)), bias)


@operator("Softmax", "LogSoftmax")
def softmax(op: Operation, to: LayerMaker, tensor: Any) -> Any:
    rank = len(tensor.shape)
    require(op.attributes["axis"] % rank == 1, "only a softmax over classes (axis 1) is supported")
    if op.kind == "Softmax":
        return to(layers.Softmax, tensor, axis=1 if rank == 4 else -1)
    require(rank == 2, "only a log-softmax of rank 2 is supported")
    return to(layers.Activation, tensor, "log_softmax")


@operator("Clip")
def clip(op: Operation, to: LayerMaker, tensor: Any, low: Any = None, high: Any = None) -> Any:
    require(all(one is None or _is_constant(one) for one in (low, high)), "only constant bounds are supported")
    given = (op.attributes.get("min") if low is None else low, op.attributes.get("max") if high is None else high)
    bounds = [None if one is None else float(np.reshape(one, ())) for one in given]
    if bounds == [-1, 1]:
        return to(layers.Activation, tensor, "hard_tanh")
    require(bounds[0] == 0, "only the lower bound 0, or bounds -1 and 1, are supported")
    return to(layers.ReLU, tensor, max_value=bounds[1])


_BY_ALPHA = {"Elu": layers.ELU, "LeakyRelu": layers.LeakyReLU}


@operator(*_BY_ALPHA)
def by_alpha(op: Operation, to: LayerMaker, tensor: Any) -> Any:
    return to(_BY_ALPHA[op.kind], tensor, op.attributes["alpha"])


@operator("Selu")
def selu(op: Operation, to: LayerMaker, tensor: Any) -> Any:
    require(is_standard(op), "Keras has SELU with the standard alpha and gamma only")
    return to(layers.Activation, tensor, "selu")


@operator("HardSigmoid")
def hard_sigmoid(op: Operation, to: LayerMaker, tensor: Any) -> Any:
    require(is_standard(op), "Keras has a hard sigmoid with alpha 1/6 and beta 1/2 only")
    return to(layers.Activation, tensor, "hard_sigmoid")


_BY_NAME = {"Exp": "exponential", "Softplus": "softplus", "Softsign": "softsign"}


@operator(*_BY_NAME)
def by_name(op: Operation, to: LayerMaker, tensor: Any) -> Any:
    return to(layers.Activation, tensor, _BY_NAME[op.kind])


_MERGING = {"Add": layers.Add, "Sum": layers.Add, "Mul": layers.Multiply, "Sub": layers.Subtract}


@operator("Add", "Sum", "Sub", "Mul", "Div")
def arithmetic(op: Operation, to: LayerMaker, *values: Any) -> Any:
    constants = [value for value in values if _is_constant(value)]
    if not constants:
        require(len({len(value.shape) for value in values}) == 1, "operands of different rank are not supported")
        possible = op.kind in _MERGING and (op.kind != "Sub" or len(values) == 2)
        require(possible, "Keras has no layer for it")
        return to(_MERGING[op.kind], list(values))
    possible = len(values) == 2 and len(constants) == 1 and constants[0].size == 1
    require(possible, "only constants with one value, or one for each channel, are supported")
    number, is_first = float(constants[0].reshape(())), _is_constant(values[0])
    possible = op.kind != "Div" or (number != 0 and not is_first)
    require(possible, "division by the tensor, or by 0, is not supported")
    scale, offset = {
        "Mul": (number, 0.0),
        "Div": (1 / number if number else 0.0, 0.0),
        "Sub": (-1.0, number) if is_first else (1.0, -number),
    }.get(op.kind, (1.0, number))
    return to(layers.Rescaling, values[1 if is_first else 0], scale, offset)


@operator("BatchNormalization")
def batch_normalization(op: Operation, to: LayerMaker, tensor: Any, *weights: Any) -> Any:
    possible = len(weights) == 4 and all(map(_is_constant, weights)) and not op.attributes.get("training_mode")
    require(possible, "only inference-mode normalization with constant statistics is supported")
    settings = {name: op.attributes[name] for name in ("epsilon", "momentum")}
    return to.with_weights(layers.BatchNormalization(axis=1, name=to.name, **settings), tensor, *weights)


@operator("Concat")
def concatenation(op: Operation, to: LayerMaker, *values: Any) -> Any:
    ranks = {None if _is_constant(value) else len(value.shape) for value in values}
    possible = len(ranks) == 1 and None not in ranks
    require(possible, "only tensors of the same rank, none of them constant, are supported")
    axis = op.attributes["axis"] % len(values[0].shape)
    require(axis != 0, "it joins samples")
    return values[0] if len(values) == 1 else to(layers.Concatenate, list(values), axis=axis)


@operator("Pad")
def pad(op: Operation, to: LayerMaker, tensor: Any, pads: Any = None, fill: Any = None, axes: Any = None) -> Any:
    given = op.attributes.get("pads", ()) if pads is None else pads
    number = op.attributes.get("value", 0.0) if fill is None else fill
    is_zero = op.attributes["mode"] == "constant" and _is_constant(np.asarray(number)) and not np.any(number)
    is_spatial = len(given) == 8 and axes is None and not any((*given[:2], *given[4:6]))
    possible = is_zero and is_spatial and min(given) >= 0
    require(possible, "only constant padding of the spatial axes with zeros is supported")
    around = ((int(given[2]), int(given[6])), (int(given[3]), int(given[7])))
    return to(layers.ZeroPadding2D, tensor, around, data_format=FIRST)


@operator("Transpose")
def transpose(op: Operation, to: LayerMaker, tensor: Any) -> Any:
    permutation = op.attributes.get("perm", ())
    require(permutation[:1] == (0,), "it moves the sample axis")
    return to(layers.Permute, tensor, permutation[1:])


@operator("Resize")
def resizing(
    op: Operation, to: LayerMaker, tensor: Any, region: Any = None, scales: Any = None, sizes: Any = None
) -> Any:
    if (scales is None or not np.size(scales)) and _is_constant(sizes):
        scales = np.array([1, 1, *(sizes[2:] / np.array(_sizes(tensor)))])
    possible = _is_constant(scales) and len(scales) == 4 and tuple(scales[:2]) == (1, 1) and not np.any(scales % 1)
    require(possible, "only whole-numbered spatial scales are supported")
    how = tuple(op.attributes.get(name) for name in ("mode", "nearest_mode", "coordinate_transformation_mode"))
    is_plain = how == ("nearest", "floor", "asymmetric")
    require(is_plain, "only nearest-neighbour resizing (asymmetric, floor) is supported")
    size = tuple(int(scale) for scale in scales[2:])
    return to(layers.UpSampling2D, tensor, size, data_format=FIRST, interpolation="nearest")


def clone_channels_last(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Rebuilds a layer for channels-last images; layers of flat features stay as they are.

    Args:
        original: onnx2keras's own function, which takes every layer for one of images.
    """

    def clone(layer: Any, functions: Mapping[str, Any]) -> Any:
        tensors = layer.input if isinstance(layer.input, list) else [layer.input]
        if all(len(tensor.shape) == 4 for tensor in tensors) and not isinstance(layer, keras.layers.Flatten):
            return original(layer, functions)
        return type(layer).from_config(layer.get_config())

    return clone
