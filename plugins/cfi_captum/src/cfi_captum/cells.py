"""LIME on the cells of a table: between the codes that stand for them there are no distances."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from cfi_core.contract import MethodRequest
from cfi_core.errors import ArgumentError

_OF_VALUES = "get_exp_kernel_similarity_function"
_SIMILARITY = "similarity_func"


def with_similarity(request: MethodRequest, key: str, init_args: dict[str, Any]) -> dict[str, Any]:
    """LIME's arguments with a similarity of which cells are kept, where the inputs are codes.

    Raises:
        ArgumentError: The user's similarity is captum's own one of values.
    """
    if key != "lime" or not request.codes:
        return init_args
    given = init_args.get(_SIMILARITY)
    if _OF_VALUES in getattr(given, "__qualname__", ""):
        raise ArgumentError(
            f"{_SIMILARITY} compares values, and the cells of this table have codes. Leave it out: then it compares "
            f"which cells are kept; or pass a function of its third argument, which says which are."
        )
    return init_args if given is not None else {**init_args, _SIMILARITY: similarity_of_kept_cells}


def similarity_of_kept_cells(original: Any, perturbed: Any, kept: Tensor, **_: Any) -> float:
    """Captum's kernel, with the cosine between which cells are kept and all of them, as LIME has it for words.

    Args:
        original: Not looked at.
        perturbed: Not looked at.
        kept: One for each cell (or group of cells) that is kept, zero for others.
        **_: Captum hands over its settings, too.
    """
    distance = 1 - math.sqrt(float(kept.double().mean()))
    return math.exp(-(distance**2) / 2)
