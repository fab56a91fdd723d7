"""What this plugin offers. Importing it imports neither tensorflow nor keras."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, PreparationSpec


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
