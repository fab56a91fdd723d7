"""The toolset's own arguments are carried into the other framework's layout, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from shared_cnn import Twins, apart, to_first, to_last

import cfi_core as cfi

CALL = {"target": [1, 3], "seed": 3}


def test_a_wrapped_method_brings_its_head_and_its_needs(softmax_twins: Twins):
    arguments = {"exec_args": {"nt_samples": 2}, **CALL}
    explained = {}
    for method in ("saliency", "integrated_gradients"):
        result = cfi.attribute(
            softmax_twins.torch_model,
            "noise_tunnel",
            inputs=softmax_twins.first,
            init_args={"method": method},
            **arguments,
        )
        explained[method] = result.provenance["explained"]
    assert "logit" in explained["saliency"] and "logit" not in explained["integrated_gradients"]
    plan = cfi.plan(softmax_twins.keras_model, "noise_tunnel", init_args={"method": "deep_lift"}, inputs=1, target=0)
    assert "modules" in plan.method.needs
    pending = cfi.attribute(
        softmax_twins.torch_model,
        "noise_tunnel",
        inputs=softmax_twins.first,
        init_args={"method": "layer_conductance"},
        **arguments,
    )
    assert isinstance(pending, cfi.PendingLayer)


def test_a_layer_mask_is_turned_with_the_layer(twins: Twins):
    mask = np.arange(8 * 5 * 8).reshape(1, 8, 5, 8) % 7
    native = cfi.attribute(
        twins.torch_model,
        "layer_feature_ablation",
        inputs=twins.first,
        layer="conv2",
        exec_args={"layer_mask": mask},
        **CALL,
    )
    crossed = cfi.attribute(
        twins.keras_model,
        "layer_feature_ablation",
        "captum",
        inputs=twins.last,
        layer="conv2",
        exec_args={"layer_mask": to_last(mask)},
        **CALL,
    )
    assert apart(native.values, to_first(crossed.values)) < 1e-4


def test_a_layers_input_is_refused_across_frameworks(twins: Twins):
    own = {"exec_args": {"attribute_to_layer_input": True}, "layer": "conv2"}
    native = cfi.attribute(twins.torch_model, "layer_activation", "captum", inputs=twins.first, **own)
    assert native.values.shape == (2, 6, 7, 10)
    with pytest.raises(cfi.ArgumentError, match="name the layer before it"):
        cfi.attribute(twins.keras_model, "layer_activation", "captum", inputs=twins.last, **own)


def test_upsampling_is_asked_for(twins: Twins):
    call = {"inputs": twins.first, "layer": "conv2", "target": 0}
    raw = cfi.attribute(twins.torch_model, "grad_cam", "captum", **call)
    assert raw.values.shape == (2, 5, 8)
    large = cfi.attribute(twins.torch_model, "grad_cam", "captum", exec_args={"upsample": "bilinear"}, **call)
    assert large.values.shape == (2, 14, 20) and large.dims == ("sample", "height", "width")
    assert "upsample" in str(large.provenance["applied"])
    expanded = cfi.attribute(twins.torch_model, "grad_cam", "tf-keras-vis", exec_args={"expand_cam": True}, **call)
    assert expanded.values.shape == (2, 14, 20)


def test_targets_mean_the_same(twins: Twins):
    """An index, a list, a tuple and a callable for one and the same output."""
    ways = [2, [2, 2], (2,), np.array([2, 2]), lambda output: output[:, 2]]
    for toolset in ("captum", "tf-keras-vis"):
        values = [
            cfi.attribute(twins.torch_model, "saliency", toolset, inputs=twins.first, target=target).values
            for target in ways
        ]
        for other in values[1:]:
            np.testing.assert_allclose(other, values[0], atol=1e-7)


def test_inputs_of_either_framework_are_taken(twins: Twins):
    import tensorflow as tf
    import torch

    for images in (twins.first, torch.tensor(twins.first), tf.constant(twins.first), twins.first.astype(np.float64)):
        result = cfi.attribute(twins.torch_model, "saliency", "tf-keras-vis", inputs=images, target=0)
        reference = cfi.attribute(twins.torch_model, "saliency", "captum", inputs=images, target=0)
        assert apart(reference.values, result.values) < 1e-4


def test_non_contiguous_inputs(twins: Twins):
    strided = np.repeat(twins.first, 2, axis=3)[..., ::2]
    result = cfi.attribute(twins.torch_model, "saliency", "tf-keras-vis", inputs=strided, target=0)
    reference = cfi.attribute(twins.torch_model, "saliency", "captum", inputs=twins.first, target=0)
    assert apart(reference.values, result.values) < 1e-4


def test_structured_outputs(twins: Twins):
    """A model with two outputs: the target begins with the output's position."""
    import torch
    from torch import nn

    class TwoHeads(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
            self.second = nn.Linear(5, 3)

        def forward(self, x):
            first = self.model(x)
            return first, self.second(first)

    model = TwoHeads(twins.torch_model).eval()
    images = torch.tensor(twins.first, requires_grad=True)
    (expected,) = torch.autograd.grad(model(images)[1][:, 2].sum(), images)
    for toolset in ("captum", "tf-keras-vis"):
        result = cfi.attribute(model, "saliency", toolset, inputs=twins.first, target=(1, 2))
        assert apart(expected.numpy(), result.values) < 1e-4
    with pytest.raises(cfi.TargetError, match="2 outputs"):
        cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=2)


def test_a_tuple_into_an_image_output_is_turned(twins: Twins):
    """Segmentation: (class, row, column) in the torch model's order names the same value in Keras's."""
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    images = torch.tensor(twins.first, requires_grad=True)
    (expected,) = torch.autograd.grad(model(images)[:, 3, 5, 17].sum(), images)
    for target in ((3, 5, 17), lambda output: output[:, 3, 5, 17]):
        result = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=twins.first, target=target)
        assert apart(expected.numpy(), result.values) < 1e-4


def two_images() -> Any:
    """A Keras model of two images and a category, of which the first image is to be explained."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    first, second, category = (keras.Input((14, 20, 3)), keras.Input((14, 20, 3)), keras.Input((1,), dtype="int32"))
    both = layers.Multiply()([layers.Conv2D(4, 3, activation="relu")(first), layers.Conv2D(4, 3)(second)])
    flat = layers.Concatenate()([layers.Flatten()(layers.MaxPooling2D(3)(both)), layers.Flatten()(second)])
    scores = layers.Dense(5)(flat) * layers.Flatten()(layers.Embedding(3, 5)(category))
    return keras.Model([first, second, category], scores)


@pytest.mark.parametrize("translator", ["bridge", "conversion"])
def test_what_is_held_is_an_input_of_the_translated_model(twins: Twins, translator: str):
    """In the user's axes, of any type; differentiated with respect to the first image alone."""
    import tensorflow as tf

    model, category = two_images(), tf.constant([[2], [1]])
    with tf.GradientTape() as tape:
        first, second = tf.constant(twins.last), tf.constant(twins.last[::-1].copy())
        tape.watch(first)
        output = model([first, second, category])[:, 3]
    call = {"inputs": twins.last, "target": 3, "translator": translator}
    own = {"additional_forward_args": (second.numpy(), category.numpy())}
    result = cfi.attribute(model, "saliency", "captum", exec_args=own, **call)
    assert result.dims == ("sample", "height", "width", "channel")
    assert apart(tape.gradient(output, first).numpy(), result.values) < 1e-4
    ablated = cfi.attribute(
        model, "occlusion", "captum", exec_args={**own, "sliding_window_shapes": (14, 20, 3)}, **call
    )
    difference = output - model([tf.zeros_like(first), second, category])[:, 3]
    np.testing.assert_allclose(ablated.values[:, 5, 7, 1], difference, rtol=1e-4)


def test_what_a_translated_model_cannot_take_is_not_held(twins: Twins):
    import torch
    from torch import nn

    class Times(nn.Module):
        def forward(self, x, factor=1.0):
            return x.flatten(1)[:, :4] * factor

    model = Times().eval()
    call = {"inputs": twins.first, "target": 1, "exec_args": {"additional_forward_args": (2.0,)}}
    assert cfi.attribute(model, "saliency", "captum", **call).values.max() == 2
    one = {**call, "exec_args": {"additional_forward_args": (torch.tensor([[2.0]]),)}}
    for arguments in (call, one):
        with pytest.raises(cfi.InputError, match="Make them part of the model"):
            cfi.attribute(model, "saliency", "captum", translator="bridge", **arguments)


@pytest.mark.parametrize("translator", ["bridge", "conversion"])
def test_a_slice_of_units_is_turned_with_the_layer(twins: Twins, translator: str):
    call = {"layer": "conv2", "seed": 3}
    native = cfi.attribute(
        twins.torch_model, "neuron_gradient", inputs=twins.first, neuron=(slice(2, 7, 2), 1, slice(3, 5)), **call
    )
    crossed = cfi.attribute(
        twins.keras_model,
        "neuron_gradient",
        inputs=twins.last,
        neuron=(1, slice(3, 5), slice(2, 7, 2)),
        translator=translator,
        **call,
    )
    assert apart(native.values, to_first(crossed.values)) < 1e-4


def test_a_slice_is_no_unit_to_visualise(twins: Twins):
    with pytest.raises(cfi.ArgumentError, match="several units"):
        cfi.visualize_features(
            twins.keras_model, layer="conv2", neuron=slice(0, 2), exec_args={"input_range": (0, 1), "steps": 1}
        )


@pytest.mark.parametrize("translator", ["bridge", "conversion"])
def test_coefficients_by_feature_cross_as_they_are(twins: Twins, translator: str):
    mask = np.arange(4).reshape(1, 1, 2, 2).repeat(7, 2).repeat(10, 3)

    def coefficients(model: Any, inputs: np.ndarray, mask: np.ndarray, **arguments: Any) -> cfi.Attribution:
        own = {"feature_mask": mask, "return_input_shape": False, "n_samples": 30}
        return cfi.attribute(model, "kernel_shap", "captum", inputs=inputs, exec_args=own, **CALL, **arguments)

    native = coefficients(twins.torch_model, twins.first, mask)
    crossed = coefficients(twins.keras_model, twins.last, to_last(mask), translator=translator)
    assert crossed.dims == ("sample", "feature") and crossed.values.shape == (2, 4)
    assert apart(native.values, crossed.values) < 1e-4
    one = cfi.attribute(
        twins.keras_model,
        "feature_ablation",
        inputs=twins.last,
        exec_args={"feature_mask": np.array(0)},
        translator=translator,
        **CALL,
    )
    assert (one.values == one.values[:, :1, :1, :1]).all()


def test_a_translation_tells_the_names_that_its_layers_have_there(twins: Twins):
    """An activation of a Keras layer becomes a module of its own; the layer's output is what that gives."""
    import keras
    import torch

    model = keras.Sequential(
        [keras.Input((14, 20, 3)), keras.layers.Conv2D(4, 3, activation="relu", name="conv_1"), keras.layers.Flatten()]
    )
    translation = cfi.translate(model, "torch", inputs=twins.last)
    name = translation.layer_map["conv_1"]
    made = {}
    translation.model.get_submodule(name).register_forward_hook(lambda *call: made.update(output=call[2]))
    translation.model(torch.tensor(twins.first))
    np.testing.assert_allclose(to_last(made["output"].detach().numpy()), model.layers[0](twins.last), atol=1e-5)
    assert name == "conv_1" or f"layer 'conv_1' is {name!r}" in repr(translation)
