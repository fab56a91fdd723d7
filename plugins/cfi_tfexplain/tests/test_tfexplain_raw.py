"""Raw values, against closed forms, and against slow implementations from the papers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_explain.core.activations import ExtractActivations
from tf_explain.core.grad_cam import GradCAM
from tf_explain.core.vanilla_gradients import VanillaGradients
from tfexplain_models import CLASSES, build, linear_model, pictures

import cfi_core as cfi
from cfi_tfexplain.table import FITTED, METHODS

LABELS = [2, 0, 3]


def explain(model: Any, key: str, inputs: Any, target: Any = None, **arguments: Any) -> Any:
    return cfi.attribute(model, key, "tf-explain", inputs=inputs, target=target, **arguments)


def of_labels(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel[..., LABELS], -1, 0)


# closed forms on a linear model


@pytest.fixture
def line() -> tuple[Any, np.ndarray, np.ndarray]:
    model, kernel = linear_model()
    return model, kernel, np.random.default_rng(1).normal(size=(3, 6, 5, 3)).astype(np.float32)


def test_saliency_is_the_weights(line: Any) -> None:
    model, kernel, x = line
    np.testing.assert_allclose(explain(model, "saliency", x, LABELS).values, of_labels(kernel), rtol=1e-6)


def test_input_x_gradient(line: Any) -> None:
    model, kernel, x = line
    np.testing.assert_allclose(explain(model, "input_x_gradient", x, LABELS).values, x * of_labels(kernel), rtol=1e-6)


@pytest.mark.parametrize("baselines", [None, 0.5, "one", "each"])
def test_integrated_gradients_on_a_linear_model(line: Any, baselines: Any) -> None:
    model, kernel, x = line
    start = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    start = {"one": start[:1], "each": start}.get(baselines, baselines)
    found = explain(model, "integrated_gradients", x, LABELS, baselines=start)
    expected = (x - (0 if start is None else start)) * of_labels(kernel)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6)
    assert found.provenance["completeness"]["gap"] < 1e-5


def test_smooth_grad_on_a_linear_model(line: Any) -> None:
    model, kernel, x = line
    np.testing.assert_allclose(explain(model, "smooth_grad", x, LABELS).values, of_labels(kernel), rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_occlusion_on_a_linear_model(line: Any, size: int) -> None:
    """Each pixel of a patch has what the patch adds to the score, on an image that is not square."""
    model, kernel, x = line
    found = explain(model, "occlusion", x, LABELS, exec_args={"patch_size": size})
    added = (x * of_labels(kernel)).sum(axis=-1)
    expected = np.zeros_like(added)
    for top in range(0, 6, size):
        for left in range(0, 5, size):
            place = np.s_[:, top : top + size, left : left + size]
            expected[place] = added[place].sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-4)
    assert found.dims == ("sample", "height", "width")


def test_occlusion_with_a_baseline(line: Any) -> None:
    model, kernel, x = line
    found = explain(model, "occlusion", x, LABELS, baselines=0.5, exec_args={"patch_size": 1})
    np.testing.assert_allclose(found.values, ((x - 0.5) * of_labels(kernel)).sum(axis=-1), rtol=1e-4, atol=1e-4)


def test_several_patch_sizes_in_one_call(line: Any) -> None:
    model, _, x = line
    found = explain(model, "occlusion", x, LABELS, exec_args={"patch_size": [2, 3]}, init_args={"batch_size": 5})
    assert found.extras["patch_sizes"] == [2, 3] and found.provenance["applied"]["patch_size"] == [2, 3]
    for size, values in zip((2, 3), found.extras["maps"], strict=True):
        alone = explain(model, "occlusion", x, LABELS, exec_args={"patch_size": size})
        np.testing.assert_allclose(values, alone.values, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.values, found.extras["maps"][0])


# on a CNN


def test_integrated_gradients_are_complete_at_the_probability() -> None:
    model, images = build(last="activation"), pictures()
    found = explain(model, "integrated_gradients", images, LABELS, exec_args={"n_steps": 600})
    difference = (np.asarray(model(images)) - np.asarray(model(0 * images)))[range(3), LABELS]
    np.testing.assert_allclose(found.values.sum(axis=(1, 2, 3)), difference, rtol=5e-3)
    without = explain(
        model, "integrated_gradients", images, LABELS, exec_args={"multiply_by_inputs": False, "n_steps": 600}
    )
    np.testing.assert_allclose(without.values * images, found.values, rtol=1e-5)
    assert without.provenance["completeness"]["gap"] is None


def test_smooth_grad_is_of_the_score_and_follows_the_seed() -> None:
    """Of the logit, not of the cross-entropy; the noise is drawn as numpy's global generator would draw it."""
    model, images = build(last="layer"), pictures()
    state = np.random.get_state()[1].copy()
    own = {"num_samples": 4, "noise": 0.3}
    found = explain(model, "smooth_grad", images, LABELS, exec_args=own, seed=5)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    noisy = np.repeat(images, 4, axis=0)
    noisy = noisy + np.random.RandomState(5).normal(0, 0.3, noisy.shape).astype(np.float32)
    logits = build()
    expected = []
    for sample, label in enumerate(LABELS):
        some = tf.constant(noisy[4 * sample : 4 * sample + 4])
        with tf.GradientTape() as tape:
            tape.watch(some)
            score = logits(some)[:, label]
        expected.append(np.asarray(tape.gradient(score, some)).mean(axis=0))
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(explain(model, "smooth_grad", images, LABELS, exec_args=own, seed=6).values, expected)


def test_the_noise_is_fitted_to_each_sample() -> None:
    model = keras.Sequential([keras.Input((200, 1)), keras.layers.Lambda(lambda x: tf.reduce_sum(x**3 / 3, axis=1))])
    x = np.linspace([-1.0, -10.0], [1.0, 10.0], 200, axis=-1).astype(np.float32)[..., None]
    found = explain(model, "smooth_grad", x, exec_args={"num_samples": 500}, seed=1)
    assert found.provenance["applied"]["noise"] == FITTED
    # The mean of (x + noise)² is x² and the noise's variance.
    np.testing.assert_allclose((found.values - x**2).mean(axis=(1, 2)), [0.4**2, 4.0**2], rtol=0.1)


def test_grad_cam() -> None:
    model, images = build(last="activation"), pictures()
    found = explain(model, "grad_cam", images, LABELS, layer="conv2")
    front = keras.Model(model.inputs, model.get_layer("conv2").output)
    kernel, _ = model.get_layer("head").get_weights()
    activation = np.asarray(front(images))
    weights = np.moveaxis(kernel.reshape(5, 4, 5, CLASSES)[..., LABELS], -1, 0).mean(axis=(1, 2))
    np.testing.assert_allclose(found.values, np.einsum("nhwc,nc->nhw", activation, weights), rtol=1e-4, atol=1e-5)
    assert found.values.min() < 0 and found.dims == ("sample", "height", "width")


def test_guided_grad_cam_is_tf_explains_own() -> None:
    model, images = build(), pictures()
    found = explain(model, "grad_cam", images, 1, layer="conv2", exec_args={"use_guided_grads": True})
    with np.errstate(all="ignore"), pytest.warns(UserWarning, match="structure of `inputs`"):
        outputs, gradients = GradCAM.get_gradients_and_filters(model, images, "conv2", 1, True)
    np.testing.assert_allclose(found.values, GradCAM.generate_ponderated_output(outputs, gradients), rtol=1e-5)
    assert not np.allclose(found.values, explain(model, "grad_cam", images, 1, layer="conv2").values)


def test_layer_activations_of_several_layers() -> None:
    model, images = build(), pictures()
    found = explain(model, "layer_activation", images, layer=["conv2", "conv1"], init_args={"batch_size": 2})
    assert found.layer == ("conv2", "conv1")
    for name, values in zip(found.layer, found.values, strict=True):
        expected = ExtractActivations.generate_activations_graph(model, [name]).predict(images, verbose=0)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    alone = explain(model, "layer_activation", images, layer="conv1")
    np.testing.assert_array_equal(alone.values, found.values[1])


def test_raw_saliency_is_what_tf_explain_computes() -> None:
    model, images = build("sequential"), pictures()
    expected = VanillaGradients.compute_gradients(images, model, 3)
    np.testing.assert_allclose(explain(model, "saliency", images, 3).values, expected, rtol=1e-5, atol=1e-7)


# kinds of models and targets


@pytest.mark.parametrize("key", ["integrated_gradients", "smooth_grad", "occlusion", "grad_cam"])
def test_a_function_sees_the_users_batch(key: str) -> None:
    """Whatever number of rows the method puts through the model at once."""
    model, images = build(last="activation"), pictures()
    own: dict[str, Any] = {"exec_args": {"patch_size": 4}} if key == "occlusion" else {}
    own |= {"layer": "conv2"} if key == "grad_cam" else {"head": "output"}

    def of_labels(outputs: Any) -> Any:
        assert outputs.shape[0] == 3
        return tf.gather(outputs, LABELS, batch_dims=1)

    found = explain(model, key, images, of_labels, seed=2, **own)
    own |= {"head": "output"}
    np.testing.assert_allclose(found.values, explain(model, key, images, LABELS, seed=2, **own).values, rtol=1e-5)


@pytest.mark.parametrize("key", ["integrated_gradients", "occlusion"])
def test_a_function_of_each_row(key: str) -> None:
    model, images = build(last="activation"), pictures()
    own = {"patch_size": 4} if key == "occlusion" else {"n_steps": 400}
    found = explain(model, key, images, lambda outputs: outputs[:, 1] * outputs[:, 2], exec_args=own)
    for sample in range(3):
        one = images[sample : sample + 1]
        alone = explain(model, key, one, lambda outputs: [row[1] * row[2] for row in outputs], exec_args=own)
        np.testing.assert_allclose(found.values[sample], alone.values[0], rtol=1e-3, atol=1e-6)


def test_one_of_several_outputs_and_an_index_of_several_axes() -> None:
    first = keras.Input((6, 5, 3))
    wide = keras.layers.Conv2D(4, 1, name="wide")(first)
    model = keras.Model(first, {"flat": keras.layers.Dense(2)(keras.layers.Flatten()(first)), "wide": wide})
    x = pictures(2, (6, 5))
    found = explain(model, "saliency", x, ("wide", 1, 2, 3))
    kernel, _ = model.get_layer("wide").get_weights()
    expected = np.zeros((2, 6, 5, 3))
    expected[:, 1, 2] = kernel[0, 0, :, 3]
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    cam = explain(model, "grad_cam", x, ("wide", 1, 2, 3), layer="wide")
    np.testing.assert_allclose(cam.values, np.asarray(wide_of(model, x))[..., 3] / 30, rtol=1e-4, atol=1e-6)


def wide_of(model: Any, x: np.ndarray) -> Any:
    return model(x)["wide"]


def test_models_without_a_graph_of_layers() -> None:
    weights = np.random.default_rng(3).normal(size=(3, CLASSES)).astype(np.float32)

    @tf.function
    def function(images: Any) -> Any:
        return tf.reduce_sum(images, axis=(1, 2)) @ weights

    class Subclassed(keras.Model):
        def call(self, images: Any) -> Any:
            return function(images)

    x, subclassed = pictures(), Subclassed()
    subclassed(x)
    for model in (function, subclassed):
        found = explain(model, "integrated_gradients", x, LABELS)
        np.testing.assert_allclose(found.values, x * weights.T[LABELS][:, None, None], rtol=1e-5)


def test_inputs_that_are_no_images() -> None:
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    kernel = model.get_weights()[0]
    for key in ("saliency", "smooth_grad"):
        np.testing.assert_allclose(explain(model, key, x, 1).values, np.tile(kernel[:, 1], (3, 1)), rtol=1e-5)


def test_a_model_in_double_precision_is_told_of_the_rounding() -> None:
    model = keras.Sequential([keras.Input((7,), dtype="float64"), keras.layers.Dense(2, dtype="float64")])
    found = explain(model, "saliency", np.ones((2, 7)), 1)
    assert "float32" in found.provenance["applied"]["precision"]


@pytest.mark.parametrize("key", METHODS)
def test_models_in_half_precision(key: str) -> None:
    policy = "bfloat16"
    layers = [keras.layers.Conv2D(2, 3, name="conv", dtype=policy), keras.layers.Flatten(dtype=policy)]
    model = keras.Sequential([keras.Input((6, 5, 3), dtype=policy), *layers, keras.layers.Dense(4, dtype=policy)])
    own: dict[str, Any] = {"exec_args": {"patch_size": 3}} if key == "occlusion" else {}
    own |= {"layer": "conv"} if "layer" in METHODS[key].spec.required else {}
    images = pictures(2, (6, 5))
    found = explain(model, key, images, None if key == "layer_activation" else 1, **own)
    exact = keras.Sequential([keras.Input((6, 5, 3)), keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten()])
    exact.add(keras.layers.Dense(4))
    exact.set_weights([np.asarray(tf.cast(one, "float32")) for one in model.weights])
    expected = explain(exact, key, images, None if key == "layer_activation" else 1, **own).values
    np.testing.assert_allclose(found.values, expected, atol=0.05 * np.abs(expected).max())


def test_integers_have_activations() -> None:
    model = keras.Sequential([keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 3, name="embedding")])
    tokens = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int32)
    found = explain(model, "layer_activation", tokens, layer="embedding")
    np.testing.assert_array_equal(found.values, model.get_weights()[0][tokens])
    # What has a gradient is what the embedding gives, which is all of this model.
    found = explain(model, "saliency", tokens, (1, 2))
    assert found.dims == ("sample", "token", "embedding")
    np.testing.assert_array_equal(found.values, np.broadcast_to(np.eye(12)[5].reshape(4, 3), (2, 4, 3)))


def test_a_layer_that_stands_in_several_models() -> None:
    """`layer.output` is what it gave in the first of them."""
    layer = keras.layers.Conv2D(2, 3, name="conv")
    keras.Sequential([keras.Input((9, 9, 3)), layer])
    first = keras.Input((6, 5, 3))
    model = keras.Model(first, keras.layers.GlobalAveragePooling2D()(layer(first)))
    x = pictures(2, (6, 5))
    found = explain(model, "grad_cam", x, 1, layer="conv")
    np.testing.assert_allclose(found.values, np.asarray(layer(x))[..., 1] / 12, rtol=1e-4, atol=1e-6)


def test_provenance_names_what_tf_explain_shows_instead() -> None:
    applied = explain(build(), "integrated_gradients", pictures(), 1).provenance["applied"]
    assert "(inputs - baselines)" in applied["tf-explain's picture shows instead"]
    assert "trapezoidal" in applied["definition"] and applied["n_steps"] == 50


def test_occlusion_compiles_one_model_once_and_marks_none_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    from cfi_tensorflow.adapter import TensorFlowAdapter

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.inner(keras.ops.reshape(x, (-1, 192)))

    graph = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    own, images = Own(), np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    own(images)
    made: list[Any] = []
    plain = TensorFlowAdapter.compiled
    monkeypatch.setattr(TensorFlowAdapter, "compiled", lambda *a: (made.append(plain(*a)), made[-1])[1])
    for model, compiled in ((graph, 1), (own, 0)):
        made.clear()
        before = set(vars(model))
        explainer = cfi.Explainer(
            model, "occlusion", "tf-explain", target=1, seed=0, checks="first", exec_args={"patch_size": 1}
        )
        found = [explainer(images).values for _ in range(3)]
        assert sum(one is not None for one in made) == compiled
        assert set(vars(model)) <= before
        np.testing.assert_array_equal(found[1], found[2])
        weight = model.weights[0].numpy()[:, 1].reshape(8, 8, 3)
        np.testing.assert_allclose(found[0], (images * weight).sum(-1), atol=1e-4)  # of a linear model
