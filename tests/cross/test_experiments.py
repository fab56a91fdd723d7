"""The experiments, the quick way: what their pages claim holds in kind, and their notebooks run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def experiments() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(EXAMPLES))
    names = ("clever_hans", "toolset_comparison", "activation_maximization", "cifar_tutorial")
    yield {name: import_module(name) for name in names}
    sys.path.remove(str(EXAMPLES))


def quick(experiment: ModuleType, folder: Path) -> object:
    return experiment.main(["--quick", "--output", str(folder)])


def test_explanations_show_that_the_network_looks_at_the_square(
    experiments: dict[str, ModuleType], tmp_path: Path
) -> None:
    example = experiments["clever_hans"]
    found = quick(example, tmp_path)
    shares, chance = found.shares, example.CHANCE
    for name in ("Saliency", "Integrated gradients", "DeepLIFT", "LRP", "Occlusion", "Feature ablation"):
        assert shares["captum"]["poisoned"][name][0] > 5 * chance, name
        assert shares["captum"]["clean"][name][0] < 2 * chance, name
    for name in ("Saliency", "SmoothGrad"):
        assert shares["tf-keras-vis"]["poisoned"][name][0] > 5 * chance, name
    # One weight for each channel misses it, one for each place does not.
    parts = found.anatomy["corner, conv2"]
    assert parts["Grad-CAM"][0] < 2 * parts["chance"][0] < parts["gradient × activation"][0]
    assert json.loads((tmp_path / "clever-hans.json").read_text())["shares"] == shares
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_grad_cam_sees_no_place_of_a_gradient(experiments: dict[str, ModuleType]) -> None:
    example = experiments["clever_hans"]
    draw = np.random.default_rng(0)
    activation, gradient = draw.normal(size=(2, 3, 8, 8, 5))
    elsewhere = draw.permuted(gradient.reshape(3, 64, 5), axis=1).reshape(gradient.shape)
    cam, moved = example.Cam(activation, gradient), example.Cam(activation, elsewhere)
    np.testing.assert_allclose(cam.map(cam.weights()), moved.map(moved.weights()), atol=1e-12)
    assert np.abs(cam.map(gradient) - moved.map(elsewhere)).max() > 0.1


def test_with_a_mean_before_the_last_layer_grad_cam_is_what_each_place_adds(
    experiments: dict[str, ModuleType],
) -> None:
    example = experiments["clever_hans"]
    model = example.torch_cnn("mean", seed=1).eval().requires_grad_(False)
    images = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    made = example.cams(example.Trained(model, example.Squares(images, np.zeros(2, int)), 0.0), "conv2", example.CORNER)
    np.testing.assert_allclose(made["… after the rectifier"], made["… after the rectifier too"], rtol=1e-3, atol=1e-7)


def test_the_cells_that_see_a_square(experiments: dict[str, ModuleType]) -> None:
    import torch

    example = experiments["clever_hans"]
    model = example.torch_cnn()
    for layer, end in (("conv1", 1), ("conv2", 4)):
        for box in (example.CORNER, example.INNER):
            pixels = torch.zeros(1, 1, 28, 28)
            top, left, bottom, right = box
            black = model[:end](pixels)
            seen = torch.zeros_like(black, dtype=torch.bool)
            for value in (1.0, 50.0, -50.0):  # a maximum may hide it once
                pixels[..., top:bottom, left:right] = value * torch.rand(5, 5)
                seen |= model[:end](pixels) != black
            np.testing.assert_array_equal(seen.any(1)[0].numpy(), example.cells_of(layer, box).mask)


def test_comparisons_name_the_settings(experiments: dict[str, ModuleType], tmp_path: Path) -> None:
    found = quick(experiments["toolset_comparison"], tmp_path)
    for name in ("Keras", "PyTorch"):
        assert found["Saliency"]["aligned"][name].agrees and found["Grad-CAM"]["aligned"][name].agrees
        (pair,) = found["Saliency"]["own defaults"][name].pairs
        assert {row.name for row in pair.rows} == {"normalize_map"} and pair.remaining < 1e-5
        (pair,) = found["Grad-CAM"]["own defaults"][name].pairs
        assert {row.name for row in pair.rows} >= {"expand_cam", "normalize_cam"} and pair.remaining < 1e-5
    assert json.loads((tmp_path / "comparison-of-toolsets.json").read_text())["expand_cam - aligned corners"] < 1e-5


def test_images_are_made_that_excite_and_maps_lie_where_the_class_is(
    experiments: dict[str, ModuleType], tmp_path: Path
) -> None:
    units, classes = quick(experiments["activation_maximization"], tmp_path)
    assert all(one.score > one.noise + 0.1 for all_ in units.values() for one in all_)
    assert {one.unit.kind for one in units["PyTorch"]} == {"class", "channel", "neuron"}
    assert all(part > 0.7 for one in classes for part in one.shares.values())


def test_both_networks_of_the_tutorial_are_explained_alike(experiments: dict[str, ModuleType], tmp_path: Path) -> None:
    explained = quick(experiments["cifar_tutorial"], tmp_path)
    assert len(explained.differences) == 4 and max(explained.differences.values()) < 1e-5


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.ipynb")))
def test_notebooks_run(experiments: dict[str, ModuleType], name: str) -> None:
    execute = import_module("execute_notebooks").execute
    notebook = execute(EXAMPLES / f"{name}.ipynb", {"CFI_QUICK": "1"})
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
