"""Calls of many kinds, for threads and processes to make at the same time."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from method_arguments import CAPTUM, TF_KERAS_VIS, in_keras_order
from shared_cnn import Twins, keras_twin, make_twins
from torch import nn

import cfi_core as cfi

MIXED: list[tuple[str, str, str, dict[str, Any]]] = [
    ("torch", "saliency", "captum", CAPTUM["saliency"]),
    ("torch", "integrated_gradients", "captum", CAPTUM["integrated_gradients"]),
    ("torch", "gradient_shap", "captum", CAPTUM["gradient_shap"]),
    ("torch", "noise_tunnel", "captum", CAPTUM["noise_tunnel"]),
    ("torch", "lime", "captum", CAPTUM["lime"]),
    ("torch", "kernel_shap", "captum", CAPTUM["kernel_shap"]),
    ("torch", "deep_lift", "captum", CAPTUM["deep_lift"]),
    ("torch", "guided_backprop", "captum", CAPTUM["guided_backprop"]),
    ("torch", "lrp", "captum", CAPTUM["lrp"]),
    ("torch", "shapley_value_sampling", "captum", CAPTUM["shapley_value_sampling"]),
    ("torch", "feature_permutation", "captum", CAPTUM["feature_permutation"]),
    ("torch", "grad_cam", "tf-keras-vis", TF_KERAS_VIS["grad_cam"]),
    ("keras", "smooth_grad", "tf-keras-vis", TF_KERAS_VIS["smooth_grad"]),
    ("keras", "grad_cam", "tf-keras-vis", TF_KERAS_VIS["grad_cam"]),
    ("keras", "score_cam", "tf-keras-vis", TF_KERAS_VIS["score_cam"]),
    ("keras", "integrated_gradients", "captum", CAPTUM["integrated_gradients"]),
    ("keras", "deep_lift", "captum", CAPTUM["deep_lift"]),
    ("random", "saliency", "captum", CAPTUM["saliency"]),
]


class Noisy(nn.Module):
    """A model that draws, from torch's generator and from numpy's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs of the images with noise."""
        return self.model(x + 0.1 * torch.randn_like(x) + 0.1 * float(np.random.random()))  # type: ignore[no-any-return]


def models(twins: Twins) -> dict[str, Any]:
    model = copy.deepcopy(twins.torch_model)
    return {"torch": model, "random": Noisy(model).eval(), "keras": keras_twin(model)}


def explain(twins: Twins, models: dict[str, Any], which: int, seed: int) -> np.ndarray:
    framework, key, toolset, arguments = MIXED[which]
    if framework == "keras":
        arguments = in_keras_order(arguments)
    inputs = twins.last if framework == "keras" else twins.first
    result = cfi.attribute(models[framework], key, toolset, inputs=inputs, seed=seed, **arguments)
    return result.values  # type: ignore[no-any-return,union-attr]


def in_process(seed: int) -> np.ndarray:
    """A call of a spawned process."""
    torch.set_num_threads(1)
    twins = make_twins(softmax=False)
    return explain(twins, models(twins), 2, seed)
