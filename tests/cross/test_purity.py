"""Models that are no functions of each sample are told before they are explained, and what they write to is undone."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from keras import layers, ops
from onnx import helper
from torch import nn
from torch.nn import functional

import cfi_core as cfi

ROWS = np.random.default_rng(5).normal(size=(3, 6)).astype(np.float32)
RANDOM, MIXED, WRITTEN = (
    "is random or keeps a state",
    "samples influence each other",
    "of the model itself, which is undone",
)


def told(message: str, model: Any, rows: Any = ROWS, method: str = "saliency", **arguments: Any) -> cfi.Attribution:
    """The attribution by captum, of which no more than this is told."""
    with pytest.warns(cfi.ModelWarning, match=message) as given:
        result = cfi.attribute(model, method, "captum", inputs=rows, target=1, **arguments)
    assert {one.filename for one in given if issubclass(one.category, cfi.CFIWarning)} == {__file__}
    return result


def untold(model: Any, rows: Any = ROWS, method: str = "saliency", toolset: str = "captum") -> cfi.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("error", cfi.CFIWarning)
        return cfi.attribute(model, method, toolset, inputs=rows, target=1)


# torch


class Net(nn.Module):
    """Two linear layers, and something between them."""

    def __init__(self, between: Callable[[Any, torch.Tensor], torch.Tensor], **parts: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.between = nn.Linear(6, 8), nn.Linear(8, 3), between
        self.parts = nn.ModuleDict(parts)
        self.register_buffer("count", torch.zeros(()))
        self.calls, self.cache = 0, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self, self.first(x)))


def count(net: Net, x: torch.Tensor) -> torch.Tensor:
    net.count += 1
    return x


def grow(net: Net, x: torch.Tensor) -> torch.Tensor:
    net.calls += 1
    return x * net.calls


def remember(net: Net, x: torch.Tensor) -> torch.Tensor:
    net.cache = x if net.cache is None else torch.cat([net.cache, x])
    return x + net.cache.mean()


TORCH_RANDOM = {
    "dropout": lambda net, x: functional.dropout(x, 0.1, training=True),
    "noise": lambda net, x: x + 0.01 * torch.randn_like(x),
    "one number": lambda net, x: x + 0.01 * torch.randn(()),
    "numpy": lambda net, x: x * float(np.random.normal(1, 0.01)),
    "a number that counts": grow,
    "a cache": remember,
}


@pytest.mark.parametrize("kind", TORCH_RANDOM)
def test_a_random_torch_model(kind):
    result = told(f"{RANDOM}.*'last'.*seed=", Net(TORCH_RANDOM[kind]).eval())
    assert result.provenance["function"].startswith("random, or with a state")


@pytest.mark.parametrize("route", ["captum", "tf-keras-vis"])
def test_on_every_route(route):
    model = Net(lambda net, x: x - x.mean(0)).eval()
    with pytest.warns(cfi.ModelWarning, match=MIXED):
        assert bool(cfi.attribute(model, "saliency", route, inputs=ROWS, target=1).route) == (route != "captum")


class Encoder(nn.Module):
    """Its path for inference leaves zeros in the place of what is padded."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.first, self.encoder, self.last = nn.Linear(3, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.last(self.encoder(self.first(x), src_key_padding_mask=padding).mean(1))


@pytest.mark.parametrize("padded", [False, True])  # the model is known by then, but not with what is held
def test_a_transformer_that_gives_something_else_for_inference(padded):
    x = np.random.default_rng(1).normal(size=(3, 7, 3)).astype(np.float32)
    padding = np.zeros((3, 7), bool)
    padding[1, 4:] = padded
    model = Encoder().eval()
    with torch.no_grad():
        alone = model(torch.tensor(x), torch.tensor(padding)).numpy()
    recorded = model(torch.tensor(x), torch.tensor(padding)).detach().numpy()
    assert (np.abs(alone - recorded).max() > 0.1) == padded
    inputs = {"x": x, "padding": padding}
    with pytest.warns(cfi.ModelWarning, match="recorded.*transformer encoders") if padded else nullcontext():
        cfi.attribute(model, "saliency", "captum", inputs=inputs, explain=["x"], target=1)


def test_a_torch_model_that_asks_whether_gradients_are_recorded():
    model = Net(lambda net, x: x if torch.is_grad_enabled() else x * 1.5).eval()
    told("gives something else where gradients are recorded", model)
    told("gives something else where gradients are recorded", model, method="feature_ablation", baselines=0)


def test_a_torch_model_that_gives_its_outputs_in_one_place():
    class InOnePlace(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.__dict__.setdefault("room", torch.zeros(9, 3))[: len(x)].copy_(super().forward(x))
            return self.room[: len(x)]

    model = InOnePlace(lambda net, x: x).eval()
    with (
        pytest.warns(cfi.ModelWarning, match="memory that its next pass overwrites"),
        pytest.warns(cfi.ModelWarning, match="zero everywhere"),
    ):
        cfi.attribute(model, "feature_ablation", "captum", inputs=ROWS, target=1, baselines=0)


SEEDING = {
    "torch": lambda net, x: x + 0 * torch.randn(len(x), 1, generator=torch.manual_seed(7)),
    "torch alone": lambda net, x: x * bool(torch.manual_seed(7)),
    "numpy": lambda net, x: (np.random.seed(7), x)[1],
    "Python": lambda net, x: (random.seed(7), x)[1],
}


@pytest.mark.parametrize("kind", SEEDING)
def test_a_model_that_seeds_is_told_and_the_users_numbers_are_left_alone(kind):
    model = Net(SEEDING[kind]).eval()
    for generator in (torch.manual_seed, np.random.seed, random.seed):
        generator(123)
    wanted = float(torch.rand(())), np.random.random(), random.random()
    for generator in (torch.manual_seed, np.random.seed, random.seed):
        generator(123)
    for _ in range(2):  # the second time by what is known
        told("seeds the random numbers of the process.*no longer independent", model)
    assert (float(torch.rand(())), np.random.random(), random.random()) == wanted


TORCH_MIXED = {
    "batch statistics": lambda: Net(
        lambda net, x: net.parts["norm"](x), norm=nn.BatchNorm1d(8, track_running_stats=False)
    ),
    "over the samples": lambda: Net(lambda net, x: x / x.std(0)),
    "the largest": lambda: Net(lambda net, x: x / x.abs().amax(0)),
    "the first": lambda: Net(lambda net, x: x - x[:1]),
    "in another order": lambda: Net(lambda net, x: x[torch.argsort(x[:, 0])]),
    "attention": lambda: Net(lambda net, x: torch.softmax(x @ x.T, 1) @ x),
    "a recurrence": lambda: Net(lambda net, x: net.parts["rnn"](x)[0], rnn=nn.GRU(8, 8)),
}


@pytest.mark.parametrize("kind", TORCH_MIXED)
def test_a_torch_model_that_mixes_its_samples(kind):
    result = told(rf"{MIXED}.*batch statistics.*inputs=x\[:1\]", TORCH_MIXED[kind]().eval())
    assert result.provenance["function"].startswith(MIXED)


class Rounded(nn.Module):
    """In the middle, rounded to 127 steps of the largest value of all samples, as dynamic quantisation does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(60, 40), nn.Linear(40, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return self.last(torch.round(x / x.max() * 127) * (x.max() / 127))


@pytest.mark.parametrize("seed", range(4))
def test_a_range_that_is_taken_from_the_batch(seed):
    """A sample within the range of the first one would change nothing, so the other one lies far beyond."""
    rows = np.random.default_rng(seed).normal(size=(1, 60)).astype(np.float32)
    told(MIXED, Rounded().eval(), rows, method="feature_ablation")


def test_a_normalisation_that_stays_in_training_mode():
    class Stubborn(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Stubborn:
            return super().train(True)

    model = Net(lambda net, x: net.parts["norm"](x), norm=Stubborn(8))
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(cfi.ModelWarning, match="Part of the model stays in training mode"):
        told(f"{MIXED}.*'parts.norm'.*'parts.norm.running_mean'.*{WRITTEN}", model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def clamp(net: Net, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        net.last.weight.clamp_(-0.1, 0.1)
    return x


def scale_data(net: Net, x: torch.Tensor) -> torch.Tensor:
    net.last.weight.data.mul_(1.01)
    return x


def replace_data(net: Net, x: torch.Tensor) -> torch.Tensor:
    net.last.weight.data = net.last.weight.data * 1.01
    return x


@pytest.mark.parametrize("write", [clamp, scale_data, replace_data], ids=lambda write: write.__name__)
@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "feature_ablation"])
def test_weights_that_a_torch_model_writes_to_are_its_own_again(write, method):
    model = Net(write).eval()
    weight, values = model.last.weight, model.last.weight.detach().clone()
    for _ in range(2):  # once found, once known
        told(f"'last.weight' {WRITTEN}", model, method=method)
        assert model.last.weight is weight
        assert torch.equal(weight, values)


def test_a_function_at_the_address_of_one_that_is_gone_makes_another_model():
    """As when a cell is run again with another function: before, what had been found of the first one was told."""
    for number in range(5):
        untold(Net(lambda net, x, number=number: x + 0 * number).eval())
        told(MIXED, Net(lambda net, x, number=number: x - x.mean(0) + 0 * number).eval())


def test_buffers_and_numbers_that_a_torch_model_counts_with():
    model = Net(count).eval()
    told(f"'count' {WRITTEN}", model)
    assert model.count == 0
    model = Net(grow).eval()
    told(f"'calls' {WRITTEN}", model)
    assert model.calls == 0


def test_weights_behind_a_function_and_of_translated_models_and_listed_layers_too():
    model = Net(scale_data).eval()
    values = model.last.weight.detach().clone()
    told(f"'Net.last.weight' {WRITTEN}", lambda x: model(x), torch.tensor(ROWS))
    cfi.layers(model, ROWS)
    with pytest.raises(cfi.CFIError):
        cfi.attribute(model, "saliency", "captum", inputs=ROWS, target=99)
    assert torch.equal(model.last.weight, values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("samples", [1, 3])
def test_honest_torch_models(dtype, samples):
    images = torch.randn(samples, 3, 16, 12)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.LazyLinear(4),
    )
    model(images)
    result = untold(model.eval().to(dtype), images)
    assert result.provenance["function"] == "a function of each sample"


def test_torchscript():
    model = torch.jit.script(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval())
    for toolset in ("captum", "tf-keras-vis"):
        assert untold(model, toolset=toolset).provenance["function"] == "a function of each sample"


def test_a_model_of_packed_sequences_that_are_sorted():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.last = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            return self.last(self.rnn(packed)[1][0])

    sequences = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)
    held = {"additional_forward_args": torch.tensor([5, 4, 2])}
    with warnings.catch_warnings():
        warnings.simplefilter("error", cfi.CFIWarning)
        result = cfi.attribute(Packed().eval(), "saliency", "captum", inputs=sequences, target=1, exec_args=held)
    assert result.provenance["function"] == "a function of each sample"


# Keras and TensorFlow


class KerasNet(keras.Model):
    """One layer, and something before it."""

    def __init__(self, before: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.before, self.last, self.calls = before, layers.Dense(3, name="last"), 0
        self.noise, self.norm = layers.GaussianNoise(0.1, name="noise"), layers.BatchNormalization(name="norm")
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")
        self.other = tf.Variable(1.0, name="other")
        self(ROWS)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.last(self.before(self, x))


def keras_state(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in (*model.variables, model.other)] + [np.array(model.calls)]


def add_one(net: KerasNet, x: Any) -> Any:
    net.count.assign_add(1.0)
    return x


def use_count(net: KerasNet, x: Any) -> Any:
    net.count.assign_add(1.0)
    return x * net.count


def use_other(net: KerasNet, x: Any) -> Any:
    net.other.assign_add(1.0)
    return x * net.other


def use_calls(net: KerasNet, x: Any) -> Any:
    net.calls += 1
    return x * net.calls


KERAS_KINDS = {
    "noise": (lambda net, x: net.noise(x, training=True), f"{RANDOM}.*'noise'.*seed="),
    "random numbers": (lambda net, x: x + keras.random.normal((1,)), RANDOM),
    "a count that is used": (use_count, f"{RANDOM}.*/count' {WRITTEN}"),
    "a variable of TensorFlow's": (use_other, f"{RANDOM}.*'other' {WRITTEN}"),
    "a number": (use_calls, f"{RANDOM}.*'calls' {WRITTEN}"),
    "a count": (add_one, f"/count' {WRITTEN}"),
    "batch statistics": (lambda net, x: net.norm(x, training=True), f"{MIXED}.*'norm'.*moving_mean.*{WRITTEN}"),
    "over the samples": (lambda net, x: x - ops.mean(x, 0, keepdims=True), MIXED),
}


@pytest.mark.parametrize("kind", KERAS_KINDS)
def test_a_keras_model(kind):
    before, message = KERAS_KINDS[kind]
    model = KerasNet(before)
    state = keras_state(model)
    # A bridge refuses what is random, after it was told.
    refused = pytest.raises(cfi.UnfaithfulTranslationError) if RANDOM in message else nullcontext()
    with pytest.warns(cfi.ModelWarning, match=message), refused:
        cfi.attribute(model, "feature_ablation", "captum", inputs=ROWS, target=1)
    for before, after in zip(state, keras_state(model), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_keras_model_natively():
    inputs = keras.Input((6,))
    outputs = layers.Dense(3)(layers.Lambda(lambda x: x * ops.mean(x, 0, keepdims=True), output_shape=(6,))(inputs))
    model = keras.Model(inputs, outputs)
    with pytest.warns(cfi.ModelWarning, match=MIXED):
        cfi.attribute(model, "smooth_grad", "tf-keras-vis", inputs=ROWS, target=1)


def test_honest_keras_models():
    rows = keras.Input((6,))
    x = layers.BatchNormalization()(layers.Dropout(0.5)(layers.Dense(8)(layers.GaussianNoise(0.1)(rows))))
    model = keras.Model(rows, layers.Dense(3)(x))
    assert untold(model, toolset="tf-keras-vis").provenance["function"] == "a function of each sample"
    fixed = keras.Sequential([keras.Input(batch_shape=(3, 4, 6)), layers.LSTM(5), layers.Dense(3)])
    sequences = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    assert untold(fixed, sequences).provenance["function"] == "a function of each sample"


def test_a_module_of_tensorflow():
    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.count = tf.Variable(np.eye(6, 3, dtype=np.float32)), tf.Variable(0.0, name="count")

        def __call__(self, x: Any) -> Any:
            self.count.assign_add(1.0)
            return x @ self.weight

    module = Module()
    told(f"'count' {WRITTEN}", module)
    told(f"'count' {WRITTEN}", lambda x: module(x), tf.constant(ROWS))
    assert module.count.numpy() == 0


# functions, and models of a fixed number of samples

CALLABLES = {
    "noise": (lambda x: x[:, :3] + np.random.normal(size=3), RANDOM),
    "over the samples": (lambda x: (x - x.mean(0))[:, :3], MIXED),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_a_function_of_arrays(kind):
    function, message = CALLABLES[kind]
    refused = pytest.raises(cfi.UnfaithfulTranslationError) if message == RANDOM else nullcontext()
    with pytest.warns(cfi.ModelWarning, match=message), refused:
        cfi.attribute(function, "feature_ablation", "captum", inputs=ROWS, target=1)


def test_functions_of_tensors():
    told(RANDOM, lambda x: x[:, :3] * torch.randn(()), torch.tensor(ROWS))
    told(MIXED, lambda x: (x / x.std(0))[:, :3], torch.tensor(ROWS))
    told(MIXED, lambda x: (x - tf.reduce_mean(x, 0))[:, :3] * x[:, :3], tf.constant(ROWS))
    untold(lambda x: x[:, :3] * 2, torch.tensor(ROWS))


def onnx_model(samples: int, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (samples, 6))
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (samples, 6))
    graph = helper.make_graph(list(nodes), "graph", [given], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("samples", [1, 3, 8])
def test_onnx_models_of_a_fixed_number_of_samples(samples):
    model = onnx_model(samples, helper.make_node("Tanh", ["x"], ["y"]))
    assert untold(model, method="feature_ablation").provenance["function"] == "a function of each sample"


def test_an_onnx_model_of_a_fixed_number_that_mixes_its_samples():
    mean = helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1)
    model = onnx_model(2, mean, helper.make_node("Sub", ["x", "m"], ["y"]))
    told(MIXED, model, ROWS[:2], method="feature_ablation")
