"""A model against itself on the other side of a bridge: outputs, input gradients, activations and gradients at layers.

The reference is written in the model's own framework and with nothing of CFI's. Run as a script, it prints the table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from keras_zoo import KERAS_CASES, KerasCase
from torch_zoo import TORCH_CASES, TorchCase

import keras  # isort: skip
import tensorflow as tf
import torch
from torch import nn

from cfi_bridge import keras_host, torch_host
from cfi_core.adapters import adapter_for
from cfi_core.contract import BridgeRequest, Converted
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.registry import registry


@dataclass(frozen=True)
class Pass:
    """Everything in the axes of the user's model; integer inputs have no gradient."""

    outputs: list[np.ndarray]
    input_gradients: list[np.ndarray]
    activations: list[np.ndarray]
    layer_gradients: list[np.ndarray]


@dataclass(frozen=True)
class Row:
    """Relative L2 differences (the largest of each kind) between the bridge and the model's own framework."""

    name: str
    outputs: float
    input_gradients: float
    activations: float
    layer_gradients: float
    floor: float
    seconds: float

    @property
    def rounding(self) -> float:
        """What gradients may differ by: 1e-5, or what they differ by between two ways of their own framework."""
        return max(1e-5, 2 * self.floor)

    def __str__(self) -> str:
        figures = (self.outputs, self.input_gradients, self.activations, self.layer_gradients, self.floor)
        return f"{self.name:<28}" + "".join(f"{figure:>11.1e}" for figure in figures) + f"{self.seconds:>9.1f}"


HEAD = f"{'model':<28}" + "".join(f"{name:>11}" for name in ("outputs", "gradients", "layers", "at layers", "floor"))


def torch_row(name: str, case: TorchCase, *, double: bool = False) -> Row:
    adapter = adapter_for(registry(), "torch")
    model, arrays = _in_double(adapter, case.make(), case.inputs()) if double else (case.make(), case.inputs())
    tensors = tuple(adapter.tensor(array, model) for array in arrays)
    start = perf_counter()
    converted = keras_host.bridge(BridgeRequest(adapter, adapter.twin(model), tensors, case.layers))
    seconds = perf_counter() - start
    return _row(
        name, torch_reference(model, arrays, case.layers), through_keras(converted, arrays, case.layers), 0.0, seconds
    )


def keras_row(name: str, case: KerasCase, *, double: bool = False) -> Row:
    adapter = adapter_for(registry(), "tensorflow")
    model, arrays = _in_double(adapter, case.make(), case.inputs()) if double else (case.make(), case.inputs())
    tensors = tuple(adapter.tensor(array, model) for array in arrays)
    start = perf_counter()
    converted = torch_host.bridge(BridgeRequest(adapter, adapter.twin(model), tensors, case.layers))
    seconds = perf_counter() - start
    reference = keras_reference(model, arrays, case)
    compiled = keras_reference(model, arrays, case, compiled=True)
    floor = max(
        _apart(reference.input_gradients, compiled.input_gradients, 0.0),
        _apart(reference.layer_gradients, compiled.layer_gradients),
    )
    return _row(name, reference, through_torch(converted, arrays, case.layers), floor, seconds)


def _in_double(adapter: FrameworkAdapter, model: Any, arrays: Sequence[np.ndarray]) -> tuple[Any, list[np.ndarray]]:
    precise = adapter.in_double(model)
    assert precise is not None, "the model has no copy in double precision"
    return precise, [array.astype(np.float64) if array.dtype.kind == "f" else array for array in arrays]


def _row(name: str, reference: Pass, bridged: Pass, floor: float, seconds: float) -> Row:
    return Row(
        name,
        _apart(reference.outputs, bridged.outputs),
        _apart(reference.input_gradients, bridged.input_gradients, 0.0),
        _apart(reference.activations, bridged.activations),
        _apart(reference.layer_gradients, bridged.layer_gradients),
        floor,
        seconds,
    )


def _apart(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], nothing: float = np.inf) -> float:
    differences = []
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape, (a.shape, b.shape)
        norm = np.linalg.norm(a.astype(np.float64))
        assert norm > 0, "zeros prove nothing"
        differences.append(float(np.linalg.norm(a.astype(np.float64) - b) / norm))
    return max(differences, default=nothing)


def _weights(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


# in the model's own framework


def torch_reference(model: nn.Module, arrays: Sequence[np.ndarray], layers: Sequence[str]) -> Pass:
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, given: Any, output: Any) -> Any:
            # A copy goes on, because the next module may work in place.
            several = isinstance(output, tuple)
            kept[name] = output[0] if several else output
            copy = kept[name].clone()
            return (copy, *output[1:]) if several else copy

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    inputs = [torch.tensor(array, requires_grad=array.dtype.kind == "f") for array in arrays]
    outputs = _torch_flat(model(*inputs))
    for handle in handles:
        handle.remove()
    total = sum(
        (output * torch.tensor(w)).sum()
        for output, w in zip(outputs, _weights([o.shape for o in outputs]), strict=True)
    )
    floating = [value for value in inputs if value.requires_grad]
    gradients = torch.autograd.grad(total, [*floating, *(kept[name] for name in layers)])
    arrays = [gradient.numpy() for gradient in gradients]
    return Pass(
        [output.detach().numpy() for output in outputs],
        arrays[: len(floating)],
        [kept[name].detach().numpy() for name in layers],
        arrays[len(floating) :],
    )


def _torch_flat(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def keras_reference(model: Any, arrays: Sequence[np.ndarray], case: KerasCase, *, compiled: bool = False) -> Pass:
    inputs = [tf.constant(array) for array in arrays]
    floating = [value for value in inputs if value.dtype.is_floating]
    weights = _weights([output.shape for output in _keras_flat(model(_one(inputs), training=False))])

    def whole(*values: Any) -> Any:
        return _keras_flat(model(_one(values), training=False))

    wrapped = tf.function(whole) if compiled else whole
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(floating)
        outputs = wrapped(*inputs)
        total = tf.add_n([tf.reduce_sum(output * w) for output, w in zip(outputs, weights, strict=True)])
    input_gradients = [gradient.numpy() for gradient in tape.gradient(total, floating)] if floating else []
    activations, layer_gradients = [], []
    for name in case.layers:
        front, rest = case.parts(model, name) if case.parts else _keras_parts(model, name)
        activation = front(_one(inputs))
        continued = tf.function(rest) if compiled else rest
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(activation)
            outputs_from_there = _keras_flat(continued(_one(inputs), activation))
            total = tf.add_n([tf.reduce_sum(output * w) for output, w in zip(outputs_from_there, weights, strict=True)])
        layer_gradients.append(tape.gradient(total, activation).numpy())
        activations.append(activation.numpy())
    return Pass([output.numpy() for output in outputs], input_gradients, activations, layer_gradients)


def _keras_parts(model: Any, name: str) -> tuple[Any, Any]:
    activation = model.get_layer(name).output
    front, rest = keras.Model(model.inputs, activation), keras.Model([*model.inputs, activation], model.outputs)

    def from_there(inputs: Any, value: Any) -> Any:
        return rest([*(inputs if isinstance(inputs, list) else [inputs]), value], training=False)

    return (lambda inputs: front(inputs, training=False)), from_there


def _one(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _keras_flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):
        return [outputs[key] for key in sorted(outputs)]
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


# on the other side of the bridge


def through_keras(converted: Converted, arrays: Sequence[np.ndarray], layers: Sequence[str]) -> Pass:
    names = [converted.layers[name].name for name in layers]
    host = converted.model
    reader = keras.Model(host.inputs, [*host.outputs, *(host.get_layer(name).output for name in names)])
    inputs = [
        tf.constant(_forth(array, axes)) for array, axes in zip(arrays, _all(converted.input_axes, arrays), strict=True)
    ]
    floating = [value for value in inputs if value.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(floating)
        results = _keras_flat(reader(_one(inputs), training=False))
        outputs, activations = results[: len(host.outputs)], results[len(host.outputs) :]
        axes = _all(converted.output_axes, outputs)
        weights = [_forth(w, a) for w, a in zip(_weights(_home_shapes(outputs, axes)), axes, strict=True)]
        total = tf.add_n([tf.reduce_sum(output * w) for output, w in zip(outputs, weights, strict=True)])
    gradients = tape.gradient(total, [*floating, *activations])
    if not floating:  # the tape had nothing to watch: it starts at each layer
        gradients = [
            _keras_gradient(host, inputs, name, activation, weights)
            for name, activation in zip(names, activations, strict=True)
        ]
    return _home(converted, arrays, layers, outputs, activations, gradients)


def _keras_gradient(model: Any, inputs: Sequence[Any], name: str, activation: Any, weights: Sequence[Any]) -> Any:
    _, rest = _keras_parts(model, name)
    with tf.GradientTape() as tape:
        tape.watch(activation)
        outputs = _keras_flat(rest(_one(inputs), activation))
        total = tf.add_n([tf.reduce_sum(output * w) for output, w in zip(outputs, weights, strict=True)])
    return tape.gradient(total, activation)


def through_torch(converted: Converted, arrays: Sequence[np.ndarray], layers: Sequence[str]) -> Pass:
    host = converted.model
    kept: dict[str, torch.Tensor] = {}
    handles = [
        host.get_submodule(converted.layers[name].name).register_forward_hook(
            lambda module, given, output, name=name: kept.__setitem__(name, output)
        )
        for name in layers
    ]
    inputs = [
        torch.tensor(_forth(array, axes), requires_grad=array.dtype.kind == "f")
        for array, axes in zip(arrays, _all(converted.input_axes, arrays), strict=True)
    ]
    outputs = _torch_flat(host(*inputs))
    for handle in handles:
        handle.remove()
    axes = _all(converted.output_axes, outputs)
    weights = [_forth(w, a) for w, a in zip(_weights(_home_shapes(outputs, axes)), axes, strict=True)]
    total = sum((output * torch.tensor(w)).sum() for output, w in zip(outputs, weights, strict=True))
    floating = [value for value in inputs if value.requires_grad]
    activations = [kept[name] for name in layers]
    gradients = torch.autograd.grad(total, [*floating, *activations])
    return _home(converted, arrays, layers, outputs, activations, gradients)


def _home(
    converted: Converted,
    arrays: Sequence[np.ndarray],
    layers: Sequence[str],
    outputs: Sequence[Any],
    activations: Sequence[Any],
    gradients: Sequence[Any],
) -> Pass:
    input_axes = [
        axes for axes, array in zip(_all(converted.input_axes, arrays), arrays, strict=True) if array.dtype.kind == "f"
    ]
    layer_axes = [converted.layers[name].axes for name in layers]
    count = len(input_axes)
    return Pass(
        _back(outputs, _all(converted.output_axes, outputs)),
        _back(gradients[:count], input_axes),
        _back(activations, layer_axes),
        _back(gradients[count:], layer_axes),
    )


def _all(axes: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    return [axes[i] if i < len(axes) else None for i in range(len(values))]


def _forth(array: np.ndarray, axes: Any) -> np.ndarray:
    return array if axes is None else np.ascontiguousarray(np.transpose(array, axes))


def _back(values: Sequence[Any], axes: Sequence[Any]) -> list[np.ndarray]:
    arrays = [value.detach().numpy() if isinstance(value, torch.Tensor) else value.numpy() for value in values]
    return [a if order is None else np.transpose(a, np.argsort(order)) for a, order in zip(arrays, axes, strict=True)]


def _home_shapes(values: Sequence[Any], axes: Sequence[Any]) -> list[tuple[int, ...]]:
    shapes = [tuple(value.shape) for value in values]
    return [
        s if order is None else tuple(s[i] for i in np.argsort(order)) for s, order in zip(shapes, axes, strict=True)
    ]


def main(wanted: Sequence[str]) -> None:
    """Prints a row for each model (or for those named), torch models first."""
    print(HEAD + f"{'build, s':>9}")
    for cases, row in ((TORCH_CASES, torch_row), (KERAS_CASES, keras_row)):
        for name, case in cases.items():
            if not wanted or name in wanted:
                print(row(name, case), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
