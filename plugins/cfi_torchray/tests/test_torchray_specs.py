"""The specs say what TorchRay's own functions take, and its licence is told once."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from torchray_models import Plain, images, seeded

import cfi_core as cfi
from cfi_torchray import LicenceWarning, licence
from cfi_torchray.library import common
from cfi_torchray.plugin import CONTRASTIVE_ARGS, PERTURBATION_ARGS, RISE_ARGS, SALIENCY_ARGS

OWN = {"gradient_to_saliency", "all_classes", "divide_by_p", "sigmoid"}
LEFT_OUT = {"debug", "print_iter", "resize_mode", "model"}


@pytest.mark.parametrize(
    ("function", "names"),
    [
        ("excitation_backprop.contrastive_excitation_backprop", CONTRASTIVE_ARGS),
        ("rise.rise", RISE_ARGS),
        ("extremal_perturbation.extremal_perturbation", PERTURBATION_ARGS),
    ],
)
def test_names_are_those_of_torchray(function: str, names: tuple[str, ...]) -> None:
    from importlib import import_module

    module, _, name = function.partition(".")
    taken = set(inspect.signature(getattr(import_module(f"torchray.attribution.{module}"), name)).parameters)
    assert set(names) - OWN <= taken
    assert taken - set(names) <= LEFT_OUT | {"get_backward_gradient"}


def test_names_of_saliency_are_those_of_torchray() -> None:
    taken = set(inspect.signature(common.saliency).parameters)
    assert {*SALIENCY_ARGS, "context_builder", "model", "debug"} == taken


def test_every_method_says_what_it_changes_for_the_process() -> None:
    patches = {method.key: method.patches for method in cfi.methods(toolset="torchray")}
    assert patches["guided_backprop"] == patches["deconvolution"] == ("torch.relu", "torch.relu_")
    assert patches["excitation_backprop"] == patches["contrastive_excitation_backprop"] == ("torch.nn.functional",)
    assert not any(patches[key] for key in ("saliency", "grad_cam", "linear_approx", "rise", "extremal_perturbation"))


def test_the_licence_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licence, "_told", [])
    with pytest.warns(LicenceWarning, match="non-commercial"):
        cfi.attribute(seeded(Plain), "saliency", "torchray", inputs=images(), target=1)
    again = cfi.attribute(seeded(Plain), "saliency", "torchray", inputs=images(), target=1)
    assert again.provenance["applied"]["licence"] == "CC BY-NC 4.0"
    (toolset,) = (one for one in cfi.toolsets() if one.name == "torchray")
    assert "non-commercial" in repr(toolset)


def test_the_benchmarks_of_torchray_are_never_imported() -> None:
    script = """
import sys, warnings
import numpy as np, torch
import cfi_core as cfi
from torch import nn
warnings.simplefilter("ignore")
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 8, 3)).eval()
own = {"rise": {"num_masks": 4}, "extremal_perturbation": {"max_iter": 2}}
own["contrastive_excitation_backprop"] = {"contrast_layer": "1"}
for method in cfi.methods(toolset="torchray"):
    layer = "0" if "layer" in method.required else None
    x = np.random.default_rng(0).random((1, 3, 8, 10)).astype("float32")
    cfi.attribute(model, method.key, "torchray", inputs=x, target=1, layer=layer, exec_args=own.get(method.key))
print(sorted(name for name in sys.modules if name.startswith(("torchray.benchmark", "pymongo"))))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"
