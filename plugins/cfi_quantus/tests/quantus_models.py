"""Small models, inputs and arguments of metrics for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import cfi_core as cfi

SAMPLES, HEIGHT, WIDTH, CLASSES = 3, 12, 10, 5
TARGET = [1, 4, 0]


def make_cnn(channels: int = 1) -> nn.Sequential:
    """Not square, so that a swapped axis shows; the first convolution without padding, as Input Invariance wants it.

    Its activations are nowhere flat, and its outputs far enough apart that perturbations change the predicted class.
    """
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(channels, 4, 3),
            nn.Softplus(),
            nn.Conv2d(4, 4, 3),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(4 * (HEIGHT - 4) * (WIDTH - 4), CLASSES),
        ).eval()
    with torch.no_grad():
        outputs = model(torch.as_tensor(make_images(channels)))
        model[-1].bias -= outputs.mean(0)
        for parameter in model[-1].parameters():
            parameter *= 20
    return model


def make_images(channels: int = 1, samples: int = SAMPLES) -> np.ndarray:
    return np.random.default_rng(5).random((samples, channels, HEIGHT, WIDTH)).astype(np.float32)


def make_masks(samples: int = SAMPLES) -> np.ndarray:
    masks = np.zeros((samples, HEIGHT, WIDTH), int)
    masks[:, 2:7, 3:6] = 1
    return masks


def make_linear(weights: Any, bias: Any = None) -> nn.Module:
    """A linear model of tables: one row of weights for each output."""
    weights = torch.as_tensor(np.asarray(weights), dtype=torch.float32)
    model = nn.Linear(weights.shape[1], weights.shape[0], bias=bias is not None)
    with torch.no_grad():
        model.weight.copy_(weights)
        if bias is not None:
            model.bias.copy_(torch.as_tensor(bias, dtype=torch.float32))
    return model.eval()


def explain(model: Any, inputs: Any, target: Any = TARGET, key: str = "plain_gradient", **more: Any) -> cfi.Attribution:
    return cfi.attribute(model, key, "plain", inputs=inputs, target=target, seed=1, **more)


FEW = {"nr_samples": 3}
STABLE = {**FEW, "return_nan_when_prediction_changes": False}
SMALL: dict[str, dict[str, Any]] = {
    "Faithfulness Correlation": {"subset_size": 20, "nr_runs": 12},
    "Monotonicity-Nguyen": {"nr_samples": 3, "features_in_step": 4},
    "Region Segmentation": {"patch_size": 4},
    "Selectivity": {"patch_size": 5},
    "ROAD": {"percentages": [10, 50, 90]},
    "Infidelity": {"perturb_patch_sizes": [2], "n_perturb_samples": 2},
    "Continuity Test": {"nr_steps": 4},
    "Local Lipschitz Estimate": FEW,
    "Max-Sensitivity": FEW,
    "Avg-Sensitivity": FEW,
    "Relative Input Stability": STABLE,
    "Relative Output Stability": STABLE,
    "Relative Representation Stability": STABLE,
    "Effective Complexity": {"eps": 0.3},
    "Top-K Intersection": {"k": 20},
    "Focus": {"custom_batch": np.array([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0]])},
    "Smooth MPRT": {"nr_samples": 40, "noise_magnitude": 0.001},
    "Completeness": {"normalise": False},
}
"""Arguments with which each metric runs on the small images, quickly."""
