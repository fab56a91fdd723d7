"""Operators as native Keras layers, in the place of onnx2keras's own converters.

Each function has the signature that onnx2keras calls its converters with. The graph is built channels-first and
onnx2keras then rebuilds every layer channels-last. Which fault of onnx2keras each one repairs stands in
`workarounds.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from onnx import NodeProto

from cfi_translate.failures import refusal
from cfi_translate.keras_layers import LowestPadding2D
from cfi_translate.semantics.windows import same_total

NAME = "onnx2keras"
FIRST = "channels_first"

Layers = dict[str, Any]
Converter = Callable[[NodeProto, Mapping[str, Any], Layers, dict[str, Any], str, Any], None]
Build = Callable[[NodeProto, Mapping[str, Any], list[Any], str], Any]
Pads = tuple[tuple[int, int], tuple[int, int]]


def _converter(build: Build) -> Converter:
    """A converter from a function that maps the node's input values to its output tensor."""

    def convert(
        node: NodeProto,
        attributes: Mapping[str, Any],
        layers: Layers,
        functions: dict[str, Any],
        output: str,
        name: Any,
    ) -> None:
        layer_name = name[0] if isinstance(name, list) else name
        values = [layers[one] if one else None for one in node.input]
        layers[output] = build(node, attributes, values, layer_name)

    return convert


def _is_constant(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _pads(attributes: Mapping[str, Any]) -> Pads:
    top, left, bottom, right = attributes.get("pads") or (0, 0, 0, 0)
    return (top, bottom), (left, right)


def _is_same(tensor: Any, pads: Pads, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> bool:
    """Whether TensorFlow's "same" pads exactly so, for the (fixed) size of this input."""
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    totals = [same_total(int(tensor.shape[2 + i]), extents[i], strides[i]) for i in range(2)]
    return pads == tuple((total // 2, total - total // 2) for total in totals)


def _conv(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    tensor, kernel, bias = (*values, None)[:3]
    if not _is_constant(kernel) or (bias is not None and not _is_constant(bias)) or kernel.ndim != 4:
        raise refusal(NAME, node, "only two-dimensional convolutions with constant weights are supported")
    groups = attributes.get("group", 1)
    strides = tuple(attributes.get("strides") or (1, 1))
    dilations = tuple(attributes.get("dilations") or (1, 1))
    if max(strides) > 1 and max(dilations) > 1:
        raise refusal(NAME, node, "TensorFlow has no convolution with both strides and dilations")
    filters, per_group, *size = kernel.shape
    pads, padding = _pads(attributes), "valid"
    if _is_same(tensor, pads, size, strides, dilations):
        padding = "same"
    elif any(map(any, pads)):
        tensor = keras.layers.ZeroPadding2D(pads, data_format=FIRST, name=f"{name}.pad")(tensor)
    if not any(map(any, pads)):
        padding = "valid"
    settings = {
        "kernel_size": tuple(size),
        "strides": strides,
        "padding": padding,
        "dilation_rate": dilations,
        "use_bias": bias is not None,
        "data_format": FIRST,
        "name": name,
    }
    if per_group == 1 and groups > 1 and strides[0] == strides[1]:
        layer = keras.layers.DepthwiseConv2D(
            depth_multiplier=filters // groups, depthwise_initializer="zeros", **settings
        )
        weight = kernel.transpose(2, 3, 0, 1).reshape(*size, groups, filters // groups)
    else:
        layer = keras.layers.Conv2D(filters, groups=groups, kernel_initializer="zeros", **settings)
        weight = kernel.transpose(2, 3, 1, 0)
    result = layer(tensor)
    layer.set_weights([weight] if bias is None else [weight, bias])
    return result


def _pooling(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    (tensor,) = values
    kernel = tuple(attributes["kernel_shape"])
    if len(kernel) != 2 or any(one != 1 for one in attributes.get("dilations") or ()):
        raise refusal(NAME, node, "only two-dimensional pooling without dilations is supported")
    strides = tuple(attributes.get("strides") or (1, 1))
    pads, padding = _pads(attributes), "valid"
    average = node.op_type == "AveragePool"
    if attributes.get("ceil_mode"):
        pads, partial = _with_ceiling(tensor, pads, kernel, strides)
        if partial and average:
            raise refusal(NAME, node, "an average over the partial windows of ceil_mode is not supported")
    if any(map(any, pads)):
        counts_padding = average and attributes.get("count_include_pad", 0)
        if not counts_padding and _is_same(tensor, pads, kernel, strides, (1, 1)):
            padding = "same"
        elif average and not counts_padding:
            raise refusal(NAME, node, "an average that leaves out this padding is not supported")
        else:
            pad = keras.layers.ZeroPadding2D if average else LowestPadding2D
            tensor = pad(pads, data_format=FIRST, name=f"{name}.pad")(tensor)
    pool = keras.layers.AveragePooling2D if average else keras.layers.MaxPooling2D
    return pool(kernel, strides=strides, padding=padding, data_format=FIRST, name=name)(tensor)


def _with_ceiling(tensor: Any, pads: Pads, kernel: Sequence[int], strides: Sequence[int]) -> tuple[Pads, bool]:
    """Padding with which the last, partial windows are whole; and whether there are any."""
    ends = []
    for axis in range(2):
        size = int(tensor.shape[2 + axis]) + sum(pads[axis])
        steps = -(-(size - kernel[axis]) // strides[axis])
        if steps * strides[axis] >= int(tensor.shape[2 + axis]) + pads[axis][0]:
            steps -= 1  # a window must not begin in the padding at the end
        ends.append(max(steps * strides[axis] + kernel[axis] - size, 0))
    (top, bottom), (left, right) = pads
    return ((top, bottom + ends[0]), (left, right + ends[1])), any(ends)


def _global_pooling(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    average = node.op_type == "GlobalAveragePool"
    pool = keras.layers.GlobalAveragePooling2D if average else keras.layers.GlobalMaxPooling2D
    return pool(keepdims=True, data_format=FIRST, name=name)(values[0])


def _flatten(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    tensor = values[0]
    if attributes.get("axis", 1) != 1:
        raise refusal(NAME, node, "only a Flatten that keeps the first axis is supported")
    if len(tensor.shape) == 4 and tuple(tensor.shape[2:]) != (1, 1):
        # After the change of the axis order the same Permute brings the channels to the front again.
        tensor = keras.layers.Permute((3, 1, 2), name=f"{name}.channels_first")(tensor)
    # Keras's Flatten reorders channels-first images by itself; this one is to join the axes as they are.
    return keras.layers.Flatten(data_format="channels_last", name=name)(tensor)


def _flatten_channels_last(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    return keras.layers.Flatten(data_format="channels_last", name=name)(values[0])


def _dense(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    tensor, weight, bias = (*values, None)[:3]
    if not _is_constant(weight) or weight.ndim != 2 or len(tensor.shape) != 2 or attributes.get("transA", 0):
        raise refusal(NAME, node, "only a product of samples in rows with a constant matrix is supported")
    matrix = weight.T if attributes.get("transB", 0) else weight
    if bias is not None and (not _is_constant(bias) or bias.size not in (1, matrix.shape[1])):
        raise refusal(NAME, node, "only a constant bias for each column is supported")
    layer = keras.layers.Dense(matrix.shape[1], use_bias=bias is not None, kernel_initializer="zeros", name=name)
    result = layer(tensor)
    weights = [matrix * np.float32(attributes.get("alpha", 1.0))]
    if bias is not None:
        full = np.broadcast_to(bias.reshape(-1), (matrix.shape[1],))
        weights.append(full * np.float32(attributes.get("beta", 1.0)))
    layer.set_weights(weights)
    return result


def _softmax(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    (tensor,) = values
    rank = len(tensor.shape)
    axis = attributes.get("axis", -1) % rank
    if axis != 1:
        raise refusal(NAME, node, "only a softmax over classes (axis 1) is supported")
    if node.op_type == "LogSoftmax":
        if rank != 2:
            raise refusal(NAME, node, "only a log-softmax of rank 2 is supported")
        return keras.layers.Activation("log_softmax", name=name)(tensor)
    return keras.layers.Softmax(axis=1 if rank == 4 else -1, name=name)(tensor)


def _clip(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    bounds: list[float | None] = [attributes.get("min"), attributes.get("max")]
    for position in (1, 2):
        if len(values) > position and values[position] is not None:
            if not _is_constant(values[position]):
                raise refusal(NAME, node, "only constant bounds are supported")
            bounds[position - 1] = float(values[position].reshape(()))
    if bounds == [-1, 1]:
        return keras.layers.Activation("hard_tanh", name=name)(values[0])
    if bounds[0] != 0:
        raise refusal(NAME, node, "only the lower bound 0, or bounds -1 and 1, are supported")
    return keras.layers.ReLU(max_value=bounds[1], name=name)(values[0])


def _activation(keras_name: str) -> Build:
    def build(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
        return keras.layers.Activation(keras_name, name=name)(values[0])

    return build


def _elu(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    return keras.layers.ELU(alpha=attributes.get("alpha", 1.0), name=name)(values[0])


def _leaky_relu(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    return keras.layers.LeakyReLU(negative_slope=attributes.get("alpha", 0.01), name=name)(values[0])


def _selu(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    alpha, gamma = attributes.get("alpha", 1.67326324), attributes.get("gamma", 1.05070102)
    if not np.isclose(alpha, 1.67326324, rtol=1e-6) or not np.isclose(gamma, 1.05070102, rtol=1e-6):
        raise refusal(NAME, node, "Keras has SELU with the standard alpha and gamma only")
    return keras.layers.Activation("selu", name=name)(values[0])


def _hard_sigmoid(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    if not np.isclose(alpha, 1 / 6, rtol=1e-5) or beta != 0.5:
        raise refusal(NAME, node, "Keras has a hard sigmoid with alpha 1/6 and beta 1/2 only")
    return keras.layers.Activation("hard_sigmoid", name=name)(values[0])


def _arithmetic(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    constants = [value for value in values if _is_constant(value)]
    if not constants:
        if len({len(value.shape) for value in values}) != 1:
            raise refusal(NAME, node, "operands of different rank are not supported")
        layer = {"Add": "Add", "Sum": "Add", "Mul": "Multiply", "Sub": "Subtract"}.get(node.op_type)
        if layer is None or (node.op_type == "Sub" and len(values) != 2):
            raise refusal(NAME, node, "Keras has no layer for it")
        return getattr(keras.layers, layer)(name=name)(values)
    if len(values) != 2 or len(constants) != 1 or constants[0].size != 1:
        raise refusal(NAME, node, "only constants with one value, or one for each channel, are supported")
    constant, first = float(constants[0].reshape(())), _is_constant(values[0])
    scale, offset = {
        ("Add", False): (1.0, constant),
        ("Add", True): (1.0, constant),
        ("Sub", False): (1.0, -constant),
        ("Sub", True): (-1.0, constant),
        ("Mul", False): (constant, 0.0),
        ("Mul", True): (constant, 0.0),
        ("Div", False): (1 / constant if constant else np.inf, 0.0),
    }.get((node.op_type, first), (np.inf, 0.0))
    if not np.isfinite(scale):
        raise refusal(NAME, node, "division by the tensor, or by 0, is not supported")
    return keras.layers.Rescaling(scale, offset, name=name)(values[1] if first else values[0])


def _batch_normalization(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    tensor, *weights = values
    if len(weights) != 4 or not all(map(_is_constant, weights)) or attributes.get("training_mode", 0):
        raise refusal(NAME, node, "only inference-mode normalization with constant statistics is supported")
    layer = keras.layers.BatchNormalization(
        axis=1, epsilon=attributes.get("epsilon", 1e-5), momentum=attributes.get("momentum", 0.9), name=name
    )
    result = layer(tensor)
    layer.set_weights(weights)
    return result


def _concat(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    ranks = {None if _is_constant(value) else len(value.shape) for value in values}
    if len(ranks) != 1 or None in ranks:
        raise refusal(NAME, node, "only tensors of the same rank, none of them constant, are supported")
    axis = attributes["axis"] % ranks.pop()
    if axis == 0:
        raise refusal(NAME, node, "it joins samples")
    if len(values) == 1:
        return values[0]
    return keras.layers.Concatenate(axis=axis, name=name)(values)


def _pad(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    pads = attributes.get("pads")
    if pads is None and len(values) > 1 and _is_constant(values[1]):
        pads = values[1].tolist()
    value = values[2] if len(values) > 2 and values[2] is not None else attributes.get("value", 0.0)
    mode = attributes.get("mode", b"constant")
    plain = mode == b"constant" and not (_is_constant(value) and np.any(value)) and len(values) < 4
    if pads is None or len(pads) != 8 or any(pads[:2]) or any(pads[4:6]) or min(pads) < 0 or not plain or np.any(value):
        raise refusal(NAME, node, "only constant padding of the spatial axes with zeros is supported")
    around = ((pads[2], pads[6]), (pads[3], pads[7]))
    return keras.layers.ZeroPadding2D(around, data_format=FIRST, name=name)(values[0])


def _transpose(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    permutation = attributes.get("perm")
    if permutation is None or permutation[0] != 0:
        raise refusal(NAME, node, "it moves the sample axis")
    return keras.layers.Permute(permutation[1:], name=name)(values[0])


def _upsampling(node: NodeProto, attributes: Mapping[str, Any], values: list[Any], name: str) -> Any:
    tensor = values[0]
    scales: Any = values[2] if len(values) > 2 and values[2] is not None and np.size(values[2]) else None
    if scales is None and len(values) > 3 and _is_constant(values[3]):
        scales = np.array([1, 1, *(values[3][2 + i] / int(tensor.shape[2 + i]) for i in range(2))])
    if not _is_constant(scales) or len(scales) != 4 or scales[0] != 1 or scales[1] != 1 or np.any(scales % 1):
        raise refusal(NAME, node, "only whole-numbered spatial scales are supported")
    nearest = attributes.get("mode", b"nearest") == b"nearest"
    floor = attributes.get("nearest_mode", b"round_prefer_floor") == b"floor"
    if not nearest or not floor or attributes.get("coordinate_transformation_mode") != b"asymmetric":
        raise refusal(NAME, node, "only nearest-neighbour resizing (asymmetric, floor) is supported")
    size = tuple(int(scale) for scale in scales[2:])
    return keras.layers.UpSampling2D(size, data_format=FIRST, interpolation="nearest", name=name)(tensor)


FLATTEN_CHANNELS_LAST = "FlattenChannelsLast"
"""Our own operator: joins the axes of an image channels-last."""

CONVERTERS: Mapping[str, Converter] = {
    operator: _converter(build)
    for operator, build in {
        "Conv": _conv,
        "MaxPool": _pooling,
        "AveragePool": _pooling,
        "GlobalAveragePool": _global_pooling,
        "GlobalMaxPool": _global_pooling,
        "Flatten": _flatten,
        FLATTEN_CHANNELS_LAST: _flatten_channels_last,
        "Gemm": _dense,
        "MatMul": _dense,
        "Softmax": _softmax,
        "LogSoftmax": _softmax,
        "Clip": _clip,
        "Elu": _elu,
        "LeakyRelu": _leaky_relu,
        "Selu": _selu,
        "HardSigmoid": _hard_sigmoid,
        "Exp": _activation("exponential"),
        "Softplus": _activation("softplus"),
        "Softsign": _activation("softsign"),
        "Add": _arithmetic,
        "Sum": _arithmetic,
        "Sub": _arithmetic,
        "Mul": _arithmetic,
        "Div": _arithmetic,
        "BatchNormalization": _batch_normalization,
        "Concat": _concat,
        "Pad": _pad,
        "Transpose": _transpose,
        "Resize": _upsampling,
    }.items()
}

OWN_CONVERTERS_OF_ONNX2KERAS = ("Relu", "Sigmoid", "Tanh")
"""Operators that onnx2keras converts to the native layer by itself."""


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
