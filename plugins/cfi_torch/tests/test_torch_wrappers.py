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


# exported programs


class Blocks(nn.Module):
    """Layers inside layers, one that is called twice, a residual path, an operation between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.twice = nn.Tanh()
        self.head = nn.Linear(4 * 36, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.stem(image))
        x = self.twice(x + self.block(x))
        return self.head(x.flatten(1))


@pytest.fixture
def blocks() -> Blocks:
    torch.manual_seed(0)
    return Blocks().eval()


@pytest.mark.parametrize("free", [True, False], ids=["any number of samples", "three samples"])
@pytest.mark.parametrize("of_module", [True, False], ids=["module", "program"])
def test_exported_programs_keep_their_layers(
    blocks: Blocks, images: torch.Tensor, free: bool, of_module: bool
) -> None:
    shapes = ({0: torch.export.Dim.DYNAMIC},) if free else None
    program: Any = torch.export.export(blocks, (images,), dynamic_shapes=shapes)
    program = program.module() if of_module else program
    model = ADAPTER.load(program)
    assert [layer.name for layer in ADAPTER.layers(model)] == ["stem", "twice", "block", "block.0", "block.1", "head"]
    assert ADAPTER.load(program) is model
    expected = ADAPTER.activations(ADAPTER.twin(blocks), [images])
    given = ADAPTER.activations(ADAPTER.twin(model), [images])
    assert set(given) == set(expected) == {"stem", "block", "block.0", "block.1", "head"}
    for name, value in expected.items():
        np.testing.assert_array_equal(given[name], value)
    for batch in (images, images[:1], torch.cat([images, images[:2]])):
        np.testing.assert_allclose(ADAPTER.outputs(ADAPTER.twin(model), [batch]), blocks(batch).detach(), rtol=1e-5)
    assert not ADAPTER.in_training_mode(model)
    assert ADAPTER.input_names(model) == ("image",)


class Baked(nn.Module):
    """Has its number of samples built in when it is exported."""

    def __init__(self, net: nn.Module, mixes: bool = False) -> None:
        super().__init__()
        self.net, self.mixes = net, mixes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.net(x).reshape(3, 5)
        return outputs - outputs.mean(0) if self.mixes else outputs


def test_a_program_for_a_number_of_samples_runs_in_portions(cnn: nn.Sequential, images: torch.Tensor) -> None:
    model = ADAPTER.load(torch.export.export(Baked(cnn), (images,)))
    batch = torch.rand(7, 3, 8, 8)
    cotangent = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    outputs, (gradient,) = ADAPTER.vjp(ADAPTER.twin(model), [batch], [cotangent])
    expected, (wanted,) = ADAPTER.vjp(ADAPTER.twin(cnn), [batch], [cotangent])
    np.testing.assert_allclose(outputs[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_samples_that_influence_each_other_have_no_portions(cnn: nn.Sequential, images: torch.Tensor) -> None:
    model = ADAPTER.load(torch.export.export(Baked(cnn, mixes=True), (images,)))
    with pytest.raises(cfi.InputError, match="one sample changes the result of another"):
        ADAPTER.outputs(ADAPTER.twin(model), [images[:2]])
    np.testing.assert_array_equal(ADAPTER.outputs(model, [images]), Baked(cnn, mixes=True)(images).detach())


def test_a_program_takes_samples_of_its_own_shape_only(images: torch.Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    model = ADAPTER.load(torch.export.export(net, (images,)))
    with pytest.raises(cfi.InputError, match="exported for samples of shape"):
        ADAPTER.outputs(model, [torch.rand(2, 3, 9, 9)])


def test_an_exported_sequence_model_keeps_its_axis_of_channels() -> None:
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).eval()
    model = ADAPTER.load(torch.export.export(net, (torch.rand(2, 3, 8),)))
    assert ADAPTER.channel_axis(model, (2, 3, 8)) == ADAPTER.channel_axis(net, (2, 3, 8)) == 1


def test_a_program_whose_weights_were_changed_is_opened_anew(cnn: nn.Sequential, images: torch.Tensor) -> None:
    module: Any = torch.export.export(cnn, (images,)).module()
    before = ADAPTER.outputs(ADAPTER.load(module), [images])
    with torch.no_grad():
        module.get_submodule("5").bias += 1
    np.testing.assert_allclose(ADAPTER.outputs(ADAPTER.load(module), [images]), before + 1, rtol=1e-5)
    module.get_submodule("5").bias = nn.Parameter(torch.full((5,), 7.0))
    changed = ADAPTER.outputs(ADAPTER.load(module), [images])
    np.testing.assert_array_equal(changed, module(images).detach())
