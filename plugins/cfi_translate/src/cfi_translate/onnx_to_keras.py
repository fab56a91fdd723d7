"""ONNX to Keras, by onnx2keras."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_translate.failures import failure, name_failures, refusal
from cfi_translate.graph import NCHW_TO_NHWC
from cfi_translate.libraries import prepare, require_computed_outputs
from cfi_translate.names import claim
from cfi_translate.program import Operation, Program
from cfi_translate.rewriting import rewrite
from cfi_translate.rewriting.editor import ProgramEditor
from cfi_translate.rewriting.padding import padding_into_window
from cfi_translate.workarounds import patch_onnx2keras
from cfi_translate.writing import write

NAME = "onnx2keras"
_OPSETS = (9, 13)


@name_failures(NAME)
def convert(model: ModelProto, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Converts an ONNX model of flat features and channels-first images to a functional, channels-last Keras model.

    Args:
        model: The ONNX model; it is not changed.
        inputs: One array per input, sample axis first; the Keras model takes images of their size.

    Returns:
        A Keras model of native layers that carry the node names. Images come channels-last, unless the
        ONNX model took them so already.

    Raises:
        TranslationError: An operator is not supported.
    """
    load_safely()
    program, axes = prepare(model, inputs, NAME, _OPSETS, padding_into_window)
    _check_types(program)
    program = rewrite(program, [_flatten_as_it_comes])
    _check(program)
    _name_layers(program)
    keras_model = _convert(program)
    images = [value.rank == 4 for value in program.inputs]
    return Converted(
        keras_model,
        tuple(NCHW_TO_NHWC if image and turned is None else None for image, turned in zip(images, axes, strict=True)),
        tuple(NCHW_TO_NHWC if value.rank == 4 else None for value in program.outputs),
    )


def _convert(program: Program) -> Any:
    import keras
    import onnx2keras

    if keras.backend.backend() != "tensorflow":
        raise failure(NAME, f"needs Keras on tensorflow, and this process runs it on {keras.backend.backend()}")
    with patch_onnx2keras():
        model = onnx2keras.onnx_to_keras(
            write(program),
            [value.name for value in program.inputs],
            input_shapes=[(value.shape or ())[1:] for value in program.inputs],
            verbose=False,
            change_ordering=True,
        )
        # A list of one input would make Keras warn whenever the model is called with a tensor.
        return keras.Model(*(one[0] if len(one) == 1 else one for one in (model.inputs, model.outputs)))


def _check_types(program: Program) -> None:
    """Refuses other types than float32, which the conversion would round without a word."""
    for value in program.inputs:
        if value.dtype != np.float32:
            raise failure(NAME, f"takes float32 inputs, and {value.name!r} is {value.dtype}")
        if value.rank not in (2, 4):
            raise failure(NAME, f"takes inputs of 2 or 4 axes, and {value.name!r} has the shape {value.shape}")
    if not program.free:
        raise failure(NAME, "takes models whose first axes are the samples, any number of them")
    for operation in program.operations:
        for value in operation.operands:
            if value.is_constant and value.is_float and value.dtype != np.float32:
                what = f"the weight {value.name!r} is {value.dtype}"
                raise failure(NAME, f"makes float32 models and {what}; convert it first")


def _check(program: Program) -> None:
    from cfi_translate.keras_converters import FLATTEN_CHANNELS_LAST, OWN_CONVERTERS_OF_ONNX2KERAS
    from cfi_translate.keras_converters import operator as table

    supported = {*table, *OWN_CONVERTERS_OF_ONNX2KERAS}
    require_computed_outputs(program, NAME)
    for operation in program.operations:
        if operation.kind not in supported:
            names = ", ".join(sorted(supported - {FLATTEN_CHANNELS_LAST}))
            raise refusal(NAME, operation, f"it is not among the operators known to come out right ({names})")
        if len(operation.outputs) > 1:
            raise refusal(NAME, operation, "only operators with one result are supported")
        ranks = {one.rank for one in (*operation.operands[:1], *operation.results)}
        if operation.kind != FLATTEN_CHANNELS_LAST and not ranks <= {2, 4}:
            raise refusal(NAME, operation, "only tensors of 2 or 4 axes are supported")


def _flatten_as_it_comes(flatten: Operation, editor: ProgramEditor) -> None:
    """Transposing to channels-last and flattening is what a channels-last model does by flattening alone."""
    from cfi_translate.keras_converters import FLATTEN_CHANNELS_LAST

    transpose = editor.maker(flatten.input(0), "Transpose") if flatten.kind == "Flatten" else None
    if transpose is None or flatten.attributes["axis"] != 1 or transpose.attributes.get("perm") != NCHW_TO_NHWC:
        return
    if editor.only_within([transpose], flatten):
        joined = replace(flatten, kind=FLATTEN_CHANNELS_LAST, inputs=transpose.inputs, attributes={})
        editor.replace(flatten, joined)


def _name_layers(program: Program) -> None:
    """onnx2keras names layers after the values they make: these get the node names."""
    taken = {value.name for value in program.inputs}
    for operation in program.operations:
        operation.output.name = claim(re.sub(r"[^\w.\-]", "_", operation.name), taken)
