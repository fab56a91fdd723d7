"""What `torch-export` writes gives in ONNX Runtime what torch gives, operator by operator, for any batch size."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cfi_core.errors import TranslationError
from cfi_core.framework import flatten
from cfi_translate.torch_export import convert
from cfi_translate.torch_export.operators import operator

IMAGE, SIGNAL, VOLUME, ROW, STEPS = (6, 9, 7), (6, 11), (4, 5, 6, 7), (8,), (5, 8)


def arrays_for(shapes: tuple[tuple[int, ...], ...], samples: int) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(samples)
    return tuple(generator.normal(size=(samples, *shape)).astype(np.float32) for shape in shapes)


def assert_agrees(model: Callable, *shapes: tuple[int, ...], inputs=arrays_for) -> onnx.ModelProto:
    exported = convert(model, inputs(shapes, 2)).model
    onnx.checker.check_model(exported, full_check=True)
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    for samples in (1, 2, 5):
        arrays = inputs(shapes, samples)
        with torch.no_grad():
            expected = [one.numpy() for one in flatten(model(*(torch.from_numpy(one.copy()) for one in arrays)))]
        given = {value.name: array for value, array in zip(session.get_inputs(), arrays, strict=True)}
        results = session.run(None, given)
        assert len(results) == len(expected)
        for result, wanted in zip(results, expected, strict=True):
            assert result.shape == wanted.shape
            assert result.dtype == wanted.dtype
            np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=2e-5)
    return exported


def weighted(shape: tuple[int, ...], seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(module: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.data.uniform_(0.3, 1.0) if tensor.ndim == 1 else tensor.data.normal_(0, 0.5)
    return module.eval()


MODULES = {
    "Linear": (lambda: nn.Linear(8, 3), ROW),
    "Linear on steps": (lambda: nn.Linear(8, 3), STEPS),
    "Linear without bias": (lambda: nn.Linear(7, 3, bias=False), IMAGE),
    "Conv1d": (lambda: nn.Conv1d(6, 4, 3, 2, 1, dilation=2), SIGNAL),
    "Conv2d grouped": (lambda: nn.Conv2d(6, 4, (3, 2), (2, 1), (1, 0), groups=2, bias=False), IMAGE),
    "Conv2d same": (lambda: nn.Conv2d(6, 4, (4, 3), padding="same", dilation=2), IMAGE),
    "Conv2d valid": (lambda: nn.Conv2d(6, 4, 3, padding="valid"), IMAGE),
    "Conv2d reflect": (lambda: nn.Conv2d(6, 4, 3, padding=2, padding_mode="reflect"), IMAGE),
    "Conv2d circular": (lambda: nn.Conv2d(6, 4, 3, padding=2, padding_mode="circular"), IMAGE),
    "Conv2d replicate": (lambda: nn.Conv2d(6, 4, 3, padding=2, padding_mode="replicate"), IMAGE),
    "Conv3d": (lambda: nn.Conv3d(4, 2, 3, (1, 2, 1), 1), VOLUME),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(6, 4, 3, 2, 1, 1), SIGNAL),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(6, 4, 3, 2, (1, 0), (1, 0), groups=2, dilation=2), IMAGE),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 2, 2, 2), VOLUME),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(8, eps=0.1), ROW),
    "BatchNorm2d without weights": (lambda: nn.BatchNorm2d(6, affine=False), IMAGE),
    "LayerNorm": (lambda: nn.LayerNorm((9, 7), eps=0.1), IMAGE),
    "LayerNorm without weights": (lambda: nn.LayerNorm(8, elementwise_affine=False), STEPS),
    "GroupNorm": (lambda: nn.GroupNorm(3, 6, eps=0.1), IMAGE),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(6, affine=True, eps=0.1), IMAGE),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(6), SIGNAL),
    "InstanceNorm with statistics": (lambda: nn.InstanceNorm2d(6, track_running_stats=True), IMAGE),
    "RMSNorm": (lambda: nn.RMSNorm(8), STEPS),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3), IMAGE),
    "PReLU": (lambda: nn.PReLU(6), IMAGE),
    "PReLU of one": (lambda: nn.PReLU(), ROW),
    "Bilinear upsampling": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "Nearest upsampling": (lambda: nn.Upsample(scale_factor=(2, 3)), IMAGE),
    "LSTM": (lambda: nn.LSTM(8, 4, 2, batch_first=True), STEPS),
    "LSTM, samples first": (lambda: nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True, bias=False), STEPS),
    "GRU": (lambda: nn.GRU(8, 4, batch_first=True), STEPS),
    "GRU both ways": (lambda: nn.GRU(8, 4, 2, batch_first=True, bidirectional=True), STEPS),
    "RNN": (lambda: nn.RNN(8, 4, nonlinearity="relu", batch_first=True), STEPS),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
        STEPS,
    ),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)), ROW),
    "PixelShuffle": (lambda: nn.Sequential(nn.Conv2d(6, 12, 1), nn.PixelShuffle(2)), IMAGE),
    "PixelUnshuffle": (lambda: nn.Sequential(nn.Conv2d(6, 2, (2, 2)), nn.PixelUnshuffle(2)), IMAGE),
    "Fold": (lambda: nn.Fold((5, 6), (2, 3), dilation=(2, 1), padding=(1, 0), stride=(1, 2)), (12, 10)),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(3), IMAGE),
}
for _size in (1, 3, 4, 9, 12, (2, 5)):
    MODULES[f"AdaptiveAvgPool2d to {_size}"] = (lambda size=_size: nn.AdaptiveAvgPool2d(size), IMAGE)
    MODULES[f"AdaptiveMaxPool2d to {_size}"] = (lambda size=_size: nn.AdaptiveMaxPool2d(size), IMAGE)
MODULES["AdaptiveAvgPool1d"] = (lambda: nn.AdaptiveAvgPool1d(4), SIGNAL)
MODULES["AdaptiveAvgPool3d"] = (lambda: nn.AdaptiveAvgPool3d((2, 4, 3)), VOLUME)
for _ceil in (False, True):
    for _kernel, _stride, _padding in ((2, 2, 0), (3, 2, 1), (3, 2, 0), ((3, 2), (2, 3), (1, 0)), (5, 4, 2)):
        _settings = (_kernel, _stride, _padding)
        _name = f"{_settings}{' rounded up' if _ceil else ''}"
        MODULES[f"MaxPool2d {_name}"] = (lambda s=_settings, c=_ceil: nn.MaxPool2d(*s, ceil_mode=c), IMAGE)
        for _counted in (False, True):
            MODULES[f"AvgPool2d {_name}, padding {'' if _counted else 'not '}counted"] = (
                lambda s=_settings, c=_ceil, n=_counted: nn.AvgPool2d(*s, ceil_mode=c, count_include_pad=n),
                IMAGE,
            )
MODULES["AvgPool2d with a divisor"] = (lambda: nn.AvgPool2d(3, 2, 1, True, divisor_override=5), IMAGE)
MODULES["MaxPool2d dilated"] = (lambda: nn.MaxPool2d(2, 2, 1, dilation=3, ceil_mode=True), IMAGE)
MODULES["MaxPool1d"] = (lambda: nn.MaxPool1d(3), SIGNAL)
MODULES["AvgPool3d"] = (lambda: nn.AvgPool3d(2, ceil_mode=True), VOLUME)
for _activation in [
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "Hardswish",
    "Hardsigmoid",
    "Hardtanh",
    "GELU",
    "ELU",
    "CELU",
    "SELU",
    "Mish",
    "Softplus",
    "Softsign",
    "LeakyReLU",
    "LogSigmoid",
    "Hardshrink",
    "Softshrink",
    "Tanhshrink",
    "RReLU",
    "Softmax2d",
]:
    MODULES[_activation] = (getattr(nn, _activation), IMAGE)
MODULES["GELU by tanh"] = (lambda: nn.GELU("tanh"), IMAGE)
MODULES["ELU scaled"] = (lambda: nn.ELU(0.3), IMAGE)
MODULES["Softplus of a low threshold"] = (lambda: nn.Softplus(2.0, 1.0), IMAGE)
MODULES["Threshold"] = (lambda: nn.Threshold(0.2, -3.0), IMAGE)
MODULES["GLU"] = (lambda: nn.GLU(1), IMAGE)
MODULES["Softmax"] = (lambda: nn.Softmax(2), IMAGE)
MODULES["LogSoftmax"] = (lambda: nn.LogSoftmax(-1), IMAGE)


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    build, shape = MODULES[name]
    assert_agrees(seeded(build()), shape)


TABLE = weighted((10, 4))
MASK = torch.tensor([[True, False, True, True, True]] * 4 + [[False] * 4 + [True]])


def in_place_on_views(x):
    x = x * 1
    row = x[:, 1]
    row.mul_(3)
    x[:, 2:4] = 0
    x[:, 0, 1] += 5
    return x + row.sum()


def filled_by_samples(x):
    result = torch.zeros(x.shape[0], 3, x.shape[1])
    result[:, 1] = x
    return result


def in_place_behind_dropout(x):
    y = F.dropout(x * 1, 0.5, False)
    z = y.view(-1)
    z.relu_()
    return y, F.hardtanh(x, inplace=True) + x


def in_place_twice(x):
    y = torch.relu(x)
    y += x
    y.clamp_(-1, 1)
    return y, y.mul_(2)


put = torch.ops.aten.index_put  # `Tensor.index_put` takes no None


def put_at_indices(x):
    x = x * 1
    x[:, [3, 0]] = 0.0
    x[:, :, torch.tensor([[1, 0], [-1, 3]])] = x[:, :, :4].reshape(x.shape[0], 6, 2, 2, 7) * 2
    x[:, torch.tensor([[1], [-1]]), torch.tensor([2, 5, 7])] = x[:, :2, :3] * 3
    x[:, torch.tensor([2, 4]), :, torch.tensor([0, -1])] = x[:, 0, :, :2].permute(2, 0, 1) - 1
    return x


def put_at_computed_indices(x):
    places = x[..., 0, 0].square().sum(0).argsort()[:2]
    return put(x, [None, places - 6], x[:, :2] * 2), put(x, [None, None, places], x[:, :1, :1, :1])


def put_for_each_sample(x):
    samples = torch.arange(x.shape[0])
    summed = x.index_put((samples[:, None], torch.tensor([[1, 1, -1]])), x[:, :3], accumulate=True)
    return torch.index_put(x, (samples, x.argmax(1)), x[:, 0] * 2), summed


def summed_at_indices(x):
    twice, other = torch.tensor([1, 1, 4]), torch.tensor([2, 2, -1])
    y = put(x, [None, twice, other], x[:, 2:5, 3], True)
    return y, x.index_add(1, twice, x[:, 2:5], alpha=2), x.index_copy(2, twice[1:], x[:, :, 2:4])


FUNCTIONS: dict[str, tuple] = {
    "numbers": (lambda x: (2 - x) / 3 + x * 0.5 - 1 / (x.abs() + 1), ROW),
    "alpha": (lambda x: torch.add(x, x, alpha=3) - torch.sub(x, 1, alpha=2), ROW),
    "types": (lambda x: (x > 0) * x + (x.long() * 2.5) + (x < 0).float() / 2, ROW),
    "integers": (lambda x: (x * 10).long() + 3, ROW),
    "comparisons": (lambda x: (x >= 0) & (x < 1) | ~(x != 2) | (x <= x.mean()) ^ (x == 1), ROW),
    "integers against fractions": (lambda x: (x * 4).long() > 0.5, ROW),
    "powers": (lambda x: x**2 + x.abs() ** 0.5 + 2**x + x.abs() ** x, ROW),
    "remainders": (lambda x: ((x * 5) % 3.0, (x * 5) % -1.5, (x.abs() * 5) % (x.flip(1) - 1)), ROW),
    "remainders of integers": (lambda x: ((x * 9).long() % 4, (x * 9).long() % -4, (x * 9).int() % 2.5), ROW),
    "remainders of numbers": (lambda x: 3.0 % x.detach(), ROW),
    "roots": (lambda x: torch.rsqrt(x.abs() + 1) + torch.log1p(x.abs()) + torch.exp(x).sqrt(), ROW),
    "rounding": (lambda x: torch.floor(x * 3) + torch.round(x * 2) + torch.ceil(x) + x.sign(), ROW),
    "trigonometry": (lambda x: x.sin() + x.cos() * torch.atan(x) + torch.erf(x), ROW),
    "logarithms": (lambda x: torch.log2(x.abs() + 1) + torch.log10(x.abs() + 2) + torch.expm1(x), ROW),
    "whole parts": (lambda x: torch.trunc(x * 3) + torch.frac(x), ROW),
    "largest": (lambda x: torch.topk(x, 3, 1).values + x.topk(3, 1, largest=False).indices * 0.1, IMAGE),
    "in order": (lambda x: x.sort(-1, descending=True).values + x.sort(1).values, IMAGE),
    "clamps": (lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0) + x.clamp(max=x.mean()), ROW),
    "where": (lambda x: torch.where(x > 0, x, torch.zeros_like(x)) + torch.where(x > 1, 1.0, 2.0), ROW),
    "masked_fill": (lambda x: x.masked_fill(x > 0.5, -2), ROW),
    "maximum": (lambda x, y: torch.maximum(x, y) - torch.minimum(x, y), ROW, ROW),
    "broadcasts": (lambda x, y: x[:, :, None] * y[:, None] + torch.arange(8.0), ROW, ROW),
    "number of samples": (lambda x: x.sum() / x.shape[0] + x.shape[0] * 2, ROW),
    "steps first": (lambda x: STEPS_FIRST(x.transpose(0, 1))[0][-1], STEPS),
    "reshapes": (lambda x: x.view(x.shape[0], 3, 2, -1).permute(0, 2, 1, 3).reshape(x.shape[0] * 2, -1), IMAGE),
    "flattened samples": (lambda x: x.reshape(-1, 7).sum(1), IMAGE),
    "flat": (lambda x: torch.flatten(x, 1), IMAGE),
    "squeezes": (lambda x: x.unsqueeze(-1).unsqueeze(1).squeeze(-1).squeeze(1), ROW),
    "transposes": (lambda x: (x.transpose(1, -1), x.movedim(1, 3), x.mT), IMAGE),
    "slices": (lambda x: (x[:, 1:5:2, -3:], x[:, -1], x[..., :-1, None]), IMAGE),
    "halves": (lambda x: x.chunk(4, 1) + x.split([2, 3, 2], -1) + x.split(4, 2), IMAGE),
    "unbound": (lambda x: torch.stack(x.unbind(2)[::2], -1), IMAGE),
    "joined": (lambda x, y: torch.cat([x, y, x], -1), IMAGE, IMAGE),
    "class token": (
        lambda x: torch.cat([TABLE[:1, None].expand(x.shape[0], -1, -1), x.new_zeros(x.shape[0], 2, 4)], 1),
        ROW,
    ),
    "repeats": (lambda x: x.repeat(1, 2, 1, 3) + x.new_ones(1), IMAGE),
    "expanded": (lambda x: x[:, None].expand(-1, 3, -1).reshape(x.shape[0], -1), ROW),
    "rolled": (lambda x: torch.roll(x, (-3, 2), (2, 1)), IMAGE),
    "flipped": (lambda x: x.flip(1, -1), IMAGE),
    "padded": (
        lambda x: (F.pad(x, (1, 2, 0, 3), value=2.0), F.pad(x, (1, 2, 2, 1), "reflect"), F.pad(x, (-1, 2))),
        IMAGE,
    ),
    "indexed": (lambda x: (x[:, [3, 0, -1]], x.index_select(2, torch.tensor([1, 1]))), IMAGE),
    "indexed twice": (lambda x: x[:, torch.tensor([[0], [-1]]), torch.tensor([2, 3])], IMAGE),
    "gathered": (lambda x: x.gather(1, x.argsort(1) if False else torch.zeros_like(x).long() + 2), ROW),
    "put into places": (put_at_indices, IMAGE),
    "put into computed places": (put_at_computed_indices, IMAGE),
    "put for each sample": (put_for_each_sample, ROW),
    "summed into places": (summed_at_indices, IMAGE),
    "counted": (lambda x: x * torch.arange(x.shape[0])[:, None] + torch.arange(1.0, 17, 2), ROW),
    "counted to the samples": (lambda x: torch.arange(0, x.shape[0] * 3, 3) * x[:, 0], ROW),
    "made of sizes alone": (lambda x: torch.eye(x.shape[0], 3)[:, :1] + x, ROW),
    "embedding": (lambda x: F.embedding(x.abs().long(), TABLE), ROW),
    "triangles": (lambda x: x.tril() + x.triu(1), STEPS),
    "means": (lambda x: (x.mean((2, 3)), x.mean(-1, keepdim=True), x.mean((1, 2, 3), dtype=torch.float64)), IMAGE),
    "sums": (lambda x: (x.sum(1), (x > 0).sum(1), x.amax((2, 3)), x.amin(1, keepdim=True), x.logsumexp(1)), IMAGE),
    "extrema": (lambda x: (x.max(1)[0], x.min(2, keepdim=True)[1], x.argmax(1), x.argmin(-1)), IMAGE),
    "spread": (
        lambda x: (x.var(1), x.std((2, 3), keepdim=True), x.var(-1, unbiased=False), *torch.std_mean(x, 1)),
        IMAGE,
    ),
    "norms": (lambda x: (x.norm(dim=1), F.normalize(x, dim=2), x.norm(1, -1)), IMAGE),
    "cumsum": (lambda x: x.cumsum(1) + x.prod(1, keepdim=True), ROW),
    "any": (lambda x: ((x > 1).any(1), (x > -1).all(1)), ROW),
    "products": (lambda x, y: (x @ y.mT, torch.bmm(x, y.mT), torch.einsum("bij,bkj->bik", x, y)), STEPS, STEPS),
    "addmm": (lambda x: torch.addmm(TABLE[0], x, TABLE[:8], beta=2, alpha=0.5), ROW),
    "attention": (lambda x, y: F.scaled_dot_product_attention(x, y, y, scale=0.3), STEPS, STEPS),
    "causal attention": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), STEPS),
    "masked attention": (lambda x: F.scaled_dot_product_attention(x, x, x, MASK), STEPS),
    "attention masked by values": (
        lambda x: F.scaled_dot_product_attention(x, x, x, (x[:, None, :, 0] > -0.8).expand(-1, 5, -1)),
        STEPS,
    ),
    "resized to sizes": (lambda x: F.interpolate(x, (13, 5), mode="bilinear"), IMAGE),
    "resized with corners": (lambda x: F.interpolate(x, (13, 5), mode="bilinear", align_corners=True), IMAGE),
    "resized to one pixel": (lambda x: F.interpolate(x, (1, 3), mode="bilinear"), IMAGE),
    "resized, nearest": (lambda x: (F.interpolate(x, (13, 5)), F.interpolate(x, (4, 20), mode="nearest-exact")), IMAGE),
    "resized, cubic": (lambda x: F.interpolate(x, (18, 21), mode="bicubic"), IMAGE),
    "resized signal": (lambda x: F.interpolate(x, 20, mode="linear"), SIGNAL),
    "resized volume": (lambda x: F.interpolate(x, (5, 9, 14), mode="trilinear"), VOLUME),
    "resized by factors": (lambda x: F.interpolate(x, scale_factor=1.5, recompute_scale_factor=True), IMAGE),
    "silent dropout": (lambda x: F.dropout(x, 0.5, False) + F.dropout2d(x, 0.5, False), IMAGE),
    "in place on views": (in_place_on_views, IMAGE),
    "in place behind dropout": (in_place_behind_dropout, ROW),
    "in place twice": (in_place_twice, ROW),
    "filled by samples": (filled_by_samples, ROW),
    "taken apart": (lambda x: torch.special.xlog1py(x.abs(), x.abs()) + F.huber_loss(x, x * 2, reduction="none"), ROW),
    "reversed": (lambda x: torch.rsub(x, 2, alpha=3) + torch.rsub(x, x * 2), ROW),
    "products added": (lambda x: torch.addcmul(x, x, x + 1, value=0.5) + torch.addcdiv(x, x, x.abs() + 1), ROW),
    "products of matrices added": (lambda x, y: torch.baddbmm(x[..., :5], x, y.mT, beta=2, alpha=0.5), STEPS, STEPS),
    "interpolated": (lambda x: x.lerp(x * 2, 0.3) + torch.lerp(x, x.square(), x.sigmoid()), ROW),
    "bounds": (lambda x: x.clamp_max(0.3) + x.clip(-1, 1) + F.threshold(x, 0.1, 20.0) + F.relu6(x * 9), ROW),
    "outer product": (lambda x: torch.outer(x[:, 0], TABLE[0]), ROW),
    "moved": (lambda x: (x.movedim((1, 2), (2, 1)), x.narrow(1, 2, 3), x[:, :, 0, 0].t().T), IMAGE),
    "deviations": (lambda x: (*torch.std_mean(x, 1), *torch.var_mean(x, 2), x.std((2, 3), correction=0)), IMAGE),
    "unfolded and folded": (lambda x: F.fold(F.unfold(x, 3, padding=1, stride=2) * 2, (9, 7), 3, 1, 1, 2), IMAGE),
    "similarity": (lambda x: F.cosine_similarity(x, x * 2 + 1, 1) + F.pairwise_distance(x, x * 2), ROW),
    "changed by rules": (lambda x: (x * 1).addcmul_(x, x).clamp_min_(x.mean(1, keepdim=True)), ROW),
    "with statistics": (
        lambda x: (
            torch.native_layer_norm(x, (7,), None, None, 0.1)[0],
            torch.native_group_norm(x, None, None, x.shape[0], 6, 63, 3, 0.1)[0],
            torch.native_batch_norm(x, None, None, TABLE[:6, 0], TABLE[:6, 1].abs(), False, 0.1, 0.1)[0],
            torch.native_dropout(x, 0.5, False)[0],
        ),
        IMAGE,
    ),
    "the input": (lambda x: (x, x, x * 2), ROW),
    "a constant": (lambda x: (x.sum(1), torch.ones(3)), ROW),
    "one tensor twice": (lambda x: [x.relu()] * 2, ROW),
    "nested": (lambda x: {"z": x + 1, "a": (x - 1, [x * 2, None])}, ROW),
}


STEPS_FIRST = seeded(nn.LSTM(8, 4, 2))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    function, *shapes = FUNCTIONS[name]
    assert_agrees(function, *shapes)


def test_what_is_small_is_not_lost() -> None:
    x = np.array([[1e-8, -1e-6, 1e-4, -1e-2, 1.0, -30.0]], np.float32)
    exported = convert(torch.expm1, (np.concatenate([x, x]),)).model
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], np.expm1(x), rtol=1e-6)


REFUSED = {
    "depends on values": (lambda x: x if x.sum() > 0 else -x, ROW, "could not capture"),
    "number of elements depends on values": (lambda x: x[x > 0], ROW, "torch-export"),
    "fixed number of samples": (lambda x: x.reshape(2, 8), ROW, "could not capture"),
    "rounded quotient": (lambda x: x // 0.1, ROW, "quotient"),
    "random": (lambda x: x + torch.rand(8), ROW, "random"),
    "random dropout": (lambda x: F.dropout(x, 0.5, True), ROW, "random"),
    "batch statistics": (nn.BatchNorm1d(8, track_running_stats=False).eval(), ROW, "statistics"),
    "projected states": (nn.LSTM(8, 4, proj_size=2, batch_first=True).eval(), STEPS, "projects"),
    "query without keys": (
        lambda x: F.scaled_dot_product_attention(x, x, x, torch.eye(5).bool() & (torch.arange(5) > 0)),
        STEPS,
        "without any key",
    ),
    "indices of pooling": (nn.MaxPool2d(2, return_indices=True).eval(), IMAGE, "indices"),
    "put by truth values": (lambda x: x.index_put((x > 0,), x.sum()), ROW, "how many elements"),
    "put into one place twice": (lambda x: put(x, [None, torch.tensor([0, -8])], x[:, :2]), ROW, "several values"),
    "put into some samples": (lambda x: x.index_put((torch.tensor([0]),), x[:1] * 2), ROW, "some of the samples"),
    "counted in fractions": (lambda x: x[:, :1] + torch.arange(0, x.shape[0], 0.5)[None], ROW, "fractions"),
    "unknown operator": (lambda x: torch.fft.fft(x).real, ROW, "aten::"),
    "taken apart into what is unknown": (lambda x: torch.hypot(x, x + 1), ROW, "hypot in aten::hypot"),
    "no tensor": (lambda x: (x, 3), ROW, "returns int"),
    "bfloat16": (lambda x: x.to(torch.bfloat16), ROW, "bfloat16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name: str, capfd: pytest.CaptureFixture) -> None:
    model, shape, words = REFUSED[name]
    with pytest.raises(TranslationError, match=words) as refused:
        convert(model, arrays_for((shape,), 2))
    assert "Try another translator" in str(refused.value)
    assert capfd.readouterr() == ("", "")


def schema_of(name: str) -> torch.FunctionSchema:
    """Of an operator of the installed torch; AttributeError where it has none of that name."""
    namespace, _, name = name.rpartition("::")
    packet, _, overload = name.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace or "aten"), packet), overload or "default")._schema


@pytest.mark.parametrize("name", operator)
def test_torch_has_the_operator_and_its_arguments_are_the_operands(name: str) -> None:
    inspect.signature(operator[name]).bind(None, None, *schema_of(name).arguments)
