"""Runs one method of tf-explain."""

from __future__ import annotations

from cfi_core.contract import MethodRequest, MethodResult
from cfi_core.errors import CFIError, MethodError
from cfi_tfexplain.model import images_of
from cfi_tfexplain.picture import run_picture
from cfi_tfexplain.raw import run_raw
from cfi_tfexplain.table import PICTURE


def run(request: MethodRequest) -> MethodResult:
    """Runs a method of tf-explain on a model of one input.

    Args:
        request: The run; tensors are TensorFlow's (or numpy's). Methods of layers need a functional Keras model.

    Returns:
        Raw values of the input's or the layer's axes; with `picture`, 8-bit values as `explain` draws them and the
        whole picture in `extras`. `applied` tells the definition, and where tf-explain's picture departs from it.

    Raises:
        ArgumentError: Arguments (`InputError`, `TargetError`, `LayerError`) that do not fit the model.
        MethodError: tf-explain cannot run this model, or fails.
    """
    try:
        images = images_of(request)
        return (run_picture if request.exec_args[PICTURE] else run_raw)(request, images)
    except CFIError:
        raise
    except Exception as error:  # whatever tf-explain, OpenCV, Keras or TensorFlow raises
        raise MethodError(
            f"tf-explain failed in {request.method.key!r} ({type(error).__name__}: {error}); check init_args and "
            "exec_args against the tf-explain documentation"
        ) from error
