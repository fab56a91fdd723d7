"""Keras 3 and TensorFlow models, in every form that people have them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import cfi_core as cfi
from model_rows.frame import Call, answer, row, seed
from model_rows.hands import (
    ablation,
    cam,
    group_ablation,
    integrate,
    keras_from,
    keras_gradient,
    keras_layer,
)

IMAGES = np.random.default_rng(7).normal(size=(2, 12, 16, 3)).astype(np.float32)
TOKENS = np.random.default_rng(8).integers(1, 20, (2, 6)).astype(np.int32)
STEPS = 8


def quadrants(images: np.ndarray) -> np.ndarray:
    """A feature mask: four quarters of an image."""
    mask = np.zeros((1, *images.shape[1:]), np.int64)
    mask[:, images.shape[1] // 2 :] += 1
    mask[:, :, images.shape[2] // 2 :] += 2
    return mask


def squares(images: np.ndarray, size: int) -> np.ndarray:
    """A feature mask of squares, the last ones cut off at the edges."""
    rows, columns = np.arange(images.shape[1]) // size, np.arange(images.shape[2]) // size
    return np.broadcast_to((rows[:, None] * 100 + columns)[..., None], images[:1].shape)


def load() -> Any:
    """Keras, after torch: the other way round the process may end."""
    from cfi_core.coexistence import load_safely

    load_safely()
    import keras

    seed()
    return keras


def cnn() -> Any:
    """A small convolutional network."""
    keras = load()
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 16, 3)),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.Conv2D(8, 3, strides=2, activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(5, name="head"),
        ]
    )


def calls_on(model: Any, images: np.ndarray, layer: str, module: Any, within: float = 1e-5) -> list[Call]:
    """An image classifier, natively and across, and at a layer; class 1 is explained."""
    score = lambda x: model(x, training=False)[:, 1]  # noqa: E731 - the score of all calls
    by_layer = lambda: cam(*keras_layer(lambda: score(images), module), channel=3)  # noqa: E731
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1),
            lambda: keras_gradient(score, images),
            within,
        ),
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=1),
            lambda: images * keras_gradient(score, images),
            within,
        ),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "tf-explain", inputs=images, target=1, layer=layer),
            by_layer,
            within,
        ),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "captum", inputs=images, target=1, layer=layer), by_layer, within
        ),
    ]


@row("Keras: Sequential", quick=True)
def sequential() -> Iterable[Call]:
    model = cnn()
    return calls_on(model, IMAGES, "second", model.get_layer("second"))


@row("Keras: a subclassed model", quick=True)
def subclassed() -> Iterable[Call]:
    keras = load()

    class Classifier(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv = keras.layers.Conv2D(6, 3, activation="relu", name="conv")
            self.head = keras.layers.Dense(5, name="head")

        def call(self, images: Any) -> Any:
            return self.head(keras.ops.mean(self.conv(images), (1, 2)))

    model, images = Classifier(), IMAGES
    model(images)
    score = lambda x: model(x)[:, 1]  # noqa: E731 - the score of two calls
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "zennit", inputs=images, target=1),
            lambda: keras_gradient(score, images),
        ),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "captum", inputs=images, target=1, layer="conv"),
            lambda: cam(*keras_layer(lambda: score(images), model.conv), channel=3),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1, translator="bridge"),
            lambda: keras_gradient(score, images),
        ),
    ]


@row("Keras: mixed precision", quick=True)
def mixed() -> Iterable[Call]:
    keras = load()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = cnn()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return calls_on(model, IMAGES, "second", model.get_layer("second"), within=2.0**-8)


@row("Keras: bfloat16", quick=True)
def in_bfloat16() -> Iterable[Call]:
    keras = load()
    keras.config.set_floatx("bfloat16")
    try:
        model = cnn()
    finally:
        keras.config.set_floatx("float32")
    return calls_on(model, IMAGES, "second", model.get_layer("second"), within=2.0**-5)


@row("Keras: int8", quick=True)
def int8() -> Iterable[Call]:
    model, images = cnn(), IMAGES
    model.quantize("int8")
    predict = lambda x: model(x, training=False)[:, 1].numpy()  # noqa: E731 - the outputs of all calls
    return [
        answer(
            lambda: cfi.attribute(
                model,
                "feature_ablation",
                "captum",
                inputs=images,
                target=1,
                exec_args={"feature_mask": quadrants(images)},
            ),
            lambda: group_ablation(predict, images, quadrants(images)),
        ),
        answer(
            lambda: cfi.attribute(
                model, "occlusion", "tf-explain", inputs=images, target=1, exec_args={"patch_size": 6}
            ),
            lambda: group_ablation(predict, images, squares(images, 6))[..., 0],
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1),
            lambda: keras_gradient(lambda x: model(x, training=False)[:, 1], images),
        ),
    ]


@row("Keras: LoRA", quick=True)
def lora() -> Iterable[Call]:
    model = cnn()
    generator = np.random.default_rng(1)
    for layer in (model.get_layer("second"), model.get_layer("head")):
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(generator.normal(size=layer.lora_kernel_b.shape))
    return calls_on(model, IMAGES, "second", model.get_layer("second"))


@row("Keras: two inputs by name", quick=True)
def two_inputs() -> Iterable[Call]:
    keras = load()
    image, table = keras.Input((12, 16, 3), name="image"), keras.Input((4,), name="table")
    features = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model(
        {"image": image, "table": table}, keras.layers.Dense(3)(keras.ops.concatenate([features, table], 1))
    )
    given = {"table": np.random.default_rng(2).normal(size=(2, 4)).astype(np.float32), "image": IMAGES}
    tensors = {name: keras.ops.convert_to_tensor(value) for name, value in given.items()}

    def by_hand() -> Mapping[str, np.ndarray]:
        return {
            name: keras_gradient(lambda x, name=name: model({**tensors, name: x})[:, 1], value)
            for name, value in given.items()
        }

    return [
        answer(lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=given, target=1), by_hand),
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=given, target=1),
            lambda: {name: given[name] * value for name, value in by_hand().items()},
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=given, explain=("image",), target=1),
            lambda: {"image": by_hand()["image"]},
        ),
    ]


def text_calls(
    model: Any, tokens: Any, embedding: Any, score: Callable[[Any], Any], target: Any, name: str = ""
) -> list[Call]:
    """A model of tokens, natively and across: gradients begin at its embedding."""
    ids = tokens[name] if name else tokens
    given = lambda x: {**tokens, name: x} if name else x  # noqa: E731
    home = lambda values: {name: values} if name else values  # noqa: E731

    def by_hand(times: bool) -> Any:
        vectors, gradient = keras_layer(lambda: score(model(tokens, training=False)), embedding)
        return home(vectors * gradient if times else gradient)

    def integrated() -> Any:
        vectors, _ = keras_layer(lambda: score(model(tokens, training=False)), embedding)
        return home(integrate(keras_from(embedding, lambda: score(model(tokens, training=False))), vectors, 0, STEPS))

    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=tokens, target=target),
            lambda: by_hand(False),
        ),
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "zennit", inputs=tokens, target=target),
            lambda: by_hand(True),
        ),
        answer(
            lambda: cfi.attribute(
                model, "integrated_gradients", "captum", inputs=tokens, target=target, exec_args={"n_steps": 8}
            ),
            integrated,
        ),
        answer(
            lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=tokens, target=target, baselines=1),
            lambda: home(ablation(lambda x: score(model(given(x), training=False)).numpy(), ids, 1)),
        ),
    ]


@row("Keras: Embedding and LSTM", quick=True)
def lstm() -> Iterable[Call]:
    keras = load()
    layers = keras.layers
    embedding = layers.Embedding(20, 8, mask_zero=True)
    model = keras.Sequential([keras.Input((6,), dtype="int32"), embedding, layers.LSTM(8), layers.Dense(3)])
    return text_calls(model, TOKENS, embedding, lambda y: y[:, 1], 1)


def from_applications(name: str, layer: str, size: tuple[int, int] = (32, 48), **settings: Any) -> Iterable[Call]:
    """A model of keras.applications with random weights, without the softmax at its end."""
    keras = load()
    kind = getattr(keras.applications, name)
    model = kind(weights=None, input_shape=(*size, 3), classes=5, classifier_activation=None, **settings)
    images = np.random.default_rng(4).normal(size=(2, *size, 3)).astype(np.float32)
    return calls_on(model, images, layer, model.get_layer(layer))


@row("keras.applications: MobileNetV2")
def mobilenet() -> Iterable[Call]:
    return from_applications("MobileNetV2", "out_relu", alpha=0.35)


@row("keras.applications: ResNet50V2")
def resnet() -> Iterable[Call]:
    return from_applications("ResNet50V2", "post_relu", (64, 64))


@row("keras.applications: EfficientNetV2B0")
def efficientnet() -> Iterable[Call]:
    return from_applications("EfficientNetV2B0", "top_activation", (64, 64), include_preprocessing=False)


@row("keras-hub: BERT classifier", "keras_hub")
def hub_bert() -> Iterable[Call]:
    load()
    import keras_hub

    backbone = keras_hub.models.BertBackbone(20, 2, 2, 16, 24, max_sequence_length=8)
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=3, preprocessor=None)
    tokens = {"token_ids": TOKENS, "segment_ids": np.zeros_like(TOKENS), "padding_mask": np.ones_like(TOKENS)}
    tokens["segment_ids"][:, 4:], tokens["padding_mask"][1, 5:] = 1, 0
    return text_calls(model, tokens, backbone.token_embedding, lambda y: y[:, 1], 1, "token_ids")


@row("keras-hub: GPT-2, tied embedding", "keras_hub")
def hub_gpt2() -> Iterable[Call]:
    load()
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(20, 2, 2, 16, 24, max_sequence_length=8)
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    tokens = {"token_ids": TOKENS, "padding_mask": np.ones_like(TOKENS)}
    return text_calls(model, tokens, backbone.token_embedding, lambda y: y[:, -1, 7], (-1, 7), "token_ids")


@row("keras-hub: ViT", "keras_hub")
def hub_vit() -> Iterable[Call]:
    load()
    import keras_hub

    sizes = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24}
    backbone = keras_hub.models.ViTBackbone((32, 48, 3), **sizes)
    model = keras_hub.models.ViTImageClassifier(backbone, num_classes=5, preprocessor=None)
    images = np.random.default_rng(4).normal(size=(2, 32, 48, 3)).astype(np.float32)
    score = lambda x: model(x, training=False)[:, 1]  # noqa: E731 - the score of two calls
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1),
            lambda: keras_gradient(score, images),
        ),
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=1),
            lambda: images * keras_gradient(score, images),
        ),
    ]


@row("keras-hub: ResNet", "keras_hub")
def hub_resnet() -> Iterable[Call]:
    load()
    import keras_hub

    sizes = {"stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]}
    backbone = keras_hub.models.ResNetBackbone(
        [64], [7], **sizes, block_type="basic_block", use_pre_activation=True, image_shape=(32, 48, 3)
    )
    model = keras_hub.models.ResNetImageClassifier(backbone, num_classes=5, preprocessor=None)
    images = np.random.default_rng(4).normal(size=(2, 32, 48, 3)).astype(np.float32)
    score = lambda x: model(x, training=False)[:, 1]  # noqa: E731 - the score of two calls
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1),
            lambda: keras_gradient(score, images),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "captum", inputs=images, target=1, exec_args={"abs": False}),
            lambda: keras_gradient(score, images),
        ),
    ]


@row("tf_keras: Keras 2", "tf_keras")
def keras2() -> Iterable[Call]:
    load()
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            tf_keras.Input((12, 16, 3)),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.Conv2D(8, 3, activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    score, images = lambda x: model(x, training=False)[:, 1], IMAGES
    by_layer = lambda: cam(*keras_layer(lambda: score(images), model.get_layer("second")), channel=3)  # noqa: E731
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1, translator="bridge"),
            lambda: keras_gradient(score, images),
        ),
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=1),
            lambda: images * keras_gradient(score, images),
        ),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "captum", inputs=images, target=1, layer="second"),
            by_layer,
        ),
        answer(
            lambda: cfi.attribute(
                model, "grad_cam", "tf-explain", inputs=images, target=1, layer="second", translator="bridge"
            ),
            by_layer,
        ),
    ]


def function_calls(model: Any, original: Any) -> list[Call]:
    """A form of the network without layers, natively and across, compared with the network itself."""
    images = IMAGES
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1, translator="bridge"),
            lambda: keras_gradient(lambda x: original(x)[:, 1], images),
        ),
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=1),
            lambda: images * keras_gradient(lambda x: original(x)[:, 1], images),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "torchray", inputs=images, target=1),
            lambda: keras_gradient(lambda x: original(x)[:, 1], images),
        ),
    ]


@row("TensorFlow: tf.Module", quick=True)
def tf_module() -> Iterable[Call]:
    original = cnn()
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = original

        def __call__(self, images: Any) -> Any:
            return self.net(images)

    return function_calls(Module(), original)


@row("TensorFlow: tf.function", quick=True)
def tf_function() -> Iterable[Call]:
    original = cnn()
    import tensorflow as tf

    return function_calls(tf.function(lambda images: original(images)), original)


@row("TensorFlow: signature of a SavedModel", quick=True)
def saved_model() -> Iterable[Call]:
    original = cnn()
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        original.export(folder, verbose=False)
        loaded = tf.saved_model.load(folder)
    model = loaded.signatures["serving_default"]
    model.keeps = loaded  # the variables live as long as what was loaded
    return function_calls(model, original)


@row("Keras: a file, .keras", quick=True)
def archive() -> Iterable[Call]:
    keras, original = load(), cnn()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        original.save(path)
        model = keras.models.load_model(path)
    return calls_on(model, IMAGES, "second", model.get_layer("second"))
