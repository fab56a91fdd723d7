"""Gradients and what TorchRay's rules make of them, against autograd and independent implementations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchray_models import CLASSES, Plain, images, seeded

import cfi_core as cfi

TARGET = [1, 3]


def explain(model: nn.Module, key: str = "saliency", **arguments: object) -> cfi.Attribution:
    return cfi.attribute(model, key, "torchray", **{"inputs": images(), "target": TARGET, **arguments})


def gradient(model: nn.Module, layer: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """The value of the input or layer, and the gradient there."""
    x = torch.tensor(images(), requires_grad=True)
    kept = [x]
    handle = None if layer is None else layer.register_forward_hook(lambda module, args, output: kept.append(output))
    outputs = model(x)
    (found,) = torch.autograd.grad(outputs[[0, 1], TARGET].sum(), kept[-1])
    if handle is not None:
        handle.remove()
    return kept[-1].detach(), found


def by_hooks(model: nn.Module, rule: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
    """The input gradient where every nn.ReLU replaces its own: `rule(input, gradient)`."""
    handles, taken = [], {}
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            handles.append(module.register_forward_hook(lambda one, args, output: taken.update({one: args[0]})))
            handles.append(module.register_full_backward_hook(lambda one, before, after: (rule(taken[one], after[0]),)))
    values = gradient(model)[1].numpy()
    for handle in handles:
        handle.remove()
    return values


def test_saliency_is_the_gradient() -> None:
    model = seeded(Plain)
    np.testing.assert_allclose(explain(model).values, gradient(model)[1], rtol=1e-6)
    found = explain(model, layer="3")
    np.testing.assert_allclose(found.values, gradient(model, model[3])[1], rtol=1e-6)
    assert found.dims == ("sample", "channel", "height", "width") and found.layer == "3"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("max", lambda g: np.abs(g).max(axis=1)),
        ("norm", lambda g: np.sqrt((g**2).sum(axis=1))),
        ("sum", lambda g: g.sum(axis=1)),
        (lambda x: x.grad[:, 1:2] * x[:, 1:2], None),
    ],
)
def test_channels_are_reduced_as_asked_for(name: object, expected: Callable[[np.ndarray], np.ndarray] | None) -> None:
    model = seeded(Plain)
    for layer in (None, "3"):
        value, grad = gradient(model, None if layer is None else model[3])
        wanted = (value * grad)[:, 1].numpy() if expected is None else expected(grad.numpy())
        found = explain(model, layer=layer, exec_args={"gradient_to_saliency": name})
        np.testing.assert_allclose(found.values, wanted, rtol=1e-5, atol=1e-9)
        assert found.dims == ("sample", "height", "width")


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_maps_are_stretched_and_smoothed(mode: str) -> None:
    model = seeded(Plain)
    own = {"gradient_to_saliency": "max", "resize": True, "resize_mode": mode, "smooth": 0.1}
    found = explain(model, layer="3", exec_args=own)
    small = gradient(model, model[3])[1].abs().max(dim=1, keepdim=True)[0]
    options = {} if mode == "nearest" else {"align_corners": False}
    large = F.interpolate(small, (10, 12), mode=mode, **options)
    np.testing.assert_allclose(found.values, blurred(large.numpy()[:, 0], 1.2), rtol=1e-4, atol=1e-7)


def blurred(maps: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian, cut off at four widths, over maps whose borders go on."""
    width = int(np.ceil(4 * sigma))
    kernel = np.exp(-(np.arange(-width, width + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        padding = [(0, 0)] * 3
        padding[axis] = (width, width)
        padded = np.pad(maps, padding, mode="edge")
        maps = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), axis, padded)
    return maps


def test_deconvolution_and_guided_backpropagation_change_the_rectifiers_gradient() -> None:
    model = seeded(Plain)
    rules = {
        "deconvolution": lambda x, g: g.clamp(min=0),
        "guided_backprop": lambda x, g: g.clamp(min=0) * (x > 0),
    }
    plain = gradient(model)[1].numpy()
    for key, rule in rules.items():
        found = explain(model, key).values
        np.testing.assert_allclose(found, by_hooks(model, rule), rtol=1e-5, atol=1e-9)
        assert not np.allclose(found, plain)


def test_grad_cam_and_linear_approximation_are_those_of_their_papers() -> None:
    model = seeded(Plain)
    value, grad = (one.numpy() for one in gradient(model, model[3]))
    cam = (grad.mean(axis=(2, 3), keepdims=True) * value).sum(axis=1)
    np.testing.assert_allclose(explain(model, "grad_cam", layer="3").values, cam, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(
        explain(model, "linear_approx", layer="3").values, (value * grad).sum(axis=1), rtol=1e-5, atol=1e-8
    )
    value, grad = (one.numpy() for one in gradient(model))
    np.testing.assert_allclose(explain(model, "linear_approx").values, (value * grad).sum(axis=1), rtol=1e-5, atol=1e-8)


def test_a_function_and_a_gradient_of_the_users_own_are_explained() -> None:
    model = seeded(Plain)
    difference = explain(model, target=lambda y: y[:, 1] - y[:, 3]).values
    parts = [explain(model, target=one).values for one in (1, 3)]
    np.testing.assert_allclose(difference, parts[0] - parts[1], rtol=1e-4, atol=1e-7)
    pointing = "torchray.attribution.common:get_pointing_gradient"
    found = explain(model, target=2, inputs=images(1), exec_args={"get_backward_gradient": pointing})
    np.testing.assert_allclose(found.values, explain(model, target=2, inputs=images(1)).values, rtol=1e-5)


def test_what_has_no_channels_has_gradients_and_no_maps() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, CLASSES)))
    rows = images(2, (5,))
    found = explain(model, inputs=rows)
    x = torch.tensor(rows, requires_grad=True)
    expected = torch.autograd.grad(model(x)[[0, 1], TARGET].sum(), x)[0]
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    with pytest.raises(cfi.ArgumentError, match="no channel axis"):
        explain(model, inputs=rows, exec_args={"gradient_to_saliency": "max"})


def test_double_precision_and_single_outputs_are_explained() -> None:
    model = nn.Sequential(Plain(), nn.Linear(CLASSES, 1), nn.Flatten(0)).double().eval()
    found = cfi.attribute(model, "guided_backprop", "torchray", inputs=images().astype(np.float64))
    assert found.values.dtype == np.float64 and found.values.any()


class OwnReLU(torch.autograd.Function):
    """A rule of one's own: the gradient's magnitude passes wherever the unit is active."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)  # type: ignore[attr-defined]
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return g.abs() * (x > 0)


class OwnContext:
    """As the tutorials write it: exchanges `torch.relu` by hand."""

    def __enter__(self) -> None:
        self.before = torch.relu, torch.relu_
        torch.relu = torch.relu_ = OwnReLU.apply

    def __exit__(self, *raised: object) -> None:
        torch.relu, torch.relu_ = self.before


def test_a_rule_of_ones_own_is_used_by_the_model() -> None:
    model, relu = seeded(Plain), torch.relu
    expected = by_hooks(model, lambda x, g: g.abs() * (x > 0))
    from torchray.attribution.common import ReLUContext

    for builder in (OwnContext, lambda: ReLUContext(OwnReLU)):
        found = explain(model, exec_args={"context_builder": builder})
        np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-9)
    assert torch.relu is relu


def test_a_rule_that_attaches_to_nothing_is_refused() -> None:
    class Nothing(OwnContext):
        def __enter__(self) -> None:
            self.before = torch.relu, torch.relu_

    with pytest.raises(cfi.MethodError, match="attached to nothing"):
        explain(seeded(Plain), exec_args={"context_builder": Nothing})


def test_arguments_that_mean_nothing_are_refused() -> None:
    model = seeded(Plain)
    for own, message in (
        ({"gradient_to_saliency": "median"}, "unknown"),
        ({"resize": True}, "resize stretches a map"),
        ({"gradient_to_saliency": "max", "resize": (5, 7)}, "own size"),
        ({"gradient_to_saliency": "max", "resize": True, "resize_mode": "cubic"}, "resize_mode"),
        ({"gradient_to_saliency": lambda x: x.grad}, "must give a map"),
        ({"smooth": -1}, "0 or more"),
        ({"context_builder": 3}, "must make a context"),
    ):
        with pytest.raises(cfi.ArgumentError, match=message):
            explain(model, layer="3", exec_args=own)
