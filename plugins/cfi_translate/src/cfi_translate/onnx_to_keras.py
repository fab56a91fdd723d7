"""ONNX to Keras, by onnx2keras."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_core.errors import TranslationError
from cfi_translate import passes
from cfi_translate.failures import failure, refusal, typed
from cfi_translate.graph import NCHW_TO_NHWC, Graph, attribute, output_axes, rename_value, replace_nodes, set_attributes
from cfi_translate.names import unique
from cfi_translate.workarounds import converting_onnx_to_keras

NAME = "onnx2keras"
_OPSETS = (9, 13)


@typed(NAME)
def convert(model: ModelProto, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Converts an ONNX model of flat features and channels-first images to a functional, channels-last Keras model.

    Args:
        model: The ONNX model; it is not changed.
        inputs: One array per input, sample axis first; the Keras model takes images of their size.

    Returns:
        A Keras model of native layers that carry the node names. Images come channels-last, unless the
        ONNX model took them so already.

    Raises:
        TranslationError: An operator is not supported.
    """
    load_safely()
    graph = passes.prepare(model, inputs, NAME, _OPSETS)
    stripped = passes.strip_input_transposes(graph)
    passes.only_float32(graph, NAME)
    shapes = [
        tuple(array.shape[axis] for axis in (0, 3, 1, 2)) if i in stripped else array.shape
        for i, array in enumerate(inputs)
    ]
    _fix_sizes(graph, shapes)
    passes.pad_into_convolution(graph)
    passes.mean_to_pooling(graph)
    passes.reshape_to_flatten(graph)
    passes.matmul_to_gemm(graph)
    passes.scale_to_batch_normalization(graph)
    _flatten_as_it_comes(graph)
    passes.remove_dead_nodes(graph)
    _check(graph)
    axes = output_axes(graph, NCHW_TO_NHWC)
    _name_layers(graph)
    keras_model = _convert(graph, shapes)
    return Converted(
        keras_model,
        tuple(NCHW_TO_NHWC if len(shape) == 4 and i not in stripped else None for i, shape in enumerate(shapes)),
        axes,
    )


def _convert(graph: ModelProto, shapes: list[tuple[int, ...]]) -> Any:
    import keras
    import onnx2keras

    if keras.backend.backend() != "tensorflow":
        raise failure(NAME, f"needs Keras on tensorflow, and this process runs it on {keras.backend.backend()}")
    with converting_onnx_to_keras():
        try:
            model = onnx2keras.onnx_to_keras(
                graph,
                [value.name for value in graph.graph.input],
                input_shapes=[shape[1:] for shape in shapes],
                verbose=False,
                change_ordering=True,
            )
            # A list of one input would make Keras warn whenever the model is called with a tensor.
            return keras.Model(*(one[0] if len(one) == 1 else one for one in (model.inputs, model.outputs)))
        except TranslationError:
            raise
        except Exception as error:  # onnx2keras raises whatever the converter of an operator runs into
            raise failure(NAME, "could not convert the model", error) from error


def _fix_sizes(model: ModelProto, shapes: list[tuple[int, ...]]) -> None:
    """Gives the inputs the sizes at hand; only the sample axis stays free."""
    for value, shape in zip(model.graph.input, shapes, strict=True):
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise failure(NAME, f"takes float32 inputs, and {value.name!r} is {kind}")
        dims = value.type.tensor_type.shape.dim
        if len(dims) != len(shape) or len(shape) not in (2, 4):
            raise failure(NAME, f"takes inputs of 2 or 4 axes, and {value.name!r} has the shape {shape}")
        for dim, size in list(zip(dims, shape, strict=True))[1:]:
            dim.dim_value = size
    for output in model.graph.output:
        # Sizes that the exporter could not tell are inferred anew from those of the inputs.
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def _check(model: ModelProto) -> None:
    from cfi_translate.keras_converters import CONVERTERS, FLATTEN_CHANNELS_LAST, OWN_CONVERTERS_OF_ONNX2KERAS

    supported = {*CONVERTERS, *OWN_CONVERTERS_OF_ONNX2KERAS}
    graph = Graph(model)
    made = {name for node in model.graph.node for name in node.output}
    for name in graph.outputs:
        if name not in made:
            raise failure(NAME, f"needs outputs that an operator computes, and {name!r} is an input or a constant")
    for node in model.graph.node:
        if node.op_type not in supported:
            names = ", ".join(sorted(supported - {FLATTEN_CHANNELS_LAST}))
            raise refusal(NAME, node, f"it is not among the operators known to come out right ({names})")
        if len(node.output) > 1:
            raise refusal(NAME, node, "only operators with one result are supported")
        ranks = {graph.rank(name) for name in (*node.input[:1], *node.output)}
        if node.op_type != FLATTEN_CHANNELS_LAST and not ranks <= {2, 4}:
            raise refusal(NAME, node, "only tensors of 2 or 4 axes are supported")


def _flatten_as_it_comes(model: ModelProto) -> None:
    """Transposing to channels-last and flattening is what a channels-last model does by flattening alone."""
    from cfi_translate.keras_converters import FLATTEN_CHANNELS_LAST

    graph = Graph(model)
    dropped = set()
    for node in model.graph.node:
        if node.op_type != "Flatten" or attribute(node, "axis", 1) != 1 or node.input[0] not in graph.producers:
            continue
        transpose = graph.producers[node.input[0]]
        if transpose.op_type != "Transpose":
            continue
        alone = graph.only_consumer(transpose.output[0]) is not None
        if alone and tuple(attribute(transpose, "perm", ())) == NCHW_TO_NHWC:
            node.op_type = FLATTEN_CHANNELS_LAST
            set_attributes(node, axis=None)
            node.input[0] = transpose.input[0]
            dropped.add(transpose.output[0])
    replace_nodes(model, [node for node in model.graph.node if node.output[0] not in dropped])


def _name_layers(model: ModelProto) -> None:
    """onnx2keras names layers after the values they make: these get the node names."""
    taken = {value.name for value in model.graph.input} | {one.name for one in model.graph.initializer}
    for position, node in enumerate(model.graph.node):
        # In two steps, so that a new name never meets an old one.
        rename_value(model, node.output[0], f"\0{position}")
    for position, node in enumerate(model.graph.node):
        name = unique(re.sub(r"[^\w.\-]", "_", node.name or node.op_type), taken)
        taken.add(name)
        rename_value(model, f"\0{position}", name)
