"""TensorFlow models that are not Keras: modules, compiled functions, signatures of saved models, plain functions.

Their layers are the floating point operations of their graph, by the names that TensorFlow gave them.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cfi_core.errors import InputError, LayerError
from cfi_core.framework import Content, Layer, Parameters, flatten, identity
from cfi_tensorflow.graphs import Trace, open_batch, trace
from cfi_tensorflow.logits import TracedLogits, open_graph, traced_logits
from cfi_tensorflow.lookup import TracedLookup, split_lookup
from cfi_tensorflow.outputs import dense, order
from cfi_tensorflow.runners import EagerRunner, TapedRunner
from cfi_tensorflow.state import VariableState

COMPILED = tf.types.experimental.Callable
"""What `tf.function` makes, concrete functions and signatures of saved models."""

_MODES = ("training", "is_training")
_FRAMEWORKS = ("tensorflow", "keras", "numpy")
_HOLDERS = (tf.Module, tf.Variable, tf.Tensor, keras.layers.Layer, keras.Variable, COMPILED, np.ndarray)
_CONTAINERS = frozenset({"collections", "types"})
"""Modules of the standard library whose objects may hold weights."""

_INSTALLED = frozenset({"site-packages", "dist-packages"})


class TensorFlowFunction:
    """A plain function of tensors, as a model.

    Attributes:
        function: The user's function.
    """

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *inputs: Any) -> Any:
        """What the function gives."""
        return self.function(*inputs)


class FunctionView:
    """What the adapter does with a model that is called with tensors and is no Keras model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.function = model.function if isinstance(model, TensorFlowFunction) else model
        self.signature = _signature(self.function)

    # the model

    def twin(self, *, share_weights: bool) -> Any:
        """The model itself: nothing can be marked on it.

        Raises:
            InputError: It is to have weights of its own.
        """
        if not share_weights:
            raise InputError(
                f"This method changes weights while it runs, and a {type(self.function).__name__} cannot be copied. "
                f"Pass a Keras model, or choose a method that changes no weights."
            )
        return self.model

    def in_double(self) -> None:
        """A function has its types built in."""

    def fingerprint(self) -> str:
        """Hash of the variables, settings and code that the function can reach."""
        held = Content(identity, parts=_parts, follow_global=_is_followed, libraries=_FRAMEWORKS)
        held.add(self.function)
        return held.hexdigest()

    def input_names(self) -> tuple[str, ...] | None:
        """Names in the signature, in the order in which `run` takes them; without one, of the parameters."""
        if self.signature is None:
            return self._parameters.names or None
        positional, by_name = self.signature
        names = [getattr(leaf, "name", None) for leaf in tf.nest.flatten(positional)] + sorted(by_name)
        is_flat = len(names) == len(self._specs() or ()) and all(names)
        return tuple(map(str, names)) if is_flat else None

    def by_name(self, names: Sequence[str], constants: Mapping[str, Any]) -> Any:
        """A function that calls it with inputs in that order.

        Raises:
            InputError: It takes other names, or its signature has none.
        """
        if self.signature is None:
            self._parameters.check(names, constants, "the function")
            function, given = self.function, dict(constants)
            return lambda *values: function(**dict(zip(names, values, strict=True)), **given, **self._mode)
        known = self.input_names()
        if known is None:
            raise InputError(
                f"The signature of the model names no inputs: {self.signature}. Pass a tuple in its order."
            )
        Parameters(known, frozenset(known)).check(names, constants, "the signature of the model")
        places = [list(names).index(name) for name in known]
        return lambda *values: self.run([values[place] for place in places])

    def ended_by(self, end: Callable[[Any], Any]) -> Any:
        """A function that goes on with what it gives."""
        return lambda *values: end(self.run(values))

    def input_shapes(self) -> tuple[tuple[int | None, ...], ...] | None:
        """Shapes of the signature; None without one, or if it leaves the number of axes open."""
        specs = self._specs()
        if specs is None or any(spec.shape.rank is None for spec in specs):
            return None
        return tuple(tuple(spec.shape) for spec in specs)

    def declares_integer(self, position: int) -> bool | None:
        """What the signature says."""
        specs = self._specs()
        return None if specs is None or position >= len(specs) else bool(specs[position].dtype.is_integer)

    def floating_type(self) -> Any:
        """Type of the first floating point input of the signature, or of the first variable."""
        values: Any = self._specs() or getattr(self.function, "variables", [])
        return next((value.dtype for value in values if value.dtype.is_floating), None)

    def state(self) -> VariableState:
        """Of the variables and modules that the function can reach."""
        variables: dict[int, Any] = {}
        modules: dict[str, Any] = {}

        def note(value: Any) -> list[Any] | None:
            if isinstance(value, tf.Variable | keras.Variable):
                variables[id(value)] = value
                return []
            if isinstance(value, tf.Module | keras.layers.Layer):
                modules[f"{type(value).__name__}{len(modules) or ''}"] = value
            if isinstance(value, weakref.ref):
                return [value()]  # a compiled method holds its object so
            return list(value.variables) if isinstance(value, keras.layers.Layer) else _parts(value)

        held = Content(identity, parts=note, follow_global=_is_followed, libraries=_FRAMEWORKS)
        held.add(self.function)
        return VariableState(variables.values(), modules)

    def precision(self) -> frozenset[str]:
        """Of the first floating point input or variable."""
        dtype = self.floating_type()
        return frozenset({"float32" if dtype is None else dtype.name})

    def without_softmax(self, inputs: Sequence[Any]) -> TracedLogits | None:
        """The traced graph without the softmax; None if there is none, or no graph."""
        return traced_logits(self, inputs, self._trace(inputs or None))

    def split_embedding(self, inputs: Sequence[Any], layer: str | None) -> tuple[str, Any, TracedLookup] | None:
        """The `tf.gather` that looks up the tokens, its result, and the traced graph from there on."""
        return split_lookup(self, self._trace(inputs), inputs, layer)

    def run(self, inputs: Sequence[Any]) -> Any:
        """Calls the function, with its inputs in the order of its signature: positional ones first, then by name."""
        if self.signature is None:
            return order(self.function(*inputs, **self._mode))
        leaves = tf.nest.flatten(self.signature)
        declared = sum(isinstance(leaf, tf.TensorSpec) for leaf in leaves)
        if declared != len(inputs):
            raise InputError(
                f"The model takes {declared} inputs, and {len(inputs)} are given. Its signature: {self.signature}."
            )
        given = iter(inputs)
        bound = [next(given) if isinstance(leaf, tf.TensorSpec) else leaf for leaf in leaves]
        args, kwargs = tf.nest.pack_sequence_as(self.signature, bound)
        return order(self.function(*args, **kwargs))

    # layers

    def layers(self, inputs: Sequence[Any] | None) -> tuple[Layer, ...]:
        """The operations, if there are inputs or a signature to trace the function with."""
        traced = self._trace(inputs)
        if traced is None:
            return ()
        shapes = {name: tuple(tensor.shape[1:]) if tensor.shape.rank else None for name, tensor in traced.taps.items()}
        if inputs is not None:
            shapes = {name: tuple(value.shape[1:]) for name, value in traced.activations(inputs).items()}
        return tuple(Layer(name, tensor.op.type, shapes[name]) for name, tensor in traced.taps.items())

    def layer_name(self, reference: Any) -> str | None:
        """The name itself; without a signature it is checked when there are inputs to trace the function with."""
        if not isinstance(reference, str):
            return None
        traced = self._trace(None)
        return reference if self.signature is None or (traced is not None and reference in traced.taps) else None

    def layer_object(self, name: str) -> str:
        """The name: operations are no objects before the function is traced."""
        return name

    def activations(self, inputs: Sequence[Any], names: Sequence[str] | None) -> Mapping[str, Any]:
        """Results of the operations."""
        traced = self._trace(inputs)
        return {} if traced is None else traced.activations(inputs, names)

    def gradients(
        self, inputs: Sequence[Any], cotangents: Sequence[np.ndarray], names: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """Gradients at the results of the operations."""
        traced = self._trace(inputs)
        return {} if traced is None or not traced.differentiable else traced.gradients(inputs, cotangents, names)

    def runner(self, inputs: Sequence[Any], layers: Sequence[str]) -> TapedRunner:
        """The function's graph where it computes the same as the function; the function itself otherwise."""
        traced = self._trace(inputs)
        if traced is not None and traced.differentiable and traced.agrees(inputs, self._outputs(inputs)):
            return open_graph(traced, layers)
        if layers:
            raise LayerError(
                f"The model's graph cannot be cut at {layers[0]!r}: it looks at values while it runs, or has a "
                f"gradient of its own (tf.custom_gradient). Write it with tf.cond or tf.while_loop, or in Keras."
            )
        return EagerRunner(self._pass, len(inputs), ())

    def _pass(self, inputs: Sequence[Any], _given: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        return tuple(self._outputs(inputs)), {}

    def _outputs(self, inputs: Sequence[Any]) -> list[Any]:
        return flatten(dense(self.run(inputs)))

    def _trace(self, inputs: Sequence[Any] | None) -> Trace | None:
        """The function as a graph; None if it cannot be run without values, or there is nothing to run it with."""
        declared = self._specs()
        if inputs is None and declared is None:
            return None
        specs = declared if inputs is None else open_batch(inputs)
        if inputs is not None and declared is not None and len(declared) == len(inputs):
            specs = [_narrow(spec, own) for spec, own in zip(open_batch(inputs), declared, strict=True)]
        try:
            return trace(self.run, specs or ())
        except Exception:  # noqa: BLE001 - the user's code may fail on symbolic values in any way; then it runs eagerly
            return None

    def _specs(self) -> list[tf.TensorSpec] | None:
        if self.signature is None:
            return None
        return [leaf for leaf in tf.nest.flatten(self.signature) if isinstance(leaf, tf.TensorSpec)]

    @functools.cached_property
    def _parameters(self) -> Parameters:
        return Parameters.of(_call_of(self.function), leave_out=_MODES)

    @functools.cached_property
    def _mode(self) -> dict[str, bool]:
        """What tells the function not to train, if it asks."""
        try:
            parameters = inspect.signature(_call_of(self.function)).parameters
        except (TypeError, ValueError):
            return {}
        return {name: False for name in _MODES if name in parameters}


def _call_of(function: Any) -> Any:
    if isinstance(function, tf.Module):
        function = function.__call__
    return getattr(function, "python_function", function)


def _signature(function: Any) -> tuple[Any, Any] | None:
    """Structure `(positional, by name)` of the tensors (and constants) that the function takes; None if it is open."""
    if isinstance(function, tf.Module):
        return _signature(function.__call__) if isinstance(function.__call__, COMPILED) else None
    if isinstance(function, tf.types.experimental.ConcreteFunction):
        return function.structured_input_signature
    if getattr(function, "input_signature", None) is not None:
        return tuple(function.input_signature), {}
    traces: Sequence[Any] = getattr(function, "concrete_functions", [])  # of a function from a saved model
    return traces[0].structured_input_signature if len(traces) == 1 else None


def _narrow(spec: tf.TensorSpec, own: tf.TensorSpec) -> tf.TensorSpec:
    """The spec with the axes fixed that the function itself fixes."""
    if own.shape.rank is None or own.shape.rank != spec.shape.rank:
        return spec
    shape = [theirs if theirs is not None else ours for theirs, ours in zip(own.shape, spec.shape, strict=True)]
    return tf.TensorSpec(shape, spec.dtype)


def _parts(value: Any) -> list[Any] | None:
    """What one of TensorFlow's objects, or of the user's, computes with."""
    if isinstance(value, type):
        return [identity(value)]
    if isinstance(value, tf.Variable | tf.Tensor | keras.Variable):
        return [] if tf.is_symbolic_tensor(value) else [np.asarray(value)]
    if isinstance(value, keras.layers.Layer):
        return list(value.weights)
    if isinstance(value, tf.types.experimental.ConcreteFunction):
        return [*value.variables, *(outer for outer, _ in value.graph.captures if not _is_handle(outer))]
    if isinstance(value, COMPILED):
        return [*getattr(value, "concrete_functions", ()), getattr(value, "python_function", None)]
    if not _is_of_users(value):
        return None
    own = {key: part for key, part in getattr(value, "__dict__", {}).items() if not key.startswith("_self_")}
    return [identity(value), own, type(value).__call__ if callable(value) else None]


def _is_followed(function: FunctionType, value: Any) -> bool:
    """Of what a library names, whose caches and registries are no weights, only what holds some."""
    installed = not _INSTALLED.isdisjoint(Path(function.__code__.co_filename).parts)
    return not installed or isinstance(value, (*_HOLDERS, FunctionType))


def _is_handle(tensor: Any) -> bool:
    return tensor.dtype in (tf.resource, tf.variant)


def _is_of_users(value: Any) -> bool:
    """Whether this may hold weights: no object of a library that holds none."""
    root = type(value).__module__.partition(".")[0]
    library = root in _FRAMEWORKS or (root in sys.stdlib_module_names and root not in _CONTAINERS)
    return isinstance(value, tf.Module) or not library
