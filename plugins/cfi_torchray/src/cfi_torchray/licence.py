"""TorchRay's licence, of which its users are told once."""

from __future__ import annotations

from cfi_core.errors import CFIWarning, warn

LICENCE = "CC BY-NC 4.0"
_told: list[str] = []


class LicenceWarning(CFIWarning):
    """A library that a method runs may not be used for every purpose."""


def tell_licence() -> None:
    """Tells it, the first time in a process."""
    if _told:
        return
    _told.append(LICENCE)
    warn(
        f"TorchRay is licensed for non-commercial use only ({LICENCE}); cfi-torchray calls it, and changes nothing of "
        f"that. This is told once per process; warnings.filterwarnings('ignore', category=cfi_torchray.LicenceWarning) "
        f"leaves it out.",
        LicenceWarning,
    )
