"""TorchRay passes the tests that every plugin and toolset can inherit, on a small CNN."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torchray_models import Plain, images, seeded

import cfi_torch.plugin
import cfi_torchray.plugin
from cfi_core.testing.conformance import KnownAnswerConformance, Law, PluginConformance, ToolsetConformance

KEYS = ("saliency", "deconvolution", "guided_backprop", "linear_approx", "excitation_backprop")


class TestPlugin(PluginConformance):
    plugin = cfi_torchray.plugin
    beside = (cfi_torch.plugin,)
    distribution = "cfi-torchray"


class TestTorchRay(ToolsetConformance):
    toolset = "torchray"
    arguments: ClassVar[dict[str, dict[str, Any]]] = {
        **{key: {"target": [1, 3]} for key in KEYS},
        "grad_cam": {"target": [1, 3], "layer": "3"},
        "contrastive_excitation_backprop": {"target": [1, 3], "layer": "2", "exec_args": {"contrast_layer": "5"}},
        "rise": {"target": [1, 3], "exec_args": {"num_masks": 40, "num_cells": 3}},
        "extremal_perturbation": {"target": [1, 3], "exec_args": {"max_iter": 20, "step": 2, "sigma": 3}},
    }

    def make_model(self) -> nn.Module:
        return seeded(Plain)

    def make_inputs(self) -> np.ndarray:
        return images()


class TestAnswers(KnownAnswerConformance):
    toolset = "torchray"
    features = (3, 1, 2)
    laws: ClassVar = {
        **dict.fromkeys(("linear_approx", "rise", "extremal_perturbation"), Law.NONE),  # maps, of all channels together
        "excitation_backprop": Law.NONE,  # compared with the paper in test_torchray_excitation.py
    }

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> nn.Module:
        return nn.Sequential(nn.Flatten(), layer(weights.reshape(len(weights), -1), bias)).eval()

    def make_rectified_model(self, hidden: np.ndarray, head: np.ndarray) -> nn.Module:
        return nn.Sequential(nn.Flatten(), layer(hidden.reshape(len(hidden), -1)), nn.ReLU(), layer(head)).eval()


def layer(weights: np.ndarray, bias: np.ndarray | None = None) -> nn.Linear:
    made = nn.Linear(*reversed(weights.shape), bias=bias is not None, dtype=torch.float64)
    made.load_state_dict({name: torch.tensor(v) for name, v in (("weight", weights), ("bias", bias)) if v is not None})
    return made
