"""TorchRay passes the tests that every plugin and toolset can inherit, on a small CNN."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import nn
from torchray_models import Plain, images, seeded

import cfi_torch.plugin
import cfi_torchray.plugin
from cfi_core.testing.conformance import PluginConformance, ToolsetConformance

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
