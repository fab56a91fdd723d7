"""Matplotlib is imported when something is drawn, and not before."""

import subprocess
import sys

CALL = """
import sys
import numpy as np
import cfi_core as cfi
import cfi_matplotlib.plugin
from cfi_core.testing import fake, use_plugins

generator = np.random.default_rng(0)
with use_plugins(fake, cfi_matplotlib.plugin):
    model = fake.Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))
    result = cfi.attribute(model, "press_gradient", inputs=generator.normal(size=(2, 3, 5, 7)), target=1)
    result.save(sys.argv[1])
    assert "matplotlib" not in sys.modules
    result.plot()
    assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""


def test_matplotlib_is_imported_when_something_is_drawn(tmp_path):
    command = [sys.executable, "-c", CALL, str(tmp_path / "numbers.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
