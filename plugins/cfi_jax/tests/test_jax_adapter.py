"""Models: detection, layers, modes, content, gradients; against JAX itself."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import math
import operator
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax_models import (
    ADAPTER,
    CLASSES,
    W1,
    W2,
    LinenCNN,
    NnxCNN,
    bound,
    images,
    linen_cnn,
    perceptron,
    relative,
    tensors,
)

import cfi_core as cfi
from cfi_core.detection import detect_framework
from cfi_core.errors import InputError, UnknownFrameworkError
from cfi_core.registry import registry


@pytest.mark.parametrize("model", [jax.jit(perceptron), NnxCNN(), linen_cnn(), LinenCNN()])
def test_models_are_recognised(model: Any) -> None:
    assert detect_framework(registry(), model).name == "jax"


def test_a_plain_function_is_recognised_by_its_inputs() -> None:
    assert detect_framework(registry(), perceptron, jnp.ones((2, 3))).name == "jax"
    assert detect_framework(registry(), perceptron, np.ones((2, 3))).name == "numpy"


def test_a_class_is_no_model() -> None:
    with pytest.raises(UnknownFrameworkError):
        detect_framework(registry(), NnxCNN, jnp.ones((2, 3)))


def test_listing_plugins_imports_no_framework() -> None:
    code = "import cfi_core as cfi, sys; cfi.methods(); assert not {'jax', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_linen_module_without_variables_is_refused() -> None:
    with pytest.raises(InputError, match=r"pass model\.bind\(variables\)"):
        ADAPTER.load(LinenCNN())


def test_a_module_that_cannot_be_called_is_refused() -> None:
    class Encoder(nnx.Module):
        pass

    with pytest.raises(InputError, match="Encoder cannot be called"):
        ADAPTER.load(Encoder())


# inference mode


def test_the_twin_is_in_inference_mode_and_shares_nothing_that_changes() -> None:
    model, (x,) = NnxCNN(), tensors(images())
    twin = ADAPTER.twin(model)
    assert ADAPTER.in_training_mode(model) and not ADAPTER.in_training_mode(twin)
    model.eval()
    np.testing.assert_array_equal(ADAPTER.outputs(twin, [x]), model(x))
    twin.dense.kernel.set_value(jnp.zeros((5, CLASSES)))
    assert model.dense.kernel.get_value().any()


def test_outputs_in_training_mode_change_no_statistics() -> None:
    model, (x,) = NnxCNN(), tensors(images())
    before = ADAPTER.fingerprint(model)
    ADAPTER.outputs(model, [x])
    ADAPTER.activations(model, [x])
    assert ADAPTER.fingerprint(model) == before


def test_linen_models_are_told_their_mode_by_their_arguments() -> None:
    assert not ADAPTER.in_training_mode(linen_cnn())


# outputs and gradients


@pytest.mark.parametrize("make", [NnxCNN, linen_cnn])
def test_outputs_and_input_gradient(make: Any) -> None:
    model = ADAPTER.twin(make())
    (x,) = tensors(images())
    cotangent = np.random.default_rng(3).normal(size=(2, CLASSES)).astype(np.float32)
    assert relative(ADAPTER.outputs(model, [x]), model(x)) < 1e-6
    _, (gradient,) = ADAPTER.vjp(model, [x], [cotangent])
    assert relative(gradient, jax.grad(lambda x: (model(x) * cotangent).sum())(x)) < 1e-6


def test_the_gradient_of_a_perceptron_in_closed_form() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    _, (gradient,) = ADAPTER.vjp(jax.jit(perceptron), [x], [np.tile([[1.0, 0.0]], (5, 1)).astype(np.float32)])
    hidden = np.tanh(np.asarray(x) @ np.asarray(W1))
    np.testing.assert_allclose(
        gradient, ((1 - hidden**2) * np.asarray(W2)[:, 0]) @ np.asarray(W1).T, rtol=1e-5, atol=1e-6
    )


def test_integer_inputs_have_no_gradient() -> None:
    def model(x: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x * index, index

    x, index = jnp.asarray([[2.0]]), jnp.asarray([[3]])
    _, gradients = ADAPTER.vjp(model, [x, index], [np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)])
    np.testing.assert_array_equal(gradients[0], [[3.0]])
    assert gradients[1] is None


@pytest.mark.parametrize("make", [NnxCNN, linen_cnn])
def test_layer_gradients_lead_on_to_the_input(make: Any) -> None:
    """The gradient at the first convolution, carried through that convolution, is the one at the input."""
    model = ADAPTER.twin(make())
    (x,) = tensors(images())
    cotangent = np.ones((2, CLASSES), np.float32)
    at_stem = ADAPTER.layer_gradients(model, [x], [cotangent])["stem"]
    variables = (
        {"kernel": model.stem.kernel.get_value(), "bias": model.stem.bias.get_value()}
        if make is NnxCNN
        else model.variables["params"]["stem"]
    )
    stem = nn.Conv(5, (3, 3)).bind({"params": variables})
    assert relative(jax.vjp(stem, x)[1](jnp.asarray(at_stem))[0], ADAPTER.vjp(model, [x], [cotangent])[1][0]) < 1e-5


def test_only_the_layers_that_are_named_are_read() -> None:
    model, (x,) = linen_cnn(), tensors(images())
    assert list(ADAPTER.activations(model, [x], ["head"])) == ["head"]
    assert list(ADAPTER.layer_gradients(model, [x], [np.ones((2, CLASSES), np.float32)], ["head"])) == ["head"]


# layers


def test_layers_of_nnx_in_the_order_of_definition() -> None:
    model, (x,) = NnxCNN(), tensors(images())
    layers = ADAPTER.layers(model, [x])
    block = ["", ".conv1", ".norm", ".conv2"]
    assert [layer.name for layer in layers] == [
        "stem",
        *(f"blocks.{i}{part}" for i in range(2) for part in block),
        "drop",
        "dense",
    ]
    assert layers == tuple(cfi.layers(model, images()))
    assert (layers[1].kind, layers[1].output_shape) == ("NnxBlock", (8, 6, 5))
    assert [layer.name for layer in ADAPTER.layers(model)] == [layer.name for layer in layers]


def test_layers_of_linen_in_the_order_of_their_calls() -> None:
    model, (x,) = linen_cnn(), tensors(images())
    layers = {layer.name: (layer.kind, layer.output_shape) for layer in ADAPTER.layers(model, [x])}
    assert list(layers) == ["stem", "block", "block.Conv_0", "block.BatchNorm_0", "block.last", "Dropout_0", "head"]
    assert layers["block"] == ("LinenBlock", (8, 6, 5))
    # Without inputs, those that have variables are known.
    assert {layer.name for layer in ADAPTER.layers(model)} == set(layers) - {"Dropout_0"}


def test_layers_by_object_or_name() -> None:
    model = NnxCNN()
    assert ADAPTER.layer_name(model, model.blocks[1].conv1) == "blocks.1.conv1"
    assert ADAPTER.layer_name(model, "blocks.1.conv1") == "blocks.1.conv1"
    assert ADAPTER.layer_object(model, "blocks.1.conv1") is model.blocks[1].conv1
    assert ADAPTER.layer_name(model, "blocks.2") is None
    assert ADAPTER.layer_name(model, NnxCNN().stem) is None
    assert ADAPTER.layer_name(model, jnp.tanh) is None


def test_linen_layers_by_object_or_name() -> None:
    class Model(nn.Module):
        def setup(self) -> None:
            self.inner = LinenCNN()

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.inner(x)

    model, other = bound(Model(), images()), bound(Model(), images())
    assert ADAPTER.layer_name(model, model.inner) == "inner"
    assert ADAPTER.layer_name(model, other.inner) is None
    assert ADAPTER.layer_name(model, model) is None
    assert ADAPTER.layer_name(model, "inner.stem") == "inner.stem"


def test_axes_are_channels_last() -> None:
    assert ADAPTER.channel_axis(None, (2, 8, 6, 3)) == 3
    assert ADAPTER.channel_axis(None, (2, 8)) is None
    assert ADAPTER.dims(None, (2, 8, 6, 3)) == ("sample", "height", "width", "channel")
    assert ADAPTER.dims(None, (2, 8, 3)) == ("sample", "position", "channel")
    assert ADAPTER.dims(None, (2, 8)) == ("sample", "feature")
    assert ADAPTER.dims(None, (2, 8), layer="dense") == ("sample", "unit")


# content


def test_the_fingerprint_of_a_module_is_its_content() -> None:
    model = NnxCNN()
    before = ADAPTER.fingerprint(model)
    assert ADAPTER.fingerprint(model) == before
    assert ADAPTER.fingerprint(NnxCNN(1)) != before
    kernel = model.dense.kernel.get_value()
    model.dense.kernel.set_value(kernel.at[0, 0].add(1e-3))
    assert ADAPTER.fingerprint(model) != before
    model.dense.kernel.set_value(kernel)
    assert ADAPTER.fingerprint(model) == before
    model.blocks[0].conv1.strides = 2
    assert ADAPTER.fingerprint(model) != before


def test_the_fingerprint_of_a_linen_module_is_its_content() -> None:
    assert ADAPTER.fingerprint(linen_cnn()) == ADAPTER.fingerprint(linen_cnn())
    assert len({ADAPTER.fingerprint(linen_cnn(softmax, seed)) for softmax in (False, True) for seed in (0, 1)}) == 4


def test_the_fingerprint_of_a_function_follows_what_it_refers_to() -> None:
    weights = {"w": jnp.ones((3, 2))}
    module, variables = linen_cnn().unbind()

    scale: Any = lambda x: x * 2  # noqa: E731 - it is changed below

    def function(x: jax.Array) -> jax.Array:
        def inner(y: jax.Array) -> jax.Array:
            return jnp.tanh(y @ weights["w"])

        return scale(inner(x))

    before = ADAPTER.fingerprint(function)
    assert ADAPTER.fingerprint(function) == ADAPTER.fingerprint(jax.jit(function)) == before
    weights["w"] = jnp.zeros((3, 2))
    changed = ADAPTER.fingerprint(function)
    assert changed != before
    scale = jnp.sin
    assert ADAPTER.fingerprint(function) not in (before, changed)
    apply = partial(module.apply, variables)
    assert ADAPTER.fingerprint(apply) == ADAPTER.fingerprint(apply)
    assert ADAPTER.fingerprint(apply) != ADAPTER.fingerprint(partial(module.apply, {}))


def test_a_function_that_holds_something_opaque_never_counts_as_unchanged() -> None:
    class Opaque:
        weights = 1.0

    held = Opaque()
    function = jax.jit(lambda x: x * held.weights)
    assert ADAPTER.fingerprint(function) != ADAPTER.fingerprint(function)


@pytest.mark.parametrize("name", ["test.model_of_mine", "code", "profile"])
def test_modules_of_the_user_may_have_names_of_standard_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"{name.rpartition('.')[2]}.py"
    file.write_text("import math\nW = 2.0\ndef scaled(x): return x * W * math.pi\ndef model(x): return scaled(x)\n")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    before = ADAPTER.fingerprint(module.model)
    assert ADAPTER.fingerprint(module.model) == before
    monkeypatch.setattr(module, "W", 3.0)
    assert ADAPTER.fingerprint(module.model) != before


def test_modules_of_the_standard_library_count_as_what_they_are() -> None:
    held = (math, operator, functools, json, itertools.chain, json.dumps, functools.reduce, operator.add)

    def function(x: jax.Array) -> jax.Array:
        return x * len(held)

    assert ADAPTER.fingerprint(function) == ADAPTER.fingerprint(function)


def test_functions_of_libraries_count_as_what_they_are() -> None:
    from jax.nn import gelu, relu

    held = {"functions": (relu, gelu, jnp.add, jnp.tanh, nn.softmax, np.tanh, jax.lax.cond)}

    def function(x: jax.Array) -> jax.Array:
        return held["functions"][0](x)

    before = ADAPTER.fingerprint(function)
    assert ADAPTER.fingerprint(function) == before
    held["functions"] = (gelu, relu, jnp.add, jnp.tanh, nn.softmax, np.tanh, jax.lax.cond)
    assert ADAPTER.fingerprint(function) != before


def test_the_global_variables_of_a_function_count() -> None:
    before = ADAPTER.fingerprint(perceptron)
    names = perceptron.__globals__
    former = names["W2"]
    try:
        names["W2"] = former + 1
        assert ADAPTER.fingerprint(perceptron) != before
    finally:
        names["W2"] = former
    assert ADAPTER.fingerprint(perceptron) == before
