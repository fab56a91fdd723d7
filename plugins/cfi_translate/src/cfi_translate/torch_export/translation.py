"""The steps of a translation: capture, walk, finish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, ValueInfoProto, helper

from cfi_core.contract import Converted, passage
from cfi_translate.failures import failure
from cfi_translate.grammar import Refusal
from cfi_translate.graph import remove_dead_nodes
from cfi_translate.names import rename_nodes
from cfi_translate.program import MODULE_END
from cfi_translate.torch_export.capture import Captured, capture, without_work_in_place
from cfi_translate.torch_export.onnx_graph import IR_VERSION, OPSET, SEPARATOR, OnnxGraph, value_info, write_constant
from cfi_translate.torch_export.walk import WorkInPlace, activation_modules, walk
from cfi_translate.translators import ONNX_KERAS, TORCH_EXPORT


def translate(model: Any, inputs: Sequence[np.ndarray]) -> Converted:
    """Does what `cfi_translate.torch_export.convert` promises."""
    captured = capture(model, inputs)
    try:
        exported = _write(captured)
    except WorkInPlace:
        try:
            exported = _write(without_work_in_place(captured.program))
        except WorkInPlace as error:
            raise failure(TORCH_EXPORT, str(error)) from None
    return Converted(exported, (None,) * len(inputs), (None,) * len(exported.graph.output))


def _write(captured: Captured) -> ModelProto:
    graph = OnnxGraph()
    outputs = walk(captured, graph)
    exported = ModelProto(ir_version=IR_VERSION, producer_name=TORCH_EXPORT)
    exported.opset_import.append(helper.make_opsetid("", OPSET))
    exported.graph.name = "model"
    try:
        exported.graph.output.extend(_write_outputs(graph, outputs))
        inputs = captured.program.graph.find_nodes(op="placeholder")[len(captured.state) :]
        exported.graph.input.extend(value_info(f"x{i}", one.meta["val"], graph) for i, one in enumerate(inputs))
    except Refusal as error:
        raise failure(TORCH_EXPORT, f"cannot translate the model's inputs and outputs: {error}") from None
    exported.graph.node.extend(graph.nodes)
    remove_dead_nodes(exported)
    _leave_out_unread_outputs(exported)
    read = {name for node in exported.graph.node for name in node.input}
    place = passage()
    lends = place.following[:1] == (ONNX_KERAS,)
    for name, value in graph.constants.items():
        if name in read:
            lent = write_constant(exported.graph.initializer.add(), name, value, lends=lends)
            place.left.update({} if lent is None else {name: lent})
    _name_nodes(exported, captured)
    return exported


def _write_outputs(graph: OnnxGraph, outputs: Sequence[Any]) -> list[ValueInfoProto]:
    """Gives the outputs their names, `y0` and so on."""
    graph.path = ""
    infos = []
    made = {name for node in graph.nodes for name in node.output}
    names: dict[str, str] = {}
    for position, output in enumerate(outputs):
        name = graph.name(output)
        if name not in made or name in names:  # an input, a constant, or an output that is there already
            name = graph.node("Identity", output).name
        names[name] = f"y{position}"
        infos.append(value_info(f"y{position}", getattr(output, "like", output), graph))
    for node in graph.nodes:
        for values in (node.input, node.output):
            for position, name in enumerate(values):
                values[position] = names.get(name, name)
    return infos


def _name_nodes(model: ModelProto, captured: Captured) -> None:
    """Names nodes by their modules. A module that holds weights itself gives its name also to what it computes last.

    Readers are told which nodes make the outputs of such modules, and of activation modules: what these compute shall
    not be lost when nodes are joined.
    """
    paths = [_split(node.name)[0] for node in model.graph.node]
    rename_nodes(model, _split)
    taken = {node.name for node in model.graph.node}
    holders = {name.rpartition(".")[0] for name in captured.names.values()} - {""}
    for holder in sorted(holders - taken):
        inside = [i for i, path in enumerate(paths) if path == holder or path.startswith(f"{holder}.")]
        if inside and paths[inside[-1]] == holder:
            model.graph.node[inside[-1]].name = holder
    ends = holders | activation_modules(captured.program)
    for node in model.graph.node:
        if node.name in ends:
            node.metadata_props.add(key=MODULE_END, value=node.name)


def _split(name: str) -> tuple[str, str]:
    path, _, kind = name.partition(SEPARATOR)
    return path, kind


def _leave_out_unread_outputs(model: ModelProto) -> None:
    """Further outputs of a node that nothing reads, such as the last states of an LSTM."""
    read = {name for node in model.graph.node for name in node.input} | {one.name for one in model.graph.output}
    for node in model.graph.node:
        if node.op_type in ("LSTM", "GRU", "RNN"):
            for position, name in enumerate(node.output):
                if name not in read:
                    node.output[position] = ""
            while node.output and not node.output[-1]:
                node.output.pop()
