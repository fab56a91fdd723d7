"""TensorFlow models of every kind, and TensorFlow tensors. Imported when one is first used."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import keras
import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp
from keras.src.backend.common import global_state
from tensorflow.python.eager import context  # the only place where the eager random state can be read
from tensorflow.python.ops import stateful_random_ops

from cfi_core.errors import InputError, UnknownFrameworkError
from cfi_core.framework import (
    Embedded,
    FrameworkAdapter,
    Layer,
    Layout,
    Passes,
    Recorded,
    Runner,
    State,
    flatten,
    map_structure,
)
from cfi_tensorflow import archive
from cfi_tensorflow.compiled import CompiledModel
from cfi_tensorflow.ending import ended_by
from cfi_tensorflow.functions import COMPILED, FunctionView, TensorFlowFunction
from cfi_tensorflow.keras import KerasView, is_graph, is_of_keras_layers
from cfi_tensorflow.legacy import LegacyView, is_legacy
from cfi_tensorflow.logits import TracedLogits
from cfi_tensorflow.maps import show_map
from cfi_tensorflow.outputs import dense, pull_back
from cfi_tensorflow.passes import count_passes, watch_passes
from cfi_tensorflow.rewiring import repeat
from cfi_tensorflow.runners import EAGER_ROWS, EagerRunner

_FILE = "model.keras"
_ALIGNMENT = 64
"""In bytes: what TensorFlow's kernels take for granted of the memory of a tensor."""

_CPU = 1
"""DLPack's number for the kind of device."""


class TensorFlowAdapter(FrameworkAdapter):
    """TensorFlow's models have no mode: every call says it.

    Layers of Keras models go by their Keras names, inner ones as `outer/inner`; those of other models by the names of
    the operations of their graph.
    """

    name = "tensorflow"
    glances = 4
    arithmetic = tnp
    file_sizes: ClassVar[Mapping[str, int]] = {_FILE: 2**33}
    map_channels = -1

    # models

    def load(self, model: Any) -> Any:
        """Checks that the model can be called and has its weights; a plain function becomes a model that calls it."""
        if isinstance(model, keras.Model):
            return _check_model(model)
        if isinstance(model, TensorFlowFunction | TracedLogits):
            return model
        if isinstance(model, COMPILED):
            return _alive(model)
        if isinstance(model, keras.layers.Layer):
            raise InputError(
                f"{model.name!r} is a Keras layer, not a model: pass keras.Sequential([keras.Input(shape), layer])."
            )
        if isinstance(model, tf.Module):
            if callable(model):
                return model
            raise InputError(
                f"The {type(model).__name__} has no __call__: pass one of its methods, for example module.predict."
            )
        if isinstance(model, tf.__internal__.tracking.AutoTrackable):
            raise InputError(
                f"This object from tf.saved_model.load is not a model but holds some: pass one of "
                f"{', '.join(_saved_functions(model)) or 'the functions that it was saved with (it has none)'}."
            )
        if not callable(model):
            raise InputError(f"A {type(model).__name__} cannot be called with tensors: pass a model or a function.")
        known = _function_models.get(id(model))
        if known is None or known.function is not model:
            known = _function_models[id(model)] = TensorFlowFunction(model)
        return known

    def twin(self, model: Any, *, share_weights: bool = True) -> Any:
        """A functional model around the same layers; other models are their own twins, as nothing is marked on them."""
        return _view(model).twin(share_weights=share_weights)

    def fingerprint(self, model: Any) -> str:
        """Hash of weights, settings and code."""
        return _view(model).fingerprint()

    def glance(self, model: Any, part: int = 0) -> Any:
        """Of a Keras model its layers, their settings and some numbers of every fourth weight; of others all."""
        found = _view(model)
        return found.glance(part, self.glances) if isinstance(found, KerasView) else found.fingerprint()

    def content(self, model: Any) -> str | None:
        """Of graphs of Keras' own layers: their configuration and weights."""
        return KerasView(model).content() if isinstance(model, keras.Model) else None

    def save(self, model: Any) -> dict[str, bytes] | None:
        """A Keras model as an archive, if it consists of Keras' own layers and operations."""
        data = archive.write(model)
        return None if data is None else {_FILE: data}

    def restore(self, held: Mapping[str, bytes]) -> Any:
        """From such an archive, which holds no code."""
        return archive.read(held[_FILE])

    def input_shapes(self, model: Any) -> tuple[tuple[int | None, ...], ...] | None:
        """Shapes of Input layers or of a signature."""
        return _view(model).input_shapes()

    def declares_integer(self, model: Any, position: int) -> bool | None:
        """Whether that Input layer, or the signature, takes integers."""
        return _view(model).declares_integer(position)

    def input_names(self, model: Any) -> tuple[str, ...] | None:
        """Of Input layers, a signature, or the parameters of a function."""
        view = _view(model)
        return None if isinstance(view, TracedLogits) else view.input_names()

    def vocabulary(self, model: Any) -> int | None:
        """Of the embedding of a Keras model."""
        view = _view(model)
        return view.vocabulary() if isinstance(view, KerasView) else None

    def by_name(self, model: Any, names: Sequence[str], constants: Mapping[str, Any]) -> Any:
        """The same graph of Keras layers with its inputs in another order; a function that calls any other model."""
        view = _view(model)
        return (
            super().by_name(model, names, constants)
            if isinstance(view, TracedLogits)
            else self.load(view.by_name(names, constants))
        )

    def with_strings(self, model: Any, strings: Sequence[np.ndarray | None]) -> Any:
        """A function that gathers them."""
        view, known = _view(model), [None if one is None else tf.constant(one.astype(object)) for one in strings]

        def run(*inputs: tf.Tensor) -> Any:
            pairs = zip(inputs, known, strict=True)
            return view.run([one if table is None else tf.gather(table, one) for one, table in pairs])

        return TensorFlowFunction(run)

    def split_embedding(self, model: Any, inputs: Sequence[Any], layer: str | None = None) -> Embedded | None:
        """From the output of the layer of a Keras model on that is given the tokens, or of that `tf.gather`."""
        found = None if isinstance(model, CompiledModel) else _view(model).split_embedding(inputs, layer)
        return None if found is None else Embedded(found[0], self.to_numpy(found[1]), found[2])

    def bind(self, model: Any, held: Sequence[Any]) -> Any:
        """The same graph of Keras layers with constants for inputs; a function that calls any other model."""
        view = _view(model)
        if isinstance(model, keras.Model) and is_graph(model):
            return view.bind(held)
        return TensorFlowFunction(lambda *inputs: view.run([*inputs, *(repeat(one, inputs[0]) for one in held)]))

    def ended_by(self, model: Any, end: Callable[[Any], Any]) -> Any | None:
        """A graph of Keras layers that ends there; a function that goes on with the outputs of any other model."""
        view = _view(model)
        if isinstance(view, TracedLogits | CompiledModel):
            return None
        return ended_by(model, end) if isinstance(view, KerasView) else self.load(view.ended_by(end))

    def with_real_inputs(self, model: Any, layers: Sequence[str]) -> Any:
        """The same graph of Keras layers with floating point inputs."""
        if isinstance(model, keras.Model) and is_graph(model):
            return KerasView(model).with_real_inputs(layers)
        return super().with_real_inputs(model, layers)

    def channel_axis(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        """The last axis."""
        return len(shape) - 1 if len(shape) > 2 else None

    def without_softmax(self, model: Any, inputs: Sequence[Any]) -> Any | None:
        """Replaces a final softmax (layer, activation or operation), in the trace where there is no graph of layers."""
        return _view(model).without_softmax(inputs)

    def in_double(self, model: Any) -> Any | None:
        """A copy of a graph of Keras layers whose layers compute in double precision."""
        return _view(model).in_double()

    def in_single(self, model: Any) -> Any | None:
        """A copy of a graph of Keras layers that computed in half precision; None of any other model."""
        return KerasView(model).in_single() if isinstance(model, keras.Model) else None

    def weights(self, model: Any) -> dict[str, tuple[np.ndarray, ...]]:
        """Of the layers of a Keras model; other models cannot be copied."""
        return KerasView(model).weights() if isinstance(model, keras.Model) else {}

    def with_weights(self, model: Any, weights: Mapping[str, Sequence[np.ndarray]]) -> Any:
        """A clone of a Keras model."""
        if not isinstance(model, keras.Model):
            return super().with_weights(model, weights)  # refuses
        return KerasView(model).with_weights(weights)

    def state(self, model: Any) -> State:
        """Of all variables that the model can reach, and of plain numbers in its layers or modules."""
        return _view(model).state()

    def precision(self, model: Any) -> frozenset[str]:
        """Types that the layers compute in; of other models that of the first floating point input or variable."""
        is_quick = tf.config.list_physical_devices("GPU") and tf.config.experimental.tensor_float_32_execution_enabled()
        return _view(model).precision() | ({"tensorfloat32"} if is_quick else set())

    # running

    def call(self, model: Any, inputs: Sequence[Any]) -> Any:
        """In inference mode."""
        return _view(model).run(inputs)

    def outputs(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Forward pass in inference mode."""
        return map_structure(self.to_numpy, _view(model).run(inputs))

    def record(self, model: Any, inputs: Sequence[Any]) -> Recorded | None:
        """Of a Keras model, as it runs over a bridge at first: eagerly, and not so many rows."""
        if not isinstance(model, keras.Model) or int(inputs[0].shape[0]) > EAGER_ROWS:
            return None
        shown: list[Any] = []

        def run(values: Sequence[Any], _given: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
            shown.append(KerasView(model).run(values))
            return tuple(flatten(dense(shown[-1]))), {}

        results, pullback = EagerRunner(run, len(inputs), ()).linearize(0, inputs)
        return Recorded(self.to_numpy, inputs, map_structure(self.to_numpy, shown[-1]), results, pullback)

    def vjp(
        self, model: Any, inputs: Sequence[Any], cotangents: Sequence[np.ndarray | None]
    ) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Gradient by `tf.GradientTape`."""
        if isinstance(model, CompiledModel):
            outputs, found = model.pull(inputs, cotangents)
            return self._as_numpy(inputs, outputs, found)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([tensor for tensor in inputs if tensor.dtype.is_floating])
            outputs = flatten(_view(model).run(inputs))
        return self._as_numpy(inputs, outputs, pull_back(tape, outputs, cotangents, inputs))

    def missing_gradient(self, model: Any, inputs: Sequence[Any], layers: Sequence[str] = ()) -> str:
        """Of a model that runs code of another kind, of which the tape sees nothing; of layers it is not known."""
        sources = [tensor for tensor in inputs if tensor.dtype.is_floating]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = [output for output in flatten(_view(model).run(inputs)) if output.dtype.is_floating]
        found = tape.gradient(outputs, sources)
        # That of a `py_function` whose results do not come from its tensors is one zero.
        leads = [one is not None and one.shape == source.shape for one, source in zip(found, sources, strict=True)]
        is_known = bool(layers or not sources or any(leads))
        return "" if is_known else "code of the model's runs outside of TensorFlow (tf.py_function, numpy)"

    def _as_numpy(
        self, inputs: Sequence[Any], outputs: Sequence[Any], found: Sequence[Any]
    ) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Outputs, and gradients where the inputs have any."""
        pairs = zip(inputs, found, strict=True)
        gradients = [self.to_numpy(gradient) if tensor.dtype.is_floating else None for tensor, gradient in pairs]
        return [*map(self.to_numpy, outputs)], gradients

    def compiled(self, model: Any, inputs: Sequence[Any]) -> CompiledModel | None:
        """Of graphs of Keras' own layers: any other may do something once only, when it is compiled."""
        is_plain = isinstance(model, keras.Model) and is_of_keras_layers(model)
        return CompiledModel(KerasView(model).run, inputs) if is_plain else None

    # layers

    def layers(self, model: Any, inputs: Sequence[Any] | None = None) -> tuple[Layer, ...]:
        """Every layer but the Input layers, inner ones after the one they lie in; or every operation."""
        return _view(model).layers(inputs)

    def layer_name(self, model: Any, reference: Any) -> str | None:
        """Name of a layer; an inner one may also be called by its own name where that is unique."""
        return _view(model).layer_name(reference)

    def layer_object(self, model: Any, name: str) -> Any:
        """The layer of that name."""
        return _view(model).layer_object(name)

    def show_map(self, model: Any, layer: Any, layout: Layout) -> tuple[Any, Any]:
        """In a functional model of two parts, with the map between them."""
        return show_map(model, layer, layout)

    def activations(
        self, model: Any, inputs: Sequence[Any], names: Sequence[str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """Outputs of the layers that are called once and give one tensor, in the order of the computation."""
        return {name: self.to_numpy(value) for name, value in _view(model).activations(inputs, names).items()}

    def layer_gradients(
        self,
        model: Any,
        inputs: Sequence[Any],
        cotangents: Sequence[np.ndarray],
        names: Sequence[str] | None = None,
    ) -> Mapping[str, np.ndarray]:
        """Gradients at the outputs of those layers."""
        gradients = _view(model).gradients(inputs, cotangents, names)
        return {name: self.to_numpy(value) for name, value in gradients.items()}

    @contextmanager
    def watch_passes(self, model: Any, passes: Passes, layers: Sequence[Any] = ()) -> Iterator[None]:
        """Of graphs of Keras layers, in whichever models they run; nothing takes the place of what layers compute."""
        with (
            watch_passes(model, passes, self.to_numpy)
            if isinstance(model, keras.Model) and is_graph(model)
            else nullcontext()
        ):
            yield

    @contextmanager
    def count_passes(self, model: Any, count: Callable[[int], None]) -> Iterator[None]:
        """Of a graph of Keras layers, in whichever models it runs."""
        with count_passes(model, count) if isinstance(model, keras.Model) and is_graph(model) else nullcontext():
            yield

    def runner(self, model: Any, inputs: Sequence[Any], layers: Sequence[str] = ()) -> Runner:
        """One graph for any number of samples, or the model itself, if it cannot be traced.

        Weights that change later may reach the runner or not, as the graph shares or holds them: then take a new one.
        """
        return _view(model).runner(inputs, tuple(dict.fromkeys(layers)))

    # tensors

    def share(self, tensor: Any) -> Any:
        """The tensor itself, which speaks DLPack; on a device, once it has been computed, as no stream is told."""
        tensor = tf.convert_to_tensor(tensor)
        if "GPU" in tensor.device:
            tf.test.experimental.sync_devices()
        # Asked for anything that is no number (a string), TensorFlow's DLPack ends the process.
        plain = tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool or tensor.dtype.is_complex
        return tensor if plain and not tensor.dtype.is_quantized else tensor.numpy()

    def adopt(self, shared: Any, model: Any) -> Any:
        """On the same memory where it is aligned as TensorFlow's own."""
        if isinstance(shared, np.ndarray) or not hasattr(shared, "__dlpack__"):
            return tf.constant(np.asarray(shared))
        if int(shared.__dlpack_device__()[0]) != _CPU and not tf.config.list_logical_devices("GPU"):
            return self.adopt(shared.cpu() if hasattr(shared, "cpu") else np.asarray(shared), model)
        try:
            tensor = tf.experimental.dlpack.from_dlpack(shared.__dlpack__())
        except (tf.errors.InvalidArgumentError, BufferError):  # another order in memory, or a type it does not know
            return tf.constant(np.asarray(shared))
        if tensor.device.endswith("CPU:0") and np.asarray(tensor).ctypes.data % _ALIGNMENT:
            return tf.constant(np.asarray(tensor))
        return tensor

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a TensorFlow tensor or variable."""
        return isinstance(value, tf.Tensor | tf.Variable)

    def unreadable(self, tensor: Any) -> str:
        """Of symbolic tensors, and of types that are no plain numbers."""
        if tf.is_symbolic_tensor(tensor):
            return "is symbolic and has no values: pass arrays"
        if tensor.dtype in (tf.string, tf.resource, tf.variant):
            return f"holds {tensor.dtype.name}, no numbers: pass what the model makes of them"
        return f"holds {tensor.dtype.name}: cast it to a plain type first" if tensor.dtype.is_quantized else ""

    def to_numpy(self, tensor: Any) -> np.ndarray:
        """The values."""
        value = np.asarray(tensor)
        # numpy has no bfloat16 of its own; every bfloat16 is a float32.
        return value.astype(np.float32) if value.dtype.name == "bfloat16" else value

    def tensor(self, value: Any, model: Any) -> tf.Tensor:
        """A fresh tensor; floating point values take the type of the model's first weight."""
        # Copied, because TensorFlow may share memory with a numpy array that its owner changes later.
        value = tf.identity(value) if self.is_tensor(value) else tf.constant(_copy(value))
        dtype = None if model is None else _view(model).floating_type()
        return tf.cast(value, dtype) if dtype is not None and value.dtype.is_floating else value

    def constant(self, array: np.ndarray, like: Any) -> tf.Tensor:
        """A tensor of that type."""
        return tf.constant(np.asarray(array), like.dtype)

    # memory

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Of whichever device."""
        return isinstance(error, tf.errors.ResourceExhaustedError | MemoryError)

    def release_memory(self) -> None:
        """What Python holds in circles."""
        gc.collect()

    def is_accelerated(self, model: Any) -> bool:
        """Whether TensorFlow has a device besides the CPU: it runs there what can be."""
        return bool(tf.config.list_logical_devices("GPU"))

    def same_values(self, one: tf.Tensor, other: tf.Tensor) -> bool:
        """Of tensors of one type and shape."""
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if self.is_accelerated(None):
            return bool(tf.reduce_all(tf.equal(one, other)))
        return bool(np.array_equal(self.to_numpy(one), self.to_numpy(other)))

    def permute(self, tensor: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
        """The tensor with its axes in another order."""
        return tf.transpose(tensor, axes)

    # process

    def shared_parts(self, model: Any) -> Sequence[Any]:
        """The layers of a Keras model, which its twins share."""
        if isinstance(model, keras.Model):
            return (model, *KerasView(model).parts())
        return (model, *(layer for _, layer in LegacyView(model).named_layers())) if is_legacy(model) else (model,)

    def seed(self, seed: int) -> None:
        """Seeds TensorFlow's operations."""
        tf.random.set_seed(seed)

    def random_state(self) -> Any:
        """The seed of the eager context and what has been drawn from it, and the state of the global generator."""
        eager, generator = context.context(), stateful_random_ops.global_generator
        drawn = getattr(eager, "_rng", None)
        state = drawn.getstate() if isinstance(drawn, random.Random) else None
        of_generator = None if generator is None else (id(generator), generator.state.numpy().tobytes())
        return getattr(eager, "_seed", None), state, of_generator

    def restore_random_state(self, state: Any) -> None:
        """Sets them."""
        seed, drawn, of_generator = state
        eager, generator = context.context(), stateful_random_ops.global_generator
        eager._seed, eager._rng = seed, None if drawn is None else random.Random()
        if drawn is not None:
            eager._rng.setstate(drawn)
        if of_generator is not None and id(generator) == of_generator[0]:
            generator.state.assign(np.frombuffer(of_generator[1], np.int64))

    @contextmanager
    def keep_settings(self) -> Iterator[None]:
        """Restores how many objects Keras has named."""
        names = global_state.get_global_attribute("object_name_uids")
        counts = None if names is None else dict(names)
        try:
            yield
        finally:
            names = global_state.get_global_attribute("object_name_uids")
            if names is not None:
                names.clear()
                names.update(counts or {})


def _copy(value: Any) -> np.ndarray:
    """As an array of a type that TensorFlow has."""
    array = np.array(value)
    return array.astype(np.float64) if array.dtype == np.longdouble else array


def _view(model: Any) -> Any:
    if isinstance(model, keras.Model):
        return KerasView(model)
    if is_legacy(model):
        return LegacyView(model)
    return model if isinstance(model, TracedLogits | CompiledModel) else FunctionView(model)


_function_models: WeakValueDictionary[int, TensorFlowFunction] = WeakValueDictionary()
"""So that the same function is the same model, which core knows by its identity, as long as anybody holds it."""


def _check_model(model: keras.Model) -> keras.Model:
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


def _alive(function: Any) -> Any:
    """The function, if its variables still exist: TensorFlow's functions do not hold them."""
    for each in (function, *getattr(function, "concrete_functions", ())):
        try:
            getattr(each, "variables", ())
        except AssertionError as error:
            raise InputError(
                "The variables of this function are gone, because nothing holds them any more. Keep the object that it "
                "belongs to, such as what tf.saved_model.load returned, in a variable of your own."
            ) from error
    return function


def _saved_functions(loaded: Any) -> list[str]:
    """How to write the functions that a saved model brings."""
    signatures = [f"loaded.signatures[{name!r}]" for name in getattr(loaded, "signatures", {})]
    names = [name for name, value in vars(loaded).items() if isinstance(value, COMPILED) and not name.startswith("_")]
    call = ["loaded.__call__"] if callable(loaded) else []
    return [*signatures, *(f"loaded.{name}" for name in names), *call]
