"""What users explain over a bridge, through the public calls."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers
from shared_cnn import Twins, apart, to_first, to_last
from torch import nn

import cfi_core as cfi
from cfi_core.testing import use_plugins

ROW = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)
WEIGHTS = np.random.default_rng(6).normal(size=(4, 2)).astype(np.float32)


def linear(rows: np.ndarray) -> np.ndarray:
    return rows @ WEIGHTS


# functions, sessions, estimators: outputs only

PERTURBATIONS: dict[str, dict[str, Any]] = {
    "feature_ablation": {},
    "occlusion": {"exec_args": {"sliding_window_shapes": (1,)}},
    "shapley_value_sampling": {"exec_args": {"n_samples": 4}},
    "shapley_values": {},
    "kernel_shap": {"exec_args": {"n_samples": 200}},
}


@pytest.mark.parametrize("key", PERTURBATIONS)
def test_a_function_of_arrays(key: str):
    """Of a linear function, with baseline 0, every one of these methods gives weight times input."""
    result = cfi.attribute(linear, key, "captum", inputs=ROW, target=1, seed=0, **PERTURBATIONS[key])
    assert result.route == ("bridge-to-torch",)
    np.testing.assert_allclose(result.values, ROW * WEIGHTS[:, 1], atol=1e-3 if key == "kernel_shap" else 1e-5)


def test_a_scikit_learn_classifier():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(8)
    rows = generator.normal(size=(200, 4))
    labels = (rows @ [1.0, -2.0, 0.5, 0.0] > 0).astype(int)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    few = rows[:3]
    expected = np.stack(
        [model.predict_proba(few)[:, 1] - model.predict_proba(few * (np.arange(4) != i))[:, 1] for i in range(4)],
        axis=1,
    )
    for given in (model, model.predict_proba):
        result = cfi.attribute(given, "feature_ablation", "captum", inputs=few, target=1)
        np.testing.assert_allclose(result.values, expected, atol=1e-6)
    lime = cfi.attribute(model, "lime", "captum", inputs=few[:1], target=1, seed=1, exec_args={"n_samples": 300})
    assert lime.values[0, 1] * few[0, 1] <= 0  # the strongest weight is negative


@pytest.fixture(scope="module")
def onnx_file(twins: Twins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    example = (torch.tensor(twins.first),)
    axes = {"image": {0: "n"}}
    torch.onnx.export(
        twins.torch_model, example, path, dynamo=False, opset_version=13, input_names=["image"], dynamic_axes=axes
    )
    return path


def test_an_onnx_runtime_session_and_an_onnx_file(twins: Twins, onnx_file: Path):
    import onnxruntime

    mask = np.arange(8).repeat(twins.first[0].size // 8).reshape(1, *twins.first.shape[1:])
    arguments: dict[str, Any] = {"inputs": twins.first, "target": [1, 3], "exec_args": {"feature_mask": mask}}
    native = cfi.attribute(twins.torch_model, "feature_ablation", "captum", **arguments)
    for model in (onnxruntime.InferenceSession(onnx_file), str(onnx_file)):
        result = cfi.attribute(model, "feature_ablation", "captum", **arguments)
        assert result.route == ("bridge-to-torch",)
        assert apart(native.values, result.values) < 1e-5


def test_an_onnx_file_is_read_where_it_lives_and_converted_for_gradients(twins: Twins, onnx_file: Path):
    read = cfi.attribute(str(onnx_file), "layer_activation", "captum", inputs=twins.first, layer="/relu2/Relu")
    native = cfi.attribute(twins.torch_model, "layer_activation", "captum", inputs=twins.first, layer="relu2")
    assert read.route == ("bridge-to-torch",) and apart(native.values, read.values) < 1e-5
    assert cfi.plan(str(onnx_file), "saliency", "captum", inputs=twins.first, target=0).route.names == ("onnx-torch",)
    with pytest.raises(cfi.RouteError, match="onnx-torch"):
        cfi.attribute(str(onnx_file), "saliency", "captum", inputs=twins.first, target=0, translator="bridge")


@pytest.mark.parametrize("key", ["saliency", "integrated_gradients"])
def test_gradients_of_a_function_are_refused_with_a_way_out(key: str, onnx_file: Path):
    import onnxruntime

    with pytest.raises(cfi.RouteError, match="perturbation method"):
        cfi.attribute(linear, key, "captum", inputs=ROW, target=0)
    with pytest.raises(cfi.RouteError, match=r"pass the \.onnx file"):
        cfi.attribute(onnxruntime.InferenceSession(onnx_file), key, "captum", inputs=ROW, target=0)


def test_a_function_of_torch_tensors_and_one_of_tensorflow_tensors(twins: Twins):
    inner = twins.torch_model

    def classify(batch: torch.Tensor) -> torch.Tensor:
        return inner(batch) * 2

    expected = 2 * cfi.attribute(inner, "saliency", "captum", inputs=twins.first, target=1).values
    for toolset in ("captum", "tf-keras-vis"):
        result = cfi.attribute(classify, "saliency", toolset, inputs=torch.tensor(twins.first), target=1)
        assert apart(expected, result.values) < 1e-5
    model = twins.keras_model
    result = cfi.attribute(
        lambda batch: model(batch) * 2, "saliency", "captum", inputs=tf.constant(twins.last), target=1
    )
    assert result.dims == ("sample", "height", "width", "channel")
    assert apart(expected, to_first(result.values)) < 1e-5


# TensorFlow models that are not Keras models


class Affine(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(WEIGHTS)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    def __call__(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.tanh(tf.matmul(rows, self.weights, name="product"), name="scores")


def test_tensorflow_without_keras(tmp_path: Path):
    module = Affine()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    loaded = tf.saved_model.load(str(tmp_path))
    signature = loaded.signatures["serving_default"]  # whose variables live as long as what was loaded
    slope = 1 - np.tanh(ROW @ WEIGHTS)[:, 1:] ** 2
    for model, target in ((module, 1), (module.__call__, 1), (signature, ("output_0", 1))):
        result = cfi.attribute(model, "saliency", "captum", inputs=ROW, target=target, head="output")
        np.testing.assert_allclose(result.values, slope * WEIGHTS[:, 1], rtol=1e-5)


# layers by the user's own names


def nested_model() -> Any:
    keras.utils.set_random_seed(3)
    backbone = keras.Sequential(
        [keras.Input((8, 10, 3)), layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="relu")], name="backbone"
    )
    return keras.Sequential([keras.Input((8, 10, 3)), backbone, layers.GlobalAveragePooling2D(), layers.Dense(2)])


def test_layers_inside_a_nested_model():
    model = nested_model()
    images = np.random.default_rng(1).normal(size=(2, 8, 10, 3)).astype(np.float32)
    listed = {layer.name: (layer.kind, layer.output_shape) for layer in cfi.layers(model, images)}
    assert listed["backbone/conv"] == ("Conv2D", (6, 8, 4))
    backbone = model.get_layer("backbone")
    expected = backbone.get_layer("conv")(images).numpy()
    for layer in ("backbone/conv", "conv", backbone.get_layer("conv")):
        result = cfi.attribute(model, "layer_activation", "captum", inputs=images, layer=layer)
        assert result.layer == "backbone/conv" and result.dims == ("sample", "height", "width", "channel")
        np.testing.assert_allclose(result.values, expected, rtol=1e-5, atol=1e-6)
    # Grad-CAM by its formula: pooling spreads the gradient of a class evenly over the places where the ReLU is open.
    kernel = model.layers[-1].kernel.numpy()[:, 1] / expected[0, ..., 0].size
    weights = (kernel * (expected > 0)).mean(axis=(1, 2))
    by_formula = np.maximum((expected * weights[:, None, None]).sum(-1), -np.inf)
    cam = cfi.attribute(model, "grad_cam", "captum", inputs=images, layer="backbone/conv", target=1)
    assert apart(by_formula, cam.values) < 1e-5


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"body": nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True))})
        self.head = nn.Linear(3, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head((image + self.parts["body"](image)).mean((2, 3)))


def test_nested_names_of_a_torch_model_in_keras():
    torch.manual_seed(2)
    model = Block().eval()
    images = torch.randn(2, 3, 6, 9)
    cams = [
        cfi.attribute(model, "grad_cam", toolset, inputs=images, layer="parts.body.1", target=1)
        for toolset in ("captum", "tf-keras-vis")
    ]
    assert cams[1].route == ("bridge-to-keras",)
    assert apart(cams[0].values, cams[1].values) < 1e-5


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = layers.Conv2D(4, 3, activation="relu", name="conv"), layers.Dense(2, name="head")

    def call(self, image: tf.Tensor) -> tf.Tensor:
        return self.head(tf.reduce_mean(self.conv(image), axis=(1, 2)))


def test_what_tf_keras_vis_refuses_natively_it_takes_over_a_bridge():
    keras.utils.set_random_seed(5)
    model = Subclassed()
    images = np.random.default_rng(1).normal(size=(2, 8, 10, 3)).astype(np.float32)
    model(images)
    with pytest.raises(cfi.MethodError, match="translator='bridge'"):
        cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=1, layer="conv")
    cam = cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=1, layer="conv", translator="bridge")
    activation = model.conv(images).numpy()
    weights = model.head.kernel.numpy()[:, 1] / activation[0, ..., 0].size
    assert apart((activation * weights).sum(-1), cam.values) < 1e-5


def test_a_layer_that_is_called_twice_is_refused():
    shared = layers.Dense(4, activation="relu", name="shared")
    row = keras.Input((4,))
    model = keras.Model(row, layers.Dense(2, name="head")(shared(shared(row))))
    with pytest.raises(cfi.LayerError, match=r"shared.*(twice|2 times|more than once)"):
        cfi.attribute(model, "layer_activation", "captum", inputs=ROW, layer="shared")
    cfi.attribute(model, "saliency", "captum", inputs=ROW, target=0)


# what a bridge does not need a conversion for


def test_a_transformer_on_tokens_is_explained_at_its_embedding():
    keras.utils.set_random_seed(4)
    tokens = keras.Input((6,), dtype="int64")
    x = layers.Embedding(20, 8, name="embedding")(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    model = keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    words = np.random.default_rng(2).integers(0, 20, (2, 6))
    result = cfi.attribute(
        model,
        "layer_integrated_gradients",
        "captum",
        inputs=words,
        baselines=np.zeros_like(words),
        layer="embedding",
        target=1,
        exec_args={"n_steps": 60},
    )
    assert result.dims == ("sample", "position", "channel")
    difference = (model(words) - model(np.zeros_like(words))).numpy()[:, 1]
    np.testing.assert_allclose(result.values.sum(axis=(1, 2)), difference, atol=1e-3)  # completeness


def test_a_structured_output_and_two_inputs():
    class Pair(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, Any]:
            return {"sum": a + b, "more": (a * b, None)}

    a, b = torch.randn(3, 4), torch.randn(3, 4)
    result = cfi.attribute(Pair().eval(), "saliency", "tf-keras-vis", inputs=(a, b), target=("sum", 2))
    for values in result.values:
        np.testing.assert_allclose(values, np.eye(4)[[2] * 3], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(dtype).eval()
    inputs = torch.tensor(ROW).to(dtype)
    native = cfi.attribute(model, "saliency", "captum", inputs=inputs, target=1)
    crossed = cfi.attribute(model, "saliency", "tf-keras-vis", inputs=inputs, target=1)
    np.testing.assert_allclose(
        crossed.values.astype(float), native.values.astype(float), rtol=2e-2 if dtype != torch.float64 else 1e-12
    )


def test_a_model_modifier_needs_modules_and_gets_a_conversion(twins: Twins):
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear

    plan = cfi.plan(
        twins.torch_model,
        "saliency",
        "tf-keras-vis",
        inputs=twins.first,
        target=0,
        init_args={"model_modifier": ReplaceToLinear()},
    )
    assert plan.route.names == ("torch-export", "onnx-keras")


def test_without_the_bridge_everything_is_converted(twins: Twins):
    from cfi_captum import plugin as captum
    from cfi_onnx import plugin as onnx
    from cfi_tensorflow import plugin as tensorflow
    from cfi_tfkerasvis import plugin as tfkerasvis
    from cfi_torch import plugin as torch
    from cfi_translate import plugin as translate

    bridged = cfi.attribute(twins.keras_model, "saliency", "captum", inputs=twins.last, target=1)
    with use_plugins(torch, tensorflow, onnx, captum, tfkerasvis, translate):
        converted = cfi.attribute(twins.keras_model, "saliency", "captum", inputs=twins.last, target=1)
        with pytest.raises(cfi.RouteError, match="cfi-bridge"):
            cfi.attribute(twins.keras_model, "saliency", "captum", inputs=twins.last, target=1, translator="bridge")
    assert (bridged.route, converted.route) == (("bridge-to-torch",), ("keras-torch",))
    assert apart(bridged.values, converted.values) < 1e-5


def test_a_changed_weight_is_noticed(twins: Twins):
    model = keras.models.clone_model(twins.keras_model)
    model.set_weights(twins.keras_model.get_weights())
    before = cfi.attribute(model, "saliency", "captum", inputs=twins.last, target=1)
    model.get_layer("fc").kernel.assign(model.get_layer("fc").kernel * 3)
    after = cfi.attribute(model, "saliency", "captum", inputs=twins.last, target=1)
    assert apart(3 * before.values, after.values) < 1e-5


@pytest.mark.parametrize("order", [("index", "function"), ("function", "index")])
def test_a_bridge_is_not_taken_for_one_at_another_head(softmax_twins: Twins, order: tuple[str, str]):
    """A function of the output sees probabilities, an index means the logit, whichever is explained first."""
    cfi.forget_translations()
    targets: dict[str, Any] = {"index": 1, "function": lambda output: output[:, 1]}
    for name in order:
        native = cfi.attribute(
            softmax_twins.torch_model, "saliency", "captum", inputs=softmax_twins.first, target=targets[name]
        )
        crossed = cfi.attribute(
            softmax_twins.torch_model, "saliency", "tf-keras-vis", inputs=softmax_twins.first, target=targets[name]
        )
        assert apart(native.values, crossed.values) < 1e-5
        assert native.provenance["explained"] == crossed.provenance["explained"]


def test_what_a_fingerprint_does_not_show_is_noticed_by_the_outputs(twins: Twins):
    class Setting:
        scale = 1.0

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.setting = twins.torch_model, Setting()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.inner(x) * Setting.scale, 1)

    model = Scaled().eval()
    values = []
    for scale in (1.0, 3.0):
        Setting.scale = scale
        values.append(cfi.attribute(model, "saliency", "tf-keras-vis", inputs=twins.first, target=1).values)
    assert apart(3 * values[0], values[1]) < 1e-5


def test_functions_do_not_drive_out_what_is_kept(twins: Twins):
    from cfi_core.translation.store import cache

    cfi.forget_translations()
    cfi.attribute(twins.keras_model, "saliency", "captum", inputs=twins.last, target=1)
    for _ in range(3):
        cfi.attribute(lambda rows: rows @ WEIGHTS, "feature_ablation", "captum", inputs=ROW, target=1)
    assert len(cache) == 1


# many calls


def _calls(twins: Twins) -> list[Any]:
    return [
        lambda: cfi.attribute(twins.keras_model, "saliency", "captum", inputs=twins.last, target=1),
        lambda: cfi.attribute(twins.keras_model, "grad_cam", "captum", inputs=twins.last, target=1, layer="relu2"),
        lambda: cfi.attribute(twins.torch_model, "saliency", "tf-keras-vis", inputs=twins.first, target=1),
        lambda: cfi.attribute(
            twins.torch_model, "grad_cam", "tf-keras-vis", inputs=twins.first, target=1, layer="relu2"
        ),
    ]


def _tensors() -> int:
    gc.collect()
    return sum(isinstance(thing, torch.Tensor | tf.Tensor) for thing in gc.get_objects())


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_two_hundred_calls_grow_nothing(twins: Twins):
    calls = _calls(twins)
    for i in range(80):  # after so many a Keras model has its graph
        calls[i % 4]()
    grown = []
    for _ in range(3):  # memory that is handed out in pieces may grow once; what is lost is lost each time
        tensors, resident = _tensors(), _resident()
        for i in range(200):
            calls[i % 4]()
        assert _tensors() <= tensors
        grown.append(_resident() - resident)
        if grown[-1] <= 5:
            return
    pytest.fail(f"memory grows with every two hundred calls, by {grown} MiB")


def test_four_threads_give_the_serial_results(twins: Twins):
    calls = _calls(twins)
    serial = [call().values for call in calls]
    results: dict[tuple[int, int], np.ndarray] = {}

    def work(thread: int) -> None:
        for i in range(8):
            which = (thread + i) % 4
            results[thread, i] = calls[which]().values

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 32
    for (thread, i), values in results.items():
        np.testing.assert_array_equal(values, serial[(thread + i) % 4])


def test_axes_of_a_bridged_result(twins: Twins):
    ours = cfi.attribute(twins.torch_model, "saliency", "tf-keras-vis", inputs=twins.first, target=2)
    theirs = cfi.attribute(twins.keras_model, "saliency", "captum", inputs=twins.last, target=2)
    assert apart(to_last(ours.values), theirs.values) < 1e-5


class Ended(nn.Module):
    """Ends in a softmax that is no module, and has a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Flatten(), nn.Linear(144, 5))
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.softmax(self.head(self.conv(x).tanh()) * self.scale, -1)


def test_grad_cam_at_a_layer_of_a_model_that_ends_in_a_softmax_function():
    torch.manual_seed(0)
    model, x = Ended().eval(), torch.randn(2, 3, 8, 8)
    native = cfi.attribute(model, "grad_cam", "captum", inputs=x, target=1, layer="conv")
    bridged = cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=x, target=1, layer="conv")
    assert bridged.route == ("bridge-to-keras",) and "softmax was left out" in bridged.provenance["explained"]
    assert apart(bridged.values, native.values) < 1e-5
