"""The tour of TorchRay's methods runs, and its mosaics are what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PICTURES = ("1-gradient-two-ways", "2-own-rule", "3-methods-by-architecture", "4-every-layer")


@pytest.fixture
def mosaics(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import mosaics

    return mosaics


def test_the_boxes_of_a_mosaic_hold_its_two_classes(mosaics: object) -> None:
    data = mosaics.pictures()  # type: ignore[attr-defined]
    shown = mosaics.mosaics(data.held_out, 20, seed=1)  # type: ignore[attr-defined]
    assert shown.images.shape == (20, 1, 64, 64) and shown.images.min() >= 0 and shown.images.max() <= 1
    for image, classes, boxes in zip(shown.images, shown.classes, shown.boxes, strict=True):
        assert len(set(classes)) == 2
        outside = np.ones((64, 64), bool)
        for top, left, bottom, right in boxes:
            assert image[0, top:bottom, left:right].max() > 0.3
            outside[top:bottom, left:right] = False
        assert image[0][outside].max() <= 0.15 + 1e-6 and outside.sum() == 64**2 - 2 * 28**2
    images, classes, boxes = shown.asked()
    assert len(images) == len(classes) == len(boxes) == 40


def test_the_tour_draws_its_pictures(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "torchray_tour.py", "--quick", "--output", tmp_path]
    ran = subprocess.run(
        [*command, "--without", "rise", "efficientnet", "keras_twins"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert {path.stem for path in tmp_path.glob("*.png")} == set(PICTURES)
    assert "own rule and deconvolution differ by 0.0e+00" in ran.stdout


def test_the_game_writes_its_table(tmp_path: Path) -> None:
    little = ["--seeds", "1", "--training", "128", "--epochs", "1", "--samples", "4", "--masks", "4"]
    command = [sys.executable, EXAMPLES / "torchray_game.py", "--output", tmp_path, *little]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    table = (tmp_path / "pointing-game.md").read_text()
    for name in (
        "saliency",
        "excitation_backprop",
        "rise",
        "grad_cam (Captum)",
        "chance",
        "centre",
    ):
        assert f"| {name} |" in table
