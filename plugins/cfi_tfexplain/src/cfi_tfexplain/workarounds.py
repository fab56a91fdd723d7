"""Faults of tf-explain 0.3.1, each worked around in one place.

`tests/test_tfexplain_workarounds.py` holds one test for each that fails as soon as the fault is gone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cfi_core.silence import without_warnings

# Fault: regular expressions and version tests of its dependencies warn at import; users can do nothing about it.
with without_warnings():
    from tf_explain.core.activations import ExtractActivations
    from tf_explain.core.grad_cam import GradCAM
    from tf_explain.core.gradients_inputs import GradientsInputs
    from tf_explain.core.integrated_gradients import IntegratedGradients
    from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity
    from tf_explain.core.smoothgrad import SmoothGrad
    from tf_explain.core.vanilla_gradients import VanillaGradients
    from tf_explain.utils.image import apply_grey_patch

__all__ = ["GREY", "UNSTRUCTURED", "UNSUPPORTED", "Column", "Tapped", "own_tool", "patches", "quiet", "quiet_graphs"]

GREY = 127.5
"""What tf-explain covers patches with, whatever range the images have."""

UNSTRUCTURED = "The structure of `inputs`"
"""Begins what Keras warns of where `GradCAM` makes a model of a list within a list of inputs."""
UNSUPPORTED = "Unsupported model architecture"
"""Begins what `VanillaGradients` warns of where a model ends in no activation layer."""


def own_tool(name: str, seed: int, *, compiled: bool) -> Any:
    """A class of tf-explain for one run alone.

    Faults: `SmoothGrad` draws from numpy's global generator, which belongs to the user's other threads, too; here it
    draws the same numbers from a generator of its own. And the compiled functions of the classes hold a graph of every
    model that they ever ran.

    Args:
        name: Name of the class.
        seed: Of its random numbers.
        compiled: Whether its functions are compiled as tf-explain's are, or run as they stand.
    """
    names: dict[str, Any] = {"np": _Numpy(seed)}
    names["VanillaGradients"] = vanilla = _rebound(VanillaGradients, (object,), names, compiled)
    if name == "VanillaGradients":
        return vanilla
    return _rebound(_TOOLS[name], (vanilla,) if name == "GradientsInputs" else (object,), names, compiled)


_TOOLS: Mapping[str, Any] = MappingProxyType(
    {
        tool.__name__: tool
        for tool in (
            GradientsInputs,
            IntegratedGradients,
            SmoothGrad,
            OcclusionSensitivity,
            GradCAM,
            ExtractActivations,
        )
    }
)


def _rebound(tool: Any, bases: tuple[type, ...], names: Mapping[str, Any], compiled: bool) -> Any:
    """A class with the same code, in which its own name and some others mean something else."""
    made = type(tool.__name__, bases, {})
    known = {**names, tool.__name__: made}
    for name, member in vars(tool).items():
        inner: Any = member.__func__ if isinstance(member, staticmethod) else member
        traced = hasattr(inner, "python_function")
        function = inner.python_function if traced else inner
        if not isinstance(function, FunctionType):
            continue
        again: Any = _again(function, known)
        if traced and compiled:
            again = tf.function(again)
        setattr(made, name, staticmethod(again) if isinstance(member, staticmethod) else again)
    return made


def _again(function: FunctionType, names: Mapping[str, Any]) -> FunctionType:
    again = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    again.__kwdefaults__ = function.__kwdefaults__
    return again


class _Numpy:
    """Stands for numpy, with a generator of its own in the place of the global one."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed % 2**32)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def patches(shape: tuple[int, ...], size: int) -> list[np.ndarray]:
    """The square patches that cover an image, row by row, each as a mask of the image's shape.

    Fault: `OcclusionSensitivity` runs x over the image's height and y over its width, and resizes its map to width ×
    height: on an image that is not square, patches leave a part of it uncovered or lie outside, their scores stand
    elsewhere, and the map is transposed.
    """
    blank, (height, width) = np.zeros(shape, np.float32), shape[:2]
    return [
        apply_grey_patch(blank, left, top, size) == GREY
        for top in range(0, height, size)
        for left in range(0, width, size)
    ]


class Tapped:
    """A model in whose place `GradCAM` takes the two tensors that it reads, and the input that they come from.

    Fault: `GradCAM` reads `layer.output`, which Keras defines as what the layer gave when it was first called: not
    this model's tensor if the layer is part of several models. And of a list of inputs it makes a list in a list.

    Attributes:
        inputs: The symbolic input.
        activation: What the layer gives.
        output: What the model gives.
    """

    def __init__(self, inputs: Any, activation: Any, output: Any) -> None:
        self.inputs = inputs
        self.activation = activation
        self.output = output

    def get_layer(self, name: str) -> Any:
        """What has the activation as its output."""
        return _Layer(self.activation)


class _Layer:
    def __init__(self, output: Any) -> None:
        self.output = output


class Column(keras.layers.Layer):
    """Gives the score of each row as a column: `GradCAM` builds a model of the tensors that it reads.

    Fault: `GradCAM` takes one column of the output for all samples, which is no target for each of them.
    """

    def __init__(self, of_outputs: Callable[[Any], Any], dtype: str) -> None:
        super().__init__(dtype=dtype, name="column")
        self.of_outputs = of_outputs

    def compute_output_spec(self, outputs: Any) -> Any:
        """Not found by calling it: what it does is made for one number of samples."""
        return keras.KerasTensor((None, 1), dtype=self.compute_dtype)

    def call(self, outputs: Any) -> Any:
        """Scores of shape (rows, 1)."""
        return tf.reshape(self.of_outputs(outputs), (-1, 1))


def quiet(model: Any) -> Any:
    """Fault: `predict` is called with its progress bar, which nobody asked for; the model is this run's own."""
    model.predict = functools.partial(model.predict, verbose=0)
    return model


def quiet_graphs(tool: Any) -> Any:
    """The same for the models that a class of `ExtractActivations`, this run's own, makes."""
    generate = tool.generate_activations_graph
    tool.generate_activations_graph = staticmethod(lambda model, names: quiet(generate(model, names)))
    return tool
