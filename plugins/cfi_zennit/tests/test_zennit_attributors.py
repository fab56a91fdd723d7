"""Zennit's attributors against closed forms, and against Zennit called directly."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zennit import attribution, composites
from zennit_models import CLASSES, IMAGE, Plain, attribute, images, relevance, warned

import cfi_core as cfi
from cfi_zennit.table import METHODS


class Quadratic(nn.Module):
    """`f(x) = sum(a * x**2 + b * x)` for each class, whose gradient and path integral are known."""

    def __init__(self, size: int = 5) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(CLASSES, size)), nn.Parameter(torch.randn(CLASSES, size))

    def forward(self, x: Tensor) -> Tensor:
        return x**2 @ self.a.T + x @ self.b.T


def test_gradients() -> None:
    model, x = Quadratic().eval(), torch.randn(3, 5)
    expected = (2 * model.a[1] * x + model.b[1]).detach().numpy()
    np.testing.assert_allclose(relevance(model, "saliency", x), expected, rtol=1e-6)
    np.testing.assert_allclose(relevance(model, "input_x_gradient", x), expected * x.numpy(), rtol=1e-5)


@pytest.mark.parametrize("baseline", [None, 0.5, "array"])
def test_integrated_gradients(baseline: object) -> None:
    """Zennit adds up at the right ends of its steps: for a quadratic, half a step's increase too much."""
    model, x = Quadratic().double().eval(), torch.randn(3, 5, dtype=torch.float64)
    given = torch.randn(1, 5, dtype=torch.float64) if baseline == "array" else baseline
    start = torch.zeros(1, 5) if given is None else torch.as_tensor(given).expand(1, 5)
    found = relevance(model, "integrated_gradients", x, baselines=given, init_args={"n_iter": 50})
    step = (x - start) / 50
    mean_gradient = model.a[1] * (start + x + step) + model.b[1]
    np.testing.assert_allclose(found, ((x - start) * mean_gradient).detach().numpy(), rtol=1e-6)


def test_too_few_steps_are_told_with_where_to_say_more() -> None:
    model, x = Plain().eval(), images(dtype=torch.float32)
    found, said = warned(model, "integrated_gradients", x, init_args={"n_iter": 2})
    assert "pass init_args={'n_iter': " in said and found.provenance["completeness"]["gap"] > 0.1


def test_smooth_grad() -> None:
    """Of a quadratic, noise of mean zero averages out; with one sample there is none."""
    model, x = Quadratic().eval(), torch.randn(3, 5)
    gradient = (2 * model.a[1] * x + model.b[1]).detach().numpy()
    one = relevance(model, "smooth_grad", x, init_args={"n_iter": 1})
    np.testing.assert_allclose(one, gradient, rtol=1e-6)
    many = relevance(model, "smooth_grad", x, init_args={"n_iter": 400, "noise_level": 0.2}, seed=3)
    spread = 2 * model.a[1].abs().detach().numpy() * 0.2 * np.ptp(x.numpy(), axis=1, keepdims=True) / 20
    assert np.all(np.abs(many - gradient) < 5 * spread) and np.any(np.abs(many - gradient) > spread / 10)
    again = relevance(model, "smooth_grad", x, init_args={"n_iter": 400, "noise_level": 0.2}, seed=3)
    np.testing.assert_array_equal(many, again)


def test_smooth_grad_leaves_the_global_generator_alone() -> None:
    model, x = Plain().eval(), images(dtype=torch.float32)
    before = torch.get_rng_state()
    first = relevance(model, "smooth_grad", x, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    with ThreadPoolExecutor(4) as pool:
        calls = list(pool.map(lambda seed: relevance(model, "smooth_grad", x, seed=seed), [5, 6, 5, 7, 5, 8]))
    for values in calls[::2]:
        np.testing.assert_array_equal(values, first)
    assert not np.array_equal(calls[1], first)


def test_with_rules_from_several_threads() -> None:
    model, x = Plain().eval(), images(dtype=torch.float32)
    keys = ["lrp_epsilon_plus", "guided_backprop", "excitation_backprop", "lrp_epsilon_alpha2_beta1"] * 4
    expected = {key: relevance(model, key, x) for key in set(keys)}
    with ThreadPoolExecutor(4) as pool:
        for key, values in zip(keys, pool.map(lambda key: relevance(model, key, x), keys), strict=True):
            np.testing.assert_array_equal(values, expected[key])


def test_occlusion() -> None:
    """Of a linear model, covering a window takes away what the window contributes; averaged where windows overlap."""
    weight = torch.randn(CLASSES, *IMAGE)
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, CLASSES)).eval()
    model[1].weight.data.copy_(weight.reshape(CLASSES, -1))
    x, fill = images(dtype=torch.float32), 0.25
    window, stride = (2, 3, 4), (2, 2, 3)
    arguments = {"window": window, "stride": stride}
    found = relevance(model, "occlusion", x, baselines=fill, init_args=arguments)
    contributions = (weight[1] * (x - fill)).numpy()
    total, times = np.zeros(x.shape), np.zeros(x.shape)
    for row in (0, 2, 3):
        for column in (0, 3, 4):
            total[:, :, row : row + 3, column : column + 4] += contributions[
                :, :, row : row + 3, column : column + 4
            ].sum((1, 2, 3))[:, None, None, None]
            times[:, :, row : row + 3, column : column + 4] += 1
    np.testing.assert_allclose(found, total / times, rtol=1e-4, atol=1e-5)


def test_zennits_own_occlusion_goes_on_at_the_beginning_of_an_axis() -> None:
    """If this fails, `ScoreDrop` need not choose the windows itself."""
    model = nn.Sequential(nn.Linear(5, 1, bias=False)).eval()
    nn.init.ones_(model[0].weight)
    masks: list[Tensor] = []

    def remember(values: Tensor, mask: Tensor) -> Tensor:
        masks.append(mask)
        return values

    attribution.Occlusion(model, occlusion_fn=remember, window=(3,), stride=(3,))(torch.ones(1, 5))
    assert masks[-1].tolist() == [[True, False, False, True, True]]


DIRECT = {
    "saliency": (attribution.Gradient, {}),
    "smooth_grad": (attribution.SmoothGrad, {"noise_level": 0.2, "n_iter": 5}),
    "integrated_gradients": (attribution.IntegratedGradients, {"n_iter": 90}),
    "occlusion": (attribution.Occlusion, {"window": (2, 3, 4), "stride": (2, 3, 4)}),
}


@pytest.mark.parametrize("key", DIRECT)
def test_toolset_defaults_are_what_zennits_users_get(key: str) -> None:
    model, x = Plain().eval(), images(dtype=torch.float32)
    kind, settings = DIRECT[key]
    target = torch.eye(CLASSES)[[1, 1]]
    torch.manual_seed(11)
    start = (lambda output: output * target) if key == "occlusion" else target
    _, expected = kind(model=model, **settings)(x.clone(), start)
    found = relevance(model, key, x, defaults="toolset", init_args=settings, seed=11)
    if key == "occlusion":  # a sum over outputs that are zero but one
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5)
    else:
        np.testing.assert_array_equal(found, expected.detach().numpy())


@pytest.mark.parametrize("key", ["smooth_grad", "integrated_gradients"])
def test_attributors_take_composites(key: str) -> None:
    model, x = Plain().eval(), images(dtype=torch.float32)
    kind, settings = DIRECT[key]
    torch.manual_seed(2)
    _, expected = kind(model=model, composite=composites.EpsilonPlus(epsilon=0.1), **settings)(
        x.clone(), torch.eye(4)[[1, 1]]
    )
    for chosen, extra in ((composites.EpsilonPlus(epsilon=0.1), {}), ("epsilon_plus", {"epsilon": 0.1})):
        found = relevance(model, key, x, init_args={"composite": chosen, **extra, **settings}, seed=2)
        np.testing.assert_array_equal(found, expected.detach().numpy())


def test_the_tables_names_are_zennits() -> None:
    for method in METHODS.values():
        known = inspect.signature(getattr(attribution, method.attributor)).parameters
        own = {"noise_level", "n_iter", "baseline_fn", "occlusion_fn", "window", "stride"} & set(method.init_args)
        assert own <= set(known)


def test_several_inputs() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.stack([(x.sum(-1) * y).sum(1), x.sum((1, 2))], 1)

    model, x, y = Product().eval(), torch.randn(2, 3, 4), torch.randn(2, 3)
    of_x, of_y = attribute(model, "saliency", (x, y), target=0).values
    np.testing.assert_allclose(of_x, y[:, :, None].expand(2, 3, 4), rtol=1e-6)
    np.testing.assert_allclose(of_y, x.sum(-1), rtol=1e-5)
    found = attribute(model, "integrated_gradients", (x, y), target=0, init_args={"n_iter": 200})
    assert found.provenance["completeness"]["gap"] < 0.01
    for key in ("smooth_grad", "occlusion"):
        with pytest.raises(cfi.InputError, match="takes one input"):
            attribute(model, key, (x, y), target=0)


def test_beta_smooth_takes_its_parameter() -> None:
    """Earlier versions of Zennit ignored it."""
    model, x = Plain().double().eval(), images()
    softer = relevance(model, "beta_smooth", x, init_args={"beta_smooth": 1e-9})
    halved = x.clone().requires_grad_()

    def half(module: nn.Module, grad_input: object, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (grad_output[0] / 2,)

    handles = [part.register_full_backward_hook(half) for part in model.modules() if isinstance(part, nn.ReLU)]
    model(halved)[:, 1].sum().backward()
    for handle in handles:
        handle.remove()
    np.testing.assert_allclose(softer, halved.grad, rtol=1e-6)
