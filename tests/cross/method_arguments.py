"""Arguments for every method on the shared CNN, in its torch twin's axis order, and the same in Keras's."""

from __future__ import annotations

from typing import Any

import numpy as np
from shared_cnn import CHANNELS, HEIGHT, WIDTH, to_last

TARGET = [1, 3]
LAYER, NEURON = "relu2", (6, 2, 4)  # neuron in torch's order: channel, height, width

_GENERATOR = np.random.default_rng(11)
BASELINES = _GENERATOR.normal(size=(4, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
# Eight features: the four quadrants, above and below the first channel.
MASK = np.zeros((1, CHANNELS, HEIGHT, WIDTH), np.int64)
MASK[:, :, HEIGHT // 2 :] += 1
MASK[:, :, :, WIDTH // 2 :] += 2
MASK[:, 1:] += 4

# Of the layer: its eight channels.
LAYER_MASK = np.arange(8).reshape(1, 8, 1, 1).repeat(5, 2).repeat(8, 3)

TARGETED: dict[str, Any] = {"target": TARGET}
IN_LAYER: dict[str, Any] = {"target": TARGET, "layer": LAYER}
OF_NEURON: dict[str, Any] = {"layer": LAYER, "neuron": NEURON}
STEPS = {"n_steps": 8}

CAPTUM: dict[str, dict[str, Any]] = {
    "integrated_gradients": {**TARGETED, "exec_args": STEPS, "baselines": BASELINES[:1]},
    "saliency": TARGETED,
    "deep_lift": {**TARGETED, "baselines": BASELINES[:1]},
    "deep_lift_shap": {**TARGETED, "baselines": BASELINES},
    "gradient_shap": {**TARGETED, "baselines": BASELINES},
    "input_x_gradient": TARGETED,
    "guided_backprop": TARGETED,
    "guided_grad_cam": {**TARGETED, "layer": LAYER},
    "deconvolution": TARGETED,
    "feature_ablation": {**TARGETED, "exec_args": {"feature_mask": MASK}},
    "occlusion": {**TARGETED, "exec_args": {"sliding_window_shapes": (3, 4, 5), "strides": (3, 3, 4)}},
    "feature_permutation": {**TARGETED, "exec_args": {"feature_mask": MASK}},
    "shapley_value_sampling": {**TARGETED, "exec_args": {"feature_mask": MASK, "n_samples": 3}},
    "shapley_values": {**TARGETED, "exec_args": {"feature_mask": MASK // 2}},
    "lime": {**TARGETED, "exec_args": {"feature_mask": MASK, "n_samples": 20}},
    "kernel_shap": {**TARGETED, "exec_args": {"feature_mask": MASK, "n_samples": 20}},
    "lrp": TARGETED,
    "noise_tunnel": {
        **TARGETED,
        "init_args": {"method": "integrated_gradients"},
        "exec_args": {"nt_samples": 3, "n_steps": 4},
    },
    "layer_activation": {"layer": LAYER},
    "grad_cam": IN_LAYER,
    "layer_gradient_x_activation": IN_LAYER,
    "layer_conductance": {**IN_LAYER, "exec_args": STEPS},
    "internal_influence": {**IN_LAYER, "exec_args": STEPS},
    "layer_integrated_gradients": {**IN_LAYER, "exec_args": STEPS},
    "layer_deep_lift": {**IN_LAYER, "baselines": BASELINES[:1]},
    "layer_deep_lift_shap": {**IN_LAYER, "baselines": BASELINES},
    "layer_gradient_shap": {**IN_LAYER, "baselines": BASELINES},
    "layer_feature_ablation": {**IN_LAYER, "exec_args": {"layer_mask": LAYER_MASK}},
    "layer_feature_permutation": {**IN_LAYER, "exec_args": {"layer_mask": LAYER_MASK}},
    "layer_lrp": {**TARGETED, "layer": "conv2"},
    "neuron_gradient": OF_NEURON,
    "neuron_conductance": {**TARGETED, **OF_NEURON, "exec_args": STEPS},
    "neuron_integrated_gradients": {**OF_NEURON, "exec_args": STEPS},
    "neuron_deep_lift": {**OF_NEURON, "baselines": BASELINES[:1]},
    "neuron_deep_lift_shap": {**OF_NEURON, "baselines": BASELINES},
    "neuron_gradient_shap": {**OF_NEURON, "baselines": BASELINES},
    "neuron_deconvolution": OF_NEURON,
    "neuron_guided_backprop": OF_NEURON,
    "neuron_feature_ablation": {**OF_NEURON, "exec_args": {"feature_mask": MASK}},
}

TF_KERAS_VIS: dict[str, dict[str, Any]] = {
    "saliency": TARGETED,
    "smooth_grad": {**TARGETED, "exec_args": {"smooth_samples": 3}},
    "grad_cam": IN_LAYER,
    "grad_cam_plus_plus": IN_LAYER,
    "layer_cam": IN_LAYER,
    "score_cam": IN_LAYER,
}

TF_EXPLAIN: dict[str, dict[str, Any]] = {
    "saliency": TARGETED,
    "input_x_gradient": TARGETED,
    "integrated_gradients": TARGETED,
    "smooth_grad": TARGETED,
    "occlusion": {**TARGETED, "exec_args": {"patch_size": [5, 4]}},
    "grad_cam": IN_LAYER,
    "layer_activation": {"layer": LAYER},
}


def in_keras_order(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments as a user of the Keras twin writes them: channels last."""
    turned = dict(arguments)
    if isinstance(turned.get("baselines"), np.ndarray):
        turned["baselines"] = to_last(turned["baselines"])
    if "neuron" in turned:
        channel, height, width = turned["neuron"]
        turned["neuron"] = (height, width, channel)
    if "exec_args" in turned:
        turned["exec_args"] = dict(turned["exec_args"])
        for name in ("sliding_window_shapes", "strides"):
            if name in turned["exec_args"]:
                channel, height, width = turned["exec_args"][name]
                turned["exec_args"][name] = (height, width, channel)
        for name in ("feature_mask", "layer_mask"):
            if name in turned["exec_args"]:
                turned["exec_args"][name] = to_last(turned["exec_args"][name])
    return turned


ZENNIT: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            "beta_smooth",
            "deconvolution",
            "excitation_backprop",
            "guided_backprop",
            "input_x_gradient",
            "lrp_epsilon_alpha2_beta1",
            "lrp_epsilon_alpha2_beta1_flat",
            "lrp_epsilon_plus",
            "lrp_epsilon_plus_flat",
            "saliency",
            "zennit_lrp",
        ),
        TARGETED,
    ),
    "integrated_gradients": {**TARGETED, "baselines": BASELINES[:1]},
    "lrp_epsilon_gamma_box": {**TARGETED, "init_args": {"low": -5.0, "high": 5.0}},
    "occlusion": {**TARGETED, "init_args": {"window": 4, "stride": 4}},
    "smooth_grad": {**TARGETED, "init_args": {"n_iter": 4}},
}

TORCHRAY: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("deconvolution", "guided_backprop", "linear_approx", "saliency"),
        TARGETED,
    ),
    "contrastive_excitation_backprop": {**TARGETED, "layer": "relu1", "exec_args": {"contrast_layer": "pool1"}},
    "excitation_backprop": {**TARGETED, "layer": "relu1"},  # the inputs are negative in part
    "extremal_perturbation": {**TARGETED, "exec_args": {"max_iter": 10, "step": 2, "sigma": 3}},
    "grad_cam": IN_LAYER,
    "rise": {**TARGETED, "exec_args": {"num_masks": 20, "num_cells": 3}},
}

SHAP: dict[str, dict[str, Any]] = {
    "deep_lift_shap": {**TARGETED, "baselines": BASELINES},
    "gradient_shap": {**TARGETED, "baselines": BASELINES, "exec_args": {"nsamples": 5}},
    "kernel_shap": {**TARGETED, "baselines": BASELINES[:1], "exec_args": {"nsamples": 2500}},  # of 840 features
    "partition_shap": {**TARGETED, "exec_args": {"max_evals": 50}},
}

ARGUMENTS: dict[str, dict[str, dict[str, Any]]] = {
    "captum": CAPTUM,
    "tf-keras-vis": TF_KERAS_VIS,
    "tf-explain": TF_EXPLAIN,
    "zennit": ZENNIT,
    "torchray": TORCHRAY,
    "shap": SHAP,
}
"""By toolset, then by method key."""
