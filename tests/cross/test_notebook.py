"""A notebook with a toolset that imports pyplot by itself: pictures are still shown once, and a file comes back."""

from __future__ import annotations

import io
from base64 import b64decode
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

import cfi_core as cfi

CELLS = {
    "begin": """
import sys
import numpy as np
import cfi_core as cfi
weights = np.random.default_rng(0).normal(size=(3, 12, 16, 4))
images = np.random.default_rng(1).random((2, 3, 12, 16))
def scores(images):
    return np.einsum("nchw,chwk->nk", images, weights)
call = dict(inputs=images, target=[3, 1], exec_args={"feature_mask": np.arange(192).reshape(1, 1, 12, 16) // 24})""",
    "a call": "ablation = cfi.attribute(scores, 'feature_ablation', 'captum', **call, plot=True)",
    "the value": "ablation",
    "a loop": "for toolset in ('captum',):\n    ablation.plot(max_samples=1)\n    print(toolset)",
    "a figure at the end": "ablation.plot()",
    "a plan": "cfi.plan(scores, 'lime', inputs=images, target=0)",
    "methods": "cfi.methods(toolset='captum')",
    "files": "ablation.save(f'{folder}/a.npz')\ncfi.load(f'{folder}/a.npz')",
    "pyplot": "from matplotlib import pyplot\nprint(pyplot.get_fignums(), pyplot.get_backend())",
    "the user's own": "pyplot.plot([1, 2])\nablation.plot();",
}
PICTURES = {"a call": 1, "the value": 1, "a loop": 1, "a figure at the end": 1, "files": 1, "the user's own": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def outputs(folder: Path) -> dict[str, list[Any]]:
    cells = {**CELLS, "begin": f"{CELLS['begin']}\nfolder = {str(folder)!r}"}
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells.values())))
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return {name: cell.outputs for name, cell in zip(cells, notebook.cells, strict=True)}


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_shows_its_pictures_once(outputs: dict[str, list[Any]], cell: str) -> None:
    shown = [one for one in outputs[cell] if "image/png" in one.get("data", {})]
    assert len(shown) == PICTURES.get(cell, 0)
    for one in shown:
        assert np.asarray(Image.open(io.BytesIO(b64decode(one.data["image/png"]))).convert("L")).std() > 10


def test_pyplot_holds_no_figure_and_has_the_backend_of_notebooks(outputs: dict[str, list[Any]]) -> None:
    (said,) = outputs["pyplot"]
    assert said.text.startswith("[] ") and said.text.endswith("inline\n")


def test_a_file_that_a_notebook_wrote_is_read_here(outputs: dict[str, list[Any]], folder: Path) -> None:
    found = cfi.load(folder / "a.npz")
    assert found.certificate is not None and found.certificate.faithful and found.target == [3, 1]
    weights = np.random.default_rng(0).normal(size=(3, 12, 16, 4))
    images = np.random.default_rng(1).random((2, 3, 12, 16))
    np.testing.assert_array_equal(found.inputs[0], images)
    # What the score of a linear model loses with 24 pixels, told at each of them.
    shares = np.stack([image * weights[..., target] for image, target in zip(images, found.target, strict=True)])
    lost = shares.sum(1).reshape(2, 8, 24).sum(2)
    np.testing.assert_allclose(found.values[:, 0], lost.repeat(24, 1).reshape(2, 12, 16), rtol=1e-4, atol=1e-5)
