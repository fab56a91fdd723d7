"""Layers and operations that enlarge or shrink images."""

from __future__ import annotations

from torch import nn

from cfi_translate.grammar import require
from cfi_translate.keras_torch.calls import LayerCall, operator
from cfi_translate.keras_torch.laid import Laid
from cfi_translate.keras_torch.operators.convolution import as_images
from cfi_translate.keras_torch.walk import KerasWalk


@operator("layers.UpSampling1D", "layers.UpSampling2D", "layers.UpSampling3D")
def up_sampling(op: LayerCall, to: KerasWalk, inputs: Laid) -> Laid:
    """An Upsample module."""
    layer, x = op.operation, as_images(op, to, inputs)
    factors = tuple(float(one) for one in (layer.size if isinstance(layer.size, list | tuple) else (layer.size,)))
    mode = _mode(getattr(layer, "interpolation", "nearest"))
    module = nn.Upsample(scale_factor=factors, mode=mode, align_corners=False if mode == "bilinear" else None)
    return op.result(to.module(op, module, x.node), x.axes)


@operator("layers.Resizing", "ops.Resize")
def resize(op: LayerCall, to: KerasWalk, images: Laid) -> Laid:
    """An Upsample module to a fixed size."""
    own = op.operation
    require(not own.crop_to_aspect_ratio and not own.pad_to_aspect_ratio, "it keeps the aspect ratio")
    require(not own.antialias, "torch filters against aliasing in another way")
    require(images.rank == 4, "its input is no batch of images")
    x = to.cast(as_images(op, to, images), op.output.dtype)
    size = (own.height, own.width) if op.is_layer else tuple(own.size)
    if _mode(own.interpolation) == "nearest":
        module = nn.Upsample(size=size, mode="nearest-exact")  # TensorFlow takes the nearest centre
    else:
        module = nn.Upsample(size=size, mode="bilinear", align_corners=False)
    return op.result(to.module(op, module, x.node), x.axes)


def _mode(interpolation: str) -> str:
    known = interpolation in ("nearest", "bilinear")
    require(known, f"torch interpolates {interpolation!r} with other coefficients")
    return interpolation
