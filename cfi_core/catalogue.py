"""What the project's own plugins bring, so that an error can say what to install.

Written by tools/catalogue.py: run it after a change of what a plugin offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cfi_core.specs import FrameworkSpec

DISTRIBUTION_OF_TOOLSET: Mapping[str, str] = MappingProxyType(
    {
        "captum": "cfi-captum",
        "tf-keras-vis": "cfi-tfkerasvis",
    }
)

DISTRIBUTION_OF_TRANSLATOR: Mapping[str, str] = MappingProxyType(
    {
        "bridge-to-keras": "cfi-bridge",
        "bridge-to-torch": "cfi-bridge",
        "keras-onnx-export": "cfi-translate",
        "keras-torch": "cfi-translate",
        "onnx-keras": "cfi-translate",
        "onnx-torch": "cfi-translate",
        "onnx2keras": "cfi-translate",
        "onnx2torch": "cfi-translate",
        "tf2onnx": "cfi-translate",
        "torch-export": "cfi-translate",
        "torch-onnx": "cfi-translate",
    }
)

DISTRIBUTION_OF_PLOTTER: Mapping[str, str] = MappingProxyType({"matplotlib": "cfi-matplotlib"})

DISTRIBUTION_OF_WRITER: Mapping[str, str] = MappingProxyType({".png": "cfi-matplotlib"})

DISTRIBUTION_OF_FRAMEWORK: Mapping[str, str] = MappingProxyType(
    {
        "jax": "cfi-jax",
        "onnx": "cfi-onnx",
        "onnxruntime": "cfi-onnx",
        "tensorflow": "cfi-tensorflow",
        "torch": "cfi-torch",
    }
)

_METHODS_OF_TOOLSET = {
    "captum": """
        deconvolution deep_lift deep_lift_shap feature_ablation feature_permutation grad_cam gradient_shap
        guided_backprop guided_grad_cam input_x_gradient integrated_gradients internal_influence kernel_shap
        layer_activation layer_conductance layer_deep_lift layer_deep_lift_shap layer_feature_ablation
        layer_feature_permutation layer_gradient_shap layer_gradient_x_activation layer_integrated_gradients layer_lrp
        lime lrp neuron_conductance neuron_deconvolution neuron_deep_lift neuron_deep_lift_shap neuron_feature_ablation
        neuron_gradient neuron_gradient_shap neuron_guided_backprop neuron_integrated_gradients noise_tunnel occlusion
        saliency shapley_value_sampling shapley_values
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

FRAMEWORKS: Mapping[str, FrameworkSpec] = MappingProxyType(
    {
        "jax": FrameworkSpec(
            name="jax",
            model_types=(
                ("jaxlib._jax", "PjitFunction"),
                ("flax.nnx", "Module"),
                ("flax.linen", "Module"),
                ("equinox", "Module"),
            ),
            tensor_types=(("jax", "Array"),),
            adapter="cfi_jax.adapter:JaxAdapter",
            module="jax",
        ),
        "onnx": FrameworkSpec(
            name="onnx",
            model_types=(("onnx", "ModelProto"),),
            tensor_types=(),
            adapter="cfi_onnx.adapter:OnnxAdapter",
            module="onnx",
            file_suffixes=(".onnx",),
        ),
        "onnxruntime": FrameworkSpec(
            name="onnxruntime",
            model_types=(("onnxruntime.capi.onnxruntime_inference_collection", "InferenceSession"),),
            tensor_types=(),
            adapter="cfi_onnx.sessions:SessionAdapter",
            module="onnxruntime",
        ),
        "tensorflow": FrameworkSpec(
            name="tensorflow",
            model_types=(
                ("keras.src.models.model", "Model"),
                ("tensorflow.python.module.module", "Module"),
                ("tensorflow.python.eager.polymorphic_function.polymorphic_function", "Function"),
                ("tensorflow.python.eager.polymorphic_function.concrete_function", "ConcreteFunction"),
                ("tensorflow.python.trackable.autotrackable", "AutoTrackable"),
            ),
            tensor_types=(
                ("tensorflow.python.framework.tensor", "Tensor"),
                ("tensorflow", "Variable"),
            ),
            adapter="cfi_tensorflow.adapter:TensorFlowAdapter",
            module="tensorflow",
            aliases=("keras", "tf"),
        ),
        "torch": FrameworkSpec(
            name="torch",
            model_types=(("torch.nn", "Module"),),
            tensor_types=(("torch", "Tensor"),),
            adapter="cfi_torch.adapter:TorchAdapter",
            module="torch",
        ),
    }
)
