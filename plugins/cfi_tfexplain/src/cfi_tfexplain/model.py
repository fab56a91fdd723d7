"""What of a model tf-explain can run: a callable of one tensor, and the tensors of a Keras model's layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional  # has no public name

from cfi_core.contract import MethodRequest
from cfi_core.errors import ArgumentError, InputError, LayerError, MethodError, kind_of
from cfi_core.specs import Need

_DIFFERENTIATED = {Need.INPUT_GRADIENT, Need.LAYER_GRADIENT}
OVER_A_BRIDGE = "pass translator='bridge' (of cfi-bridge), which runs any model inside a functional one"


@dataclass(frozen=True)
class Tap:
    """A layer in the graph of a functional model.

    Attributes:
        name: The layer's name.
        inputs: The model's symbolic input.
        activation: The symbolic tensor that the layer gives in this model.
        outputs: What the model gives, in its structure.
    """

    name: str
    inputs: Any
    activation: Any
    outputs: Any


def images_of(request: MethodRequest) -> np.ndarray:
    """The one input of a request.

    Raises:
        MethodError: The model takes several inputs, or Keras does not run on TensorFlow.
        InputError: The input has no gradient.
    """
    if keras.config.backend() != "tensorflow":
        raise MethodError(
            f"tf-explain needs Keras on TensorFlow; this process runs it on {keras.config.backend()}: set the "
            "environment variable KERAS_BACKEND=tensorflow before Keras is imported"
        )
    if len(request.inputs) != 1:
        raise MethodError(
            f"tf-explain explains models of one input, and this one takes {len(request.inputs)}; use tf-keras-vis or "
            "captum, or pass a function of one input that holds the others"
        )
    images = np.asarray(request.inputs[0])
    if images.dtype.name == "bfloat16":
        images = images.astype(np.float32)  # numpy computes in no bfloat16; every one is a float32
    if images.dtype.kind != "f" and request.method.needs & _DIFFERENTIATED:
        raise InputError(
            f"the input is of type {images.dtype}, which has no gradient; convert it to the model's floating point "
            "type, scaled as the model expects"
        )
    return images


def check_images(request: MethodRequest, images: np.ndarray, what: str, *, colours: bool = False) -> None:
    """Refuses what tf-explain would take along the wrong axis: it reads images with channels last, always.

    Raises:
        ArgumentError: Not images, channels that are not last, or (if asked) not three colours.
    """
    axis = request.channel_axis[0] if request.channel_axis else None
    if images.ndim != 4 or axis not in (-1, 3):
        raise ArgumentError(
            f"{what} takes images with channels last, and the input of shape {images.shape} has its channels on axis "
            f"{axis}; use {_OTHERS.get(request.method.key, 'captum')}"
        )
    if colours and images.shape[-1] != 3:
        raise ArgumentError(
            f"{what} draws over images of three colours, and the input has {images.shape[-1]} channels; pass "
            "exec_args={'picture': False}, and draw the values with Attribution.plot()"
        )


_OTHERS = {"occlusion": "captum's 'occlusion'", "grad_cam": "captum's 'grad_cam'"}


def patch_sizes(request: MethodRequest) -> tuple[int, ...]:
    """The patch sizes of a call, in pixels.

    Raises:
        ArgumentError: None is given, or one that is no number of pixels.
    """
    given = request.exec_args.get("patch_size")
    if given is None:
        raise ArgumentError("occlusion needs exec_args={'patch_size': …}: pixels, or a list of several sizes")
    sizes = list(given) if isinstance(given, list | tuple) else [given]
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1 for size in sizes):
        raise ArgumentError(f"patch_size must be a number of pixels of 1 or more, or a list of them, got {given!r}")
    return tuple(map(int, sizes))


def taps(request: MethodRequest) -> tuple[Tap, ...]:
    """Where the layers of a request are in its model's graph.

    Raises:
        MethodError: The model has no graph.
        LayerError: A layer is not at the top of it, is called several times, or gives several tensors.
    """
    model = graph_of(request.model)
    outputs = keras.tree.pack_sequence_as(model._outputs_struct, list(model.outputs))
    return tuple(Tap(layer.name, model.inputs[0], _output_of(model, layer), outputs) for layer in _find_layers(request))


def call_unmarked(layer: Any, tensors: Any) -> Any:
    """Calls a layer of ours on tensors of the user's model, and leaves no mark on the user's layers."""
    result = layer(tensors)
    node = layer._inbound_nodes[-1]
    for tensor in keras.tree.flatten(tensors):
        marks = tensor._keras_history.operation._outbound_nodes
        if node in marks:
            marks.remove(node)
    return result


def check_map(request: MethodRequest, tap: Tap) -> None:
    """Refuses a layer that has no class activation map in two dimensions.

    Raises:
        LayerError: Its output is not of height, width and channels, in this order.
    """
    shape = tuple(tap.activation.shape)
    if len(shape) != 4 or request.layer_channel_axis not in (None, -1, 3):
        raise LayerError(
            f"layer {tap.name!r} gives {shape} with its channels on axis {request.layer_channel_axis}: tf-explain "
            "takes the mean of gradients over the axes of height and width, with channels last. Take a layer before "
            "the image is pooled or flattened (cfi.layers(model, inputs) shows shapes), or tf-keras-vis for other axes"
        )


def graph_of(model: Any) -> Any:
    """The model, if it is a graph of Keras layers.

    Raises:
        MethodError: It is none.
    """
    if not isinstance(model, Functional) or type(model).call is not Functional.call:
        raise MethodError(
            f"tf-explain looks into functional and Sequential Keras models, and this is a {kind_of(model)}; "
            f"{OVER_A_BRIDGE}"
        )
    return model


def _find_layers(request: MethodRequest) -> Sequence[Any]:
    model = request.model
    for layer in request.layer:
        if not any(layer is other for other in model.layers):
            name = getattr(layer, "name", layer)
            raise LayerError(
                f"layer {name!r} lies inside a nested model, whose layers tf-explain cannot read; take one at the top "
                f"of the model: {', '.join(repr(other.name) for other in model.layers)}; or {OVER_A_BRIDGE}"
            )
    return request.layer


def _output_of(model: Any, layer: Any) -> Any:
    """The tensor that the layer gives in this model."""
    own = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    calls = [node for node in layer._inbound_nodes if id(node) in own]
    if len(calls) != 1:
        raise LayerError(
            f"the model calls layer {layer.name!r} {len(calls)} times, so its activation is not one tensor; take a "
            "layer that is called once"
        )
    if len(calls[0].output_tensors) != 1:
        raise LayerError(f"layer {layer.name!r} gives {len(calls[0].output_tensors)} tensors; take one that gives one")
    return calls[0].output_tensors[0]
