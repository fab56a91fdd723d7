"""PyTorch passes the tests that every framework can inherit."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from cfi_core.testing.conformance import FrameworkConformance


class TestTorch(FrameworkConformance):
    framework = "torch"

    def make_model(self) -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(48, 7)).eval()

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 3, 5, 6)).astype(np.float32)

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> nn.Module:
        model = nn.Linear(*reversed(weights.shape)).eval()
        model.load_state_dict({"weight": torch.tensor(weights), "bias": torch.tensor(bias)})
        return model
