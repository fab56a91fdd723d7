"""Models as people have them: wrapped, quantised, exported, scripted; and what is said where one has no gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cfi_core as cfi
from cfi_torch.adapter import TorchAdapter
from cfi_torch.gradients import missing_gradient

ADAPTER = TorchAdapter()


def make_cnn() -> nn.Sequential:
    """A small classifier of 8 × 8 pixels, the same each time."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5)
    return nn.Sequential(*layers).eval()


@pytest.fixture
def cnn() -> nn.Sequential:
    return make_cnn()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Quantised(torch.Tensor):
    """A weight in whole numbers and their unit, as torchao's are: no bytes of it can be read."""

    values: torch.Tensor
    unit: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor, unit: torch.Tensor) -> Quantised:
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=unit.dtype)

    def __init__(self, values: torch.Tensor, unit: torch.Tensor) -> None:
        self.values, self.unit = values, unit

    def __tensor_flatten__(self) -> tuple[list[str], dict[str, Any]]:
        return ["values", "unit"], {"bits": 8}

    @classmethod
    def __tensor_unflatten__(cls, inner: dict[str, torch.Tensor], context: Any, *_: Any) -> Quantised:
        return cls(inner["values"], inner["unit"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return cls(args[0].values.clone(), args[0].unit.clone())
        raise NotImplementedError(f"{func} of a quantised weight")


class QuantisedLinear(nn.Module):
    """Gives what its dequantised weight gives."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        unit = weight.abs().amax() / 127
        self.weight = nn.Parameter(Quantised((weight / unit).round().to(torch.int8), unit), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight.values * self.weight.unit).T


def test_a_model_with_weights_that_are_subclasses_is_known_by_what_they_consist_of() -> None:
    model = QuantisedLinear(torch.rand(5, 4, generator=torch.Generator().manual_seed(0)))
    before = ADAPTER.fingerprint(model)
    assert ADAPTER.fingerprint(model) == before
    with torch.no_grad():
        model.weight.values[0, 0] += 1
    assert ADAPTER.fingerprint(model) != before
    assert ADAPTER.fingerprint(ADAPTER.twin(model)) == ADAPTER.fingerprint(model)


class Unrecorded(nn.Module):
    """Runs a part of itself without recording gradients."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.net(x)


class Outside(Unrecorded):
    """Leaves torch at its end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.net(x).detach().numpy() * 2)


def make_dynamic() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5)).eval()
    quantised: nn.Module = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    return quantised


def make_static() -> nn.Module:
    quantization = torch.ao.quantization
    model: Any = nn.Sequential(quantization.QuantStub(), *make_cnn(), quantization.DeQuantStub()).eval()
    model.qconfig = quantization.get_default_qconfig("x86")
    prepared = quantization.prepare(model)
    prepared(torch.rand(4, 3, 8, 8))
    converted: nn.Module = quantization.convert(prepared)
    return converted


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: Unrecorded(make_cnn()), "'net.0' (torch.nn.modules.conv.Conv2d)"),
        (lambda: Outside(make_cnn()), "the model's own code"),
        (make_dynamic, "'1' (torch.ao.nn.quantized.dynamic.modules.linear.Linear)"),
        (make_static, "'0' (torch.ao.nn.quantized.modules.Quantize)"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_where_a_gradient_is_lost_is_told(make: Callable[[], nn.Module], place: str, images: torch.Tensor) -> None:
    assert place in missing_gradient(ADAPTER.twin(make()), [images], ())


def test_a_gradient_that_is_there_is_not_missed(cnn: nn.Sequential, images: torch.Tensor) -> None:
    assert missing_gradient(ADAPTER.twin(cnn), [images], ()) == ""
    assert missing_gradient(ADAPTER.twin(cnn), [images], ("2",)) == ""
    front = nn.Sequential(Unrecorded(cnn[0]), *cnn[1:])
    assert "'0.net'" in missing_gradient(ADAPTER.twin(front), [images], ())
    assert missing_gradient(ADAPTER.twin(front), [images], ("2",)) == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_quantised_activations_are_read_as_what_they_mean(images: torch.Tensor) -> None:
    model = make_static()
    shapes = {layer.name: layer.output_shape for layer in cfi.layers(model, images)}
    assert shapes["1"] == (4, 6, 6)
    values = ADAPTER.activations(ADAPTER.twin(model), [images], ["1"])["1"]
    assert values.dtype == np.float32
    kept: dict[str, torch.Tensor] = {}
    handle = model[1].register_forward_hook(lambda module, given, output: kept.update(output=output))  # type: ignore[index]
    model(images)
    handle.remove()
    np.testing.assert_array_equal(values, kept["output"].dequantize().numpy())


def test_a_number_of_samples_that_is_built_in_is_told(cnn: nn.Sequential, images: torch.Tensor) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(cnn)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x).view(3, 5)

    with pytest.raises(cfi.InputError, match="It would take 3 samples"):
        cfi.layers(Fixed(), images[:2])
