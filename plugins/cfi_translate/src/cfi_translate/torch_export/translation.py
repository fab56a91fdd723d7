"""The steps of a translation: capture, walk, finish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from cfi_core.contract import Converted
from cfi_translate.failures import failure
from cfi_translate.graph import remove_dead_nodes
from cfi_translate.names import rename_nodes
from cfi_translate.program import MODULE_END
from cfi_translate.torch_export import NAME
from cfi_translate.torch_export.capture import Captured, can_decompose, capture, decomposed
from cfi_translate.torch_export.emitter import IR_VERSION, OPSET, SEPARATOR, Emitter, value_info, write_constant
from cfi_translate.torch_export.walk import NeedsDecomposition, activation_modules, walk

_MOST_DECOMPOSITIONS = 5


def translate(model: Any, inputs: Sequence[np.ndarray]) -> Converted:
    """Does what `cfi_translate.torch_export.convert` promises."""
    captured = capture(model, inputs)
    functional = False
    for _ in range(_MOST_DECOMPOSITIONS):
        try:
            exported, count = _written(captured)
            break
        except NeedsDecomposition as needed:
            lost = [one for one in needed.operators if not can_decompose(one)]
            if lost and functional:
                names = ", ".join(sorted(str(one.name()) for one in lost))
                raise failure(NAME, f"knows no translation of {names}") from None
            captured, functional = decomposed(captured.program, needed.operators), True
    else:
        raise failure(NAME, "could not take the captured graph apart")
    return Converted(exported, (None,) * len(inputs), (None,) * count)


def _written(captured: Captured) -> tuple[ModelProto, int]:
    emitter = Emitter()
    outputs = walk(captured, emitter)
    given = [node.meta["val"] for node in captured.program.graph.nodes if node.op == "placeholder"]
    given = given[len(captured.state) :]
    infos = []
    made = {name for node in emitter.nodes for name in node.output}
    names: dict[str, str] = {}
    for position, output in enumerate(outputs):
        emitter.begin(f"the output {position}", "", None)
        name = emitter.name(output)
        if name not in made or name in names:  # an input, a constant, or an output that is there already
            name = emitter.op("Identity", output).name
        names[name] = f"y{position}"
        infos.append(value_info(f"y{position}", getattr(output, "like", output), emitter))
    _rename(emitter, names)
    exported = ModelProto(ir_version=IR_VERSION, producer_name=NAME)
    exported.opset_import.append(helper.make_opsetid("", OPSET))
    exported.graph.name = "model"
    exported.graph.node.extend(emitter.nodes)
    exported.graph.input.extend(value_info(f"x{i}", like, emitter) for i, like in enumerate(given))
    exported.graph.output.extend(infos)
    remove_dead_nodes(exported)
    _leave_out_unread_outputs(exported)
    read = {name for node in exported.graph.node for name in node.input}
    for name, value in emitter.constants.items():
        if name in read:
            write_constant(exported.graph.initializer.add(), name, value)
    _name_nodes(exported, captured)
    return exported, len(outputs)


def _rename(emitter: Emitter, names: dict[str, str]) -> None:
    for node in emitter.nodes:
        for values in (node.input, node.output):
            for position, name in enumerate(values):
                values[position] = names.get(name, name)


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
