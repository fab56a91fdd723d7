"""Keras models to torch, layer by layer: a module for each layer, under the layer's name."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_translate.failures import name_failures
from cfi_translate.translators import KERAS_TORCH


@name_failures(KERAS_TORCH)
def convert(model: Any, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Writes a Keras model as torch modules, as it computes in inference mode.

    Args:
        model: Keras 3 model: functional, Sequential, or any whose `call` can be run with symbolic tensors.
        inputs: One array per input in Keras's axes, sample axis first; they give types and the sizes that the model
            leaves open.

    Returns:
        A `torch.fx.GraphModule` in evaluation mode that holds only modules of `torch.nn` and needs nothing but torch to
        be loaded. Images, and sequences that go into convolutions, are channels-first; the number of samples is free,
        other sizes are those of `inputs`. Several outputs come as a tuple, dictionaries by their sorted keys.

    Raises:
        TranslationError: It names the layer or operation that cannot be translated, and the reason.
    """
    load_safely()
    from cfi_translate.keras_torch.conversion import convert_model

    return convert_model(model, inputs)
