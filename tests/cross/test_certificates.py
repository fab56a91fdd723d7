"""What is decided in double precision, with models of both frameworks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
from torch import nn

from cfi_core.adapters import adapter_for
from cfi_core.certificate import certify
from cfi_core.distance import Side, relative_difference
from cfi_core.registry import registry


def side(framework: str, model: Any) -> Side:
    return Side(adapter_for(registry(), framework), model)


def rows(samples: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(samples, 6)).astype(np.float32)


def doubled(model: Any) -> Any:
    return adapter_for(registry(), "tensorflow").in_double(model)


def test_a_fault_that_one_sample_shows_is_looked_at_there():
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    x = rows()
    given = torch.from_numpy(x)
    with torch.no_grad():
        size = 4 / first(given).abs().max()
        first.weight *= size
        first.bias *= size
        # One activation of sample 5 alone is lifted just above 6, by a change of its own input.
        direction = first.weight[0] / first.weight[0].square().sum()
        given[5] += direction * (6.001 - first(given)[5, 0])
        assert (first(given) > 6).nonzero().tolist() == [[5, 0]]
    right, wrong = (nn.Sequential(first, kind, last).eval() for kind in (nn.ReLU6(), nn.ReLU()))
    assert not certify(side("torch", right), side("torch", wrong), [x]).faithful
    assert certify(side("torch", right), side("torch", right), [x]).faithful


class Single(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        if gradient.dtype != torch.float32:
            raise RuntimeError("float32 only")
        return gradient


class Careful(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Single.apply(self.linear(x)) * self.scale


def test_a_model_that_refuses_double_precision_is_judged_without():
    one, other = Careful(1.0), Careful(1.00001)
    other.load_state_dict(one.state_dict())
    certificate = certify(side("torch", one), side("torch", other), [rows()])
    assert certificate.faithful and not certificate.in_double  # within the tolerances of single precision
    other.scale = 1.001
    assert not certify(side("torch", one), side("torch", other), [rows()]).faithful


class Chaotic(nn.Module):
    """Sums of large terms, by an activation function that turns their last digits into all of the output."""

    def __init__(self, order: np.ndarray, factor: float = 1e6) -> None:
        super().__init__()
        self.order, self.factor, self.shift = torch.from_numpy(order), factor, 0.0
        self.linear = nn.Linear(len(order), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        terms = x[:, self.order, None] * self.linear.weight.T[self.order] * self.factor
        return torch.sin(terms.sum(1)) + self.shift


def test_a_model_that_rounding_alone_decides_is_told_so():
    one, other = Chaotic(np.arange(400)), Chaotic(np.arange(400)[::-1].copy())
    other.load_state_dict(one.state_dict())
    samples = [np.random.default_rng(5).normal(size=(4, 400)).astype(np.float32)]
    faults = certify(side("torch", one), side("torch", other), samples).faults
    assert faults and all("in single precision your model's own outputs are wrong by" in fault for fault in faults)
    one.factor = other.factor = 1e3  # wrong by 1e-3 or less
    other.shift = 1.0
    faults = certify(side("torch", one), side("torch", other), samples).faults
    assert faults and not any("your model's own outputs" in fault for fault in faults)


@keras.saving.register_keras_serializable("tests")
class Scale(keras.layers.Layer):
    factor = 1.0

    def call(self, x: Any) -> Any:
        return x * self.factor


def test_a_copy_in_double_precision_is_the_model():
    normalization = keras.layers.Normalization()
    normalization.adapt(3 + 2 * rows(50))
    given = keras.Input((6,))
    x = keras.layers.Reshape((3, 2))(normalization(given))
    x = keras.layers.Bidirectional(keras.layers.LSTM(4))(x)
    model = keras.Model(given, keras.layers.Dense(3)(keras.ops.multiply(x, 2.0)))
    nodes = [len(one._inbound_nodes) for one in model.operations]
    double = doubled(model)
    assert [len(one._inbound_nodes) for one in model.operations] == nodes
    assert {weight.dtype for weight in double.weights if "float" in weight.dtype} == {"float64"}
    outputs = [np.asarray(double(rows().astype(np.float64))), np.asarray(model(rows()))]
    assert outputs[0].dtype == np.float64
    assert relative_difference(outputs[:1], outputs[1:]) < 1e-6
    own = adapter_for(registry(), "tensorflow").twin(model, share_weights=False)
    np.testing.assert_allclose(np.asarray(own(rows())), outputs[1], rtol=1e-6)


def test_no_copy_is_made_of_what_a_configuration_does_not_say():
    given = keras.Input((6,))
    plain = keras.Model(given, Scale(name="scale")(given))
    dense = keras.Model(given, keras.layers.Dense(3, name="dense")(given))
    assert doubled(dense) is not None
    plain.get_layer("scale").factor = 1.0005
    assert doubled(keras.Model(plain.inputs, keras.layers.Dense(2)(plain.outputs[0]))) is None
    call = dense.get_layer("dense").call
    dense.get_layer("dense").call = lambda x: call(x) * 1.0005
    assert doubled(dense) is None


def test_a_loaded_model_has_a_copy_in_double_precision_too(tmp_path):
    """Loading leaves attributes on layers that building them does not."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert relative_difference([model(rows()).numpy()], [doubled(loaded)(rows()).numpy()]) < 1e-6


def _graph_with(held: dict[str, Any]) -> Any:
    given = keras.Input((6,))
    x = keras.layers.Lambda(lambda x: x * held["by"], name="scale")(given)
    inner = keras.Model(given, keras.ops.clip(x, -1.0, 6.0))
    last = keras.Input((6,))
    return keras.Model(last, keras.layers.Dense(3, name="dense")(inner(last)))


def test_a_fingerprint_sees_what_functions_and_operations_hold():
    adapter = adapter_for(registry(), "tensorflow")
    held: dict[str, Any] = {"by": 2.0}
    model = _graph_with(held)
    marks = [adapter.fingerprint(model)]
    held["by"] = 3.0
    marks.append(adapter.fingerprint(model))
    clip = next(one for one in model.layers[1].operations if type(one).__name__ == "Clip")
    clip.x_max = 2.0
    marks.append(adapter.fingerprint(model))
    model.get_layer("dense").activation = keras.activations.relu
    marks.append(adapter.fingerprint(model))
    assert len(set(marks)) == 4 and adapter.fingerprint(model) == marks[-1]
