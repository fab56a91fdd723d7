"""Names that users see are their own: of models, layers and routes, whatever stands around or in between."""

from __future__ import annotations

import functools
import re
import types
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import cfi_core as cfi

INTERNAL = re.compile(
    r"cfi_|_cfi|CFI_|_CFI|split_\d|keras_tensor_|TorchFunction|TensorFlowFunction|ArrayModel|SessionModel|ExportedModel"
    r"|Canonical|DataParallel|OptimizedModule|Twin|Parallel"
)


class Net(nn.Module):
    """The user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4 * 6 * 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.relu(self.conv1(x)).flatten(1))

    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.fc(self.relu(self.conv1(x)).flatten(1))


def torch_function(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)[:, :3] * 2


def keras_function(x: Any) -> Any:
    return tf.reshape(x, (-1, 192))[:, :3] * 2


def array_function(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, "float32").reshape(-1, 192)[:, :3] * 2


def make_net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def make_keras() -> keras.Model:
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv2D(4, 3, activation="relu", name="conv1")
    layers = [conv, keras.layers.Flatten(name="flat"), keras.layers.Dense(3, activation="softmax", name="out")]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers], name="mine")


class Subclassed(keras.Model):
    """The user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = keras.layers.Conv2D(4, 3)
        self.flat = keras.layers.Flatten()
        self.out = keras.layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.out(self.flat(self.conv(x)))


def make_subclassed() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


def make_estimator() -> LogisticRegression:
    rows = np.random.default_rng(0).random((30, 192))
    return LogisticRegression().fit(rows, np.arange(30) % 3)


FIRST = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LAST = np.ascontiguousarray(FIRST.permute(0, 2, 3, 1).numpy())
HERE = __name__

MODELS: dict[str, tuple[Any, Any, str]] = {
    "module": (make_net, FIRST, f"{HERE}.Net"),
    "several devices": (lambda: nn.DataParallel(make_net()), FIRST, f"{HERE}.Net"),
    "compiled": (lambda: torch.compile(make_net()), FIRST, f"{HERE}.Net"),
    "compiled on several devices": (lambda: torch.compile(nn.DataParallel(make_net())), FIRST, f"{HERE}.Net"),
    "partial": (lambda: functools.partial(make_net()), FIRST, f"{HERE}.Net"),
    "method": (lambda: make_net().doubled, FIRST, f"{HERE}.Net(doubled)"),
    "torch function": (lambda: torch_function, FIRST, f"{HERE}.torch_function"),
    "partial function": (lambda: functools.partial(torch_function), FIRST, f"{HERE}.torch_function"),
    "exported": (
        lambda: torch.export.export(make_net(), (FIRST,)),
        FIRST,
        "torch.export.exported_program.ExportedProgram",
    ),
    "keras": (make_keras, LAST, "keras.src.models.sequential.Sequential"),
    "subclassed": (make_subclassed, LAST, f"{HERE}.Subclassed"),
    "tensorflow function": (lambda: keras_function, tf.constant(LAST), f"{HERE}.keras_function"),
    "array function": (lambda: array_function, LAST, f"{HERE}.array_function"),
    "estimator": (make_estimator, LAST.reshape(2, 192), "sklearn.linear_model._logistic.LogisticRegression"),
}
CALLS = (
    ("saliency", "captum"),
    ("saliency", "tf-keras-vis"),
    ("deep_lift", "captum"),
    ("grad_cam", "captum"),
    ("grad_cam", "tf-keras-vis"),
    ("grad_cam", "tf-explain"),
    ("feature_ablation", "captum"),
)


def said_in(attribution: cfi.Attribution) -> str:
    """All that an attribution says of how it was made, the names of what an import path is apart."""
    parts = (attribution.provenance, attribution, attribution.certificate, attribution.layer, attribution.route)
    return "\n".join(map(str, parts))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::cfi_core.CFIWarning")
def test_models_and_layers_go_by_their_own_names(name: str) -> None:
    make, inputs, called = MODELS[name]
    model, explained = make(), 0
    for layer in cfi.layers(model, inputs):
        assert not INTERNAL.search(f"{layer.name} {layer.kind}"), layer
    for key, toolset in CALLS:
        arguments: dict[str, Any] = {"inputs": inputs, "target": 1, "seed": 1}
        try:
            plan = cfi.plan(model, key, toolset, **arguments)
            found = cfi.attribute(model, key, toolset, **arguments)
            if isinstance(found, cfi.PendingLayer):
                assert not INTERNAL.search(f"{found} {found._repr_html_()}")
                found = cfi.attribute(model, key, toolset, layer="auto", **arguments)
        except cfi.CFIError as error:  # what cannot be served says so in words of the user's, too
            refused = str(error)
        else:
            refused = ""
        if refused:
            assert not INTERNAL.search(refused), refused
            continue
        assert isinstance(found, cfi.Attribution)
        assert found.provenance["model"] == called
        assert not INTERNAL.search(said_in(found)), (key, toolset, INTERNAL.findall(said_in(found)))
        assert f"model     {called.rpartition('.')[2]}, " in str(plan)
        explained += 1
    assert explained


def test_a_model_named_like_an_internal_one_is_no_matter() -> None:
    space: dict[str, Any] = {"__module__": "users_module"}
    kind = types.new_class("Parallel", (Net,), {}, lambda namespace: namespace.update(space))
    found = cfi.attribute(kind().eval(), "saliency", "captum", inputs=FIRST, target=0)
    assert isinstance(found, cfi.Attribution)
    assert found.provenance["model"] == "users_module.Parallel"
