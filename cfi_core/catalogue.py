"""Names that the project's own plugins bring, so that an error can say what to install.

A test with all plugins installed compares this page with what they really offer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DISTRIBUTION_OF_FRAMEWORK: Mapping[str, str] = MappingProxyType(
    {"torch": "cfi-torch", "tensorflow": "cfi-tensorflow", "onnx": "cfi-onnx", "jax": "cfi-jax"}
)

DISTRIBUTION_OF_TOOLSET: Mapping[str, str] = MappingProxyType(
    {"captum": "cfi-captum", "tf-keras-vis": "cfi-tfkerasvis"}
)

DISTRIBUTION_OF_TRANSLATOR: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        (
            "keras-torch",
            "torch-export",
            "onnx-keras",
            "onnx-torch",
            "torch-onnx",
            "onnx2keras",
            "tf2onnx",
            "keras-onnx-export",
            "onnx2torch",
        ),
        "cfi-translate",
    )
    | dict.fromkeys(("bridge-to-torch", "bridge-to-keras"), "cfi-bridge")
)

DISTRIBUTION_OF_PLOTTER: Mapping[str, str] = MappingProxyType({"matplotlib": "cfi-matplotlib"})

DISTRIBUTION_OF_WRITER: Mapping[str, str] = MappingProxyType({".png": "cfi-matplotlib"})

_METHODS_OF_TOOLSET = {
    "captum": """
        deconvolution deep_lift deep_lift_shap feature_ablation feature_permutation grad_cam gradient_shap
        guided_backprop guided_grad_cam input_x_gradient integrated_gradients internal_influence kernel_shap
        layer_activation layer_conductance layer_deep_lift layer_deep_lift_shap layer_feature_ablation
        layer_feature_permutation layer_gradient_shap layer_gradient_x_activation layer_integrated_gradients
        layer_lrp lime lrp neuron_conductance neuron_deconvolution neuron_deep_lift neuron_deep_lift_shap
        neuron_feature_ablation neuron_gradient neuron_gradient_shap neuron_guided_backprop
        neuron_integrated_gradients noise_tunnel occlusion saliency shapley_value_sampling shapley_values
    """,
    "tf-keras-vis": """
        activation_maximization grad_cam grad_cam_plus_plus layer_cam saliency score_cam smooth_grad
    """,
}

TOOLSETS_OF_METHOD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        key: tuple(toolset for toolset, keys in _METHODS_OF_TOOLSET.items() if key in keys.split())
        for keys in _METHODS_OF_TOOLSET.values()
        for key in keys.split()
    }
)
