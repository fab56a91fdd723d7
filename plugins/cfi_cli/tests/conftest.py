"""`cfi` in this process, with the fake toolset and models of numpy arrays: no framework is needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfi_cli import plugin
from cfi_cli.app import run
from cfi_core.testing import fake, use_plugins
from cfi_matplotlib import plugin as pictures

MODELS = '''
import numpy as np

from cfi_core.testing.fake import Painting, Print

generator = np.random.default_rng(1)
MIX, HEAD = generator.normal(size=(4, 3)), generator.normal(size=(5, 4))


def painting():
    return Painting(MIX, HEAD)


def printed():
    return Print(MIX, HEAD)


def probabilities():
    return Print(MIX, HEAD, softmax=True)


def shuffled():
    return Print(MIX, HEAD[[1, 0, 2, 3, 4]])


def heavier():
    return Print(MIX, HEAD * 1.01)


def broken():
    raise ValueError("the weights are lost")


def noisy():
    import os
    print("loading the weights")
    os.write(1, b"straight to stdout")
    return painting()


def asked_to_stop():
    raise KeyboardInterrupt


def scores():
    return lambda rows: rows @ np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 3.0]])


class Regressor:
    """As scikit-learn's are, with a hostile name."""

    classes_ = np.array(["<script>alert(1)</script>", "\\x1b[31mred"])
    n_features_in_ = 3

    def predict_proba(self, rows):
        first = 1 / (1 + np.exp(-rows[:, 0]))
        return np.stack([first, 1 - first], axis=1)


number = 3
'''


@dataclass(frozen=True)
class Ran:
    """What one call of `cfi` gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of models in it, in which `cfi` is called."""
    (tmp_path / "shop.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    np.save("images.npy", np.random.default_rng(2).normal(size=(2, 3, 5, 7)))
    yield tmp_path
    sys.modules.pop("shop", None)


@pytest.fixture
def cfi(shop: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ran]]:
    """Calls `cfi` with these arguments."""

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(one) for one in arguments])
        sys.stdout.flush()
        return Ran(code, *capfd.readouterr())

    with use_plugins(fake, plugin, pictures):
        yield call
