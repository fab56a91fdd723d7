"""ONNX to torch, by onnx2torch."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from onnx import ModelProto

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_core.errors import TranslationError
from cfi_core.silence import without_warnings
from cfi_translate.failures import failure, name_failures, refusal
from cfi_translate.libraries import prepare, require_computed_outputs
from cfi_translate.names import claim
from cfi_translate.program import Operation, Program
from cfi_translate.writing import write

NAME = "onnx2torch"
_OPSETS = (9, 16)


@name_failures(NAME)
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
    program, axes = prepare(model, inputs, NAME, _OPSETS)
    _refuse_known_wrong(program)
    graph = write(program)
    _name_submodules(graph)
    module = _convert(graph)
    _use_native_modules(module)
    return Converted(module.eval(), axes, (None,) * len(program.outputs))


def _convert(graph: ModelProto) -> Any:
    import onnx2torch
    import torch

    # New modules draw random weights before they get the model's.
    with torch.random.fork_rng(devices=[]), without_warnings():
        try:
            return onnx2torch.convert(graph)
        except NotImplementedError as error:
            raise _tell_unsupported(graph, error) from error


def _tell_unsupported(graph: ModelProto, error: NotImplementedError) -> TranslationError:
    named = re.search(r"operation_type='?(\w+)", str(error))
    node = next((one for one in graph.graph.node if named and one.op_type == named.group(1)), None)
    if node is None:
        node = next((one for one in graph.graph.node if one.op_type in str(error)), None)
    return failure(NAME, "could not convert the model", error) if node is None else refusal(NAME, node, str(error))


def _refuse_known_wrong(program: Program) -> None:
    """Refuses what onnx2torch accepts and computes differently."""
    for name, operation in require_computed_outputs(program, NAME).items():
        if len(operation.results) > 1:
            raise refusal(NAME, operation, f"the model's output {name!r} is one of its several results")
    users = program.users()
    for operation in program.operations:
        used = [one for one in operation.results[1:] if one in users or one in program.outputs]
        reason = _find_fault(operation, bool(used))
        if reason is not None:
            raise refusal(NAME, operation, reason)


def _find_fault(operation: Operation, has_second: bool) -> str | None:
    kind, settings = operation.kind, operation.attributes
    if kind == "LayerNormalization" and has_second:
        return "onnx2torch computes its mean and deviation differently"
    if kind == "AveragePool" and any(one != 1 for one in settings.get("dilations") or ()):
        return "onnx2torch ignores dilations"
    if kind == "TopK":
        return "onnx2torch orders equal values differently"
    if kind == "BatchNormalization" and settings.get("training_mode"):
        return "it is in training mode; export the model in inference mode"
    if kind == "Resize" and not _is_plain_resize(operation):
        return "onnx2torch computes this mode of resizing differently"
    return None


def _is_plain_resize(resize: Operation) -> bool:
    settings = resize.attributes
    coordinates = settings.get("coordinate_transformation_mode", "half_pixel")
    if settings["mode"] == "nearest":
        return bool(coordinates == "asymmetric" and settings.get("nearest_mode") == "floor")
    plain = ("half_pixel", "pytorch_half_pixel", "align_corners")
    return bool(settings["mode"] == "linear" and coordinates in plain)


def _name_submodules(model: ModelProto) -> None:
    """Node names become identifiers that no attribute of a module hides."""
    from cfi_translate.torch_graph import identifier

    # onnx2torch does not tell a node from a constant of the same name.
    taken = {"initializers", "training", "graph", "code", *(one.name for one in model.graph.initializer)}
    for node in model.graph.node:
        name = identifier((node.name or node.op_type).strip("/"))
        node.name = claim(f"_{name}" if name[:1].isdigit() else name, taken)


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
