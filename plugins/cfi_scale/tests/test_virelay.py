"""ViRelAy's own code opens what is written for it, and finds in it what was put there."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pressing
import pytest

import cfi_core as cfi
import cfi_scale

h5py = pytest.importorskip("h5py")  # an extra
pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture
def project(tmp_path, images):
    """Of images of which one could not be explained."""
    images = np.abs(images)
    images[3] = np.nan
    cfi_scale.explain_dataset(
        pressing.explainer("press_gradient"), images, tmp_path / "s", chunk_size=8, progress=False
    )
    return images, cfi_scale.to_virelay(tmp_path / "s", images, tmp_path / "project", class_names=list("abcde"))


def test_has_its_layout(project, tmp_path):
    images, path = project
    kept = np.delete(np.arange(50), 3)
    found = cfi_scale.open_store(tmp_path / "s")
    with h5py.File(path.parent / "data.h5") as data, h5py.File(path.parent / "attribution.h5") as values:
        np.testing.assert_array_equal(data["data"], np.moveaxis(images[kept], -1, 1))
        by_store = np.moveaxis(found.attribution.values[kept], -1, 1)
        np.testing.assert_array_equal(values["attribution"], by_store.astype(np.float32))
        np.testing.assert_array_equal(values["label"], found.target.values[kept])
        np.testing.assert_array_equal(np.argmax(values["prediction"], 1), found.prediction.values[kept])
        assert values["label"].dtype == np.uint16 and values["attribution"].dtype == np.float32


def test_its_own_code_opens_it(project):
    """In a process of its own: ViRelAy is under the AGPL, and run beside this project only."""
    _, path = project
    pytest.importorskip("virelay")
    script = textwrap.dedent(f"""
        import numpy as np
        from virelay.model import Project

        project = Project({str(path)!r})
        assert len(project.dataset) == 49
        sample = project.dataset.get_sample(7)
        assert sample.data.shape == (6, 5, 3), sample.data.shape
        attribution = project.get_attribution(7)
        assert attribution.data.shape == (6, 5, 3), attribution.data.shape
        np.save({str(path.parent / "seen.npy")!r}, attribution.data)
        assert [label.name for label in attribution.labels] == ["abcde"[attribution.prediction.argmax()]]
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with h5py.File(path.parent / "attribution.h5") as values:
        np.testing.assert_array_equal(np.load(path.parent / "seen.npy"), np.moveaxis(values["attribution"][7], 0, -1))


def test_refuses_what_it_cannot_show(tmp_path, images):
    cfi_scale.explain_dataset(
        pressing.explainer("press_gradient"), images, tmp_path / "s", chunk_size=8, progress=False
    )
    with pytest.raises(cfi.InputError, match="40 samples, and the store 50"):
        cfi_scale.to_virelay(tmp_path / "s", images[:40], tmp_path / "p")
    with pytest.raises(cfi.ArgumentError, match="Name all classes"):
        cfi_scale.to_virelay(tmp_path / "s", images, tmp_path / "p", class_names=["a"])
