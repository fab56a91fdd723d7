"""Layer normalisation, as operator sets before 17 write it."""

from __future__ import annotations

import numpy as np

from cfi_translate.program import Operation, Value, constant
from cfi_translate.rewriting.editor import ProgramEditor, operation
from cfi_translate.rewriting.matching import array_beside, number, other, reduced_axes


def join_layer_normalization(divide: Operation, editor: ProgramEditor) -> None:
    """`(x - mean) / sqrt(variance + epsilon)`, with a scale and a shift behind it where there are any."""
    found = _find_standardisation(divide, editor)
    if found is None:
        return
    data, axes, epsilon, inner = found
    if data.shape is None or data.dtype != np.float32 or axes != tuple(range(axes[0], len(data.shape))):
        return
    shape = tuple(size for size in data.shape[axes[0] :] if size is not None)
    if len(shape) < len(axes) or not editor.only_within(inner, divide):
        return
    last = divide
    weights: list[np.ndarray] = []
    for kind in ("Mul", "Add"):
        follower = editor.only_user(last.output, kind)
        given = None if follower is None else array_beside(follower, last.output, shape)
        if follower is None or given is None:
            break
        last, weights = follower, [*weights, given]
    weights = weights or [np.ones(shape, np.float32)]
    inputs = [data, *(constant(f"{last.name}.weight{i}", one) for i, one in enumerate(weights))]
    editor.replace(last, operation("LayerNormalization", last, inputs, axis=axes[0], epsilon=epsilon))


def _find_standardisation(
    divide: Operation, editor: ProgramEditor
) -> tuple[Value, tuple[int, ...], float, list[Operation]] | None:
    """What is normalised, over which axes, with which epsilon, by which operations."""
    if divide.kind != "Div":
        return None
    centred, root = editor.maker(divide.input(0), "Sub"), editor.maker(divide.input(1), "Sqrt")
    shifted = None if root is None else editor.maker(root.input(0), "Add")
    if centred is None or root is None or shifted is None:
        return None
    data, mean = centred.input(0), editor.maker(centred.input(1), "ReduceMean")
    variance = next((one for value in shifted.inputs if (one := editor.maker(value, "ReduceMean"))), None)
    square = None if variance is None else editor.maker(variance.input(0), "Mul", "Pow")
    if data is None or mean is None or variance is None or square is None or mean.input(0) is not data:
        return None
    epsilon, axes = number(other(shifted, variance.output)), reduced_axes(mean)
    if epsilon is None or axes is None or reduced_axes(variance) != axes or not _is_square(square, centred.output):
        return None
    if not mean.attributes["keepdims"] or not variance.attributes["keepdims"]:
        return None
    return data, axes, epsilon, [centred, root, shifted, mean, variance, square]


def _is_square(operation: Operation, value: Value) -> bool:
    if operation.kind == "Mul":
        return operation.inputs == (value, value)
    return operation.input(0) is value and number(operation.input(1)) == 2
