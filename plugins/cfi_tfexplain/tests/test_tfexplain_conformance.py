"""tf-explain passes the tests that every plugin and toolset can inherit, on a small CNN."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from tfexplain_models import build, pictures

import cfi_tensorflow.plugin
import cfi_tfexplain.plugin
from cfi_core.testing.conformance import PluginConformance, ToolsetConformance

TARGETED: dict[str, Any] = {"target": [2, 0]}


class TestPlugin(PluginConformance):
    plugin = cfi_tfexplain.plugin
    beside = (cfi_tensorflow.plugin,)
    distribution = "cfi-tfexplain"


class TestToolset(ToolsetConformance):
    toolset = "tf-explain"
    arguments: ClassVar[dict[str, Any]] = {
        "saliency": TARGETED,
        "input_x_gradient": TARGETED,
        "integrated_gradients": TARGETED,
        "smooth_grad": TARGETED,
        "occlusion": {**TARGETED, "exec_args": {"patch_size": 3}},
        "grad_cam": {**TARGETED, "layer": "conv2"},
        "layer_activation": {"layer": "conv2"},
    }

    def make_model(self) -> Any:
        return build(last="layer")

    def make_inputs(self) -> np.ndarray:
        return pictures(2)
