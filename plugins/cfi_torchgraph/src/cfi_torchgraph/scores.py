"""What is explained of an output: one value for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cfi_core.contract import Target
from cfi_core.errors import TargetError


def choose(outputs: Any, which: int | str | None) -> Any:
    """One of several outputs; all that there is, without a choice.

    Raises:
        TargetError: There is none of that name.
    """
    if which is None:
        return outputs
    if isinstance(outputs, Mapping) or (isinstance(which, int) and isinstance(outputs, Sequence)):
        return outputs[which]  # type: ignore[index]
    if isinstance(which, str) and hasattr(outputs, which):
        return getattr(outputs, which)
    raise TargetError(
        f"The model returned {type(outputs).__name__}, which has no output {which!r}. Name a position of a tuple, a "
        "key of a dict or an attribute."
    )


def select(output: Tensor, target: Target) -> Tensor:
    """The value of each sample that an index names; the batch may be a whole number of repetitions of the samples."""
    indices = torch.tensor(target.index if target.per_sample else (target.index,), device=output.device)
    rows = torch.arange(len(output), device=output.device)
    chosen: Tensor = output[(rows, *indices[rows % len(indices)].unbind(1))]
    return chosen


def one_per_sample(values: Any, samples: int | None, origin: str = "The target function") -> Tensor:
    """What a function of the user's gave, shape (samples,).

    Args:
        values: A tensor of one value for each sample, with axes of length one behind them or not; one number for one
            sample.
        samples: How many there are; None: no tensor tells.
        origin: What gave them, for the message.

    Raises:
        TargetError: It is something else.
    """
    if samples == 1 and isinstance(values, float):
        values = torch.tensor([values], dtype=torch.float64)  # as exact as a number of Python
    elif samples == 1 and isinstance(values, Tensor) and values.dim() == 0:
        values = values[None]
    if not isinstance(values, Tensor) or values.dim() == 0 or values.numel() != len(values) or len(values) != samples:
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise TargetError(
            f"{origin} must return one value per sample ({samples} samples), but returned {found}. Reduce all axes but "
            "the first."
        )
    return values.reshape(-1)
