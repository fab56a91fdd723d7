"""Each fault of TorchRay shows, so that a test fails when its workaround is no longer needed; and is mended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchray.attribution import common, excitation_backprop, guided_backprop
from torchray.attribution import extremal_perturbation as extremal
from torchray.attribution.rise import rise
from torchray_models import CLASSES, Plain, images, seeded

import cfi_core as cfi


def with_faults_and_without(model: nn.Module, key: str, **arguments: Any) -> list[Any]:
    return [
        cfi.attribute(model, key, "torchray", inputs=images(), init_args={"workarounds": one}, **arguments).values
        for one in (False, True)
    ]


def test_a_rectifier_in_place_overwrites_the_layer_before_it() -> None:
    """Where the input takes gradients (as in its tutorials) it does so unsaid, otherwise torch notices."""
    right = cfi.attribute(seeded(Plain), "saliency", "torchray", inputs=images(), target=1, layer="3").values
    in_place = seeded(Plain, lambda: nn.ReLU(inplace=True))
    own = {"saliency_layer": "3", "gradient_to_saliency": lambda x: x.grad}
    faulty = common.saliency(in_place, torch.tensor(images(), requires_grad=True), 1, **own)
    assert not np.allclose(faulty, right)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        common.saliency(in_place, torch.tensor(images()), 1, **own)
    found = cfi.attribute(in_place, "saliency", "torchray", inputs=images(), target=1, layer="3").values
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-9)


def test_guided_backpropagation_lets_pass_where_the_input_is_zero() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(360, 6), nn.ReLU(), nn.Linear(6, CLASSES)).eval()
    nn.init.zeros_(model[1].weight[:3])
    nn.init.zeros_(model[1].bias)
    nn.init.ones_(model[3].weight)
    faulty, mended = with_faults_and_without(model, "guided_backprop", target=1, layer="1")
    assert (mended[:, :3] == 0).all() and (faulty[:, :3] == 1).all()
    np.testing.assert_array_equal(faulty[:, 3:], mended[:, 3:])


def test_the_contrastive_reward_mixes_areas() -> None:
    from cfi_torchray.workarounds import contrastive_reward

    scores = torch.tensor([[5.0, 1.0, 2.0], [0.0, -300.0, -200.0]])
    expected = torch.tensor([5.0 - 2.0, 200.0])
    for variant, right in (("preserve", expected), ("delete", -expected), ("dual", expected[:1] - expected[1:])):
        assert contrastive_reward(scores, 0, variant).tolist() == right.tolist()
    assert extremal.contrastive_reward(scores, 0, "preserve").reshape(-1).shape != expected.shape


def test_some_masks_are_smaller_than_the_image() -> None:
    class Bright(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3))[:, None].expand(-1, 2)

    for workarounds in (False, True):
        arguments: dict[str, Any] = {
            "inputs": np.ones((1, 3, 56, 56), np.float32),
            "target": 1,
            "init_args": {"workarounds": workarounds},
            "exec_args": {"max_iter": 2, "step": 4, "sigma": 6},
        }
        if workarounds:
            found = cfi.attribute(Bright().eval(), "extremal_perturbation", "torchray", **arguments)
            assert found.values.shape == (1, 56, 56)
        else:
            with pytest.raises(cfi.MethodError, match="55"):
                cfi.attribute(Bright().eval(), "extremal_perturbation", "torchray", **arguments)


def test_a_sum_of_zeros_is_no_number_in_torchrays_residual_rule() -> None:
    parts = [torch.tensor([0.0, 1.0], requires_grad=True), torch.tensor([0.0, 3.0], requires_grad=True)]
    with excitation_backprop.ExcitationBackpropContext():
        total = excitation_backprop.eltwise_sum(*parts)
    faulty = torch.autograd.grad(total.sum(), parts)
    assert torch.isnan(faulty[0][0])
    from cfi_torchray.excitation import share

    mended = torch.autograd.grad(share(*parts).sum(), parts)
    assert [one.tolist() for one in mended] == [[0.0, 0.25], [0.0, 0.75]]


def test_a_negative_scale_of_a_batch_norm_is_passed_over() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(320, CLASSES)
    ).eval()
    merged = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), model[4]).eval()
    nn.init.constant_(model[1].weight, -2)
    nn.init.constant_(model[1].bias, 0.7)
    merged[0].weight.data = -2 / np.sqrt(1 + model[1].eps) * model[0].weight.data
    merged[0].bias.data = -2 / np.sqrt(1 + model[1].eps) * model[0].bias.data + 0.7
    with torch.no_grad():
        x = torch.tensor(images())
        torch.testing.assert_close(model(x), merged(x))
    right = cfi.attribute(merged, "excitation_backprop", "torchray", inputs=images(), target=1).values
    faulty, mended = with_faults_and_without(model, "excitation_backprop", target=1)
    np.testing.assert_allclose(mended, right, rtol=1e-4, atol=1e-8)
    assert not np.allclose(faulty, right, rtol=1e-2)


def test_functions_with_rules_take_no_keywords() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
            self.head = nn.Linear(4, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(F.conv2d(x, self.weight, padding=1, stride=2))
            x = F.avg_pool2d(x, kernel_size=2, ceil_mode=True)
            return self.head(F.adaptive_avg_pool2d(x, output_size=1).flatten(1))

    model = seeded(Keywords)
    with pytest.raises(TypeError, match="keyword"):
        excitation_backprop.excitation_backprop(seeded(Keywords), torch.tensor(images()), 1)
    found = cfi.attribute(model, "excitation_backprop", "torchray", inputs=images(), target=1).values
    assert found.sum(axis=(1, 2, 3)) == pytest.approx(1, abs=1e-4)


def test_nearest_resizing_fails() -> None:
    with pytest.raises(ValueError, match="align_corners"):
        common.resize_saliency(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2), True, mode="nearest")


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_double_precision_fails() -> None:
    model, x = seeded(Plain).double(), torch.tensor(images(1)).double()
    with pytest.raises(RuntimeError, match=r"[Dd]ouble|dtype"):
        rise(model, x, num_masks=4)
    with pytest.raises(RuntimeError, match=r"[Dd]ouble|dtype"):
        extremal.extremal_perturbation(model, x, 1, max_iter=2)


def test_after_an_error_the_model_is_another_one() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(f"a fault of the model after {self.layer(x)}")

    model = Failing()
    with pytest.raises(RuntimeError, match="a fault"):
        common.saliency(model, torch.ones(1, 5), 0, saliency_layer="layer")
    assert not model.training and not model.layer.weight.requires_grad


def test_parameters_are_left_without_gradients() -> None:
    model, x = seeded(Plain), torch.tensor(images(1))
    excitation_backprop.contrastive_excitation_backprop(model, x, 1, saliency_layer="2", contrast_layer="5")
    assert not any(one.requires_grad for one in model.parameters())


def test_a_context_instantiates_a_function_that_should_not_be() -> None:
    with pytest.warns(DeprecationWarning, match="should not be instantiated"):
        guided_backprop.GuidedBackpropContext().__enter__().__exit__(None, None, None)


def test_rise_seeds_the_generator_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    model = seeded(Plain)
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    rise(model, torch.tensor(images(1)), num_masks=2)
    assert seeds == [0]
    seeds.clear()
    cfi.attribute(model, "rise", "torchray", inputs=images(1), target=1, exec_args={"num_masks": 2})
    assert not seeds
