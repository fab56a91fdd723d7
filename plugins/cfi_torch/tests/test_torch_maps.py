"""Layers shown as maps: the model stays what it is, and all that the layer gives in space goes through the map."""

import numpy as np
import pytest
import torch
from torch import nn

from cfi_core.framework import Layout
from cfi_torch.adapter import TorchAdapter

ADAPTER = TorchAdapter()


class Model(nn.Module):
    """A layer whose output has any axes, followed by what depends on each element of it in another way."""

    def __init__(self, shape: tuple[int, ...], samples: int, *, paired: bool = False) -> None:
        super().__init__()
        self.layer, self.paired = Layer(shape, paired=paired), paired
        self.weight = nn.Parameter(torch.randn(samples, 3, 24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(x)
        out = out[0] if self.paired else out
        return (self.weight[: len(x)] * torch.tanh(out.reshape(len(x), 1, -1)) ** 2).sum(-1)


class Layer(nn.Module):
    def __init__(self, shape: tuple[int, ...], *, paired: bool) -> None:
        super().__init__()
        self.shape, self.paired = shape, paired

    def forward(self, x: torch.Tensor) -> object:
        out = (x * 2).reshape(self.shape)
        return (out, None) if self.paired else out


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 8, 3), Layout((2, 3), (1, 2, 3, 4, 5, 6), 2, others=(0, 7))),
        ((2, 3, 8), Layout((2, 3), (7, 5, 3, 1, 0, 2), 1, others=(4, 6))),
        ((2, 2, 4, 3), Layout((2, 4), tuple(range(8)), 3)),
        ((4, 4, 3), Layout((4, 2), (0, 1, 4, 5, 2, 3, 6, 7), 2, rows=2)),
    ],
)
def test_a_layer_is_shown_as_a_map_without_changing_anything(shape, layout, paired):
    torch.manual_seed(0)
    model, x = Model(shape, 2, paired=paired), torch.randn(2, 24)
    expected, plain = model(x), (x * 2).reshape(shape)
    cotangent = torch.autograd.grad(model(leaf := x.clone().requires_grad_())[:, 1].sum(), leaf)[0] / 2
    twin = ADAPTER.twin(model)
    shown_model, shown = ADAPTER.show_map(twin, twin.layer, layout)
    seen: list[torch.Tensor] = []
    shown.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    output = shown_model(x.clone().requires_grad_())
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    wanted = layout.in_space(plain.numpy())
    np.testing.assert_array_equal(seen[0].detach().numpy(), np.moveaxis(wanted, -1, 1))
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), seen[0])
    at_layer = layout.in_space(cotangent.reshape(shape).numpy())
    np.testing.assert_allclose(np.moveaxis(gradient.numpy(), 1, -1), at_layer, rtol=1e-6)


def test_what_replaces_the_map_goes_on_in_its_place():
    model, x = Model((2, 8, 3), 2), torch.randn(2, 24)
    layout = Layout((2, 3), (1, 2, 3, 4, 5, 6), 2, others=(0, 7))
    _, shown = ADAPTER.show_map(model, model.layer, layout)
    handle = shown.register_forward_hook(lambda _module, _inputs, output: output * 0 + 5)
    left = model.layer(x)
    handle.remove()
    assert (left[:, 1:7] == 5).all()
    torch.testing.assert_close(left[:, [0, 7]], (x * 2).reshape(2, 8, 3)[:, [0, 7]])


def test_channels_are_certain_by_the_kind_of_layer_or_by_one_size_alone():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Identity(), nn.LayerNorm(8), nn.Linear(8, 5))
    assert ADAPTER.is_certain(model, (2, 8, 8, 8), "0")
    assert ADAPTER.is_certain(model, (2, 7, 7, 8), "1") and ADAPTER.is_certain(model, (2, 8, 7, 7), "1")
    assert ADAPTER.is_certain(model, (2, 8, 8, 8), "2")
    assert not ADAPTER.is_certain(model, (2, 8, 8, 8), "1") and not ADAPTER.is_certain(model, (2, 7, 7, 7), "1")
