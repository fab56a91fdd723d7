"""One meaning of a target, whatever the model returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from captum_models import SmallCNN, attribute, gradient, images, value
from torch import Tensor, nn

from cfi_captum.forward import captum_target
from cfi_core.contract import Target


@dataclass
class Outputs:
    logits: Tensor
    features: Tensor


class Structured(nn.Module):
    """A model that returns more than one tensor."""

    def __init__(self, pack: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.net = SmallCNN()
        self.pack = pack

    def forward(self, x: Tensor) -> Any:
        logits = self.net(x)
        return self.pack(logits, logits * 0)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target(index=(3,)), 3),
        (Target(index=(1, 2)), (1, 2)),
        (Target(index=((3,), (1,))), [3, 1]),
        (Target(index=((3, 0), (1, 2))), [(3, 0), (1, 2)]),
        (Target(), None),
    ],
)
def test_form_of_captum(target: Target, expected: Any) -> None:
    assert captum_target(target) == expected


@pytest.mark.parametrize(
    "key", ["saliency", "integrated_gradients", "deep_lift", "occlusion", "feature_ablation", "lrp"]
)
def test_one_index_per_sample(key: str) -> None:
    model, x = SmallCNN(), images(3)
    exec_args = {"sliding_window_shapes": (3, 5, 7), "strides": (3, 5, 7)} if key == "occlusion" else {}
    classes = (4, 0, 2)
    result = value(key, model, x, target=Target(index=tuple((index,) for index in classes)), exec_args=exec_args)
    for sample, index in enumerate(classes):
        alone = value(key, model, x[sample : sample + 1], target=index, exec_args=exec_args)
        torch.testing.assert_close(result[sample : sample + 1], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("key", ["saliency", "integrated_gradients", "feature_ablation"])
def test_index_into_several_axes(key: str, per_sample: bool) -> None:
    x = torch.randn(2, 4)
    weight = torch.randn(4, 2, 3)

    def model(x: Tensor) -> Tensor:
        return torch.einsum("nf,fij->nij", x, weight)

    target = Target(index=((1, 2), (0, 1)) if per_sample else (1, 2))
    chosen = torch.stack([weight[:, i, j] for i, j in target.indices(2)])
    expected = chosen if key == "saliency" else x * chosen
    torch.testing.assert_close(value(key, model, x, target=target, channel_axis=(None,)), expected)


@pytest.mark.parametrize(
    ("pack", "output"),
    [
        (lambda logits, other: (other, logits), 1),
        (lambda logits, other: [other, logits], 1),
        (lambda logits, other: {"features": other, "logits": logits}, "logits"),
        (Outputs, "logits"),
    ],
)
@pytest.mark.parametrize("key", ["saliency", "deep_lift", "grad_cam", "layer_lrp", "lrp", "guided_backprop"])
def test_structured_outputs(key: str, pack: Callable[[Tensor, Tensor], Any], output: int | str) -> None:
    model, x = Structured(pack), images()
    layer = {"layer": model.net.conv2} if key in ("grad_cam", "layer_lrp") else {}
    if key in ("lrp", "layer_lrp"):
        model.pack = (lambda inner: lambda logits, other: inner(logits, None))(pack)
        model.forward = lambda x: model.pack(model.net(x), None)  # type: ignore[method-assign]
    result = value(key, model, x, target=Target(output=output, index=(1,)), **layer)
    torch.testing.assert_close(result, value(key, model.net, x, **layer))


@pytest.mark.parametrize("key", ["saliency", "deep_lift", "feature_ablation", "layer_conductance"])
def test_function_of_the_output(key: str) -> None:
    model, x = SmallCNN(), images()
    layer = {"layer": model.conv2} if key == "layer_conductance" else {}
    result = value(key, model, x, target=Target(function=lambda out: out[:, 1] - out[:, 3]), **layer)
    expected = value(key, model, x, target=1, **layer) - value(key, model, x, target=3, **layer)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)


def test_function_of_a_chosen_output() -> None:
    model, x = Structured(lambda logits, other: {"logits": logits}), images()
    target = Target(output="logits", function=lambda out: 2 * out[:, 1:2])
    torch.testing.assert_close(value("saliency", model, x, target=target), 2 * gradient(model.net, x, 1))


@pytest.mark.parametrize("key", ["saliency", "integrated_gradients", "feature_ablation", "occlusion", "shapley_values"])
@pytest.mark.parametrize("column", [False, True])
def test_one_value_per_sample_needs_no_index(key: str, column: bool) -> None:
    x, weight = torch.randn(3, 4), torch.tensor([1.0, -2.0, 3.0, 0.5])

    def model(x: Tensor) -> Tensor:
        result = x @ weight
        return result[:, None] if column else result

    exec_args = {"sliding_window_shapes": (1,)} if key == "occlusion" else {}
    result = value(key, model, x, target=Target(), channel_axis=(None,), exec_args=exec_args)
    torch.testing.assert_close(result, weight.expand(3, 4) if key == "saliency" else x * weight)


def test_layers_of_a_callable() -> None:
    model, x = SmallCNN().eval(), images()
    result = attribute("grad_cam", lambda x: model(x), x, layer=model.conv2)
    torch.testing.assert_close(result.values, attribute("grad_cam", model, x, layer=model.conv2).values)
