"""What a run feeds to a converted model is compared with the user's: faults that no certificate before it sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from process_state import assert_same, keras_state, process_state
from torch import nn

import cfi_core as cfi
from cfi_core import reference
from cfi_core.reference import USES
from cfi_core.translation import conversion

IMAGES = np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype(np.float32)
PATCHES = torch.arange(16).reshape(1, 4, 4).repeat_interleave(3, 1).repeat_interleave(3, 2)[..., None]


@pytest.fixture(scope="module")
def keras_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.MaxPooling2D(),
            layers.Conv2D(6, 3, activation="relu", name="last"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


@pytest.fixture(scope="module")
def torch_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(150, 5)).eval()


# faults in torch models


class Backward(torch.autograd.Function):
    """The same values; gradients times factors."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(factors)
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        return gradient * ctx.saved_tensors[0], None


class Faulty(nn.Module):
    def __init__(self, model: nn.Module, fault: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.model, self.fault, self.passes = model, fault, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return self.fault(self, x)


def from_sample_9_on(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(x) * torch.where(torch.arange(len(x)) < 9, 1.0, 1.5)[:, None]


def gradient_from_sample_9_on(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(Backward.apply(x, torch.where(torch.arange(len(x)) < 9, 1.0, -1.0)[:, None, None, None]))


def in_large_batches(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(x) * (1.5 if len(x) > 16 else 1.0)


def after_many_passes(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(x) * (1.5 if faulty.passes > 15 else 1.0)


def where_an_input_is_zero(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(x) + (x == 0).flatten(1).any(1).float()[:, None]


def beyond_the_data(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(x.clamp(max=1.001 * float(IMAGES.max())))


def at_the_baseline(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(x) + (x.flatten(1) - 0.25).abs().lt(1e-6).all(1).float()[:, None]


def while_gradients_are_recorded(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(x) * (1.5 if x.requires_grad else 1.0)


def gradient_in_single_precision(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(Backward.apply(x, torch.tensor(-1.0 if x.dtype is torch.float32 else 1.0)))


def nothing(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
    return faulty.model(x)


ABLATION = {"exec_args": {"feature_mask": PATCHES}}
STEPS = {"exec_args": {"n_steps": 20}}
SHAPLEY = {"baselines": 0.25, "exec_args": {"feature_mask": PATCHES, "n_samples": 2}}
IN_RUN = "While {method} ran, the model made by keras-torch gave something else than yours"
BEFORE = "computes something else than yours"


def plant(monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any]) -> None:
    make = conversion.convert_along

    def faulty(route: Any, model: Any, arrays: Any) -> Any:
        made = make(route, model, arrays)
        return replace(made, model=wrap(made.model))

    monkeypatch.setattr(conversion, "convert_along", faulty)
    cfi.forget_translations()


@pytest.fixture(autouse=True)
def clean_cache():
    yield
    cfi.forget_translations()


@pytest.mark.parametrize(
    ("fault", "method", "arguments", "message"),
    [
        (from_sample_9_on, "integrated_gradients", STEPS, IN_RUN),
        (gradient_from_sample_9_on, "integrated_gradients", STEPS, IN_RUN),
        (in_large_batches, "integrated_gradients", STEPS, IN_RUN),
        (in_large_batches, "layer_integrated_gradients", {"layer": "last"}, IN_RUN),
        (in_large_batches, "layer_conductance", {"layer": "last"}, IN_RUN),
        (after_many_passes, "feature_ablation", ABLATION, IN_RUN),
        (where_an_input_is_zero, "feature_ablation", ABLATION, IN_RUN),
        (at_the_baseline, "shapley_value_sampling", SHAPLEY, IN_RUN),
        (beyond_the_data, "gradient_shap", {"baselines": IMAGES, "exec_args": {"stdevs": 2.0}}, IN_RUN),
        (while_gradients_are_recorded, "saliency", {}, BEFORE),
        (gradient_in_single_precision, "saliency", {}, BEFORE),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_where_the_method_goes(keras_model, monkeypatch, fault, method, arguments, message):
    """In torch, where captum's methods run."""
    plant(monkeypatch, lambda model: Faulty(model, fault).eval())
    with pytest.raises(cfi.UnfaithfulTranslationError, match=message.format(method=method)) as caught:
        cfi.attribute(
            keras_model, method, "captum", inputs=IMAGES, target=1, translator="keras-torch", seed=0, **arguments
        )
    assert not caught.value.certificate.faithful


def test_a_fault_that_comes_after_the_model_was_compiled(keras_model, monkeypatch):
    """The compiled model takes the place of the user's when it has been compared with often."""
    faults: list[Callable[[Faulty, torch.Tensor], torch.Tensor]] = [nothing]
    plant(monkeypatch, lambda model: Faulty(model, lambda faulty, x: faults[-1](faulty, x)).eval())
    arguments = {"target": 1, "translator": "keras-torch", "seed": 0, **STEPS}
    for factor in range(1, USES + 1):
        before = [process_state(), keras_state(keras_model)]
        inputs = factor * IMAGES
        found = cfi.attribute(keras_model, "integrated_gradients", "captum", inputs=inputs, **arguments)
        assert found.certificate.faithful
        if factor > 1:  # when they are first used, libraries change the process
            assert_same(before, [process_state(), keras_state(keras_model)])
    (entry,) = reference._kept[id(keras_model)].values()
    assert any(hasattr(one, "get_concrete_function") for one in entry.reference.compiled._functions.values())
    for fault in (gradient_from_sample_9_on, in_large_batches):
        faults.append(fault)
        with pytest.raises(cfi.UnfaithfulTranslationError, match=IN_RUN.format(method="integrated_gradients")):
            cfi.attribute(keras_model, "integrated_gradients", "captum", inputs=0.5 * IMAGES, **arguments)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("saliency", {"target": 1}),
        ("integrated_gradients", {"target": 1, **STEPS}),
        ("feature_ablation", {"target": 1, **ABLATION}),
        ("occlusion", {"target": 1, "exec_args": {"sliding_window_shapes": (4, 4, 3), "strides": (4, 4, 3)}}),
        ("layer_activation", {"layer": "last"}),
        ("grad_cam", {"target": 1, "layer": "last"}),
        ("layer_conductance", {"target": 1, "layer": "last"}),
        ("layer_integrated_gradients", {"target": 1, "layer": "last"}),
        ("layer_feature_ablation", {"target": 1, "layer": "last"}),
        ("layer_gradient_shap", {"target": 1, "layer": "last", "baselines": IMAGES}),
        ("layer_gradient_x_activation", {"target": 1, "layer": ["first", "last"]}),
        ("neuron_gradient", {"layer": "last", "neuron": lambda output: output.flatten(1).sum(1)}),
        ("deep_lift", {"target": 1}),
        ("guided_backprop", {"target": 1}),
        ("lrp", {"target": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_without_a_fault_is_confirmed(keras_model, monkeypatch, method, arguments):
    plant(monkeypatch, lambda model: model)
    found = cfi.attribute(keras_model, method, "captum", inputs=IMAGES, translator="keras-torch", seed=0, **arguments)
    *_, last = found.certificate.measurements
    assert found.certificate.faithful and "run" in last.samples_of and last.output_difference < 1e-6
    assert not any("not compared" in note for note in found.certificate.notes)
    assert last.samples_of in found.certificate.report() and "not seen: differences" in found.certificate.report()


# faults in Keras models


class Layer(keras.layers.Layer):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


def behind(function: Callable[[Any], Any]) -> Callable[[keras.Model], keras.Model]:
    return lambda model: keras.Model(model.inputs, Layer(function)(model.outputs[0]))


def late_gradients(counted: list[int]) -> Callable[[Any], Any]:
    @tf.custom_gradient
    def function(x: Any) -> Any:
        def back(gradient: Any) -> Any:
            counted[0] += 1
            return -gradient if counted[0] > 10 else gradient

        return tf.identity(x), back

    return function


def late_outputs(counted: list[int]) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        counted[0] += 1
        return x * (1.5 if counted[0] > 20 else 1.0)

    return function


@pytest.mark.parametrize(
    ("wrap", "method", "arguments"),
    [
        (lambda: behind(late_gradients([0])), "smooth_grad", {"exec_args": {"smooth_samples": 15}}),
        (lambda: behind(late_outputs([0])), "smooth_grad", {"exec_args": {"smooth_samples": 25}}),
        (lambda: behind(lambda y: y * tf.where(tf.shape(y)[0] > 5, 1.5, 1.0)), "score_cam", {"layer": "0"}),
    ],
    ids=["late gradients", "late outputs", "large batches"],
)
def test_a_fault_where_a_method_of_keras_goes(torch_model, monkeypatch, wrap, method, arguments):
    images = IMAGES.transpose(0, 3, 1, 2)
    plant(monkeypatch, wrap())
    with pytest.raises(cfi.UnfaithfulTranslationError, match=f"While {method} ran, the model made by torch-export"):
        cfi.attribute(
            torch_model, method, "tf-keras-vis", inputs=images, target=1, translator="conversion", seed=0, **arguments
        )


@pytest.mark.parametrize("method", ["saliency", "smooth_grad", "grad_cam", "grad_cam_plus_plus", "score_cam"])
def test_a_run_of_keras_without_a_fault_is_confirmed(torch_model, method):
    layer = {} if method in ("saliency", "smooth_grad") else {"layer": "0"}
    images = IMAGES.transpose(0, 3, 1, 2)
    found = cfi.attribute(
        torch_model, method, "tf-keras-vis", inputs=images, target=1, translator="conversion", seed=0, **layer
    )
    *_, last = found.certificate.measurements
    assert "that the run fed to it" in last.samples_of and last.output_difference < 1e-6
    assert not any("not compared" in note for note in found.certificate.notes)


def test_a_model_that_takes_a_fixed_number_of_samples_is_confirmed_too(keras_model):
    given = keras.Input(batch_shape=(4, 12, 12, 3))
    fixed = keras.Model(given, keras_model(given))
    found = cfi.attribute(
        fixed, "feature_ablation", "captum", inputs=IMAGES, target=1, translator="keras-torch", seed=0, **ABLATION
    )
    assert "that the run fed to it" in found.certificate.measurements[-1].samples_of


@pytest.mark.parametrize("fault", [in_large_batches, after_many_passes, where_an_input_is_zero])
def test_a_thorough_translation_sees_what_only_runs_would(keras_model, monkeypatch, fault):
    plant(monkeypatch, lambda model: Faulty(model, fault).eval())
    assert cfi.translate(keras_model, "torch", inputs=IMAGES, translator="keras-torch").certificate.faithful
    with pytest.raises(cfi.UnfaithfulTranslationError, match=BEFORE):
        cfi.translate(keras_model, "torch", inputs=IMAGES, translator="keras-torch", thorough=True)


def test_a_thorough_translation_to_keras_sees_it_too(torch_model, monkeypatch):
    images = IMAGES.transpose(0, 3, 1, 2)
    plant(monkeypatch, behind(lambda y: y * tf.where(tf.shape(y)[0] > 50, 1.5, 1.0)))
    assert cfi.translate(torch_model, "tensorflow", inputs=images).certificate.faithful
    with pytest.raises(cfi.UnfaithfulTranslationError, match=BEFORE):
        cfi.translate(torch_model, "tensorflow", inputs=images, thorough=True)


def test_no_batch_is_larger_than_those_of_the_method(keras_model, monkeypatch):
    sizes: list[int] = []

    def note(faulty: Faulty, x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return faulty.model(x)

    plant(monkeypatch, lambda model: Faulty(model, note).eval())
    arguments = {"inputs": IMAGES, "target": 1, "translator": "keras-torch", "seed": 0, **STEPS}
    cfi.attribute(keras_model, "integrated_gradients", "captum", **arguments)
    assert max(sizes) == 20 * len(IMAGES)


def test_a_thorough_certificate_says_what_it_covers(keras_model):
    made = cfi.translate(keras_model, "torch", inputs=IMAGES, translator="keras-torch", thorough=True)
    covered = [one.samples_of for one in made.certificate.measurements]
    assert made.certificate.faithful and len(covered) == len(set(covered))
    for name in ("all your inputs", "your sample 3 alone", "your inputs repeated to 100", "zeros", "again and again"):
        assert any(name in one for one in covered)


# columns and features of very different sizes


def test_a_column_beside_one_that_is_a_million_times_larger(monkeypatch):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * [1e6, 1, 1], bias])
    rows = np.random.default_rng(2).normal(size=(8, 6)).astype(np.float32)
    plant(monkeypatch, lambda made: Faulty(made, lambda faulty, x: faulty.model(x) * torch.tensor([1.0, 1.0, -1.0])))
    with pytest.raises(cfi.UnfaithfulTranslationError, match="a column of the outputs"):
        cfi.attribute(model, "saliency", "captum", inputs=rows, target=2, translator="keras-torch")


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 1, 3, 2]])
def test_rare_classes_that_are_swapped(monkeypatch, order):
    """Of a millionth each, they are nothing beside the others."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(4, "softmax")])
    kernel, _ = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, np.array([-14, -14, 0, 0], np.float32)])
    rows = np.random.default_rng(2).normal(size=(8, 6)).astype(np.float32)
    plant(monkeypatch, lambda made: Faulty(made, lambda faulty, x: faulty.model(x)[:, order]).eval())
    with pytest.raises(cfi.UnfaithfulTranslationError, match="outputs"):
        cfi.attribute(model, "saliency", "captum", inputs=rows, target=0, head="output", translator="keras-torch")


def test_the_gradient_of_a_feature_in_units_of_a_million(monkeypatch):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    kernel, bias = model.layers[0].get_weights()
    scale = np.array([1e6, 1, 1, 1, 1, 1], np.float32)
    model.layers[0].set_weights([kernel / scale[:, None], bias])
    rows = np.random.default_rng(2).normal(size=(8, 6)).astype(np.float32) * scale
    signs = torch.tensor([-1.0, 1, 1, 1, 1, 1])
    plant(monkeypatch, lambda made: Faulty(made, lambda faulty, x: faulty.model(Backward.apply(x, signs))))
    with pytest.raises(cfi.UnfaithfulTranslationError, match="input gradients"):
        cfi.attribute(model, "input_x_gradient", "captum", inputs=rows, target=2, translator="keras-torch")


# what the user's model does not have, or gives no number for


def onnx_model() -> Any:
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(3).normal(size=(6, 3)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]
    given, out = (helper.make_tensor_value_info(*one) for one in (("x", 1, ["n", 6]), ("y", 1, ["n", 3])))
    graph = helper.make_graph(nodes, "g", [given], [out], [numpy_helper.from_array(weights, "w")])
    assert TensorProto.FLOAT == 1
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_of_a_model_without_gradients_the_outputs_of_the_run_are_compared(monkeypatch):
    rows = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)
    call: Any = {"inputs": rows, "target": 1, "translator": "conversion", "exec_args": {"n_steps": 20}}
    found = cfi.attribute(onnx_model(), "integrated_gradients", "captum", **call)
    assert "that the run fed to it" in found.certificate.measurements[-1].samples_of
    assert any("gradients of the run not compared" in note for note in found.certificate.notes)
    plant(monkeypatch, lambda model: Faulty(model, in_large_batches).eval())
    with pytest.raises(cfi.UnfaithfulTranslationError, match="While integrated_gradients ran"):
        cfi.attribute(onnx_model(), "integrated_gradients", "captum", **call)


def test_what_is_no_number_in_both_models_is_told_as_that():
    given = keras.Input((6,))
    model = keras.Model(given, keras.layers.Dense(3)(given / keras.ops.sum(given, axis=1, keepdims=True)))
    rows = 1 + np.random.default_rng(2).uniform(size=(4, 6)).astype(np.float32)
    with pytest.raises(cfi.MethodError, match="NaN"):
        cfi.attribute(model, "feature_ablation", "captum", inputs=rows, target=1, translator="keras-torch",
                      exec_args={"feature_mask": np.zeros((1, 6), int)})  # fmt: skip


def test_whole_numbers_are_measured_thoroughly_too():
    given = keras.Input((6,), dtype="uint8")
    model = keras.Model(given, keras.layers.Dense(3)(keras.layers.Rescaling(1 / 255)(given)))
    rows = np.random.default_rng(2).integers(0, 255, (4, 6)).astype(np.uint8)
    assert cfi.translate(model, "torch", inputs=rows, thorough=True).certificate.faithful
