"""TensorFlow models as one graph: traced for any number of samples, open at named tensors.

A graph shares the model's variables, or is frozen (variables become constants): for a snapshot of the weights, and
where it calls functions, which freezing inlines, so that what they compute can be seen and replaced.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import wrap_function  # the public wrap_function traces anew, in TensorFlow 1's manner
from tensorflow.python.framework import ops  # the only place where a registered gradient can be looked up
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from cfi_core.framework import flatten, map_structure
from cfi_tensorflow.gradients import calls_functions, cut
from cfi_tensorflow.outputs import dense, same, seeds

MOST_FROZEN_BYTES = 10**9
"""Above this a model is not frozen: a graph with its constants must stay below protobuf's two gigabytes."""

_numbers = itertools.count()
_TAP = re.compile(r"(?:^|/)cfi_tap(\d+)x(?:_\d+)?$")
_CALLS = re.compile(r"^(?:Func|(?:Stateful)?PartitionedCall(?:_\d+)?)$")
_UNINTERESTING = frozenset(
    {"Placeholder", "Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "ReadVariableOp"}
)
_GRADIENT = "_gradient_op_type"
_CUSTOM = "CustomGradient"
_WRAPPERS = 3  # at the most, which TensorFlow puts around the gradient function
_SOFTMAXES = frozenset({"Softmax", "LogSoftmax"})
_PASSING = frozenset(
    {"Identity", "StopGradient", "PreventGradient", "Snapshot", "Reshape", "Squeeze", "ExpandDims", "Cast"}
)


@dataclass(frozen=True, eq=False)
class Trace:
    """A model as a graph.

    Attributes:
        function: The graph; it can be pruned to what lies between any of its tensors.
        inputs: Symbolic inputs.
        outputs: Symbolic outputs in the structure that the model returns.
        taps: Symbolic tensors that can be read and replaced, by name, in the order in which they are computed.
        repeated: Names that were to be tapped and are computed more than once.
        differentiable: Whether a part of the graph has the gradient that it has in the model. A gradient of the user's
            own (`tf.custom_gradient`) is lost where a graph is cut.
    """

    function: Any
    inputs: tuple[Any, ...]
    outputs: Any
    taps: Mapping[str, Any]
    repeated: frozenset[str] = frozenset()
    differentiable: bool = True

    def between(self, feeds: Sequence[Any], fetches: Sequence[Any]) -> Callable[..., list[Any]]:
        """The function that computes some tensors of the graph from others."""
        return _independent(cut(self.function, feeds, fetches))

    def call(self, inputs: Sequence[Any]) -> Any:
        """The outputs, in the structure that the model returns."""
        values = iter(self.between(self.inputs, flatten(self.outputs))(*inputs))
        return map_structure(lambda _: next(values), self.outputs)

    def agrees(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
        """Whether the graph computes these outputs."""
        try:
            return same(flatten(self.call(inputs)), outputs)
        except tf.errors.OpError:
            return False

    def activations(self, inputs: Sequence[Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Values of the taps."""
        chosen = self._select(names)
        if not chosen:
            return {}
        return dict(zip(chosen, self.between(self.inputs, list(chosen.values()))(*inputs), strict=True))

    def gradients(
        self, inputs: Sequence[Any], cotangents: Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Gradients of `sum(output * cotangent)` at the taps of floating point type."""
        chosen = {name: tap for name, tap in self._select(names).items() if tap.dtype.is_floating}
        outputs, weights = seeds(flatten(self.outputs), cotangents)
        if not chosen or not outputs:
            return {}
        # In a copy, because gradients of loops change the loops.
        copy: Any = self.between(self.inputs, [*outputs, *chosen.values()])

        def pull_back(*values: Any) -> list[Any]:
            given, weights = values[: len(self.inputs)], values[len(self.inputs) :]
            held = {inner.name: outer for outer, inner in copy.graph.captures}
            held.update((symbolic.name, value) for symbolic, value in zip(copy.inputs, given, strict=False))
            results = [tensor.name for tensor in copy.outputs]
            found = tf.graph_util.import_graph_def(copy.graph.as_graph_def(), held, results, name="")
            ends, taps = found[: len(weights)], found[len(weights) :]
            gradients = tf.gradients(ends, taps, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return [tf.convert_to_tensor(gradient) for gradient in gradients]

        return dict(zip(chosen, tf.function(pull_back, autograph=False)(*inputs, *weights), strict=True))

    def without_softmax(self) -> Trace | None:
        """The same graph with the input of each softmax that makes an output in its place; None if there is none.

        What only passes the softmax's result on (a reshape, a cast, a tap) is done to the logits instead.
        """
        moved: dict[str, Any] = {}
        found = False

        def logits(output: Any) -> Any:
            nonlocal found
            chain = []
            tensor = output
            while tensor.op.type in _PASSING:
                chain.append(tensor)
                tensor = tensor.op.inputs[0]
            if tensor.op.type not in _SOFTMAXES or not tensor.dtype.is_floating:
                return output
            found = True
            result = tf.identity(tensor.op.inputs[0])
            for passed in [tensor, *reversed(chain)]:
                result = _pass_on(passed, result)
                for name, tap in self.taps.items():
                    if tap is passed:
                        moved[name] = result = tf.identity(result)
            return tf.identity(result)

        with self.function.graph.as_default():
            outputs = map_structure(logits, self.outputs)
        return replace(self, outputs=outputs, taps={**self.taps, **moved}) if found else None

    def _select(self, names: Sequence[str] | None) -> dict[str, Any]:
        return {name: tap for name, tap in self.taps.items() if names is None or name in names}


def trace(
    call: Callable[[Sequence[Any]], Any],
    specs: Sequence[tf.TensorSpec],
    names: Callable[[], Sequence[str]] | None = None,
    *,
    snapshot: bool = True,
) -> Trace:
    """Traces a model.

    Args:
        call: Runs the model on symbolic inputs.
        specs: Types and shapes of the inputs.
        names: Says, after `call`, the name that belongs to each number that `tap` was given; None takes the floating
            point operations of the graph for taps.
        snapshot: The graph shall hold the weights as they are now. Otherwise it shares the model's variables, if it
            calls no functions: frozen, each function that is cut out of the graph holds the weights once more.

    Raises:
        Exception: Whatever the model raises that cannot be run on symbolic inputs.
    """
    skeletons: list[Any] = []

    def flat(*inputs: Any) -> tuple[Any, ...]:
        outputs = dense(call(inputs))
        leaves = flatten(outputs)
        positions = iter(range(len(leaves)))
        skeletons.append(map_structure(lambda _: next(positions), outputs))
        graph = tf.compat.v1.get_default_graph()
        # Fetched too, so that freezing keeps taps which the outputs do not depend on.
        taps = [operation.outputs[0] for operation in graph.get_operations() if _TAP.search(operation.name)]
        return (*leaves, *taps)

    concrete = tf.function(flat, autograph=False).get_concrete_function(*specs)
    function = _flat(concrete, len(specs), snapshot=snapshot)
    outputs = map_structure(lambda position: function.outputs[position], skeletons[-1])
    inputs = tuple(function.inputs[: len(specs)])
    differentiable = not _has_own_gradients(function.graph) and not _calls_compiled(function.graph)
    if names is None:
        return Trace(function, inputs, outputs, _operations(function.graph, inputs), differentiable=differentiable)
    taps, repeated = _taps(function.graph, names())
    return Trace(function, inputs, outputs, taps, repeated, differentiable)


def tap(value: Any, number: int) -> Any:
    """A tensor of the graph that is being traced, marked as one to find in the finished graph."""
    return tf.identity(value, name=f"cfi_tap{number}x")


def open_batch(tensors: Sequence[Any]) -> list[tf.TensorSpec]:
    """Types and shapes of the tensors, for any number of samples."""
    return [
        tf.TensorSpec([None, *value.shape[1:]] if value.shape.rank else value.shape, value.dtype) for value in tensors
    ]


def _flat(concrete: Any, arguments: int, *, snapshot: bool) -> Any:
    """The function without calls of others, if it can be had so."""
    if snapshot or calls_functions(concrete.graph):
        frozen = _freeze(concrete, arguments)
        if frozen is not None:
            return frozen
    return wrap_function.WrappedFunction(concrete.graph, variable_holder=wrap_function.VariableHolder())


def _freeze(concrete: Any, arguments: int) -> Any:
    """The function with constants for its variables; None where it is too large or cannot be frozen."""
    size = sum(variable.dtype.size * (variable.shape.num_elements() or 0) for variable in concrete.graph.variables)
    if size <= MOST_FROZEN_BYTES:
        try:
            with _quiet():
                frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
        except Exception:  # noqa: BLE001 - it fails in many ways (tables, assignments); then the variables are shared
            pass
        else:
            if len(frozen.inputs) == arguments:
                return frozen
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the converter's warnings about collections of TensorFlow 1, of which nothing here depends."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _calls_compiled(graph: Any) -> bool:
    """Whether functions are left that cannot be inlined (compiled by XLA), and with them gradients of the model."""
    return any(operation.type in ("PartitionedCall", "StatefulPartitionedCall") for operation in graph.get_operations())


def _has_own_gradients(graph: Any) -> bool:
    """Whether an operation has another gradient than its kind has; drops that of swish, which only saves memory."""
    for operation in graph.get_operations():
        name = operation.node_def.attr[_GRADIENT].s.decode() if _GRADIENT in operation.node_def.attr else ""
        if name.startswith(_CUSTOM):
            if not _is_of_swish(name):
                return True
            operation._clear_attr(_GRADIENT)
    return any(
        node.attr[_GRADIENT].s.decode().startswith(_CUSTOM)
        for function in graph.as_graph_def().library.function
        for node in function.node_def
        if _GRADIENT in node.attr
    )


def _is_of_swish(name: str) -> bool:
    try:
        function = ops.gradient_registry.lookup(name)
    except LookupError:
        return False
    for _ in range(_WRAPPERS):
        inner = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
        function = inner.get("tape_grad_fn", inner.get("grad_fn"))
        if getattr(function, "__module__", "") == "tensorflow.python.ops.nn_impl":
            return function.__qualname__.startswith("swish.")
    return False


def _independent(function: Any) -> Any:
    """The same function, with bodies of loops and branches of its own.

    For its gradient TensorFlow rewrites them under names made of theirs, and refuses to do so for two functions.
    """
    if function.graph.captures or not calls_functions(function.graph):
        return function
    names = [[tensor.name for tensor in tensors] for tensors in (function.inputs, function.outputs)]
    return wrap_function.function_from_graph_def(_rename(function.graph.as_graph_def()), *names)


def _rename(definition: Any) -> Any:
    """The graph with new names for the functions in it."""
    suffix = f"_cfi{next(_numbers)}"
    functions = definition.library.function
    names = {function.signature.name for function in functions}
    for node in [*definition.node, *(node for function in functions for node in function.node_def)]:
        node.op += suffix if node.op in names else ""
        for value in node.attr.values():
            for called in [value.func] if value.HasField("func") else value.list.func:
                called.name += suffix if called.name in names else ""
    for function in functions:
        function.signature.name += suffix
    for gradient in definition.library.gradient:
        gradient.function_name += suffix
        gradient.gradient_func += suffix if gradient.gradient_func in names else ""
    return definition


def _taps(graph: Any, names: Sequence[str]) -> tuple[dict[str, Any], frozenset[str]]:
    found: dict[str, list[Any]] = {}
    for operation in graph.get_operations():
        match = _TAP.search(operation.name)
        if match and operation.type == "Identity":
            found.setdefault(names[int(match[1])], []).append(operation.outputs[0])
    taps = {name: tensors[0] for name, tensors in found.items() if len(tensors) == 1}
    return taps, frozenset(found) - frozenset(taps)


def _operations(graph: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    """Floating point tensors that depend on the inputs, by the names of the operations that make them."""
    reached = {tensor.op.name for tensor in inputs}
    taps: dict[str, Any] = {}
    for operation in graph.get_operations():
        if not any(tensor.op.name in reached for tensor in operation.inputs):
            continue
        reached.add(operation.name)
        if operation.type in _UNINTERESTING or not operation.outputs:
            continue
        single = len(operation.outputs) == 1 or operation.type.startswith("FusedBatchNorm")
        tensor = operation.outputs[0]
        if single and tensor.dtype.is_floating and tensor.shape.rank != 0:
            taps[operation.name] = tensor
    return _short(taps)


def _short(taps: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the names of the function calls that were inlined, where the rest is still unique."""
    short = {name: "/".join(part for part in name.split("/") if not _CALLS.match(part)) or name for name in taps}
    counts: dict[str, int] = {}
    for name in short.values():
        counts[name] = counts.get(name, 0) + 1
    return {short[name] if counts[short[name]] == 1 else name: tensor for name, tensor in taps.items()}


def _pass_on(tensor: Any, logits: Any) -> Any:
    """The logits, with done to them what made `tensor` of the softmax's result."""
    if tensor.op.type in ("Reshape", "Squeeze", "ExpandDims"):
        logits = tf.reshape(logits, tf.shape(tensor))
        logits.set_shape(tensor.shape)
    return tf.cast(logits, tensor.dtype) if tensor.op.type == "Cast" else logits
