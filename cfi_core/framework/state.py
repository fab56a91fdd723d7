"""What a forward pass could write to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class State:
    """The user's own weights, buffers and variables as they were when this was made; by default a model has none.

    Attributes:
        is_whole: Whether `restore` can give them all back; of a large model changes may be seen alone.
    """

    is_whole: bool = True

    def changes(self, model: Any) -> tuple[str, ...]:
        """Names of those that hold something else now, in the model or in a twin of it."""
        return ()

    def numbers(self, model: Any) -> Mapping[str, float]:
        """Plain numbers among the attributes of the model (or of a twin) and of its parts, as they are now."""
        return {}

    def restore(self) -> None:
        """Gives all of them, in the user's model, the values that they had."""
