"""JAX models explained by toolsets of other frameworks, against the same formula written in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax_models import ADAPTER, W1, W2, NnxCNN, bound, images, linen_cnn, perceptron, relative

import cfi_core as cfi
from cfi_core.errors import LayerError, ModelWarning

for module in ("captum", "tf_keras_vis", "cfi_bridge", "cfi_captum", "cfi_tfkerasvis"):
    pytest.importorskip(module)

TARGET = 1
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)


class SplitCNN(nnx.Module):
    """A network in two halves, which the formulas below call one by one; the input also goes around the first."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.front = nnx.Conv(3, 5, (3, 3), rngs=rngs)
        self.side = nnx.Conv(3, 4, (1, 1), rngs=rngs)
        self.back = nnx.Conv(5, 4, (3, 3), rngs=rngs)

    def rest(self, x: jax.Array, activation: jax.Array) -> jax.Array:
        return (nnx.relu(self.back(nnx.relu(activation))) * nnx.sigmoid(self.side(x))).mean((1, 2))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.rest(x, self.front(x))


MODEL = SplitCNN()


def attribute(model: Any, key: str, toolset: str, **arguments: Any) -> cfi.Attribution:
    result = cfi.attribute(model, key, toolset, seed=0, **{"inputs": images(), "target": TARGET, **arguments})
    assert isinstance(result, cfi.Attribution)
    assert result.route[0].startswith("bridge-to-")
    return result


def integrated_gradients(function: Callable[[Any], Any], x: Any, steps: int = 50) -> Any:
    points, weights = np.polynomial.legendre.leggauss(steps)
    gradient = jax.grad(lambda x: function(x)[:, TARGET].sum())
    return x * sum(w / 2 * gradient((p + 1) / 2 * x) for p, w in zip(points, weights, strict=True))


def to_layer(x: Any, activation: Any) -> Any:
    return jax.grad(lambda activation: MODEL.rest(x, activation)[:, TARGET].sum())(activation)


@pytest.mark.parametrize("model", [MODEL, linen_cnn(), ADAPTER.twin(NnxCNN())], ids=["split", "linen", "nnx"])
def test_integrated_gradients(model: Any) -> None:
    expected = integrated_gradients(model, jnp.asarray(images()))
    assert relative(attribute(model, "integrated_gradients", "captum").values, expected) < 1e-5


@pytest.mark.parametrize("model", [perceptron, jax.jit(perceptron)], ids=["plain", "jitted"])
def test_integrated_gradients_of_a_function(model: Any) -> None:
    expected = integrated_gradients(perceptron, X)
    assert relative(attribute(model, "integrated_gradients", "captum", inputs=X).values, expected) < 1e-5


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_saliency(toolset: str) -> None:
    x = jnp.asarray(images())
    expected = jax.grad(lambda x: MODEL(x)[:, TARGET].sum())(x)
    result = attribute(MODEL, "saliency", toolset)
    assert result.dims == ("sample", "height", "width", "channel")
    assert relative(result.values, expected) < 1e-5


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_saliency_of_a_function(toolset: str) -> None:
    expected = (1 - jnp.tanh(X @ W1) ** 2) * W2[:, TARGET] @ W1.T
    assert relative(attribute(perceptron, "saliency", toolset, inputs=X).values, expected) < 1e-5


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_grad_cam(toolset: str) -> None:
    x = jnp.asarray(images())
    activation = MODEL.front(x)
    weights = to_layer(x, activation).mean((1, 2), keepdims=True)
    expected = (weights * activation).sum(-1)
    result = attribute(MODEL, "grad_cam", toolset, layer="front")
    assert result.dims == ("sample", "height", "width")
    assert relative(result.values, expected) < 1e-5


def test_layer_conductance() -> None:
    x = jnp.asarray(images())
    points = [(p + 1) / 2 * x for p in np.polynomial.legendre.leggauss(51)[0]]
    activations = [MODEL.front(point) for point in points]
    gradients = [to_layer(point, a) for point, a in zip(points, activations, strict=True)]
    expected = sum(g * (b - a) for g, a, b in zip(gradients[:-1], activations[:-1], activations[1:], strict=True))
    result = attribute(MODEL, "layer_conductance", "captum", layer=MODEL.front)
    assert result.dims == ("sample", "height", "width", "channel")
    assert relative(result.values, expected) < 1e-4


def test_the_gradient_of_a_neuron() -> None:
    expected = jax.grad(lambda x: MODEL.front(x)[:, 2, 3, 4].sum())(jnp.asarray(images()))
    result = attribute(MODEL, "neuron_gradient", "captum", layer="front", neuron=(2, 3, 4), target=None)
    assert relative(result.values, expected) < 1e-5


def test_feature_ablation_runs_the_model_only() -> None:
    expected = [perceptron(X)[:, TARGET] - perceptron(X.at[:, i].set(0))[:, TARGET] for i in range(3)]
    result = attribute(perceptron, "feature_ablation", "captum", inputs=X)
    assert relative(result.values, jnp.stack(expected, 1)) < 1e-5


def test_a_model_without_a_derivative_can_be_perturbed() -> None:
    def model(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda y: jnp.abs(y).max() < 100, lambda y: y * 2, x)

    told = "samples influence each other"  # the largest one ends the loop
    with pytest.warns(cfi.ModelWarning, match=told):
        result = attribute(model, "feature_ablation", "captum", inputs=jnp.asarray([[1.0, 3.0], [2.0, 64.0]]))
    assert np.isfinite(result.values).all()
    with pytest.warns(cfi.ModelWarning, match=told), pytest.raises(cfi.CFIError, match="while_loop"):
        attribute(model, "saliency", "captum", inputs=X)


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_grad_cam_explains_the_logit_behind_a_softmax(toolset: str) -> None:
    logits, probabilities = (linen_cnn(softmax) for softmax in (False, True))
    at_logit = attribute(probabilities, "grad_cam", toolset, layer="block")
    assert "logit" in at_logit.provenance["explained"]
    assert relative(at_logit.values, attribute(logits, "grad_cam", toolset, layer="block").values) < 1e-5


def test_an_embedding_is_explained() -> None:
    class Tokens(nn.Module):
        @nn.compact
        def __call__(self, ids: jax.Array) -> jax.Array:
            return nn.Dense(3, name="head")(jnp.tanh(nn.Embed(9, 4, name="embedding")(ids)).mean(1))

    ids = jnp.asarray([[1, 2, 3], [4, 5, 8]])
    module, variables = bound(Tokens(), ids).unbind()
    result = attribute(
        jax.jit(lambda ids: module.apply(variables, ids)),
        "layer_gradient_x_activation",
        "captum",
        inputs=ids,
        layer="embedding",
    )
    embedded = variables["params"]["embedding"]["embedding"][ids]
    gradient = (1 - jnp.tanh(embedded) ** 2) * variables["params"]["head"]["kernel"][:, TARGET] / 3
    assert relative(result.values, gradient * embedded) < 1e-5


def test_the_model_is_left_as_it_was() -> None:
    model = NnxCNN()
    before = ADAPTER.fingerprint(model)
    with pytest.warns(ModelWarning, match="training mode"):
        attribute(model, "grad_cam", "captum", layer="blocks.0")
    assert ADAPTER.fingerprint(model) == before
    assert ADAPTER.in_training_mode(model)


def test_a_changed_weight_is_noticed() -> None:
    weights = {"w": jnp.ones((3, 2))}
    model = jax.jit(lambda x: jnp.sin(x @ weights["w"]))
    for factor in (1.0, 2.0):
        weights["w"] = factor * jnp.ones((3, 2))
        model.clear_cache()
        expected = jax.grad(lambda x: jnp.sin(x @ weights["w"])[:, TARGET].sum())(X)
        assert relative(attribute(model, "saliency", "captum", inputs=X).values, expected) < 1e-5


def test_the_layer_may_be_chosen_later() -> None:
    pending = cfi.attribute(linen_cnn(), "grad_cam", "captum", inputs=images(), target=TARGET)
    assert isinstance(pending, cfi.PendingLayer)
    assert "block.last" in {layer.name for layer in pending.layers}
    result = cfi.finish_execution_with_layer(pending, "block.last")
    assert relative(result.values, attribute(linen_cnn(), "grad_cam", "captum", layer="block.last").values) < 1e-6


@pytest.mark.parametrize(("model", "near"), [(MODEL, "front"), (linen_cnn(), "block")], ids=["nnx", "linen"])
def test_a_misspelt_layer_is_told_with_its_neighbours(model: Any, near: str) -> None:
    with pytest.raises(LayerError, match=near):
        attribute(model, "grad_cam", "captum", layer=f"{near}s")
