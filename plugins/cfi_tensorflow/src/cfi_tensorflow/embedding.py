"""Keras models from the output of their embedding on."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cfi_core.errors import InputError
from cfi_tensorflow.rewiring import extend, like, rewire, view

_CALL = "call"
_GIVEN = "cfi_activation"

Layers = Sequence[tuple[str, Any]]
Run = Callable[[Sequence[Any]], Any]


@dataclass(eq=False)
class Call:
    """A call of a layer that makes a vector of each token.

    Attributes:
        name: The layer's.
        number: Which of the calls of this layer that take whole numbers it is.
        output: What it gave.
    """

    name: str
    number: int
    output: Any = field(repr=False)


def find_embedding(run: Run, layers: Layers, inputs: Sequence[Any], layer: str | None = None) -> Call | None:
    """The call of the innermost layer that turns the first input into vectors; None if there is none, or several.

    A layer that is called again, on something else (the decoder's tokens, the vectors on their way back to tokens),
    turns these into vectors by another call.

    Args:
        run: Runs the model.
        layers: All its layers by name, those inside of others too.
        inputs: What it takes; the first one are the tokens.
        layer: The one it is, where that is known.
    """
    found = _calls_on(run, layers, inputs)
    if layer is not None:
        return next((call for call in found if call.name == layer), None)
    if len(found) > 1:
        # Something else may hold the same numbers as the tokens, such as positions; of others it does not.
        tokens = np.asarray(inputs[0])
        others = tf.constant((tokens.max() + tokens.min() - tokens).astype(tokens.dtype))
        again = {(call.name, call.number) for call in _calls_on(run, layers, [others, *inputs[1:]])}
        found = [call for call in found if (call.name, call.number) in again]
    plain = [call for call in found if isinstance(dict(layers)[call.name], keras.layers.Embedding)]
    for some in (found, plain):
        if len(some) == 1:
            return some[0]
    return None


def _calls_on(run: Run, layers: Layers, inputs: Sequence[Any]) -> list[Call]:
    """The innermost calls on the tokens that give vectors."""
    tokens, found = np.asarray(inputs[0]), list[Call]()
    numbers: dict[str, int] = {}
    inside: list[bool] = []  # for each call that is going on, whether one of those inside of it was found

    def see(name: str, call: Callable[[], Any], args: Any) -> Any:
        number = numbers.get(name, 0)
        numbers[name] = number + _takes_whole_numbers(args)
        inside.append(False)
        output = call()
        has_inner = inside.pop()
        is_one = not has_inner and _is(args, tokens) and _is_vectors(output, tokens)
        if is_one:
            found.append(Call(name, number, output))
        if inside:
            inside[-1] |= is_one or has_inner
        return output

    with _around(layers, see):
        run(inputs)
    return found


def from_embedding(model: keras.Model, graph: Any, layer: Any, outer: Any, number: int, rank: int, width: int) -> Any:
    """The model with the output of an embedding in front of its inputs.

    Args:
        model: The model.
        graph: Its graph of layers; None of a subclassed one.
        layer: The layer that embeds.
        outer: The layer of the graph that holds it, or is it.
        number: Which of its calls on whole numbers counts.
        rank: Axes of what it gives.
        width: Size of the last of these.
    """
    if graph is None:
        return _view_from(model, layer, number)
    tokens, node = graph.inputs[0], _node(graph, outer, number if outer is layer else 0, rank)
    if node is None:
        return None
    sizes = (None,) * rank if tokens.shape is None else (*tokens.shape, width)
    dtype = node.outputs[0].dtype if outer is layer else layer.compute_dtype
    given = keras.Input(batch_shape=(None, *sizes[1:]), dtype=dtype, name="embedded")
    inputs = [like(tensor) for tensor in graph.inputs]
    values = {id(tensor): value for tensor, value in zip(graph.inputs, inputs, strict=True)}
    if outer is layer:
        return rewire(graph, [given, *inputs], {**values, id(node.outputs[0]): given})
    return rewire(graph, [given, *inputs], values, {id(node): (_part_from(outer, layer, number), {_GIVEN: given})})


def _node(graph: Any, outer: Any, number: int, rank: int) -> Any | None:
    """The call of a layer in a graph that takes the tokens."""
    nodes = [node for nodes in graph._nodes_by_depth.values() for node in nodes if node.operation is outer]
    on_tokens = [node for node in nodes if any(one is graph.inputs[0] for one in node.input_tensors)]
    whole = [node for node in nodes if node.input_tensors and not _is_floating(node.input_tensors[0])]
    some = on_tokens or whole
    return some[0] if len(some) == 1 else None


def _part_from(outer: Any, layer: Any, number: int) -> Any:
    """A layer of a graph as one that takes the output of a layer inside as a further argument."""

    def call(plain: Callable[[], Any], activation: Any) -> Any:
        with _in_its_place(layer, number, activation):
            return plain()

    return extend(outer, _GIVEN, call)


def _view_from(model: keras.Model, layer: Any, number: int) -> Any:
    """A subclassed model as one that takes the output of a layer inside in front of its inputs."""
    kind: Any = type(model)

    def call(self: Any, activation: Any, *inputs: Any, **kwargs: Any) -> Any:
        with _in_its_place(layer, number, activation):
            return kind.call(self, *inputs, **kwargs)

    return view(model, call)


@contextmanager
def _in_its_place(layer: Any, number: int, activation: Any) -> Iterator[None]:
    """Puts an activation in the place of what one of a layer's calls on whole numbers gives."""
    count, used = 0, False

    def see(_name: str, call: Callable[[], Any], args: Any) -> Any:
        nonlocal count, used
        is_one = _takes_whole_numbers(args) and count == number
        count += _takes_whole_numbers(args)
        output = call()
        if not is_one:
            return output
        used = True
        mask = keras.src.backend.get_keras_mask(output)
        if mask is None:
            return activation
        taken = tf.identity(activation)
        keras.src.backend.set_keras_mask(taken, mask)
        return taken

    with _around([("", layer)], see):
        yield
    if not used:
        raise InputError(
            f"The model does not give its tokens to layer {layer.name!r} in this pass. Explain a layer instead."
        )


@contextmanager
def _around(layers: Layers, see: Callable[[str, Callable[[], Any], Any], Any]) -> Iterator[None]:
    """Lets `see` make each call of these layers in this thread; calls in others go on as they are."""
    undo: list[tuple[dict[str, Any], Mapping[str, Any]]] = []
    try:
        for name, layer in layers:
            own: dict[str, Any] = layer.__dict__
            undo.append((own, {_CALL: own[_CALL]} if _CALL in own else {}))
            own[_CALL] = _seen(layer.call, name, see)  # past the layer's __setattr__, which would track it
        yield
    finally:
        for own, former in reversed(undo):
            own.pop(_CALL, None)
            own.update(former)


def _seen(call: Callable[..., Any], name: str, see: Callable[[str, Callable[[], Any], Any], Any]) -> Callable[..., Any]:
    thread = threading.get_ident()

    @functools.wraps(call)
    def made(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return call(*args, **kwargs)
        return see(name, lambda: call(*args, **kwargs), (args, kwargs))

    return made


def _first(args: Any) -> Any | None:
    tensors = [one for one in keras.tree.flatten(args) if isinstance(one, tf.Tensor)]
    return tensors[0] if tensors else None


def _takes_whole_numbers(args: Any) -> bool:
    first = _first(args)
    return first is not None and bool(first.dtype.is_integer)


def _is(args: Any, tokens: np.ndarray) -> bool:
    first = _first(args)
    if first is None or tf.is_symbolic_tensor(first) or not first.dtype.is_integer:
        return False
    if tuple(first.shape) != tokens.shape:
        return False
    return bool(np.array_equal(np.asarray(first), tokens))


def _is_vectors(output: Any, tokens: np.ndarray) -> bool:
    return isinstance(output, tf.Tensor) and output.dtype.is_floating and tuple(output.shape[:-1]) == tokens.shape


def _is_floating(tensor: Any) -> bool:
    return "float" in str(tensor.dtype)
