"""`cfi` on real models: attribute, translate, verify and doctor, in this process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cfi_core as cfi
from cfi_cli.app import run
from cfi_cli.known_answers import check_toolset


@pytest.fixture(autouse=True)
def _backend_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets matplotlib's backend, where nobody has, for its whole process: here that is the tests'."""
    monkeypatch.setenv("MPLBACKEND", "agg")


MODELS = """
import keras
import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
generator = np.random.default_rng(0)
KERNEL, HEAD = generator.normal(size=(3, 3, 3, 4)).astype("f"), generator.normal(size=(4, 5)).astype("f")


def of_torch():
    conv, head = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 5, bias=False)
    conv.weight = nn.Parameter(torch.from_numpy(KERNEL.transpose(3, 2, 0, 1).copy()))
    head.weight = nn.Parameter(torch.from_numpy(HEAD.T.copy()))
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


def of_keras():
    layers = keras.layers
    conv, head = layers.Conv2D(4, 3, use_bias=False, activation="relu", name="conv"), layers.Dense(5, use_bias=False)
    model = keras.Sequential([keras.Input((12, 16, 3)), conv, layers.GlobalAveragePooling2D(), head])
    conv.set_weights([KERNEL])
    head.set_weights([HEAD])
    return model


def off_by_a_little():
    model = of_torch()
    with torch.no_grad():
        model[4].weight[3] *= 1.01
    return model
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch, capfd) -> Callable[..., tuple[int, Any]]:
    """Calls `cfi … --json` in a folder with models and a picture; gives the exit code, and the answer."""
    (tmp_path / "made_for_cli.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"))
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)).save("picture.png")

    def call(*arguments: str) -> tuple[int, Any]:
        capfd.readouterr()
        code = run([*arguments, "--json"])
        out = capfd.readouterr().out
        return code, json.loads(out) if out else None

    yield call
    sys.modules.pop("made_for_cli", None)


def test_one_picture_is_explained_alike_in_both_frameworks(call):
    line = ("picture.png", "-m", "saliency@captum", "--preprocess", "imagenet", "--size", "12x16", "--target", "3")
    found = []
    for name in ("of_torch", "of_keras"):
        code, made = call("attribute", f"made_for_cli:{name}", *line, "-o", f"{name}.npz")
        assert code == 0 and made["samples"][0]["name"] == "picture"
        found.append((np.load(f"{name}.npz")["values"], made["samples"][0]["predictions"][0]["index"]))
    (ours, first), (theirs, second) = found
    assert first == second
    np.testing.assert_allclose(ours.transpose(0, 2, 3, 1), theirs, rtol=1e-4, atol=1e-7)


def test_two_models_of_two_frameworks_are_the_same_and_a_hundredth_is_seen(call):
    code, verdict = call("verify", "made_for_cli:of_torch", "made_for_cli:of_keras")
    assert (code, verdict["same"], verdict["input_axes"]) == (0, True, [[0, 2, 3, 1]])
    assert {"1": "conv", "4": "dense"}.items() <= {
        pair["layer"]: pair["other"].rstrip("_0123456789") for pair in verdict["layers"]
    }.items()
    code, verdict = call(
        "verify", "made_for_cli:of_keras", "made_for_cli:off_by_a_little", "picture.png", "--preprocess", "unit"
    )
    assert (code, verdict["same"]) == (1, False)


@pytest.mark.parametrize(
    ("source", "to", "file"),
    [("of_torch", "tensorflow", "made.keras"), ("of_keras", "torch", "made.pt2"), ("of_keras", "onnx", "made.onnx")],
)
def test_what_is_translated_is_written_and_computes_the_same(call, source, to, file):
    code, made = call(
        "translate",
        f"made_for_cli:{source}",
        "--to",
        to,
        "--shape",
        "3,12,16" if to == "tensorflow" else "12,16,3",
        "-o",
        file,
    )
    assert code == 0 and made["faithful"] and made["file"] == file and Path(file).stat().st_size
    code, verdict = call(
        "verify",
        f"made_for_cli:{source}",
        file,
        *(("--trust",) if to == "torch" else ()),
        *(("--shape", "3,12,16") if to == "tensorflow" else ()),
    )
    assert (code, verdict["same"]) == (0, True)
    assert [one.name for one in Path().glob(".*part*")] == []


@pytest.mark.filterwarnings("ignore:TorchRay is licensed", "ignore::PendingDeprecationWarning")
def test_every_toolset_gives_a_known_model_its_known_explanation():
    outcomes = [check_toolset(one.name, one.spec.framework) for one in cfi.toolsets() if one.usable]
    assert len(outcomes) >= 5
    assert [(one.toolset, one.told) for one in outcomes if one.passed is not True] == []


def test_a_toolset_that_is_broken_is_found(monkeypatch):
    from captum.attr import Saliency

    plain = Saliency.attribute

    @wraps(plain)
    def off(*args, **kwargs):
        return 1.01 * plain(*args, **kwargs)

    monkeypatch.setattr(Saliency, "attribute", off)
    found = check_toolset("captum", "torch")
    assert found.passed is False and "WRONG" in found.told


def test_doctor_says_what_is_at_odds(call, monkeypatch):
    code, found = call("doctor", "--no-tests")
    assert (code, found["clashes"]) == (0, []) and "cfi-core" in found["versions"]
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    code, found = call("doctor", "--no-tests")
    assert code == 1 and found["clashes"][0]["remedy"] == "unset KERAS_BACKEND"
