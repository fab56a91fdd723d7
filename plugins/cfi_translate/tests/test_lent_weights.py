"""Weights on their way from torch to Keras: held once, copied once, and nobody else's afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import cfi_core as cfi
from cfi_core.contract import Converted
from cfi_core.records import Route
from cfi_core.registry import registry
from cfi_core.translation.conversion import convert_along
from cfi_translate.onnx_keras.weights import _copy
from cfi_translate.program import LARGE, Lent, unpack
from cfi_translate.torch_export import translation

SIDE = 160  # more than LARGE in a square


class Many(nn.Module):
    """Large weights of every kind: kernels, matrices of products, tables, and constants that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 128, 3)
        self.dense = nn.Linear(128 * 2 * 3, SIDE)
        self.matrix = nn.Parameter(torch.randn(SIDE, SIDE) / SIDE)
        self.turned = nn.Parameter(torch.randn(SIDE, SIDE) / SIDE)
        self.added = nn.Parameter(torch.randn(SIDE, SIDE))
        self.other = nn.Parameter(torch.randn(SIDE, SIDE) / SIDE)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = self.dense(torch.flatten(torch.relu(self.conv(images)), 1))
        rows = flat[:, :, None] * self.added
        return (rows @ self.other).mean(1) + flat @ self.matrix + flat @ self.turned.T


@pytest.fixture
def model() -> Many:
    torch.manual_seed(0)
    return Many().eval()


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 16, 4, 5)).astype(np.float32)


def to_keras(model: nn.Module, inputs: np.ndarray) -> Converted:
    route = Route(tuple(registry().translators[one] for one in ("torch-export", "onnx-keras")))
    return convert_along(route, model, (inputs,))


def outputs(made: Converted, inputs: np.ndarray) -> np.ndarray:
    axes = made.input_axes[0]
    return np.asarray(made.model(inputs if axes is None else inputs.transpose(axes)))


def test_a_trained_model_leaves_its_conversion_alone(model: Many, inputs: np.ndarray) -> None:
    made = to_keras(model, inputs)
    expected = model(torch.tensor(inputs)).detach().numpy().copy()
    np.testing.assert_allclose(outputs(made, inputs), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    np.testing.assert_allclose(outputs(made, inputs), expected, rtol=1e-4, atol=1e-4)


def test_the_graph_between_holds_no_large_weight(
    model: Many, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    real = translation._write

    def seen(captured: Any) -> Any:
        written.append(real(captured))
        return written[-1]

    monkeypatch.setattr(translation, "_write", seen)
    to_keras(model, inputs)
    (graph,) = written
    large = [one for one in graph.graph.initializer if np.prod(one.dims) > LARGE]
    assert len(large) == 6
    assert all(not one.raw_data and one.data_location == TensorProto.EXTERNAL for one in large)


@pytest.mark.filterwarnings("ignore::cfi_core.ModelWarning")
def test_a_graph_for_the_user_holds_all_of_it(model: Many, inputs: np.ndarray) -> None:
    graph = cfi.translate(model, "onnx", inputs=inputs).model
    found = {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer}
    np.testing.assert_array_equal(found["matrix"], model.matrix.detach().numpy())


def test_what_is_lent_is_copied() -> None:
    own = np.arange(6.0).reshape(2, 3).T
    copied = unpack(Lent(own))
    assert copied.flags.c_contiguous and not np.shares_memory(copied, own)
    np.testing.assert_array_equal(copied, own)


@pytest.mark.parametrize("shape", [(3, 5), (700, 300), (257, 513), (1, 1)])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_matrices_are_copied_in_any_order(shape: tuple[int, int], ordered: bool, turned: bool) -> None:
    generator = np.random.default_rng(0)
    array = generator.normal(size=shape).astype(np.float32)
    array = np.asfortranarray(array) if turned else array
    order = generator.permutation(shape[0]) if ordered else None
    made = _copy(array, order)
    np.testing.assert_array_equal(made, array if order is None else array[order])
    assert made.flags.c_contiguous and made.ctypes.data % 64 == 0
