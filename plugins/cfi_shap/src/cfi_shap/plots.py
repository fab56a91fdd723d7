"""SHAP's plots in figures of their own: pyplot, its settings and the user's figures stay as they are."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import shap

from cfi_core import Attribution

_LOCK = threading.Lock()


def draw_image(attribution: Attribution, **options: Any) -> Any:
    """Values beside the inputs."""
    (values, dims) = attribution.parts[0]
    order = sorted(range(len(dims)), key=lambda axis: dims[axis] == "channel")
    given = [array.transpose(order) for array in attribution.inputs if array.ndim == len(dims)]
    return _draw("image", values.transpose(order), *given[:1] or [np.zeros_like(values)], **options)


def _draw_features(kind: str, attribution: Attribution, sample: int | None = None, **options: Any) -> Any:
    """All samples, or one of them."""
    values, data = attribution.parts[0][0], next(iter(attribution.inputs), None)
    known = attribution.part_names[0] or ()
    of_all = known and isinstance(known[0], str)
    of_sample = () if of_all or sample is None or not known else known[sample]
    names = list(known if of_all else of_sample) or [f"feature {i}" for i in range(values.shape[1])]
    found = shap.Explanation(values, _base(attribution, len(values)), data, feature_names=names)
    return _draw(kind, found if sample is None else found[sample], **options)


def _base(attribution: Attribution, count: int) -> np.ndarray:
    """What the values of each sample start from: the mean output at the baselines; 0 where it is not known."""
    known = (attribution.provenance.get("completeness") or {}).get("at_baselines", ())
    return np.asarray(known, np.float64) if len(known) == count else np.zeros(count)


draw_bar = partial(_draw_features, "bar")
draw_beeswarm = partial(_draw_features, "beeswarm")
draw_waterfall = partial(_draw_features, "waterfall", sample=0)


def _draw(kind: str, *values: Any, **options: Any) -> Any:
    from matplotlib import pyplot  # noqa: TID251 - shap draws into its current figure

    with _LOCK, matplotlib.rc_context(), pyplot.ioff():
        before, state = set(pyplot.get_fignums()), np.random.get_state()
        try:
            np.random.seed(0)  # beeswarms are spread at random
            pyplot.figure()
            getattr(shap.plots, kind)(*values, show=False, **options)
            return pyplot.gcf()
        finally:
            np.random.set_state(state)
            for number in set(pyplot.get_fignums()) - before:
                pyplot.close(number)
