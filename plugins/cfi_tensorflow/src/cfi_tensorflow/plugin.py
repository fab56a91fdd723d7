"""What this plugin offers. Importing it imports neither tensorflow nor keras."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, ModelFormat, PreparationSpec

_FORMATS = (
    ModelFormat(
        name="a Keras archive",
        suffixes=(".keras",),
        begins=("50 4b 03 04",),
        members=("config.json", "metadata.json", "model.weights.h5"),
        model="cfi_tensorflow.loading:read_archive",
        requirements=("keras>=3.15",),  # before 3.13.2, safe mode was passed by
    ),
    ModelFormat(
        name="HDF5",
        suffixes=(".h5", ".hdf5"),
        begins=("89 48 44 46 0d 0a 1a 0a",),
        model="cfi_tensorflow.loading:read_h5",
        weights="cfi_tensorflow.loading:load_weights",
        runs_code="Keras makes whatever such a file of a model names, Lambda layers with code in them too",
        instead="What is safe: model.save('….keras'); or model.save_weights('….weights.h5'), and then "
        "cfi.load_model('package.module:factory', weights=…).",
        requirements=("keras>=3.15",),
    ),
    ModelFormat(
        name="a saved model",
        members=("saved_model.pb",),
        folder=True,
        model="cfi_tensorflow.loading:read_saved_model",
        runs_code="its graph can call any operation of TensorFlow, those that read and write files among them",
        instead="What is safe: model.save('….keras').",
    ),
)


@hookimpl
def cfi_frameworks() -> Iterable[FrameworkSpec]:
    """TensorFlow: Keras models, modules, compiled functions, signatures of saved models, functions of its tensors."""
    return [
        FrameworkSpec(
            name="tensorflow",
            models="a Keras 3 model, a tf.Module, a tf.function, a signature of a SavedModel, a function of tf tensors",
            model_types=(
                # Of Keras on this backend: on others its models are modules of torch, or functions of JAX arrays.
                ("keras.src.backend.tensorflow.layer", "TFLayer"),
                ("tensorflow.python.module.module", "Module"),
                ("tensorflow.python.eager.polymorphic_function.polymorphic_function", "Function"),
                ("tensorflow.python.eager.polymorphic_function.concrete_function", "ConcreteFunction"),
                ("tensorflow.python.trackable.autotrackable", "AutoTrackable"),
            ),
            tensor_types=(("tensorflow.python.framework.tensor", "Tensor"), ("tensorflow", "Variable")),
            adapter="cfi_tensorflow.adapter:TensorFlowAdapter",
            module="tensorflow",
            formats=_FORMATS,
            aliases=("keras", "tf"),
            takes_functions=True,
        )
    ]


@hookimpl
def cfi_preparations() -> Iterable[PreparationSpec]:
    """Tasks of KerasHub, which are given texts."""
    return [
        PreparationSpec(
            name="keras-hub",
            model_types=(("keras_hub.models", "Task"),),
            implementation="cfi_tensorflow.preparation:unpack_task",
        )
    ]
