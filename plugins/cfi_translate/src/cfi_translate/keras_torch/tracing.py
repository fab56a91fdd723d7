"""What a layer's `call` does, as a graph: it is run once with symbolic tensors. The layer is left as it was."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.backend.common.variables import Variable
from keras.src.ops.function import Function

from cfi_core.turns import Lock
from cfi_translate.grammar import Refusal, require
from cfi_translate.keras_torch.laid import Laid

_BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("ne", "lt", "le", "gt", "ge", "and", "or", "xor"),
)
_lock = Lock()
_tracing = 0
_methods: dict[str, Any] = {}


def trace(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], owner: Any
) -> tuple[Any, tuple[int, ...]]:
    """Runs a function on symbolic tensors.

    Args:
        function: Such as a layer's `call`.
        args: Positional arguments, with a `Laid` for each tensor.
        kwargs: Arguments by keyword, with a `Laid` for each tensor.
        owner: The layer that it belongs to, if there is one.

    Returns:
        The `keras.Function` of its values; and, if it gives back some of its inputs as they are, None and which.

    Raises:
        Refusal: It draws random numbers, or gives no tensors.
    """
    inputs: list[Any] = []

    def symbolic(leaf: Any) -> Any:
        if not isinstance(leaf, Laid):
            return leaf
        inputs.append(keras.KerasTensor(leaf.shape, leaf.dtype))
        return inputs[-1]

    # In the order of keras.tree.flatten, in which the caller lists the tensors.
    symbolic_args, symbolic_kwargs = keras.tree.map_structure(symbolic, (args, dict(kwargs)))
    with restore(owner) as drew, symbolic_arithmetic():
        result = function(*symbolic_args, **symbolic_kwargs)
        require(not drew(), "it draws random numbers in inference")
        outputs = keras.tree.flatten(result)
        known = outputs and all(isinstance(output, keras.KerasTensor) for output in outputs)
        require(known, "its call gives something else than tensors that depend on its inputs")
        positions = [next((i for i, one in enumerate(inputs) if one is output), None) for output in outputs]
        if None not in positions:
            return None, tuple(position for position in positions if position is not None)
        if any(position is not None for position in positions):
            raise Refusal("its call gives back one of its inputs among other tensors")
        return Function(inputs, outputs), ()


@contextlib.contextmanager
def restore(owner: Any) -> Iterator[Callable[[], bool]]:
    """Leaves the graph nodes, names and random states as they were.

    Yields:
        Tells whether random numbers have been drawn.
    """
    layers = list(owner._flatten_layers()) if isinstance(owner, keras.Layer) else []
    nodes = [(layer, list(layer._inbound_nodes), list(layer._outbound_nodes)) for layer in layers]
    uids = copy.deepcopy(global_state.get_global_attribute("object_name_uids"))
    generator = global_state.get_global_attribute("global_seed_generator")
    states = [variable for layer in layers for variable in layer.non_trainable_variables]
    states += [] if generator is None else [generator.state]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in states]

    def drew() -> bool:
        now = global_state.get_global_attribute("global_seed_generator")
        return now is not generator or any(
            not np.array_equal(keras.ops.convert_to_numpy(variable), value)
            for variable, value in zip(states, before, strict=True)
        )

    try:
        yield drew
    finally:
        for layer, inbound, outbound in nodes:
            layer._inbound_nodes[:], layer._outbound_nodes[:] = inbound, outbound
        for variable, value in zip(states, before, strict=True):
            if not np.array_equal(keras.ops.convert_to_numpy(variable), value):
                variable.assign(value)
        if uids is not None:
            global_state.set_global_attribute("object_name_uids", uids)


@contextlib.contextmanager
def symbolic_arithmetic() -> Iterator[None]:
    """Lets `variable * tensor` make an operation of a symbolic tensor; Keras only does so for `tensor * variable`.

    The methods of Keras' variables are exchanged for the whole process meanwhile; for anything but symbolic tensors
    they do what they did.
    """
    global _tracing
    with _lock:
        if not _tracing:
            methods = {f"__{one}__": vars(Variable)[f"__{one}__"] for one in _BINARY}
            _methods.update(methods)
            for name, method in methods.items():
                setattr(Variable, name, _leave_to_symbols(method))
        _tracing += 1
    try:
        yield
    finally:
        with _lock:
            _tracing -= 1
            if not _tracing:
                for name, method in _methods.items():
                    setattr(Variable, name, method)


def _leave_to_symbols(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @functools.wraps(method)
    def compute(variable: Any, other: Any) -> Any:
        return NotImplemented if isinstance(other, keras.KerasTensor) else method(variable, other)

    return compute
