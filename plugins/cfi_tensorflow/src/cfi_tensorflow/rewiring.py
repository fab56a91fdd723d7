"""Graphs of Keras layers over other inputs, without a trace on the layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import tensorflow as tf
from keras.src.ops.node import Node  # has no public name

NOTHING: Mapping[Any, Any] = MappingProxyType({})
_OF = "_cfi_stands_for"
_REAL = "cfi_real"


Exchange = tuple[Any, Mapping[str, Any]]
"""A layer to call in the place of another one, and further arguments by name."""


def rewire(
    model: keras.Model, inputs: Sequence[Any], values: Mapping[int, Any], exchange: Mapping[int, Exchange] = NOTHING
) -> keras.Model:
    """The graph of a functional model with other tensors in some places.

    Layers are called anew, which would leave a mark on them. So stand-ins are called, which share with a layer all that
    it holds (weights, settings, layers inside), have its name, and have marks of their own.

    Args:
        model: Functional.
        inputs: Symbolic tensors that the new model takes.
        values: For the inputs of the model, and for any other tensors of its graph, by their identities: the tensors
            that take their places.
        exchange: For calls of the graph, by their identities, what is called instead.
    """
    known, stand_ins = dict(values), dict[int, Any]()
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                _call(node, known, stand_ins, exchange.get(id(node)))
    outputs = keras.tree.map_structure(lambda tensor: known[id(tensor)], model._outputs_struct)
    return keras.Model(one_or_all(inputs), outputs, name=model.name)


def _call(node: Any, known: dict[int, Any], stand_ins: dict[int, Any], exchange: Exchange | None) -> None:
    """The same call of a stand-in: what it gives is known to be of the same shapes and types."""
    operation = node.operation
    layer, more = exchange or (stand_ins.setdefault(id(operation), stand_in(operation)), NOTHING)
    args, kwargs = node.arguments.fill_in(known)
    made = [keras.KerasTensor(tensor.shape, dtype=tensor.dtype, name=tensor.name) for tensor in node.outputs]
    Node(operation=layer, call_args=args, call_kwargs={**kwargs, **more}, outputs=made)
    for tensor, one in zip(node.outputs, made, strict=True):
        known.setdefault(id(tensor), one)


def stand_in(operation: Any) -> Any:
    """An operation that computes the same with the same weights, and was never called."""
    made = object.__new__(type(operation))
    vars(made).update(vars(operation))
    vars(made).update({"_inbound_nodes": [], "_outbound_nodes": [], _OF: stands_for(operation)})
    return made


def view(layer: Any, call: Any, signature: inspect.Signature | None = None) -> Any:
    """The layer in a class derived from its own, which calls it in another way: all that it holds is shared.

    Args:
        layer: A layer or a subclassed model.
        call: Its `call`, as a function of the layer and its arguments.
        signature: What Keras is to think that it takes; its own otherwise.
    """
    kind = type(layer)
    derived = type(kind.__name__, (kind,), {"call": call, "__module__": kind.__module__})
    made = stand_in(layer)
    made.__class__ = derived
    signature = signature or inspect.signature(made.call)
    vars(made)["_call_signature"] = signature
    vars(made)["call_signature_parameters"] = [*signature.parameters]
    return made


def extend(layer: Any, name: str, call: Callable[[Callable[[], Any], Any], Any]) -> Any:
    """A layer of a graph as one that takes a further argument by name.

    Args:
        layer: The layer.
        name: Of the argument.
        call: From what makes the layer's own call, and the argument, to what the layer gives.
    """
    kind: Any = type(layer)

    def convert(value: Any) -> Any:
        return made.dtype_policy.convert_input(value, made.autocast, made.input_dtype)

    def call_both(self: Any, *args: Any, **kwargs: Any) -> Any:
        further = kwargs.pop(name)
        if layer._convert_input_args:
            args, kwargs = keras.tree.map_structure(convert, (args, kwargs))
        return call(lambda: kind.call(self, *args, **kwargs), further)

    own = [*inspect.signature(layer.call).parameters.values()]
    extra = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
    place = len(own) - any(one.kind is one.VAR_KEYWORD for one in own)
    made = view(layer, call_both, inspect.Signature([*own[:place], extra, *own[place:]]))
    vars(made)["_convert_input_args"] = False  # by Keras, the argument would take the type of the others
    return made


def stands_for(operation: Any) -> Any:
    """The operation of the user's that another one stands for; itself if it is none."""
    return vars(operation).get(_OF, operation)


def like(tensor: Any) -> Any:
    """A symbolic input of the same shape, type and name."""
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)


def one_or_all(values: Sequence[Any]) -> Any:
    """As Keras takes one input, or several."""
    return values[0] if len(values) == 1 else list(values)


class Held(keras.layers.Layer):
    """Gives one sample, as often as there are rows in what it is called with."""

    def __init__(self, value: Any, name: str) -> None:
        super().__init__(name=name, autocast=False, trainable=False)
        self.value = value
        self.built = True

    def call(self, like: Any) -> Any:
        """The value, repeated."""
        return repeat(self.value, like)

    def compute_output_spec(self, like: Any) -> Any:
        """Of any number of samples."""
        return keras.KerasTensor((None, *self.value.shape[1:]), dtype=self.value.dtype.name)


def repeat(value: Any, like: Any) -> Any:
    """A tensor of one sample for as many as another one has; anything else as it is."""
    if not isinstance(value, tf.Tensor) or value.shape[:1] != (1,):
        return value
    return tf.repeat(value, tf.shape(like)[0], axis=0)


def bind_graph(model: keras.Model, held: Sequence[Any]) -> keras.Model:
    """The graph with constants in the place of its last inputs."""
    count = len(model.inputs) - len(held)
    inputs = [like(tensor) for tensor in model.inputs[:count]]
    constants = [Held(value, f"held_{i}")(inputs[0]) for i, value in enumerate(held)]
    pairs = zip(model.inputs, [*inputs, *constants], strict=True)
    return rewire(model, inputs, {id(tensor): value for tensor, value in pairs})


class Whole(keras.layers.Layer):
    """Makes whole numbers of floating point ones that hold such."""

    def __init__(self, dtype: str, name: str) -> None:
        super().__init__(name=name, autocast=False, trainable=False)
        self.whole = dtype
        self.built = True

    def call(self, values: Any) -> Any:
        """The same numbers in their own type."""
        return tf.cast(values, self.whole)

    def compute_output_spec(self, values: Any) -> Any:
        """Of the same shape."""
        return keras.KerasTensor(values.shape, dtype=self.whole)


def with_real_inputs(model: keras.Model, layers: Sequence[str]) -> keras.Model:
    """The graph with floating point inputs in the place of those of whole numbers, which become such inside.

    Gradients at these layers exist whatever lies before them: what they give is known to depend on the inputs, to
    whoever records only what does, with a gradient of zero.
    """
    whole = {i for i, tensor in enumerate(model.inputs) if not tf.as_dtype(tensor.dtype).is_floating}
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype="float32" if i in whole else tensor.dtype, name=tensor.name)
        for i, tensor in enumerate(model.inputs)
    ]
    values = {
        id(tensor): Whole(tensor.dtype, f"whole_{i}")(inputs[i]) if i in whole else inputs[i]
        for i, tensor in enumerate(model.inputs)
    }
    further = {_REAL: inputs[min(whole)]} if whole else {}
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes if whole and not node.is_input]
    chosen = [node for node in nodes if node.operation.name in layers and isinstance(node.operation, keras.Layer)]
    views = {id(node.operation): extend(node.operation, _REAL, _tie) for node in chosen}
    return rewire(model, inputs, values, {id(node): (views[id(node.operation)], further) for node in chosen})


def _tie(plain: Callable[[], Any], real: Any) -> Any:
    """What a layer gives, as if it depended on the real input."""
    output = plain()
    if not isinstance(output, tf.Tensor) or not output.dtype.is_floating:
        return output

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def tied(value: Any, like: Any) -> Any:
        return tf.identity(value), lambda gradient: (gradient, tf.zeros_like(like))

    return tied(output, real)
