"""Runs of an explainer that needs no framework, in this process and others."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the processes of dask and Ray get it, too

import pressing


@pytest.fixture
def plugins():
    """The fake plugin alone."""
    pressing.see_fake_plugin()


@pytest.fixture
def images():
    """Random images, channels last and not square; float32 `(50, 6, 5, 3)`."""
    return np.random.default_rng(1).normal(size=(50, 6, 5, 3)).astype(np.float32)
