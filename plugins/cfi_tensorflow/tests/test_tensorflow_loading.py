"""Keras and TensorFlow models from files: read by those who do not trust them where nothing runs, and else refused."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras_attacks import (
    ARCHIVES,
    CONFIG,
    CONTENTS,
    OBJECTS,
    WEIGHTS,
    claim_image,
    claim_units,
    members,
    packed,
    planted,
    replaced,
    small_model,
)

import cfi_core as cfi
from cfi_core.testing.conformance import ModelFileConformance, assert_refused


@pytest.fixture(autouse=True)
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code in a file has run"


@pytest.fixture(autouse=True)
def _factories(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("keras_factories")
    unbuilt = lambda: keras.Sequential([layers.Dense(2)])  # noqa: E731
    vars(module).update(make=small_model, other=lambda: ended(layers.Dense(2), 4), unbuilt=unbuilt)
    monkeypatch.setitem(sys.modules, "keras_factories", module)


def ended(layer: Any, *shape: int) -> Any:
    image = keras.Input(shape)
    return keras.Model(image, layer(image))


def shaken(model: Any) -> Any:
    """With weights that no initializer makes."""
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1.5, one.shape).astype(one.dtype) for one in model.get_weights()])
    return model


class TestArchives(ModelFileConformance):
    framework, format, suffix = "tensorflow", "a Keras archive", ".keras"

    def make_model(self) -> Any:
        return shaken(small_model())

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 6, 5, 3)).astype(np.float32)

    def write(self, model: Any, path: Path) -> None:
        model.save(path)


class TestH5(TestArchives):
    format, suffix = "HDF5", ".h5"

    def make_model(self) -> Any:
        return shaken(
            keras.Sequential([keras.Input((6, 5, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)])
        )


class TestSavedModels(TestArchives):
    format, suffix = "a saved model", ""

    def write(self, model: Any, path: Path) -> None:
        model.export(path, verbose=False)

    def _outputs(self, model: Any, inputs: np.ndarray) -> list[np.ndarray]:
        return [np.round(one, 5) for one in super()._outputs(model, inputs)]  # another graph of the same


# archives of people


def augmented() -> Any:
    """What people's models have besides: augmentation, preparation, nested models, shared layers, attention."""
    image = keras.Input((8, 10, 3))
    x = layers.RandomFlip()(layers.Rescaling(1 / 255)(image))
    x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])(x)
    base = keras.Sequential([keras.Input((8, 10, 3)), layers.Conv2D(4, 3, kernel_regularizer="l2"), layers.ReLU(6.0)])
    base.compile("adam", "mse")
    x = layers.Reshape((-1, 4))(base(x))
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.TimeDistributed(layers.Dense(3, activation="gelu"))(x)
    shared = layers.LSTM(3, return_sequences=True, recurrent_dropout=0.1)
    x = layers.Add()([shared(x), shared(x * 2)])
    return keras.Model(image, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


class Scaled(layers.Layer):
    """Somebody's own layer."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2


def test_models_of_many_layers_are_read_as_they_were_saved_compiled_or_not(tmp_path):
    model = shaken(augmented())
    model.compile(keras.optimizers.Adam(1e-3), loss=lambda y, p: 0, metrics=["accuracy"])
    model.save(tmp_path / "a.keras")
    x = np.random.default_rng(0).uniform(0, 255, (3, 8, 10, 3)).astype(np.float32)
    found = cfi.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(found(x), model(x))
    assert [one.name for one in found.layers] == [one.name for one in model.layers] and not found.compiled


def test_reading_draws_no_random_numbers_and_leaves_no_file(tmp_path):
    small_model().save(tmp_path / "a.keras")
    random.seed(3)
    before = random.getstate()
    cfi.load_model(tmp_path / "a.keras")
    assert random.getstate() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.keras"]


def test_layers_with_code_and_classes_of_others_are_read_by_those_who_trust_them(tmp_path):
    ended(layers.Lambda(lambda x: x * 3), 4).save(tmp_path / "a.keras")
    error = assert_refused(tmp_path / "a.keras")
    assert isinstance(error, cfi.UntrustedFileError) and "keras.layers.Lambda" in str(error)
    assert float(cfi.load_model(tmp_path / "a.keras", trust=True)(np.ones((1, 4)))[0, 0]) == 3

    keras.saving.register_keras_serializable("somebody")(Scaled)
    ended(Scaled(), 4).save(tmp_path / "b.keras")
    error = assert_refused(tmp_path / "b.keras")
    assert isinstance(error, cfi.UntrustedFileError) and "Scaled" in str(error) and "registers it" in str(error)
    assert float(cfi.load_model(tmp_path / "b.keras", trust=True)(np.ones((1, 4)))[0, 0]) == 2

    ended(layers.Lambda(lambda x: x * 3), 4).save(tmp_path / "c.h5")
    assert float(cfi.load_model(tmp_path / "c.h5", trust=True)(np.ones((1, 4)))[0, 0]) == 3


def test_a_saved_model_is_explained_as_what_it_serves(tmp_path):
    module = tf.Module()
    module.factor = tf.Variable([1.0, 2.0, 3.0])
    module.f = tf.function(lambda x: {"scores": x * module.factor}, input_signature=[tf.TensorSpec((None, 3))])
    tf.saved_model.save(module, tmp_path / "one", signatures={"serving_default": module.f, "other": module.f})
    found = cfi.load_model(tmp_path / "one", trust=True)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(found(tf.constant(x))["scores"], x * [1, 2, 3])
    tf.saved_model.save(module, tmp_path / "two", signatures={"a": module.f, "b": module.f})
    assert "'a', 'b'" in str(assert_refused(tmp_path / "two", trust=True))
    tf.saved_model.save(tf.Module(), tmp_path / "none")
    assert "none" in str(assert_refused(tmp_path / "none", trust=True))


# weights


def test_weights_go_into_what_a_factory_makes(tmp_path):
    model = shaken(small_model())
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 6, 5, 3)), np.ones((2, 2)))  # an optimizer with values of its own
    model.save_weights(tmp_path / "a.weights.h5")
    found = cfi.load_model("keras_factories:make", weights=tmp_path / "a.weights.h5")
    for one, other in zip(found.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_weight_must_be_there_and_of_the_models_shape(tmp_path):
    path = tmp_path / "a.weights.h5"

    def refused(change: Callable[[h5py.File], Any], factory: str = "make") -> str:
        small_model().save_weights(path)
        with h5py.File(path, "a") as file:
            change(file)
        return str(assert_refused(f"keras_factories:{factory}", weights=path))

    assert "the file lacks 'layers/dense/vars/1'" in refused(lambda file: file.pop("layers/dense/vars/1"))
    assert "the model has no 'layers/more/vars/0'" in refused(
        lambda file: file.create_dataset("layers/more/vars/0", (2,), data=[1.0, 2])
    )

    def widen(file: h5py.File) -> None:
        del file["layers/dense/vars/1"]
        file["layers/dense/vars/1"] = np.zeros(3, "f4")

    assert "'layers/dense/vars/1' is (2,) in the model and (3,) in the file" in refused(widen)
    assert "the model has no" in refused(lambda file: None, "other")
    assert "keras.Input" in refused(lambda file: None, "unbuilt")


def test_weights_without_a_model_say_what_is_missing(tmp_path):
    small_model().save_weights(tmp_path / "a.weights.h5")
    assert "package.module:factory" in str(assert_refused(tmp_path / "a.weights.h5"))
    assert "holds weights" in str(assert_refused(tmp_path / "a.weights.h5", trust=True))


# files from strangers


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "model.keras"
    small_model().save(path)
    return path.read_bytes()


def _assert_not_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **k: pytest.fail("it was given to Keras"))
    modules = {*sys.modules}
    text = str(assert_refused(path))
    assert len(text) < 1_500
    assert {
        name for name in {*sys.modules} - modules if "." not in name and name not in sys.stdlib_module_names
    } == set()
    return text


def _named(module: str, name: str) -> Callable[[dict[str, Any]], None]:
    return planted(module, name)


def _stretched(configuration: dict[str, Any]) -> None:
    """A mean of one number for an input of gigabytes, which Keras makes as large at once."""
    one = {"module": "keras.layers", "class_name": "Normalization", "registered_name": None, "name": "norm0"}
    settings = {"axis": [1, 2], "mean": 0.0, "variance": 1.0}
    configuration["config"]["layers"].append({**one, "config": settings, "inbound_nodes": []})


MORE: dict[str, Callable[[dict[str, Any]], None]] = {
    "a layer that runs jax": _named("keras.layers", "JaxLayer"),
    "a layer that runs flax": _named("keras.layers", "FlaxLayer"),
    "a layer that reads words": _named("keras.layers", "TextVectorization"),
    "a layer that computes while it is made": _named("keras.layers", "STFTSpectrogram"),
    "a layer of another place": _named("keras.src.layers.core.lambda_layer", "Lambda"),
    "a base class": _named("keras", "Model"),
    "a module of Keras": _named("keras.layers", "__builtins__"),
    "a function of Keras": _named("keras.layers", "deserialize"),
    "the builtins": _named("builtins", "exec"),
    "a mean that is stretched": _stretched,
}
OTHERS = {name: change for name, change in OBJECTS.items() if name != "something to compile"} | MORE


@pytest.mark.parametrize("name", OTHERS)
def test_an_archive_that_names_what_is_not_keras_own_is_refused(tmp_path, data, name, monkeypatch):
    path = tmp_path / "stranger.keras"
    path.write_bytes(replaced(data, OTHERS[name]))
    _assert_not_made(path, monkeypatch)


def test_what_is_to_be_compiled_is_left_out(tmp_path, data):
    """Losses and optimizers are not made, whatever they are; nothing here is trained."""
    path = tmp_path / "a.keras"
    path.write_bytes(replaced(data, OBJECTS["something to compile"]))
    assert not cfi.load_model(path).compiled


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_of_another_form_is_refused(tmp_path, data, name, monkeypatch):
    path = tmp_path / "stranger.keras"
    path.write_bytes(ARCHIVES[name](data))
    _assert_not_made(path, monkeypatch)


@pytest.mark.parametrize("change", CONTENTS, ids=lambda change: change.__name__.strip("_"))
def test_weights_that_lie_elsewhere_or_nowhere_are_refused(tmp_path, data, change, monkeypatch):
    with h5py.File(tmp_path / "secret", "w") as secret:
        secret["value"] = np.ones(1, "f4")
    held = io.BytesIO(members(data)[WEIGHTS])
    with h5py.File(held, "a") as file:
        change(file, tmp_path / "secret")
    (tmp_path / "a.keras").write_bytes(packed({**members(data), WEIGHTS: held.getvalue()}))
    assert any(word in _assert_not_made(tmp_path / "a.keras", monkeypatch) for word in ("link", "numbers"))
    (tmp_path / "a.weights.h5").write_bytes(held.getvalue())
    monkeypatch.setattr(keras.Model, "load_weights", lambda *a, **k: pytest.fail("it was given to Keras"))
    text = str(assert_refused("keras_factories:make", weights=tmp_path / "a.weights.h5"))
    assert any(word in text for word in ("link", "numbers"))


@pytest.mark.parametrize("change", [claim_units, claim_image])
def test_weights_that_the_archive_does_not_hold_are_not_made(tmp_path, data, change):
    (tmp_path / "a.keras").write_bytes(replaced(data, change))
    assert "more weights than the archive" in str(assert_refused(tmp_path / "a.keras", mebibytes=100))


def test_other_formats_under_that_name_are_refused(tmp_path, data, monkeypatch):
    path = tmp_path / "a.keras"
    small_model().save(tmp_path / "b.h5")
    for content, word in (
        ((tmp_path / "b.h5").read_bytes(), "HDF5"),
        (b"\x80\x04cposix\nsystem\n", "a pickle"),
        (members(data)[CONFIG], "is none"),
        (packed({"a/data.pkl": b"", "a/version": b"3"}), "what torch.save writes"),
        (packed({**members(data), "a/data.pkl": b"", "a/version": b"3"}), "does not need"),
    ):
        path.write_bytes(content)
        assert word in _assert_not_made(path, monkeypatch)
    (tmp_path / "c.h5").write_bytes(data)
    assert "holds a Keras archive" in str(assert_refused(tmp_path / "c.h5"))


def test_on_another_backend_nothing_bounds_what_is_made(tmp_path, data, monkeypatch):
    (tmp_path / "a.keras").write_bytes(data)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert isinstance(assert_refused(tmp_path / "a.keras"), cfi.UntrustedFileError)
