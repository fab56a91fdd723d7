"""Standard errors of drawn values come home across frameworks and from runs of each sample alone."""

from __future__ import annotations

import keras
import numpy as np
import torch
from torch import Tensor, nn

import cfi_core as cfi
from cfi_core.testing.conformance import assert_spread_is_told

IMAGES = np.random.default_rng(0).random((2, 5, 6, 3)).astype(np.float32)


def test_errors_have_the_axes_of_a_keras_model_explained_by_captum():
    keras.utils.set_random_seed(1)
    image = keras.Input((5, 6, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="tanh")(image))
    model = keras.Model(image, keras.layers.Dense(3)(x))
    settings = {"init_args": {"method": "saliency"}, "exec_args": {"nt_samples": 30, "stdevs": 0.8}}
    assert_spread_is_told(
        lambda seed: cfi.attribute(model, "noise_tunnel", "captum", inputs=IMAGES, target=1, seed=seed, **settings),
        seeds=30,
        within=0.3,
    )


class Held(nn.Module):
    """Of an image, and a number that says which colour counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 3 * 4, 3)

    def forward(self, image: Tensor, colour: Tensor) -> Tensor:
        chosen = nn.functional.one_hot(colour, 3).to(image.dtype)
        return self.head(torch.tanh(3 * self.conv(image * chosen[:, :, None, None])).flatten(1))


def test_errors_of_samples_that_run_alone_are_joined():
    inputs = {"image": torch.tensor(IMAGES).permute(0, 3, 1, 2), "colour": torch.tensor([0, 2])}
    settings = {"init_args": {"n_iter": 25, "noise_level": 0.5}}
    model = Held().eval()
    found = cfi.attribute(model, "smooth_grad", "zennit", inputs=inputs, target=1, seed=0, **settings)
    assert found.provenance["held"] and found.values["image"].shape == (2, 3, 5, 6)
    (errors,) = found.extras["standard_error"].values()
    assert errors.shape == (2, 3, 5, 6)
    # The other colours are not looked at, and nothing is drawn that they would feel.
    assert (errors[0, 1:] == 0).all() and (errors[1, :2] == 0).all() and (errors[0, 0] > 0).any()
    assert_spread_is_told(
        lambda seed: cfi.attribute(model, "smooth_grad", "zennit", inputs=inputs, target=1, seed=seed, **settings),
        seeds=30,
        within=0.3,
    )
