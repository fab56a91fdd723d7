"""For tests of toolsets with rules: rectifiers that are no operation of their own, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


def _with_zero(values: Tensor, dim: int = 0) -> Tensor:
    return torch.stack([values, torch.zeros_like(values)], dim)


def _in_part(values: Tensor) -> Tensor:
    values = values.clone()
    values[:, :3] = values[:, :3] * (values[:, :3] > 0)
    return values


def _in_part_in_place(values: Tensor) -> Tensor:
    values = values.clone()
    values[:, :3].mul_(values[:, :3] > 0)
    return values


def _abs_in_part(values: Tensor) -> Tensor:
    values = values.clone()
    values[:, :3].abs_()
    return values


def _written(values: Tensor) -> Tensor:
    mask = torch.zeros_like(values)
    mask.copy_(values > 0)
    return values * mask


def _without_gradients(values: Tensor) -> Tensor:
    with torch.no_grad():
        mask = (values > 0).to(values.dtype)
    return mask * values


def _by_assignment(values: Tensor) -> Tensor:
    values = values.clone()
    values[values < 0] = 0
    return values


def _through_numpy(values: Tensor) -> Tensor:
    return values * torch.from_numpy(values.detach().numpy() > 0)


REFUSED_RECTIFIERS: Mapping[str, Function] = {
    "h * (h > 0)": lambda h: h * (h > 0),
    "(h > 0).float() * h": lambda h: (h > 0).to(h.dtype) * h,
    "aten": lambda h: torch.ops.aten.mul.Tensor(h, torch.ops.aten.gt.Scalar(h, 0)),
    "mul_": lambda h: h.clone().mul_(h > 0),
    "heaviside": lambda h: h * torch.heaviside(h.detach(), torch.zeros((), dtype=h.dtype)),
    "detached sign": lambda h: h * h.sign().clamp(min=0).detach(),
    "half of one and the sign": lambda h: h * (1 + torch.sign(h.detach())) / 2,
    "data": lambda h: h * torch.ge(h.data, 0),
    "no_grad": _without_gradients,
    "bool and": lambda h: h * torch.logical_and(h > 0, h < 100),
    "leaky": lambda h: h * torch.where(h > 0, 1.0, 0.1),
    "a threshold": lambda h: h * (h > 0.1),
    "quotient": lambda h: h / torch.where(h > 0, 1.0, torch.inf),
    "einsum": lambda h: torch.einsum("nc,nc->nc", h, (h > 0).to(h.dtype)),
    "diagonal matrix": lambda h: torch.bmm(torch.diag_embed((h > 0).to(h.dtype)), h[..., None])[..., 0],
    "a mask that is written": _written,
    "a part": _in_part,
    "a part in place": _in_part_in_place,
    "another activation of a part in place": _abs_in_part,
    "numpy": _through_numpy,
    "vmap": torch.vmap(lambda h: h * (h > 0)),
    "where": lambda h: torch.where(h > 0, h, 0.0),
    "masked_fill": lambda h: h.masked_fill(h < 0, 0.0),
    "assignment": _by_assignment,
    "half of the sum with abs": lambda h: (h + h.abs()) / 2,
    "less its negative part": lambda h: h - torch.clamp_max(h, 0),
    "the negative of a bound": lambda h: -torch.clamp_max(-h, 0),
    "max": lambda h: torch.max(h, torch.zeros_like(h)),
    "fmax": lambda h: torch.fmax(h, torch.zeros_like(h)),
    "amax": lambda h: _with_zero(h).amax(0),
    "max over an axis": lambda h: _with_zero(h).max(0).values,
    "max pooling": lambda h: F.max_pool1d(_with_zero(h, -1), 2)[..., 0],
    "padded max": lambda h: F.pad(h[..., None], (0, 1)).amax(-1),
    "sort": lambda h: _with_zero(h).sort(0).values[1],
    "gather": lambda h: _with_zero(h).gather(0, (h <= 0).long()[None])[0],
    "softmax": lambda h: h * (_with_zero(h) * 1e6).softmax(0)[0],
    "straight through": lambda h: h + (F.relu(h.detach()) - h.detach()),
    "root of the square": lambda h: (h + (h * h).sqrt()) / 2,
}
"""Of values of shape (samples, units); guided backpropagation and deconvolution must refuse, or serve, each."""


def _stretch(h: Tensor) -> Tensor:
    h = h.clone()
    h[:, :3] = 2 * h[:, :3]
    h[:, 1:] += 1
    return h.view(len(h), -1)


NO_RECTIFIERS: Mapping[str, Function] = {
    "a number": lambda h: 0.5 * h + 1,
    "a constant factor for each unit": lambda h: h * torch.linspace(-1, 1, h.shape[1]),
    "a constant mask": lambda h: h * (torch.arange(h.shape[1]) % 2).to(h.dtype).expand_as(h),
    "where, by a constant": lambda h: torch.where(torch.arange(h.shape[1]) > 2, h, 0.5),
    "masked_fill, by a constant": lambda h: h.masked_fill(torch.arange(h.shape[1]) > 2, -1e4),
    "ones": lambda h: h * torch.ones_like(h) / h.new_full((1,), 2.0),
    "dropout": lambda h: F.dropout(h, training=False),
    "dropout of a view in place": lambda h: F.dropout((2 * h).view(len(h), 3, -1).flatten(1), 0.5, False, True),
    "a gate with a gradient": lambda h: h * h.mean(1, keepdim=True),
    "a bilinear form": lambda h: h * h.flip(1),
    "attention": lambda h: (h[:, :, None] * h[:, None]).softmax(-1).matmul(h[..., None])[..., 0],
    "normalised without a gradient": lambda h: h / h.detach().norm(dim=1, keepdim=True),
    "a mask of whole samples": lambda h: h * (h.detach().abs().sum(1, keepdim=True) > 0),
    "max pooling": lambda h: F.max_pool1d(h[:, None], 2).repeat(1, 1, 2)[:, 0, : h.shape[1]],
    "the largest by its index": lambda h: h.gather(1, h.argmax(1, keepdim=True)).expand_as(h),
    "a part in place": _stretch,
}
"""Of the same shapes; these need no rule."""


class Between(nn.Module):
    """A rectifier that the rules know, and such a function behind it; takes rows of 5 numbers, gives 4 scores."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.relu, self.function = nn.ReLU(), function

    def forward(self, x: Tensor) -> Tensor:
        """The scores."""
        scores: Tensor = self.last(self.function(self.second(self.relu(self.first(x)))))
        return scores


def made(function: Function) -> Between:
    """The model in inference mode, always with the same weights."""
    torch.manual_seed(1)
    return Between(function).eval()


def guide(model: Between, x: Tensor, target: int) -> Tensor:
    """Guided backpropagation by hand: the gradient, its positive part alone at the rectifier."""
    model.relu.register_forward_hook(
        lambda module, args, output: output.register_hook(lambda gradient: gradient.clamp(min=0)) and None
    )
    x = x.detach().requires_grad_()
    return torch.autograd.grad(model(x)[:, target].sum(), x)[0]
