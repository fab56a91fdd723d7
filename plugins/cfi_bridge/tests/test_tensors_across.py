"""Tensors of every framework go over to every other: on the same memory where they can, without loss."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

from cfi_core.adapters import adapter_for
from cfi_core.framework import FrameworkAdapter, hand_over
from cfi_core.registry import registry


@pytest.fixture
def to_torch() -> FrameworkAdapter:
    return adapter_for(registry(), "torch")


@pytest.fixture
def to_tensorflow() -> FrameworkAdapter:
    return adapter_for(registry(), "tensorflow")


@pytest.fixture(params=["numpy", "onnx"])
def to_numpy(request: pytest.FixtureRequest) -> FrameworkAdapter:
    return adapter_for(registry(), request.param)


def test_bfloat16_from_numpy_to_torch(to_torch: FrameworkAdapter) -> None:
    values = np.array([[1.5, -3.0, 1e-30]], ml_dtypes.bfloat16)
    adopted = to_torch.adopt(values, None)
    assert adopted.dtype is torch.bfloat16
    np.testing.assert_array_equal(adopted.float().numpy(), values.astype(np.float32))


def test_from_tensorflow_to_torch(to_torch: FrameworkAdapter) -> None:
    values = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    adopted = to_torch.adopt(values, nn.Linear(2, 2))
    np.testing.assert_array_equal(adopted.numpy(), values.numpy())
    assert adopted.data_ptr() == torch.from_dlpack(values).data_ptr()
    assert to_torch.adopt(tf.cast(values, tf.bfloat16), None).dtype is torch.bfloat16
    assert to_torch.adopt(tf.constant([True, False]), None).tolist() == [True, False]


def test_what_tensorflow_shares_lies_in_the_same_memory(to_tensorflow: FrameworkAdapter) -> None:
    share, tensor = to_tensorflow.share, tf.random.normal((4, 3))
    assert torch.from_dlpack(share(tensor)).data_ptr() == torch.from_dlpack(share(tensor)).data_ptr()
    np.testing.assert_array_equal(torch.from_dlpack(share(tensor)), tensor)
    np.testing.assert_array_equal(np.from_dlpack(share(tf.Variable(tensor))), tensor)
    assert torch.from_dlpack(share(tf.constant([True]))).dtype is torch.bool
    assert torch.from_dlpack(share(tf.cast(tensor, tf.bfloat16))).dtype is torch.bfloat16
    assert share(tf.constant(["a"])).tolist() == [b"a"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_what_tensorflow_adopts_lies_in_the_same_memory(dtype: torch.dtype, to_tensorflow: FrameworkAdapter) -> None:
    tensor = torch.arange(24).reshape(4, 6).to(dtype)
    adopted: Any = to_tensorflow.adopt(tensor, None)
    assert np.asarray(adopted).ctypes.data == tensor.data_ptr()
    np.testing.assert_array_equal(np.asarray(adopted).astype(np.float32), tensor.float())


def test_what_tensorflow_cannot_adopt_as_it_lies_is_copied(to_tensorflow: FrameworkAdapter) -> None:
    line = torch.arange(100, dtype=torch.float32)
    for tensor in (line[1:97], line.reshape(10, 10).t(), line[::2], torch.zeros(0, 3), torch.tensor(2.0)):
        adopted = to_tensorflow.adopt(tensor, None)
        np.testing.assert_array_equal(tf.nn.relu(adopted * 1.0), tensor)
    unaligned = to_tensorflow.adopt(line[1:97], None)
    assert np.asarray(unaligned).ctypes.data % 64 == 0
    np.testing.assert_array_equal(to_tensorflow.adopt(line.numpy()[::-1], None), line.flip(0))


def test_from_torch_to_numpy(to_torch: FrameworkAdapter, to_numpy: FrameworkAdapter) -> None:
    value = torch.randn(2, 3, requires_grad=True)
    array = hand_over(value, to_torch, to_numpy, None)
    assert array.ctypes.data == value.data_ptr()
    for dtype in (torch.bfloat16, torch.float16, torch.bool, torch.int32):
        tensor = torch.tensor([[1.5, 0.0]]).to(dtype)
        array = hand_over(tensor, to_torch, to_numpy, None)
        assert array.dtype == (np.float32 if dtype is torch.bfloat16 else tensor.numpy().dtype)
        np.testing.assert_array_equal(array, tensor.float().numpy())
    np.testing.assert_array_equal(hand_over(torch.tensor([1 + 2j]).conj(), to_torch, to_numpy, None), [1 - 2j])
    assert to_numpy.share(array).ctypes.data == array.ctypes.data and to_numpy.share(array.T).flags.c_contiguous


def test_from_tensorflow_to_numpy(to_tensorflow: FrameworkAdapter, to_numpy: FrameworkAdapter) -> None:
    np.testing.assert_array_equal(hand_over(tf.constant([[1.5, 2.0]]), to_tensorflow, to_numpy, None), [[1.5, 2.0]])
    half = hand_over(tf.constant([[1.5, 2.0]], tf.bfloat16), to_tensorflow, to_numpy, None)
    assert half.dtype == np.float32 and half.tolist() == [[1.5, 2.0]]
