"""Models of tokens whose class depends on one patch of the image alone, in torch, Keras and Flax.

The layer `gain` makes the token of that patch four times as long, and the class is half its squared length. So its
gradient is the token, and Grad-CAM is the product of that token with each, largest with itself (Cauchy and Schwarz,
where no other is four times as long from the beginning).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HEIGHT, WIDTH, PATCH, FEATURES = 3, 5, 4, 6
PLACES = HEIGHT * WIDTH
IMAGE = (3, HEIGHT * PATCH, WIDTH * PATCH)


def images() -> np.ndarray:
    """Two images, channels first."""
    return np.random.default_rng(0).standard_normal((2, *IMAGE)).astype(np.float32)


def kernel() -> np.ndarray:
    """Of the patch embedding, in torch's order of axes."""
    return np.random.default_rng(1).standard_normal((FEATURES, 3, PATCH, PATCH)).astype(np.float32)


GAIN = 4


class Gain(nn.Module):
    """One of the tokens made longer."""

    def __init__(self, count: int, token: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, count, 1))
        self.gain.data[:, token] = GAIN

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gain


def extra(count: int) -> np.ndarray:
    """Tokens that are no patches."""
    return np.random.default_rng(2).standard_normal((1, count, FEATURES)).astype(np.float32)


class Planted(nn.Module):
    """The tokens of patches in an order of their own, with others in front and behind."""

    def __init__(self, patch: int, order: Any = None, front: int = 1, behind: int = 0) -> None:
        super().__init__()
        self.order = np.arange(PLACES) if order is None else np.asarray(order)
        self.front = front
        self.token = front + int(np.argsort(self.order)[patch])
        self.embed = nn.Conv2d(3, FEATURES, PATCH, PATCH, bias=False)
        self.embed.weight.data = torch.tensor(kernel())
        self.extra = nn.Parameter(torch.tensor(extra(front + behind)))
        self.tokens = nn.Linear(FEATURES, FEATURES, bias=False)
        self.tokens.weight.data = torch.eye(FEATURES)
        self.gain = Gain(PLACES + front + behind, self.token)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        if (self.order != np.arange(PLACES)).any():
            tokens = tokens[:, torch.tensor(self.order)]
        if self.extra.numel():
            extra = self.extra.expand(len(x), -1, -1)
            tokens = torch.cat([extra[:, : self.front], tokens, extra[:, self.front :]], 1)
        tokens = self.gain(self.tokens(tokens))
        one = tokens[:, self.token]
        return torch.stack([(one * one).sum(-1) / 2, tokens.mean((1, 2))], 1)


class Windows(nn.Module):
    """Windows of all rows and `width` columns, shifted, of an image in channels-last order."""

    def __init__(self, patch: tuple[int, int], width: int = 1, shift: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.patch, self.width, self.shift = patch, width, shift
        self.embed = nn.Conv2d(3, FEATURES, PATCH, PATCH, bias=False)
        self.embed.weight.data = torch.tensor(kernel())
        self.last = Gain(PLACES, patch[0] * WIDTH + patch[1])
        self.last.gain = nn.Parameter(self.last.gain.data.reshape(1, HEIGHT, WIDTH, 1))
        self.inside = nn.Linear(FEATURES, FEATURES, bias=False)
        self.inside.weight.data = torch.eye(FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.last(self.embed(x).permute(0, 2, 3, 1))
        rolled = torch.roll(whole, (-self.shift[0], -self.shift[1]), (1, 2))
        windows = rolled.reshape(len(x), HEIGHT, -1, self.width, FEATURES).transpose(1, 2)
        inside = self.inside(windows.reshape(-1, HEIGHT * self.width, FEATURES))
        windows = inside.reshape(len(x), -1, HEIGHT, self.width, FEATURES).transpose(1, 2)
        back = torch.roll(windows.reshape(whole.shape), self.shift, (1, 2))
        one = back[:, self.patch[0], self.patch[1]]
        return torch.stack([(one * one).sum(-1) / 2, back.mean((1, 2, 3))], 1)


def keras_planted(patch: int, order: Any = None, front: int = 1, behind: int = 0) -> Any:
    """The functional Keras twin of `Planted`, channels last."""
    import keras
    import tensorflow as tf

    order = np.arange(PLACES) if order is None else np.asarray(order)
    token = front + int(np.argsort(order)[patch])

    class Others(keras.layers.Layer):
        def call(self, tokens: Any) -> Any:
            every = tf.repeat(tf.constant(extra(front + behind)), tf.shape(tokens)[0], 0)
            return tf.concat([every[:, :front], tf.gather(tokens, order, axis=1), every[:, front:]], 1)

        def compute_output_spec(self, tokens: Any) -> Any:
            return keras.KerasTensor((None, PLACES + front + behind, FEATURES), tokens.dtype)

    class Energy(keras.layers.Layer):
        def call(self, tokens: Any) -> Any:
            one = tokens[:, token]
            return tf.stack([tf.reduce_sum(one * one, -1) / 2, tf.reduce_mean(tokens, [1, 2])], 1)

        def compute_output_spec(self, tokens: Any) -> Any:
            return keras.KerasTensor((None, 2), tokens.dtype)

    inputs = keras.Input((*IMAGE[1:], 3))
    embed = keras.layers.Conv2D(FEATURES, PATCH, PATCH, use_bias=False, name="embed")
    tokens = keras.layers.Reshape((PLACES, FEATURES))(embed(inputs))
    gain = np.ones((1, PLACES + front + behind, 1), np.float32)
    gain[:, token] = GAIN

    class Longer(keras.layers.Layer):
        def call(self, tokens: Any) -> Any:
            return tokens * gain

    model = keras.Model(inputs, Energy()(Longer(name="gain")(Others()(tokens))))
    embed.set_weights([kernel().transpose(2, 3, 1, 0)])
    return model
