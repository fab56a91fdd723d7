"""`defaults="toolset"` gives what users of TorchRay get, to the last bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchray.attribution import deconvnet, excitation_backprop, gradient, guided_backprop, linear_approx
from torchray.attribution.extremal_perturbation import contrastive_reward, extremal_perturbation
from torchray.attribution.grad_cam import grad_cam
from torchray.attribution.rise import rise
from torchray_models import Plain, images, seeded

import cfi_core as cfi

TARGET = [2, 0]
EXTREMAL = {"max_iter": 12, "step": 2, "sigma": 3, "areas": [0.2]}


def softmaxed() -> nn.Module:
    """TorchRay's users explain a softmax at its output, and so does this set of defaults."""
    return nn.Sequential(seeded(Plain), nn.Softmax(1)).eval()


def directly(function: Callable[..., Any], *args: Any, **options: Any) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(softmaxed(), torch.tensor(images()), *args, **options).detach()


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "saliency": (gradient.gradient, {}, {}),
    "deconvolution": (deconvnet.deconvnet, {}, {}),
    "guided_backprop": (guided_backprop.guided_backprop, {}, {}),
    "linear_approx": (linear_approx.linear_approx, {}, {}),
    "grad_cam": (grad_cam, {"layer": "0.3"}, {"saliency_layer": "0.3"}),
}


@pytest.mark.parametrize("key", CALLS)
@pytest.mark.parametrize("own", [{}, {"smooth": 0.02}])
def test_gradients_are_torchrays(key: str, own: dict[str, Any]) -> None:
    function, ours, theirs = CALLS[key]
    found = cfi.attribute(
        softmaxed(), key, "torchray", inputs=images(), target=TARGET, defaults="toolset", exec_args=own, **ours
    )
    np.testing.assert_array_equal(found.values, directly(function, TARGET, **theirs, **own)[:, 0])


def test_resized_maps_are_torchrays() -> None:
    own = {"resize": True, "saliency_layer": "0.3", "smooth": 0.05}
    found = cfi.attribute(
        softmaxed(), "grad_cam", "torchray", inputs=images(), target=TARGET, defaults="toolset", exec_args=own
    )
    np.testing.assert_array_equal(found.values, directly(grad_cam, TARGET, **own)[:, 0])
    assert found.values.shape == (2, 10, 12)


def test_excitation_backprop_is_torchrays() -> None:
    model, arguments = seeded(Plain), {"inputs": images(), "target": TARGET, "defaults": "toolset"}
    x = torch.tensor(images())
    found = cfi.attribute(model, "excitation_backprop", "torchray", layer="2", **arguments)
    expected = excitation_backprop.excitation_backprop(seeded(Plain), x, TARGET, saliency_layer="2")
    np.testing.assert_array_equal(found.values, expected[:, 0])
    found = cfi.attribute(
        model, "contrastive_excitation_backprop", "torchray", layer="2", exec_args={"contrast_layer": "5"}, **arguments
    )
    expected = excitation_backprop.contrastive_excitation_backprop(
        seeded(Plain), x, TARGET, saliency_layer="2", contrast_layer="5"
    )
    np.testing.assert_array_equal(found.values, expected[:, 0])


@pytest.mark.parametrize("own", [{}, {"seed": 5, "p": 0.3}])
def test_rise_is_torchrays(own: dict[str, Any]) -> None:
    options = {"num_masks": 70, "num_cells": 3, **own}
    found = cfi.attribute(
        softmaxed(), "rise", "torchray", inputs=images(), target=TARGET, defaults="toolset", exec_args=options
    )
    expected = directly(rise, **options)
    np.testing.assert_array_equal(found.extras["all_classes"], expected)
    np.testing.assert_array_equal(found.values, expected[[0, 1], TARGET])


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
@pytest.mark.parametrize("reward", ["simple", "contrastive"])
def test_extremal_perturbation_is_torchrays(variant: str, reward: str) -> None:
    options = {**EXTREMAL, "variant": variant}
    found = cfi.attribute(
        seeded(Plain),
        "extremal_perturbation",
        "torchray",
        inputs=images(),
        target=TARGET,
        defaults="toolset",
        exec_args={**options, "reward_func": reward},
    )
    own = {} if reward == "simple" else {"reward_func": contrastive_reward}
    for sample, target in enumerate(TARGET):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = torch.tensor(images()[sample : sample + 1])
            masks, energy = extremal_perturbation(seeded(Plain), x, target, **options, **own)
        np.testing.assert_array_equal(found.values[sample], masks[0, 0])
        np.testing.assert_array_equal(found.extras["energy"][sample], energy)


def test_both_sets_of_defaults_stand_in_the_specs() -> None:
    for method in cfi.methods(toolset="torchray"):
        assert method.defaults.raw and method.defaults.toolset
