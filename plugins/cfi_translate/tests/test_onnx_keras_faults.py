"""The faults of Keras that the reader gets round, as long as Keras has them."""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf
from keras import ops

from cfi_translate.onnx_keras.keras_faults import add, adds_rightly


def test_sum_of_keras_takes_an_operand_for_a_bias() -> None:
    first, second = np.zeros((2, 4, 4), "float32"), np.arange(4, dtype="float32").reshape(1, 4, 1)
    assert not np.array_equal(ops.add(first, second), first + second)


def test_our_sum_is_right_for_all_small_shapes() -> None:
    shapes = [shape for rank in (1, 2, 3, 4) for shape in itertools.product((1, 2, 3), repeat=rank)]
    wrong_in_keras = 0
    for one, other in itertools.product(shapes, shapes):
        if len(one) + len(other) > 5:
            continue
        first, second = np.random.rand(*one).astype("float32"), np.random.rand(*other).astype("float32")
        try:
            expected = first + second
        except ValueError:
            continue
        assert np.array_equal(add(tf.constant(first), tf.constant(second)), expected), (one, other)
        if not adds_rightly(one, other):
            wrong_in_keras += 1
    assert wrong_in_keras


def test_sums_are_right_whatever_the_number_of_samples() -> None:
    for first, second in itertools.product(itertools.product((1, 3, None), repeat=3), repeat=2):
        if adds_rightly(first, second):
            for samples in (1, 2, 3):
                one, other = (tuple(samples if size is None else size for size in shape) for shape in (first, second))
                a, b = np.random.rand(*one), np.random.rand(*other)
                try:
                    expected = a + b
                except ValueError:
                    continue
                assert np.array_equal(ops.add(a, b), expected), (one, other)
