"""Where nothing draws, the error names what does, each distribution once."""

from __future__ import annotations

import numpy as np
import pytest

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError


def test_each_distribution_is_named_once():
    bare = Attribution(np.ones((1, 2, 2)), ("sample", "height", "width"), "saliency", "press")
    with pytest.raises(PlotError, match="pip install") as told:
        bare.plot()
    assert str(told.value).count("cfi-matplotlib") == 1
