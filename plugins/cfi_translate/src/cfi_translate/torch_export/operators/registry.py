"""Which function writes which operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Writer = Callable[..., Any]
WRITERS: dict[Any, Writer] = {}


def writes(*names: str) -> Callable[[Writer], Writer]:
    """Registers a function for operators of `torch.ops.aten`, such as `conv2d` or `add.Tensor`.

    It is called with the emitter and the operator's arguments in the order of its schema, defaults filled in.
    """

    def decorate(writer: Writer) -> Writer:
        for name in names:
            packet, _, overload = name.partition(".")
            operator = getattr(torch.ops.aten, packet, None)
            found = None if operator is None else getattr(operator, overload or "default", None)
            if found is not None:  # not every version of torch has every operator
                WRITERS[found] = writer
        return writer

    return decorate
