"""Faults of tf-keras-vis 0.8.7, each worked around in one place.

`tests/test_tfkerasvis_workarounds.py` holds one test for each that fails as soon as the fault is gone.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cfi_core.errors import MethodError
from cfi_core.framework import stand_in
from cfi_core.progress import tick
from cfi_core.silence import without_warnings

STEPS_LIMIT = "TF_KERAS_VIS_MAX_STEPS"

# Fault: tf-keras-vis imports from SciPy's deprecated `scipy.ndimage.interpolation`, and from a
# deprecated module of its own. Its users can do nothing about these warnings.
with without_warnings():
    from tf_keras_vis import ModelVisualization
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.activation_maximization.callbacks import Callback
    from tf_keras_vis.activation_maximization.input_modifiers import Jitter, Rotate, Rotate2D, Scale
    from tf_keras_vis.activation_maximization.regularizers import Norm, TotalVariation2D
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils import find_layer, normalize, zoom_factor
    from tf_keras_vis.utils.model_modifiers import Conv, GuidedBackpropagation, ReplaceToLinear
    from tf_keras_vis.utils.scores import BinaryScore, CategoricalScore

__all__ = [
    "ActivationMaximization",
    "BinaryScore",
    "Callback",
    "CategoricalScore",
    "Conv",
    "Gradcam",
    "GradcamPlusPlus",
    "GuidedBackpropagation",
    "Jitter",
    "Layercam",
    "ModelVisualization",
    "Norm",
    "ReplaceToLinear",
    "Rotate2D",
    "Saliency",
    "Scorecam",
    "Shifted",
    "Tap",
    "TotalVariation2D",
    "WeightsReLU",
    "find_layer",
    "fresh_optimizer",
    "from_layer",
    "functional",
    "gives_its_own",
    "normalize",
    "own_names",
    "own_numbers",
    "refuse_limited_steps",
    "seeded_modifiers",
    "without_progress_bars",
    "zoom_factor",
]


def functional(model: Any, outputs: Sequence[Any]) -> Any:
    """A functional model over the layers of `model`, ending at some of its tensors.

    Fault: `ReplaceToLinear` asks the model for `output_names`, which a Sequential does not have; and
    `Scorecam` calls `predict`, which leaves its compiled function on the model.
    """
    return keras.Model(list(model.inputs), list(outputs), name=model.name)


class Tap(keras.layers.Layer):
    """Stands for a layer whose activation is `output`.

    Fault: tf-keras-vis reads `layer.output`, which Keras defines as what the layer gave when it was first called:
    not this model's tensor if the layer is part of several models or is a model itself (a backbone).
    """

    def __init__(self, name: str, activation: Any) -> None:
        super().__init__(name=name)
        self.activation = activation

    @property
    def output(self) -> Any:
        """The symbolic tensor of the activation."""
        return self.activation

    def get_config(self) -> dict[str, Any]:
        """Name of the layer that this one stands for."""
        return {"layer": self.name}


class WeightsReLU:
    """The ReLU of Grad-CAM++'s weights, without the ReLU of its map.

    Fault: `GradcamPlusPlus` has one `activation_modifier` for the ReLU of the weights, which defines the method
    (equation 5 of the paper), and for the ReLU of the finished map, which is post-processing.
    The two are told apart by their rank.
    """

    def __init__(self, layer_rank: int) -> None:
        self.layer_rank = layer_rank

    def __call__(self, values: Any) -> Any:
        """Rectifies gradients, and passes maps on."""
        return tf.nn.relu(values) if len(values.shape) == self.layer_rank else values


class Shifted:
    """A score function that gives one number everywhere and has the gradients of `score`.

    Fault: `GradcamPlusPlus` multiplies all three derivatives by `exp(score)` in float32: NaN for scores above 88,
    a map of zeros for scores below -100. The factor cancels in the paper's alphas and remains as one positive factor of
    a sample's map, which is left out: of several outputs, the sum of the exponentials is one.
    """

    def __init__(self, score: Any, outputs: int) -> None:
        self.score = score
        self.value = -float(np.log(outputs))

    def __call__(self, output: Any) -> Any:
        """The shifted score."""
        values = self.score(output)
        return values - tf.stop_gradient(values) + self.value


def without_progress_bars(model: Any) -> None:
    """Fault: `Scorecam` calls `model.predict`, which prints a progress bar.

    Where Keras's interactive logging is off, it writes one to absl's log, which adds a handler to the root logger.
    """
    model.predict = functools.partial(model.predict, verbose=0, callbacks=[_Told()])


class _Told(keras.callbacks.Callback):
    """Tells whoever waits for a prediction how far it is."""

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """A batch is done."""
        outputs = keras.tree.flatten((logs or {}).get("outputs", []))
        tick(int(outputs[0].shape[0]) if outputs else 1)


def own_numbers(tool: Any, seed: int) -> Any:
    """The class of a tool that draws the same numbers as numpy's global generator with that seed, from its own.

    Fault: `Saliency` draws its noise from the global generator, which belongs to the user's other threads, too.
    """
    call = tool.__call__
    names = {**call.__globals__, "np": _Numpy(seed)}
    own = FunctionType(call.__code__, names, call.__name__, call.__defaults__, call.__closure__)
    own.__kwdefaults__ = call.__kwdefaults__
    return type(tool.__name__, (tool,), {"__call__": own})


class _Numpy:
    """Stands for numpy, with a generator of its own in the place of the global one."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed % 2**32)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def from_layer(tool: Any, layer: Any) -> Any:
    """The class of a class activation map, of which gradients end at the layer.

    Fault: `Gradcam` and those that are made like it watch the inputs, so TensorFlow goes back through the whole model,
    though nobody asks for more than the gradient at the layer.
    """
    late = _TensorFlow()
    call = next(kind.__call__ for kind in tool.__mro__ if "GradientTape" in kind.__call__.__code__.co_names)
    names = {**call.__globals__, "tf": late}
    own = FunctionType(call.__code__, names, call.__name__, tool.__call__.__defaults__, call.__closure__)
    own.__kwdefaults__ = tool.__call__.__kwdefaults__

    def begin(_: str, run: Callable[[], Any]) -> Any:
        activation = run()
        late.tape.begin_at(activation)
        return activation

    def explain(self: Any, *args: Any, **settings: Any) -> Any:
        with stand_in([(layer.name, layer)], ("call", "quantized_call"), begin):
            return own(self, *args, **settings)

    return type(tool.__name__, (tool,), {"__call__": explain})


def gives_its_own(model: Any, layer: Any) -> bool:
    """Whether what the layer gives cannot be a tensor that others take, too, as of one that hands on its input."""
    if isinstance(layer, Conv):
        return True
    graph = model._functional if isinstance(model, keras.Sequential) else model
    nodes = [node for same_depth in graph._nodes_by_depth.values() for node in same_depth]
    taken = [id(tensor) for node in nodes for tensor in node.input_tensors]
    taken += [id(tensor) for tensor in model.outputs]
    calls = [node for node in nodes if node.operation is layer]
    given = [id(tensor) for node in calls for tensor in node.input_tensors]
    return len(calls) == 1 and bool(given) and all(taken.count(one) == 1 for one in given)


class _LateTape(tf.GradientTape):
    """Watches nothing but what it is told to begin at."""

    def watch(self, tensor: Any) -> None:
        """Not the inputs."""

    def begin_at(self, tensor: Any) -> None:
        """From here on."""
        super().watch(tensor)


class _TensorFlow:
    """Stands for TensorFlow, whose tape begins late."""

    tape: _LateTape

    def GradientTape(self, **settings: Any) -> _LateTape:
        """The one that is used next."""
        self.tape = _LateTape(**settings)
        return self.tape

    def __getattr__(self, name: str) -> Any:
        return getattr(tf, name)


def refuse_limited_steps() -> None:
    """Fault: an environment variable meant for tf-keras-vis's own tests silently cuts samples, maps and steps."""
    if STEPS_LIMIT in os.environ:
        raise MethodError(
            f"the environment variable {STEPS_LIMIT}={os.environ[STEPS_LIMIT]} makes tf-keras-vis compute with fewer "
            "samples, maps and steps than asked for, without saying so; unset it"
        )


def seeded_modifiers(modifiers: Any, seed: int) -> Any:
    """Copies of input modifiers whose random numbers follow `seed`; lists and dicts keep their structure.

    Fault: `Rotate` and `Scale` draw from generators that nobody can seed.
    """
    if isinstance(modifiers, dict):
        return {name: seeded_modifiers(value, seed) for name, value in modifiers.items()}
    if isinstance(modifiers, list | tuple):
        return [seeded_modifiers(value, seed + index) for index, value in enumerate(modifiers)]
    if isinstance(modifiers, Rotate | Scale):
        modifiers = copy.copy(modifiers)
        modifiers.random_generator = np.random.default_rng(seed)
    return modifiers


def own_names(regularizers: Any) -> Any:
    """Copies of regularizers in which no name is used twice for one input.

    Fault: `ActivationMaximization` keeps regularizers in a dict by name: of two `Norm`s it silently drops one.
    """
    if isinstance(regularizers, dict):
        return {name: own_names(value) for name, value in regularizers.items()}
    if not isinstance(regularizers, list | tuple):
        return regularizers
    if any(isinstance(entry, list | tuple) for entry in regularizers):
        return [own_names(entry) for entry in regularizers]
    taken: set[str] = set()
    named = []
    for position, regularizer in enumerate(regularizers):
        name = getattr(regularizer, "name", None)
        if name in taken:
            regularizer = copy.copy(regularizer)
            regularizer.name = f"{name}-{position}"
        if name is not None:
            taken.add(regularizer.name)
        named.append(regularizer)
    return named


def fresh_optimizer(optimizer: Any) -> Any:
    """An optimizer with the same settings and no memory.

    Fault: `ActivationMaximization` applies the optimizer to variables of its own, after which a Keras 3 optimizer
    serves no other: the second call with it fails, and so does the user's training.
    """
    return type(optimizer).from_config(optimizer.get_config())
