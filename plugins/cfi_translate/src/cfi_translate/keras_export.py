"""Keras models to ONNX, by Keras's own export."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_core.errors import kind_of
from cfi_translate.failures import failure, name_failures
from cfi_translate.tf_to_onnx import OPSET, finish, inference_call
from cfi_translate.workarounds import patch_tf2onnx, remove_marks

NAME = "keras-onnx-export"


@name_failures(NAME)
def convert(model: Any, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Exports a Keras model with `model.export(format="onnx")`.

    Args:
        model: A Keras model; layer names become node names.
        inputs: One array per input, sample axis first.

    Returns:
        An `onnx.ModelProto` of opset 13; inputs and outputs keep their axes.

    Raises:
        TranslationError: The model is not a Keras model, or does not export.
    """
    load_safely()
    import keras

    if not isinstance(model, keras.Model):
        raise failure(NAME, f"takes Keras models, and this is a {kind_of(model)}")
    with tempfile.TemporaryDirectory() as folder, remove_marks(model), patch_tf2onnx() as names:
        path = Path(folder) / "model.onnx"
        # Keras exports only what was called before, and a fresh copy of a model was not.
        inference_call(model)(*(array[:1] for array in inputs))
        model.export(path, format="onnx", verbose=False, opset_version=OPSET)
        exported = onnx.load(path)
    outputs = len(exported.graph.output)
    finish(exported, model, NAME, len(inputs), names)
    return Converted(exported, (None,) * len(inputs), (None,) * outputs)
