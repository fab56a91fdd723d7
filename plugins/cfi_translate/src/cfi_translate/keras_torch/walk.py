"""Goes through a Keras graph, call by call, and through what layers do inside."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
from keras.src.models.functional import Functional
from keras.src.ops.function import Function

from cfi_core.errors import CFIError
from cfi_translate.grammar import Refusal, first_line, require
from cfi_translate.keras_torch.calls import LayerCall, OutputSpec, name_of, operands_of, operator
from cfi_translate.keras_torch.graph import LaidGraph
from cfi_translate.keras_torch.laid import Flattened, Laid, tensors_in
from cfi_translate.keras_torch.masks import hand_on, with_mask
from cfi_translate.keras_torch.tracing import trace
from cfi_translate.torch_graph import identifier


class KerasWalk(LaidGraph):
    """The torch graph of one Keras model, which also converts the calls inside other calls.

    Attributes:
        feature_orders: For each Linear module, the order of features that its columns follow.
    """

    def __init__(self, model: Any) -> None:
        """Starts with nothing.

        Args:
            model: The Keras model.
        """
        super().__init__(model.name)
        self.feature_orders: dict[str, Flattened | None] = {}
        self._calls: dict[int, int] = {}
        self._count(model)

    def calls_of(self, layer: Any) -> int:
        """How often the model's graph calls a layer; counted as many where the graph is not known beforehand."""
        return self._calls.get(id(layer), 2)

    def model(self, model: Any, inputs: Sequence[Laid]) -> list[Laid]:
        """Converts a whole model.

        Returns:
            One tensor for each of its outputs.

        Raises:
            TranslationError: It names the layer or operation that cannot be converted.
        """
        with operator.name_refusals(LayerCall(model, "")):
            _check_types(model)
            function = graph_of(model)
            if function is not None:
                return self._graph_of_calls(function, inputs, "")
            args = (inputs[0],) if len(inputs) == 1 else (list(inputs),)
            return self._trace_layer(LayerCall(model, ""), args, {})

    def layer(self, layer: Any, path: str, x: Laid) -> Laid:
        """Converts the call of a layer inside another one that gives one tensor for one.

        Args:
            layer: What is called.
            path: Name for its modules.
            x: What it is called with.
        """
        results = self._call(layer, (x,), {}, path)
        require(len(results) == 1, f"{layer.name!r} in it gives {len(results)} tensors where one is expected")
        return results[0]

    def activation(self, function: Callable[[Any], Any], path: str, x: Laid, owner: Any) -> Laid:
        """Converts an activation that is a function of its own, by what it does to a symbolic tensor.

        Args:
            function: What is called.
            path: Name for its modules.
            x: What it is called with.
            owner: The layer that it belongs to.
        """
        graph, _ = _trace(function, (x,), {}, owner, "its activation cannot be traced")
        if graph is None:
            return x
        results = self._graph_of_calls(graph, [x], f"{path}.")
        require(len(results) == 1, "its activation gives several tensors")
        return results[0]

    def _graph_of_calls(self, function: Any, inputs: Sequence[Laid], prefix: str) -> list[Laid]:
        """Converts a graph of layers and operations.

        Args:
            function: Functional model or `keras.Function`.
            inputs: One tensor for each of its inputs.
            prefix: Path of the layer that it belongs to, with a dot at the end; empty for the model itself.
        """
        known: dict[int, Laid] = {}
        same_shapes = True
        for tensor, x in zip(function._inputs, inputs, strict=True):
            fits = len(tensor.shape) == x.rank
            require(fits, f"{function.name!r} in it takes shape {tensor.shape} and is called with {x.shape}")
            same_shapes &= tuple(tensor.shape) == x.shape
            known[id(tensor)] = self.cast(x, tensor.dtype)
        nodes = list(nodes_of(function))
        for node in nodes:
            if isinstance(node.operation, keras.Layer):
                self.reserve(prefix + identifier(node.operation.name))

        def known_of(leaf: Any) -> Any:
            return known[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

        for node in nodes:
            args, kwargs = keras.tree.map_structure(known_of, (tuple(node.arguments.args), dict(node.arguments.kwargs)))
            specs = tuple(OutputSpec(tuple(one.shape), one.dtype) for one in node.outputs) if same_shapes else ()
            if isinstance(function, Functional) and "training" in kwargs:
                kwargs["training"] = False  # the model hands its own down
            results = self._call(node.operation, args, kwargs, prefix + identifier(node.operation.name), specs)
            known.update((id(tensor), x) for tensor, x in zip(node.outputs, results, strict=True))
        return [known[id(tensor)] for tensor in function._outputs]

    def _call(
        self,
        operation: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        path: str,
        specs: tuple[OutputSpec, ...] = (),
    ) -> list[Laid]:
        """Converts one call of a layer or operation.

        Args:
            operation: What is called.
            args: Positional arguments, with a `Laid` for each tensor.
            kwargs: Arguments by keyword.
            path: Name for its modules.
            specs: What Keras says of its outputs; asked for if not given.
        """
        op = LayerCall(operation, path, specs)
        with operator.name_refusals(op):
            require(not kwargs.get("training"), "it is called with training=True")
            if op.is_layer:
                _check_types(operation)
                args, kwargs = self._autocast(operation, args, kwargs)
            kwargs = with_mask(operation, args, kwargs)
            if graph_of(operation) is not None:
                return self._enter(op, args, kwargs)
            if name_of(operation) not in operator:
                require(op.is_layer, "there is no translation of it")
                return self._trace_layer(op, args, kwargs)
            op = op if specs else replace(op, outputs=_ask_outputs(operation, args, kwargs))
            result = operator.convert(name_of(operation), op, self, *operands_of(operation, args, kwargs))
            results = list(result) if isinstance(result, list | tuple) else [result]
            for x, spec in zip(results, op.outputs, strict=True):
                require(x.rank == len(spec.shape), f"its output has the shape {spec.shape}, not {x.shape}")
            return hand_on(operation, self, tensors_in(args), results)

    def _autocast(
        self, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Floating tensors in the type that a layer computes in, as Keras casts them."""

        def cast(leaf: Any) -> Any:
            floating = isinstance(leaf, Laid) and leaf.dtype.startswith("float")
            return self.cast(leaf, layer.compute_dtype) if floating else leaf

        if not layer.autocast:
            return args, kwargs
        cast_args, cast_kwargs = keras.tree.map_structure(cast, (args, dict(kwargs)))
        return cast_args, cast_kwargs

    def _enter(self, op: LayerCall, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Laid]:
        tensors = keras.tree.flatten(args[0] if args else next(iter(kwargs.values())))
        known = all(isinstance(tensor, Laid) for tensor in tensors)
        require(known, "it is called with something else than tensors of the model")
        return self._mark(op, self._graph_of_calls(graph_of(op.operation), tensors, f"{op.path}."))

    def _trace_layer(self, op: LayerCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Laid]:
        """A layer that is not Keras's own, or for which there is no translation: by what its `call` does."""
        call = op.operation.call
        given = tensors_in((args, kwargs))
        masked = "mask" in kwargs or any(x.mask is not None for x in given)
        require(not masked, "it gets a mask, and there is no translation of it")
        if "training" in inspect.signature(call).parameters:
            kwargs = {**kwargs, "training": False}
        reason = "there is no translation of it, and its call cannot be traced with symbolic tensors"
        graph, order = _trace(call, args, kwargs, op.operation, reason)
        if graph is None:
            return [replace(given[position], mask=None) for position in order]
        return self._mark(op, self._graph_of_calls(graph, given, f"{op.path}." if op.path else ""))

    def _mark(self, op: LayerCall, results: list[Laid]) -> list[Laid]:
        if len(results) > 1:
            return results
        return [replace(results[0], node=self.marker(op, results[0].node))]

    def _count(self, model: Any) -> None:
        function = graph_of(model)
        for node in () if function is None else nodes_of(function):
            self._calls[id(node.operation)] = self._calls.get(id(node.operation), 0) + 1
            if isinstance(node.operation, Function | keras.Sequential):
                self._count(node.operation)


def _trace(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], owner: Any, reason: str
) -> tuple[Any, tuple[int, ...]]:
    """See `trace`; whatever the function raises becomes a refusal with that reason."""
    try:
        return trace(function, args, kwargs, owner)
    except (CFIError, Refusal):
        raise
    except Exception as error:  # the function may be the user's: anything may come out of it
        raise Refusal(f"{reason} ({type(error).__name__}: {first_line(error) or 'no message'})") from error


def _ask_outputs(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[OutputSpec, ...]:
    """What Keras says of the outputs of a call."""

    def symbolic(leaf: Any) -> Any:
        return keras.KerasTensor(leaf.shape, leaf.dtype) if isinstance(leaf, Laid) else leaf

    symbolic_args, symbolic_kwargs = keras.tree.map_structure(symbolic, (args, dict(kwargs)))
    spec = operation.compute_output_spec(*symbolic_args, **symbolic_kwargs)
    return tuple(OutputSpec(tuple(one.shape), one.dtype) for one in keras.tree.flatten(spec))


def _check_types(layer: Any) -> None:
    """Refuses types of numbers that torch would compute with otherwise."""
    policy = layer.dtype_policy
    kinds = {policy.variable_dtype, policy.compute_dtype} - {None}
    require(getattr(layer, "quantization_mode", None) is None, "its weights are quantised")
    single = len(kinds) <= 1 and not kinds & {"float16", "bfloat16"}
    require(single, f"it computes in {policy.compute_dtype}, and stores {policy.variable_dtype}")


def graph_of(model: Any) -> Any:
    """A model's graph of layers; None if it computes in a `call` of its own, or is no model."""
    if isinstance(model, Function) and type(model).call in (Functional.call, Function.call):
        return model
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        return model._functional
    return None


def nodes_of(function: Any) -> Iterator[Any]:
    """The calls in a graph, each after those whose results it takes."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        yield from (node for node in function._nodes_by_depth[depth] if not node.is_input)
