"""Captum passes the tests that every toolset can inherit, on a small CNN."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum_models import IMAGE, SmallCNN
from torch import nn

from cfi_captum.table import METHODS
from cfi_core.testing.conformance import KnownAnswerConformance, Law, ToolsetConformance

_GENERATOR = np.random.default_rng(5)
BASELINES = _GENERATOR.normal(size=(3, *IMAGE)).astype(np.float32)
QUADRANTS = np.zeros((1, *IMAGE), np.int64)
QUADRANTS[:, :, IMAGE[1] // 2 :] += 1
QUADRANTS[:, :, :, IMAGE[2] // 2 :] += 2
PERTURBING = ("feature_ablation", "feature_permutation", "shapley_values", "shapley_value_sampling")
FITTING = ("lime", "kernel_shap")


def arguments(key: str) -> dict[str, Any]:
    method = METHODS[key]
    found: dict[str, Any] = {"target": [1, 3]} if "target" in method.exec_args or key == "noise_tunnel" else {}
    found |= {"layer": "conv2"} if "layer" in method.required else {}
    found |= {"neuron": (2, 1, 3)} if "neuron" in method.required else {}
    found |= {"baselines": BASELINES} if method.baselines_required else {}
    if key in (*PERTURBING, *FITTING):
        found["exec_args"] = {"feature_mask": QUADRANTS} | ({"n_samples": 30} if key in FITTING else {})
    if key == "lime":
        found["init_args"] = {"interpretable_model": SkLearnRidge(alpha=0.01)}
    if key == "occlusion":
        found["exec_args"] = {"sliding_window_shapes": (3, 4, 5)}
    return found


class TestCaptum(ToolsetConformance):
    toolset = "captum"
    arguments: ClassVar = {key: arguments(key) for key in METHODS}
    mixing = frozenset({"feature_permutation", "layer_feature_permutation"})

    def make_model(self) -> SmallCNN:
        torch.manual_seed(4)
        return SmallCNN().eval()

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(6).normal(size=(2, *IMAGE)).astype(np.float32)


class TestAnswers(KnownAnswerConformance):
    toolset = "captum"
    laws: ClassVar = {
        "occlusion": Law.ABLATION,
        "lrp": Law.INPUT_X_GRADIENT,  # with the epsilon rule, which a bias takes nothing of at the first layer
        "noise_tunnel": Law.GRADIENT,
        "feature_permutation": Law.NONE,  # depends on the other samples
        "guided_grad_cam": Law.NONE,  # needs a convolution
        "lime": Law.NONE,  # a regularised fit
    }
    sampling = KnownAnswerConformance.sampling | {"noise_tunnel"}
    within: ClassVar = {"kernel_shap": 1e-5}  # a fit in single precision
    arguments: ClassVar = {"occlusion": {"exec_args": {"sliding_window_shapes": (1,)}}}

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> nn.Module:
        return layer(weights, bias).eval()

    def make_rectified_model(self, hidden: np.ndarray, head: np.ndarray) -> nn.Module:
        return nn.Sequential(layer(hidden), nn.ReLU(), layer(head)).eval()


def layer(weights: np.ndarray, bias: np.ndarray | None = None) -> nn.Linear:
    made = nn.Linear(*reversed(weights.shape), bias=bias is not None, dtype=torch.float64)
    made.load_state_dict({name: torch.tensor(v) for name, v in (("weight", weights), ("bias", bias)) if v is not None})
    return made
