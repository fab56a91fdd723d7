"""How well values are known that are made of random draws, and how many draws would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cfi_core.contract import Sampling
from cfi_core.errors import SamplingWarning, warn
from cfi_core.records import Call

LARGEST = 0.1
"""How large the standard errors of values may be together, relative to the values, before it is told."""


def measure_sampling(
    call: Call, sampling: Sampling | None, values: Sequence[np.ndarray], errors: Sequence[np.ndarray]
) -> dict[str, Any] | None:
    """Compares the standard errors with the values, by the norm of all of them together.

    Returns:
        For the provenance: `draws`, the `argument` that sets their number and the `relative` error (infinite where the
        draws are too few to tell); None where it is not known.

    Warns:
        SamplingWarning: It is larger than a tenth.
    """
    if sampling is None:
        return None
    relative = _norm(errors) / _norm(values) if _norm(values) else 0.0
    if relative > LARGEST:
        warn(_tell(call, sampling, relative), SamplingWarning)
    return {"draws": sampling.draws, "argument": sampling.argument, "relative": relative}


def _tell(call: Call, sampling: Sampling, relative: float) -> str:
    method, argument = call.plan.method, sampling.argument
    made = "a mean over" if argument == "baselines" else "made of"
    begin = f"{method.key} of {method.toolset} is {made} {sampling.draws} {argument if made[0] == 'a' else 'draws'}"
    if not math.isfinite(relative):
        return (
            f"{begin}, which are too few to tell how far its values are off: they may be noise. Draw many times more "
            f"({argument}), or let it explain fewer features, in groups."
        )
    needed = _round_up(sampling.draws * (relative / LARGEST) ** 2)
    where = "init_args" if argument in method.init_args else "exec_args"
    more = f"About {needed:,} baselines" if argument == "baselines" else f"{where}={{'{argument}': {needed}}}"
    return (
        f"{begin}, and its values are off by some {relative:.0%} for that (standard error by the spread of the draws; "
        f"extras['standard_error'] has it for each value). {more} would bring it down to {LARGEST:.0%}."
    )


def _round_up(number: float) -> int:
    """To two digits: more would be no better known."""
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit


def _norm(parts: Sequence[np.ndarray]) -> float:
    return math.sqrt(sum(float(np.square(one.astype(np.float64)).sum()) for one in parts))
