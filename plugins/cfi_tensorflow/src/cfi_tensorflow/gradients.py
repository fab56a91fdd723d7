"""The gradient of a graph function as two functions: one forward, which also gives what the other, backward, needs.

A tape around a graph function does the same, but fills a tensor of zeros for every one of the values that pass from one
to the other (hundreds in a deep network, each as large as an activation) and adds it to their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.python.eager import wrap_function
from tensorflow.python.framework.func_graph import FuncGraph

from cfi_core.turns import Lock

# Their gradients change the forward operation itself, so that a graph cannot be cut there afterwards.
_CALLING = frozenset(
    {"While", "StatelessWhile", "If", "StatelessIf", "Case", "PartitionedCall", "StatefulPartitionedCall"}
)


def _relu_gradient(operation: Any, gradient: Any) -> Any:
    """TensorFlow's own from a mask: a quarter of the memory of activations, which are most of what is kept.

    A product is what TensorFlow computes, too, in half the time of a choice. A pooling keeps the activation anyway.
    """
    (result,) = operation.outputs
    if any(user.type == "MaxPool" for user in result.consumers()):
        return tf.raw_ops.ReluGrad(gradients=gradient, features=result)
    return gradient * tf.cast(result > 0, gradient.dtype)


def _relu6_gradient(operation: Any, gradient: Any) -> Any:
    result = operation.outputs[0]
    return gradient * tf.cast((result > 0) & (result < 6), gradient.dtype)


def _max_pool_gradient(operation: Any, gradient: Any) -> Any:
    """TensorFlow's own beside the pooling itself, done once more: alone it takes ten times as long on a processor.

    There the two share what oneDNN writes down in the forward pass: which value of a window was the largest.
    """
    names = ("ksize", "strides", "padding", "explicit_paddings", "data_format")
    settings = {name: operation.get_attr(name) for name in names}
    settings |= {name: settings[name].decode() for name in ("padding", "data_format")}
    (values,) = operation.inputs
    again = tf.raw_ops.MaxPool(input=values, **settings)
    return tf.raw_ops.MaxPoolGrad(orig_input=values, orig_output=again, grad=gradient, **settings)


# The gradients that take the place of TensorFlow's in a split graph, by type of operation.
_OWN = {"Relu": "CfiReluByMask", "Relu6": "CfiRelu6ByMask", "MaxPool": "CfiMaxPoolAgain"}
tf.RegisterGradient("CfiReluByMask")(_relu_gradient)
tf.RegisterGradient("CfiRelu6ByMask")(_relu6_gradient)
tf.RegisterGradient("CfiMaxPoolAgain")(_max_pool_gradient)


@dataclass(frozen=True, eq=False)
class Split:
    """Forward and backward.

    Attributes:
        forward: From the inputs to the outputs, followed by what is needed backward.
        outputs: How many of its results are outputs.
        backward: For marks of the inputs whose gradients are wanted: from the inputs, what is needed, and cotangents of
            the floating point outputs, to the gradients (None: no influence).
    """

    forward: Callable[..., list[Any]]
    outputs: int
    backward: Callable[[tuple[bool, ...]], Callable[..., list[Any | None]]]


def calls_functions(graph: Any) -> bool:
    """Whether the graph has loops, branches or calls of other functions."""
    return any(operation.type in _CALLING for operation in graph.get_operations())


def split(function: Any, count: int) -> Split | None:
    """Splits the gradient of a graph function; None where it calls functions (loops, branches).

    Args:
        function: Has a graph of its own that can be pruned (`WrappedFunction`); its gradient is added to the graph.
        count: How many of its inputs are arguments.
    """
    if calls_functions(function.graph):
        return None
    graph, inputs, outputs = function.graph, list(function.inputs[:count]), list(function.outputs)
    forward_operations = {operation.name for operation in graph.get_operations()}
    for operation in graph.get_operations():
        if operation.type in _OWN and "_gradient_op_type" not in operation.node_def.attr:
            # As `Graph.gradient_override_map` does for operations that are yet to be made.
            operation._set_attr("_gradient_op_type", AttrValue(s=_OWN[operation.type].encode()))
    floating = [value for value in inputs if value.dtype.is_floating]
    with graph.as_default():
        differentiable = [output for output in outputs if output.dtype.is_floating]
        seeds = [tf.compat.v1.placeholder(output.dtype, output.shape) for output in differentiable]
        found = tf.gradients(differentiable, floating, seeds) if floating and differentiable else []
        # A gradient may be a cotangent itself, and cannot be fed and fetched at once.
        found = [None if gradient is None else tf.identity(tf.convert_to_tensor(gradient)) for gradient in found]
    by_input = dict(zip([id(value) for value in floating], found, strict=False))
    gradients = [by_input.get(id(value)) for value in inputs]
    needed = _reach([one for one in found if one is not None], _compute(graph, inputs, seeds, forward_operations))
    # All results of an operation or none: pruning cannot both cut an operation off and compute it.
    needed = list({output.name: output for tensor in needed for output in tensor.op.outputs}.values())
    forward = cut(function, inputs, [*outputs, *needed])
    feeds = [*inputs, *needed, *seeds]
    kept = {(True,) * count: _prune(function, feeds, gradients)}

    lock = Lock()  # the graph is shared by all that is pruned from it

    def backward(wanted: tuple[bool, ...]) -> Callable[..., list[Any | None]]:
        with lock:
            if wanted not in kept:
                chosen = [gradient if mark else None for gradient, mark in zip(gradients, wanted, strict=True)]
                kept[wanted] = _prune(function, feeds, chosen)
            return kept[wanted]

    return Split(lambda *values: call(forward, values), len(outputs), backward)


def cut(function: Any, feeds: Sequence[Any], fetches: Sequence[Any]) -> Any:
    """The function from some tensors of a graph to others.

    `WrappedFunction.prune` copies a graph operation by operation, in Python; where nothing is called, its definition
    can be read back at once instead.
    """
    graph, captured = function.graph, {inner.name: outer for outer, inner in function.graph.captures}
    feeds = [feed for feed in feeds if feed.name not in captured]
    if calls_functions(graph):
        return function.prune(feeds, list(fetches))
    piece = FuncGraph("piece")
    with piece.as_default():
        given = {feed.name: tf.compat.v1.placeholder(feed.dtype, feed.shape) for feed in feeds}
        definition, used = _between(graph, {*given, *captured}, fetches)
        held = {name: piece.capture(outer) for name, outer in captured.items() if name in used}
        ends = [fetch.name for fetch in fetches if fetch.name not in given]
        known = {name: value for name, value in {**given, **held}.items() if name in used}
        made = dict(zip(ends, tf.graph_util.import_graph_def(definition, known, ends, name=""), strict=True))
    piece.inputs = [*given.values(), *held.values()]
    piece.outputs = [made[fetch.name] if fetch.name in made else given[fetch.name] for fetch in fetches]
    piece.structured_outputs = list(piece.outputs)
    piece.structured_input_signature = None
    piece.variables = graph.variables
    made_of = wrap_function.WrappedFunction(piece, variable_holder=wrap_function.VariableHolder())
    made_of._num_positional_args = len(given)  # as `prune` leaves it
    made_of._arg_keywords = [one.op.name for one in given.values()]
    return made_of


def _between(graph: Any, sources: set[str], fetches: Sequence[Any]) -> tuple[Any, set[str]]:
    """The definition of the operations that lie between, and the sources that they use."""
    needed: set[str] = set()
    used: set[str] = set()
    waiting = [fetch for fetch in fetches if fetch.name not in sources]
    while waiting:
        operation = waiting.pop().op
        if operation.name in needed:
            continue
        needed.add(operation.name)
        used.update(one.name for one in operation.inputs if one.name in sources)
        waiting.extend(one for one in operation.inputs if one.name not in sources)
        waiting.extend(one.outputs[0] for one in operation.control_inputs if one.outputs)
    whole = graph.as_graph_def()
    definition = type(whole)(versions=whole.versions)
    for node in whole.node:
        if node.name in needed:
            kept = definition.node.add()
            kept.CopyFrom(node)
            del kept.input[:]
            kept.input.extend(one for one in node.input if not one.startswith("^") or one[1:] in needed)
            kept.attr.pop("_class", None)  # where the operation is to lie: beside one that may not be there
    return definition, used


def _prune(function: Any, feeds: Sequence[Any], fetches: Sequence[Any | None]) -> Callable[..., list[Any | None]]:
    """From values of the feeds to values of the fetches."""
    wanted = [fetch for fetch in fetches if fetch is not None]
    pruned = cut(function, feeds, wanted) if wanted else None

    def pull(*values: Any) -> list[Any | None]:
        results = iter(call(pruned, values) if pruned is not None else ())
        return [None if fetch is None else next(results) for fetch in fetches]

    return pull


def call(function: Any, values: Sequence[Any]) -> list[Any]:
    """Calls a pruned function by position.

    Its public call binds names, which are those of operations: two results of one operation would have the same.
    """
    return list(function._call_flat(list(values), captured_inputs=function.captured_inputs))


def _compute(graph: Any, inputs: Sequence[Any], seeds: Sequence[Any], forward_operations: set[str]) -> list[Any]:
    """Tensors that the forward pass computes, or can, from the inputs.

    The gradient asks for the shapes of many tensors, and for masks. They are taken forward, so that no tensor is kept
    for its shape or its sign.
    """
    forward = {value.op.name for value in inputs}
    backward = {value.op.name for value in seeds}
    computed = []
    for operation in graph.get_operations():
        sources = {value.op.name for value in operation.inputs}
        if operation.name not in forward_operations and (
            sources & backward or (sources and any(value.dtype.is_floating for value in operation.outputs))
        ):
            backward.add(operation.name)
        elif sources & forward:
            forward.add(operation.name)
            computed.extend(operation.outputs)
    return computed


def _reach(tensors: Sequence[Any], stops: Sequence[Any]) -> list[Any]:
    """Those of the stops that one comes upon first, going back from the tensors."""
    ends = {stop.ref() for stop in stops}
    found: dict[Any, Any] = {}
    seen: set[str] = set()
    waiting = list(tensors)
    while waiting:
        tensor = waiting.pop()
        if tensor.ref() in ends:
            found[tensor.ref()] = tensor
        elif tensor.op.name not in seen:
            seen.add(tensor.op.name)
            waiting.extend(tensor.op.inputs)
    return list(found.values())
