"""Small models to plant faults in, the inputs that they are explained on, and the methods that are asked for.

There are as many of torch as of Keras: pictures, residual nets, tables with features in units of their own, columns of
very unequal size, rare classes, sequences, tokens, two inputs, pooling in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import keras  # isort: skip
import torch
from keras import layers
from torch import nn

BASELINE = 0.375  # a value that no input has
TOKENS, RARE = 30, 25


@dataclass(frozen=True, eq=False)
class Method:
    """A method as it is asked for."""

    key: str
    toolset: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.key + (" from a baseline" if "baselines" in self.options else "")


@dataclass(frozen=True, eq=False)
class Case:
    """A model, and what it is asked.

    Attributes:
        name: What it is.
        side: Its framework, `"torch"` or `"tensorflow"`.
        make: Builds it.
        inputs: One array for each input, sample axis first, in the model's axes.
        target: The class that is explained.
        methods: What it is explained by.
        layer: Of layer methods.
        traits: What faults need: `"image"`, `"sequence"`, `"tokens"`, `"two"` inputs, `"units"`, `"columns"` of unequal
            size, `"rare"` classes, `"tied"` in front of pooling, `"relu"`, `"few"` samples.
        feature: Of a table, the one in units of a million.
    """

    name: str
    side: str
    make: Callable[[], Any]
    inputs: tuple[np.ndarray, ...]
    target: int
    methods: tuple[Method, ...]
    layer: str = ""
    traits: frozenset[str] = frozenset()
    feature: int = 0

    @property
    def to(self) -> str:
        """The framework that it is converted to."""
        return "tensorflow" if self.side == "torch" else "torch"

    @property
    def highest(self) -> float:
        """Largest value of the first input."""
        return float(self.inputs[0].max())


def _images(samples: int, *, zeros: bool = True) -> np.ndarray:
    """Channels last, 0 to 1, black at the borders, with a saturated patch."""
    images = np.random.default_rng(0).uniform(0, 1, (samples, 11, 9, 3)).astype(np.float32)
    if zeros:
        images[:, 0], images[:, :, 0] = 0, 0
        images[:, 4:8, 4:8] = 1
    return images


def _rows(samples: int) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(samples, 6)).astype(np.float32)
    rows[::3, 1] = 0  # a feature that is often absent
    return rows * np.array([1, 1, 1e6, 1, 1e-3, 1], np.float32)


def _sequences(samples: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(samples, 12, 4)).astype(np.float32)


def _tokens(samples: int) -> np.ndarray:
    tokens = np.random.default_rng(3).integers(1, 20, (samples, 8))
    tokens[-1, 3] = RARE
    tokens[:, 6:] = 0  # padding
    return tokens.astype(np.int64)


def _rows_of_tokens(samples: int) -> np.ndarray:
    return np.eye(TOKENS, dtype=np.float32)[_tokens(samples)]


def _pairs(samples: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(4).normal
    return draw(size=(samples, 5)).astype(np.float32), draw(size=(samples, 5)).astype(np.float32)


# torch


class Residual(nn.Module):
    """Two branches that are added, two that are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU()
        self.left, self.left_act = nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()
        self.right, self.right_act = nn.Conv2d(6, 4, 3, padding=1), nn.ReLU()
        self.pool, self.head = nn.MaxPool2d(2, ceil_mode=True), nn.Linear(10 * 9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.stem(x)))
        x = self.left_act(self.left(x)) + x
        x = torch.cat([self.right_act(self.right(x)), x], 1)
        return self.head(self.pool(x).flatten(1))


class Pair(nn.Module):
    """Two inputs of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(5, 8), nn.Linear(5, 8)
        self.act, self.head = nn.ReLU(), nn.Linear(16, 4)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.act(self.one(a)), torch.tanh(self.other(b))], 1))


class Words(nn.Module):
    """Tokens as rows with one 1, of which the first is padding; `act` is an activation function."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.embedding, self.hidden, self.act = nn.Linear(TOKENS, 6, bias=False), nn.Linear(6, 8), act
        self.head = nn.Linear(8, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        kept = tokens[:, :, 1:].sum(2, keepdim=True)
        return self.head((self.act(self.hidden(self.embedding(tokens))) * kept).sum(1))


def _torch(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """With random weights, the same each time, and statistics that are none of a new model."""

    def make() -> nn.Module:
        torch.manual_seed(3)
        model = build().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        return model

    return make


def _pictures() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(6, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 9, 5),
    )
    with torch.no_grad():
        model[0].weight *= 8  # some activations are above six
    return model


def _first_pooled() -> nn.Module:
    """Pooling in front, where the inputs' own equal values meet it."""
    return nn.Sequential(
        nn.MaxPool2d(2), nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 5 * 4, 4)
    )


def _first_pooled_signal() -> nn.Module:
    return nn.Sequential(nn.MaxPool1d(2), nn.Conv1d(4, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(36, 4))


def _volume() -> nn.Module:
    return nn.Sequential(nn.MaxPool3d(2), nn.Conv3d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))


def _table() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        model[0].weight /= torch.tensor([1, 1, 1e6, 1, 1e-3, 1])
    return model


def _unequal_columns() -> nn.Module:
    model = _table()
    with torch.no_grad():
        model[4].weight[2] *= 1e6
    return model


def _rare_classes() -> nn.Module:
    model = _table()
    with torch.no_grad():
        model[4].bias[:2] -= 14
    return nn.Sequential(*model, nn.Softmax(1))


def _rare_pictures() -> nn.Module:
    model = _pictures()
    with torch.no_grad():
        model[-1].bias[:2] -= 12
    return nn.Sequential(*model, nn.Softmax(1))


def _sequence() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(60, 4)
    )


# Keras


def _keras(build: Callable[[], Any]) -> Callable[[], Any]:
    """With random weights, the same each time, and statistics that are none of a new model."""

    def make() -> Any:
        keras.utils.set_random_seed(5)
        model = build()
        draw = np.random.default_rng(5)
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.moving_mean.assign(draw.normal(0, 0.2, layer.moving_mean.shape))
                layer.moving_variance.assign(draw.uniform(0.5, 1.5, layer.moving_variance.shape))
            if getattr(layer, "bias", None) is not None:
                rare = np.array([14, 14, 0, 0]) if layer.name == "classes" else 0.0
                layer.bias.assign(draw.normal(0, 0.1, layer.bias.shape) - rare)
        return model

    return make


def _keras_pictures() -> Any:
    loud = keras.initializers.RandomNormal(0, 1.5, seed=8)  # some activations are above six
    return keras.Sequential(
        [
            keras.Input((11, 9, 3)),
            layers.Conv2D(6, 3, padding="same", kernel_initializer=loud, name="first"),
            layers.ReLU(name="rectified"),
            layers.MaxPooling2D(2, padding="same", name="pool"),
            layers.Conv2D(8, 3, 2, padding="same", name="second"),
            layers.BatchNormalization(name="norm"),
            layers.Activation("relu", name="act"),
            layers.Flatten(name="flat"),
            layers.Dense(5, name="head"),
        ]
    )


def _keras_residual() -> Any:
    given = keras.Input((11, 9, 3))
    x = layers.ZeroPadding2D(((1, 1), (1, 1)), name="pad")(given)
    x = layers.Conv2D(6, 3, 2, name="stem")(x)
    x = layers.Activation("relu", name="act")(layers.BatchNormalization(name="norm")(x))
    left = layers.ReLU(name="left_act")(layers.Conv2D(6, 3, padding="same", name="left")(x))
    x = layers.Add(name="sum")([left, x])
    right = layers.ReLU(name="right_act")(layers.Conv2D(4, 3, padding="same", name="right")(x))
    x = layers.Concatenate(name="joint")([right, x])
    x = layers.Flatten(name="flat")(layers.MaxPooling2D(2, padding="same", name="pool")(x))
    return keras.Model(given, layers.Dense(5, name="head")(x))


def _keras_first_pooled() -> Any:
    return keras.Sequential(
        [
            keras.Input((10, 8, 3)),
            layers.MaxPooling2D(2, name="pool"),
            layers.Conv2D(6, 3, padding="same", activation="tanh", name="first"),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="head"),
        ]
    )


def _keras_first_pooled_signal() -> Any:
    return keras.Sequential(
        [
            keras.Input((12, 4)),
            layers.MaxPooling1D(2, name="pool"),
            layers.Conv1D(6, 3, padding="same", activation="tanh", name="first"),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="head"),
        ]
    )


def _keras_table() -> Any:
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(12, activation="tanh", name="first"),
            layers.Dense(8, name="second"),
            layers.ReLU(name="rectified"),
            layers.Dense(4, name="head"),
        ]
    )
    kernel = model.layers[0].kernel
    kernel.assign(kernel / np.array([1, 1, 1e6, 1, 1e-3, 1], np.float32)[:, None])
    return model


def _keras_unequal_columns() -> Any:
    model = _keras_table()
    kernel = model.get_layer("head").kernel
    kernel.assign(kernel * np.array([1, 1, 1e6, 1], np.float32))
    return model


def _keras_rare_classes() -> Any:
    model = _keras_table()
    hidden = model.get_layer("rectified").output
    shift = layers.Dense(4, activation="softmax", name="classes")
    model = keras.Model(model.inputs, shift(hidden))
    return model


def _keras_rare_pictures() -> Any:
    model = _keras_pictures()
    return keras.Model(
        model.inputs, layers.Dense(4, activation="softmax", name="classes")(model.get_layer("flat").output)
    )


def _keras_sequence() -> Any:
    return keras.Sequential(
        [
            keras.Input((12, 4)),
            layers.Conv1D(6, 3, padding="same", name="first"),
            layers.ReLU(name="rectified"),
            layers.LSTM(6, return_sequences=True, name="states"),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="head"),
        ]
    )


def _keras_pair() -> Any:
    a, b = keras.Input((5,)), keras.Input((5,))
    one = layers.ReLU(name="act")(layers.Dense(8, name="one")(a))
    other = layers.Dense(8, activation="tanh", name="other")(b)
    return keras.Model([a, b], layers.Dense(4, name="head")(layers.Concatenate(name="joint")([one, other])))


def _keras_pair_of_sequences() -> Any:
    a, b = keras.Input((6, 3)), keras.Input((6, 3))
    one = layers.Conv1D(4, 3, activation="relu", name="one")(a)
    other = layers.Conv1D(4, 3, activation="tanh", name="other")(b)
    joint = layers.Concatenate(name="joint")([one, other])
    return keras.Model([a, b], layers.Dense(4, name="head")(layers.Flatten(name="flat")(joint)))


def _keras_words_in_order() -> Any:
    tokens = keras.Input((8,), dtype="int64")
    x = layers.LSTM(8, name="states")(layers.Embedding(TOKENS, 6, name="embedding")(tokens))
    return keras.Model(tokens, layers.Dense(4, name="head")(x))


def _keras_words() -> Any:
    tokens = keras.Input((8,), dtype="int64")
    kept = keras.ops.expand_dims(keras.ops.cast(keras.ops.not_equal(tokens, 0), "float32"), -1)
    x = layers.Dense(8, activation="tanh", name="hidden")(layers.Embedding(TOKENS, 6, name="embedding")(tokens))
    x = keras.ops.sum(layers.Multiply(name="kept")([x, kept]), axis=1)
    return keras.Model(tokens, layers.Dense(4, name="head")(x))


# What is asked

_VIS, _CAPTUM = "tf-keras-vis", "captum"
_SALIENCY = Method("saliency", _VIS)
_SMOOTHED = Method("smooth_grad", _VIS, {"exec_args": {"smooth_samples": 4}})
_CAMS = (Method("grad_cam", _VIS), Method("score_cam", _VIS))
_GRADIENTS = (Method("saliency", _CAPTUM), Method("input_x_gradient", _CAPTUM))
_INTEGRATED = Method("integrated_gradients", _CAPTUM, {"exec_args": {"n_steps": 20}})
_ABLATION = Method("feature_ablation", _CAPTUM, {"baselines": BASELINE})
_WINDOW = (4, 3, 3)
_OCCLUSION = Method(
    "occlusion",
    _CAPTUM,
    {"baselines": BASELINE, "exec_args": {"sliding_window_shapes": _WINDOW, "strides": _WINDOW}},
)
_WORDS = Method("feature_ablation", _CAPTUM, {"baselines": 0})
_LAYERS = (Method("layer_gradient_x_activation", _CAPTUM), Method("layer_activation", _CAPTUM))
_TO_KERAS, _TO_TORCH = (_SALIENCY, _SMOOTHED), (*_GRADIENTS, _INTEGRATED)

IMAGE, UNITS, FEW = frozenset({"image"}), frozenset({"units"}), frozenset({"few"})


def _turned(sequences: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(sequences, 2, 1))


def _first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))


def _cases() -> list[Case]:
    blocks = np.zeros((5, 1, 6, 4, 8), np.float32)
    blocks[:, :, 1:3, :, 2:5] = np.random.default_rng(6).uniform(0, 1, (5, 1, 2, 4, 3)).round(1)
    steps = np.maximum(_sequences(4).round(), 0)
    rows, pairs, even = _rows(14), _pairs(14), _images(3)[:, :10, :8].copy()
    pair_of_sequences = tuple(np.random.default_rng(7 + i).normal(size=(9, 6, 3)).astype(np.float32) for i in (0, 1))
    relu, tied, two, rare, sequence, tokens, columns = (
        frozenset({one}) for one in ("relu", "tied", "two", "rare", "sequence", "tokens", "columns")
    )

    def of_torch(name: str, build: Callable[[], nn.Module], *rest: Any) -> Case:
        return Case(name, "torch", _torch(build), *rest)

    def of_keras(name: str, build: Callable[[], Any], *rest: Any) -> Case:
        return Case(name, "tensorflow", _keras(build), *rest)

    ablated, occluded = (*_TO_TORCH, _ABLATION), (*_TO_TORCH, _OCCLUSION)
    return [
        of_torch("pictures", _pictures, (_first(_images(4)),), 2, (*_TO_KERAS, *_CAMS), "3", IMAGE | relu),
        of_torch("picture", _pictures, (_first(_images(1)),), 2, _TO_KERAS, "3", IMAGE | FEW),
        of_torch("residual", Residual, (_first(_images(11)),), 1, (_SALIENCY, _CAMS[0]), "left", IMAGE | relu),
        of_torch("pooled first", _first_pooled, (_first(even),), 1, _TO_KERAS, "1", IMAGE | tied),
        of_torch("pooled signal", _first_pooled_signal, (_turned(steps),), 1, _TO_KERAS, "1", sequence | tied),
        of_torch("volume", _volume, (blocks,), 1, (_SALIENCY,), "1", tied),
        of_torch("table", _table, (_rows(60),), 1, (_SALIENCY,), "2", UNITS | relu, 2),
        of_torch("row", _table, (_rows(1),), 0, (_SALIENCY,), "2", UNITS | FEW, 2),
        of_torch("unequal columns", _unequal_columns, (rows,), 1, (_SALIENCY,), "2", UNITS | columns, 2),
        of_torch("rare classes", _rare_classes, (rows,), 0, (_SALIENCY,), "2", UNITS | rare, 2),
        of_torch("rare pictures", _rare_pictures, (_first(_images(4)),), 0, (_SALIENCY, _CAMS[0]), "3", IMAGE | rare),
        of_torch("sequence", _sequence, (_turned(_sequences(20)),), 3, _TO_KERAS, "2", sequence),
        of_torch("two inputs", Pair, _pairs(60), 1, _TO_KERAS, "one", two),
        of_torch("two inputs, few", Pair, _pairs(3), 1, _TO_KERAS, "one", two),
        of_torch("words", lambda: Words(nn.Tanh()), (_rows_of_tokens(12),), 2, _TO_KERAS, "hidden", tokens),
        of_torch("rectified words", lambda: Words(nn.ReLU()), (_rows_of_tokens(12),), 2, _TO_KERAS, "hidden", tokens),
        of_keras("pictures", _keras_pictures, (_images(4),), 2, (*occluded, *_LAYERS), "second", IMAGE | relu),
        of_keras("picture", _keras_pictures, (_images(1),), 2, occluded, "second", IMAGE | FEW),
        of_keras("residual", _keras_residual, (_images(11),), 1, (*_TO_TORCH, *_LAYERS), "left", IMAGE | relu),
        of_keras("pooled first", _keras_first_pooled, (even,), 1, _TO_TORCH, "first", IMAGE | tied),
        of_keras("pooled signal", _keras_first_pooled_signal, (steps,), 1, ablated, "first", sequence | tied),
        of_keras("table", _keras_table, (rows,), 1, (*ablated, *_LAYERS), "second", UNITS | relu, 2),
        of_keras("row", _keras_table, (_rows(1),), 0, ablated, "second", UNITS | FEW, 2),
        of_keras("unequal columns", _keras_unequal_columns, (rows,), 1, ablated, "second", UNITS | columns, 2),
        of_keras("rare classes", _keras_rare_classes, (rows,), 0, ablated, "second", UNITS | rare, 2),
        of_keras("rare pictures", _keras_rare_pictures, (_images(4),), 0, occluded, "second", IMAGE | rare),
        of_keras("sequence", _keras_sequence, (_sequences(10),), 3, (*_TO_TORCH, *_LAYERS), "first", sequence),
        of_keras("two inputs", _keras_pair, pairs, 1, ablated, "one", two),
        of_keras("two sequences", _keras_pair_of_sequences, pair_of_sequences, 1, ablated, "one", two),
        of_keras("words", _keras_words, (_tokens(12),), 2, (_WORDS, *_LAYERS), "embedding", tokens),
        of_keras("words in order", _keras_words_in_order, (_tokens(12),), 2, (_WORDS, *_LAYERS), "embedding", tokens),
    ]


CASES = _cases()
