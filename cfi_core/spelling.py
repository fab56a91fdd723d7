"""Near misses: what a word that nothing goes by was probably meant for, also a word of another library."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from types import MappingProxyType

_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ig": ("integrated_gradients",),
        "intgrad": ("integrated_gradients",),
        "gradient": ("saliency",),
        "gradients": ("saliency",),
        "vanillagradient": ("saliency",),
        "vanillagradients": ("saliency",),
        "gradientxinput": ("input_x_gradient",),
        "gradienttimesinput": ("input_x_gradient",),
        "inputtimesgradient": ("input_x_gradient",),
        "gradientsinputs": ("input_x_gradient",),
        "gradientinput": ("input_x_gradient",),
        "ixg": ("input_x_gradient",),
        "gbp": ("guided_backprop",),
        "guidedbackpropagation": ("guided_backprop",),
        "guidedgradcam": ("guided_grad_cam",),
        "deconvnet": ("deconvolution",),
        "deepshap": ("deep_lift_shap",),
        "deepexplainer": ("deep_lift_shap",),
        "gradientexplainer": ("gradient_shap",),
        "expectedgradients": ("gradient_shap",),
        "kernelexplainer": ("kernel_shap",),
        "partitionexplainer": ("partition_shap",),
        "treeexplainer": ("tree_shap",),
        "shap": ("kernel_shap", "gradient_shap", "deep_lift_shap", "partition_shap", "tree_shap"),
        "shapley": ("shapley_value_sampling", "shapley_values", "kernel_shap"),
        "cam": ("grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam"),
        "relevance": ("lrp", "lrp_epsilon_plus_flat"),
        "layerwiserelevancepropagation": ("lrp", "lrp_epsilon_plus_flat"),
        "deepdream": ("activation_maximization",),
        "featurevisualization": ("activation_maximization",),
        "ablation": ("feature_ablation", "occlusion"),
        "perturbation": ("extremal_perturbation", "occlusion"),
        "rise": ("rise",),
        "ebp": ("excitation_backprop",),
    }
)
"""What methods are called in papers and other libraries, without case and separators."""

UNIFORM_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("input", "x", "X", "input_tensor", "seed_input", "validation_data", "images"), "inputs"),
        **dict.fromkeys(("data", "input_ids", "samples", "image", "x_batch", "test_data"), "inputs"),
        **dict.fromkeys(("targets", "class_idx", "class_index", "target_class", "label", "labels", "score"), "target"),
        **dict.fromkeys(("pred_index", "target_index", "output_index", "category_index", "target_category"), "target"),
        **dict.fromkeys(("y", "classes", "y_batch", "attr_output"), "target"),
        **dict.fromkeys(("target_layers", "target_layer", "layer_name", "layers", "penultimate_layer"), "layer"),
        **dict.fromkeys(("saliency_layer", "layers_name", "module", "conv_layer", "last_conv_layer_name"), "layer"),
        **dict.fromkeys(("baseline", "background", "background_data", "reference", "references"), "baselines"),
        **dict.fromkeys(("neuron_selector", "neuron_index", "unit", "channel"), "neuron"),
        **dict.fromkeys(("method", "key", "algorithm"), "method_key"),
        **dict.fromkeys(("library", "backend", "package", "tool"), "toolset"),
        **dict.fromkeys(("reshape_transform",), "reshape"),
        **dict.fromkeys(("random_state", "rng"), "seed"),
        **dict.fromkeys(("net", "network", "forward_func", "estimator"), "model"),
        **dict.fromkeys(("constructor_args", "init_kwargs", "method_kwargs"), "init_args"),
        **dict.fromkeys(("kwargs", "call_args", "exec_kwargs", "attribute_kwargs"), "exec_args"),
    }
)
"""What other libraries call the uniform arguments."""


_NEARLY = 0.8
"""Of the likeness of the best match: what is less like the word was not meant."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> list[str]:
    """Up to three known names that look alike, whatever their case and separators: none that is much less like it."""
    plain, word = {_plain(other): other for other in known}, _plain(name)
    matches = get_close_matches(word, sorted(plain), n=3, cutoff=cutoff)
    likeness = [SequenceMatcher(None, match, word).ratio() for match in matches]
    return [plain[match] for match, ratio in zip(matches, likeness, strict=True) if ratio >= _NEARLY * likeness[0]]


def nearest_methods(key: str, known: Iterable[str]) -> list[str]:
    """Method keys that were probably meant: the same word spelt otherwise alone, or else those of a like name."""
    keys = sorted(set(known))
    word = _plain(key)
    if same := [other for other in keys if _plain(other) == word]:
        return same
    if called := [other for other in _ALIASES.get(word, ()) if other in keys]:
        return called
    within = [other for other in keys if len(word) > 2 and word in _plain(other)]
    return list(dict.fromkeys([*sorted(within, key=len)[:3], *nearest(key, keys)]))[:5]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold().replace("++", "plusplus"))
