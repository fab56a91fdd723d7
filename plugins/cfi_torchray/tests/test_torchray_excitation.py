"""Excitation backprop against an independent slow implementation from its paper, and its promises."""

from __future__ import annotations

import excitation_reference as slow
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchray_models import CLASSES, IMAGE, Plain, Residual, images, seeded

import cfi_core as cfi

TARGET = 2


def explain(model: nn.Module, layer: str | None = None, **own: object) -> cfi.Attribution:
    inputs = images(1).astype(np.float64)
    key = "contrastive_excitation_backprop" if own else "excitation_backprop"
    return cfi.attribute(
        model.double(), key, "torchray", inputs=inputs, target=TARGET, layer=layer, exec_args=own or None
    )


def activations(model: nn.Sequential) -> list[np.ndarray]:
    x = torch.tensor(images(1).astype(np.float64))
    found = [x[0].numpy()]
    with torch.no_grad():
        for layer in model.double():
            x = layer(x)
            found.append(x[0].numpy())
    return found


def weight(module: nn.Module) -> np.ndarray:
    return module.weight.detach().numpy()


def plain(model: Plain, *, negated: bool = False) -> list[np.ndarray]:
    """Probabilities at the input of each layer of the plain model."""
    x, p = activations(model), {10: np.eye(CLASSES)[TARGET]}
    p[9] = p[8] = slow.to_children(x[9], weight(model[9]) * (-1 if negated else 1), p[10])
    p[7] = p[6] = slow.to_children(x[7], weight(model[7]), p[8])
    p[5] = p[4] = slow.to_children(x[5].ravel(), slow.average(x[5].shape, 2, 1), p[6])
    p[3] = slow.to_children(x[3].ravel(), slow.convolution(weight(model[3]), x[3].shape, padding=1, stride=2), p[4])
    p[2] = p[1] = slow.max_pool(x[2], 2, p[3]).ravel()
    p[0] = slow.to_children(x[0].ravel(), slow.convolution(weight(model[0]), x[0].shape, padding=1), p[1])
    return [p[place].reshape(x[place].shape) for place in range(10)]


@pytest.mark.parametrize("layer", [None, "0", "2", "3", "5"])
def test_convolutions_pools_and_linear_layers_are_those_of_the_paper(layer: str | None) -> None:
    model = seeded(Plain)
    found = explain(model, layer)
    expected = plain(model)[0 if layer is None else int(layer) + 1]
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-5, atol=1e-12)
    assert expected.max() > 1e-3


def test_probabilities_of_winning_add_up_to_one() -> None:
    assert explain(seeded(Plain)).values.sum() == pytest.approx(1, abs=1e-5)


def residual(model: Residual) -> dict[str | None, np.ndarray]:
    """Probabilities in the residual model, by layer; each batch norm and the convolution before it are one map."""
    model = model.double()
    x = torch.tensor(images(1).astype(np.float64))
    with torch.no_grad():
        first = model.relu(model.norm(model.first(x)))
        branch = model.norm2(model.second(first))
        total = model.relu(branch + first)
        pooled = total.mean((2, 3))
    shape = tuple(first.shape[1:])
    start = np.zeros(CLASSES)
    start[TARGET] = 1
    p = slow.to_children(pooled[0].numpy(), weight(model.head), start)
    p = slow.to_children(total[0].numpy().ravel(), _means(shape), p)
    active = total[0].numpy().ravel() > 0
    shares = [
        np.where(active, part[0].numpy().ravel() / np.where(active, total[0].numpy().ravel(), 1), 0)
        for part in (branch, first)
    ]
    p_branch, p_first = (p * share for share in shares)
    before = slow.to_children(first[0].numpy().ravel(), _merged(model.second, model.norm2, shape), p_branch)
    p_first = np.where(first[0].numpy().ravel() > 0, p_first + before, 0)
    image = slow.to_children(x[0].numpy().ravel(), _merged(model.first, model.norm, IMAGE), p_first)
    return {None: image.reshape(IMAGE), "norm2": p_branch.reshape(shape), "norm": p_first.reshape(shape)}


def _means(shape: tuple[int, ...]) -> np.ndarray:
    channels, area = shape[0], shape[1] * shape[2]
    return np.kron(np.eye(channels), np.full((1, area), 1 / area))


def _merged(convolution: nn.Conv2d, norm: nn.BatchNorm2d, shape: tuple[int, ...]) -> np.ndarray:
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach().numpy()
    return slow.convolution(weight(convolution) * scale[:, None, None, None], shape, padding=1)


def _in_place(one: Tensor, other: Tensor) -> Tensor:
    one += other
    return one


@pytest.mark.parametrize("add", [torch.add, Tensor.__add__, Tensor.add, _in_place, torch.ops.aten.add])
def test_residual_sums_batch_norms_and_means_are_those_of_the_paper(add: object) -> None:
    model = seeded(Residual, add)
    assert bool((model.norm.weight < 0).any()) and bool((model.norm2.weight < 0).any())
    for layer, expected in residual(model).items():
        found = explain(model, layer)
        np.testing.assert_allclose(found.values[0], expected, rtol=1e-5, atol=1e-12, err_msg=str(layer))
        assert {"mean"} < set(found.provenance["applied"]["repaired"])


def test_a_batch_norm_by_itself_lets_pass_what_it_does_not_turn() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(20), nn.Linear(20, CLASSES)
            nn.init.normal_(self.norm.weight)
            nn.init.ones_(self.norm.bias)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.norm(x)))

    model = seeded(Normalised).double()
    x = np.random.default_rng(1).random((1, 20))
    found = cfi.attribute(model, "excitation_backprop", "torchray", inputs=x, target=TARGET)
    with torch.no_grad():
        active = torch.relu(model.norm(torch.tensor(x)))[0].numpy()
    start = np.eye(CLASSES)[TARGET]
    p = slow.to_children(active, weight(model.head), start)
    expected = np.where((weight(model.norm) > 0) & (active > 0), p, 0)
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("bounded", [nn.ReLU6(), nn.Hardtanh(0, 6), lambda x: x.clamp(0, 6), lambda x: F.relu6(x)])
def test_a_saturated_rectifier_passes_the_probability_on(bounded: object) -> None:
    class Saturated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(5, 6), nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(bounded(self.first(100 * x)))  # type: ignore[operator]

    model = seeded(Saturated).double()
    x = np.random.default_rng(1).random((1, 5))
    found = cfi.attribute(model, "excitation_backprop", "torchray", inputs=x, target=TARGET, layer="first")
    with torch.no_grad():
        active = model.first(100 * torch.tensor(x)).clamp(0, 6)[0].numpy()
    assert (active == 6).any()
    expected = slow.to_children(active, weight(model.head), np.eye(CLASSES)[TARGET])
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-5, atol=1e-12)


def test_the_contrast_is_that_of_the_negated_classifier() -> None:
    model = seeded(Plain, seed=5)
    found = explain(model, "2", contrast_layer="5")
    # At the contrast (the output of layer 5), what speaks for the class less what speaks against it; then on as before.
    difference = plain(model)[6] - plain(model, negated=True)[6]
    x = activations(model)
    p5 = slow.to_children(x[5].ravel(), slow.average(x[5].shape, 2, 1), difference.ravel())
    matrix = slow.convolution(weight(model[3]), x[3].shape, padding=1, stride=2)
    expected = slow.to_children(x[3].ravel(), matrix, p5).reshape(x[3].shape)
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-5, atol=1e-12)
    assert (expected < 0).any() and (expected > 0).any()


def test_the_classifier_is_the_layer_that_runs_last_not_the_one_defined_last() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.second, self.first = nn.Linear(20, CLASSES), nn.Linear(20, 20), nn.Linear(5, 20)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.second(torch.relu(self.first(x)))))

    model, x = seeded(Swapped).double(), np.random.default_rng(1).random((2, 5))

    def run(workarounds: bool, **own: str) -> np.ndarray:
        found = cfi.attribute(
            model,
            "contrastive_excitation_backprop",
            "torchray",
            inputs=x,
            target=1,
            layer="first",
            init_args={"workarounds": workarounds},
            exec_args={"contrast_layer": "second", **own},
        )
        return np.asarray(found.values)

    right = run(True, classifier_layer="head")
    np.testing.assert_array_equal(run(True), right)
    assert right.any()
    with pytest.warns(cfi.ModelWarning, match="zero everywhere"):
        run(False)


def test_negative_activations_are_refused_with_the_way_out() -> None:
    model, inputs = seeded(Plain), images(1) - 0.5
    with pytest.raises(cfi.MethodError, match=r"pass layer=.*'0'"):
        cfi.attribute(model, "excitation_backprop", "torchray", inputs=inputs, target=TARGET)
    cfi.attribute(model, "excitation_backprop", "torchray", inputs=inputs, target=TARGET, layer="1")


def test_a_function_of_several_outputs_is_refused() -> None:
    with pytest.raises(cfi.TargetError, match="starts at one output"):
        cfi.attribute(seeded(Plain), "excitation_backprop", "torchray", inputs=images(), target=lambda y: y.sum(1))


def test_torchvisions_resnet_gets_what_torchray_gives_after_it_has_rewritten_it() -> None:
    """The one residual network whose sums TorchRay knows, once its user has called `update_resnet`."""
    from torchray.attribution.excitation_backprop import excitation_backprop, update_resnet
    from torchvision.models import resnet18

    inputs = images(1, (3, 64, 72))
    for layer in ("layer1", "layer3.0.conv2", "layer4.1.conv2", "layer3.0.downsample.0", "maxpool"):
        found = cfi.attribute(
            seeded(resnet18),
            "excitation_backprop",
            "torchray",
            inputs=inputs,
            target=TARGET,
            layer=layer,
            exec_args={"gradient_to_saliency": "sum"},
        )
        rewritten, x = update_resnet(seeded(resnet18)), torch.tensor(inputs, requires_grad=True)
        expected = excitation_backprop(rewritten, x, TARGET, saliency_layer=layer)
        np.testing.assert_allclose(found.values, expected[:, 0].detach(), rtol=1e-3, atol=1e-6)
