"""Functions as torch models, tensors that cross to and from torch, and where torch models hold their channels."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cfi_core.errors import InputError, LayerError
from cfi_torch.adapter import TorchAdapter

ADAPTER = TorchAdapter()


# functions


class Scorer:
    """No module, but it has one."""

    def __init__(self) -> None:
        self.net = nn.Linear(3, 2)

    def score(self, x: Tensor) -> Tensor:
        return self.net(x).tanh()


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_functions_of_every_kind() -> None:
    weight, scorer = torch.randn(2, 3), Scorer()

    def closed(x: Tensor) -> dict[str, Tensor]:
        return {"y": (x @ weight.T) ** 2}

    scripted = torch.jit.script(_scripted)
    x = torch.randn(4, 3)
    for function, expected in {
        closed: 2 * (x @ weight.T) @ weight,
        functools.partial(torch.mul, torch.full((3,), 5.0)): torch.full((4, 3), 5.0),
        scorer.score: (1 - scorer.score(x).detach() ** 2) @ scorer.net.weight.detach(),
        scripted: 3 * x**2,
    }.items():
        model = ADAPTER.load(function)
        assert isinstance(model, nn.Module) and ADAPTER.load(model) is model
        assert ADAPTER.layers(model) == () == ADAPTER.layers(model, [x])
        runner = ADAPTER.runner(ADAPTER.twin(model), [x])
        (y,), pull = runner.linearize(0, [x])
        torch.testing.assert_close(pull([torch.ones_like(y)], [True])[0], expected)
        (recorded,), (at_input,) = ADAPTER.vjp(model, [x], [np.ones(y.shape, np.float32)])
        np.testing.assert_array_equal(recorded, y)
        np.testing.assert_allclose(at_input, expected, rtol=1e-5, atol=1e-6)
        with pytest.raises(LayerError, match="no layer 'net'"):
            ADAPTER.runner(model, [x], ["net"])


def _scripted(x: Tensor) -> Tensor:
    return x**3


def test_the_twin_of_a_function_calls_the_very_same() -> None:
    class Unlike:
        def __call__(self, x: Tensor) -> Tensor:
            return x

        def __deepcopy__(self, memo: dict) -> Any:
            raise RuntimeError("not to be copied")

    function = Unlike()
    model = ADAPTER.load(function)
    twin = ADAPTER.twin(model)
    assert twin is not model and twin.function is function
    assert ADAPTER.fingerprint(model) != ADAPTER.fingerprint(model), "its contents may have changed"


def test_a_softmax_at_the_end_of_a_function_is_found() -> None:
    x = torch.randn(2, 3)
    model = ADAPTER.load(lambda x: torch.softmax(x * 2, 1))
    logits = ADAPTER.without_softmax(ADAPTER.twin(model), [x])
    np.testing.assert_allclose(ADAPTER.outputs(logits, [x]), x * 2)


def test_arrays_for_a_function_take_the_type_of_the_module_that_it_calls() -> None:
    net = nn.Linear(3, 2).double().eval()
    assert ADAPTER.tensor(np.zeros((1, 3), np.float32), ADAPTER.load(lambda x: net(x))).dtype is torch.float64
    assert ADAPTER.tensor(np.zeros((1, 3), np.float32), ADAPTER.load(lambda x: x)).dtype is torch.float32


def test_modules_in_training_mode_behind_a_function_are_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    for function in (lambda x: net(x), functools.partial(lambda module, x: module(x), net)):
        with pytest.raises(InputError, match=r"Sequential in training mode: its '1'.*\.eval\(\)"):
            ADAPTER.load(function)
    net.eval()
    assert not ADAPTER.in_training_mode(ADAPTER.load(lambda x: net(x)))


def test_what_is_no_model_is_refused() -> None:
    for thing in (3, "resnet18", nn.Linear):
        with pytest.raises(InputError, match="is no model"):
            ADAPTER.load(thing)


# tensors


def test_sharing_copies_only_what_does_not_lie_row_by_row() -> None:
    tensor = torch.randn(2, 3, requires_grad=True)
    shared = ADAPTER.share(tensor)
    assert shared.data_ptr() == tensor.data_ptr() and not shared.requires_grad
    assert np.from_dlpack(shared).ctypes.data == tensor.data_ptr()
    turned = ADAPTER.share(tensor.T)
    assert turned.is_contiguous() and torch.equal(turned, tensor.detach().T)


def test_adopting_shares_memory_where_it_can() -> None:
    model = nn.Linear(3, 2)
    array = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    assert ADAPTER.adopt(array, model).data_ptr() == array.ctypes.data
    array.flags.writeable = False
    np.testing.assert_array_equal(ADAPTER.adopt(array, model), array)
    for other in (array.astype(">f4"), np.arange(3) > 1, np.arange(3, dtype=np.uint16), array.T[::-1], np.float32(3)):
        np.testing.assert_array_equal(ADAPTER.adopt(np.asarray(other), model).numpy(), other)
    assert ADAPTER.adopt(torch.ones(1, requires_grad=True), model).requires_grad is False


# channels


def test_a_linear_layer_on_images_as_wide_as_it_has_features() -> None:
    """Sizes tell nothing where height, width and features are alike; the kind of the layer does."""

    class Permuting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mix, self.norm = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), nn.GroupNorm(2, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.mix(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    model = Permuting()
    axes = {name: ADAPTER.channel_axis(model, (1, 8, 8, 8), layer=name) for name in ("conv", "mix", "norm")}
    assert axes == {"conv": 1, "mix": 3, "norm": 1}


# compiled and exported models


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("compile_model", [torch.jit.script, lambda model: torch.jit.freeze(torch.jit.script(model))])
def test_scripted_and_frozen_models_run_and_their_layers_are_refused(compile_model: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    scripted, x = ADAPTER.load(compile_model(model)), torch.randn(5, 3)
    twin = ADAPTER.twin(scripted)
    np.testing.assert_allclose(ADAPTER.outputs(twin, [x]), model(x).detach(), rtol=1e-6)
    assert not ADAPTER.in_training_mode(scripted) and ADAPTER.layers(scripted) == ()
    with pytest.raises(LayerError, match=r"Pass the nn.Module that it was made from"):
        ADAPTER.layer_name(scripted, "0")


def test_an_exported_program_is_the_module_that_it_holds() -> None:
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    loaded = ADAPTER.load(exported)
    np.testing.assert_allclose(ADAPTER.outputs(ADAPTER.twin(loaded), [x[:3]]), model(x[:3]).detach(), rtol=1e-6)
    assert ADAPTER.fingerprint(loaded) == ADAPTER.fingerprint(ADAPTER.load(exported))


class ConvolvedByFunction(nn.Module):
    """Convolves a series with a kernel of its own."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 2, 5))

    def forward(self, x):
        return nn.functional.conv1d(x, self.kernel).mean(-1)


class Placed(nn.Module):
    """Adds embeddings of the places to those of tokens."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.ones(1, 7, 4))

    def forward(self, x):
        return (x + self.places).mean(1)


def test_series_that_a_function_convolves_have_their_channels_first():
    assert ADAPTER.channel_axis(ConvolvedByFunction(), (3, 2, 160)) == 1
    assert ADAPTER.channel_axis(Placed(), (3, 7, 4)) == 2
