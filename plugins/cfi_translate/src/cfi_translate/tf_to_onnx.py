"""Keras models and TensorFlow callables to ONNX, by tf2onnx."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_translate.failures import failure, name_failures, refusal
from cfi_translate.graph import NHWC_TO_NCHW, inline_constants, remove_dead_nodes, remove_identities, rename_value
from cfi_translate.names import from_keras, rename_nodes
from cfi_translate.workarounds import patch_tf2onnx

NAME = "tf2onnx"
OPSET = 13


@name_failures(NAME)
def convert(model: Any, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Converts a Keras model, or a callable of tensors, as it computes in inference mode.

    Args:
        model: Keras model (functional, Sequential, subclassed) or TensorFlow callable; layer names become node names.
        inputs: One array per input, sample axis first; they give shapes and types.

    Returns:
        An `onnx.ModelProto` of opset 13 with inputs `x0`, … and outputs `y0`, …, the sample axis free; inputs and
        outputs of four axes are channels-first.

    Raises:
        TranslationError: An operation has no counterpart in ONNX.
    """
    load_safely()
    import tensorflow as tf
    import tf2onnx

    signature = [
        tf.TensorSpec((None, *array.shape[1:]), tf.as_dtype(array.dtype), name=f"x{position}")
        for position, array in enumerate(inputs)
    ]
    images = [f"x{i}" for i, array in enumerate(inputs) if array.ndim == 4]
    with patch_tf2onnx() as names:
        function = tf.function(inference_call(model), autograph=False)
        outputs = function.get_concrete_function(*signature).outputs
        maps = [tensor.name for tensor in outputs if tensor.shape.rank == 4]
        exported, _ = tf2onnx.convert.from_function(
            function, signature, opset=OPSET, inputs_as_nchw=images, outputs_as_nchw=maps
        )
    finish(exported, model, NAME, len(inputs), names)
    return Converted(
        exported,
        tuple(NHWC_TO_NCHW if array.ndim == 4 else None for array in inputs),
        tuple(NHWC_TO_NCHW if tensor.shape.rank == 4 else None for tensor in outputs),
    )


def inference_call(model: Any) -> Callable[..., Any]:
    """The model as a function of its inputs, one by one, that returns a tensor or a list of tensors."""
    import keras
    import tensorflow as tf

    try:
        trains = "training" in inspect.signature(model.call if isinstance(model, keras.Layer) else model).parameters
    except (TypeError, ValueError):  # a callable without a signature, such as a restored function
        trains = False
    takes_list = isinstance(model, keras.Model)

    def call(*tensors: Any) -> Any:
        arguments = (list(tensors),) if takes_list and len(tensors) > 1 else tensors
        result = model(*arguments, training=False) if trains else model(*arguments)
        return tf.nest.flatten(result)  # dictionaries by their sorted keys, as Keras and core have them

    return call


def finish(model: ModelProto, source: Any, translator: str, inputs: int, names: Mapping[str, str]) -> None:
    """Checks an exported model, and gives values and nodes their names."""
    known = {domain.domain for domain in model.opset_import if domain.domain in ("", "ai.onnx")}
    for node in model.graph.node:
        if node.domain not in known | {"", "ai.onnx"} or not onnx.defs.has(node.op_type, node.domain):
            raise refusal(translator, node, "it is an operation of TensorFlow without a counterpart in ONNX")
    if len(model.graph.input) != inputs:
        extra = [value.name for value in model.graph.input][inputs:]
        raise failure(translator, f"turned constants of the model into inputs: {', '.join(extra)}")
    for value in (*model.graph.input, *model.graph.output):
        if not len(value.type.tensor_type.shape.dim):
            raise failure(translator, f"takes inputs and outputs with a sample axis, and {value.name!r} has none")
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:
        node.name = names.get(node.name, node.name)
    inline_constants(model)
    remove_identities(model, translator)
    outputs = [one.name for one in model.graph.output]
    if len(set(outputs)) != len(outputs):
        raise failure(translator, "takes models whose outputs differ, and this one returns a tensor twice")
    remove_dead_nodes(model)
    for letter, values in (("x", model.graph.input), ("y", model.graph.output)):
        for position, value in enumerate(list(values)):
            rename_value(model, value.name, f"{letter}{position}")
    layers = source._flatten_layers(include_self=False) if hasattr(source, "_flatten_layers") else ()
    rename_nodes(model, from_keras(frozenset(layer.name for layer in layers)))
    del model.graph.value_info[:]
