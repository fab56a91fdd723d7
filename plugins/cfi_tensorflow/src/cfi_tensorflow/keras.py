"""Keras 3 models: functional, Sequential, subclassed and nested ones alike.

Layers are read and replaced by standing in for the `call` of the layer objects while the model runs once, so it makes
no difference how the model was built.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src import backend
from keras.src.models.functional import Functional
from tensorflow.python.ops.resource_variable_ops import ResourceVariable  # tf.Variable names distributed ones, too

from cfi_core.errors import InputError
from cfi_core.framework import Content, Layer, LayerCalls, Parameters, Runner, flatten, identity, stand_in
from cfi_core.turns import hold_alone, keep_random
from cfi_tensorflow.embedding import find_embedding, from_embedding
from cfi_tensorflow.graphs import Trace, open_batch, tap, trace
from cfi_tensorflow.logits import traced_logits
from cfi_tensorflow.outputs import dense, order, pull_back
from cfi_tensorflow.rewiring import bind_graph, stands_for, view, with_real_inputs
from cfi_tensorflow.runners import EagerRunner, GraphRunner, PatientRunner
from cfi_tensorflow.state import VariableState, own_variables

_SOFTMAXES = (keras.activations.softmax, keras.activations.log_softmax)
_CALLS = ("call", "quantized_call")
_ELSEWHERE = (keras.Variable, keras.Layer, tf.Variable, keras.Initializer, keras.regularizers.Regularizer)
_LIBRARIES = ("keras", "tensorflow")
_PLAIN = frozenset((int, float, bool, str, type(None)))
_OF_EVERY_LAYER = frozenset(("build", "call_signature_parameters"))  # Keras puts them there
_NOT_INPUTS = frozenset({"training", "mask"})
_STATISTICS = ("moving_", "seed_generator")
"""How the variables are called that layers keep and do not learn."""

_HALF = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")

Replace = Callable[[str, Any], Any]
Visit = Callable[[str, list[Any]], Any]


class LayerView:
    """What the adapter does with the layers of a model, whose calls can be stood in for.

    Attributes:
        model: The model.
    """

    model: Any

    def named_layers(self) -> list[tuple[str, Any]]:
        """Every layer once, under the name of the first place where it lies."""
        raise NotImplementedError

    def aliases(self) -> Mapping[str, Any]:
        """Every layer under every name that it has."""
        return dict(self.named_layers())

    def run(self, inputs: Sequence[Any]) -> Any:
        """Forward pass in inference mode."""
        raise NotImplementedError

    # layers

    def layers(self, inputs: Sequence[Any] | None) -> tuple[Layer, ...]:
        """Every layer but the Input layers, those inside a layer after it."""
        if inputs is None:
            shapes = dict(_symbolic_shapes(self.model))
        else:
            shapes = {name: tuple(value.shape[1:]) for name, value in self.activations(inputs, None).items()}
        return tuple(
            Layer(name, type(layer).__name__, shapes.get(name))
            for name, layer in self.named_layers()
            if type(layer).__name__ != "InputLayer"
        )

    def layer_name(self, reference: Any) -> str | None:
        """Name of a layer, which may be called by its position, an inner one by its own name where it is unique."""
        named = self.named_layers()
        if isinstance(reference, int) and not isinstance(reference, bool):
            own_layers = self.model.layers
            reference = own_layers[reference] if -len(own_layers) <= reference < len(own_layers) else None
        layer = self.aliases().get(reference) if isinstance(reference, str) else reference
        own = [entry for _, entry in named if isinstance(reference, str) and entry.name == reference]
        if layer is None and len(own) == 1:
            layer = own[0]
        if not isinstance(layer, keras.Layer | tf.Module):
            return None
        return next((name for name, entry in named if stands_for(entry) is stands_for(layer)), None)

    def layer_object(self, name: str) -> Any:
        """The layer of that name."""
        return self.aliases()[name]

    def activations(self, inputs: Sequence[Any], names: Sequence[str] | None) -> Mapping[str, Any]:
        """Outputs of the layers that are called once and give one tensor."""
        return self._read(inputs, names=names).readable()

    def gradients(
        self, inputs: Sequence[Any], cotangents: Sequence[np.ndarray], names: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """Gradients at the outputs of those layers."""

        def watch(_name: str, value: Any) -> Any:
            if value.dtype.is_floating and not tf.is_symbolic_tensor(value):
                tape.watch(value)
            return value

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            reading = self._read(inputs, names=names, replace=watch)
        found = {name: value for name, value in reading.readable().items() if value.dtype.is_floating}
        gradients = pull_back(tape, flatten(reading.outputs), cotangents, list(found.values()))
        return dict(zip(found, gradients, strict=True))

    def runner(self, inputs: Sequence[Any], layers: Sequence[str]) -> Runner:
        """The model itself, and its traced graph, where that computes the same, once it pays."""
        reading = self._read(inputs, names=layers) if layers else None
        for name in layers:
            assert reading is not None
            reading.check(name)
        order = [] if reading is None else list(reading.tensors)
        eager = EagerRunner(functools.partial(self._pass, order), len(inputs), order)
        return PatientRunner(eager, functools.partial(self._graph_runner, inputs, order), inputs)

    def _graph_runner(self, inputs: Sequence[Any], order: Sequence[str]) -> GraphRunner | None:
        """The model's graph; None where layers lie inside a loop, a branch or a compiled function."""
        traced = self._trace(inputs, order, snapshot=False)
        # The user's own gradients are lost where a graph is cut: the model has them.
        if traced is None or not traced.differentiable or not set(order) <= set(traced.taps):
            return None
        return GraphRunner(traced, order)

    # reading and replacing

    def _pass(
        self, names: Sequence[str], inputs: Sequence[Any], given: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        reading = self._read(inputs, names=names, replace=lambda name, value: given.get(name, value))
        for name in names:
            reading.check(name)
        return tuple(flatten(dense(reading.outputs))), reading.tensors

    def _read(
        self, inputs: Sequence[Any], *, names: Sequence[str] | None, replace: Replace = lambda name, value: value
    ) -> KerasReading:
        """Runs the model once, and keeps (or replaces) what the layers give."""
        reading = self._read_once(inputs, names, replace, eager_functions=False)
        # Functions that TensorFlow compiled hide the layers that they call, but for those that Keras has inside: run
        # eagerly, some of these have no gradient on the CPU (grouped convolutions).
        if reading.compiled or any(not reading.counts[name] for name in names or ()):
            return self._read_once(inputs, names, replace, eager_functions=True)
        return reading

    def _read_once(
        self, inputs: Sequence[Any], names: Sequence[str] | None, replace: Replace, *, eager_functions: bool
    ) -> KerasReading:
        chosen = [(name, layer) for name, layer in self.named_layers() if names is None or name in names]
        reading = KerasReading({name: type(layer).__name__ for name, layer in chosen}, replace)

        def visit(name: str, tensors: list[Any]) -> Any:
            if tf.executing_eagerly():
                return next(iter(reading.see(name, tensors)), None)
            reading.compiled = True  # what is done to its tensors would stay in the compiled function
            return None

        # Nobody else marks the layers between the two, so the turn comes first.
        with _eager_functions(eager_functions and bool(chosen)), _watch(chosen, visit):
            reading.outputs = self.run(inputs)
        return reading

    def _trace(self, inputs: Sequence[Any], names: Sequence[str], *, snapshot: bool) -> Trace | None:
        """The model as a graph; None if it needs values to run."""
        chosen = [(name, layer) for name, layer in self.named_layers() if name in names]
        order: list[str] = []

        def visit(name: str, tensors: list[Any]) -> Any:
            if name not in order:
                order.append(name)
            return tap(tensors[0], order.index(name)) if len(tensors) == 1 else None

        try:
            with _watch(chosen, visit):
                return trace(self.run, open_batch(inputs), lambda: order, snapshot=snapshot)
        except Exception:  # noqa: BLE001 - the user's code may fail on symbolic values in any way; then it runs eagerly
            return None


class KerasView(LayerView):
    """What the adapter does with a Keras model."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    def named_layers(self) -> list[tuple[str, Any]]:
        """Every layer once, under the name of the first place where it lies."""
        return _named_layers(self.model)

    def aliases(self) -> Mapping[str, Any]:
        """Every layer under every name that it has."""
        return _with_aliases(self.model)

    # the model

    def parts(self) -> list[Any]:
        """All its layers."""
        return [layer for _, layer in _named_layers(self.model)]

    def twin(self, *, share_weights: bool) -> keras.Model:
        """A functional model around the same layers (Keras models carry no hooks), or a copy with its own weights."""
        model = self.model
        if is_graph(model) and share_weights:
            return keras.Model(inputs_structure(model), structure_of(model), name=model.name)
        if share_weights:
            return model
        if is_graph(model):
            with keep_random():
                clone = keras.models.clone_model(model)
        else:
            try:
                clone = copy.deepcopy(model)
            except Exception as error:  # a custom model may refuse in any way
                raise InputError(
                    f"The {type(model).__name__} cannot be copied, which this method needs because it changes weights: "
                    f"{type(error).__name__}: {error}. Give its class get_config and register it "
                    f"(keras.saving.register_keras_serializable), or choose a method that changes no weights."
                ) from error
        clone.set_weights(model.get_weights())
        _finalize(clone)
        return clone

    def input_names(self) -> tuple[str, ...] | None:
        """Keys of the inputs, or names of the Input layers; of another model, the parameters of its `call`."""
        if not is_graph(self.model):
            return _parameters(self.model).names or None
        return tuple(_named_inputs(self.model))

    def vocabulary(self) -> int | None:
        """The rows of the embedding that is given an input of the model, where there is one such layer alone."""
        if not is_graph(self.model):
            return None
        given = {id(one) for one in self.model.inputs}
        sizes = [
            int(layer.input_dim)
            for layer in self.model.layers
            if isinstance(layer, keras.layers.Embedding) and {id(one) for one in tf.nest.flatten(layer.input)} & given
        ]
        return sizes[0] if len(sizes) == 1 else None

    def by_name(self, names: Sequence[str], constants: Mapping[str, Any]) -> Any:
        """The same graph of layers with its inputs in that order; another model is called by keyword.

        Raises:
            InputError: The model takes other names.
        """
        model = self.model
        if not is_graph(model):
            _parameters(model).check(names, constants, f"{type(model).__name__}.call")
            kind, given = type(model), dict(constants)

            def call(self: Any, *values: Any, **kwargs: Any) -> Any:
                return kind.call(self, **dict(zip(names, values, strict=True)), **given, **kwargs)

            return view(model, call)
        inputs = _named_inputs(model)
        Parameters(tuple(inputs), frozenset(inputs)).check(names, constants, f"the Keras model {model.name!r}")
        return keras.Model([inputs[name] for name in names], structure_of(model), name=model.name)

    def bind(self, held: Sequence[Any]) -> keras.Model:
        """The same graph of layers with constants in the place of its last inputs."""
        return bind_graph(_graph(self.model), held)

    def with_real_inputs(self, layers: Sequence[str]) -> keras.Model:
        """The same graph of layers with floating point inputs, at which gradients of these layers exist."""
        return with_real_inputs(_graph(self.model), layers)

    def split_embedding(self, inputs: Sequence[Any], layer: str | None) -> tuple[str, Any, Any] | None:
        """The layer that embeds the first input, its output, and the model from there on."""
        model, named = self.model, _named_layers(self.model)
        call = find_embedding(self.run, named, inputs, layer)
        if call is None:
            return None
        embeds, outer = dict(named)[call.name], _with_aliases(model)[call.name.partition("/")[0]]
        graph = _graph(model) if is_graph(model) else None
        shape = call.output.shape
        made = from_embedding(model, graph, embeds, outer, call.number, shape.rank, int(shape[-1]))
        return None if made is None else (call.name, call.output, made)

    def weights(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Floating point variables by the path of their layer, without the statistics that layers keep."""
        held = _weights_by_layer(self.model)
        return {name: tuple(one.value.numpy() for one in variables) for name, variables in held.items()}

    def with_weights(self, weights: Mapping[str, Sequence[np.ndarray]]) -> keras.Model:
        """A copy with these in the place of its own."""
        copied = self.twin(share_weights=False)
        names = _weights_by_layer(self.model)
        held = dict(zip(names, _weights_by_layer(copied).values(), strict=True))  # the copy may call its layers anew
        for name, arrays in weights.items():
            for variable, array in zip(held[name], arrays, strict=True):
                variable.assign(array)
        return copied

    def in_double(self) -> keras.Model | None:
        """The same graph of layers, each computing in float64; None for another model, or layers that cannot."""
        if not is_graph(self.model) or {tf.as_dtype(one.dtype) for one in _floats(self.model.weights)} - {tf.float32}:
            return None
        return self._in_type(("float32",), "float64")

    def in_single(self) -> keras.Model | None:
        """The same graph of layers, each computing in float32 where it did in half precision or in mixed."""
        return self._in_type(_HALF, "float32") if is_graph(self.model) else None

    def _in_type(self, former: Sequence[str], name: str) -> keras.Model | None:
        model = self.model
        layers = [layer for _, layer in _named_layers(model) if not isinstance(layer, keras.layers.InputLayer)]
        if any("call" in vars(layer) for layer in layers):
            return None  # changed by hand: a copy from its configuration would not be
        try:
            with keep_random():
                anew = functools.partial(_layer_in_type, former, name)
                clone = keras.models.clone_model(model, clone_function=anew, recursive=True)
            for twin, weight in zip(clone.weights, model.weights, strict=True):
                twin.assign(tf.cast(weight.value, twin.dtype))
            _finalize(clone)
            # In the same order; inner layers without a name of their own are named anew.
            copies = [layer for _, layer in _named_layers(clone) if not isinstance(layer, keras.layers.InputLayer)]
            is_same = all(
                type(layer) is type(copy) and _same_settings(layer, copy)
                for layer, copy in zip(layers, copies, strict=True)
            )
        except Exception:  # noqa: BLE001 - custom layers may refuse another type, or being copied, in any way
            return None
        is_so = all(tf.as_dtype(one.dtype).name == name for one in (*_floats(clone.weights), *clone.outputs))
        return clone if is_same and is_so else None

    def fingerprint(self) -> str:
        """Hash of weights, layers, operations, their settings and functions."""
        held = Content(identity, parts=_parts, libraries=_LIBRARIES)
        held.write(f"{type(self.model).__qualname__}:{identity(type(self.model).call)}")
        for name, layer in _named_layers(self.model):
            held.write(f"{name}:{type(layer).__qualname__}:{identity(type(layer).call)}")
            _add_settings(held, layer)
        for operation, arguments in _operations(self.model):
            held.write(f"{operation.name}:{type(operation).__qualname__}")
            held.add([vars(operation)[key] for key in vars(operation) if not key.startswith("_")])
            held.add(arguments)
        self._add_weights(held)
        return held.hexdigest()

    def glance(self, part: int, parts: int) -> Look:
        """Layers, their settings and weights, and some numbers of every weight of a part."""
        layers = [(id(type(layer).call), layer) for _, layer in _named_layers(self.model)]
        weights = self.model.weights
        some = b"".join(_some_of(np.asarray(_in_place(weight.value))) for weight in weights[part::parts])
        return Look([(id(type(self.model).call), self.model), *layers], weights, some)

    def content(self) -> str | None:
        """The same in every process, for a graph of Keras' own layers and functions; None for any other."""
        layers = [layer for _, layer in _named_layers(self.model)]
        if not is_graph(self.model) or not all(map(_is_own, layers)):
            return None
        try:
            configuration = json.loads(self.model.to_json())
        except Exception:  # noqa: BLE001 - a function of the user's in a layer may refuse to be written in any way
            return None
        if not _is_of_keras(configuration):
            return None
        configuration["config"]["name"] = ""  # Keras numbers the models of a process
        held = Content(identity)  # a configuration is words and numbers
        held.add(configuration)
        self._add_weights(held)
        return held.hexdigest()

    def _add_weights(self, held: Content) -> None:
        for weight in self.model.weights:
            held.add(_in_place(weight.value))

    def input_shapes(self) -> tuple[tuple[int | None, ...], ...] | None:
        """Shapes of the model's Input layers; a subclassed model declares none."""
        return tuple(tuple(tensor.shape) for tensor in self.model.inputs) if is_graph(self.model) else None

    def declares_integer(self, position: int) -> bool | None:
        """Whether that Input layer takes integers."""
        if not is_graph(self.model) or position >= len(self.model.inputs):
            return None
        return bool(tf.as_dtype(self.model.inputs[position].dtype).is_integer)

    def floating_type(self) -> Any:
        """Type of the first floating point input or, of a model that declares none, weight."""
        tensors = self.model.inputs if is_graph(self.model) else self.model.weights
        dtypes = [tf.as_dtype(tensor.dtype) for tensor in tensors]
        return next((dtype for dtype in dtypes if dtype.is_floating), None)

    def state(self) -> VariableState:
        """Of weights, random generators, and what layers hold besides."""
        parts = {"": self.model, **dict(_named_layers(self.model))}
        own = [variable for part in parts.values() for variable in own_variables(part)]
        return VariableState([*self.model.variables, *own], parts)

    def precision(self) -> frozenset[str]:
        """What the layers compute in."""
        named = [layer.compute_dtype for _, layer in _named_layers(self.model)]
        return frozenset(name for name in named if name and "float" in name) or frozenset({"float32"})

    def without_softmax(self, inputs: Sequence[Any]) -> Any | None:
        """A graph of layers with another head, sharing all other layers; any other model as its traced graph."""
        model = self.model
        if not is_graph(model):
            names = [name for name, _ in _named_layers(model)]
            return traced_logits(self, inputs, self._trace(inputs, names, snapshot=True) if inputs else None)
        found = [_logits(output) for output in model.outputs]
        if all(logit is None for logit in found):
            return None
        outputs = [output if logit is None else logit for output, logit in zip(model.outputs, found, strict=True)]
        structure = keras.tree.pack_sequence_as(structure_of(model), outputs)
        return keras.Model(inputs_structure(model), structure, name=model.name)

    def run(self, inputs: Sequence[Any]) -> Any:
        """Forward pass in inference mode."""
        model = self.model
        arguments: Sequence[Any] = (inputs[0] if len(inputs) == 1 else list(inputs),)
        if is_graph(model) and len(inputs) == len(model.inputs):
            arguments = (keras.tree.pack_sequence_as(inputs_structure(model), list(inputs)),)
        elif len(inputs) > 1 and not is_graph(model) and _positional(model.call) in (len(inputs), None):
            arguments = inputs
        with _without_marks(model):
            return order(model(*arguments, training=False))


class KerasReading(LayerCalls):
    """What one pass showed: outputs, the calls of layers, and the tensors that they gave.

    Some layers may have been called inside a function that was being compiled, where nothing could be read.
    """

    def __init__(self, kinds: dict[str, str], replace: Replace) -> None:
        super().__init__(tf.Tensor, kinds, self._keep)
        self.outputs: Any = None
        self.compiled = False
        self.tensors: dict[str, Any] = {}
        self._replace = replace

    def _keep(self, name: str, value: Any) -> Any:
        # A tensor of its own, because some layers give back their input, which others take as well.
        self.tensors[name] = value = self._replace(name, tf.identity(value))
        if tf.is_symbolic_tensor(value):
            self.hidden[name] = "runs inside a vectorized map"
        return value

    def readable(self) -> dict[str, Any]:
        """Tensors of the layers that were called once."""
        return {name: value for name, value in self.tensors.items() if self.is_single(name)}


@contextmanager
def _watch(layers: Sequence[tuple[str, Any]], visit: Visit) -> Iterator[None]:
    """Shows `visit` the tensors that each call of these layers gives; of a single one it returns the substitute."""
    with stand_in(layers, _CALLS, functools.partial(_visit, visit)):
        yield


def _visit(visit: Visit, name: str, call: Callable[[], Any]) -> Any:
    output = call()
    leaves = keras.tree.flatten(output)
    tensors = [leaf for leaf in leaves if isinstance(leaf, tf.Tensor)]
    value = visit(name, tensors)
    if len(tensors) != 1:
        return output
    mask = backend.get_keras_mask(tensors[0])
    if mask is not None and value is not tensors[0]:
        backend.set_keras_mask(value, mask)
    return keras.tree.pack_sequence_as(output, [value if leaf is tensors[0] else leaf for leaf in leaves])


@contextmanager
def _without_marks(model: keras.Model) -> Iterator[None]:
    """Forgets the losses that layers have noted down inside."""
    kept = [(layer, list(layer._losses), set(layer._loss_ids)) for layer in (model, *_with_aliases(model).values())]
    try:
        yield
    finally:
        for layer, losses, identities in kept:
            layer._losses[:] = losses
            layer._loss_ids.clear()
            layer._loss_ids.update(identities)


@contextmanager
def _eager_functions(on: bool) -> Iterator[None]:
    """Runs functions that were compiled earlier anew, so that the layers that they call can be seen."""
    if not on:
        yield
        return
    with hold_alone("tensorflow.function"):
        former = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(former)


def is_graph(model: keras.Model) -> bool:
    """Whether the model computes what its graph says: functional or built Sequential, with no `call` of its own."""
    if not isinstance(model, keras.Sequential | Functional) or not model.inputs:
        return False
    return type(model).call in (Functional.call, keras.Sequential.call)


def _graph(model: keras.Model) -> Any:
    return model._functional if isinstance(model, keras.Sequential) else model


def structure_of(model: keras.Model) -> Any:
    """The symbolic outputs in the structure that the model returns."""
    return _graph(model)._outputs_struct


def inputs_structure(model: keras.Model) -> Any:
    """The symbolic inputs in the structure that the model takes."""
    return _graph(model)._inputs_struct


def _named_inputs(model: keras.Model) -> dict[str, Any]:
    """The symbolic inputs by their keys, where the model takes a dict, or else by the names of their layers."""
    structure = inputs_structure(model)
    return dict(structure) if isinstance(structure, Mapping) else {one.name: one for one in model.inputs}


def _parameters(model: keras.Model) -> Parameters:
    return Parameters.of(model.call, leave_out=_NOT_INPUTS)


def _positional(call: Callable[..., Any]) -> int | None:
    """How many inputs `call` takes one by one; None: any number."""
    parameters = inspect.signature(call).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return sum(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
        and parameter.name not in _NOT_INPUTS
        for parameter in parameters
    )


def _occurrences(outer: Any, prefix: str = "", path: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every place at which a layer lies inside the model, with a name of its own."""
    taken: set[str] = set()
    children = [*(outer.layers if isinstance(outer, keras.Model) else ()), *outer._layers]
    for layer in {id(child): child for child in children}.values():
        if id(layer) in path:
            continue
        name, count = layer.name, 0
        while name in taken:
            count += 1
            name = f"{layer.name}_{count}"
        taken.add(name)
        yield prefix + name, layer
        yield from _occurrences(layer, f"{prefix}{name}/", (*path, id(layer)))


def _with_aliases(model: keras.Model) -> dict[str, Any]:
    return dict(_occurrences(model, path=(id(model),)))


def _weights_by_layer(model: keras.Model) -> dict[str, list[Any]]:
    """In the order of the model, each once; statistics and states of generators are nothing that was learnt."""
    found: dict[str, list[Any]] = {}
    for variable in {id(one): one for one in model.weights}.values():
        layer, _, name = variable.path.rpartition("/")
        if not name.startswith(_STATISTICS) and tf.as_dtype(variable.dtype).is_floating:
            found.setdefault(layer, []).append(variable)
    return found


def _named_layers(model: keras.Model) -> list[tuple[str, Any]]:
    """Every layer once, under the name of the first place where it lies."""
    first: dict[int, tuple[str, Any]] = {}
    for name, layer in _with_aliases(model).items():
        first.setdefault(id(layer), (name, layer))
    return list(first.values())


def _symbolic_shapes(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, tuple[int | None, ...]]]:
    """Output shapes that graphs of layers tell, of layers that are called once and give one tensor."""
    if not is_graph(model):
        return
    calls: dict[int, list[Any]] = {}
    for nodes in _graph(model)._nodes_by_depth.values():
        for node in nodes:
            calls.setdefault(id(node.operation), []).append(node)
    for layer in model.layers:
        nodes = calls.get(id(layer), [])
        if len(nodes) == 1:
            if len(nodes[0].output_tensors) == 1:
                yield prefix + layer.name, tuple(nodes[0].output_tensors[0].shape[1:])
            if isinstance(layer, keras.Model):
                yield from _symbolic_shapes(layer, f"{prefix}{layer.name}/")


def _layer_in_type(former: Sequence[str], name: str, layer: Any) -> Any:
    config = layer.get_config()
    return type(layer).from_config(_with_type(config, former, name) if isinstance(layer, keras.Layer) else config)


def _with_type(config: Any, former: Sequence[str], name: str) -> Any:
    """A configuration in which every type, also of layers inside, is of that name where it was one of the former."""
    if isinstance(config, dict):
        return {
            key: name if key == "dtype" and _type_in(value) in former else _with_type(value, former, name)
            for key, value in config.items()
        }
    return [_with_type(one, former, name) for one in config] if isinstance(config, list) else config


def _type_in(value: Any) -> Any:
    """The name of a type, or of a policy of types."""
    return value.get("config", {}).get("name") if isinstance(value, dict) else value


def _floats(values: Any) -> list[Any]:
    return [value for value in values if tf.as_dtype(value.dtype).is_floating]


def _finalize(model: keras.Model) -> None:
    """Layers that work out something from their weights when those are adapted do so again with given ones."""
    for layer in model._flatten_layers(include_self=False):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _plain(layer: Any) -> dict[str, Any]:
    """Settings that a layer may keep outside of its configuration."""
    return {
        key: value
        for key, value in vars(layer).items()
        if isinstance(value, int | float) and not key.startswith("_") and "seed" not in key
    }


def _same_settings(layer: Any, twin: Any) -> bool:
    ours, theirs = _plain(layer), _plain(twin)
    if _is_own(layer):  # loading a model leaves attributes on Keras' own layers that building one does not
        ours, theirs = ({key: one[key] for key in ours.keys() & theirs.keys()} for one in (ours, theirs))
    return ours == theirs


def _is_own(layer: Any) -> bool:
    """Whether the layer is of a class of Keras' own."""
    return type(layer).__module__.startswith("keras.")


def is_of_keras_layers(model: Any) -> bool:
    """Whether it is a graph of layers of Keras' own, none of them changed by hand."""
    layers = [layer for _, layer in _named_layers(model)] if is_graph(model) else []
    return bool(layers) and all(_is_own(layer) and not {"call", "__call__"} & set(vars(layer)) for layer in layers)


def _is_of_keras(configuration: Any) -> bool:
    """Whether all that a configuration speaks of is Keras' own: of anything else it says little more than the name."""
    if isinstance(configuration, list):
        return all(map(_is_of_keras, configuration))
    if not isinstance(configuration, Mapping):
        return True
    kind, module = configuration.get("class_name"), configuration.get("module")
    if kind in ("function", "__lambda__") or set(configuration) == {"value"}:  # a function as an activation
        return False
    if kind is not None and not kind.startswith("__") and (module or "").partition(".")[0] not in ("keras", "builtins"):
        return False
    return all(map(_is_of_keras, configuration.values()))


def _add_settings(held: Content, layer: Any) -> None:
    """The layer's attributes, and the configuration of one that may have more than these: a custom layer, a model."""
    said = [layer.compute_dtype, layer.variable_dtype]
    is_model = isinstance(layer, keras.Model)
    others = []
    for key, value in vars(layer).items():
        if type(value) in _PLAIN:
            said.append(f"{key}={value!r}")
        elif isinstance(value, tuple | int | float | str) or not (
            key.startswith("_") or is_model or key in _OF_EVERY_LAYER
        ):
            others.append((key, value))
    held.write(";".join(said))
    held.add(others)
    if is_model or not _is_own(layer):
        # A custom layer without get_config is known by its class, name, attributes and weights.
        with contextlib.suppress(NotImplementedError):
            held.write(json.dumps(layer.get_config(), sort_keys=True, default=str))


def _in_place(variable: Any) -> np.ndarray:
    """The variable's values, without the copy that `.numpy()` makes and the detours of reading it in a graph."""
    if type(variable) is ResourceVariable:
        return np.asarray(tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype))
    return np.asarray(variable.value())


def _parts(value: Any) -> list[str] | None:
    """Of what is hashed elsewhere, or computes nothing."""
    if isinstance(value, keras.KerasTensor):
        return [f"tensor {value.dtype}{value.shape}"]
    return [identity(value)] if isinstance(value, _ELSEWHERE) else None


class Look:
    """Layers, their settings and some numbers of weights, to be compared with how they look later.

    Settings are compared by value where they are words or numbers; of anything else it must be the same object (or an
    equal one), which is kept, so that no other comes to lie in its place.
    """

    __hash__ = None  # type: ignore[assignment] # it is compared, never looked up

    def __init__(self, layers: Sequence[tuple[int, Any]], weights: Sequence[Any], some: bytes) -> None:
        self._some = some
        self._weights = [id(weight) for weight in weights]
        self._layers = [(id(layer), code) for code, layer in layers]
        self._settings = [dict(vars(layer)) for _, layer in layers]

    def __eq__(self, other: object) -> bool:
        """Whether nothing is another; of arrays and tensors that are, comparing may fail in any way."""
        if not isinstance(other, Look):
            return NotImplemented
        try:
            settings = bool(self._settings == other._settings)
        except Exception:  # noqa: BLE001 - a layer may hold anything
            return False
        return settings and (self._layers, self._weights, self._some) == (other._layers, other._weights, other._some)


def _some_of(array: np.ndarray) -> bytes:
    """Up to about four of its numbers, spread over all of it."""
    return array.reshape(-1)[:: max(1, array.size // 4)].tobytes()


@contextmanager
def without_marks_of(structure: Any) -> Iterator[None]:
    """Leaves no mark on the layers that make these symbolic tensors, whatever is called on them inside."""
    producers = [tensor._keras_history.operation for tensor in keras.tree.flatten(structure)]
    before = [list(producer._outbound_nodes) for producer in producers]
    try:
        yield
    finally:
        for producer, nodes in zip(producers, before, strict=True):
            producer._outbound_nodes[:] = nodes


def _operations(model: Any) -> Iterator[tuple[Any, Any]]:
    """The operations of a graph, and of graphs in it, that are no layers, each with the arguments of its calls."""
    if not is_graph(model):
        return
    for operation in _graph(model).operations:
        if isinstance(operation, keras.Model):
            yield from _operations(operation)
        elif not isinstance(operation, keras.Layer):
            calls = [node.arguments for node in operation._inbound_nodes]
            yield operation, [[one.args, one.kwargs] for one in calls]


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
    if isinstance(operation, keras.Model) and is_graph(operation):
        inner = _logits(operation.outputs[tensor_index])
        if inner is not None:
            return _apply(keras.Model(operation.inputs, inner, name=operation.name), node.input_tensors)
    return None


def _with_linear_activation(layer: Any, input_shape: Any) -> Any:
    config = {**layer.get_config(), "activation": "linear"}
    with keep_random():
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
