"""The fake plugin in place of all installed ones: core is tested without any framework."""

from collections.abc import Iterator

import numpy as np
import pytest

from cfi_core.registry import Registry
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting


@pytest.fixture
def registry() -> Iterator[Registry]:
    with use_plugins(fake) as current:
        yield current


@pytest.fixture
def painting(registry: Registry) -> Painting:
    generator = np.random.default_rng(1)
    return Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))


@pytest.fixture
def images() -> np.ndarray:
    """RGB and not square, so that no swapped axis goes unnoticed."""
    return np.random.default_rng(2).normal(size=(2, 3, 5, 7))
