"""TorchRay's methods, and the pointing game. Importing this imports neither torch nor torchray."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfi_torchray.game import Pointing, pointing_game
    from cfi_torchray.licence import LicenceWarning

__all__ = ["LicenceWarning", "Pointing", "pointing_game"]

_PLACES = {"LicenceWarning": "licence", "Pointing": "game", "pointing_game": "game"}


def __getattr__(name: str) -> Any:
    """What is loaded when it is first used: listing what is installed needs none of it."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found
