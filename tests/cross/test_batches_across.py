"""`batch_size=` in every toolset: the same draws whatever the division, and runs that go on when memory runs out."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from method_arguments import ARGUMENTS, in_keras_order
from shared_cnn import CHANNELS, HEIGHT, WIDTH, Twins, to_last
from torch import nn

import cfi_core as cfi
from cfi_core import batches
from cfi_core.specs import Samples

pytestmark = pytest.mark.filterwarnings(
    "ignore::cfi_core.CompletenessWarning",
    "ignore::cfi_core.SamplingWarning",
    "ignore::cfi_core.BaselineWarning",
    "ignore::cfi_torchray.LicenceWarning",
)
SAMPLES = 3
TARGET = [1, 3, 0]
IMAGES = np.random.default_rng(7).normal(size=(SAMPLES, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
ON_TORCH = ("captum", "zennit", "torchray", "shap")
DRAWING = [
    (key, toolset)
    for toolset, methods in ARGUMENTS.items()
    for key in methods
    for spec in cfi.methods(key, toolset=toolset)
    if spec.samples is Samples.ALONE
]
TOLERANCE = 1e-5
SIZES: list[Any] = [1, 2, 3, "auto"]


@pytest.fixture(autouse=True)
def _sizes_are_found_anew() -> None:
    batches.forget_sizes()


def explain(twins: Twins, key: str, toolset: str, batch_size: Any, **more: Any) -> cfi.Attribution:
    arguments = {**ARGUMENTS[toolset][key], **more}
    if "target" in arguments:
        arguments["target"] = TARGET
    of_torch = toolset in ON_TORCH
    model, inputs = (twins.torch_model, IMAGES) if of_torch else (twins.keras_model, to_last(IMAGES))
    arguments = arguments if of_torch else in_keras_order(arguments)
    return cfi.attribute(model, key, toolset, inputs=inputs, seed=5, batch_size=batch_size, **arguments)


def assert_same(one: cfi.Attribution, other: cfi.Attribution) -> None:
    scale = np.abs(other.values).max()
    np.testing.assert_allclose(one.values, other.values, rtol=0, atol=TOLERANCE * scale)
    assert one.dims == other.dims and one.provenance["applied"].keys() == other.provenance["applied"].keys()
    assert one.extras.keys() == other.extras.keys()
    for name, value in other.extras.items():
        if isinstance(value, np.ndarray):
            most = np.abs(value).max(initial=0.0, where=np.isfinite(value))
            np.testing.assert_allclose(one.extras[name], value, rtol=1e-4, atol=1e-4 * max(most, scale))


def test_all_that_draw_are_known() -> None:
    """A method that tells how well its values are known draws."""
    names = {"gradient_shap", "lime", "kernel_shap", "shapley_value_sampling", "noise_tunnel", "smooth_grad", "rise"}
    assert {(key, toolset) for toolset, methods in ARGUMENTS.items() for key in methods if key in names} <= {*DRAWING}
    assert len(DRAWING) == 14


@pytest.mark.parametrize(("key", "toolset"), DRAWING)
def test_draws_are_the_same_whatever_the_division(twins: Twins, key: str, toolset: str) -> None:
    if (key, toolset) == ("kernel_shap", "shap"):  # which needs more passes than there are features
        torch.manual_seed(1)
        model, few = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).eval(), IMAGES[:, 0, 0, :6]
        given: dict[str, Any] = {"target": TARGET, "baselines": few[:1], "seed": 5, "exec_args": {"nsamples": 30}}
        alone, *others = (cfi.attribute(model, key, toolset, inputs=few, batch_size=one, **given) for one in SIZES)
    else:
        alone, *others = (explain(twins, key, toolset, one) for one in SIZES)
    for other in others:
        assert_same(other, alone)


def test_smoothed_saliency_of_tf_keras_vis_draws_too(twins: Twins) -> None:
    own = {"exec_args": {"smooth_samples": 3}}
    alone, other = (explain(twins, "saliency", "tf-keras-vis", size, **own) for size in (1, 3))
    assert_same(other, alone)


def test_what_is_drawn_for_a_first_sample_alone_is_what_the_toolset_draws(twins: Twins) -> None:
    divided = explain(twins, "noise_tunnel", "captum", 1)
    first = cfi.attribute(
        twins.torch_model,
        "noise_tunnel",
        "captum",
        inputs=IMAGES[:1],
        seed=5,
        **{**ARGUMENTS["captum"]["noise_tunnel"], "target": 1},
    )
    np.testing.assert_allclose(divided.values[:1], first.values, rtol=0, atol=TOLERANCE * np.abs(first.values).max())


DELTA = {"exec_args": {"return_convergence_delta": True}}
EXACT: list[tuple[str, str, dict[str, Any]]] = [
    ("deep_lift_shap", "captum", DELTA),
    ("integrated_gradients", "captum", {"exec_args": {"n_steps": 8, "return_convergence_delta": True}}),
    ("lrp", "captum", {}),
    ("layer_conductance", "captum", {}),
    ("neuron_gradient", "captum", {}),
    ("deep_lift_shap", "shap", {}),
    ("lrp_epsilon_plus", "zennit", {}),
    ("grad_cam", "torchray", {}),
    ("score_cam", "tf-keras-vis", {}),
    ("occlusion", "tf-explain", {}),  # of two sizes of patches
]


@pytest.mark.parametrize(("key", "toolset", "more"), EXACT)
def test_a_method_that_draws_nothing_gives_what_it_gives_undivided(
    twins: Twins, key: str, toolset: str, more: dict[str, Any]
) -> None:
    assert_same(explain(twins, key, toolset, 2, **more), explain(twins, key, toolset, None, **more))


@pytest.mark.parametrize("route", ["bridge", "conversion"])
def test_divided_across_frameworks(twins: Twins, route: str) -> None:
    given: dict[str, Any] = {"target": TARGET, "exec_args": {"n_steps": 8}, "baselines": 0.0, "translator": route}
    whole, divided = (
        cfi.attribute(
            twins.keras_model, "integrated_gradients", "captum", inputs=to_last(IMAGES), batch_size=size, **given
        )
        for size in (None, 2)
    )
    assert_same(divided, whole)
    assert divided.certificate is not None and divided.certificate.faithful
    assert divided.provenance["completeness"]["gap"] == pytest.approx(whole.provenance["completeness"]["gap"], abs=1e-4)


# memory


class Cramped(nn.Module):
    """A torch model that has memory for some rows."""

    def __init__(self, inner: nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most = inner, most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError(f"CUDA out of memory: no room for {len(x)} rows")
        return self.inner(x)


def cramped_keras(inner: keras.Model, most: int) -> keras.Model:
    """A Keras model that has memory for some rows, compiled or not."""

    def check(rows: np.ndarray) -> np.ndarray:
        if rows > most:
            raise MemoryError(
                f"OOM when allocating a tensor for {rows} rows"
            )  # which TensorFlow says by an error of its own
        return rows

    class Gate(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            if isinstance(x, keras.KerasTensor):
                return x
            with tf.control_dependencies([tf.numpy_function(check, [tf.shape(x)[0]], tf.int32)]):
                return tf.identity(x)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    first = keras.Input((HEIGHT, WIDTH, CHANNELS))
    return keras.Model(first, inner(Gate()(first)))


@pytest.mark.parametrize(
    ("of_torch", "key", "toolset", "batch_size"),
    [
        (True, "integrated_gradients", "captum", 3),
        (True, "integrated_gradients", "tf-explain", "auto"),
        (False, "integrated_gradients", "tf-explain", "auto"),
        (False, "integrated_gradients", "captum", 3),
        (True, "smooth_grad", "zennit", "auto"),
        (False, "smooth_grad", "tf-keras-vis", "auto"),
    ],
)
def test_a_run_goes_on_with_fewer_rows(twins: Twins, of_torch: bool, key: str, toolset: str, batch_size: Any) -> None:
    plain: Any = twins.torch_model if of_torch else twins.keras_model
    cramped: Any = Cramped(twins.torch_model, 2).eval() if of_torch else cramped_keras(twins.keras_model, 2)
    inputs, own = (
        IMAGES if of_torch else to_last(IMAGES),
        {"smooth_grad": {}, "integrated_gradients": {"baselines": 0.0}},
    )
    given: dict[str, Any] = {"inputs": inputs, "target": TARGET, "seed": 5, **own[key]}
    expected = cfi.attribute(plain, key, toolset, batch_size=2, **given)
    found = cfi.attribute(cramped, key, toolset, batch_size=batch_size, **given)
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-4 * np.abs(expected.values).max())
    with pytest.raises(cfi.OutOfMemoryError, match="batch_size='auto'"):
        cfi.attribute(cramped, key, toolset, **given)


def test_a_run_that_runs_out_halves_and_remembers(twins: Twins) -> None:
    """The passes of the method have more rows than the first pass, so that the run itself fails, and goes on."""
    model = Cramped(twins.torch_model, 3).eval()
    given: dict[str, Any] = {"inputs": IMAGES, "target": TARGET, "baselines": 0.0, "exec_args": {"n_steps": 20}}
    expected = cfi.attribute(twins.torch_model, "integrated_gradients", "captum", **given)
    found = cfi.attribute(model, "integrated_gradients", "captum", batch_size="auto", **given)
    notes = found.provenance["batch_size"]
    assert notes["rows"] < 2 * 3 and notes["halved"] > 0  # a whole multiple of three samples goes through at once
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-5 * np.abs(expected.values).max())
    again = cfi.attribute(model, "integrated_gradients", "captum", batch_size="auto", **given)
    assert again.provenance["batch_size"]["rows"] == notes["rows"] and "halved" not in again.provenance["batch_size"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
