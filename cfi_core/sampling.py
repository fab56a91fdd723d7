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

NOISE = 0.5
"""The same for each sample by itself, which large values of others must not hide."""

_MARGIN = 1.5
"""Draws beyond what would just do: an error that few draws tell is a guess itself, and nobody is to be told twice."""


def measure_sampling(
    call: Call, sampling: Sampling | None, values: Sequence[np.ndarray], errors: Sequence[np.ndarray]
) -> dict[str, Any] | None:
    """Compares the standard errors with the values, by the norm of all of them together.

    Returns:
        For the provenance: `draws`, the `argument` that sets their number and the `relative` error (infinite where the
        draws are too few to tell, or the values zero and the errors not); None where it is not known.

    Warns:
        SamplingWarning: It is larger than a tenth or, of one sample, than half.
    """
    if sampling is None:
        return None
    relative = _relative(errors, values)
    each = _of_each(errors, values)
    worst = int(np.argmax(each))
    if relative > LARGEST:
        largest = max((float(one.max(initial=0)) for one in errors), default=0.0)
        warn(_tell(call, sampling, relative, largest), SamplingWarning)
    elif each[worst] > NOISE:
        warn(_tell_of_sample(call, sampling, each[worst], worst), SamplingWarning)
    return {"draws": sampling.draws, "argument": sampling.argument, "relative": relative}


def _tell(call: Call, sampling: Sampling, relative: float, largest: float) -> str:
    argument, begin = sampling.argument, _begin(call, sampling)
    if not math.isfinite(largest):
        return (
            f"{begin}: too few to tell how far its values are off, which may be noise. Draw many times more "
            f"({argument}), or let it explain fewer features, in groups."
        )
    if not math.isfinite(relative):
        return f"{begin}, and its values are zero, with standard errors of up to {largest:.1g}: {_NOT_KNOWN}"
    return (
        f"{begin}, and its values are off by some {relative:.0%} for that (standard error by the spread of the draws; "
        f"extras['standard_error'] has it for each value). {_advise(call, sampling, relative / LARGEST)} would bring "
        f"it below {LARGEST:.0%}."
    )


def _tell_of_sample(call: Call, sampling: Sampling, relative: float, sample: int) -> str:
    """Of one whose values are noise beside larger ones of others."""
    begin = f"{_begin(call, sampling)}, and its values of sample {sample}"
    if not math.isfinite(relative):
        return f"{begin} are zero, with standard errors that are not: {_NOT_KNOWN}"
    return (
        f"{begin} are off by some {relative:.0%} for that (standard error; those of other samples are larger, and less "
        f"off). {_advise(call, sampling, relative / NOISE)} would bring it below {NOISE:.0%}."
    )


_NOT_KNOWN = "what they are, so few draws do not tell. Draw more, or (LIME) take a penalty that leaves something."


def _begin(call: Call, sampling: Sampling) -> str:
    method, of_baselines = call.plan.method, sampling.argument == "baselines"
    noun = "baseline" if of_baselines else "draw"
    made = "a mean over" if of_baselines else "made of"
    return f"{method.key} of {method.toolset} is {made} {sampling.draws} {noun}{'s' * (sampling.draws != 1)}"


def _advise(call: Call, sampling: Sampling, factor: float) -> str:
    """How many draws make the errors smaller by that factor, and a little more."""
    needed = _round_up(_MARGIN * sampling.draws * factor**2)
    if sampling.argument == "baselines":
        return f"About {needed:,} baselines"
    where = "init_args" if sampling.argument in call.plan.method.init_args else "exec_args"
    return f"{where}={{'{sampling.argument}': {needed}}}"


def _round_up(number: float) -> int:
    """To two digits: more would be no better known."""
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit


def _of_each(errors: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> list[float]:
    """The relative error of each sample; nothing to tell where the first axes are not the same."""
    if len({one.shape[:1] for one in values}) != 1:
        return [0.0]
    return [_relative([one[row] for one in errors], [one[row] for one in values]) for row in range(len(values[0]))]


def _relative(errors: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> float:
    """The norm of all errors together, in relation to that of all values."""
    size, error = _norm(values), _norm(errors)
    return error / size if size else math.inf if error else 0.0


def _norm(parts: Sequence[np.ndarray]) -> float:
    return math.sqrt(sum(float(np.square(one.astype(np.float64)).sum()) for one in parts))
