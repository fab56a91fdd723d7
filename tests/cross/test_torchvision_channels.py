"""Where torch models of well-known architectures hold their channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision

from cfi_torch.adapter import TorchAdapter

ADAPTER = TorchAdapter()


@pytest.mark.parametrize("make", [torchvision.models.swin_t, torchvision.models.convnext_tiny])
def test_layers_of_models_that_permute_their_images(make: Any) -> None:
    """The size of the channel axis is known from the model's construction: 96, 192, 384, 768 or four times that."""
    model = make(weights=None).eval()
    x = torch.randn(1, 3, 64, 64)
    read = ADAPTER.activations(model, [x])
    seen = set()
    for name, value in read.items():
        if value.ndim != 4:
            continue
        axis = ADAPTER.channel_axis(model, value.shape, layer=name)
        widths = {96 * 2**i for i in range(6)}
        assert value.shape[axis] in widths and value.shape[4 - axis] not in widths, (name, value.shape)
        dims = ADAPTER.dims(model, value.shape, layer=name)
        assert dims.index("channel") == axis and [d for d in dims if d != "channel"] == ["sample", "height", "width"]
        seen.add(axis)
    assert seen == {1, 3}
    assert ADAPTER.channel_axis(model, x.shape) == 1


def test_layers_of_an_ordinary_cnn_keep_their_channels_first() -> None:
    model = torchvision.models.resnet18(weights=None).eval()
    for name, value in ADAPTER.activations(model, [torch.randn(1, 3, 64, 64)]).items():
        if value.ndim == 4:
            assert ADAPTER.channel_axis(model, value.shape, layer=name) == 1, name
    assert ADAPTER.dims(model, (1, 64, 16, 16), layer="layer1") == ("sample", "channel", "height", "width")
