"""Arrays: types, sharing with other frameworks, what does not fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax_models import ADAPTER, NnxCNN, linen_cnn, perceptron

from cfi_core.errors import InputError


def test_an_array_shares_its_memory_with_torch() -> None:
    array = jnp.arange(6.0).reshape(2, 3)
    tensor = torch.from_dlpack(ADAPTER.share(array))
    assert tensor.data_ptr() == array.unsafe_buffer_pointer()
    assert tensor.is_contiguous() and tensor.tolist() == array.tolist()


def test_a_transposed_array_is_shared_row_by_row() -> None:
    array = ADAPTER.permute(jnp.arange(24.0).reshape(2, 3, 4), (0, 2, 1))
    tensor = torch.from_dlpack(ADAPTER.share(array))
    assert tensor.is_contiguous() and tensor.tolist() == array.tolist()


def test_a_type_that_dlpack_does_not_know_is_shared_as_numpy() -> None:
    shared = ADAPTER.share(jnp.asarray([1, -2], jnp.int4))
    assert isinstance(shared, np.ndarray)
    np.testing.assert_array_equal(shared, [1, -2])


def test_an_aligned_tensor_is_adopted_where_it_lies() -> None:
    tensor = torch.arange(4096.0).reshape(64, 64)
    array = ADAPTER.adopt(tensor, None)
    assert array.unsafe_buffer_pointer() == tensor.data_ptr()
    np.testing.assert_array_equal(array, tensor.numpy())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(4097.0)[1:],  # at an odd place
        torch.arange(64.0).reshape(8, 8)[:, ::2],  # with gaps
        torch.arange(64.0).reshape(8, 8).t(),
        torch.arange(3.0).expand(4, 3),
        torch.zeros(0, 3),
        torch.tensor(2.0),
        torch.tensor([True, False]),
        torch.tensor([1.0, 2.0], dtype=torch.float16),
        torch.tensor([1, 2], dtype=torch.int8),
    ],
    ids=str,
)
def test_whatever_is_shared_is_adopted(tensor: torch.Tensor) -> None:
    array = ADAPTER.adopt(tensor, None)
    assert array.shape == tuple(tensor.shape)
    np.testing.assert_array_equal(array, tensor.numpy())


def test_bfloat16_goes_there_and_back() -> None:
    tensor = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    array = ADAPTER.adopt(tensor, None)
    assert array.dtype == jnp.bfloat16
    assert torch.equal(torch.from_dlpack(ADAPTER.share(array)), tensor)
    values = ADAPTER.to_numpy(array)
    assert values.dtype == np.float32 and values.tolist() == [1.5, -2.0]


def test_numpy_arrays_are_adopted() -> None:
    np.testing.assert_array_equal(ADAPTER.adopt(np.arange(6.0)[::2], None), [0, 2, 4])


@pytest.mark.parametrize("bring", [ADAPTER.adopt, ADAPTER.tensor])
def test_wide_types_become_those_of_jax(bring: type) -> None:
    assert bring(np.array([1, -5]), None).dtype == np.int32
    assert bring(np.array([1, 5], np.uint64), None).dtype == np.uint32
    assert bring(np.array([0.5]), None).dtype == np.float32
    with jax.enable_x64(True):
        assert bring(np.array([2**40]), None).tolist() == [2**40]
        assert bring(np.array([1 / 3]), None).dtype == np.float64


@pytest.mark.parametrize("bring", [ADAPTER.adopt, ADAPTER.tensor])
@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_integers_that_do_not_fit_are_refused(bring: type, value: int) -> None:
    with pytest.raises(InputError, match="jax_enable_x64"):
        bring(np.array([0, value]), None)


def test_tensors_take_the_type_of_the_weights() -> None:
    model = nnx.Linear(2, 2, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert ADAPTER.tensor(np.ones((1, 2)), model).dtype == jnp.bfloat16
    assert ADAPTER.tensor(np.ones((1, 2), np.int32), model).dtype == jnp.int32
    assert ADAPTER.tensor(np.ones((1, 2), np.float64), NnxCNN()).dtype == jnp.float32
    assert ADAPTER.tensor(np.ones((1, 2), np.float16), linen_cnn()).dtype == jnp.float32
    assert ADAPTER.tensor(np.ones((1, 2), np.float16), perceptron).dtype == jnp.float16


def test_tensors_are_fresh() -> None:
    values = np.zeros(1000, np.float32)
    array = ADAPTER.tensor(values, None)
    values[:] = 1
    assert not array.any()
    assert ADAPTER.tensor(array, None).unsafe_buffer_pointer() != array.unsafe_buffer_pointer()


def test_unusual_numpy_types() -> None:
    np.testing.assert_array_equal(ADAPTER.tensor(np.arange(3, dtype=">f4"), None), [0, 1, 2])
    np.testing.assert_array_equal(ADAPTER.tensor(np.arange(3, dtype=np.longdouble), None), [0, 1, 2])


def test_random_numbers_are_no_state() -> None:
    before = ADAPTER.random_state()
    with ADAPTER.keep_settings():
        ADAPTER.seed(1)
        assert ADAPTER.is_tensor(jax.random.normal(jax.random.key(0)))
    assert ADAPTER.random_state() == before
    assert not ADAPTER.is_tensor(np.zeros(1))
