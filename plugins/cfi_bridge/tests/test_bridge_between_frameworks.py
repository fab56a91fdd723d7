"""Keras models in torch and torch models in Keras, by the adapters that core has for them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

from cfi_bridge import keras_host, torch_host
from cfi_core.adapters import adapter_for
from cfi_core.contract import BridgeRequest, Converted
from cfi_core.errors import LayerError
from cfi_core.framework import FrameworkAdapter
from cfi_core.registry import registry

SHAPE = (6, 4)  # of the images: not square


class TwoHeads(nn.Module):
    """Two inputs, two outputs, a way around the layer `conv`, and a layer that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.mix = nn.Conv2d(3, 5, 1)
        self.head = nn.Linear(5 + 2, 4)

    def forward(self, image: torch.Tensor, extra: torch.Tensor) -> dict[str, torch.Tensor]:
        mixed = self.mix(self.relu(self.conv(image)) + image * 2)
        return {"scores": self.head(torch.cat([mixed.mean((2, 3)), extra], 1)), "map": torch.tanh(mixed)}


def keras_two_heads() -> Any:
    """The same network."""
    image, extra = keras.Input((*SHAPE, 3)), keras.Input((2,))
    conv = keras.layers.Conv2D(3, 3, padding="same", name="conv", bias_initializer="normal")(image)
    mixed = keras.layers.Conv2D(5, 1, name="mix", bias_initializer="normal")(keras.ops.relu(conv) + image * 2)
    joined = keras.ops.concatenate([keras.ops.mean(mixed, (1, 2)), extra], 1)
    return keras.Model([image, extra], [keras.layers.Dense(4, name="head")(joined), keras.ops.tanh(mixed)])


def samples(count: int, *, channels_last: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(count)
    image = generator.normal(size=(count, *SHAPE, 3)).astype(np.float32)
    extra = generator.normal(size=(count, 2)).astype(np.float32)
    return (image if channels_last else np.ascontiguousarray(np.moveaxis(image, -1, 1))), extra


def adapter(framework: str) -> FrameworkAdapter:
    return adapter_for(registry(), framework)


def requested(framework: str, model: Any, arrays: Any, layers: tuple[str, ...] = ()) -> BridgeRequest:
    own = adapter(framework)
    model = own.twin(model)
    return BridgeRequest(own, model, tuple(own.tensor(array, model) for array in arrays), layers)


@pytest.fixture(params=["keras in torch", "torch in keras"])
def crossing(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any, str, Converted]]:
    """Source framework, original, host framework, bridge opened at two layers of which one depends on the other."""
    layers = ("conv", "mix")
    if request.param == "keras in torch":
        model = keras_two_heads()
        made = torch_host.bridge(requested("tensorflow", model, samples(2, channels_last=True), layers))
        yield "tensorflow", model, "torch", made
    else:
        module = TwoHeads().eval()
        made = keras_host.bridge(requested("torch", module, samples(2, channels_last=False), layers))
        yield "torch", module, "tensorflow", made


def turned(array: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    return array if axes is None else np.transpose(array, axes)


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_both_compute_the_same(crossing: tuple[str, Any, str, Converted], count: int) -> None:
    """Outputs, gradients to both inputs, activations and gradients of both layers."""
    source, model, target, made = crossing
    home, abroad, twin = adapter(source), adapter(target), adapter(source).twin(model)
    arrays = samples(count, channels_last=source == "tensorflow")
    here = [home.tensor(array, twin) for array in arrays]
    there = [
        abroad.tensor(turned(array, axes), made.model) for array, axes in zip(arrays, made.input_axes, strict=True)
    ]
    outputs = home.outputs(twin, here)
    outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs
    for ours, theirs, axes in zip(outputs, abroad.outputs(made.model, there), made.output_axes, strict=True):
        close(turned(ours, axes), theirs)
    generator = np.random.default_rng(0)
    cotangents = [generator.normal(size=output.shape).astype(np.float32) for output in outputs]
    carried = [turned(value, axes) for value, axes in zip(cotangents, made.output_axes, strict=True)]
    pairs = zip(home.vjp(twin, here, cotangents)[1], abroad.vjp(made.model, there, carried)[1], strict=True)
    for (ours, theirs), axes in zip(pairs, made.input_axes, strict=True):
        close(turned(ours, axes), theirs)
    names = {name: layer.name for name, layer in made.layers.items()}
    for ours, theirs in (
        (home.activations(twin, here, [*names]), abroad.activations(made.model, there, [*names.values()])),
        (
            home.layer_gradients(twin, here, cotangents, [*names]),
            abroad.layer_gradients(made.model, there, carried, [*names.values()]),
        ),
    ):
        for name, renamed in names.items():
            close(turned(ours[name], made.layers[name].axes), theirs[renamed])


def test_copies_work(crossing: tuple[str, Any, str, Converted]) -> None:
    source, _, target, made = crossing
    abroad = adapter(target)
    arrays = samples(3, channels_last=source == "tensorflow")
    given = [turned(array, axes) for array, axes in zip(arrays, made.input_axes, strict=True)]
    tensors = [abroad.tensor(array, made.model) for array in given]
    twin = copy.deepcopy(made.model) if target == "torch" else abroad.twin(made.model)
    for ours, theirs in zip(abroad.outputs(made.model, tensors), abroad.outputs(twin, tensors), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_layer_that_cannot_be_opened_is_refused(framework: str) -> None:
    if framework == "torch":
        shared = nn.Linear(3, 3)
        with pytest.raises(LayerError, match="2 times"):
            keras_host.bridge(
                requested("torch", nn.Sequential(shared, nn.ReLU(), shared), [np.ones((2, 3), np.float32)], ("0",))
            )
    else:
        layer = keras.layers.Dense(3, name="shared")
        x = keras.Input((3,))
        model = keras.Model(x, layer(keras.ops.relu(layer(x))))
        with pytest.raises(LayerError, match="shared"):
            torch_host.bridge(requested("tensorflow", model, [np.ones((2, 3), np.float32)], ("shared",)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_floating_types(dtype: str) -> None:
    kind = getattr(torch, dtype)
    linear = nn.Linear(3, 2).to(kind)
    model = keras_host.bridge(requested("torch", linear, [np.ones((2, 3), np.float64)])).model
    assert model.inputs[0].dtype == dtype and model.outputs[0].dtype == dtype
    x = tf.cast(np.ones((4, 3)), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(model(x))
    expected = linear.weight.detach().sum(0).expand(4, 3)
    np.testing.assert_allclose(np.asarray(tape.gradient(total, x), np.float64), expected.double(), rtol=1e-2)
    if dtype != "bfloat16":
        inputs = keras.Input((3,), dtype=dtype)
        dense = keras.layers.Dense(2, dtype=dtype)
        wrapped = torch_host.bridge(
            requested("tensorflow", keras.Model(inputs, dense(inputs)), [np.ones((2, 3), dtype)])
        ).model
        values = torch.ones(4, 3, dtype=kind, requires_grad=True)
        output = wrapped(values)
        assert output.dtype is kind
        (gradient,) = torch.autograd.grad(output.sum(), [values])
        np.testing.assert_allclose(gradient, np.tile(dense.kernel.numpy().sum(1), (4, 1)), rtol=1e-2, atol=1e-3)


class Spy:
    """An adapter that remembers what it shared."""

    def __init__(self, adapter: FrameworkAdapter) -> None:
        self.adapter = adapter
        self.shared: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.adapter, name)

    def share(self, tensor: Any) -> Any:
        self.shared.append(tensor)
        return self.adapter.share(tensor)


def test_outputs_lie_on_the_same_memory() -> None:
    x = keras.Input((3,))
    asked = requested("tensorflow", keras.Model(x, keras.layers.Dense(5)(x)), [np.ones((2, 3), np.float32)])
    spy: Any = Spy(asked.adapter)
    model = torch_host.bridge(BridgeRequest(spy, asked.model, asked.inputs)).model
    for values in (torch.ones(8, 3), torch.ones(8, 3, requires_grad=True)):
        spy.shared.clear()
        output = model(values)
        assert output.data_ptr() == np.asarray(spy.shared[0]).ctypes.data
    asked = requested("torch", nn.Linear(3, 16), [np.ones((2, 3), np.float32)])
    spy = Spy(asked.adapter)
    functional = keras_host.bridge(BridgeRequest(spy, asked.model, asked.inputs)).model
    spy.shared.clear()
    result = functional(np.ones((64, 3), np.float32))  # large enough for torch to align it as TensorFlow does
    assert np.asarray(result).ctypes.data == spy.shared[0].data_ptr()


def test_weights_of_the_original_get_no_gradient() -> None:
    linear = nn.Linear(3, 2)
    model = keras_host.bridge(requested("torch", linear, [np.ones((2, 3), np.float32)])).model
    x = tf.ones((2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(model(x))
    tape.gradient(total, x)
    assert linear.weight.grad is None
