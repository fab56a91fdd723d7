"""Whether a method that draws says rightly how well its values are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cfi_core.attribution import Attribution


def assert_spread_is_told(
    explain: Callable[[int], Attribution], *, seeds: int = 50, within: float = 0.25, covered: float = 0.88
) -> None:
    """Fails unless the standard errors that a method gives are the spread of its values over seeds.

    Args:
        explain: Gives the attribution with a seed.
        seeds: How many are tried.
        within: By what part all errors together may be off.
        covered: Part of the values that must lie within twice their error of the mean over all seeds; were errors
            normal, 95 % would.
    """
    found = [explain(seed) for seed in range(seeds)]
    for part in range(len(found[0].parts)):
        values = np.stack([one.parts[part][0] for one in found]).astype(np.float64)
        errors = np.stack([_errors(one)[part] for one in found]).astype(np.float64)
        assert values.shape == errors.shape, f"errors of shape {errors.shape[1:]} for values of {values.shape[1:]}"
        spread, told = values.std(0, ddof=1), np.sqrt(np.square(errors).mean(0))
        ratio = float(np.linalg.norm(told) / np.linalg.norm(spread))
        assert abs(ratio - 1) <= within, f"errors are told {ratio:.2f} times the spread over {seeds} seeds"
        inside = float((np.abs(values - values.mean(0)) <= 2 * errors).mean())
        assert inside >= covered, f"{inside:.0%} of the values lie within twice their error of the mean over all seeds"


def _errors(attribution: Attribution) -> list[np.ndarray]:
    assert "standard_error" in attribution.extras, f"{attribution.method_key} tells no errors"
    told = attribution.extras["standard_error"]
    if isinstance(told, dict):
        return list(told.values())
    return list(told) if isinstance(told, tuple) else [told]
