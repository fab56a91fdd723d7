"""Ways in which an attribution could look right and be wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable

import keras
import numpy as np
import pytest
import torch
from shared_cnn import Twins, apart, to_first
from torch import nn

import cfi_core as cfi


def gradient(model: Callable, images: np.ndarray, value: Callable) -> np.ndarray:
    """By torch alone."""
    inputs = torch.tensor(images, requires_grad=True)
    return torch.autograd.grad(value(model(inputs)).sum(), inputs)[0].numpy()


class Scaled(nn.Module):
    """Holds what changes its outputs in places that no state_dict shows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.plain = torch.ones(3)
        self.register_buffer("hidden", torch.ones(3), persistent=False)
        self.settings = {"power": [1.0]}
        self.act = torch.tanh

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.linear(x)) * self.plain * self.hidden * self.settings["power"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "plain", torch.full((3,), 5.0)),
        lambda model: model.hidden.mul_(3),
        lambda model: model.settings["power"].__setitem__(0, 2.0),
        lambda model: setattr(model, "act", torch.sigmoid),
    ],
    ids=["tensor", "buffer", "container", "function"],
)
def test_a_changed_model_is_not_explained_by_its_former_translation(change):
    model, x = Scaled().eval(), np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    cfi.attribute(model, "saliency", "tf-keras-vis", inputs=x, target=1)
    change(model)
    after = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=x, target=1)
    assert apart(gradient(model, x, lambda y: y[:, 1]), after.values) < 1e-4


def test_a_changed_attribute_of_a_keras_layer_is_noticed():
    class Times(keras.layers.Layer):
        factor = 1.0

        def call(self, x):
            return x * self.factor

    layer = Times()
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    before = cfi.attribute(model, "saliency", "captum", inputs=x, target=1)
    layer.factor = 5.0
    after = cfi.attribute(model, "saliency", "captum", inputs=x, target=1)
    np.testing.assert_allclose(after.values, 5 * before.values, rtol=1e-5)


def test_what_a_user_does_to_a_translated_model_stays_there(twins: Twins):
    mine = cfi.translate(twins.torch_model, "tensorflow", inputs=twins.first).model
    mine.set_weights([np.zeros_like(weight) for weight in mine.get_weights()])
    result = cfi.attribute(twins.torch_model, "saliency", "tf-keras-vis", inputs=twins.first, target=0)
    assert apart(gradient(twins.torch_model, twins.first, lambda y: y[:, 0]), result.values) < 1e-4


def test_a_keras_model_with_a_call_of_its_own_is_not_its_graph():
    class Negated(keras.Model):
        def call(self, x, training=None):
            return -10 * super().call(x)

    inputs = keras.Input((4,))
    dense = keras.layers.Dense(3)
    model = Negated(inputs=inputs, outputs=dense(inputs))
    x = np.ones((2, 4), np.float32)
    result = cfi.attribute(model, "saliency", "captum", inputs=x, target=1)
    np.testing.assert_allclose(result.values[0], -10 * dense.kernel.numpy()[:, 1], rtol=1e-5)
    with pytest.raises(cfi.CFIError):
        cfi.attribute(model, "saliency", "tf-keras-vis", inputs=x, target=1)


def test_a_callable_neuron_sees_the_users_axes(twins: Twins):
    result = cfi.attribute(
        twins.keras_model,
        "neuron_gradient",
        "captum",
        inputs=twins.last,
        layer="conv2",
        neuron=lambda layer: layer[..., 6].reshape(len(layer), -1).sum(1),
    )
    model = twins.torch_model
    expected = gradient(
        lambda x: model.conv2(model.pool1(model.relu1(model.conv1(x)))), twins.first, lambda y: y[:, 6].sum((1, 2))
    )
    assert apart(expected, to_first(result.values)) < 1e-4


class MapAndScore(nn.Module):
    """Two outputs: a feature map and scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.conv(x)
        return features, torch.softmax(self.fc(features.mean((2, 3))), 1)


def test_a_callable_of_several_outputs_sees_the_users_axes_and_structure(twins: Twins):
    model = MapAndScore().eval()
    expected = gradient(model, twins.first, lambda outputs: outputs[0][:, 4, 3, 7])
    for target in ((0, 4, 3, 7), (0, lambda output: output[:, 4, 3, 7])):
        result = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=twins.first, target=target)
        assert apart(expected, result.values) < 1e-4
    both = lambda outputs: outputs[0][:, 4, 3, 7] * outputs[1][:, 1].log()  # noqa: E731 - of torch tensors
    for way in ("bridge", "conversion"):
        result = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=twins.first, target=both, translator=way)
        assert apart(gradient(model, twins.first, both), result.values) < 1e-4

    inputs = keras.Input((14, 20, 3))
    features = keras.layers.Conv2D(6, 3, name="conv")(inputs)
    scores = keras.layers.Dense(4)(keras.layers.Flatten()(features))
    mirrored = keras.Model(inputs, {"scores": scores, "features": features})
    kernel = mirrored.get_layer("conv").kernel.numpy()[..., 4]
    result = cfi.attribute(
        mirrored, "saliency", "captum", inputs=twins.last, target=lambda outputs: outputs["features"][:, 3, 7, 4]
    )
    np.testing.assert_allclose(result.values[0, 3:6, 7:10], kernel, rtol=1e-5)
    assert np.count_nonzero(result.values[0]) == kernel.size


def test_a_score_function_of_the_toolset_sees_the_users_axes(twins: Twins):
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    score = lambda output: output[:, 3, 2, 7]  # noqa: E731
    result = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=twins.first, exec_args={"score": score})
    assert apart(gradient(model, twins.first, score), result.values) < 1e-4


def test_the_head_is_told_for_the_output_that_is_explained(twins: Twins):
    model = MapAndScore().eval()
    score = cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=(1, 2))
    feature = cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=(0, 4, 3, 7))
    assert "logit: the model's final softmax was left out" in score.provenance["explained"]
    assert "as it is" in feature.provenance["explained"]


def test_a_callable_target_is_of_the_models_own_output(softmax_twins: Twins):
    """Not of its logits, which the method would explain for an index."""
    target = lambda output: output[:, 2].log()  # noqa: E731
    expected = gradient(softmax_twins.torch_model, softmax_twins.first, target)
    result = cfi.attribute(softmax_twins.torch_model, "saliency", "captum", inputs=softmax_twins.first, target=target)
    assert apart(expected, result.values) < 1e-5
    assert "your function" in result.provenance["explained"]


def test_a_fault_on_a_late_sample_is_found(twins: Twins):
    class Switching(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -self.model(x) if x.abs().max() > 20 else self.model(x)

    images = np.resize(twins.first, (12, *twins.first.shape[1:]))
    images[10, 0, 0, 0] = 30
    with (
        pytest.warns(cfi.ModelWarning, match="samples influence each other"),
        pytest.warns(cfi.TranslationWarning, match="test_silent_traps.py.* stays as it is"),
        pytest.raises(cfi.UnfaithfulTranslationError, match="your inputs"),
    ):
        cfi.attribute(
            Switching(twins.torch_model).eval(),
            "saliency",
            "tf-keras-vis",
            inputs=images,
            target=0,
            translator="conversion",
        )


def test_a_large_output_does_not_hide_a_small_one():
    from cfi_core.distance import relative_difference

    large, small = np.full(100, 1e6), np.array([0.1, 0.9])
    assert relative_difference([large, small], [large, small[::-1]]) > 0.5


def test_hooks_of_the_models_own_methods_go_over_to_the_twin(twins: Twins):
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
            self.features: torch.Tensor | None = None
            self.body.register_forward_hook(self.keep)

        def keep(self, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            self.features = output

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.body(x)
            return self.head(self.features.mean((2, 3)))

    model = Features().eval()
    expected = gradient(model, twins.first, lambda y: y[:, 1])
    kept = model.features
    result = cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=1)
    assert apart(expected, result.values) < 1e-6
    assert model.features is kept


def test_integer_baselines_are_refused(twins: Twins):
    white = np.full(twins.first.shape, 255, np.uint8)
    with pytest.raises(cfi.InputError, match="uint8"):
        cfi.attribute(
            twins.torch_model, "integrated_gradients", "captum", inputs=twins.first, target=0, baselines=white
        )


def test_threads_do_not_draw_from_each_others_numbers(twins: Twins):
    def explain(seed: int) -> np.ndarray:
        return cfi.attribute(
            twins.torch_model, "gradient_shap", "captum", inputs=twins.first, target=0, baselines=twins.first, seed=seed
        ).values

    alone = [explain(seed) for seed in range(6)]
    together: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda s=seed: together.update({s: explain(s)})) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, values in enumerate(alone):
        np.testing.assert_array_equal(values, together[seed])


def test_a_lazy_model_is_refused_and_stays_lazy(twins: Twins):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(cfi.InputError, match="run the model once"):
        cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=0)
    assert nn.parameter.is_lazy(model[1].weight)


def test_layers_of_a_model_built_by_add_can_be_read(twins: Twins):
    model = keras.Sequential()
    model.add(keras.Input((14, 20, 3)))
    model.add(keras.layers.Conv2D(4, 3, name="c"))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(2))
    assert cfi.layers(model)[0].output_shape == (12, 18, 4)
    crossed = cfi.attribute(model, "grad_cam", "captum", inputs=twins.last, target=0, layer="c")
    native = cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=twins.last, target=0, layer="c")
    assert apart(native.values, crossed.values) < 1e-4


def test_outputs_of_a_keras_model_go_by_their_keys(twins: Twins):
    inputs = keras.Input((14, 20, 3))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(
        inputs, {"b": keras.layers.Dense(3, name="three")(flat), "a": keras.layers.Dense(2, name="two")(flat)}
    )
    kernel = model.get_layer("three").kernel.numpy()[:, 2]
    for toolset in ("tf-keras-vis", "captum"):
        result = cfi.attribute(model, "saliency", toolset, inputs=twins.last, target=("b", 2))
        np.testing.assert_allclose(result.values[0].ravel(), kernel, rtol=1e-5)


def test_inference_mode_around_a_call_does_no_harm(twins: Twins):
    with torch.inference_mode():
        for toolset in ("captum", "tf-keras-vis"):
            result = cfi.attribute(twins.torch_model, "saliency", toolset, inputs=twins.first, target=0)
        assert torch.is_inference_mode_enabled()
    assert apart(gradient(twins.torch_model, twins.first, lambda y: y[:, 0]), result.values) < 1e-4


def test_a_model_that_takes_positive_numbers_only(twins: Twins):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(lambda x: keras.ops.log(x), output_shape=(4,)), keras.layers.Dense(3)]
    )
    x = np.random.default_rng(0).uniform(0.5, 2, size=(3, 4)).astype(np.float32)
    result = cfi.attribute(model, "saliency", "captum", inputs=x, target=1)
    np.testing.assert_allclose(result.values, model.layers[-1].kernel.numpy()[:, 1] / x, rtol=1e-4)


def test_bad_arguments_are_typed_and_found_early(twins: Twins, tmp_path):
    call = {"inputs": twins.first, "target": 0}
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    for error, arguments in (
        (cfi.RouteError, {"translator": 5}),
        (cfi.ArgumentError, {"init_args": [1]}),
        (cfi.PlotError, {"plot": "x.xyz"}),
        (cfi.PlotError, {"plot": tmp_path / "nowhere" / "x.png"}),
    ):
        with pytest.raises(error):
            cfi.attribute(twins.torch_model, "saliency", "tf-keras-vis", **call, **arguments)
    with pytest.raises(cfi.InputError, match="no valid ONNX model"):
        cfi.attribute(str(broken), "saliency", "captum", **call)
    swapped = cfi.attribute(twins.torch_model, "saliency", "captum", inputs=twins.first.astype(">f4"), target=0)
    assert apart(gradient(twins.torch_model, twins.first, lambda y: y[:, 0]), swapped.values) < 1e-6


def test_a_sample_without_its_axis_is_not_taken_for_a_batch(twins: Twins):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert model(torch.tensor(twins.first[0])).shape == (5, 1)  # torch takes channels for samples
    with pytest.raises(cfi.InputError, match=r"x\[None\]"):
        cfi.attribute(model, "saliency", "captum", inputs=twins.first[0], target=0)


def test_swapped_axes_are_told_with_what_would_fit(twins: Twins):
    either = r"x\.permute\(0, 3, 1, 2\) \(of a numpy array, x\.transpose\(0, 3, 1, 2\)\) would fit"
    with pytest.raises(cfi.InputError, match=either):
        cfi.attribute(twins.torch_model, "saliency", "captum", inputs=twins.last, target=0)


@pytest.mark.parametrize("key", ["deep_lift", "guided_backprop", "lrp"])
def test_global_average_pooling_in_any_memory_format(twins: Twins, key):
    """Torch pools channels-last memory through another operation, which is as linear."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((14, 20, 3)),
            layers.Conv2D(6, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    crossed = cfi.attribute(model, key, "captum", inputs=twins.last, target=1)
    torch_model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    ).eval()
    kernel, bias, dense, dense_bias = model.get_weights()
    with torch.no_grad():
        torch_model[0].weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
        torch_model[0].bias.copy_(torch.tensor(bias))
        torch_model[4].weight.copy_(torch.tensor(dense.T))
        torch_model[4].bias.copy_(torch.tensor(dense_bias))
    for images in (torch.tensor(twins.first), torch.tensor(twins.first).to(memory_format=torch.channels_last)):
        native = cfi.attribute(torch_model, key, "captum", inputs=images, target=1)
        assert apart(native.values, to_first(crossed.values)) < 1e-4


@pytest.mark.parametrize("window", [(15, 4, 3), (4, 4), 4, (0, 4, 3)])
def test_windows_are_checked_in_the_users_axes(twins: Twins, window):
    with pytest.raises(cfi.ArgumentError, match=r"sliding_window_shapes=.*\(14, 20, 3\)"):
        cfi.attribute(
            twins.keras_model,
            "occlusion",
            "captum",
            inputs=twins.last,
            target=0,
            exec_args={"sliding_window_shapes": window},
        )
