"""Completeness, as it was measured when the attribution was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.checks.question import Question
from cfi_core.checks.results import Check
from cfi_core.errors import MethodError


def read_completeness(
    model: Any,
    attribution: Attribution,
    name: str,
    *,
    inputs: Any = None,
    target: Any = None,
    explain: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Check:
    """How far the sum of the values is from what the method promises, from the provenance; nothing is run.

    Raises:
        MethodError: The method promises none, or it could not be measured.
    """
    Question.of(model, attribution, inputs, target, explain, seed)
    told = attribution.provenance.get("completeness") or {}
    if told.get("gap") is None:
        raise MethodError(f"{told.get('why', 'the provenance does not tell it')}.")
    gap, bound = float(told["gap"]), float(told["bound"])
    return Check(
        name=name,
        scores=np.array([gap]),
        better="lower",
        means=f"largest gap between the sum of the values and {told['against']}, relative",
        reference=np.array([bound]),
        reference_is="at most expected",
        verdict=f"the values do not add up: a gap of {gap:.1%} where {bound:.1%} is expected" if gap > bound else "",
        settings={"against": told["against"]},
        citation="Sundararajan, Taly & Yan 2017, Axiomatic Attribution for Deep Networks",
    )
