"""Targets into outputs as models give them, on every route: against each framework's own gradients."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import cfi_core as cfi
from cfi_core import targets
from cfi_core.translation import conversion

TOOLSETS = ("captum", "tf-keras-vis", "tf-explain", "zennit", "torchray")
IMAGES = np.random.default_rng(0).uniform(size=(2, 3, 6, 8)).astype("float32")
LAST = IMAGES.transpose(0, 2, 3, 1).copy()


@pytest.fixture(autouse=True)
def no_licence_notes():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TorchRay is licensed")
        yield


def saliency(model: Any, toolset: str, inputs: Any, target: Any, **more: Any) -> cfi.Attribution:
    own = {"exec_args": {"abs": False}} if toolset == "captum" else {}
    found = cfi.attribute(model, "saliency", toolset, inputs=inputs, target=target, **own, **more)
    assert isinstance(found, cfi.Attribution)
    return found


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# models with all that stands in outputs


@dataclass
class Found:
    loss: Any
    logits: Any
    states: Any
    cache: Any
    labels: Any


class Told(NamedTuple):
    scores: Any
    sizes: Any


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Linear(5 * 48, 7)

    def forward(self, x: Tensor) -> Found:
        features = self.act(self.conv(x))
        logits = self.head(features.flatten(1))
        states = {"first": Told(features.mean((2, 3)), features.amax((2, 3))), "note": "words"}
        return Found(logits.square().mean(), logits, states, object(), logits.argmax(1))


def by_torch(model: nn.Module, score: Any) -> np.ndarray:
    x = torch.tensor(IMAGES, requires_grad=True)
    score(model(x)).sum().backward()
    return x.grad.numpy()


def difference(found: Found) -> Tensor:
    return found.logits[:, 3] - found.logits[:, 5].square()


@pytest.fixture(scope="module")
def network() -> Network:
    return Network().eval()


@pytest.mark.parametrize("toolset", TOOLSETS)
@pytest.mark.parametrize(
    ("target", "score"),
    [
        (3, lambda found: found.logits[:, 3]),
        (("states", "first", "sizes", 2), lambda found: found.states["first"].sizes[:, 2]),
        (difference, difference),
        (targets.difference(3, 5), lambda found: found.logits[:, 3] - found.logits[:, 5]),
        (targets.mean(), lambda found: found.logits.mean(1)),
    ],
    ids=["logits", "path", "function", "difference", "mean"],
)
def test_a_torch_model_in_every_toolset(network, toolset, target, score):
    found = saliency(network, toolset, torch.tensor(IMAGES), target)
    expected = by_torch(network, score)
    values = expected if found.values.shape == expected.shape else np.abs(expected).max(1)
    assert apart(found.values, values) < 1e-5
    assert "a function of each sample" in found.provenance["function"]


@pytest.mark.parametrize("toolset", ["tf-keras-vis", "tf-explain"])
@pytest.mark.parametrize("target", [difference, ("logits", 3), targets.difference(3, 5)])
def test_a_converted_model(network, toolset, target):
    scores = {difference: difference, ("logits", 3): lambda found: found.logits[:, 3]}
    score = scores.get(target, lambda found: found.logits[:, 3] - found.logits[:, 5])
    found = saliency(network, toolset, torch.tensor(IMAGES), target, translator="conversion")
    assert len(found.route) == 2 and apart(found.values, by_torch(network, score)) < 1e-5


def test_a_function_may_want_as_many_samples_as_there_are(network):
    labels = torch.tensor([[1], [4]])

    def own(found: Found) -> Tensor:
        return found.logits.gather(1, labels)[:, 0]

    for way in ("bridge", "conversion"):
        found = saliency(network, "tf-keras-vis", torch.tensor(IMAGES), own, translator=way)
        assert apart(found.values, by_torch(network, own)) < 1e-5


def test_what_a_function_computes_is_measured(network):
    found = cfi.attribute(
        network,
        "integrated_gradients",
        "tf-explain",
        inputs=torch.tensor(IMAGES),
        target=difference,
        exec_args={"n_steps": 64},
    )
    with torch.no_grad():
        whole = difference(network(torch.tensor(IMAGES))) - difference(network(torch.zeros(2, 3, 6, 8)))
    assert found.provenance["completeness"]["gap"] < 0.02
    np.testing.assert_allclose(found.values.sum((1, 2, 3)), whole.numpy(), rtol=0.05, atol=0.02)


def test_a_layer_that_is_chosen_later(network):
    pending = cfi.attribute(network, "grad_cam", "tf-keras-vis", inputs=torch.tensor(IMAGES), target=difference)
    found = cfi.finish_execution_with_layer(pending, network.conv)
    native = cfi.attribute(
        network, "grad_cam", "captum", inputs=torch.tensor(IMAGES), target=difference, layer=network.conv
    )
    assert apart(found.values, native.values) < 1e-5


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda found: tf.reduce_mean(found), "fails on the outputs of your model.*torch tensors"),
        (lambda found: found.logits[:, :2], "must return one value per sample"),
        (lambda found: found.logits.mean(), "must return one value per sample"),
        (lambda found: found.words, "fails on the outputs of your model"),
    ],
)
def test_functions_that_give_something_else(network, target, message):
    with pytest.raises(cfi.TargetError, match=message):
        saliency(network, "tf-keras-vis", torch.tensor(IMAGES), target)


def test_the_same_output_is_the_same_model_again(network, monkeypatch):
    """What was made of a model with that end is found again."""
    calls: list[int] = []

    along = conversion.convert_along
    monkeypatch.setattr(conversion, "convert_along", lambda *given: calls.append(1) or along(*given))
    cfi.forget_translations()
    for target in (("logits", 3), 4, targets.class_(5)):
        saliency(network, "tf-keras-vis", torch.tensor(IMAGES), target, translator="conversion")
    assert len(calls) == 1


def test_hooks_on_the_model_come_before_the_target(network):
    """Also those that are put there after a first call."""

    def double(module: nn.Module, given: Any, found: Found) -> Found:
        return replace(found, logits=2 * found.logits)

    handle = network.register_forward_hook(double)
    try:
        for target, score in ((3, lambda found: found.logits[:, 3]), (difference, difference)):
            expected = by_torch(network, score)
            for toolset in ("captum", "tf-keras-vis"):
                assert apart(saliency(network, toolset, torch.tensor(IMAGES), target).values, expected) < 1e-5
    finally:
        handle.remove()


def test_a_forward_that_was_exchanged_comes_before_the_target():
    model = Network().eval()
    first = saliency(model, "captum", torch.tensor(IMAGES), 3).values
    forward = model.forward
    model.forward = lambda x: replace(forward(x), logits=3 * forward(x).logits)
    assert apart(saliency(model, "captum", torch.tensor(IMAGES), 3).values, 3 * first) < 1e-5


# Keras


@pytest.fixture(scope="module")
def keras_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 8, 3))
    features = keras.layers.Conv2D(4, 3, activation="relu", name="features")(image)
    flat = keras.layers.Flatten()(features)
    scores, size = keras.layers.Dense(5, name="scores")(flat), keras.layers.Dense(1, name="size")(flat)
    return keras.Model(image, {"scores": scores, "size": size, "best": keras.ops.argmax(scores, axis=1)})


def by_keras(model: Any, score: Any) -> np.ndarray:
    x = tf.constant(LAST)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(score(model(x)))
    return tape.gradient(total, x).numpy()


def product(outputs: dict[str, Any]) -> Any:
    return tf.reduce_mean(outputs["scores"], axis=1) * outputs["size"][:, 0]


@pytest.mark.parametrize("toolset", TOOLSETS)
@pytest.mark.parametrize(
    ("target", "score"),
    [
        (("scores", 2), lambda outputs: outputs["scores"][:, 2]),
        (product, product),
        (("scores", targets.difference(2, 0)), lambda outputs: outputs["scores"][:, 2] - outputs["scores"][:, 0]),
    ],
    ids=["entry", "function", "difference"],
)
def test_a_keras_model_in_every_toolset(keras_model, toolset, target, score):
    found = saliency(keras_model, toolset, LAST, target)
    expected = by_keras(keras_model, score)
    values = expected if found.values.shape == expected.shape else np.abs(expected).max(-1)
    assert apart(found.values, values) < 1e-5


def test_a_converted_keras_model(keras_model):
    found = saliency(keras_model, "captum", LAST, product, translator="conversion")
    assert apart(found.values, by_keras(keras_model, product)) < 1e-5
    layered = cfi.attribute(keras_model, "grad_cam", "captum", inputs=LAST, target=product, layer="features")
    native = cfi.attribute(keras_model, "grad_cam", "tf-keras-vis", inputs=LAST, target=product, layer="features")
    assert apart(layered.values, native.values) < 1e-4


RULES = [("zennit", "guided_backprop"), ("zennit", "deconvolution"), ("torchray", "guided_backprop")]


@pytest.mark.filterwarnings("ignore:TorchRay is licensed")
@pytest.mark.parametrize(("toolset", "key"), [*RULES, ("captum", "deep_lift"), ("shap", "deep_lift_shap")])
def test_rules_do_not_reach_a_rectifier_in_a_function_of_another_framework(keras_model, toolset, key):
    """Before, zennit refused it of a torch model, and of a Keras model mixed its rule with the plain gradient."""
    own = {"baselines": np.zeros((2, 6, 8, 3), np.float32)} if "deep" in key else {}
    model = keras.Model(keras_model.inputs, keras_model.get_layer("scores").output)
    ask = partial(cfi.attribute, model, key, toolset, inputs=LAST, **own)
    for bent in (tf.nn.relu, tf.abs, lambda values: tf.reduce_max(values[:, :2], axis=1, keepdims=True)):
        with pytest.raises(cfi.TargetError, match="runs in tensorflow, is not linear in the outputs"):
            ask(target=lambda outputs, bent=bent: -bent(outputs)[:, 0])
    if (toolset, key) in RULES:
        linear = ask(target=lambda outputs: 3 * outputs[:, 2] + 1)
        assert apart(linear.values, 3 * ask(target=2).values) < 1e-5


class Written(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = keras.layers.Dense(6, activation="tanh"), keras.layers.Dense(3)

    def call(self, x: Any, training: bool = False) -> dict[str, Any]:
        inner = self.inner(x)
        return {"inner": inner, "outer": self.outer(inner)}


def test_a_keras_model_with_a_call_of_its_own():
    keras.utils.set_random_seed(2)
    model, rows = Written(), LAST[:, 0, 0]
    model(rows)
    x = tf.constant(rows)
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = tf.reduce_max(model(x)["outer"], axis=1)
    expected = tape.gradient(score, x).numpy()
    found = saliency(model, "captum", rows, lambda outputs: tf.reduce_max(outputs["outer"], axis=1))
    assert apart(found.values, expected) < 1e-5
    layer = cfi.attribute(model, "layer_activation", "captum", inputs=rows, layer=model.inner)
    np.testing.assert_allclose(layer.values, model.inner(rows), rtol=1e-5)
    unit = cfi.attribute(
        model, "layer_gradient_x_activation", "captum", inputs=rows, layer=model.inner, target=("outer", 1)
    )
    np.testing.assert_allclose(unit.values, model.inner(rows) * model.outer.kernel[:, 1], rtol=1e-4, atol=1e-6)


# JAX, arrays, ONNX


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_a_jax_function(toolset):
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(3, 4)), jnp.float32)

    def model(x: Any) -> dict[str, Any]:
        scores = jnp.tanh(x @ weights)
        return {"logits": scores, "best": scores.argmax(1), "loss": scores.mean()}

    def spread(outputs: dict[str, Any]) -> Any:
        return jnp.max(outputs["logits"], axis=1) - jnp.min(outputs["logits"], axis=1)

    rows = jnp.asarray(LAST[:, 0, 0])
    for target, score in ((spread, spread), (2, lambda outputs: outputs["logits"][:, 2])):
        expected = jax.grad(lambda x, score=score: score(model(x)).sum())(rows)
        assert apart(saliency(model, toolset, rows, target).values, np.asarray(expected)) < 1e-5


def test_an_estimator_gives_arrays():
    rows = np.random.default_rng(4).normal(size=(60, 4))
    model = LogisticRegression().fit(rows, rows[:, 0] > rows[:, 1])
    seen = []

    def odds(scores: np.ndarray) -> np.ndarray:
        seen.append(type(scores))
        return np.log(scores[:, 1] / scores[:, 0])

    found = cfi.attribute(model, "feature_ablation", "captum", inputs=rows[:3], target=odds, baselines=0)
    np.testing.assert_allclose(found.values, rows[:3] * model.coef_, rtol=1e-5)
    assert set(seen) == {np.ndarray}


# segmentation and detection


class Segments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.conv(x), "aux": self.conv(x).mean((2, 3))}


@pytest.mark.parametrize(
    ("toolset", "way"), [("captum", None), ("tf-keras-vis", "bridge"), ("tf-keras-vis", "conversion")]
)
def test_masks_of_segmentations(toolset, way):
    model, region = Segments().eval(), np.arange(48).reshape(6, 8) % 5 == 0
    pixels = torch.tensor(region)
    expected = by_torch(model, lambda outputs: (outputs["out"][:, 2] * pixels).sum((1, 2)))
    found = saliency(model, toolset, torch.tensor(IMAGES), ("out", targets.mask(region, 2)), translator=way)
    assert apart(found.values, expected) < 1e-5
    with torch.no_grad():
        most = model(torch.tensor(IMAGES))["out"].argmax(1)
    which = int(most[0, 0, 0])
    expected = by_torch(model, lambda outputs: (outputs["out"][:, which] * (most == which)).sum((1, 2)))
    if (most == which).flatten(1).any(1).all():
        predicted = ("out", targets.mask("predicted", which))
        found = saliency(model, toolset, torch.tensor(IMAGES), predicted, translator=way)
        assert apart(found.values, expected) < 1e-5


class Detector(nn.Module):
    """A list with a dict for each image, of as many boxes as score more than the middle."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.conv = nn.Conv2d(3, 6, 2, 2)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for one in self.conv(x):
            rows = one.flatten(1).T
            low, sides = rows[:, :2].sigmoid() * 4, 1 + rows[:, 2:4].exp()
            scores = rows[:, 4].sigmoid()
            kept = scores > scores.median()
            boxes = torch.cat([low, low + sides], 1)[kept]
            found.append({"boxes": boxes, "scores": scores[kept], "labels": (rows[:, 5] > 0).long()[kept]})
        return found


def detected(outputs: list[dict[str, Tensor]], box: Tensor, label: int) -> Tensor:
    """By hand."""
    values = []
    for one in outputs:
        sides = (torch.minimum(one["boxes"][:, 2:], box[2:]) - torch.maximum(one["boxes"][:, :2], box[:2])).clamp(min=0)
        shared = sides.prod(1)
        areas = (one["boxes"][:, 2:] - one["boxes"][:, :2]).prod(1) + (box[2:] - box[:2]).prod()
        overlap = shared / (areas - shared) * (one["labels"] == label)
        values.append(overlap.max() * one["scores"][overlap.argmax()])
    return torch.stack(values)


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis", "zennit"])
def test_boxes_of_detectors(toolset):
    model, box = Detector().eval(), torch.tensor([1.0, 1.5, 4.5, 5.0])
    expected = by_torch(model, lambda outputs: detected(outputs, box, 1))
    assert np.abs(expected).max() > 0
    target = targets.box(iou_with=box.tolist(), label=1)
    found = saliency(model, toolset, torch.tensor(IMAGES), target)
    assert apart(found.values, expected) < 1e-5
    assert found.provenance["target_in_words"] == str(target)
    with pytest.raises(cfi.TargetError, match=r"cfi.targets.box\(iou_with="):
        saliency(model, toolset, torch.tensor(IMAGES), 1)


def test_the_box_that_was_found_itself():
    """Its sides are those of the box that is wanted, so the gradients of all frameworks are one-sided there."""
    corners = np.array([[1.0, 2.0, 4.0, 6.0], [0.0, 1.0, 3.0, 4.0]], np.float32)
    centred = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    output = np.concatenate([centred, [[0.9, 0.2], [0.3, 0.8]], np.zeros((2, 3))], 1).astype("float32")
    rows = np.stack([np.concatenate([output] * 5).T] * 2)
    target = targets.box(iou_with=corners[0].tolist(), label=0)
    of_torch = torch.tensor(rows, requires_grad=True)
    target(of_torch).sum().backward()
    for shift in (0, 1e-6, -1e-6):  # as a conversion rounds
        moved = tf.constant(rows + np.float32(shift))
        with tf.GradientTape() as tape:
            tape.watch(moved)
            values = target(moved)
        np.testing.assert_allclose(values, [0.9, 0.9], rtol=1e-5)
        found = tape.gradient(values, moved).numpy()
        np.testing.assert_allclose(found, of_torch.grad.numpy(), atol=1e-5)
    # The overlap is at its largest there, so only the score moves it.
    expected = np.zeros_like(rows)
    expected[:, 4, 0] = 1
    np.testing.assert_allclose(of_torch.grad.numpy(), expected, atol=1e-5)
