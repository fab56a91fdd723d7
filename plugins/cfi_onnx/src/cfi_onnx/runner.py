"""ONNX models run in stages: sub-models cut out of the graph, each with a session of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from cfi_core.framework import Portions, Runner, one_size
from cfi_core.requirements import unmet
from cfi_onnx.evaluation import Evaluator

Stage = Callable[[Sequence[np.ndarray]], tuple[np.ndarray, ...]]


class OnnxRunner(Runner):
    """Each stage is a session, made once."""

    def __init__(self, model: onnx.ModelProto, opened: Mapping[str, str], dtypes: Mapping[str, np.dtype[Any]]) -> None:
        """Cuts the stages out.

        Args:
            model: The model.
            opened: For each layer, in the order of the graph, the tensor that is its activation.
            dtypes: Types of these tensors.
        """
        self.layers = tuple(opened)
        tensors = list(opened.values())
        outputs = [value.name for value in model.graph.output]
        self._stages = [
            _stage(model, tensors[:i], wanted, dtypes)
            for i, wanted in enumerate([*([tensor] for tensor in tensors), outputs])
        ]

    def run(self, stage: int, values: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The results of a stage."""
        return self._stages[stage](values)


def session(model: onnx.ModelProto, samples: int | None = None, *, leave_out: bool = False) -> Portions:
    """A model ready to run: by ONNX Runtime where it is installed, by ONNX's reference evaluator otherwise.

    A model that is exported for a fixed number of samples runs on any other number in portions of that size.

    Args:
        model: The model.
        samples: The number of samples that it takes, if its inputs do not tell and it takes no other.
        leave_out: Outputs that cannot be had in portions are None.
    """
    evaluator = Evaluator(model, runtime=not unmet(("onnxruntime",)))
    return Portions(evaluator, samples or fixed_samples(model), leave_out=leave_out)


def fixed_samples(model: onnx.ModelProto) -> int | None:
    """The number of samples that the model was exported for, if it takes no other."""
    shapes = [value.type.tensor_type.shape.dim for value in real_inputs(model)]
    return one_size(max(shape[0].dim_value, 0) if len(shape) else None for shape in shapes)


def _stage(
    model: onnx.ModelProto, given: Sequence[str], wanted: Sequence[str], dtypes: Mapping[str, np.dtype[Any]]
) -> Stage:
    """From the model's inputs and some activations to the wanted tensors."""
    fed = [*(value.name for value in real_inputs(model)), *given]
    computed = [tensor for tensor in wanted if tensor not in fed]
    part = _cut(model, {tensor: dtypes[tensor] for tensor in given}, computed)
    compute = session(part, fixed_samples(model)) if computed else None

    def run(values: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        feeds = dict(zip(fed, values, strict=True))
        results = {} if compute is None else dict(zip(computed, compute(feeds), strict=True))
        # An opened layer may itself be an output; the copy keeps results apart from what is given.
        return tuple(results[name] if name in results else np.array(feeds[name]) for name in wanted)

    return run


def _cut(model: onnx.ModelProto, given: Mapping[str, np.dtype[Any]], wanted: Sequence[str]) -> onnx.ModelProto:
    """The part of the model that computes the wanted tensors, with the given ones as further inputs."""
    graph = model.graph
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    needed = set(wanted)
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output) - set(given):
            needed.update(_reads(node))
            nodes.append(_without_outputs(node, given))
    part.graph.name = graph.name or "part"
    part.graph.node.extend(reversed(nodes))
    part.graph.initializer.extend(value for value in graph.initializer if value.name in needed)
    part.graph.sparse_initializer.extend(value for value in graph.sparse_initializer if value.values.name in needed)
    kept = {value.name for value in part.graph.initializer} | {value.name for value in real_inputs(model)}
    part.graph.input.extend(value for value in graph.input if value.name in kept)
    part.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), None)
        for name, dtype in given.items()
    )
    declared = {value.name: value for value in graph.output}
    part.graph.output.extend(declared.get(name, onnx.ValueInfoProto(name=name)) for name in wanted)
    return part


def _without_outputs(node: onnx.NodeProto, given: Mapping[str, Any]) -> onnx.NodeProto:
    """The node, with outputs that are given instead under names that nobody reads."""
    if not set(given).intersection(node.output):
        return node
    renamed = onnx.NodeProto()
    renamed.CopyFrom(node)
    for position, name in enumerate(renamed.output):
        if name in given:
            renamed.output[position] = f"{name}/replaced"
    return renamed


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node takes, those that its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, attribute.g):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (value.name for value in graph.output)


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The graph's inputs; older models list their weights among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]
