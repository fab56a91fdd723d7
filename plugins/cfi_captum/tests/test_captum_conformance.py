"""Captum passes the tests that every toolset can inherit, on a small CNN."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum_models import IMAGE, SmallCNN

from cfi_captum.table import METHODS
from cfi_core.testing.conformance import ToolsetConformance

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
