"""`cfi explain-dataset` and `cfi status`, as `cfi` runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pressing
import pytest
import xarray

cfi_cli = pytest.importorskip("cfi_cli.app")  # not required
pytestmark = pytest.mark.usefixtures("plugins")

OF_IMAGES = ["explain-dataset", "pressing:network", "images.npy", "s", "-m", "press_gradient"]


@pytest.fixture
def made(tmp_path, images, monkeypatch):
    """A folder with a model's factory and data."""
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", images)
    np.save("labels.npy", np.arange(50) % 5)
    np.save("halves.npy", np.arange(50) / 2 % 5)
    np.save("few.npy", np.arange(7) % 5)
    np.save("objects.npy", np.array([{}, 1], object), allow_pickle=True)
    Path("broken.npy").write_bytes(b"\x93NUMPY")
    Path("broken.h5").write_bytes(b"nothing")
    return tmp_path


def explain(*more):
    return cfi_cli.run(["explain-dataset", "pressing:network", "images.npy", "out.zarr", "-m", *more, "-q"])


def test_explains_and_tells_how_far_it_is(made, images, capsys):
    assert explain("press_gradient@press", "--target", "labels.npy", "--batch-size", "4", "--chunk-size", "8") == 0
    told = capsys.readouterr()
    assert "50 explained, 0 could not be, 0 left of 50" in told.out and told.err == ""
    by_hand = pressing.network().gradients(images, np.eye(5)[np.arange(50) % 5])["input"]
    np.testing.assert_allclose(xarray.open_zarr("out.zarr").attribution, by_hand, rtol=1e-6)
    assert cfi_cli.run(["status", "out.zarr"]) == 0
    assert "complete" in capsys.readouterr().out
    assert cfi_cli.run(["status", "out.zarr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["explained"] == 50


def test_a_store_that_is_not_complete_exits_with_1(made, images, capsys):
    images[40] = np.nan
    np.save("images.npy", images)
    assert explain("press_gradient", "--max-bad", "0", "--batch-size", "4", "--chunk-size", "8") == 3
    assert "max_bad is 0" in capsys.readouterr().err
    assert cfi_cli.run(["status", "out.zarr"]) == 1
    told = capsys.readouterr().out
    assert "40 explained, 0 could not be, 10 left of 50" in told and "goes on with the rest" in told
    assert explain("press_gradient", "--batch-size", "4", "--chunk-size", "8") == 0
    assert "error      1 × 90 of its 90 values are NaN (such as 40)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["status", "nowhere.zarr"], "There is no store at"),
        (["explain-dataset", "pressing:network", "nowhere.npy", "s", "-m", "press_gradient"], "There are no data at"),
        (["explain-dataset", "pressing:network", ".", "s", "-m", "press_gradient"], "--preprocess"),
        ([*OF_IMAGES, "--exec", "scale"], "NAME=VALUE"),
        ([*OF_IMAGES, "--executor", "dusk"], "'serial', 'dask'"),
        ([*OF_IMAGES, "--target", "halves.npy"], "holds no indices"),
        ([*OF_IMAGES, "--target", "few.npy"], "50 samples and 7 of target"),
        (["explain-dataset", "pressing:network", "broken.npy", "s", "-m", "press_gradient"], "cannot be read"),
        (["explain-dataset", "pressing:network", "objects.npy", "s", "-m", "press_gradient"], "cannot be read"),
        (["explain-dataset", "pressing:network", "broken.h5:x", "s", "-m", "press_gradient"], "cannot be read"),
        (["explain-dataset", "pressing:network", "none.h5:x", "s", "-m", "press_gradient"], "There are no data at"),
        (["status", "images.npy"], "was not written by cfi_scale"),
        (["status", "."], "There is no store at"),
    ],
)
def test_what_cannot_be_done_is_told_in_two_lines(made, capsys, arguments, told):
    assert cfi_cli.run(arguments) == 3
    assert told in capsys.readouterr().err
