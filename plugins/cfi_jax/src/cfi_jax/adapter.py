"""JAX functions and modules, and JAX arrays. Imported when one is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar
from uuid import uuid4

import jax
import jax.numpy as jnp
import numpy as np

from cfi_core.errors import InputError
from cfi_core.framework import Embedded, FrameworkAdapter, Layer, Parameters, map_structure
from cfi_jax import content
from cfi_jax.keras import check_built, is_keras, keras_layer_name, keras_layers, keras_parameters
from cfi_jax.logits import Logits, ends_in_softmax
from cfi_jax.lookup import FromLookup, find_lookup
from cfi_jax.parameters import parameters_of
from cfi_jax.programs import (
    NOT_TRACEABLE,
    ByName,
    Ended,
    Program,
    body,
    is_equinox,
    is_linen,
    is_nnx,
    layers_of,
    linen_names,
    observe,
    passed_through,
    program,
    weights,
    without_jit,
)
from cfi_jax.runner import JaxRunner, arrays, differentiate, is_floating, tell_missing_gradients
from cfi_jax.watch import Watch

_MODES = ("deterministic", "use_running_average")
_NARROW = {"int64": jnp.int32, "uint64": jnp.uint32, "float64": jnp.float32}


class JaxAdapter(FrameworkAdapter):
    """JAX has no global state: random numbers come from keys that the model is given.

    Layers are Flax modules, by dotted paths: of attributes (NNX) or of parameters (Linen). Linen modules are also found
    inside a plain function that applies them. Without `jax_enable_x64`, float64 becomes float32 as everywhere in JAX.
    """

    name = "jax"
    arithmetic: ClassVar[Any] = jnp

    # models

    def load(self, model: Any) -> Any:
        """Checks that the model can be called and has its weights."""
        kind = type(model).__name__
        if isinstance(model, jax.stages.Compiled):
            raise InputError(
                "This function was compiled ahead of time for arrays of certain shapes, so JAX cannot transform it. "
                "Pass the function that it was made of."
            )
        if is_keras(model):
            check_built(model)
        if is_linen(model) and model.scope is None:
            raise InputError(
                f"The Linen module {kind} holds no variables: pass model.bind(variables), or a function such as "
                f"lambda x: model.apply(variables, x, train=False)."
            )
        if not callable(model):
            raise InputError(
                f"The {kind} cannot be called. Give it a __call__, or pass a function: lambda x: model.method(x)."
            )
        return model

    def twin(self, model: Any, *, share_weights: bool = True) -> Any:
        """An NNX or Equinox module in inference mode; other models keep no state, and are their own twins.

        Arrays cannot be changed in place, so weights can always be shared.
        """
        if isinstance(model, Logits):
            return Logits(self.twin(model.model))
        if isinstance(model, ByName | Ended | FromLookup):
            return replace(model, model=self.twin(model.model))
        if is_nnx(model):
            nnx = sys.modules["flax.nnx"]
            twin = nnx.clone(model)
            nnx.Module.eval(twin)
            return twin
        if is_equinox(model):
            return sys.modules["equinox"].nn.inference_mode(model)
        return model

    def weights(self, model: Any) -> dict[str, tuple[np.ndarray, ...]]:
        """Of NNX, bound Linen and Equinox modules."""
        held = parameters_of(model)
        return {} if held is None else held.read()

    def with_weights(self, model: Any, weights: Mapping[str, Sequence[np.ndarray]]) -> Any:
        """A module made anew around other arrays."""
        held = parameters_of(model)
        return super().with_weights(model, weights) if held is None else self.twin(held.exchange(weights))

    def in_training_mode(self, model: Any) -> bool:
        """Whether an NNX module drops units or takes statistics of the batch; Linen models are told in each call."""
        if not is_nnx(model := body(model)):
            return False
        modules = [module for _, module in sys.modules["flax.nnx"].iter_modules(model)]
        return any(getattr(module, mode, None) is False for module in modules for mode in _MODES)

    def fingerprint(self, model: Any) -> str:
        """See `cfi_jax.content`."""
        if is_keras(body(model)):  # whose settings and graph do not show
            return uuid4().hex
        ways, inner = [], model
        while inner is not body(model):
            ways.append(_way(inner))
            inner = inner.model
        return "-".join([content.fingerprint(inner), *ways])

    def input_names(self, model: Any) -> tuple[str, ...] | None:
        """Parameters of the function, or of the module's `__call__`."""
        return _parameters(model).names or None

    def by_name(self, model: Any, names: Sequence[str], constants: Mapping[str, Any]) -> ByName:
        """The model, called by keyword."""
        _parameters(model).check(names, constants, "the model")
        return ByName(model, tuple(names), MappingProxyType(dict(constants)))

    def split_embedding(self, model: Any, inputs: Sequence[Any], layer: str | None = None) -> Embedded | None:
        """From what the one gather by the tokens gives, of a model that can be traced; by the layer that gives it."""
        target = program(self.twin(model))
        try:
            vectors = find_lookup(lambda *given: target(given, None), inputs)
        except NOT_TRACEABLE:
            return None
        if vectors is None:
            return None
        activation = self.to_numpy(vectors)
        same = (
            name
            for name, array in ({} if layer else self.activations(self.twin(model), inputs)).items()
            if array.shape == activation.shape and np.array_equal(array, activation)
        )
        name = layer or next(same, "gather")
        return Embedded(name, activation, FromLookup(model, name))

    def bind(self, model: Any, held: Sequence[Any]) -> Any:
        """A function that calls the model."""
        target = program(model)

        def call(*inputs: Any) -> Any:
            return target((*inputs, *(_repeat(value, len(inputs[0])) for value in held)), None)

        return call

    def ended_by(self, model: Any, end: Callable[[Any], Any]) -> Ended:
        """The model, followed by that."""
        return Ended(model, end)

    def channel_axis(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        """The last axis, as everywhere in Flax; axis 1 of Equinox's convolutions, and where a Keras layer says so."""
        if len(shape) <= 2:
            return None
        inner = body(model)
        if is_keras(inner):
            named = dict(keras_layers(inner)) if layer is not None else {}
            return 1 if getattr(named.get(layer or ""), "data_format", None) == "channels_first" else len(shape) - 1
        return _axis_by_convolutions(layers_of(inner), shape, layer)

    def without_softmax(self, model: Any, inputs: Sequence[Any]) -> Any | None:
        """Recognises `jax.nn.softmax` and `jax.nn.log_softmax` (Flax has the same) in what the model computes last."""
        if isinstance(model, Logits):
            return None
        target = program(model)
        try:
            found = ends_in_softmax(lambda *given: target(given, None), *inputs)
        except NOT_TRACEABLE:
            return None
        return Logits(model) if found else None

    def precision(self, model: Any) -> frozenset[str]:
        """The model's type, and what accelerators multiply matrices in unless they are told otherwise."""
        quick = {"cpu": frozenset[str](), "tpu": frozenset({"bfloat16"})}
        return super().precision(model) | quick.get(jax.default_backend(), frozenset({"tensorfloat32"}))

    # running

    def outputs(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Forward pass, operation by operation."""
        return map_structure(self.to_numpy, program(model)(inputs, None))

    def vjp(
        self, model: Any, inputs: Sequence[Any], cotangents: Sequence[np.ndarray | None]
    ) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Gradient by `jax.vjp`."""
        target = program(model)
        outputs, found = _pull_back(lambda *values: target(values, None), inputs, cotangents)
        following = iter(found)
        gradients = [self.to_numpy(next(following)) if is_floating(tensor) else None for tensor in inputs]
        return [*map(self.to_numpy, outputs)], gradients

    # layers

    def layers(self, model: Any, inputs: Sequence[Any] | None = None) -> tuple[Layer, ...]:
        """Modules of an NNX model, modules with variables of a Linen model; with inputs: all Linen modules called."""
        seen = None if inputs is None else observe(self.twin(model), inputs)
        model = body(model)
        if is_keras(model):
            kinds = {name: type(layer).__name__ for name, layer in keras_layers(model)}
        elif named := layers_of(model):
            kinds = {name: type(module).__name__ for name, module in named.items()}
        elif seen is not None:
            kinds = seen.watch.kinds
        else:
            kinds = dict.fromkeys(linen_names(model), "Module") if is_linen(model) else {}
        shapes = {} if seen is None else {name: array.shape[1:] for name, array in seen.arrays.items()}
        return tuple(Layer(name, kind, shapes.get(name)) for name, kind in kinds.items())

    def layer_name(self, model: Any, reference: Any) -> str | None:
        """Path of a module; a name of a Linen module is taken as it is, since only a forward pass can tell them all."""
        model = body(model)
        if is_keras(model):
            return keras_layer_name(model, reference)
        if named := layers_of(model):
            if isinstance(reference, str):
                return reference if reference in named else None
            # A module may stand in several places; the first one names it.
            return next((name for name, module in named.items() if module is reference), None)
        if isinstance(reference, str):
            return reference if reference and "flax.linen" in sys.modules else None
        return _linen_path(model, reference) if is_linen(model) and is_linen(reference) else None

    def layer_object(self, model: Any, name: str) -> Any:
        """The NNX module of that path; a Linen module exists only while the model runs, so its path stands for it."""
        if is_keras(body(model)):
            return dict(keras_layers(body(model)))[name]
        return layers_of(body(model)).get(name, name)

    def activations(
        self, model: Any, inputs: Sequence[Any], names: Sequence[str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """Outputs of the layers that are called once."""

        def read(target: Program, inputs: Sequence[Any]) -> dict[str, Any]:
            found: dict[str, jax.Array] = {}

            def keep(name: str, array: jax.Array) -> None:
                if names is None or name in names:
                    found[name] = array

            watch = Watch(keep)
            target(inputs, watch)
            return {name: array for name, array in found.items() if watch.is_single(name)}

        return {name: self.to_numpy(array) for name, array in passed_through(model, inputs, read).items()}

    def layer_gradients(
        self,
        model: Any,
        inputs: Sequence[Any],
        cotangents: Sequence[np.ndarray],
        names: Sequence[str] | None = None,
    ) -> Mapping[str, np.ndarray]:
        """Gradients with respect to zeros that are added to the layers' outputs."""
        target = program(model)
        zeros = {
            name: jnp.zeros(array.shape, array.dtype)
            for name, array in observe(model, inputs).arrays.items()
            if (names is None or name in names) and is_floating(array)
        }

        def of_zeros(*added: Any) -> Any:
            moves = dict(zip(zeros, added, strict=True))
            watch = Watch(lambda name, array: array + moves[name] if name in moves else None)
            return target(inputs, watch)

        _, gradients = _pull_back(of_zeros, list(zeros.values()), cotangents)
        return {name: self.to_numpy(gradient) for name, gradient in zip(zeros, gradients, strict=True)}

    def runner(self, model: Any, inputs: Sequence[Any], layers: Sequence[str] = ()) -> JaxRunner:
        """See `cfi_jax.runner`."""
        return JaxRunner(model, inputs, layers)

    # tensors

    def share(self, tensor: Any) -> Any:
        """The array itself, computed to the end; a numpy array where it lies on several devices or has a rare type."""
        tensor = jax.block_until_ready(tensor)
        try:
            tensor.__dlpack__()
        except (BufferError, TypeError, ValueError, jax.errors.JaxRuntimeError):
            return self.to_numpy(tensor)
        return tensor

    def adopt(self, shared: Any, model: Any) -> Any:
        """An array on the same memory, where it lies on the model's device and as JAX needs it; otherwise a copy.

        Raises:
            InputError: An integer does not fit into the 32 bits that JAX has.
        """
        return _place(_in_types_of_jax(lambda: _import_array(shared)), model)

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a `jax.Array`."""
        return isinstance(value, jax.Array)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        """The values; shares memory on the CPU."""
        value = np.asarray(tensor)
        # numpy has no bfloat16 and no 8-bit floats of its own; every one of them is a float32.
        return value if value.dtype.kind in "fiubc" and value.dtype.isbuiltin == 1 else value.astype(np.float32)

    def tensor(self, value: Any, model: Any) -> jax.Array:
        """A fresh array on the model's device, in the floating point type of its weights.

        Raises:
            InputError: An integer does not fit into the 32 bits that JAX has.
        """
        if not isinstance(value, jax.Array):
            value = np.array(value)
            value = value.astype(np.float64 if value.dtype == np.longdouble else value.dtype.newbyteorder("="))
        array = _in_types_of_jax(lambda: jnp.array(value, copy=True))
        like = next((weight for weight in weights(model) if is_floating(weight)), None)
        return _place(array if like is None or not is_floating(array) else array.astype(like.dtype), model)

    # memory

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Of whichever device: XLA has one kind of error for all that fails at run time."""
        return isinstance(error, MemoryError) or (
            isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
        )

    def is_accelerated(self, model: Any) -> bool:
        """Whether jax computes elsewhere than on the CPU."""
        return jax.default_backend() != "cpu"

    def permute(self, tensor: Any, axes: Sequence[int]) -> jax.Array:
        """The array with its axes in another order."""
        return jnp.transpose(tensor, axes)


def _repeat(value: Any, samples: int) -> Any:
    """One sample as many."""
    return jnp.repeat(value, samples, axis=0) if value.shape[:1] == (1,) else value


def _pull_back(
    function: Any, values: Sequence[Any], cotangents: Sequence[np.ndarray | None]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The results, and gradients at the floating point values."""
    with tell_missing_gradients():
        outputs, back = differentiate(lambda *values: arrays(function(*values)), values)
        pairs = [pair for pair in zip(cotangents, outputs, strict=True) if is_floating(pair[1])]
        given = (jnp.zeros_like(a) if one is None else jnp.asarray(one, a.dtype) for one, a in pairs)
        return outputs, back(tuple(given))


def _axis_by_convolutions(layers: Mapping[str, Any], shape: Sequence[int | None], layer: str | None) -> int:
    """The last axis, as in Flax; where Equinox's convolutions take that many channels on axis 1, that one."""
    convolutions = {name: one for name, one in layers.items() if hasattr(one, "num_spatial_dims")}
    of_rank = [one for one in convolutions.values() if getattr(one, "num_spatial_dims", 0) + 2 == len(shape)]
    if layer in convolutions:
        return 1
    sizes = {getattr(one, name, None) for one in of_rank for name in ("in_channels", "out_channels")}
    if layer is None:
        sizes = {getattr(one, "in_channels", None) for one in of_rank[:1]}
    is_first = bool(of_rank) and (shape[1] in sizes or shape[-1] not in sizes)
    return 1 if is_first else len(shape) - 1


def _linen_path(model: Any, reference: Any) -> str | None:
    """Path, from `model` on, of a module that is bound to the same variables."""
    depth = len(model.path)
    if reference.scope is None or reference.scope.root is not model.scope.root or reference.path[:depth] != model.path:
        return None
    return ".".join(reference.path[depth:]) or None


def _import_array(shared: Any) -> jax.Array:
    try:
        return jax.dlpack.from_dlpack(shared)
    except (BufferError, TypeError, ValueError, RuntimeError):
        # It lies on another kind of device, or with gaps.
        host = shared.cpu() if hasattr(shared, "cpu") else shared
        try:
            return jnp.asarray(np.asarray(host) if isinstance(host, np.ndarray) else np.from_dlpack(host))
        except (BufferError, TypeError, RuntimeError):
            return jax.dlpack.from_dlpack(host.contiguous() if hasattr(host, "contiguous") else host)


def _in_types_of_jax(make: Callable[[], jax.Array]) -> jax.Array:
    """An array made with all its 64 bits, and then in 32 where the user has asked JAX for no more."""
    if jax.config.jax_enable_x64:
        return make()
    with jax.enable_x64(True):  # JAX would otherwise cut integers off without a word
        array = make()
        narrow = _NARROW.get(array.dtype.name)
        if narrow is None:
            return array
        if jnp.issubdtype(narrow, jnp.integer) and array.size:
            limits = jnp.iinfo(narrow)
            if int(array.min()) < limits.min or int(array.max()) > limits.max:
                raise InputError(
                    f"Integers up to {int(array.max())} do not fit into the 32 bits that JAX computes with. Call "
                    f"jax.config.update('jax_enable_x64', True) first, or pass smaller integers."
                )
        return array.astype(narrow)


def _place(array: jax.Array, model: Any) -> jax.Array:
    """The array on the model's device, if that is one."""
    devices = next((weight.devices() for weight in weights(model)), array.devices())
    return jax.device_put(array, next(iter(devices))) if len(devices) == 1 and devices != array.devices() else array


def _parameters(model: Any) -> Parameters:
    function = without_jit(model)
    if is_keras(function):
        return keras_parameters(function)
    return Parameters.of(function.__call__ if is_nnx(function) or is_linen(function) else function)


def _way(model: Any) -> str:
    """In what way a model is used that holds another."""
    if isinstance(model, ByName):
        return f"{model.names}{sorted(model.constants.items())}"
    if isinstance(model, FromLookup):
        return f"from {model.layer}"
    return f"{model.end}" if isinstance(model, Ended) else "logits"
