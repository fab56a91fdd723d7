"""Keras 3 models on TensorFlow, and TensorFlow tensors. Imported when one is first used."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional

from cfi_core.contract import Layer
from cfi_core.errors import InputError, LayerError, UnknownFrameworkError
from cfi_core.frameworks.structure import flatten, map_structure

_SOFTMAXES = (keras.activations.softmax, keras.activations.log_softmax)


class TensorFlowAdapter:
    """See `cfi_core.frameworks.base.FrameworkAdapter`. Layers go by their Keras names, nested ones as `outer/inner`."""

    name = "tensorflow"

    # models

    def load(self, model: Any) -> Any:
        """Checks that the model has its weights and runs on TensorFlow."""
        if keras.backend.backend() != "tensorflow":
            raise UnknownFrameworkError(
                f"Keras runs on its {keras.backend.backend()} backend here; Keras models are understood with the "
                f"tensorflow backend only. Set KERAS_BACKEND=tensorflow before importing keras."
            )
        if not model.built:
            raise InputError(
                f"The Keras model {model.name!r} is not built yet, so it has no weights: call it once, or give it an "
                f"Input, before explaining it."
            )
        return model

    def twin(self, model: keras.Model, *, share_weights: bool = True) -> keras.Model:
        """A functional model around the same layers (Keras models carry no hooks), or a clone with its own weights."""
        if not _is_graph(model):
            return model
        if share_weights:
            return keras.Model(model.inputs, _structure(model), name=model.name)
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        return clone

    def in_training_mode(self, model: keras.Model) -> bool:
        """Keras models have no mode: every call says it."""
        return False

    def fingerprint(self, model: keras.Model) -> str:
        """Hash of weights, layers, their settings and activations."""
        digest = hashlib.blake2b(digest_size=16)
        for layer in _flat_layers(model):
            digest.update(f"{layer.name}:{type(layer).__qualname__}:{_settings(layer)}".encode())
        for weight in model.weights:
            value = np.ascontiguousarray(weight.numpy())
            digest.update(f"{weight.path}:{value.dtype}:{value.shape}".encode())
            digest.update(value.data)
        return digest.hexdigest()

    def input_shapes(self, model: keras.Model) -> tuple[tuple[int | None, ...], ...] | None:
        """Shapes of the model's Input layers; a subclassed model declares none."""
        return tuple(tuple(tensor.shape) for tensor in model.inputs) if _is_graph(model) else None

    def declared_integer(self, model: keras.Model, position: int) -> bool | None:
        """Whether that Input layer takes integers."""
        if not _is_graph(model) or position >= len(model.inputs):
            return None
        return bool(tf.as_dtype(model.inputs[position].dtype).is_integer)

    def channel_axis(self, model: keras.Model, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        """The last axis."""
        return len(shape) - 1 if len(shape) > 2 else None

    def dims(self, model: keras.Model, shape: Sequence[int | None], *, layer: str | None = None) -> tuple[str, ...]:
        """Channels last."""
        rank = len(shape)
        if rank <= 2:
            return ("sample", "unit" if layer else "feature")[:rank]
        if rank == 3:
            return ("sample", "position", "channel")
        spatial = (
            ("depth", "height", "width")[-(rank - 2) :] if rank <= 5 else tuple(f"axis{i}" for i in range(1, rank - 1))
        )
        return ("sample", *spatial, "channel")

    def without_softmax(self, model: keras.Model, inputs: Sequence[Any]) -> keras.Model | None:
        """Replaces a final softmax (layer, activation or operation) in a model that shares all other layers."""
        if not _is_graph(model):
            return None
        logits = [_logits(output) for output in model.outputs]
        if all(logit is None for logit in logits):
            return None
        outputs = [output if logit is None else logit for output, logit in zip(model.outputs, logits, strict=True)]
        structure = keras.tree.pack_sequence_as(_structure(model), outputs)
        return keras.Model(model.inputs, structure, name=model.name)

    # running

    def outputs(self, model: keras.Model, inputs: Sequence[Any]) -> Any:
        """Forward pass in inference mode."""
        return map_structure(self.to_numpy, self._call(model, inputs))

    def vjp(
        self, model: keras.Model, inputs: Sequence[Any], cotangents: Sequence[np.ndarray]
    ) -> tuple[np.ndarray | None, ...]:
        """Gradient by `tf.GradientTape`."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([tensor for tensor in inputs if tensor.dtype.is_floating])
            outputs = flatten(self._call(model, inputs))
            total = _combination(outputs, cotangents)
        gradients = tape.gradient(total, list(inputs), unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tuple(
            self.to_numpy(tf.convert_to_tensor(gradient)) if tensor.dtype.is_floating else None
            for tensor, gradient in zip(inputs, gradients, strict=True)
        )

    def _call(self, model: keras.Model, inputs: Sequence[Any]) -> Any:
        outputs = model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
        # Keras flattens dicts by their sorted keys, and so do converters.
        return {key: outputs[key] for key in sorted(outputs)} if isinstance(outputs, dict) else outputs

    # layers

    def layers(self, model: keras.Model, inputs: Sequence[Any] | None = None) -> tuple[Layer, ...]:
        """Every layer but the Input layers, nested ones after the model they lie in."""
        readable = _readable(model, None) if _is_graph(model) else {}
        shapes = {name: tuple(output.shape[1:]) for name, output in readable.items()}
        return tuple(
            Layer(name, type(layer).__name__, shapes.get(name))
            for name, layer in _named_layers(model)
            if not isinstance(layer, keras.layers.InputLayer)
        )

    def layer_name(self, model: keras.Model, reference: Any) -> str | None:
        """Name of a layer; a nested one may also be called by its own name where that is unique."""
        named = _named_layers(model)
        for name, layer in named:
            if layer is reference or (isinstance(reference, str) and name == reference):
                return name
        own = [name for name, layer in named if isinstance(reference, str) and layer.name == reference]
        return own[0] if len(own) == 1 else None

    def layer_object(self, model: keras.Model, name: str) -> Any:
        """The layer of that name."""
        return dict(_named_layers(model))[name]

    def activations(
        self, model: keras.Model, inputs: Sequence[Any], names: Sequence[str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """Outputs of the layers of a functional or Sequential model that are called once."""
        if not _is_graph(model):
            return {}
        nested = [name for name in names or () if "/" in name]
        if nested:
            raise LayerError(
                f"Layer {nested[0]!r} lies inside a nested model, whose inner layers are not connected to the inputs. "
                f"Build the model without nesting, or choose a layer from cfi.layers(model) without a slash."
            )
        tensors = _readable(model, names)
        if not tensors:
            return {}
        values = flatten(self._call(keras.Model(model.inputs, list(tensors.values())), inputs))
        return {name: self.to_numpy(value) for name, value in zip(tensors, values, strict=True)}

    def layer_gradients(
        self, model: keras.Model, inputs: Sequence[Any], cotangents: Sequence[np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        """Gradients at the outputs of those layers."""
        tensors = _readable(model, None) if _is_graph(model) else {}
        if not tensors:
            return {}
        reader = keras.Model(model.inputs, [*model.outputs, *tensors.values()])
        floating = [tensor for tensor in inputs if tensor.dtype.is_floating]
        # Without a floating point input, the gradient starts at the weights (an embedding).
        with tf.GradientTape(watch_accessed_variables=not floating) as tape:
            tape.watch(floating)
            values = flatten(self._call(reader, inputs))
            outputs, activations = values[: len(cotangents)], values[len(cotangents) :]
            total = _combination(outputs, cotangents)
        gradients = tape.gradient(total, activations, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return {
            name: self.to_numpy(tf.convert_to_tensor(gradient))
            for name, gradient in zip(tensors, gradients, strict=True)
            if gradient is not None
        }

    # tensors

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a TensorFlow tensor or variable."""
        return isinstance(value, tf.Tensor | tf.Variable)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        """The values."""
        value = np.asarray(tensor)
        # numpy has no bfloat16 of its own; every bfloat16 is a float32.
        return value.astype(np.float32) if value.dtype.name == "bfloat16" else value

    def tensor(self, value: Any, model: Any) -> tf.Tensor:
        """A fresh tensor; floating point values take the type of the model's first weight."""
        # Copied, because TensorFlow may share memory with a numpy array that its owner changes later.
        value = tf.identity(value) if self.is_tensor(value) else tf.constant(np.array(value))
        dtype = _floating_type(model)
        return tf.cast(value, dtype) if dtype is not None and value.dtype.is_floating else value

    def permute(self, tensor: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
        """The tensor with its axes in another order."""
        return tf.transpose(tensor, axes)

    # process

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Seeds TensorFlow's operations inside, and restores the former state."""
        with self.unchanged():
            tf.random.set_seed(seed)
            yield

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Restores TensorFlow's global seed and Keras's global settings."""
        from tensorflow.python.eager import context  # the only place where the eager random state can be read

        eager = context.context()
        seed, generator = getattr(eager, "_seed", None), getattr(eager, "_rng", None)
        state = generator.getstate() if isinstance(generator, random.Random) else None
        image_format, floatx = keras.config.image_data_format(), keras.config.floatx()
        try:
            yield
        finally:
            eager._seed, eager._rng = seed, generator
            if isinstance(generator, random.Random) and state is not None:
                generator.setstate(state)
            keras.config.set_image_data_format(image_format)
            keras.config.set_floatx(floatx)


def _is_graph(model: keras.Model) -> bool:
    """Whether the model computes what its graph says: functional or built Sequential, with no `call` of its own."""
    if not isinstance(model, keras.Sequential | Functional) or not model.inputs:
        return False
    return type(model).call in (Functional.call, keras.Sequential.call)


def _structure(model: keras.Model) -> Any:
    """The symbolic outputs in the structure that the model returns."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    return graph._outputs_struct


def _nodes(model: keras.Model) -> dict[int, list[Any]]:
    """The calls that the graph of this model makes, by the identity of the layer; there may be others elsewhere."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    calls: dict[int, list[Any]] = {}
    for nodes in graph._nodes_by_depth.values():
        for node in nodes:
            calls.setdefault(id(node.operation), []).append(node)
    return calls


def _flat_layers(model: keras.Model) -> list[Any]:
    return [layer for _, layer in _named_layers(model)]


def _named_layers(model: Any, prefix: str = "") -> list[tuple[str, Any]]:
    named: list[tuple[str, Any]] = []
    for layer in model.layers:
        name = prefix + layer.name
        named.append((name, layer))
        if isinstance(layer, keras.Model):
            named.extend(_named_layers(layer, f"{name}/"))
    return named


def _settings(layer: Any) -> str:
    """The layer's configuration, and the plain attributes of layers that may keep some outside of it."""
    plain = {key: value for key, value in vars(layer).items() if isinstance(value, int | float | str | tuple)}
    try:
        configuration = layer.get_config()
    except NotImplementedError:
        configuration = {}  # a custom layer without get_config: its class, name, attributes and weights are hashed
    activation = id(getattr(layer, "activation", None))
    return json.dumps([configuration, plain, activation, id(type(layer).call)], sort_keys=True, default=str)


def _combination(outputs: Sequence[Any], cotangents: Sequence[np.ndarray]) -> Any:
    return tf.add_n(
        [
            tf.reduce_sum(output * tf.cast(cotangent, output.dtype))
            for output, cotangent in zip(outputs, cotangents, strict=True)
            if output.dtype.is_floating
        ]
    )


def _readable(model: keras.Model, names: Sequence[str] | None) -> dict[str, Any]:
    """Symbolic outputs of the layers that are called once and give one tensor."""
    calls = _nodes(model)
    return {
        layer.name: calls[id(layer)][0].output_tensors[0]
        for layer in model.layers
        if (names is None or layer.name in names)
        and not isinstance(layer, keras.layers.InputLayer)
        and len(calls.get(id(layer), ())) == 1
        and len(calls[id(layer)][0].output_tensors) == 1
    }


def _floating_type(model: Any) -> Any:
    if not isinstance(model, keras.Model):
        return None
    if _is_graph(model):
        dtypes = [tf.as_dtype(tensor.dtype) for tensor in model.inputs]
    else:
        dtypes = [tf.as_dtype(weight.dtype) for weight in model.weights]
    return next((dtype for dtype in dtypes if dtype.is_floating), None)


def _logits(output: Any) -> Any:
    """The symbolic tensor that goes into the softmax that makes `output`; None if no softmax makes it."""
    operation, node_index, tensor_index = output._keras_history
    node = operation._inbound_nodes[node_index]
    activation = getattr(operation, "activation", None)
    if isinstance(operation, keras.layers.Softmax) or type(operation).__name__ in ("Softmax", "LogSoftmax"):
        return node.input_tensors[0]
    if isinstance(operation, keras.layers.Activation) and activation in _SOFTMAXES:
        return node.input_tensors[0]
    if activation in _SOFTMAXES:
        return _apply(_with_linear_activation(operation, node.input_tensors[0].shape), node.input_tensors)
    if isinstance(operation, keras.Model) and _is_graph(operation):
        inner = _logits(operation.outputs[tensor_index])
        if inner is not None:
            return _apply(keras.Model(operation.inputs, inner, name=operation.name), node.input_tensors)
    return None


def _with_linear_activation(layer: Any, input_shape: Any) -> Any:
    config = {**layer.get_config(), "activation": "linear"}
    head = type(layer).from_config(config)
    head.build(input_shape)
    head.set_weights(layer.get_weights())
    return head


def _apply(layer: Any, inputs: Sequence[Any]) -> Any:
    """Calls a layer of ours on tensors of the user's model and leaves no mark on the user's layers."""
    output = layer(inputs[0] if len(inputs) == 1 else list(inputs))
    node = layer._inbound_nodes[-1]
    for tensor in inputs:
        producer = tensor._keras_history.operation
        if node in producer._outbound_nodes:
            producer._outbound_nodes.remove(node)
    return output
