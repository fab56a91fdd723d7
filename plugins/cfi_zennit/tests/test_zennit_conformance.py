"""Zennit passes the tests that every plugin and every toolset can inherit."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from zennit_models import IMAGE, Residual

import cfi_zennit.plugin
from cfi_core.testing.conformance import KnownAnswerConformance, Law, PluginConformance, ToolsetConformance
from cfi_zennit.table import METHODS

EPSILON = ("lrp_epsilon_plus", "lrp_epsilon_alpha2_beta1", "lrp_epsilon_gamma_box")
EXTRA: dict[str, dict[str, Any]] = {"lrp_epsilon_gamma_box": {"init_args": {"low": -4.0, "high": 4.0}}}


class TestPlugin(PluginConformance):
    plugin = cfi_zennit.plugin
    distribution = "cfi-zennit"


class TestZennit(ToolsetConformance):
    toolset = "zennit"
    arguments: ClassVar = {key: {"target": [1, 3, 0], **EXTRA.get(key, {})} for key in METHODS}

    def make_model(self) -> Residual:
        torch.manual_seed(4)
        return Residual().eval()

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(6).normal(size=(3, *IMAGE)).astype(np.float32)


class TestZennitAtLayers(ToolsetConformance):
    toolset = "zennit"
    arguments: ClassVar = {
        key: {"target": [1, 3, 0], **EXTRA.get(key, {}), **({"layer": "average"} if "layer" in method.optional else {})}
        for key, method in METHODS.items()
    }
    make_model = TestZennit.make_model
    make_inputs = TestZennit.make_inputs


class TestAnswers(KnownAnswerConformance):
    toolset = "zennit"
    laws: ClassVar = {
        # For linear layers these composites have the epsilon rule.
        **dict.fromkeys(EPSILON, Law.INPUT_X_GRADIENT),
        "occlusion": Law.ABLATION,
        # The first layer flat; and rules that test_zennit_rules.py compares with the papers.
        **dict.fromkeys(("zennit_lrp", "lrp_epsilon_plus_flat", "lrp_epsilon_alpha2_beta1_flat"), Law.NONE),
        **dict.fromkeys(("excitation_backprop", "beta_smooth"), Law.NONE),
    }
    # What epsilon takes, and the ends of steps instead of their middles.
    within: ClassVar = {**dict.fromkeys(EPSILON, 1e-5), "integrated_gradients": 5e-3}
    arguments: ClassVar = {
        "occlusion": {"init_args": {"window": 1, "stride": 1}},
        "integrated_gradients": {"init_args": {"n_iter": 1000}},
        "lrp_epsilon_gamma_box": EXTRA["lrp_epsilon_gamma_box"],
    }

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> nn.Module:
        return layer(weights, bias).eval()

    def make_rectified_model(self, hidden: np.ndarray, head: np.ndarray) -> nn.Module:
        return nn.Sequential(layer(hidden), nn.ReLU(), layer(head)).eval()


def layer(weights: np.ndarray, bias: np.ndarray | None = None) -> nn.Linear:
    made = nn.Linear(*reversed(weights.shape), bias=bias is not None, dtype=torch.float64)
    made.load_state_dict({name: torch.tensor(v) for name, v in (("weight", weights), ("bias", bias)) if v is not None})
    return made
