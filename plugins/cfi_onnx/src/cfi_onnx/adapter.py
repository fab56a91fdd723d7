"""ONNX models, as `ModelProto` or file. They compute outputs and have no gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import xxhash

from cfi_core.errors import LayerError
from cfi_core.framework import Embedded, FrameworkAdapter, Layer, Parameters, Pick
from cfi_onnx import files
from cfi_onnx.lookup import find_lookup, from_lookup
from cfi_onnx.parameters import weights_of, write_weights
from cfi_onnx.runner import OnnxRunner, fixed_samples, real_inputs, session
from cfi_onnx.scores import forget_places, in_own_places, keep_scores
from cfi_onnx.structure import check_in_memory, examine

_FILE = "model.onnx"
_TO_CHANNELS_FIRST = [0, 3, 1, 2]
_CHANNELS_SECOND = frozenset(
    {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"}
    | {"MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"}
)
_SOFTMAXES = ("Softmax", "LogSoftmax")


class OnnxAdapter(FrameworkAdapter):
    """Layers go by the names of their nodes. Tensors are numpy arrays, as everywhere in ONNX's runtimes."""

    name = "onnx"
    file_sizes: ClassVar[Mapping[str, int]] = {_FILE: files.MOST_FILE}

    # models

    def load(self, model: Any) -> onnx.ModelProto:
        """Reads and checks the file, if a path is given; of a classifier that gives labels too, the scores are left.

        Raises:
            InputError: It is no model, or larger in some way than a limit of `cfi_onnx.limits`.
        """
        if not isinstance(model, onnx.ModelProto):
            return keep_scores(files.load(Path(model)))
        check_in_memory(examine(model))
        return keep_scores(model)

    def twin(self, model: onnx.ModelProto, *, share_weights: bool = True) -> onnx.ModelProto:
        """A copy of the graph."""
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy

    def fingerprint(self, model: onnx.ModelProto) -> str:
        """Hash of the model, weight by weight: larger ones than protobuf can write at once have one too."""
        digest = xxhash.xxh3_128(files.hollow(model).SerializeToString(deterministic=True))
        for one in files.large_weights(model):
            digest.update(f"{one.name};{one.data_type};{tuple(one.dims)};".encode())
            digest.update(one.raw_data or one.SerializeToString(deterministic=True))
        return str(digest.hexdigest())

    def content(self, model: onnx.ModelProto) -> str:
        """The fingerprint, which knows no process."""
        return self.fingerprint(model)

    def save(self, model: onnx.ModelProto) -> dict[str, bytes] | None:
        """As an ONNX file, if protobuf can write all of it."""
        return {_FILE: model.SerializeToString()} if model.ByteSize() <= files.MOST_FILE else None

    def restore(self, held: Mapping[str, bytes]) -> onnx.ModelProto:
        """From an ONNX file, which is looked through as one of the user's is, and has no further files."""
        return files.from_bytes(held[_FILE])

    def input_shapes(self, model: onnx.ModelProto) -> tuple[tuple[int | None, ...], ...] | None:
        """Shapes that the graph declares; a fixed number of samples is none, as any other runs in portions."""
        shapes = [_shape(value) for value in real_inputs(model)]
        return tuple(shapes) if fixed_samples(model) is None else tuple((None, *shape[1:]) for shape in shapes)

    def declares_integer(self, model: onnx.ModelProto, position: int) -> bool | None:
        """Whether that input takes integers."""
        inputs = real_inputs(model)
        if position >= len(inputs):
            return None
        return bool(np.issubdtype(_dtype(inputs[position]), np.integer))

    def input_names(self, model: onnx.ModelProto) -> tuple[str, ...]:
        """Of the graph's inputs, weights apart."""
        return tuple(value.name for value in real_inputs(model))

    def by_name(self, model: onnx.ModelProto, names: Sequence[str], constants: Mapping[str, Any]) -> onnx.ModelProto:
        """A copy of the graph that lists its inputs in that order; the model itself where it does already.

        Raises:
            InputError: It takes other names.
        """
        known = {value.name: value for value in real_inputs(model)}
        Parameters(tuple(known), frozenset(known)).check(names, constants, "the ONNX model")
        if tuple(names) == tuple(known):
            return model
        copy = self.twin(model)
        weights = [value for value in model.graph.input if value.name not in known]
        del copy.graph.input[:]
        copy.graph.input.extend([*(known[name] for name in names), *weights])
        return copy

    def ended_by(self, model: onnx.ModelProto, end: Callable[[Any], Any]) -> onnx.ModelProto | None:
        """The graph with that one of its outputs alone; it runs no functions of Python."""
        if not isinstance(end, Pick):
            return None
        if end.path == ():
            return model
        names = in_own_places(model, [value.name for value in model.graph.output])
        copy = self.twin(model)
        kept = [value for value in copy.graph.output if value.name == names[end.path[0]]]
        del copy.graph.output[:]
        copy.graph.output.extend(kept)
        forget_places(copy)
        return copy

    def weights(self, model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, ...]]:
        """Initializers by the node that takes them."""
        return weights_of(model, [name for name, _ in _named_nodes(model)])

    def with_weights(self, model: onnx.ModelProto, weights: Mapping[str, Sequence[np.ndarray]]) -> onnx.ModelProto:
        """A copy of the graph with other initializers."""
        copied = self.twin(model)
        write_weights(copied, [name for name, _ in _named_nodes(model)], weights)
        return copied

    def split_embedding(
        self, model: onnx.ModelProto, inputs: Sequence[np.ndarray], layer: str | None = None
    ) -> Embedded | None:
        """From what the one Gather by the tokens gives."""
        node = find_lookup(model)
        if node is None:
            return None
        name = next(name for name, one in _named_nodes(model) if one == node)
        activation = self.activations(model, inputs, [name]).get(name)
        if activation is None or activation.dtype.kind != "f" or activation.shape[:-1] != inputs[0].shape:
            return None
        kind = onnx.helper.np_dtype_to_tensor_dtype(activation.dtype)
        return Embedded(name, activation, from_lookup(model, node.output[0], kind, activation.shape[-1]))

    def channel_axis(
        self, model: onnx.ModelProto, shape: Sequence[int | None], *, layer: str | None = None
    ) -> int | None:
        """Axis 1, as ONNX's convolutions have it; the last one where the graph transposes its images first."""
        if len(shape) <= 2:
            return None
        return len(shape) - 1 if layer is None and _channels_last(model) else 1

    def is_certain(self, model: onnx.ModelProto, shape: Sequence[int | None], layer: str) -> bool:
        """Of operators that have their channels on axis 1; any other may follow a transposition."""
        return dict(_named_nodes(model))[layer].op_type in _CHANNELS_SECOND

    def without_softmax(self, model: onnx.ModelProto, inputs: Sequence[Any]) -> onnx.ModelProto | None:
        """The same graph, ending before each softmax node that makes an output."""
        makers = {output: node for node in model.graph.node for output in node.output}
        softmaxes = [makers.get(value.name) for value in model.graph.output]
        if not any(node is not None and node.op_type in _SOFTMAXES for node in softmaxes):
            return None
        cut = self.twin(model)
        for value, node in zip(cut.graph.output, softmaxes, strict=True):
            if node is not None and node.op_type in _SOFTMAXES:
                value.name = node.input[0]  # of the same shape and type
        return cut

    # running

    def outputs(self, model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> Any:
        """Forward pass by ONNX Runtime where it is installed, by ONNX's reference evaluator otherwise."""
        return in_own_places(model, _run(model, inputs))

    # layers

    def layers(self, model: onnx.ModelProto, inputs: Sequence[Any] | None = None) -> tuple[Layer, ...]:
        """Every node."""
        shapes: dict[str, tuple[int | None, ...]] = {}
        if inputs is not None:
            shapes = {name: value.shape[1:] for name, value in self.activations(model, inputs).items()}
        return tuple(Layer(name, node.op_type, shapes.get(name)) for name, node in _named_nodes(model))

    def layer_name(self, model: onnx.ModelProto, reference: Any) -> str | None:
        """Name of a node: that of the node itself, or of the tensor that it gives."""
        for name, node in _named_nodes(model):
            if reference in (name, *node.output) if isinstance(reference, str) else reference == node:
                return name
        return None

    def layer_object(self, model: onnx.ModelProto, name: str) -> onnx.NodeProto:
        """The node of that name."""
        return dict(_named_nodes(model))[name]

    def activations(
        self, model: onnx.ModelProto, inputs: Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """First output of every node."""
        wanted = {name: node.output[0] for name, node in _named_nodes(model) if names is None or name in names}
        wanted = {name: output for name, output in wanted.items() if output}  # optional outputs may be left out
        reader = self.twin(model)
        present = {value.name for value in reader.graph.output}
        reader.graph.output.extend(
            onnx.ValueInfoProto(name=output) for output in dict.fromkeys(wanted.values()) if output not in present
        )
        order = [value.name for value in reader.graph.output]
        values = dict(zip(order, _run(reader, inputs, leave_out=True), strict=True))
        return {name: values[output] for name, output in wanted.items() if isinstance(values[output], np.ndarray)}

    def runner(self, model: onnx.ModelProto, inputs: Sequence[np.ndarray], layers: Sequence[str] = ()) -> OnnxRunner:
        """Sub-models with sessions of their own. A layer's activation is its node's first output.

        Raises:
            LayerError: There is no such node, or it does not give a tensor.
        """
        nodes = dict(_named_nodes(model))
        for name in layers:
            if name not in nodes:
                raise LayerError(f"The ONNX model has no node {name!r}; cfi.layers(model) lists them.")
        values = self.activations(model, inputs, layers) if layers else {}
        for name in layers:
            if name not in values:
                raise LayerError(
                    f"Node {name!r} ({nodes[name].op_type}) gives no tensor to open. Choose a node after it."
                )
        opened = {name: node.output[0] for name, node in nodes.items() if name in layers}
        return OnnxRunner(model, opened, {opened[name]: value.dtype for name, value in values.items()})

    # tensors

    def is_out_of_memory(self, error: BaseException) -> bool:
        """ONNX Runtime tells it in words."""
        words = ("Failed to allocate memory", "bad_alloc", "out of memory", "Available memory of")
        return isinstance(error, MemoryError) or (
            type(error).__module__.startswith("onnxruntime") and any(one in str(error) for one in words)
        )

    def tensor(self, value: Any, model: Any) -> np.ndarray:
        """A fresh array in the model's floating point type."""
        array = np.array(value)
        if isinstance(model, onnx.ModelProto) and np.issubdtype(array.dtype, np.floating):
            declared = [_dtype(entry) for entry in real_inputs(model)]
            return array.astype(next((dtype for dtype in declared if np.issubdtype(dtype, np.floating)), array.dtype))
        return array


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """The sizes that are declared; some exporters write -1 for one that is free."""
    dims = value.type.tensor_type.shape.dim
    return tuple(one.dim_value if one.HasField("dim_value") and one.dim_value >= 0 else None for one in dims)


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _named_nodes(model: onnx.ModelProto) -> list[tuple[str, onnx.NodeProto]]:
    return [(node.name or node.output[0], node) for node in model.graph.node]


def _channels_last(model: onnx.ModelProto) -> bool:
    """Whether all consumers of the first input turn it channels-first."""
    names = [value.name for value in real_inputs(model)][:1]
    consumers = [node for node in model.graph.node if names and names[0] in node.input]
    return bool(consumers) and all(
        node.op_type == "Transpose" and list(onnx.helper.get_node_attr_value(node, "perm")) == _TO_CHANNELS_FIRST
        for node in consumers
    )


def _run(model: onnx.ModelProto, inputs: Sequence[np.ndarray], *, leave_out: bool = False) -> list[Any]:
    return session(model, leave_out=leave_out)(
        dict(zip((value.name for value in real_inputs(model)), inputs, strict=True))
    )
