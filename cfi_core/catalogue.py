"""What the project's own plugins bring, so that an error can say what to install.

Written by tools/catalogue.py: run it after a change of what a plugin offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cfi_core.specs import FrameworkSpec

_FRAMEWORKS = {"cfi-jax": "jax", "cfi-onnx": "onnx onnxruntime", "cfi-tensorflow": "tensorflow", "cfi-torch": "torch"}
_TOOLSETS = {"cfi-captum": "captum", "cfi-tfkerasvis": "tf-keras-vis"}
_TRANSLATORS = {
    "cfi-bridge": "bridge-to-keras bridge-to-torch",
    "cfi-translate": """
        keras-onnx-export keras-torch onnx-keras onnx-torch onnx2keras onnx2torch tf2onnx torch-export torch-onnx
    """,
}
_PLOTTERS = {"cfi-matplotlib": "matplotlib"}
_WRITERS = {"cfi-matplotlib": ".png"}
_METHODS = {
    "captum": """
        deconvolution deep_lift deep_lift_shap feature_ablation feature_permutation grad_cam gradient_shap
        guided_backprop guided_grad_cam input_x_gradient integrated_gradients internal_influence kernel_shap
        layer_activation layer_conductance layer_deep_lift layer_deep_lift_shap layer_feature_ablation
        layer_feature_permutation layer_gradient_shap layer_gradient_x_activation layer_integrated_gradients layer_lrp
        lime lrp neuron_conductance neuron_deconvolution neuron_deep_lift neuron_deep_lift_shap neuron_feature_ablation
        neuron_gradient neuron_gradient_shap neuron_guided_backprop neuron_integrated_gradients noise_tunnel occlusion
        saliency shapley_value_sampling shapley_values
    """,
    "tf-keras-vis": "activation_maximization grad_cam grad_cam_plus_plus layer_cam saliency score_cam smooth_grad",
}
_ADAPTER = {
    "jax": "cfi_jax.adapter:JaxAdapter",
    "onnx": "cfi_onnx.adapter:OnnxAdapter",
    "onnxruntime": "cfi_onnx.sessions:SessionAdapter",
    "tensorflow": "cfi_tensorflow.adapter:TensorFlowAdapter",
    "torch": "cfi_torch.adapter:TorchAdapter",
}
_MODULE = {"jax": "jax", "onnx": "onnx", "onnxruntime": "onnxruntime", "tensorflow": "tensorflow", "torch": "torch"}
_MODEL_TYPES = {
    "jax": "jaxlib._jax:PjitFunction flax.nnx:Module flax.linen:Module equinox:Module",
    "onnx": "onnx:ModelProto",
    "onnxruntime": "onnxruntime.capi.onnxruntime_inference_collection:InferenceSession",
    "tensorflow": """
        keras.src.models.model:Model tensorflow.python.module.module:Module
        tensorflow.python.eager.polymorphic_function.polymorphic_function:Function
        tensorflow.python.eager.polymorphic_function.concrete_function:ConcreteFunction
        tensorflow.python.trackable.autotrackable:AutoTrackable
    """,
    "torch": "torch.nn:Module",
}
_TENSOR_TYPES = {
    "jax": "jax:Array",
    "tensorflow": "tensorflow.python.framework.tensor:Tensor tensorflow:Variable",
    "torch": "torch:Tensor",
}
_FILE_SUFFIXES = {"onnx": ".onnx"}
_ALIASES = {"tensorflow": "keras tf"}


def _owners(table: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({name: owner for owner, names in table.items() for name in names.split()})


def _pairs(types: str) -> tuple[Any, ...]:
    return tuple(text.split(":") for text in types.split())


DISTRIBUTION_OF_FRAMEWORK = _owners(_FRAMEWORKS)
DISTRIBUTION_OF_TOOLSET = _owners(_TOOLSETS)
DISTRIBUTION_OF_TRANSLATOR = _owners(_TRANSLATORS)
DISTRIBUTION_OF_PLOTTER = _owners(_PLOTTERS)
DISTRIBUTION_OF_WRITER = _owners(_WRITERS)

TOOLSETS_OF_METHOD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        key: tuple(toolset for toolset, keys in _METHODS.items() if key in keys.split())
        for key in " ".join(_METHODS.values()).split()
    }
)

FRAMEWORKS: Mapping[str, FrameworkSpec] = MappingProxyType(
    {
        name: FrameworkSpec(
            name=name,
            model_types=_pairs(_MODEL_TYPES.get(name, "")),
            tensor_types=_pairs(_TENSOR_TYPES.get(name, "")),
            adapter=_ADAPTER[name],
            module=_MODULE[name],
            file_suffixes=tuple(_FILE_SUFFIXES.get(name, "").split()),
            aliases=tuple(_ALIASES.get(name, "").split()),
        )
        for name in DISTRIBUTION_OF_FRAMEWORK
    }
)
