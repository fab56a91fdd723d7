"""Where a model may be made to end: in some of its outputs (`FrameworkAdapter.ended_by`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cfi_core.framework.structure import entry_of


@dataclass(frozen=True)
class Pick:
    """Ends a model in one of its outputs.

    Attributes:
        path: The keys and positions that lead there.
    """

    path: tuple[Any, ...]

    def __call__(self, outputs: Any) -> Any:
        """The output."""
        for key in self.path:
            outputs = entry_of(outputs, key)
        return outputs


@dataclass(frozen=True)
class Several:
    """Ends a model in some of its outputs.

    Attributes:
        paths: What leads to each.
    """

    paths: tuple[tuple[Any, ...], ...]

    def __call__(self, outputs: Any) -> tuple[Any, ...]:
        """The outputs, in this order."""
        return tuple(Pick(path)(outputs) for path in self.paths)
