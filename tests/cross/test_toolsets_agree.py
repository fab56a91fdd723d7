"""Where toolsets share a method, they agree once their parameters are aligned, on torch and Keras models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from shared_cnn import CHANNELS, Twins, apart, to_first

import cfi_core as cfi

from zennit import rules  # isort: skip
from zennit.types import Linear  # isort: skip

TARGET = [1, 3]

pytestmark = pytest.mark.filterwarnings("ignore:TorchRay is licensed")


def values(twins: Twins, side: str, key: str, toolset: str, **arguments: Any) -> np.ndarray:
    """Values in torch's order of axes, for the torch model or its Keras twin."""
    model, images = (twins.torch_model, twins.first) if side == "torch" else (twins.keras_model, twins.last)
    found: Any = cfi.attribute(model, key, toolset, inputs=images, target=TARGET, **arguments)
    return found.values if side == "torch" else to_first(found.values)


@pytest.fixture(params=["torch", "keras"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# what Zennit shares with captum

WITHIN = 1e-5


@pytest.mark.parametrize("key", ["saliency", "input_x_gradient", "guided_backprop", "deconvolution"])
def test_gradients_of_captum_and_zennit(twins: Twins, side: str, key: str) -> None:
    assert apart(values(twins, side, key, "captum"), values(twins, side, key, "zennit")) <= WITHIN


def test_lrp_epsilon_of_captum_and_zennit(twins: Twins, side: str) -> None:
    """Captum's rule for every layer, with its stabiliser."""
    epsilon = {"layer_map": [(Linear, rules.Epsilon(1e-9))]}
    of_zennit = values(twins, side, "lrp_epsilon_plus", "zennit", init_args=epsilon)
    assert apart(values(twins, side, "lrp", "captum"), of_zennit) <= WITHIN


def test_integrated_gradients_of_captum_and_zennit(twins: Twins, side: str) -> None:
    """Zennit adds up at the right ends of equal steps."""
    aligned = {"n_steps": 16, "method": "riemann_right"}
    of_captum = values(twins, side, "integrated_gradients", "captum", exec_args=aligned)
    of_zennit = values(twins, side, "integrated_gradients", "zennit", init_args={"n_iter": 16})
    assert apart(of_captum, of_zennit) <= WITHIN


def test_occlusion_of_captum_and_zennit(twins: Twins, side: str) -> None:
    """Windows of all channels that cover an image exactly, one beside the other."""
    window = (CHANNELS, 7, 5) if side == "torch" else (7, 5, CHANNELS)
    of_captum = values(
        twins, side, "occlusion", "captum", exec_args={"sliding_window_shapes": window, "strides": window}
    )
    of_zennit = values(twins, side, "occlusion", "zennit", init_args={"window": window, "stride": window})
    assert apart(of_captum, of_zennit) <= WITHIN


def test_smooth_grad_within_sampling_error(twins: Twins, side: str) -> None:
    """Captum takes the standard deviation itself, Zennit a share of the range of each sample."""
    spans = np.ptp(twins.first.reshape(len(twins.first), -1), axis=1)
    level, samples = 0.02, 200
    deviations = level * float(spans.mean())
    of_captum = values(
        twins,
        side,
        "noise_tunnel",
        "captum",
        seed=3,
        exec_args={"stdevs": deviations, "nt_samples": samples, "nt_type": "smoothgrad"},
    )
    level = {"noise_level": level, "n_iter": samples}  # type: ignore[assignment]
    of_zennit = values(twins, side, "smooth_grad", "zennit", seed=4, init_args=level)
    other = values(twins, side, "smooth_grad", "zennit", seed=5, init_args=level)
    sampling = np.abs(other - of_zennit).mean()
    assert sampling > 0 and np.abs(of_captum - of_zennit).mean() < 2 * sampling


# what several of the others share


@pytest.mark.parametrize("key", ["guided_backprop", "deconvolution"])
def test_rectifiers_of_captum_and_torchray(twins: Twins, side: str, key: str) -> None:
    assert apart(values(twins, side, key, "captum"), values(twins, side, key, "torchray")) <= WITHIN


def test_guided_backprop_of_captum_and_tf_keras_vis(twins: Twins) -> None:
    """In tf-keras-vis a modifier of the model, which finds activations that are settings of layers."""
    from keras import Input, Sequential, layers
    from tf_keras_vis.utils.model_modifiers import GuidedBackpropagation

    model = Sequential([Input(twins.keras_model.input_shape[1:])])
    model.add(layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1"))
    model.add(layers.MaxPooling2D(2))
    model.add(layers.Conv2D(8, 3, activation="relu", name="conv2"))
    model.add(layers.Flatten())
    model.add(layers.Dense(5, name="fc"))
    for name in ("conv1", "conv2", "fc"):
        model.get_layer(name).set_weights(twins.keras_model.get_layer(name).get_weights())
    guided = {"model_modifier": GuidedBackpropagation()}
    found: Any = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=twins.last, target=TARGET, init_args=guided)
    assert apart(values(twins, "torch", "guided_backprop", "captum"), to_first(found.values)) <= WITHIN


def test_excitation_backprop_of_zennit_and_torchray(twins: Twins, side: str) -> None:
    """At a layer whose values are not negative; Zennit keeps back a little for its stabiliser."""
    of_zennit, of_torchray = (
        values(twins, side, "excitation_backprop", toolset, layer="relu1") for toolset in ("zennit", "torchray")
    )
    assert apart(of_torchray, of_zennit) <= WITHIN


@pytest.mark.parametrize("toolset", ["tf-keras-vis", "tf-explain", "torchray"])
def test_grad_cam_of_captum_and(twins: Twins, side: str, toolset: str) -> None:
    def cam(toolset: str) -> np.ndarray:
        model, images = (twins.torch_model, twins.first) if side == "torch" else (twins.keras_model, twins.last)
        found: Any = cfi.attribute(model, "grad_cam", toolset, inputs=images, target=TARGET, layer="relu2")
        return found.values

    assert apart(cam("captum"), cam(toolset)) <= WITHIN


@pytest.mark.parametrize("toolset", ["tf-keras-vis", "tf-explain", "torchray", "zennit"])
def test_saliency_of_captum_and(twins: Twins, side: str, toolset: str) -> None:
    assert apart(values(twins, side, "saliency", "captum"), values(twins, side, "saliency", toolset)) <= WITHIN
