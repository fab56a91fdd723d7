"""What a forward pass could write to is kept, told and put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cfi_torch import state
from cfi_torch.adapter import TorchAdapter


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(4), nn.Dropout(0.25))


def test_nothing_changes_and_nothing_is_written():
    given = model()
    kept = TorchAdapter().state(given)
    versions = [tensor._version for tensor in (*given.parameters(), *given.buffers())]
    kept.restore()
    assert kept.changes(given) == kept.changes(TorchAdapter().twin(given)) == ()
    assert [tensor._version for tensor in (*given.parameters(), *given.buffers())] == versions
    assert kept.numbers(given)["2.p"] == 0.25


def write(given: nn.Module) -> None:
    with torch.no_grad():
        given[0].weight.mul_(2)
        given[0].bias.data = torch.full((4,), torch.nan)
        given[1].running_mean = given[1].running_mean + 1
        given[1].num_batches_tracked.add_(1)
    given[1].weight.requires_grad_(False)
    given[2].p = 0.5


def test_all_of_it_is_put_back_where_it_was():
    given = model()
    tensors = {**dict(given.named_parameters()), **dict(given.named_buffers())}
    values = {name: (tensor.data_ptr(), tensor.detach().clone()) for name, tensor in tensors.items()}
    kept = TorchAdapter().state(given)
    write(given)
    assert kept.changes(given) == ("0.weight", "0.bias", "1.running_mean", "1.num_batches_tracked")
    kept.restore()
    assert kept.changes(given) == () and given[1].weight.requires_grad and given[2].p == 0.25
    for name, tensor in {**dict(given.named_parameters()), **dict(given.named_buffers())}.items():
        place, before = values[name]
        assert tensor is tensors[name] and tensor.data_ptr() == place and torch.equal(tensor, before)


def test_buffers_of_another_shape_are_caches():
    given = model()
    kept = TorchAdapter().state(given)
    given[1].running_mean = torch.zeros(9)
    given.register_buffer("seen", torch.zeros(2))
    assert kept.changes(given) == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.int8, torch.bool])
def test_types_of_every_kind(dtype):
    given = nn.Module()
    given.register_buffer("one", torch.ones((), dtype=dtype))
    given.register_buffer("none", torch.ones(0, dtype=dtype))
    given.register_buffer("sparse", torch.eye(2).to_sparse())
    given.register_buffer("meta", torch.ones(2, device="meta"))
    kept = TorchAdapter().state(given)
    given.one.zero_()
    assert kept.changes(given) == ("one",)
    kept.restore()
    assert given.one == 1


def test_of_a_large_model_a_change_is_told(monkeypatch):
    assert TorchAdapter().state(model()).is_whole
    monkeypatch.setattr(state, "LARGEST_COPY", 100)
    given = model()
    kept = TorchAdapter().state(given)
    assert kept.changes(given) == () and not kept.is_whole
    write(given)
    assert "0.weight" in kept.changes(given)
    kept.restore()
    assert kept.changes(given) == ("0.weight", "1.num_batches_tracked")  # what lies elsewhere is still there


def test_torchscript():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return self.linear(x)

    given = torch.jit.script(Counting().eval())
    kept, fingerprint = TorchAdapter().state(given), TorchAdapter().fingerprint(given)
    kept.restore()
    assert TorchAdapter().fingerprint(given) == fingerprint
    given(torch.ones(1, 3))
    assert TorchAdapter().fingerprint(given) != fingerprint
    assert kept.changes(given) == ("count",)
    kept.restore()
    assert given.count == 0 and kept.changes(given) == ()


def test_the_types_that_a_model_computes_in():
    assert TorchAdapter().precision(model().half()) == {"float16"}
    assert TorchAdapter().precision(nn.ReLU()) == {"float32"}


class _Own(nn.Linear):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.weight.add_(1)
        return super().forward(values)


def test_passes_of_torchs_own_modules_need_no_copy_of_parameters():
    given = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    kept = TorchAdapter().state_for_passes(given)
    assert kept.is_whole and not kept.changes(given)
    with torch.no_grad():
        given[1].running_mean.add_(1)
    assert kept.changes(given) == ("1.running_mean",) and kept.is_whole
    kept.restore()
    assert not kept.changes(given)
    with torch.no_grad():
        given[0].weight.add_(1)
    assert kept.changes(given) == ("0.weight",) and not kept.is_whole  # it is told


@pytest.mark.parametrize("how", ["class", "hook", "forward", "function", "script"])
def test_what_others_have_written_may_write_to_parameters(how):
    given = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval()
    if how == "class":
        given[0] = _Own(3, 2)
    elif how == "hook":
        given[1].register_forward_hook(lambda module, values, output: None)
    elif how == "forward":
        given[1].forward = lambda values: values
    elif how == "function":
        given[1].act = lambda values: values
    else:
        given[1] = torch.jit.script(nn.ReLU())
    kept = TorchAdapter().state_for_passes(given)
    before = given[0].weight.detach().clone()
    with torch.no_grad():
        given[0].weight.add_(1)
    assert kept.changes(given) == ("0.weight",) and kept.is_whole
    kept.restore()
    assert torch.equal(given[0].weight, before)
