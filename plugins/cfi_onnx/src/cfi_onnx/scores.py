"""What a classifier's graph gives besides its scores: labels, and scores in a form that only dictionaries have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

_FLOATING = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_PLACES = "cfi.outputs"  # of the metadata: which of the graph's own outputs are left, and how many it had


def keep_scores(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its floating point outputs alone, if it has others besides; otherwise the model itself.

    Classifiers made of scikit-learn's estimators give labels first, and their probabilities as a list of dictionaries
    (the operator ZipMap), of which the tensor inside is taken.
    """
    graph = model.graph
    zipped = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ZipMap" and node.output}
    scores = [i for i, value in enumerate(graph.output) if value.name in zipped or _is_floating(value)]
    if not scores or (len(scores) == len(graph.output) and not zipped):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(_score(graph.output[i], zipped) for i in scores)
    for node in [node for node in copy.graph.node if node.op_type == "ZipMap"]:
        copy.graph.node.remove(node)
    copy.metadata_props.add(key=_PLACES, value=" ".join(map(str, (len(graph.output), *scores))))
    return copy


def in_own_places(model: onnx.ModelProto, results: Sequence[Any]) -> Any:
    """What the graph gives, at the positions of its own outputs; None where one was left out."""
    told = next((one.value for one in model.metadata_props if one.key == _PLACES), None)
    if told is None:
        return results[0] if len(results) == 1 else tuple(results)
    count, *places = map(int, told.split())
    given = dict(zip(places, results, strict=True))
    return tuple(given.get(place) for place in range(count))


def forget_places(model: onnx.ModelProto) -> None:
    """Lets a model with one output give it alone, whatever others the graph once had."""
    kept = [one for one in model.metadata_props if one.key != _PLACES]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def scores_of(results: Sequence[Any]) -> list[Any]:
    """What a session gives: scores as arrays, and None in the place of labels beside them."""
    arrays = [_unzip(one) for one in results]
    is_score = [isinstance(one, np.ndarray) and one.dtype.kind == "f" for one in arrays]
    return [one if of_scores or not any(is_score) else None for one, of_scores in zip(arrays, is_score, strict=True)]


def _is_floating(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in _FLOATING


def _score(value: onnx.ValueInfoProto, zipped: dict[str, str]) -> onnx.ValueInfoProto:
    if value.name not in zipped:
        return value
    return onnx.helper.make_tensor_value_info(zipped[value.name], TensorProto.FLOAT, None)


def _unzip(result: Any) -> Any:
    if not (isinstance(result, list) and result and isinstance(result[0], dict)):
        return result
    return np.array([[row[label] for label in result[0]] for row in result], np.float32)
