"""Over many architectures, a bridge gives what the model's own framework gives."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from bridge_zoo import Row, keras_row, torch_row
from keras_zoo import KERAS_CASES
from torch_zoo import TORCH_CASES

IN_EVERY_RUN = {
    "resnet18",
    "swin_t",
    "token LSTM",
    "token transformer",
    "two inputs, two outputs",
    "control flow",
    "MobileNetV2",
    "vision transformer",
    "segmentation",
    "nested",
    "subclassed",
}


def names(cases: Iterable[str]) -> list[object]:
    return [name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.zoo) for name in cases]


def check(row: Row) -> None:
    assert row.outputs <= 1e-6, row
    assert row.activations <= 1e-6, row
    assert row.input_gradients <= row.rounding, row
    assert row.layer_gradients <= row.rounding, row


@pytest.mark.parametrize("name", names(TORCH_CASES))
def test_torch_models_in_tensorflow(name: str) -> None:
    check(torch_row(name, TORCH_CASES[name]))


@pytest.mark.parametrize("name", names(KERAS_CASES))
def test_keras_models_in_torch(name: str) -> None:
    check(keras_row(name, KERAS_CASES[name]))
