"""Layers that draw random numbers in training, and do nothing in inference."""

from __future__ import annotations

from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator
from cfi_translate.keras_torch.laid import Laid
from cfi_translate.keras_torch.walk import KerasWalk

_NOISE = (
    *("Dropout", "AlphaDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("GaussianDropout", "GaussianNoise"),
)
_AUGMENTATIONS = (
    *("AugMix", "CutMix", "MixUp", "RandAugment"),
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomElasticTransform"),
    *("RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert"),
    *("RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness"),
    *("RandomShear", "RandomTranslation", "RandomZoom"),
)
"""Layers that change images in training alone; `RandomCrop` is none of them."""


@operator(*(f"layers.{name}" for name in _NOISE))
def dropout(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """Noise of training: a Dropout module where torch has the same, otherwise an Identity."""
    kind = {"Dropout": nn.Dropout, "AlphaDropout": nn.AlphaDropout}.get(op.kind)
    module = nn.Identity() if kind is None else kind(float(op.operation.rate))
    return inputs.like(to.module(op, module, inputs.node))


@operator("layers.Identity", "layers.ActivityRegularization")
def identity(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """Nothing."""
    return inputs.like(to.marker(op, inputs.node))


@operator(*(f"layers.{name}" for name in _AUGMENTATIONS))
def augmentation(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """Nothing, in inference, but the layer's type."""
    require("float" in inputs.dtype, "it is given integers, whose type it may not change as it announces")
    x = to.cast(inputs, op.output.dtype)
    return x.like(to.module(op, nn.Identity(), x.node))
