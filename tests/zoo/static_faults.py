"""Faults of the kinds that converters make: other weights, paddings, strides, activations, orders of what is joined."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import keras  # isort: skip
import tensorflow as tf
import torch
from torch import nn

Change = Callable[[Any], None]


@dataclass(frozen=True)
class Fault:
    """One change of one layer."""

    kind: str
    place: str
    change: Change

    def plant(self, model: Any, layer: str) -> Any:
        """A copy of the model with the fault, wherever a layer is asked for."""
        planted = _copied(model)
        self.change(planted)
        return planted


def static(model: Any) -> list[Fault]:
    """All that can be planted in a converted model."""
    return list(torch_faults(model) if isinstance(model, nn.Module) else keras_faults(model))


def _copied(model: Any) -> Any:
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


# faults in torch modules


def torch_faults(model: nn.Module) -> Iterator[Fault]:
    """All that can be planted in a `torch.fx.GraphModule`."""
    for name, module in model.named_modules():
        for kind, change in _changes(module):
            yield Fault(kind, name, lambda other, name=name, change=change: _replace(other, name, change))
    joins = [node.name for node in model.graph.nodes if node.target in (torch.cat, torch.concat)]
    for name in joins:
        yield Fault("order", name, lambda other, name=name: _swap_joined(other, name))


def _changes(module: nn.Module) -> Iterator[tuple[str, Callable[[nn.Module], nn.Module | None]]]:
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        yield "weights", _scaled
        yield "weights in sixteen bits", _rounded
        yield "one weight", _one_weight
        if module.weight.shape[0] > 1:
            yield "channels", _swapped_channels
        if module.weight.shape[1] > 1:
            yield "inputs", _swapped_inputs
        if module.bias is not None:
            yield "bias", _without_bias
    if isinstance(module, nn.Conv2d):
        if module.kernel_size[0] == module.kernel_size[1] > 1:
            yield "axis", _transposed_kernel
        if module.padding not in ((0, 0), "valid"):
            yield "padding", _shifted
        if module.stride == (2, 2):
            yield "stride", _strided_elsewhere
    if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
        yield "epsilon", _other_epsilon
    if isinstance(module, nn.BatchNorm2d):
        yield "statistics", _without_mean
    if isinstance(module, nn.ReLU | nn.ReLU6 | nn.SiLU | nn.GELU | nn.Hardswish | nn.Hardsigmoid):
        yield "activation", _other_activation
    if isinstance(module, nn.ReLU):
        yield "clip", lambda relu: nn.ReLU6()  # shows where an activation is large, and nowhere else
        yield "threshold", lambda relu: nn.Threshold(0.05, 0.0)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        yield "ceil mode", _other_ceil_mode
    if isinstance(module, nn.ZeroPad2d):
        yield "padding", lambda pad: nn.ZeroPad2d((pad.padding[1], pad.padding[0], pad.padding[3], pad.padding[2]))
    if isinstance(module, nn.AvgPool2d) and module.padding not in (0, (0, 0)):
        yield "padding", _counting_padding
    if isinstance(module, nn.MaxPool2d):
        yield "pooling", lambda pool: nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)


def _replace(model: nn.Module, name: str, change: Callable[[nn.Module], nn.Module | None]) -> None:
    module = model.get_submodule(name)
    with torch.no_grad():
        other = change(module)
    if other is not None:
        model.set_submodule(name, other.eval())


def _scaled(module: Any) -> None:
    module.weight.mul_(1.01)


def _rounded(module: Any) -> None:
    module.weight.copy_(module.weight.half().to(module.weight.dtype))


def _one_weight(module: Any) -> None:
    flat = module.weight.view(-1)
    flat[len(flat) // 2] += 3 * module.weight.std()


def _swapped_channels(module: Any) -> None:
    module.weight[[0, 1]] = module.weight[[1, 0]].clone()


def _swapped_inputs(module: Any) -> None:
    module.weight[:, [0, 1]] = module.weight[:, [1, 0]].clone()


def _other_ceil_mode(module: Any) -> None:
    module.ceil_mode = not module.ceil_mode


def _without_bias(module: Any) -> None:
    module.bias.zero_() if module.bias.any() else module.bias.add_(0.1)


def _transposed_kernel(module: Any) -> None:
    module.weight.copy_(module.weight.transpose(2, 3).clone())


def _shifted(module: Any) -> nn.Module:
    """All padding before, none after."""
    before = (
        [2 * one for one in module.padding] if not isinstance(module.padding, str) else [module.kernel_size[0] - 1] * 2
    )
    module.padding, module._reversed_padding_repeated_twice = (0, 0), [0, 0, 0, 0]
    return nn.Sequential(nn.ZeroPad2d((before[1], 0, before[0], 0)), module)


class _EverySecond(nn.Module):
    """From the second on."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1::2, 1::2]


def _strided_elsewhere(module: Any) -> nn.Module:
    module.stride = (1, 1)
    return nn.Sequential(module, _EverySecond(2))


def _other_epsilon(module: Any) -> None:
    module.eps = 1e-3 if module.eps < 1e-4 else 1e-5


def _without_mean(module: Any) -> None:
    module.running_mean.zero_()


def _other_activation(module: nn.Module) -> nn.Module:
    others: dict[type[nn.Module], nn.Module] = {
        nn.ReLU: nn.LeakyReLU(0.01),
        nn.ReLU6: nn.ReLU(),
        nn.SiLU: nn.GELU(),
        nn.GELU: nn.GELU(approximate="tanh" if getattr(module, "approximate", "none") == "none" else "none"),
        nn.Hardswish: nn.SiLU(),
        nn.Hardsigmoid: nn.Sigmoid(),
    }
    return others[type(module)]


def _counting_padding(module: Any) -> None:
    module.count_include_pad = not module.count_include_pad


def _swap_joined(model: Any, name: str) -> None:
    node = next(one for one in model.graph.nodes if one.name == name)
    first, second, *rest = node.args[0]
    node.args = ([second, first, *rest], *node.args[1:])
    model.recompile()


# faults in Keras layers


def keras_faults(model: Any) -> Iterator[Fault]:
    """All that can be planted in a functional Keras model by changing its layers."""
    for layer in model.layers:
        for kind, change in _layer_changes(layer):
            yield Fault(kind, layer.name, lambda other, name=layer.name, change=change: change(other.get_layer(name)))


def _layer_changes(layer: Any) -> Iterator[tuple[str, Callable[[Any], None]]]:
    layers = keras.layers
    kernel = getattr(layer, "kernel", None)
    if kernel is not None:
        yield "weights", lambda one: one.kernel.assign(one.kernel * 1.01)
        yield "weights in sixteen bits", lambda one: one.kernel.assign(one.kernel.numpy().astype(np.float16))
        yield "one weight", _one_kernel_weight
        if kernel.shape[-1] > 1:
            yield "channels", _swapped_filters
        if kernel.shape[-2] > 1:
            yield "inputs", _swapped_kernel_inputs
        if getattr(layer, "bias", None) is not None:
            yield "bias", lambda one: one.bias.assign(one.bias + 0.1)
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
        if layer.kernel_size[0] == layer.kernel_size[1] > 1:
            yield "axis", lambda one: one.kernel.assign(tf.transpose(one.kernel, (1, 0, 2, 3)))
        if layer.padding == "same" and layer.strides == (1, 1) and layer.kernel_size[0] > 1:
            yield "padding", _causal
        if layer.strides == (2, 2):
            yield "stride", _called(lambda x: tf.roll(x, (-1, -1), (1, 2)))
    if isinstance(layer, layers.BatchNormalization | layers.LayerNormalization):
        yield "epsilon", lambda one: setattr(one, "epsilon", 1e-3 if one.epsilon < 1e-4 else 1e-5)
    if isinstance(layer, layers.BatchNormalization):
        yield "statistics", lambda one: one.moving_mean.assign(one.moving_mean * 0)
    if isinstance(layer, layers.Activation):
        yield "activation", _other_keras_activation
    # They show where an activation is large, or small, and nowhere else.
    if isinstance(layer, layers.ReLU):
        yield "clip", lambda one: setattr(one, "max_value", 6.0)
        yield "threshold", lambda one: setattr(one, "threshold", 0.05)
    elif getattr(layer, "activation", None) is keras.activations.relu:
        yield "clip", lambda one: setattr(one, "activation", keras.activations.relu6)
        yield "threshold", lambda one: setattr(one, "activation", lambda x: keras.activations.relu(x, threshold=0.05))
    if isinstance(layer, layers.ZeroPadding2D):
        yield "padding", _padded_elsewhere
    if isinstance(layer, layers.Concatenate):
        yield "order", lambda one: _before_call(one, lambda inputs: [inputs[1], inputs[0], *inputs[2:]])
    if isinstance(layer, layers.MaxPooling2D | layers.AveragePooling2D):
        yield "ceil mode", lambda one: setattr(one, "padding", "valid" if one.padding == "same" else "same")
    if isinstance(layer, layers.MaxPooling2D):
        yield (
            "pooling",
            lambda one: setattr(
                one, "call", keras.layers.AveragePooling2D(one.pool_size, one.strides, one.padding).call
            ),
        )


def _one_kernel_weight(layer: Any) -> None:
    values = layer.kernel.numpy()
    values.reshape(-1)[values.size // 2] += 3 * values.std()
    layer.kernel.assign(values)


def _swapped_filters(layer: Any) -> None:
    values = layer.kernel.numpy()
    values[..., [0, 1]] = values[..., [1, 0]]
    layer.kernel.assign(values)


def _swapped_kernel_inputs(layer: Any) -> None:
    values = layer.kernel.numpy()
    values[..., [0, 1], :] = values[..., [1, 0], :]
    layer.kernel.assign(values)


def _causal(layer: Any) -> None:
    """All padding before, none after."""
    size = layer.kernel_size[0]
    layer.padding = "valid"
    _before_call(layer, lambda x: tf.pad(x, [[0, 0], [size - 1, 0], [size - 1, 0], [0, 0]]))


def _padded_elsewhere(layer: Any) -> None:
    (top, bottom), (left, right) = layer.padding
    layer.padding = ((top + 1, bottom - 1), (left + 1, right - 1)) if bottom and right else ((0, top), (0, left))


def _other_keras_activation(layer: Any) -> None:
    name = getattr(layer.activation, "__name__", "")
    others = {"relu": "leaky_relu", "relu6": "relu", "silu": "gelu", "hard_silu": "silu", "hard_sigmoid": "sigmoid"}
    layer.activation = keras.activations.get(others.get(name, "softplus"))


def _called(change: Callable[[Any], Any]) -> Callable[[Any], None]:
    return lambda layer: _before_call(layer, change)


def _before_call(layer: Any, change: Callable[[Any], Any]) -> None:
    call = layer.call
    layer.call = lambda inputs, *arguments, **options: call(change(inputs), *arguments, **options)
