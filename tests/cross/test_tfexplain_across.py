"""tf-explain on models of other frameworks, and beside the toolsets that offer the same methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from method_arguments import LAYER, TARGETED
from method_arguments import TF_EXPLAIN as ARGUMENTS
from shared_cnn import CHANNELS, HEIGHT, WIDTH, Twins, apart, to_first

import cfi_core as cfi
from cfi_tfexplain.table import METHODS


def explain(model: Any, key: str, inputs: Any, toolset: str = "tf-explain", **arguments: Any) -> Any:
    return cfi.attribute(model, key, toolset, inputs=inputs, seed=5, **arguments)


def first(values: np.ndarray) -> np.ndarray:
    return to_first(values) if values.ndim == 4 else values


def test_all_methods_are_here() -> None:
    assert set(ARGUMENTS) == set(METHODS)


@pytest.mark.parametrize("kind", ["bridge", "conversion"])
@pytest.mark.parametrize("key", ARGUMENTS)
def test_on_a_torch_model(twins: Twins, key: str, kind: str) -> None:
    native = explain(twins.keras_model, key, twins.last, **ARGUMENTS[key])
    crossed = explain(twins.torch_model, key, twins.first, translator=kind, **ARGUMENTS[key])
    assert native.route == () and crossed.route and crossed.certificate.faithful
    # SmoothGrad's noise is drawn in the order of the layout that runs, which is one and the same.
    assert apart(crossed.values, first(native.values)) <= (1e-5 if kind == "bridge" else 1e-4)
    if key == "occlusion":
        assert apart(crossed.extras["maps"], native.extras["maps"]) <= 1e-4


@pytest.mark.parametrize("key", ["saliency", "integrated_gradients", "grad_cam"])
def test_pictures_of_a_torch_model(softmax_twins: Twins, key: str) -> None:
    """The tiles are in the user's axes. A bridge's model ends in no activation layer: the head has to be said."""
    own: dict[str, Any] = {"layer": LAYER} if key == "grad_cam" else {}
    own |= {"target": 1, "defaults": "toolset", "head": "logit" if key == "saliency" else "output"}
    native = explain(softmax_twins.keras_model, key, softmax_twins.last, **own)
    crossed = explain(softmax_twins.torch_model, key, softmax_twins.first, **own)
    difference = np.abs(crossed.values.astype(int) - first(native.values).astype(int))
    assert ((difference <= 1) | (difference >= 255)).mean() > 0.99  # rounding, and values that wrap around
    assert crossed.extras["picture"].shape == native.extras["picture"].shape


@pytest.mark.parametrize("framework", ["jax", "onnx"])
def test_on_models_of_other_frameworks(framework: str) -> None:
    generator = np.random.default_rng(2)
    weights = generator.normal(size=(CHANNELS * HEIGHT * WIDTH, 4)).astype(np.float32)
    x = generator.uniform(size=(2, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    model = {"jax": jax_model, "onnx": onnx_model}[framework](weights)
    given = x
    if framework == "jax":
        from jax import numpy as jnp

        given = jnp.asarray(x)  # tells whose function it is
    found = explain(model, "integrated_gradients", given, target=1)
    assert found.route == ("bridge-to-keras",) or framework == "onnx"
    np.testing.assert_allclose(found.values, x * weights[:, 1].reshape(x.shape[1:]), rtol=1e-4, atol=1e-5)


def jax_model(weights: np.ndarray) -> Any:
    from jax import numpy as jnp

    return lambda x: jnp.reshape(x, (x.shape[0], -1)) @ jnp.asarray(weights)


def onnx_model(weights: np.ndarray) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, HEIGHT, WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "linear", [x], [y], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("saliency", "captum"),
        ("saliency", "tf-keras-vis"),
        ("grad_cam", "captum"),
        ("grad_cam", "tf-keras-vis"),
        ("input_x_gradient", "captum"),
        ("layer_activation", "captum"),
    ],
)
def test_beside_other_toolsets(twins: Twins, softmax_twins: Twins, key: str, other: str) -> None:
    """With raw values, no parameter is left to align."""
    for pair in (twins, softmax_twins):
        ours = explain(pair.keras_model, key, pair.last, **ARGUMENTS[key])
        theirs = explain(pair.keras_model, key, pair.last, other, **ARGUMENTS[key])
        assert apart(ours.values, theirs.values) <= 1e-5


def test_integrated_gradients_beside_captum(softmax_twins: Twins) -> None:
    steps = {"exec_args": {"n_steps": 300}, "baselines": 0.1}
    ours = explain(softmax_twins.keras_model, "integrated_gradients", softmax_twins.last, **TARGETED, **steps)
    theirs = explain(
        softmax_twins.torch_model, "integrated_gradients", softmax_twins.first, "captum", **TARGETED, **steps
    )
    assert apart(to_first(ours.values), theirs.values) <= 1e-2  # two quadratures of a path with kinks


def test_occlusion_beside_captum(softmax_twins: Twins) -> None:
    own = {"baselines": 0.2, **TARGETED}
    ours = explain(softmax_twins.keras_model, "occlusion", softmax_twins.last, exec_args={"patch_size": 5}, **own)
    window = {"sliding_window_shapes": (CHANNELS, 5, 5), "strides": (CHANNELS, 5, 5)}
    theirs = explain(softmax_twins.torch_model, "occlusion", softmax_twins.first, "captum", exec_args=window, **own)
    for channel in range(CHANNELS):
        assert apart(ours.values, theirs.values[:, channel]) <= 1e-4


def test_smooth_grad_beside_tf_keras_vis(twins: Twins) -> None:
    """Within sampling error, which two seeds of one toolset show."""

    def mean(toolset: str, seed: int, **own: int) -> np.ndarray:
        return cfi.attribute(
            twins.keras_model, "smooth_grad", toolset, inputs=twins.last, seed=seed, exec_args=own, **TARGETED
        ).values

    ours, again = mean("tf-explain", 5, num_samples=400), mean("tf-explain", 6, num_samples=400)
    theirs = mean("tf-keras-vis", 7, smooth_samples=400)
    error = np.linalg.norm(ours - again)
    assert error <= 0.1 * np.linalg.norm(ours)
    assert np.linalg.norm(theirs - ours) <= 1.2 * error
