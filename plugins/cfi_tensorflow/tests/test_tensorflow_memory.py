"""Want of memory is told from other errors."""

from __future__ import annotations

import keras
import tensorflow as tf

from cfi_tensorflow.adapter import TensorFlowAdapter

ADAPTER = TensorFlowAdapter()


def test_what_tensorflow_says_for_want_of_memory() -> None:
    assert ADAPTER.is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"))
    assert ADAPTER.is_out_of_memory(MemoryError())
    assert not ADAPTER.is_out_of_memory(tf.errors.InvalidArgumentError(None, None, "Incompatible shapes"))
    ADAPTER.release_memory()


def test_a_model_is_accelerated_where_there_is_a_device() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert ADAPTER.is_accelerated(model) == bool(tf.config.list_logical_devices("GPU"))
