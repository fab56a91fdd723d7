"""TorchRay's methods, and the pointing game. Importing this imports neither torch nor torchray."""

from cfi_torchray.game import Pointing, pointing_game
from cfi_torchray.licence import LicenceWarning

__all__ = ["LicenceWarning", "Pointing", "pointing_game"]
