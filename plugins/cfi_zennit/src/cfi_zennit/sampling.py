"""How well the values of SmoothGrad are known, heard while it averages."""

from __future__ import annotations

from typing import Any

import zennit.attribution
from torch import Tensor

from cfi_core.contract import Sampling
from cfi_core.moments import Moments


class SmoothGrad(zennit.attribution.SmoothGrad):
    """Zennit's, which notes the spread of the gradients; the last one is that of the inputs without noise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.moments = Moments()
        self._calls = 0

    def grad(self, input: Tensor, attr_output_fn: Any) -> Any:
        """As before."""
        output, gradient = super().grad(input, attr_output_fn)
        self._calls += 1
        if self._calls < self.n_iter:
            self.moments.add(gradient.detach().cpu().numpy()[None])
        return output, gradient


def sampling_of(attributor: Any) -> Sampling | None:
    """How well the values of an attributor are known; None of one that does not draw."""
    if not isinstance(attributor, SmoothGrad) or attributor.n_iter < 2:
        return None
    drawn = attributor.n_iter - 1
    errors = attributor.moments.error_of_mean() * drawn / attributor.n_iter
    return Sampling((errors,), attributor.n_iter, "n_iter")
