"""Keras architectures with random weights and random batch norm statistics, small inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cfi_core.coexistence import load_safely

load_safely()

import keras  # noqa: E402
from keras import applications, layers, ops  # noqa: E402
from zoo_inputs import LENGTH, TOKENS, examples  # noqa: E402

SEED = 21


@dataclass(frozen=True)
class KerasCase:
    """A model to be, shapes of its inputs (None stands for tokens) and layers to open.

    `parts(model, layer)` gives two functions, from the inputs to the layer's activation and from both to the outputs,
    where Keras itself has no model of them (layers inside other layers).
    """

    build: Callable[[], Any]
    shapes: tuple[tuple[int, ...] | None, ...]
    layers: tuple[str, ...]
    parts: Callable[[Any, str], tuple[Callable[..., Any], Callable[..., Any]]] | None = None

    def make(self) -> Any:
        keras.utils.set_random_seed(SEED)
        model = self.build()
        generator = np.random.default_rng(SEED)
        for weight in model.weights:
            if weight.path.endswith("moving_mean"):
                weight.assign(generator.normal(0, 0.1, weight.shape))
            elif weight.path.endswith("moving_variance"):
                weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        return model

    def inputs(self, samples: int = 2) -> tuple[np.ndarray, ...]:
        return examples(self.shapes, samples, SEED)


def token_lstm() -> Any:
    tokens = keras.Input((LENGTH,), dtype="int64")
    x = layers.Embedding(TOKENS, 16, mask_zero=True, name="embedding")(tokens)
    x = layers.Bidirectional(layers.LSTM(12, return_sequences=True), name="states")(x)
    x = layers.GRU(8, name="gru")(x)
    return keras.Model(tokens, layers.Dense(4, name="head")(x))


def token_transformer() -> Any:
    tokens = keras.Input((LENGTH,), dtype="int64")
    x = layers.Embedding(TOKENS, 16, name="embedding")(tokens)
    for i in range(2):
        attended = layers.MultiHeadAttention(4, 4, name=f"attention_{i}")(x, x)
        x = layers.LayerNormalization(name=f"norm_{i}")(x + attended)
        x = x + layers.Dense(16, name=f"out_{i}")(layers.Dense(32, activation="gelu", name=f"in_{i}")(x))
    return keras.Model(tokens, layers.Dense(4, name="head")(layers.GlobalAveragePooling1D()(x)))


def vision_transformer() -> Any:
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(32, 8, strides=8, name="patches")(image)
    x = layers.Reshape((16, 32), name="sequence")(x)
    for i in range(2):
        y = layers.LayerNormalization(name=f"before_{i}")(x)
        x = layers.Add(name=f"attended_{i}")([x, layers.MultiHeadAttention(4, 8, name=f"attention_{i}")(y, y)])
        y = layers.LayerNormalization(name=f"after_{i}")(x)
        y = layers.Dense(32, name=f"out_{i}")(layers.Dense(64, activation="gelu", name=f"in_{i}")(y))
        x = layers.Add(name=f"block_{i}")([x, y])
    return keras.Model(image, layers.Dense(10, name="head")(layers.GlobalAveragePooling1D()(x)))


def two_inputs() -> Any:
    image, row = keras.Input((14, 20, 3)), keras.Input((6,))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu", name="conv")(image))
    joint = layers.Concatenate()([x, layers.Dense(8, activation="tanh", name="row")(row)])
    outputs = {"classes": layers.Dense(5, name="classes")(joint), "value": layers.Dense(1, name="value")(joint)}
    return keras.Model([image, row], outputs)


def segmentation() -> Any:
    image = keras.Input((16, 24, 3))
    skip = layers.Conv2D(6, 3, padding="same", activation="relu", name="down")(image)
    x = layers.MaxPooling2D(2)(skip)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(8, 3, padding="same", name="bottom")(x))
    x = layers.Conv2DTranspose(6, 2, strides=2, name="up")(x)
    x = layers.Concatenate()([x, skip])
    return keras.Model(image, layers.Conv2D(4, 1, name="classes")(x))


def volumes() -> Any:
    volume = keras.Input((6, 8, 10, 2))
    x = layers.MaxPooling3D(2, name="pool")(layers.Conv3D(6, 3, padding="same", name="conv")(volume))
    return keras.Model(volume, layers.Dense(3)(layers.Flatten()(layers.ReLU(name="relu")(x))))


def signals() -> Any:
    signal = keras.Input((24, 3))
    x = layers.Conv1D(8, 5, padding="causal", activation="relu", name="first")(signal)
    x = layers.Conv1D(8, 3, name="second")(layers.BatchNormalization()(x))
    return keras.Model(signal, layers.Dense(4)(layers.GlobalMaxPooling1D()(x)))


def nested() -> Any:
    inner = keras.Input((8, 10, 6))
    hidden = layers.Conv2D(6, 3, padding="same", name="inner_conv")(inner)
    backbone = keras.Model(inner, layers.Add(name="sum")([inner, layers.ReLU(name="relu")(hidden)]), name="backbone")
    image = keras.Input((16, 20, 3))
    shared = layers.Conv2D(6, 2, strides=2, name="stem")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(backbone(shared))
    return keras.Model(image, layers.Dense(4, name="head")(x))


def parts_of_nested(model: Any, layer: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    backbone = model.get_layer("backbone")

    def front(image):
        return backbone.get_layer("inner_conv")(model.get_layer("stem")(image))

    def rest(image, activation):
        joint = model.get_layer("stem")(image) + ops.relu(activation)
        return model.get_layer("head")(model.get_layer("pool")(joint))

    return front, rest


@keras.saving.register_keras_serializable("zoo")
class Subclassed(keras.Model):
    """A block with a path around it, called as often as the input's values say."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stem = layers.Conv2D(6, 3, padding="same")
        self.block = layers.Conv2D(6, 3, padding="same", activation="relu")
        self.head = layers.Dense(4)

    def call(self, image, training=False):
        x = self.stem(image)
        x = x + self.block(x)
        return self.head(ops.mean(x, axis=(1, 2)))

    def parts(self, layer: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        def finish(x, activation):
            return self.head(ops.mean(x + activation, axis=(1, 2)))

        if layer == "stem":
            return self.stem, lambda image, activation: finish(activation, self.block(activation))
        return (lambda image: self.block(self.stem(image))), lambda image, activation: finish(
            self.stem(image), activation
        )


def subclassed() -> Any:
    model = Subclassed(name="subclassed")
    model.stem.name, model.block.name = "stem", "block"
    model(np.zeros((1, 12, 10, 3), np.float32))
    return model


def application(name: str, pixels: int, *opened: str, **options: Any) -> KerasCase:
    options = {"classifier_activation": None, **options}
    build = partial(getattr(applications, name), weights=None, input_shape=(pixels, pixels, 3), classes=10, **options)
    return KerasCase(build, ((pixels, pixels, 3),), opened)


KERAS_CASES: dict[str, KerasCase] = {
    "VGG16": application("VGG16", 64, "block2_conv1", "block5_pool"),
    "ResNet50": application("ResNet50", 64, "conv2_block1_1_conv", "conv4_block6_out"),
    "ResNet50V2": application("ResNet50V2", 64, "conv3_block2_2_conv", "post_relu"),
    "InceptionV3": application("InceptionV3", 96, "mixed2", "mixed10"),
    "Xception": application("Xception", 96, "block4_sepconv1", "block14_sepconv2_act"),
    "MobileNet": application("MobileNet", 64, "conv_pw_3_relu", "conv_pw_13"),
    "MobileNetV2": application("MobileNetV2", 64, "block_3_expand", "out_relu"),
    "MobileNetV3Small": application("MobileNetV3Small", 64, "expanded_conv_1_expand", "expanded_conv_10_add"),
    "DenseNet121": application("DenseNet121", 64, "conv3_block2_1_conv", "relu"),
    "NASNetMobile": application("NASNetMobile", 64, "normal_add_1_0", "normal_concat_12"),
    "EfficientNetB0": application("EfficientNetB0", 64, "block2a_expand_conv", "top_activation"),
    "EfficientNetV2B0": application("EfficientNetV2B0", 64, "block2a_expand_conv", "top_activation"),
    "ConvNeXtTiny": application("ConvNeXtTiny", 64, "convnext_tiny_stage_1_block_0_depthwise_conv"),
    "vision transformer": KerasCase(vision_transformer, ((32, 32, 3),), ("patches", "attention_1", "block_1")),
    "token LSTM": KerasCase(token_lstm, (None,), ("embedding", "states")),
    "token transformer": KerasCase(token_transformer, (None,), ("embedding", "attention_1")),
    "two inputs, two outputs": KerasCase(two_inputs, ((14, 20, 3), (6,)), ("conv", "row")),
    "segmentation": KerasCase(segmentation, ((16, 24, 3),), ("down", "bottom")),
    "1-D convolutions": KerasCase(signals, ((24, 3),), ("first", "second")),
    "3-D convolutions": KerasCase(volumes, ((6, 8, 10, 2),), ("conv", "relu")),
    "nested": KerasCase(nested, ((16, 20, 3),), ("backbone/inner_conv",), parts_of_nested),
    "subclassed": KerasCase(subclassed, ((12, 10, 3),), ("stem", "block"), lambda model, layer: model.parts(layer)),
}
