"""A near miss suggests what was meant."""

import pytest

import cfi_core as cfi
from cfi_core.spelling import nearest, nearest_methods

KEYS = (
    *("grad_cam", "grad_cam_plus_plus", "guided_grad_cam", "layer_cam", "score_cam", "integrated_gradients"),
    *("layer_integrated_gradients", "saliency", "input_x_gradient", "guided_backprop", "smooth_grad", "occlusion"),
    *("kernel_shap", "gradient_shap", "deep_lift_shap", "tree_shap", "partition_shap", "lrp_epsilon_plus_flat"),
    *("activation_maximization", "deconvolution", "feature_ablation"),
)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("gradcam", "grad_cam"),
        ("GradCAM", "grad_cam"),
        ("Grad-CAM", "grad_cam"),
        ("grad cam", "grad_cam"),
        ("GradCAM++", "grad_cam_plus_plus"),
        ("integrated gradients", "integrated_gradients"),
        ("IntegratedGradients", "integrated_gradients"),
        ("IG", "integrated_gradients"),
        ("smoothgrad", "smooth_grad"),
        ("shap", "kernel_shap"),
        ("KernelExplainer", "kernel_shap"),
        ("lrp", "lrp_epsilon_plus_flat"),
        ("guided_backpropagation", "guided_backprop"),
        ("gradient*input", "input_x_gradient"),
        ("gradient_x_input", "input_x_gradient"),
        ("vanilla_gradients", "saliency"),
        ("ocllusion", "occlusion"),
        ("deep dream", "activation_maximization"),
    ],
)
def test_methods_by_their_other_names(key, meant):
    assert nearest_methods(key, KEYS)[0] == meant


def test_the_same_word_spelt_otherwise_is_suggested_alone():
    assert nearest_methods("GradCam", KEYS) == ["grad_cam"]


def test_nothing_is_suggested_for_nothing_alike():
    assert nearest_methods("zzzzzz", KEYS) == []
    assert nearest_methods("", KEYS) == []


@pytest.mark.parametrize("name", ["tf_keras_vis", "tfkerasvis", "TF-Keras-Vis", "tf keras vis"])
def test_toolsets(name):
    assert nearest(name, ("captum", "tf-keras-vis", "tf-explain"))[0] == "tf-keras-vis"


def test_looking_up_suggests_as_calling_does(painting, images):
    for call in (lambda: cfi.methods("PressGradient"), lambda: cfi.attribute(painting, "PressGradient", inputs=images)):
        with pytest.raises(cfi.UnknownMethodError, match=r"Did you mean 'press_gradient'\?"):
            call()
    with pytest.raises(cfi.UnknownMethodError, match=r"Did you mean 'press'\?"):
        cfi.methods(toolset="Press")
    with pytest.raises(cfi.ArgumentError, match="no kind 'layers' of methods; there are 'attribution', 'layer'"):
        cfi.methods(kind="layers")


def test_what_a_toolset_does_not_offer_is_an_empty_list(registry):
    assert cfi.methods("press_layer", kind="neuron") == []


def test_the_package_lists_its_public_names_alone():
    assert dir(cfi) == sorted(cfi.__all__)
    assert not [name for name in dir(cfi) if name.startswith("_")]
