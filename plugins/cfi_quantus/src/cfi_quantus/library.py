"""Quantus, imported in the one order in which torch and TensorFlow get on: it imports whatever of them is installed."""

from cfi_core.coexistence import load_safely
from cfi_core.silence import without_warnings

load_safely()

with without_warnings():  # its modules are compiled with warnings
    import quantus
    from quantus.functions.perturb_func import baseline_replacement_by_mask
    from quantus.helpers import utils
    from quantus.helpers.model.pytorch_model import PyTorchModel

__all__ = ["PyTorchModel", "baseline_replacement_by_mask", "quantus", "utils"]
