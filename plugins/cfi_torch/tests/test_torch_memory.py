"""Want of memory is told from other errors, and what lies on a device does not go through the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cfi_torch.adapter import TorchAdapter

ADAPTER = TorchAdapter()


def test_what_torch_says_for_want_of_memory() -> None:
    assert ADAPTER.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert ADAPTER.is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert ADAPTER.is_out_of_memory(caught.value)
    assert not ADAPTER.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    ADAPTER.release_memory()


def test_a_model_on_the_cpu_is_not_accelerated() -> None:
    assert not ADAPTER.is_accelerated(nn.Linear(2, 2))
    assert not ADAPTER.is_accelerated(nn.ReLU())


class OnDevice:
    """A tensor of a framework that says where it lies, and refuses to hear of torch's stream, as TensorFlow does."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, **named: Any) -> Any:
        if named:
            raise RuntimeError("does not support DLPack export with a non-None stream")
        return self.tensor.__dlpack__()

    def __array__(self, *args: Any, **named: Any) -> Any:
        raise AssertionError("it went through the host")


def test_a_tensor_on_a_device_is_taken_without_naming_a_stream() -> None:
    tensor = torch.arange(4.0)
    taken = ADAPTER.adopt(OnDevice(tensor), nn.ReLU())
    assert taken.data_ptr() == tensor.data_ptr()
