"""Rewritings of an ONNX graph that keep what it computes and make it easier to convert.

Every pass changes the model it is given; `prepare` starts from a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator

from cfi_translate.failures import failure, refusal
from cfi_translate.graph import (
    NHWC_TO_NCHW,
    Graph,
    add_constant,
    attribute,
    graph_inputs,
    inline_constants,
    replace_nodes,
    set_attributes,
)
from cfi_translate.reading import free_batch_axis

_FOLDED_SIZE_LIMIT = 2**26
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
# Inputs that hold sizes or indices: if they depend on nothing but the batch size they can be made constant.
_SIZE_INPUTS = {"Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Pad": (1,), "Resize": (2, 3), "Tile": (1,)}


def prepare(
    model: ModelProto, inputs: Sequence[np.ndarray], translator: str, opsets: tuple[int, int], preferred: int = 13
) -> ModelProto:
    """A cleaned copy: supported opset, constants folded, no identities, free batch axis, constant sizes.

    Args:
        model: The model; it is not changed.
        inputs: One array per input, sample axis first.
        translator: Who asks, for messages.
        opsets: Lowest and highest opset that the converter understands.
        preferred: Opset to convert to if the model's is outside.
    """
    given = graph_inputs(model)
    if len(given) != len(inputs):
        raise failure(translator, f"was given {len(inputs)} inputs for a model with {len(given)}")
    model = deepcopy(model)
    kept = {one.name for one in given}
    inputs_left = [one for one in model.graph.input if one.name in kept]
    del model.graph.input[:]
    model.graph.input.extend(inputs_left)
    for node in model.graph.node:
        if any(one.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for one in node.attribute):
            raise refusal(translator, node, "control flow is not supported")
        if node.op_type in _RANDOM:
            raise refusal(translator, node, "its result is random")
    model = use_opset(model, translator, opsets, preferred)
    inline_constants(model)
    remove_identities(model, translator)
    fold_constants(model)
    free_batch_axis(model, inputs)
    freeze_sizes(model, inputs)
    fold_constants(model)
    remove_dead_nodes(model)
    explicit_padding(model)
    return model


def use_opset(model: ModelProto, translator: str, opsets: tuple[int, int], preferred: int) -> ModelProto:
    """The model in an opset from the range."""
    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    lowest, highest = opsets
    if lowest <= version <= highest:
        return model
    try:
        return version_converter.convert_version(model, preferred)
    except Exception as error:  # the converter raises RuntimeError, and C++ errors of no fixed type
        raise failure(
            translator, f"needs opset {lowest} to {highest}; this model has {version} and does not convert", error
        ) from error


def remove_identities(model: ModelProto, translator: str) -> None:
    """Removes Identity, inference-mode Dropout, and casts of a value to the type that it has.

    An Identity between an input and an output of the graph stays.
    """
    graph = Graph(model)
    types = _element_types(model)
    renamed: dict[str, str] = {}
    dropped: list[NodeProto] = []

    for node in model.graph.node:
        if not node.input or not _does_nothing(node, graph, types, translator):
            continue
        source = renamed.get(node.input[0], node.input[0])
        target = node.output[0]
        if target in graph.outputs:
            producer = graph.producers.get(source)
            if producer is None or source in graph.outputs or source in renamed.values():
                continue
            # The output keeps its name: what made the source now makes the output.
            position = list(producer.output).index(source)
            producer.output[position] = target
            renamed[source] = target
            for old, new in renamed.items():
                if new == source:
                    renamed[old] = target
        else:
            renamed[target] = source
        dropped.append(node)

    kept = [node for node in model.graph.node if not any(node is one for one in dropped)]
    for node in kept:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
    replace_nodes(model, kept)


def _does_nothing(node: NodeProto, graph: Graph, types: dict[str, int], translator: str) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type == "Cast":
        return types.get(node.input[0]) == attribute(node, "to")
    if node.op_type == "Dropout":
        training = graph.constant(node, 2)
        if training is not None and bool(training):
            raise refusal(translator, node, "it is in training mode; export the model in inference mode")
        return not any(graph.consumers.get(mask) or mask in graph.outputs for mask in node.output[1:])
    return False


def _element_types(model: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {one.name: one.type.tensor_type.elem_type for one in values}
    return types | {one.name: one.data_type for one in graph.initializer}


def fold_constants(model: ModelProto) -> None:
    """Computes every node whose inputs are all constant (results of up to 64 Mi elements)."""
    constants = dict(Graph(model).constants)
    outputs = {one.name for one in model.graph.output}
    opsets = list(model.opset_import)
    kept = []
    for node in model.graph.node:
        names = [name for name in node.input if name]
        if not names or any(name not in constants for name in names) or outputs.intersection(node.output):
            kept.append(node)
            continue
        values = {name: constants[name] for name in names}
        graph = helper.make_graph(
            [node],
            "constant",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in values.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        try:
            results = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(None, values)
        except Exception:  # noqa: BLE001 - an operator that the reference does not know stays as it is
            kept.append(node)
            continue
        if any(not isinstance(one, np.ndarray | np.generic) or one.size > _FOLDED_SIZE_LIMIT for one in results):
            kept.append(node)
            continue
        for name, result in zip([name for name in node.output if name], results, strict=True):
            constants[name] = np.asarray(result)
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(result), name))
    replace_nodes(model, kept)


def freeze_sizes(model: ModelProto, inputs: Sequence[np.ndarray]) -> None:
    """Makes computed sizes constant: measured at two batch sizes, they may follow the batch in the first axis only.

    Sizes that follow anything else stay computed.
    """
    graph = Graph(model)
    wanted = {
        node.input[position]
        for node in model.graph.node
        for position in _SIZE_INPUTS.get(node.op_type, ())
        if position < len(node.input) and node.input[position] and node.input[position] in graph.producers
    }
    if not wanted:
        return
    names = sorted(wanted)
    small, large = (_measure(model, inputs, names, batch) for batch in (2, 3))
    if small is None or large is None:
        return
    for name in names:
        sizes = _without_batch(small[name], large[name])
        if sizes is None:
            continue
        for node in graph.consumers[name]:
            if np.array_equal(small[name], large[name]) or node.op_type == "Reshape":
                position = list(node.input).index(name)
                node.input[position] = add_constant(model, f"{node.output[0]}_sizes", sizes)


def _measure(
    model: ModelProto, inputs: Sequence[np.ndarray], names: Sequence[str], batch: int
) -> dict[str, np.ndarray] | None:
    probe = deepcopy(model)
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    feeds = {
        value.name: np.resize(array, (batch, *array.shape[1:])) if array.ndim else array
        for value, array in zip(probe.graph.input, inputs, strict=True)
    }
    try:
        return dict(zip(names, run(probe, feeds, names), strict=True))
    except Exception:  # noqa: BLE001 - a model that ONNX Runtime refuses keeps its computed sizes; the converter then speaks
        return None


def _without_batch(small: np.ndarray, large: np.ndarray) -> np.ndarray | None:
    if np.array_equal(small, large):
        return small
    if small.shape != large.shape or small.ndim != 1 or not np.array_equal(small[1:], large[1:]):
        return None
    if (small[0], large[0]) != (2, 3):
        return None
    # 0 copies the first axis; -1 is needed where the batch axis comes from elsewhere, and there may be only one.
    return np.concatenate([[0 if -1 in small[1:] else -1], small[1:]]).astype(small.dtype)


def run(model: ModelProto, feeds: dict[str, np.ndarray], outputs: Sequence[str] | None = None) -> list[np.ndarray]:
    """Runs a model in ONNX Runtime, on the CPU and without optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None if outputs is None else list(outputs), feeds)
    return results


def remove_dead_nodes(model: ModelProto) -> None:
    """Removes nodes and initialisers that no output depends on."""
    needed = {one.name for one in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    replace_nodes(model, reversed(kept))
    initialisers = [one for one in model.graph.initializer if one.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initialisers)


def explicit_padding(model: ModelProto) -> None:
    """Replaces `auto_pad` by explicit pads where the input size is known."""
    graph = Graph(model)
    for node in model.graph.node:
        mode = attribute(node, "auto_pad", b"NOTSET")
        if mode == b"NOTSET" or node.op_type not in ("Conv", "MaxPool", "AveragePool"):
            continue
        kernel = _kernel(node, graph)
        shape = graph.shape(node.input[0])
        if kernel is None or shape is None or None in shape[2:]:
            continue
        axes = range(len(kernel))
        strides = attribute(node, "strides", [1] * len(kernel))
        dilations = attribute(node, "dilations", [1] * len(kernel))
        pads = [(0, 0)] * len(kernel)
        if mode in (b"SAME_UPPER", b"SAME_LOWER"):
            totals = [same_total(int(shape[2 + i] or 0), kernel[i], strides[i], dilations[i]) for i in axes]
            halves = [(total // 2, total - total // 2) for total in totals]
            pads = halves if mode == b"SAME_UPPER" else [(end, begin) for begin, end in halves]
        set_attributes(
            node, auto_pad=None, strides=list(strides), pads=[one[0] for one in pads] + [one[1] for one in pads]
        )


def same_total(size: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Padding of one axis with which the output has `ceil(size / stride)` elements."""
    steps = -(-size // stride)
    return max((steps - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)


def _kernel(node: NodeProto, graph: Graph) -> list[int] | None:
    kernel = attribute(node, "kernel_shape")
    if kernel is not None:
        return list(kernel)
    weight = graph.shape(node.input[1]) if node.op_type == "Conv" else None
    return None if weight is None or None in weight else [int(size or 0) for size in weight[2:]]


def strip_input_transposes(model: ModelProto) -> frozenset[int]:
    """Removes a channels-last to channels-first transpose at an input: that input becomes channels-first.

    Returns:
        Positions of the inputs that changed.
    """
    stripped = set()
    for position, value in enumerate(model.graph.input):
        graph = Graph(model)
        consumers = graph.consumers.get(value.name, [])
        dims = value.type.tensor_type.shape.dim
        if len(dims) != 4 or not consumers or value.name in graph.outputs:
            continue
        if any(n.op_type != "Transpose" or tuple(attribute(n, "perm", ())) != NHWC_TO_NCHW for n in consumers):
            continue
        if any(node.output[0] in graph.outputs for node in consumers):
            continue
        names = {node.output[0] for node in consumers}
        permuted = [deepcopy(dims[axis]) for axis in NHWC_TO_NCHW]
        del dims[:]
        dims.extend(permuted)
        replace_nodes(model, [node for node in model.graph.node if node.output[0] not in names])
        for node in model.graph.node:
            for slot, name in enumerate(node.input):
                if name in names:
                    node.input[slot] = value.name
        stripped.add(position)
    del model.graph.value_info[:]
    return frozenset(stripped)


def matmul_to_gemm(model: ModelProto) -> None:
    """Rank-2 MatMul with a constant (and the constant added to it) becomes a Gemm with transB=1."""
    graph = Graph(model)
    absorbed: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "MatMul" or graph.rank(node.input[0]) != 2:
            continue
        weight = graph.constant(node, 1)
        if weight is None or weight.ndim != 2:
            continue
        inputs = [node.input[0], add_constant(model, f"{node.input[1]}_t", weight.T)]
        add = graph.only_consumer(node.output[0])
        if add is not None and add.op_type == "Add":
            names = [name for name in add.input if name != node.output[0]]
            bias = graph.constants.get(names[0]) if len(names) == 1 else None
            if bias is not None and bias.size == weight.shape[1] and bias.ndim <= 2:
                inputs.append(add_constant(model, f"{names[0]}_bias", bias.reshape(-1)))
                node.output[0] = add.output[0]
                node.name = add.name or node.name
                absorbed.append(add)
        node.op_type = "Gemm"
        del node.input[:]
        node.input.extend(inputs)
        set_attributes(node, transB=1)
    replace_nodes(model, [node for node in model.graph.node if not any(node is one for one in absorbed)])


def scale_to_batch_normalization(model: ModelProto) -> None:
    """Per-channel multiplication and addition of constants becomes one BatchNormalization.

    tf2onnx writes a Keras BatchNormalization as `x * scale + shift`; rules and layer maps want the layer back.
    """
    graph = Graph(model)
    absorbed: list[NodeProto] = []
    for node in model.graph.node:
        if any(node is one for one in absorbed):
            continue
        channels = _channels(node, graph)
        per_channel = _per_channel(node, graph, channels)
        if channels is None or per_channel is None:
            continue
        data, value = per_channel
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        scale, shift = {
            "Mul": (value, zero),
            "Div": (1 / value, zero),
            "Add": (one, value),
            "Sub": (one, -value),
        }[node.op_type]
        following = graph.only_consumer(node.output[0])
        if node.op_type in ("Mul", "Div") and following is not None and following.op_type in ("Add", "Sub"):
            second = _per_channel(following, graph, channels)
            if second is not None:
                shift = second[1] if following.op_type == "Add" else -second[1]
                node.output[0] = following.output[0]
                node.name = following.name or node.name
                absorbed.append(following)
        prefix = f"{node.output[0]}_normalization"
        names = [add_constant(model, f"{prefix}_{k}", v) for k, v in enumerate((scale, shift, zero, one))]
        node.op_type = "BatchNormalization"
        del node.input[:]
        node.input.extend([data, *names])
        set_attributes(node, epsilon=0.0)
    replace_nodes(model, [node for node in model.graph.node if not any(node is one for one in absorbed)])


def _channels(node: NodeProto, graph: Graph) -> int | None:
    shape = graph.shape(node.output[0]) if node.output else None
    return None if shape is None or len(shape) not in (2, 4) else shape[1]


def _per_channel(node: NodeProto, graph: Graph, channels: int | None) -> tuple[str, np.ndarray] | None:
    """The data and the constant of `data op constant`, where the constant has one value per channel."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or channels is None:
        return None
    first, second = node.input
    if node.op_type in ("Add", "Mul") and first in graph.constants:
        first, second = second, first
    value, shape = graph.constants.get(second), graph.shape(first)
    if first in graph.constants or value is None or value.dtype != np.float32 or shape is None:
        return None
    if shape != graph.shape(node.output[0]) or value.ndim > len(shape):
        return None
    full = (1,) * (len(shape) - value.ndim) + value.shape
    if full[1] != channels or value.size != channels or channels == 1:
        return None
    if node.op_type == "Div" and np.any(value == 0):
        return None
    return first, value.reshape(-1)


def reshape_to_flatten(model: ModelProto) -> None:
    """A Reshape (or Squeeze) that keeps the sample axis and joins all others becomes Flatten(axis=1)."""
    graph = Graph(model)
    for node in model.graph.node:
        source, result = graph.shape(node.input[0]) if node.input else None, graph.shape(node.output[0])
        if node.op_type not in ("Reshape", "Squeeze") or source is None or result is None or len(result) != 2:
            continue
        if len(source) < 2 or source[0] is not None or None in source[1:]:
            continue
        joined = int(np.prod([size for size in source[1:] if size is not None]))
        if node.op_type == "Squeeze":
            keeps_samples = result == (None, joined)
        else:
            sizes = graph.constant(node, 1)
            keeps_samples = sizes is not None and tuple(sizes.tolist()) in {(0, -1), (-1, joined), (0, joined)}
        if keeps_samples:
            node.op_type = "Flatten"
            del node.input[1:]
            set_attributes(node, axis=1, axes=None, allowzero=None)


def mean_to_pooling(model: ModelProto) -> None:
    """A mean (or maximum) over both spatial axes becomes global pooling, flattened where the axes are dropped."""
    graph = Graph(model)
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        pooling = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}.get(node.op_type)
        if pooling is None:
            continue
        axes = attribute(node, "axes")
        if axes is None:
            given = graph.constant(node, 1)
            axes = None if given is None else given.tolist()
        shape = graph.shape(node.input[0])
        if axes is None or shape is None or len(shape) != 4 or shape[1] is None:
            continue
        if sorted(axis % 4 for axis in axes) != [2, 3]:
            continue
        keepdims = attribute(node, "keepdims", 1)
        node.op_type = pooling
        del node.input[1:]
        set_attributes(node, axes=None, keepdims=None)
        if not keepdims:
            pooled = f"{node.output[0]}_pooled"
            name = node.name or node.output[0]
            nodes.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=name, axis=1))
            node.output[0] = pooled
            node.name = f"{name}.pool"
    replace_nodes(model, nodes)


def pad_into_convolution(model: ModelProto) -> None:
    """A constant zero Pad of the spatial axes that only a Conv reads becomes that Conv's padding."""
    graph = Graph(model)
    absorbed: list[NodeProto] = []
    for node in model.graph.node:
        convolution = graph.only_consumer(node.output[0]) if node.op_type == "Pad" else None
        pads = graph.constant(node, 1)
        value = graph.constant(node, 2)
        if convolution is None or convolution.op_type != "Conv" or pads is None or pads.ndim != 1:
            continue
        rank = len(pads) // 2
        begin, end = pads[:rank].tolist(), pads[rank:].tolist()
        if any(begin[:2]) or any(end[:2]) or min(begin + end) < 0 or len(node.input) > 3:
            continue
        if attribute(node, "mode", b"constant") != b"constant" or (value is not None and np.any(value)):
            continue
        if attribute(convolution, "auto_pad", b"NOTSET") != b"NOTSET":
            continue
        own = attribute(convolution, "pads", [0] * (2 * (rank - 2)))
        joined = [a + b for a, b in zip(begin[2:] + end[2:], own, strict=True)]
        set_attributes(convolution, pads=joined)
        convolution.input[0] = node.input[0]
        absorbed.append(node)
    replace_nodes(model, [node for node in model.graph.node if not any(node is one for one in absorbed)])


def only_float32(model: ModelProto, translator: str) -> None:
    """Refuses weights of another floating point type, which the conversion would round without a word."""
    for one in model.graph.initializer:
        if one.data_type in (TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16):
            kind = TensorProto.DataType.Name(one.data_type)
            raise failure(translator, f"makes float32 models and the weight {one.name!r} is {kind}; convert it first")
