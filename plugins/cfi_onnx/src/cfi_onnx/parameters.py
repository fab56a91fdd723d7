"""What a graph has learnt: the initializers that its operators of weights take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

_PLACES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), (1, 2)),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"), (1, 2)
    ),
    **dict.fromkeys(("RNN", "GRU", "LSTM"), (1, 2, 3)),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "Gather": (0,),
}
"""Which inputs of an operator are its weights; further constants of a graph are settings as often as not."""


def weights_of(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, tuple[np.ndarray, ...]]:
    """Weights by node.

    Args:
        model: The model.
        names: Of its nodes, in their order.
    """
    held = {name: tuple(map(numpy_helper.to_array, tensors)) for name, tensors in _tensors(model, names)}
    return {name: arrays for name, arrays in held.items() if arrays}


def write_weights(model: onnx.ModelProto, names: Sequence[str], weights: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Puts weights into a model in the place of its own; arguments as for `weights_of`."""
    for name, tensors in list(_tensors(model, names)):
        for tensor, array in zip(tensors, weights.get(name, ()), strict=name in weights):
            kind = numpy_helper.to_array(tensor).dtype
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(array).astype(kind), tensor.name))


def _tensors(model: onnx.ModelProto, names: Sequence[str]) -> Iterator[tuple[str, list[onnx.TensorProto]]]:
    """The floating point initializers of each node; one that several share is the first one's."""
    known = {one.name: one for one in model.graph.initializer if one.data_type in _FLOATS}
    for name, node in zip(names, model.graph.node, strict=True):
        places = _PLACES.get(node.op_type, ())
        taken = [node.input[place] for place in places if place < len(node.input)]
        yield name, [known.pop(one) for one in taken if one in known]


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
