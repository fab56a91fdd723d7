"""Layers of functional models that give tokens on a grid, shown as maps with channels last."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cfi_core.errors import LayerError
from cfi_core.framework import Layout
from cfi_tensorflow.keras import is_graph


class Map(keras.layers.Layer):
    """All that a layer gives in space, as `(samples, *space, channels)`."""

    def __init__(self, layout: Layout, name: str) -> None:
        super().__init__(name=name, autocast=False, trainable=False)
        self.layout = layout

    def call(self, output: Any) -> Any:
        """The map."""
        flat = _positions(output, self.layout)
        return tf.reshape(_take(flat, self.layout.order), [-1, *self.layout.space, flat.shape[-1]])

    def compute_output_spec(self, output: Any) -> Any:
        """Its shape."""
        return keras.KerasTensor((None, *self.layout.space, output.shape[self.layout.channel]), output.dtype)


class Unmap(keras.layers.Layer):
    """What a layer gives, made of its map and of the positions that lie nowhere."""

    def __init__(self, layout: Layout, name: str) -> None:
        super().__init__(name=name, autocast=False, trainable=False)
        self.layout = layout

    def call(self, values: Any) -> Any:
        """The output in the layer's own axes."""
        output, shown = values
        layout, flat = self.layout, _positions(output, self.layout)
        cells = tf.reshape(shown, [-1, len(layout.order), flat.shape[-1]])
        whole = _take(tf.concat([cells, _take(flat, layout.others)], 1), layout.back)
        last = tf.reshape(whole, tf.shape(tf.transpose(output, _channel_last(output, layout))))
        return tf.transpose(last, np.argsort(_channel_last(output, layout)))

    def compute_output_spec(self, values: Any) -> Any:
        """Like the layer's output."""
        return keras.KerasTensor(values[0].shape, values[0].dtype)


def show_map(model: Any, layer: Any, layout: Layout) -> tuple[Any, Any]:
    """A functional model of two parts with a map between them: up to the layer, and from there on.

    The layers in both parts are those of the model, on which no mark is left.

    Raises:
        LayerError: The layer is not at the top of a functional or Sequential model, or is called several times.
    """
    if not is_graph(model) or not any(layer is one for one in model.layers):
        raise LayerError(
            f"Layer {getattr(layer, 'name', layer)!r} is not at the top of a functional model, so its tokens cannot be "
            f"shown as a map there. Pass translator='bridge', which runs any model inside a functional one."
        )
    graph = model._functional if isinstance(model, keras.Sequential) else model
    nodes = [node for nodes in graph._nodes_by_depth.values() for node in nodes if node.operation is layer]
    if len(nodes) != 1 or len(nodes[0].output_tensors) != 1:
        raise LayerError(f"Layer {layer.name!r} is called {len(nodes)} times, or gives several tensors.")
    activation = nodes[0].output_tensors[0]
    front = keras.Model(model.inputs, activation, name="front")
    rest = _from(model, graph, activation)
    inputs = [keras.Input(batch_shape=one.shape, dtype=one.dtype) for one in model.inputs]
    output = front(inputs[0] if len(inputs) == 1 else inputs)
    shown = Map(layout, f"{layer.name}_map")
    whole = Unmap(layout, f"{layer.name}_unmap")([output, shown(output)])
    outputs = rest([*inputs, whole])
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs, name=model.name), shown


def _from(model: Any, graph: Any, activation: Any) -> Any:
    """The model from an activation on, besides its inputs; what Keras notes of that on its layers is forgotten."""
    marked = [(one, len(one._inbound_nodes), len(one._outbound_nodes)) for one in graph.operations]
    histories = [(tensor, tensor._keras_history) for tensor in model.inputs]
    try:
        return keras.Model([*model.inputs, activation], graph._outputs_struct, name="rest")
    finally:
        for one, inbound, outbound in marked:
            del one._inbound_nodes[inbound:], one._outbound_nodes[outbound:]
        for tensor, history in histories:
            tensor._keras_history = history


def _take(flat: Any, positions: tuple[int, ...]) -> Any:
    return tf.gather(flat, tf.constant(positions, tf.int32), axis=1)


def _positions(output: Any, layout: Layout) -> Any:
    last = tf.transpose(output, _channel_last(output, layout))
    return tf.reshape(last, [-1, len(layout.order) + len(layout.others), output.shape[layout.channel]])


def _channel_last(output: Any, layout: Layout) -> list[int]:
    return [*(axis for axis in range(len(output.shape)) if axis != layout.channel), layout.channel]
