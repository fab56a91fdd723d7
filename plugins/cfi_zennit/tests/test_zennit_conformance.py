"""Zennit passes the tests that every plugin and every toolset can inherit."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from zennit_models import IMAGE, Residual

import cfi_zennit.plugin
from cfi_core.testing.conformance import PluginConformance, ToolsetConformance
from cfi_zennit.table import METHODS

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
