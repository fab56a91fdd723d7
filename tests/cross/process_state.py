"""What a call must leave as it was: the user's model, and the process."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from types import ModuleType
from typing import Any

import captum.attr
import keras
import numpy as np
import tensorflow as tf
import torch
import torch._dynamo  # puts functions of its own in the place of some of torch's when it is imported
import torch.nn.functional as F
from keras.src.backend.common import global_state
from tensorflow.python.eager import context
from torch import nn

import cfi_tfkerasvis.workarounds  # imports tf-keras-vis without its warnings

PATCHABLE: tuple[Any, ...] = (
    *(torch, F, nn.Module, nn.ReLU, nn.Conv2d, nn.Linear, torch.Tensor, torch.autograd, torch.random),
    *(np, np.random, random, logging, warnings, os.environ.__class__),
    *(keras.layers.Layer, keras.Model, keras.Variable, keras.ops, keras.random, tf, tf.random, tf.Variable),
    *(captum.attr, captum.attr.Saliency, captum.attr.LRP, captum.attr.DeepLift, captum.attr.NoiseTunnel),
    *(sys.modules[f"captum.attr._core.{name}"] for name in ("noise_tunnel", "gradient_shap", "lime", "shapley_value")),
    *(sys.modules[f"tf_keras_vis.{name}"] for name in ("saliency", "gradcam", "scorecam")),
    *(cfi_tfkerasvis.workarounds.Saliency, cfi_tfkerasvis.workarounds.Scorecam),
)

LATER = ("zennit.core", "zennit.attribution", "zennit.composites", "shap", "shap.explainers._deep", "tf_explain.core")
LATER += ("torchray.attribution.common", "torchray.attribution.rise", "torchray.attribution.excitation_backprop")
"""Modules whose functions count too once they are imported."""


def torch_state(model: nn.Module) -> dict[str, Any]:
    hooks = {
        (name, table): dict(value)
        for name, module in model.named_modules()
        for table, value in vars(module).items()
        if table.endswith("_hooks")
    }
    return {
        "weights": {name: value.clone().numpy() for name, value in model.state_dict().items()},
        "identity": {name: id(value) for name, value in model.named_parameters()},
        "modules": {name: id(module) for name, module in model.named_modules()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "mode": {name: module.training for name, module in model.named_modules()},
        "requires_grad": {name: value.requires_grad for name, value in model.named_parameters()},
        "grad": {name: None if v.grad is None else v.grad.clone().numpy() for name, v in model.named_parameters()},
        "hooks": hooks,
    }


def keras_state(model: keras.Model) -> dict[str, Any]:
    return {
        "weights": [weight.numpy() for weight in model.weights],
        "attributes": [sorted(vars(layer)) for layer in model.layers],
        "calls": [layer.call for layer in model.layers],
        "nodes": [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers],
        "activations": [getattr(layer, "activation", None) for layer in model.layers],
        "trainable": [layer.trainable for layer in model.layers],
        "own": sorted(vars(model)),
    }


def process_state() -> dict[str, Any]:
    """Settings, generators, logs and functions that belong to the process or to this thread."""
    tf.random.get_global_generator()  # made on first use
    eager, drawn = context.context(), getattr(context.context(), "_rng", None)
    return {
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "torch": torch.get_rng_state().numpy(),
        "tensorflow": tf.random.get_global_generator().state.numpy(),
        "tensorflow's seed": (eager._seed, None if drawn is None else drawn.getstate()),
        "keras": (
            *(keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon(), keras.config.backend()),
            *(keras.config.dtype_policy().name, keras.config.is_interactive_logging_enabled()),
            keras.config.is_traceback_filtering_enabled(),
        ),
        "names of keras": dict(global_state.get_global_attribute("object_name_uids") or {}),
        "tf.function": tf.config.functions_run_eagerly(),
        "loggers": {name: _logger(logger) for name, logger in _loggers().items()},
        "logging": (logging.root.manager.disable, logging.getLoggerClass(), logging.getLogRecordFactory()),
        "streams": (sys.stdout, sys.stderr, sys.excepthook, sys.displayhook, warnings.showwarning),
        "environment": dict(os.environ),
        "filters": list(warnings.filters),
        "modes": (
            *(torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
            *(torch.is_anomaly_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()),
            *(torch.backends.mha.get_fastpath_enabled(), torch._C._len_torch_function_stack()),
        ),
        "functions": {
            (getattr(owner, "__name__", ""), name): id(value)
            for owner in (*PATCHABLE, *(sys.modules[name] for name in LATER if name in sys.modules))
            for name, value in vars(owner).items()
            if callable(value) and not isinstance(value, ModuleType)
        },
    }


def _loggers() -> dict[str, logging.Logger]:
    known = logging.root.manager.loggerDict.items()
    return {"root": logging.root, **{name: one for name, one in known if isinstance(one, logging.Logger)}}


def _logger(logger: logging.Logger) -> tuple[Any, ...]:
    return logger.level, logger.disabled, logger.propagate, list(logger.handlers), list(logger.filters)


def assert_same(before: Any, after: Any, path: str = "") -> None:
    """Fails where something differs; loggers and functions may come on top, when a library is imported."""
    if isinstance(before, dict):
        growing = path in ("/loggers", "/functions")
        absent = before.keys() - after.keys() if growing else before.keys() ^ after.keys()
        assert not absent, f"{path}: {sorted(map(str, absent))}"
        for key in before:
            assert_same(before[key], after[key], f"{path}/{key}")
    elif isinstance(before, list):
        assert len(before) == len(after), f"{path}: {before} {after}"
        for position, (one, other) in enumerate(zip(before, after, strict=True)):
            assert_same(one, other, f"{path}/{position}")
    elif isinstance(before, np.ndarray):
        np.testing.assert_array_equal(before, after, path)
    else:
        assert before == after, f"{path}: {before!r} {after!r}"
