"""Goes through a Keras graph, call by call, and through what layers do inside."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import torch
from keras.src.models.functional import Functional
from keras.src.ops.function import Function

from cfi_core.errors import CFIError
from cfi_translate.grammar import Refusal
from cfi_translate.keras_torch.builder import Builder, identifier
from cfi_translate.keras_torch.calls import Call, Spec, refusal, translation_of
from cfi_translate.keras_torch.tracing import traced_graph
from cfi_translate.keras_torch.values import Flattened, Shape, Value, plain_axes

# Layers whose call takes a mask that changes what they compute in inference, and whose translation heeds it.
HEEDS_MASK = frozenset(
    ["LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "GlobalAveragePooling1D", "MultiHeadAttention", "Softmax"]
)
# Layers that look at the mask in training only.
IGNORES_MASK = frozenset({"BatchNormalization"})
# Layers whose output has no mask, and those whose sequences keep it.
DROPS_MASK = frozenset({"GlobalAveragePooling1D", "Flatten"})
RETURNS_MASK = frozenset({"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"})


class Walk:
    """The translation of one model.

    Attributes:
        builder: Writes the torch graph.
        feature_orders: For each Linear module, the order of features that its columns follow.
    """

    def __init__(self, builder: Builder, model: Any) -> None:
        self.builder = builder
        self.feature_orders: dict[str, Flattened | None] = {}
        self._calls: dict[int, int] = {}
        self._count(model)

    def calls_of(self, layer: Any) -> int:
        """How often the model's graph calls a layer; counted as many where the graph is not known beforehand."""
        return self._calls.get(id(layer), 2)

    def is_layer(self, operation: Any) -> bool:
        """Whether it is a layer, not an operation of `keras.ops`."""
        return isinstance(operation, keras.Layer)

    def graph(self, function: Any, inputs: Sequence[Value], prefix: str = "") -> list[Value]:
        """Translates a graph of layers and operations.

        Args:
            function: Functional model or `keras.Function`.
            inputs: One value for each of its inputs.
            prefix: Path of the layer that it belongs to, with a dot at the end; empty for the model itself.

        Returns:
            One value for each of its outputs.
        """
        known: dict[int, Value] = {}
        same_shapes = True
        for tensor, value in zip(function._inputs, inputs, strict=True):
            if len(tensor.shape) != value.rank:
                raise refusal(function, f"its input of shape {tensor.shape} is called with one of {value.shape}")
            same_shapes &= tuple(tensor.shape) == value.shape
            known[id(tensor)] = self.cast(value, tensor.dtype)
        nodes = [
            node
            for depth in sorted(function._nodes_by_depth, reverse=True)
            for node in function._nodes_by_depth[depth]
            if not node.is_input
        ]
        for operation in {id(node.operation): node.operation for node in nodes}.values():
            if self.is_layer(operation):
                self.builder.reserve(prefix + identifier(operation.name))
        for node in nodes:

            def value_of(leaf: Any) -> Any:
                return known[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

            args, kwargs = keras.tree.map_structure(value_of, (tuple(node.arguments.args), dict(node.arguments.kwargs)))
            specs = tuple(Spec(tuple(one.shape), one.dtype) for one in node.outputs) if same_shapes else None
            if isinstance(function, Functional) and "training" in kwargs:
                kwargs["training"] = False  # the model hands its own down
            path = prefix + identifier(node.operation.name)
            results = self.operation(node.operation, args, kwargs, path, specs)
            for tensor, value in zip(node.outputs, results, strict=True):
                known[id(tensor)] = value
        return [known[id(tensor)] for tensor in function._outputs]

    def model(self, model: Any, inputs: Sequence[Value]) -> list[Value]:
        """Translates a model that has a `call` of its own."""
        args = (inputs[0],) if len(inputs) == 1 else (list(inputs),)
        self.check(model)
        return self._traced(model, args, {}, "")

    def check(self, layer: Any) -> None:
        """Refuses types of numbers that torch would compute with otherwise."""
        self._check_types(layer)

    def single(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], path: str) -> Value:
        """Translates a call that gives one tensor."""
        results = self.operation(operation, args, kwargs, path)
        if len(results) != 1:
            raise refusal(operation, f"it gives {len(results)} tensors where one is expected")
        return results[0]

    def operation(
        self,
        operation: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        path: str,
        specs: tuple[Spec, ...] | None = None,
    ) -> list[Value]:
        """Translates one call of a layer or operation.

        Args:
            operation: What is called.
            args: Positional arguments, with values for tensors.
            kwargs: Arguments by keyword, likewise.
            path: Name for its modules.
            specs: What Keras says of its outputs; asked for if not given.
        """
        if kwargs.get("training"):
            raise refusal(operation, "it is called with training=True")
        self._check_types(operation)
        if self.is_layer(operation) and operation.autocast:
            args, kwargs = self._autocast(operation, args, kwargs)
        args, kwargs = self._with_mask(operation, args, dict(kwargs))
        if graph_of(operation) is not None:
            return self._nested(operation, args, kwargs, path)
        translate = translation_of(operation)
        if translate is None:
            return self._traced(operation, args, kwargs, path)
        if specs is None:
            specs = self._specs(operation, args, kwargs)
        call = Call(self, operation, path, tuple(args), kwargs, specs)
        try:
            result = translate(call)
        except Refusal as error:
            raise call.refusal(str(error)) from error
        results = list(result) if isinstance(result, list | tuple) else [result]
        for value, spec in zip(results, specs, strict=True):
            if value.rank != len(spec.shape):
                raise refusal(operation, f"its output has the shape {spec.shape}, not {value.shape}")
        return self._masked(operation, args, results)

    def traced_function(self, call: Call, function: Callable[..., Any], value: Value, path: str) -> Value:
        """Translates a function of one tensor, by what it does to a symbolic one."""
        try:
            graph, _ = traced_graph(function, (value,), {}, call.operation)
        except CFIError:
            raise
        except Exception as error:  # the function is the user's: anything may come out of it
            raise call.refusal(f"its activation cannot be traced ({type(error).__name__}: {error})") from error
        if graph is None:
            return value
        results = self.graph(graph, [value], f"{path}.")
        if len(results) != 1:
            raise call.refusal("its activation gives several tensors")
        return results[0]

    def constant(self, path: str, array: np.ndarray, like: Value) -> Any:
        """A constant that is combined with a value, as a number or as a buffer in the value's layout."""
        if array.size == 1 and array.ndim <= like.rank:
            return array.item()
        if array.ndim > like.rank or like.flattened is not None:
            raise ValueError(f"a constant of shape {array.shape} does not fit a tensor of shape {like.shape}")
        array = array.reshape((1,) * (like.rank - array.ndim) + array.shape)
        return self.builder.constant(path, np.ascontiguousarray(array.transpose(like.axes)))

    def floating(self, value: Value, dtype: str) -> Value:
        """The value as a tensor without reordered features, of a type that a layer computes in."""
        if value.flattened is not None:
            value = self.builder.plain(value)
        return self.cast(value, dtype)

    def cast(self, value: Value, dtype: str) -> Value:
        """The value as another type."""
        if value.dtype == dtype:
            return value
        kind = getattr(torch, dtype, None)
        if kind is None:
            raise ValueError(f"torch has no type {dtype}")
        return replace(value, node=self.builder.graph.call_method("to", (value.node, kind)), dtype=dtype)

    def _autocast(
        self, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Floating tensors in the type that a layer computes in, as Keras casts them."""

        def cast(leaf: Any) -> Any:
            floating = isinstance(leaf, Value) and leaf.dtype.startswith("float")
            return self.cast(leaf, layer.compute_dtype) if floating else leaf

        return keras.tree.map_structure(cast, (tuple(args), dict(kwargs)))

    def _nested(self, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], path: str) -> list[Value]:
        function = graph_of(model)
        tensors = keras.tree.flatten(args[0] if args else next(iter(kwargs.values())))
        if not all(isinstance(tensor, Value) for tensor in tensors):
            raise refusal(model, "it is called with something else than tensors of the model")
        results = self.graph(function, tensors, f"{path}.")
        if len(results) == 1:
            results = [replace(results[0], node=self.builder.marker(path, results[0].node))]
        return results

    def _traced(self, operation: Any, args: Sequence[Any], kwargs: dict[str, Any], path: str) -> list[Value]:
        """A layer that is not Keras's own, or for which there is no translation: by what its `call` does."""
        if not self.is_layer(operation):
            raise refusal(operation, "there is no translation of it")
        if "mask" in kwargs or any(value.mask is not None for value in _values((args, kwargs))):
            raise refusal(operation, "it gets a mask, and there is no translation of it")
        if "training" in inspect.signature(operation.call).parameters:
            kwargs = {**kwargs, "training": False}
        try:
            graph, order = traced_graph(operation.call, tuple(args), kwargs, operation)
        except CFIError:
            raise
        except Exception as error:  # its call may hold the user's code: anything may come out of it
            first = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no message"
            raise refusal(
                operation,
                f"there is no translation of it, and its call cannot be traced with symbolic tensors "
                f"({type(error).__name__}: {first})",
            ) from error
        values = _values((args, kwargs))
        if graph is None:
            return [replace(values[position], mask=None) for position in order]
        results = self.graph(graph, values, f"{path}." if path else "")
        if len(results) == 1 and path:
            results = [replace(results[0], node=self.builder.marker(path, results[0].node))]
        return results

    def _specs(self, operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Spec, ...]:
        def symbolic(leaf: Any) -> Any:
            return keras.KerasTensor(leaf.shape, leaf.dtype) if isinstance(leaf, Value) else leaf

        args, kwargs = keras.tree.map_structure(symbolic, (tuple(args), dict(kwargs)))
        spec = operation.compute_output_spec(*args, **kwargs)
        return tuple(Spec(tuple(one.shape), one.dtype) for one in keras.tree.flatten(spec))

    def _with_mask(
        self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Hands the masks of its inputs to a layer that heeds them, as Keras does."""
        if not self.is_layer(operation) or isinstance(operation, Function | keras.Sequential):
            return args, kwargs
        kind = type(operation).__name__
        if kwargs.get("mask", 0) is None:
            del kwargs["mask"]
        masked = [value for value in _values((args, kwargs)) if value.mask is not None]
        takes_mask = operation._call_has_mask_arg if hasattr(operation, "_call_has_mask_arg") else False
        if not masked or kind == "MultiHeadAttention" or not takes_mask:
            return args, kwargs
        if kind in IGNORES_MASK:
            return args, kwargs
        if kind not in HEEDS_MASK:
            raise refusal(operation, "it heeds the mask of its input, and there is no translation of that")
        first = args[0] if args else next(iter(kwargs.values()))
        if "mask" not in kwargs and len(args) < 2 and isinstance(first, Value):
            kwargs["mask"] = first.mask
        return args, kwargs

    def _masked(self, operation: Any, args: Sequence[Any], results: list[Value]) -> list[Value]:
        """Hands masks on, as the layer does."""
        values = _values(args)
        if not self.is_layer(operation) or all(value.mask is None for value in values):
            return results
        own = type(operation).compute_mask
        if not operation.supports_masking or any(value.mask is not None for value in results):
            return results
        if own is keras.Layer.compute_mask:
            return [replace(results[0], mask=values[0].mask)] if len(results) == 1 and len(values) == 1 else results
        if own is keras.layers.Add.compute_mask:
            masks = [value.mask for value in values]
            if any(mask is None for mask in masks):
                return results
            mask = masks[0]
            for other in masks[1:]:
                if other is not mask:
                    node = self.builder.function(torch.logical_or, mask.node, other.node)  # type: ignore[union-attr]
                    mask = Value(node, mask.shape, plain_axes(mask.rank), "bool")  # type: ignore[union-attr]
            return [replace(results[0], mask=mask)]
        if type(operation).__name__ in DROPS_MASK:
            return results
        if type(operation).__name__ in RETURNS_MASK and getattr(operation, "return_sequences", True):
            return [replace(results[0], mask=values[0].mask), *results[1:]]
        if type(operation).__name__ in RETURNS_MASK:
            return results
        raise refusal(operation, "what it makes of the mask of its input has no translation")

    def _check_types(self, operation: Any) -> None:
        if not self.is_layer(operation):
            return
        policy = operation.dtype_policy
        kinds = {policy.variable_dtype, policy.compute_dtype} - {None}
        if getattr(operation, "quantization_mode", None) is not None:
            raise refusal(operation, "its weights are quantised")
        if len(kinds) > 1 or kinds & {"float16", "bfloat16"}:
            raise refusal(operation, f"it computes in {policy.compute_dtype}, and stores {policy.variable_dtype}")

    def _count(self, model: Any, times: int = 1) -> None:
        function = graph_of(model)
        if function is None:
            return
        for nodes in function._nodes_by_depth.values():
            for node in nodes:
                if node.is_input:
                    continue
                self._calls[id(node.operation)] = self._calls.get(id(node.operation), 0) + times
                if isinstance(node.operation, Function | keras.Sequential):
                    self._count(node.operation, times)


def graph_of(model: Any) -> Any:
    """A model's graph of layers; None if it computes in a `call` of its own, or is no model."""
    if isinstance(model, Function) and type(model).call in (Functional.call, Function.call):
        return model
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        return model._functional
    return None


def _values(structure: Any) -> list[Value]:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Value)]


def input_shape(array: np.ndarray) -> Shape:
    """Shape of an example with the number of samples left open."""
    return (None, *array.shape[1:])
