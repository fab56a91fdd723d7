"""Inputs by name, in every framework: the same values as by position, whatever the order of the names."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_cnn import apart

import cfi_core as cfi

import keras  # isort: skip - after torch, which shared_cnn loads first
import jax.numpy as jnp
import torch
from flax import nnx
from torch import nn

GENERATOR = np.random.default_rng(3)
TOKENS = GENERATOR.integers(4, 12, (3, 5))
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
TABLE, MIX = GENERATOR.normal(size=(12, 6)).astype(np.float32), GENERATOR.normal(size=(6, 4)).astype(np.float32)
NAMED = {"mask": MASK, "tokens": TOKENS}  # not the model's order


class TorchText(nn.Module):
    """The mean of the embeddings that the mask lets through; `scale` is a flag with a default."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.tensor(TABLE))
        self.mix = nn.Linear(6, 4, bias=False)
        self.mix.weight.data = torch.tensor(MIX.T).contiguous()

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        weights = mask[..., None].to(torch.float32)
        mean = (self.embedding(tokens) * weights).sum(1) / weights.sum(1)
        return self.mix(torch.tanh(mean)) * scale


class Exported(TorchText):
    """Without the flag, which the exporter would make an input."""

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(tokens, mask)


def keras_text() -> keras.Model:
    tokens, mask = keras.Input((5,), dtype="int32", name="tokens"), keras.Input((5,), dtype="int32", name="mask")
    embedding = keras.layers.Embedding(12, 6, name="embedding")
    mix = keras.layers.Dense(4, use_bias=False, name="mix")
    weights = keras.ops.cast(keras.ops.expand_dims(mask, -1), "float32")
    mean = keras.ops.sum(embedding(tokens) * weights, axis=1) / keras.ops.sum(weights, axis=1)
    # The mask first, as keras-hub sorts its inputs.
    model = keras.Model({"mask": mask, "tokens": tokens}, mix(keras.ops.tanh(mean)))
    embedding.set_weights([TABLE])
    mix.set_weights([MIX])
    return model


class NnxText(nnx.Module):
    def __init__(self) -> None:
        self.embedding = nnx.Embed(12, 6, rngs=nnx.Rngs(0))
        self.embedding.embedding = nnx.Param(jnp.asarray(TABLE))
        self.mix = nnx.Linear(6, 4, use_bias=False, rngs=nnx.Rngs(0))
        self.mix.kernel = nnx.Param(jnp.asarray(MIX))

    def __call__(self, tokens: Any, mask: Any) -> Any:
        weights = mask[..., None].astype(jnp.float32)
        mean = (self.embedding(tokens) * weights).sum(1) / weights.sum(1)
        return self.mix(jnp.tanh(mean))


def numpy_text(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    weights = mask[..., None].astype(np.float32)
    return np.tanh((TABLE[tokens] * weights).sum(1) / weights.sum(1)) @ MIX


def by_hand(tokens: np.ndarray, filler: int) -> np.ndarray:
    """Ablation of one token after the other, of the first output."""
    values = np.zeros(tokens.shape)
    for position in range(tokens.shape[1]):
        changed = tokens.copy()
        changed[:, position] = filler
        values[:, position] = (numpy_text(tokens, MASK) - numpy_text(changed, MASK))[:, 0]
    return values


@pytest.fixture(scope="module")
def onnx_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("onnx") / "text.onnx"
    given = torch.tensor(TOKENS), torch.tensor(MASK)
    axes = {"tokens": {0: "n"}, "mask": {0: "n"}}
    names = ["tokens", "mask"]
    torch.onnx.export(Exported().eval(), given, path, input_names=names, dynamic_axes=axes, dynamo=False)
    return str(path)


@pytest.fixture(params=["torch", "keras", "jax", "jax function", "numpy", "onnx"])
def model(request: pytest.FixtureRequest) -> Any:
    if request.param == "onnx":
        return request.getfixturevalue("onnx_text")
    flax = NnxText()
    return {
        "torch": TorchText().eval(),
        "keras": keras_text(),
        "jax": flax,
        "jax function": lambda tokens, mask: flax(tokens, mask),
        "numpy": numpy_text,
    }[request.param]


def inputs_for(model: Any) -> dict[str, Any]:
    """A function of jax's arrays is known by them."""
    is_function = getattr(model, "__name__", "") == "<lambda>"
    return {name: jnp.asarray(value) for name, value in NAMED.items()} if is_function else NAMED


@pytest.mark.parametrize("wrap", [dict, UserDict])
def test_tokens_are_explained_and_the_mask_is_held(model: Any, wrap: Any) -> None:
    given = wrap(inputs_for(model))
    found = cfi.attribute(model, "feature_ablation", "captum", inputs=given, target=0, baselines={"tokens": 2})
    assert list(found.values) == ["tokens"] and found.dims == {"tokens": ("sample", "token")}
    assert apart(found.values["tokens"], by_hand(TOKENS, 2)) < 1e-5
    assert (found.values["tokens"][MASK == 0] == 0).all()  # a padded token has no effect


@pytest.mark.parametrize("translator", [None, "conversion"])
def test_integrated_gradients_at_the_embedding(translator: str | None) -> None:
    """On a torch model natively, on its Keras twin over a bridge and converted: the mask goes with every step."""
    arguments: dict[str, Any] = {"layer": "embedding", "target": 1, "exec_args": {"n_steps": 64}}
    native = cfi.attribute(TorchText().eval(), "layer_integrated_gradients", "captum", inputs=NAMED, **arguments)
    crossed = cfi.attribute(
        keras_text(), "layer_integrated_gradients", "captum", inputs=NAMED, translator=translator, **arguments
    )
    assert crossed.route == (("bridge-to-torch",) if translator is None else ("keras-torch",))
    assert apart(native.values, crossed.values) < 1e-5
    empty = np.tile(np.tanh(TABLE[0]) @ MIX, (3, 1))  # captum's baseline of tokens is 0
    difference = (numpy_text(TOKENS, MASK) - empty)[:, 1]
    np.testing.assert_allclose(native.values.sum((1, 2)), difference, atol=1e-3)


def test_flags_go_to_the_model_as_they_are() -> None:
    model = TorchText().eval()
    arguments: dict[str, Any] = {"target": 0, "baselines": 2}
    plain = cfi.attribute(model, "feature_ablation", "captum", inputs=NAMED, **arguments)
    scaled = cfi.attribute(model, "feature_ablation", "captum", inputs={**NAMED, "scale": 3.0}, **arguments)
    np.testing.assert_allclose(scaled.values["tokens"], 3 * plain.values["tokens"], rtol=1e-5)


def test_flags_that_are_equal_and_of_other_types_are_told_apart() -> None:
    class Typed(nn.Module):
        def forward(self, x: torch.Tensor, k: Any) -> torch.Tensor:
            return x * {int: 1.0, bool: 2.0, float: 3.0}[type(k)]

    x = np.ones((2, 3), np.float32)
    found = [
        cfi.attribute(Typed().eval(), "saliency", "captum", inputs={"x": x, "k": k}, target=0).values["x"][0, 0]
        for k in (1, True, 1.0)
    ]
    assert found == [1.0, 2.0, 3.0]


def test_what_to_explain_can_be_said() -> None:
    model = TorchText().eval()
    found = cfi.attribute(
        model, "feature_ablation", "captum", inputs=NAMED, explain=("mask",), target=0, baselines={"mask": 1}
    )
    assert list(found.values) == ["mask"] and (found.values["mask"][MASK == 1] == 0).all()
    with pytest.raises(cfi.ArgumentError, match=r"explain='words' names no input .* given for mask, tokens"):
        cfi.attribute(model, "feature_ablation", "captum", inputs=NAMED, explain="words", target=0)
    with pytest.raises(cfi.ArgumentError, match="inputs= as a dict"):
        cfi.attribute(model, "feature_ablation", "captum", inputs=(TOKENS, MASK), explain="tokens", target=0)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"tokens": TOKENS, "masks": MASK}, r"none named 'masks'.*Its inputs are .*tokens.*mask|Its inputs are mask"),
        ({"mask": MASK}, "tokens.* is missing"),
    ],
)
def test_names_that_the_model_has_not(model: Any, inputs: dict[str, Any], said: str) -> None:
    if inputs_for(model) is not NAMED:
        inputs = {name: jnp.asarray(value) for name, value in inputs.items()}
    with pytest.raises(cfi.InputError, match=said):
        cfi.attribute(model, "feature_ablation", "captum", inputs=inputs, target=0)


@pytest.mark.parametrize("make", [lambda: TorchText().eval(), keras_text])
def test_a_tuple_of_tokens_and_mask_is_refused(make: Any) -> None:
    """Exchanged, they would fit just as well."""
    model = make()
    with pytest.raises(cfi.InputError, match=r"Pass them by name: inputs=\{'(tokens|mask)': …, '(mask|tokens)': …\}"):
        cfi.attribute(model, "feature_ablation", "captum", inputs=(MASK, TOKENS), target=0)


def test_the_model_is_left_as_it_is() -> None:
    model = TorchText().eval()
    before = {**vars(model)}, type(model)
    cfi.attribute(model, "feature_ablation", "captum", inputs=NAMED, target=0)
    assert ({**vars(model)}, type(model)) == before


def test_a_translation_says_what_its_inputs_are() -> None:
    translation = cfi.translate(keras_text(), "torch", inputs=NAMED)
    assert translation.input_names == ("tokens", "mask")
    assert "inputs tokens, mask" in repr(translation)
    given = torch.tensor(TOKENS), torch.tensor(MASK)
    np.testing.assert_allclose(translation.model(*given).detach(), numpy_text(TOKENS, MASK), atol=1e-5)


def test_layers_by_name() -> None:
    assert [layer.name for layer in cfi.layers(TorchText().eval(), NAMED)] == ["embedding", "mix"]
