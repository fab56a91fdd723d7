"""Where a torch model turns values of its inputs into numbers of Python's, which a trace holds as they were.

So does `if x.sum() > 0`, whose branches a trace knows one of; and `x / float(x.max())`. Sizes of tensors are no such
values, nor is what depends on weights and constants alone.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from cfi_core.framework import flatten

_BETWEEN = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_AS_PYTHON = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)


@contextmanager
def watch_values(inputs: Sequence[torch.Tensor]) -> Iterator[list[str]]:
    """Notes the lines of the model's code that take values of the inputs out of tensors.

    Yields:
        The lines, filled while a model runs inside: file, number and text.
    """
    lines: list[str] = []
    known = WeakTensorKeyDictionary()
    known.update(dict.fromkeys(inputs, True))
    with _Conversions(known, lines), _Operations(known, lines):
        yield lines


class _Operations(TorchDispatchMode):
    """Follows the inputs through every operation of torch, to those whose result is a number."""

    def __init__(self, known: WeakTensorKeyDictionary, lines: list[str]) -> None:
        super().__init__()
        self._known, self._lines = known, lines

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(one, torch.Tensor) and one in self._known for one in flatten((args, kwargs or {}))):
            for one in flatten(result):
                if isinstance(one, torch.Tensor):
                    self._known[one] = True
                elif isinstance(one, bool | int | float | complex):
                    _note(self._lines)
        return result


class _Conversions(TorchFunctionMode):
    """Sees what reads a tensor's memory without an operation."""

    def __init__(self, known: WeakTensorKeyDictionary, lines: list[str]) -> None:
        super().__init__()
        self._known, self._lines = known, lines

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _AS_PYTHON and args[0] in self._known:
            _note(self._lines)
        return func(*args, **(kwargs or {}))


def _note(lines: list[str]) -> None:
    """The innermost line that is neither torch's nor ours."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame = frame.f_back
    file, number = frame.f_code.co_filename, frame.f_lineno
    line = f"{file}:{number} ({linecache.getline(file, number).strip()})"
    if line not in lines:
        lines.append(line)
