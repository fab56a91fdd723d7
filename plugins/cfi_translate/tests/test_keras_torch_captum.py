"""Captum's methods with rules of their own, on a converted model and on a twin written by hand in torch."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from keras import layers as L
from keras_torch_cases import functional, randomised, relative
from torch import nn

from cfi_translate.keras_torch import convert

SHAPE = (14, 12, 3)


def keras_network():
    def through(x):
        x = L.Conv2D(6, 3, padding="same", name="first")(x)
        x = L.ReLU(name="first_relu")(L.BatchNormalization(name="norm")(x))
        x = L.MaxPooling2D(2, name="pool")(x)
        x = L.Conv2D(8, 3, activation="relu", name="second")(x)
        x = L.AveragePooling2D(2, name="mean")(x)
        x = L.Dropout(0.3, name="drop")(L.Flatten(name="flat")(x))
        return L.Dense(4, name="head")(L.Dense(10, activation="relu", name="hidden")(x))

    return randomised(functional(through, SHAPE))


class Twin(nn.Module):
    """The same network, its weights copied from Keras by hand."""

    def __init__(self, model):
        super().__init__()
        self.first, self.norm, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, eps=1e-3), nn.ReLU()
        self.pool, self.second, self.relu2 = nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU()
        self.mean, self.drop = nn.AvgPool2d(2), nn.Dropout(0.3)
        self.hidden, self.relu3, self.head = nn.Linear(8 * 2 * 2, 10), nn.ReLU(), nn.Linear(10, 4)
        weights = {weight.path: torch.from_numpy(weight.numpy()) for weight in model.weights}
        with torch.no_grad():
            for name in ("first", "second"):
                getattr(self, name).weight.copy_(weights[f"{name}/kernel"].permute(3, 2, 0, 1))
                getattr(self, name).bias.copy_(weights[f"{name}/bias"])
            self.norm.weight.copy_(weights["norm/gamma"])
            self.norm.bias.copy_(weights["norm/beta"])
            self.norm.running_mean.copy_(weights["norm/moving_mean"])
            self.norm.running_var.copy_(weights["norm/moving_variance"])
            kernel = weights["hidden/kernel"].reshape(2, 2, 8, 10).permute(2, 0, 1, 3).reshape(32, 10)
            self.hidden.weight.copy_(kernel.T)
            self.hidden.bias.copy_(weights["hidden/bias"])
            self.head.weight.copy_(weights["head/kernel"].T)
            self.head.bias.copy_(weights["head/bias"])
        self.eval()

    def forward(self, x):
        x = self.pool(self.relu(self.norm(self.first(x))))
        x = self.drop(torch.flatten(self.mean(self.relu2(self.second(x))), 1))
        return self.head(self.relu3(self.hidden(x)))


@pytest.mark.parametrize("method", ["DeepLift", "LRP", "GuidedBackprop", "Deconvolution", "DeepLiftShap"])
def test_rules_attach_as_to_a_network_written_by_hand(method):
    model = keras_network()
    array = np.random.default_rng(5).standard_normal((3, *SHAPE)).astype("float32")
    result = convert(model, (array[:2],))
    values = []
    for module in (result.model, Twin(model)):
        if method == "LRP":
            for one in module.modules():
                if type(one) is nn.Flatten:
                    one.rule = captum.attr._utils.lrp_rules.EpsilonRule()  # captum has no rule for it
        x = torch.from_numpy(array.transpose(0, 3, 1, 2).copy()).requires_grad_()
        options = {"baselines": torch.full_like(x, 0.2).detach()} if method.startswith("DeepLift") else {}
        values.append(getattr(captum.attr, method)(module).attribute(x, target=2, **options).detach().numpy())
    assert np.abs(values[1]).max() > 0
    assert relative(values[0], values[1]) <= (1e-7 if method == "LRP" else 0)


def test_guided_backpropagation_is_not_the_plain_gradient():
    model = keras_network()
    array = np.random.default_rng(5).standard_normal((3, *SHAPE)).astype("float32")
    module = convert(model, (array[:2],)).model
    x = torch.from_numpy(array.transpose(0, 3, 1, 2).copy()).requires_grad_()
    guided = captum.attr.GuidedBackprop(module).attribute(x, target=2).detach().numpy()
    plain = captum.attr.Saliency(module).attribute(x, target=1, abs=False).detach().numpy()
    assert relative(guided, plain) > 0.1
