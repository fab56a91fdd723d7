"""The example of a detector runs, and detections are no scores of samples, however many boxes there happen to be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cfi_core as cfi

EXAMPLE = Path(__file__).parents[2] / "examples" / "detector_boxes.py"
IMAGES = np.random.default_rng(0).uniform(size=(3, 3, 8, 12)).astype(np.float32)
BOX = (0.0, 0.0, 4.0, 4.0)


class Detector(nn.Module):
    """Three boxes in every image, as many as there are images in the tests, each of a size that the image tells."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for maps in self.features(images):
            means = maps.mean((1, 2))[:3]
            corners = torch.stack([torch.zeros(3), torch.zeros(3), 4 + means, 4 + means], 1)
            found.append({"boxes": corners, "scores": torch.sigmoid(3 * means), "labels": torch.arange(3)})
        return found


@pytest.mark.parametrize("layer", ["features", "auto"])
def test_a_map_of_a_detector_with_as_many_boxes_as_images(layer: str) -> None:
    model = Detector().eval()
    found = cfi.attribute(
        model, "grad_cam", "captum", inputs=IMAGES, target=cfi.targets.box(iou_with=BOX, label=1), layer=layer
    )
    maps = model.features(torch.from_numpy(IMAGES)).detach().requires_grad_()
    mean = maps.mean((2, 3))[:, 1]
    (torch.sigmoid(3 * mean) * 16 / (4 + mean) ** 2).sum().backward()
    expected = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1).detach().numpy()
    assert found.dims == ("sample", "height", "width")
    np.testing.assert_allclose(found.values, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_boxes_of_more_images_than_gradients_are_compared_of(toolset: str) -> None:
    model, images = Detector().eval(), np.concatenate([IMAGES] * 4)
    boxes = [(0.0, 0.0, 4.0, 4.0 - sample / 12) for sample in range(12)]
    target = cfi.targets.box(iou_with=boxes, label=1)
    found = cfi.attribute(model, "saliency", toolset, inputs=images, target=target)
    tensor = torch.from_numpy(images).requires_grad_()
    mean = model.features(tensor).mean((2, 3))[:, 1]
    height = torch.tensor(boxes)[:, 3]
    overlap = 4 * height / ((4 + mean) ** 2)  # the box asked for lies in the one that is found
    (torch.sigmoid(3 * mean) * overlap).sum().backward()
    expected = tensor.grad.numpy()
    np.testing.assert_allclose(found.values, expected, atol=1e-5 * np.abs(expected).max())


def test_the_example_draws_its_picture(tmp_path: Path) -> None:
    little = ["--training", "64", "--epochs", "1", "--images", "1", "--output", tmp_path]
    ran = subprocess.run([sys.executable, EXAMPLE, *little], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(re.findall("faithful", ran.stdout)) == 2
    assert (tmp_path / "boxes.png").stat().st_size > 10_000
