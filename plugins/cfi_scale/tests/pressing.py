"""An explainer whose plugin no process has installed: wherever it arrives, it brings the fake plugin along."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

import cfi_core as cfi
from cfi_core.testing import fake, use_plugins

_seen = []


def see_fake_plugin():
    """For the rest of the process."""
    if not _seen:
        _seen.append(use_plugins(fake, with_installed=True))
        _seen[0].__enter__()


class Pressing(cfi.Explainer):
    """An explainer that takes its time, notes its calls, and fails on images that begin with `fails_at`."""

    pause, log, fails_at = 0.0, None, None

    def __call__(self, inputs=None, target=None, **named):
        see_fake_plugin()
        time.sleep(self.pause)
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()} {len(inputs)}\n")
        if self.fails_at is not None and (np.asarray(inputs)[:, 0, 0, 0] == self.fails_at).any():
            raise ValueError("this image does not suit me")
        return super().__call__(inputs, target, **named)

    @property
    def fingerprint(self):
        see_fake_plugin()
        return super().fingerprint

    def __getstate__(self):
        return {**super().__getstate__(), "own": (self.pause, self.log, self.fails_at)}

    def __setstate__(self, state):
        self.pause, self.log, self.fails_at = state.pop("own")
        super().__setstate__(state)


def network():
    """The network of the fake plugin, channels last."""
    rng = np.random.default_rng(0)
    return fake.Print(rng.normal(size=(4, 3)), rng.normal(size=(5, 4)))


def explainer(method="press_noise", *, pause=0.0, log=None, fails_at=None, **asked):
    """Of the network."""
    made = Pressing(network(), method, **{"target": "predicted", **asked} if method != "press_noise" else asked)
    made.pause, made.log, made.fails_at = pause, log, fails_at
    return made


def tree(folder):
    """The bytes of every file below a folder."""
    folder = Path(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
