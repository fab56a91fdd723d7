"""Whole numbers in: what needs no gradient of them runs on them, all else begins at the output of an embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from shared_cnn import apart

import cfi_core as cfi

import keras  # isort: skip - after torch, which shared_cnn loads first
import jax.numpy as jnp
import tensorflow as tf
import torch
from captum.attr import LayerIntegratedGradients
from flax import linen
from torch import nn

GENERATOR = np.random.default_rng(11)
TOKENS = GENERATOR.integers(3, 12, (3, 5))
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
TYPES = np.array([[0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
TARGETS = [1, 3, 0]
WORDS, PLACES, KINDS = (GENERATOR.normal(size=(n, 6)).astype(np.float32) for n in (12, 5, 2))
MIX, HEAD = GENERATOR.normal(size=(6, 6)).astype(np.float32), GENERATOR.normal(size=(6, 4)).astype(np.float32)
NAMED = {"attention_mask": MASK, "token_type_ids": TYPES, "tokens": TOKENS}


class TorchText(nn.Module):
    """Tokens, positions and token types, embedded and mixed; the mean of what the mask lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(torch.tensor(WORDS))
        self.places = nn.Embedding.from_pretrained(torch.tensor(PLACES))
        self.kinds = nn.Embedding.from_pretrained(torch.tensor(KINDS))
        self.mix, self.bend, self.head = nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 4, bias=False)
        self.mix.weight.data, self.head.weight.data = torch.tensor(MIX.T), torch.tensor(HEAD.T)

    def forward(self, tokens: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        embedded = self.words(tokens) + self.places(torch.arange(5)) + self.kinds(token_type_ids)
        seen = attention_mask[..., None].to(torch.float32)
        return self.head((self.bend(self.mix(embedded)) * seen).sum(1) / seen.sum(1))


def keras_text() -> keras.Model:
    layers, ops = keras.layers, keras.ops
    tokens, mask, types = (
        keras.Input((5,), dtype="int32", name=name) for name in ("tokens", "attention_mask", "token_type_ids")
    )
    words, kinds = layers.Embedding(12, 6, name="words"), layers.Embedding(2, 6, name="kinds")
    places = layers.Embedding(5, 6, name="places")
    mix, head = layers.Dense(6, use_bias=False, name="mix"), layers.Dense(4, use_bias=False, name="head")
    embedded = words(tokens) + places(ops.cumsum(ops.ones_like(tokens), axis=1) - 1) + kinds(types)
    seen = ops.cast(ops.expand_dims(mask, -1), "float32")
    bent = layers.Activation("tanh", name="bend")(mix(embedded))
    mean = ops.sum(bent * seen, axis=1) / ops.sum(seen, axis=1)
    model = keras.Model({"attention_mask": mask, "tokens": tokens, "token_type_ids": types}, head(mean))
    for layer, values in ((words, WORDS), (kinds, KINDS), (places, PLACES), (mix, MIX), (head, HEAD)):
        layer.set_weights([values])
    return model


class KerasText(keras.Model):
    """The same, subclassed, with its token embedding inside of a layer of the user's."""

    def __init__(self) -> None:
        super().__init__()
        graph = keras_text()
        self.inside = WordsAndPlaces(graph.get_layer("words"), graph.get_layer("places"))
        self.kinds, self.mix, self.head = (graph.get_layer(name) for name in ("kinds", "mix", "head"))

    def call(self, tokens: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        seen = tf.cast(attention_mask, tf.float32)[..., None]
        bent = tf.tanh(self.mix(self.inside(tokens) + self.kinds(token_type_ids))) * seen
        return self.head(tf.reduce_sum(bent, 1) / tf.reduce_sum(seen, 1))


class WordsAndPlaces(keras.layers.Layer):
    def __init__(self, words: Any, places: Any) -> None:
        super().__init__(name="inside")
        self.words, self.places = words, places

    def call(self, tokens: Any) -> Any:
        return self.words(tokens) + self.places(tf.range(5))[None]


def subclassed() -> keras.Model:
    model = KerasText()
    model(TOKENS, MASK, TYPES)
    return model


def tensorflow_text(tokens: Any, attention_mask: Any, token_type_ids: Any) -> Any:
    embedded = tf.gather(WORDS, tokens) + PLACES + tf.gather(KINDS, token_type_ids)
    seen = tf.cast(attention_mask, tf.float32)[..., None]
    return tf.reduce_sum(tf.tanh(embedded @ MIX) * seen, 1) / tf.reduce_sum(seen, 1) @ HEAD


def jax_text(tokens: Any, attention_mask: Any, token_type_ids: Any) -> Any:
    embedded = jnp.take(WORDS, tokens, axis=0) + jnp.asarray(PLACES) + jnp.asarray(KINDS)[token_type_ids]
    seen = attention_mask.astype(jnp.float32)[..., None]
    return (jnp.tanh(embedded @ MIX) * seen).sum(1) / seen.sum(1) @ HEAD


class LinenText(linen.Module):
    @linen.compact
    def __call__(self, tokens: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        embedded = linen.Embed(12, 6, name="words")(tokens) + linen.Embed(5, 6, name="places")(jnp.arange(5))
        embedded = embedded + linen.Embed(2, 6, name="kinds")(token_type_ids)
        seen = attention_mask.astype(jnp.float32)[..., None]
        bent = jnp.tanh(linen.Dense(6, use_bias=False, name="mix")(embedded))
        return linen.Dense(4, use_bias=False, name="head")((bent * seen).sum(1) / seen.sum(1))


def linen_text() -> Any:
    tables = {"words": {"embedding": WORDS}, "places": {"embedding": PLACES}, "kinds": {"embedding": KINDS}}
    dense = {"mix": {"kernel": MIX}, "head": {"kernel": HEAD}}
    return LinenText().bind({"params": {**tables, **dense}})


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "torch": (lambda: TorchText().eval(), "words"),
    "keras": (keras_text, "words"),
    "keras, subclassed": (subclassed, "inside/words"),
    "linen": (linen_text, "words"),
    "jax function": (lambda: jax_text, "gather"),
    "tensorflow function": (lambda: tf.function(tensorflow_text), "GatherV2"),
}


def given_for(kind: str) -> dict[str, Any]:
    """A function is known by its arrays."""
    return {name: jnp.asarray(value) for name, value in NAMED.items()} if kind == "jax function" else NAMED


def embedded(tokens: np.ndarray = TOKENS) -> torch.Tensor:
    return torch.tensor(WORDS)[torch.tensor(tokens)]


def of_embedded(vectors: torch.Tensor) -> torch.Tensor:
    """By hand, with the mask and types of the three samples."""
    seen = torch.tensor(MASK)[..., None].float()
    whole = vectors + torch.tensor(PLACES) + torch.tensor(KINDS)[torch.tensor(TYPES)]
    return (torch.tanh(whole @ torch.tensor(MIX)) * seen).sum(1) / seen.sum(1) @ torch.tensor(HEAD)


def gradient(vectors: torch.Tensor) -> np.ndarray:
    vectors = vectors.clone().requires_grad_()
    of_embedded(vectors)[torch.arange(3), torch.tensor(TARGETS)].sum().backward()
    assert vectors.grad is not None
    return vectors.grad.numpy()


@pytest.mark.filterwarnings("ignore:TorchRay is licensed")
@pytest.mark.parametrize("toolset", ["captum", "zennit", "torchray", "tf-keras-vis", "tf-explain"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_gradient_begins_at_the_embedding(kind: str, toolset: str) -> None:
    make, layer = MODELS[kind]
    translator = (
        "bridge" if kind in ("keras, subclassed", "tensorflow function") and toolset == "tf-keras-vis" else None
    )
    found = cfi.attribute(make(), "saliency", toolset, inputs=given_for(kind), target=TARGETS, translator=translator)
    assert found.dims == {"tokens": ("sample", "token", "embedding")}
    assert apart(found.values["tokens"], gradient(embedded())) < 1e-5
    assert found.provenance["inputs"] == f"the output of layer {layer!r}"
    assert found.provenance["held"].startswith("the tokens, attention_mask, token_type_ids")


def test_integrated_gradients_as_captum_by_hand() -> None:
    """From the vectors of a token to those of the sample, with mask and types of each."""
    model = TorchText().eval()
    tensors = {name: torch.tensor(value) for name, value in NAMED.items()}
    tool = LayerIntegratedGradients(model, model.words)
    base = torch.full_like(tensors["tokens"], 2)
    expected = tool.attribute(
        tensors["tokens"],
        base,
        target=TARGETS,
        additional_forward_args=(tensors["attention_mask"], tensors["token_type_ids"]),
        n_steps=32,
    ).numpy()
    for kind, (make, _) in MODELS.items():
        found = cfi.attribute(
            make(),
            "integrated_gradients",
            "captum",
            inputs=given_for(kind),
            target=TARGETS,
            baselines=2,
            exec_args={"n_steps": 32},
        )
        assert apart(found.values["tokens"], expected) < 1e-5, kind
        assert found.provenance["completeness"]["gap"] < 1e-3


@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_expected_gradients_of_shap_and_lrp(kind: str) -> None:
    model = MODELS[kind][0]()
    shap = cfi.attribute(model, "gradient_shap", "shap", inputs=NAMED, target=1, baselines=2, seed=0)
    assert shap.dims == {"tokens": ("sample", "token", "embedding")}
    with pytest.warns(cfi.CFIWarning):  # of products and quotients, where no rule of Zennit's attaches
        lrp = cfi.attribute(model, "lrp_epsilon_plus", "zennit", inputs=NAMED, target=1)
    assert lrp.values["tokens"].shape == (3, 5, 6) and (lrp.values["tokens"][MASK == 0] == 0).all()


@pytest.mark.parametrize("kind", ["torch", "keras", "linen"])
def test_the_embedding_by_its_word(kind: str) -> None:
    make, layer = MODELS[kind]
    model = make()
    given = {"inputs": NAMED, "target": TARGETS, "exec_args": {"n_steps": 16}, "layer": "embeddings"}
    of_layer = cfi.attribute(model, "layer_integrated_gradients", "captum", **given)
    of_inputs = cfi.attribute(model, "integrated_gradients", "captum", baselines=0, **given)
    assert of_layer.layer == layer and of_layer.dims == ("sample", "token", "embedding")
    assert of_inputs.layer is None and of_inputs.provenance["inputs"] == f"the output of layer {layer!r}"
    assert apart(of_layer.values, of_inputs.values["tokens"]) < 1e-5
    perturbed = cfi.attribute(
        model, "feature_ablation", "captum", inputs=NAMED, target=TARGETS, baselines=0.0, layer="embeddings"
    )
    assert perturbed.values["tokens"].shape == (3, 5, 6)
    pending = cfi.attribute(model, "layer_gradient_x_activation", "captum", inputs=NAMED, target=TARGETS)
    finished = cfi.finish_execution_with_layer(pending, "embeddings")
    assert finished.layer == layer
    assert "the embedding" in str(cfi.plan(model, "layer_activation", "captum", inputs=NAMED, layer="embeddings"))


def test_models_without_an_embedding_say_what_to_do() -> None:
    def one_hot(tokens: Any) -> Any:
        return (
            jnp.eye(12)[tokens * 0 + tokens].sum(1) @ jnp.ones((12, 4))
            if False
            else (tokens[..., None] == jnp.arange(12)).sum(1) * 1.0
        )

    tokens = jnp.asarray(TOKENS)
    with pytest.raises(cfi.InputError, match=r"int32 inputs have no gradient, and an embedding .* was not found\. Let"):
        cfi.attribute(one_hot, "saliency", "captum", inputs=tokens, target=1)
    with pytest.raises(cfi.LayerError, match="layer='embeddings': no embedding was found"):
        cfi.attribute(one_hot, "layer_activation", "captum", inputs=tokens, layer="embeddings")
    with pytest.raises(cfi.LayerError, match=r"is 'gather' here, which cannot be opened .* integrated_gradients"):
        cfi.attribute(jax_text, "layer_activation", "captum", inputs=given_for("jax function"), layer="embeddings")


def test_a_layer_of_that_name_is_that_layer() -> None:
    model = nn.Sequential()
    model.add_module("embeddings", nn.Linear(6, 4))
    found = cfi.attribute(model.eval(), "layer_activation", "captum", inputs=PLACES, layer="embeddings")
    assert found.layer == "embeddings" and found.values.shape == (5, 4)


# layers behind whole numbers


def of_layer(hidden: torch.Tensor) -> torch.Tensor:
    seen = torch.tensor(MASK)[..., None].float()
    return (torch.tanh(hidden) * seen).sum(1) / seen.sum(1) @ torch.tensor(HEAD)


def cam_by_hand() -> np.ndarray:
    whole = embedded() + torch.tensor(PLACES) + torch.tensor(KINDS)[torch.tensor(TYPES)]
    hidden = (whole @ torch.tensor(MIX)).requires_grad_()
    of_layer(hidden)[torch.arange(3), torch.tensor(TARGETS)].sum().backward()
    assert hidden.grad is not None
    return (hidden * hidden.grad.mean(1, keepdim=True)).sum(2).detach().numpy()


@pytest.mark.filterwarnings("ignore:TorchRay is licensed")
@pytest.mark.parametrize("toolset", ["tf-keras-vis", "torchray"])
@pytest.mark.parametrize("kind", ["torch", "keras", "linen"])
def test_class_activation_maps_of_tokens(kind: str, toolset: str) -> None:
    found = cfi.attribute(MODELS[kind][0](), "grad_cam", toolset, inputs=NAMED, target=TARGETS, layer="mix")
    assert found.values.shape == (3, 5) and apart(found.values, cam_by_hand()) < 1e-5


@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_layer_cam_of_tokens_and_no_score_cam(kind: str) -> None:
    """LayerCAM weighs each place by the positive part of its own gradient; Score-CAM would scale the tokens."""
    model = MODELS[kind][0]()
    whole = embedded() + torch.tensor(PLACES) + torch.tensor(KINDS)[torch.tensor(TYPES)]
    hidden = (whole @ torch.tensor(MIX)).requires_grad_()
    of_layer(hidden)[torch.arange(3), torch.tensor(TARGETS)].sum().backward()
    assert hidden.grad is not None
    expected = (hidden * hidden.grad.relu()).sum(2).detach().numpy()
    given = {"inputs": NAMED, "target": TARGETS, "layer": "mix"}
    assert apart(cfi.attribute(model, "layer_cam", "tf-keras-vis", **given).values, expected) < 1e-5
    with pytest.raises(cfi.InputError, match=r"tokens, take a method that does not scale them, such as 'grad_cam'"):
        cfi.attribute(model, "score_cam", "tf-keras-vis", **given)


def image_model() -> keras.Model:
    """Pixels of 0…255, as whole numbers."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    pixels = keras.Input((8, 10, 3), dtype="uint8")
    hidden = layers.Conv2D(4, 3, activation="tanh", name="conv")(layers.Rescaling(1 / 255.0)(pixels))
    return keras.Model(pixels, layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.ReLU()(hidden))))


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("toolset", ["tf-keras-vis", "tf-explain"])
def test_class_activation_maps_of_bytes(toolset: str, trainable: bool) -> None:
    model = image_model()
    model.trainable = trainable
    pixels = GENERATOR.integers(0, 256, (2, 8, 10, 3)).astype(np.uint8)
    with tf.GradientTape() as tape:
        read = keras.Model(model.inputs, [model.get_layer("conv").output, model.output])
        activation = keras.Model(model.inputs, model.get_layer("conv").output)(pixels)
        tape.watch(activation)
        rest = model.layers[-1](tf.reduce_mean(tf.nn.relu(activation), (1, 2)))
        score = tf.gather(rest, [1, 3], batch_dims=1)
    np.testing.assert_allclose(read(pixels)[1], rest, rtol=1e-5)
    weights = tf.reduce_mean(tape.gradient(score, activation), (1, 2), keepdims=True)
    expected = np.asarray(tf.reduce_sum(activation * weights, -1))
    found = cfi.attribute(model, "grad_cam", toolset, inputs=pixels, target=[1, 3], layer="conv")
    assert apart(found.values, expected) < 1e-5


def test_relevance_and_gradients_at_a_layer_of_a_token_model() -> None:
    model = TorchText().eval()
    whole = embedded() + torch.tensor(PLACES) + torch.tensor(KINDS)[torch.tensor(TYPES)]
    hidden = (whole @ torch.tensor(MIX)).requires_grad_()
    of_layer(hidden)[:, 1].sum().backward()
    assert hidden.grad is not None
    with pytest.warns(cfi.CFIWarning):  # TorchRay's licence, where it was not told yet; Zennit's plain gradients
        at = cfi.attribute(model, "lrp_epsilon_plus", "zennit", inputs=NAMED, target=1, layer="mix")
    assert at.values.shape == (3, 5, 6)
    saliency = cfi.attribute(model, "saliency", "torchray", inputs=NAMED, target=1, layer="mix")
    assert apart(saliency.values, hidden.grad.numpy()) < 1e-5


def test_whole_numbers_beyond_single_precision_are_refused() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(3, 2)
            self.mix = nn.Linear(2, 2)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.mix(self.words(tokens % 3)).mean(1)

    tokens = np.array([[1, 2**24 + 1]])
    with pytest.raises(cfi.InputError, match="beyond 16777216 would be others there"):
        cfi.attribute(Large().eval(), "grad_cam", "tf-keras-vis", inputs=tokens, target=0, layer="mix")
