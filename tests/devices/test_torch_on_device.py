"""A torch model on a device stays there, is explained there, and its explanations are those of the CPU."""

from __future__ import annotations

import random
import warnings
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from captum_models import IMAGE, SmallCNN
from test_captum_methods import RANDOM, _arguments, _directly, _seed
from torch import nn

import cfi_core as cfi
from cfi_captum.table import TUNNELLED

SAMPLES = 2
DETERMINISTIC = sorted(TUNNELLED.keys() - RANDOM)
SEEDED = sorted(RANDOM - {"layer_feature_permutation"})  # which captum itself cannot run


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(SAMPLES, *IMAGE)


def network(key: str) -> SmallCNN:
    model = SmallCNN(average=True, flatten_by_function="lrp" in key).eval()
    with torch.no_grad():
        model.fc2.weight *= 30  # so that LIME's own regularisation leaves something
    return model


def move(value: Any, device: torch.device) -> Any:
    """Tensors in own arguments are moved, as the user of a GPU would have them there."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return {name: move(entry, device) for name, entry in value.items()} if isinstance(value, dict) else value


def explain(key: str, model: nn.Module, x: Any, arguments: dict[str, Any]) -> cfi.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cfi.CFIWarning)
        found = cfi.attribute(model, key, "captum", inputs=x, target=target_of(key), seed=3, **arguments)
    assert isinstance(found, cfi.Attribution)
    return found


def target_of(key: str) -> int | None:
    return 1 if "target" in TUNNELLED[key].exec_args else None


def close(found: np.ndarray, expected: np.ndarray) -> None:
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("key", DETERMINISTIC)
def test_the_device_gives_what_the_cpu_gives(key: str, x: torch.Tensor, device: torch.device) -> None:
    model = network(key)
    there = deepcopy(model).to(device)
    arguments = _arguments(key, there)
    on_cpu = explain(key, model, x, {**arguments, **layer_of(arguments, there, model)})
    on_device = explain(key, there, x.to(device), move(arguments, device))
    assert isinstance(on_device.values, np.ndarray)
    close(on_device.values, on_cpu.values)
    assert on_cpu.dims == on_device.dims
    assert {value.device.type for value in there.state_dict().values()} == {device.type}


def layer_of(arguments: dict[str, Any], there: nn.Module, here: nn.Module) -> dict[str, Any]:
    """The layer of the model on the CPU that has the name of the other one's."""
    names = {module: name for name, module in there.named_modules()}
    return {"layer": here.get_submodule(names[arguments["layer"]])} if "layer" in arguments else {}


@pytest.mark.parametrize("key", SEEDED)
def test_seeded_methods_draw_what_captum_draws_there(key: str, x: torch.Tensor, device: torch.device) -> None:
    model, x = network(key).to(device), x.to(device)
    arguments = move(_arguments(key, model), device)
    _seed(3)
    expected = _directly(key, model, x, arguments)
    close(explain(key, model, x, arguments).values, expected.detach().cpu().numpy())


@pytest.mark.parametrize("key", ["saliency", "gradient_shap", "lime"])
def test_the_generators_are_where_they_were(key: str, x: torch.Tensor, device: torch.device) -> None:
    model = network(key).to(device)
    arguments = move(_arguments(key, model), device)
    torch.randn(3, device=device)
    before = states()
    explain(key, model, x.to(device), arguments)
    assert states() == before
    with pytest.raises(cfi.CFIError):
        explain(key, model, x.to(device), {**arguments, "exec_args": {"n_samples": object()}})
    assert states() == before


def states() -> list[bytes]:
    generators = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
    return [bytes(state.numpy()) for state in generators] + [repr((np.random.get_state(), random.getstate())).encode()]


def test_inputs_may_lie_anywhere(x: torch.Tensor, device: torch.device) -> None:
    model, key, steps = network("saliency").to(device), "integrated_gradients", {"n_steps": 5}
    expected = explain(key, on_the_cpu(model), x, {"baselines": x[:1], "exec_args": steps})
    for given in (x, x.numpy(), x.to(device)):
        found = explain(key, model, given, {"baselines": x.numpy()[:1], "exec_args": steps})
        close(found.values, expected.values)


def on_the_cpu(model: nn.Module) -> nn.Module:
    return deepcopy(model).cpu()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept(dtype: torch.dtype, x: torch.Tensor, device: torch.device) -> None:
    model = network("saliency").to(device, dtype)
    found = explain("saliency", model, x.to(dtype), {})
    assert found.values.shape == x.shape
    assert {value.dtype for value in model.state_dict().values()} == {dtype}
    reference = explain("saliency", on_the_cpu(model).double(), x.to(dtype).double(), {}).values
    assert np.linalg.norm(found.values - reference) <= 0.05 * np.linalg.norm(reference)


def test_a_target_may_lie_on_the_device(x: torch.Tensor, device: torch.device) -> None:
    model = network("saliency").to(device)
    classes = torch.tensor([3, 1], device=device)
    found = cfi.attribute(model, "saliency", "captum", inputs=x, target=classes)
    expected = cfi.attribute(on_the_cpu(model), "saliency", "captum", inputs=x, target=[3, 1])
    close(found.values, expected.values)


def test_a_function_of_tensors_is_explained_where_they_lie(x: torch.Tensor, device: torch.device) -> None:
    weight = torch.randn(5, *IMAGE, device=device)
    found = cfi.attribute(
        lambda t: torch.einsum("nchw,kchw->nk", t, weight), "saliency", "captum", inputs=x.to(device), target=2
    )
    close(found.values, np.broadcast_to(weight[2].cpu().numpy(), x.shape))
