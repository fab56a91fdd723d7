"""ONNX to torch, by onnx2torch."""

from __future__ import annotations

import re
import warnings
from keyword import iskeyword
from typing import Any

import numpy as np
from onnx import ModelProto

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_core.errors import TranslationError
from cfi_translate import passes
from cfi_translate.failures import failure, refusal, typed
from cfi_translate.graph import NHWC_TO_NCHW, Graph, attribute
from cfi_translate.names import unique

NAME = "onnx2torch"
_OPSETS = (9, 16)


@typed(NAME)
def convert(model: ModelProto, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Converts an ONNX model to a `torch.fx.GraphModule` in inference mode.

    Args:
        model: The ONNX model; it is not changed.
        inputs: One array per input, sample axis first.

    Returns:
        A module whose submodules carry the node names (with `_` for what an attribute cannot hold).
        An input that the model itself transposes to channels-first becomes channels-first.

    Raises:
        TranslationError: An operator is not supported, or onnx2torch is known to convert it to something else.
    """
    load_safely()
    graph = passes.prepare(model, inputs, NAME, _OPSETS)
    stripped = passes.strip_input_transposes(graph)
    passes.mean_to_pooling(graph)
    passes.reshape_to_flatten(graph)
    passes.matmul_to_gemm(graph)
    passes.scale_to_batch_normalization(graph)
    passes.remove_dead_nodes(graph)
    _refuse_known_wrong(graph)
    _name_submodules(graph)
    module = _convert(graph)
    _use_native_modules(module)
    return Converted(
        module.eval(),
        tuple(NHWC_TO_NCHW if i in stripped else None for i in range(len(inputs))),
        (None,) * len(graph.graph.output),
    )


def _convert(graph: ModelProto) -> Any:
    import onnx2torch
    import torch

    # New modules draw random weights before they get the model's.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return onnx2torch.convert(graph)
        except NotImplementedError as error:
            raise _unsupported(graph, error) from error
        except Exception as error:  # onnx2torch raises whatever the converter of an operator runs into
            raise failure(NAME, "could not convert the model", error) from error


def _unsupported(graph: ModelProto, error: NotImplementedError) -> TranslationError:
    named = re.search(r"operation_type='?(\w+)", str(error))
    node = next((one for one in graph.graph.node if named and one.op_type == named.group(1)), None)
    if node is None:
        node = next((one for one in graph.graph.node if one.op_type in str(error)), None)
    return failure(NAME, "could not convert the model", error) if node is None else refusal(NAME, node, str(error))


def _refuse_known_wrong(model: ModelProto) -> None:
    """Refuses what onnx2torch accepts and computes differently."""
    graph = Graph(model)
    made_by = [graph.producers.get(name) for name in graph.outputs]
    for name, node in zip(graph.outputs, made_by, strict=True):
        if node is None:
            raise failure(NAME, f"needs outputs that an operator computes, and {name!r} is an input or a constant")
        if len([one for one in node.output if one]) > 1:
            raise refusal(NAME, node, f"the model's output {name!r} is one of its several results")
    for node in model.graph.node:
        used = [name for name in node.output[1:] if graph.consumers.get(name) or name in graph.outputs]
        if node.op_type == "LayerNormalization" and used:
            raise refusal(NAME, node, "onnx2torch computes its mean and deviation differently")
        if node.op_type == "AveragePool" and any(one != 1 for one in attribute(node, "dilations", [])):
            raise refusal(NAME, node, "onnx2torch ignores dilations")
        if node.op_type == "TopK":
            raise refusal(NAME, node, "onnx2torch orders equal values differently")
        if node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0):
            raise refusal(NAME, node, "it is in training mode; export the model in inference mode")
        if node.op_type == "Resize" and not _is_plain_resize(node):
            raise refusal(NAME, node, "onnx2torch computes this mode of resizing differently")


def _is_plain_resize(node: Any) -> bool:
    mode = attribute(node, "mode", b"nearest")
    coordinates = attribute(node, "coordinate_transformation_mode", b"half_pixel")
    if mode == b"nearest":
        return bool(coordinates == b"asymmetric" and attribute(node, "nearest_mode", b"round_prefer_floor") == b"floor")
    return bool(mode == b"linear" and coordinates in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"))


def _name_submodules(model: ModelProto) -> None:
    """Node names become identifiers that no attribute of a module hides."""
    import torch

    # onnx2torch does not tell a node from a constant of the same name.
    taken = {"initializers", "training", "graph", "code", *(one.name for one in model.graph.initializer)}
    for node in model.graph.node:
        name = re.sub(r"\W+", "_", (node.name or node.op_type).strip("/"))
        if name[:1].isdigit():
            name = f"_{name}"
        if hasattr(torch.fx.GraphModule, name) or iskeyword(name):
            name = f"{name}_"
        node.name = unique(name, taken)
        taken.add(node.name)


def _use_native_modules(module: Any) -> None:
    """Replaces modules of onnx2torch's own by modules of torch, which hooks and rules of toolsets know."""
    import torch
    from onnx2torch.node_converters import functions, global_average_pool

    pooling = (
        global_average_pool.OnnxGlobalAveragePool,
        global_average_pool.OnnxGlobalAveragePoolWithKnownInputShape,
    )
    for name, child in list(module.named_children()):
        if isinstance(child, pooling):
            setattr(module, name, torch.nn.AdaptiveAvgPool2d(1))
        elif isinstance(child, functions.OnnxFunction) and child.function is torch.tanh:
            setattr(module, name, torch.nn.Tanh())
