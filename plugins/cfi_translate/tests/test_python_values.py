"""A model that decides in Python by values of its inputs: a trace knows one way, and it is said which line it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cfi_core as cfi
from cfi_translate.python_values import _Operations, watch_values

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


class Net(nn.Module):
    def __init__(self, forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.own = nn.Linear(4, 4), forward
        self.states = nn.LSTM(4, 4, batch_first=True)
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(self, x)


def branch(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.layer(x)
    if y.sum() > 0:  # the line
        return y * 2
    return y


def late(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.states(net.layer(x)[:, None])[0][:, 0]
    y[:, 0] = y[:, 1]
    return y * 2 if torch.equal(y, -y) else y  # the line


def factor(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.layer(x) / float(x.abs().max())  # the line


def count(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.layer(x) * (x > 9).long().sum().item()  # the line


def listed(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.layer(x) * sum(x[0].tolist())  # the line


def by_numpy(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.layer(x) * float(x.numpy().max())  # the line


def sizes(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.layer(x) * x.shape[1] if x.shape[0] > 1 and len(x) else x.reshape(x.size(0), -1)


def constants(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.layer(x) * net.factor.item() if bool(net.layer.weight.sum() > -100) and float(net.factor) > 1 else x
    return torch.where(y > 0, y, -y).clamp(min=float(net.factor) - 2)


@pytest.mark.parametrize("forward", [branch, late, factor, count, listed, by_numpy])
def test_the_line_is_named(forward: Callable[..., Any]) -> None:
    x = torch.tensor(X)
    with torch.no_grad(), watch_values([x]) as lines:
        Net(forward).eval()(x)
    (line,) = lines
    assert __file__ in line and line.endswith("# the line)")


@pytest.mark.parametrize("forward", [sizes, constants])
def test_sizes_and_constants_are_no_values(forward: Callable[..., Any]) -> None:
    x = torch.tensor(X)
    with torch.no_grad(), watch_values([x]) as lines:
        result = Net(forward).eval()(x)
    assert lines == [] and torch.isfinite(result).all()


@pytest.mark.parametrize("to", ["onnx", "tensorflow"])
def test_a_conversion_that_knows_one_branch_is_told(to: str) -> None:
    route = ["torch-onnx"] if to == "onnx" else ["torch-onnx", "onnx-keras"]
    model = Net(branch).eval()
    nn.init.constant_(model.layer.bias, 100)  # no sample of the certificate's goes the other way
    with pytest.warns(cfi.TranslationWarning, match=r"test_python_values\.py:\d+ \(if y\.sum\(\) > 0:.*torch\.where"):
        cfi.translate(model, to, inputs=X, translator=route)


def test_other_models_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", cfi.CFIWarning)
        cfi.translate(Net(sizes).eval(), "onnx", inputs=X, translator="torch-onnx")


def test_what_does_not_run_while_it_is_watched_is_exported_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no modes here")

    monkeypatch.setattr(_Operations, "__torch_dispatch__", fail)
    made = cfi.translate(Net(constants).eval(), "onnx", inputs=X, translator="torch-onnx")
    assert made.certificate.faithful
