"""Models as people have them: wrapped, quantised, exported, scripted; and what is said where one has no gradient."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
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


def test_a_forward_pass_by_keyword_alone_is_told(cnn: nn.Sequential, images: torch.Tensor) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = cnn

        def forward(self, *, image: torch.Tensor) -> torch.Tensor:
            return self.net(image)

    with pytest.raises(cfi.InputError, match=r"by name: pass inputs={'image': …}"):
        cfi.layers(Named(), images)
    assert cfi.layers(Named(), {"image": images})[0].name == "net"


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
def test_exported_programs_keep_their_layers(blocks: Blocks, images: torch.Tensor, free: bool, of_module: bool) -> None:
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


# methods, partial calls, copies on several devices, compilation


class Encoder(nn.Module):
    """Has more than one way to be run."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_cnn()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.net(x)

    def encode(self, image: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """The scaled scores."""
        return scale * self.net(image)


@pytest.mark.parametrize(
    ("make", "factor"),
    [
        (lambda model: model.encode, 1),
        (lambda model: partial(model.encode, scale=2.0), 2),
        (lambda model: partial(partial(model.encode, scale=2.0), scale=3.0), 3),
        (lambda model: partial(Encoder.encode, model), 1),
        (lambda model: partial(model), -1),
        (lambda model: model.forward, -1),
    ],
)
def test_methods_of_modules_are_modules_with_layers(
    make: Callable[[Encoder], Any], factor: float, images: torch.Tensor
) -> None:
    encoder = Encoder().eval()
    model = ADAPTER.load(make(encoder))
    assert ADAPTER.layer_name(model, encoder.net[2]) == "net.2"
    np.testing.assert_array_equal(ADAPTER.outputs(ADAPTER.twin(model), [images]), factor * encoder.net(images).detach())
    assert ADAPTER.fingerprint(ADAPTER.load(make(encoder))) == ADAPTER.fingerprint(model)


def test_a_method_keeps_the_names_of_its_inputs_and_the_mode_of_its_module() -> None:
    encoder = Encoder()
    assert ADAPTER.input_names(ADAPTER.load(encoder.encode)) == ("image", "scale")
    assert ADAPTER.input_names(ADAPTER.load(partial(encoder.encode, scale=2.0))) == ("image",)
    assert ADAPTER.in_training_mode(ADAPTER.load(encoder.encode))
    assert not ADAPTER.in_training_mode(ADAPTER.twin(ADAPTER.load(encoder.encode)))


def test_a_method_of_a_module_that_was_changed_by_hand_stays_a_function(images: torch.Tensor) -> None:
    encoder = Encoder().eval()
    encoder.register_forward_hook(lambda module, given, output: output + 1)
    model = ADAPTER.load(encoder.encode)
    assert ADAPTER.layers(model) == ()
    np.testing.assert_array_equal(ADAPTER.outputs(model, [images]), encoder.encode(images).detach())


@pytest.fixture
def alone(tmp_path: Any) -> Iterator[None]:
    """A group of one process."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("wrap", [nn.DataParallel, nn.parallel.DistributedDataParallel])
@pytest.mark.parametrize("inner", [False, True])
def test_what_runs_copies_in_parallel_runs_one(
    wrap: Callable[[nn.Module], nn.Module], inner: bool, cnn: nn.Sequential, images: torch.Tensor
) -> None:
    wrapped = wrap(copy.deepcopy(cnn))
    name, users = ("0.module.2", nn.Sequential(wrapped)) if inner else ("module.2", wrapped)
    model = ADAPTER.load(users.eval())
    twin = ADAPTER.twin(model)
    parallel = nn.DataParallel | nn.parallel.DistributedDataParallel
    assert not any(isinstance(module, parallel) for module in twin.modules())
    assert ADAPTER.layer_name(model, users.get_submodule(name)) == name
    np.testing.assert_array_equal(ADAPTER.outputs(twin, [images]), cnn(images).detach())
    assert next(twin.parameters()) is next(users.parameters())


def test_layers_of_a_compiled_model_go_by_either_name(cnn: nn.Sequential) -> None:
    model = ADAPTER.load(torch.compile(cnn, backend="eager"))
    assert ADAPTER.layer_name(model, "_orig_mod.2") == ADAPTER.layer_name(model, "2") == "2"
    cnn[2] = torch.compile(cnn[2], backend="eager")  # type: ignore[assignment]
    assert ADAPTER.layer_name(cnn, cnn[2]) == ADAPTER.layer_name(cnn, cnn[2]._orig_mod) == "2"


def test_an_offloaded_model_brings_its_weights(
    cnn: nn.Sequential, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, kept = cnn(images).detach().numpy(), cnn[5].weight

    def remove_hook_from_module(module: Any, recurse: bool) -> None:
        """As accelerate has it: the weights come back to where the hook was."""
        assert recurse
        module[5].weight = kept
        del module[5]._hf_hook

    hooks = SimpleNamespace(remove_hook_from_module=remove_hook_from_module)
    monkeypatch.setitem(sys.modules, "accelerate.hooks", hooks)
    cnn[5]._hf_hook = SimpleNamespace(hooks=[SimpleNamespace(offload=True)])  # type: ignore[assignment]
    cnn[5].weight = nn.Parameter(kept.to("meta"))
    model = ADAPTER.load(cnn)
    np.testing.assert_array_equal(ADAPTER.outputs(ADAPTER.twin(model), [ADAPTER.tensor(images, model)]), expected)
    assert cnn[5].weight.is_meta
    assert ADAPTER.fingerprint(model) != ADAPTER.fingerprint(model)
