"""Keras models in files: only layers of Keras' own, in three plain members, with weights that the file holds."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras_attacks import (
    ARCHIVES,
    CONTENTS,
    OBJECTS,
    WEIGHTS,
    claim_image,
    claim_units,
    members,
    packed,
    replaced,
    small_model,
)

from cfi_tensorflow import archive
from cfi_tensorflow.adapter import TensorFlowAdapter

ADAPTER = TensorFlowAdapter()
NAME = "model.keras"


@pytest.fixture
def data() -> bytes:
    saved = ADAPTER.save(small_model())
    assert saved is not None and set(saved) == {NAME} == set(ADAPTER.file_sizes)
    return saved[NAME]


def test_what_is_read_is_the_same_to_the_last_bit():
    model, x = small_model(), np.random.default_rng(0).normal(size=(3, 6, 5, 3)).astype(np.float32)
    made = ADAPTER.restore(ADAPTER.save(model))
    tensors = [ADAPTER.tensor(x, model)]
    np.testing.assert_array_equal(ADAPTER.outputs(made, tensors), ADAPTER.outputs(model, tensors))
    up = [np.ones((3, 2), np.float32)]
    np.testing.assert_array_equal(ADAPTER.vjp(made, tensors, up)[1][0], ADAPTER.vjp(model, tensors, up)[1][0])
    assert [one.name for one in made.layers] == [one.name for one in model.layers]


@keras.saving.register_keras_serializable("somebody")
class Own(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs * 2


def ended(layer: Any, *shape: int) -> Any:
    image = keras.Input(shape or (4,))
    return keras.Model(image, layer(image))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ended(layers.Lambda(lambda x: x * 2)),
        lambda: ended(Own()),
        lambda: lambda x: x,
    ],
    ids=["Lambda", "own class", "no Keras model"],
)
def test_what_archives_cannot_tell_is_not_written(make: Callable[[], Any]):
    assert ADAPTER.save(make()) is None


# attacks


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_that_is_not_listed_is_not_made(data: bytes, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **k: pytest.fail("it was given to Keras"))
    with pytest.raises((ValueError, TypeError)):
        ADAPTER.restore({NAME: replaced(data, OBJECTS[name])})


@pytest.mark.parametrize("change", [claim_units, claim_image])
def test_weights_that_the_archive_does_not_hold_are_not_made(data: bytes, change: Callable[[dict[str, Any]], None]):
    sizes = []

    def create(make: Callable[..., Any], **options: Any) -> Any:
        made = make(**options)
        sizes.append(made.shape.num_elements())
        return made

    with tf.variable_creator_scope(create), pytest.raises(ValueError, match="more weights than the archive"):
        ADAPTER.restore({NAME: replaced(data, change)})
    assert max(sizes) < 200


def test_variables_of_all_kinds_of_layers_are_within_what_the_archive_holds():
    image = keras.Input((4, 6, 3))
    x = layers.PReLU()(layers.DepthwiseConv2D(2, depth_multiplier=2)(layers.Conv2DTranspose(4, 3)(image)))
    x = layers.GroupNormalization(2)(layers.LayerNormalization()(layers.BatchNormalization()(x)))
    x = layers.Reshape((-1, 4))(layers.Dropout(0.5)(x))
    for kind in (layers.LSTM, layers.GRU, layers.SimpleRNN):
        x = layers.Bidirectional(kind(3, return_sequences=True, dropout=0.1))(x)
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))
    made = ADAPTER.restore(ADAPTER.save(model))
    for one, other in zip(made.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_of_another_form_is_not_opened(data: bytes, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **k: pytest.fail("it was given to Keras"))
    with pytest.raises((ValueError, OSError, zipfile.BadZipFile, RecursionError)):
        ADAPTER.restore({NAME: ARCHIVES[name](data)})


@pytest.mark.parametrize("change", CONTENTS, ids=lambda change: change.__name__.strip("_"))
def test_weights_that_lie_elsewhere_or_nowhere_are_refused(
    data: bytes, tmp_path: Path, change: Callable[[h5py.File, Path], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **k: pytest.fail("it was given to Keras"))
    with h5py.File(tmp_path / "secret", "w") as secret:
        secret["value"] = np.ones(1, "f4")
    weights = io.BytesIO(members(data)[WEIGHTS])
    with h5py.File(weights, "a") as file:
        change(file, tmp_path / "secret")
    with pytest.raises(ValueError, match=r"link|plain numbers|more numbers"):
        ADAPTER.restore({NAME: packed({**members(data), WEIGHTS: weights.getvalue()})})


def test_weights_of_other_values_are_read_as_they_are(data: bytes):
    """Whether a model computes the same is not told here: the certificate measures it."""
    weights = io.BytesIO(members(data)[WEIGHTS])
    with h5py.File(weights, "a") as file:
        kernel = file["layers/dense/vars/0"]
        kernel[...] = kernel[...] * 2
    made = archive.read(packed({**members(data), WEIGHTS: weights.getvalue()}))
    one, other = (model.get_layer("head").get_weights()[0] for model in (small_model(), made))
    np.testing.assert_array_equal(other, one * 2)
