"""Conversions of the zoo are faithful, and every layer is found again."""

from __future__ import annotations

import pytest
from conversion_zoo import KERAS_CONVERSIONS, TORCH_CONVERSIONS, Row, keras_row, torch_row

IN_EVERY_RUN = {
    "torch": (
        "resnet18",
        "shufflenet_v2_x0_5",
        "vision_transformer",
        "two inputs, two outputs",
        "1-D convolutions",
        "GRU",
    ),
    "keras": ("MobileNet", "vision transformer", "two inputs, two outputs", "LSTM", "nested", "softmax inside"),
}


def selected(side: str, cases: dict) -> list:
    return [name if name in IN_EVERY_RUN[side] else pytest.param(name, marks=pytest.mark.zoo) for name in cases]


def check(row: Row) -> None:
    assert row.verdict == "faithful", row
    assert row.outputs <= 1e-5 or row.in_double <= 1e-7, row
    assert row.of > 0 and not row.missing, row
    assert row.kept, f"{row.name} is not the same from files"


@pytest.mark.parametrize("name", selected("torch", TORCH_CONVERSIONS))
def test_torch_model_in_keras(name: str) -> None:
    row = torch_row(name)
    check(row)
    assert row.route == "torch-export, onnx-keras"


@pytest.mark.parametrize("name", selected("keras", KERAS_CONVERSIONS))
def test_keras_model_in_torch(name: str) -> None:
    row = keras_row(name)
    check(row)
    assert row.route == "keras-torch"
