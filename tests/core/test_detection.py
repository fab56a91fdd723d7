"""Which framework a model is of; what to install if nothing here understands it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.detection import detect_framework
from cfi_core.discovery import PluginInfo
from cfi_core.hookspec import hookimpl
from cfi_core.registry import Registry, load
from cfi_core.specs import FrameworkSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting


class General:
    """A model."""


class Special(General):
    """A model that says more of itself."""


class Other:
    """A model of a third framework."""


class Both(Special, Other):
    """Neither type says more than the other."""


def spec(name: str, *types: str, **fields: object) -> FrameworkSpec:
    return FrameworkSpec(
        name=name,
        models=f"a {name} model",
        model_types=tuple((__name__, kind) for kind in types),
        tensor_types=(),
        adapter=f"{fake.__name__}:NetworkAdapter",
        module=fake.__name__,
        **fields,
    )


class Kinds:
    @staticmethod
    @hookimpl
    def cfi_frameworks() -> list[FrameworkSpec]:
        return [
            spec("general", "General", file_suffixes=(".general",)),
            spec("special", "Special", aliases=("nickname",)),
            spec("other", "Other"),
            spec("callers", model_methods=("call_me",)),
        ]


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    here = ModuleType(__name__)  # pytest's importlib mode may not have put this module there
    here.__dict__.update(General=General, Special=Special, Other=Other)
    monkeypatch.setitem(sys.modules, __name__, here)
    with use_plugins(Kinds()) as current:
        yield current


def test_the_most_special_type_tells(kinds: Registry) -> None:
    assert detect_framework(kinds, General()).name == "general"
    assert detect_framework(kinds, Special()).name == "special"
    with pytest.raises(cfi.UnknownFrameworkError, match="is a model of other and special at once"):
        detect_framework(kinds, Both())


def test_files_by_their_suffix(kinds: Registry) -> None:
    for path in ("somewhere/model.general", Path("model.general")):
        assert detect_framework(kinds, path).name == "general"
    with pytest.raises(cfi.UnknownFrameworkError, match=r"cfi.load_model\('model.txt'\) gives the model"):
        detect_framework(kinds, "model.txt")


def test_objects_by_their_methods_if_their_type_tells_nothing(kinds: Registry) -> None:
    class Caller:
        def call_me(self) -> None: ...

    class SpecialCaller(Special, Caller): ...

    assert detect_framework(kinds, Caller()).name == "callers"
    assert detect_framework(kinds, SpecialCaller()).name == "special"
    with pytest.raises(cfi.UnknownFrameworkError, match="special: a special model"):
        detect_framework(kinds, Caller)  # a class is no model


def test_estimators_by_their_scores(registry: Registry) -> None:
    class Estimator:
        def predict(self, rows: np.ndarray) -> np.ndarray:
            return rows.sum(1)

    assert detect_framework(registry, Estimator()).name == "numpy"
    assert detect_framework(registry, np.tanh, np.ones((2, 3))).name == "numpy"
    with pytest.raises(cfi.UnknownFrameworkError, match="predict_proba"):
        detect_framework(registry, object())


def test_other_names_lead_to_the_right_one(kinds: Registry) -> None:
    with pytest.raises(cfi.ArgumentError, match="'nickname' models are of the framework 'special': pass 'special'"):
        cfi.translate(General(), "nickname", inputs=np.ones((1, 2)))
    with pytest.raises(cfi.ArgumentError, match="no framework 'unheard of'; known are callers, general"):
        cfi.translate(General(), "unheard of", inputs=np.ones((1, 2)))


# plugins that are missing: the catalogue knows their types by name, so stand-ins of these names are enough


class Module:
    """Stands for torch's class of modules."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x


class Tensor:
    """Stands for torch's class of tensors."""


class KerasModel:
    """Stands for a Keras model on TensorFlow."""


class KerasModelOnTorch(Module):
    """Stands for a Keras model on Keras' torch backend, which is a torch module as well."""


@pytest.fixture
def torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, contents in (
        ("torch", {"Tensor": Tensor}),
        ("torch.nn", {"Module": Module}),
        ("keras.src.backend.tensorflow.layer", {"TFLayer": KerasModel}),
    ):
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("torch_is_loaded")
def test_a_model_whose_plugin_is_missing(registry: Registry) -> None:
    with pytest.raises(cfi.UnknownFrameworkError, match=r"is a model of torch, .*: pip install cfi-torch"):
        cfi.layers(Module())
    with pytest.raises(cfi.UnknownFrameworkError, match=r"'model\.onnx' is a model of onnx, .*: pip install cfi-onnx"):
        cfi.layers("model.onnx")
    with pytest.raises(cfi.UnknownFrameworkError, match=r"is a model of tensorflow, .*: pip install cfi-tensorflow"):
        cfi.layers(KerasModel())
    with pytest.raises(cfi.UnknownFrameworkError, match=r"is a model of torch, .*: pip install cfi-torch"):
        cfi.layers(KerasModelOnTorch())


@pytest.mark.usefixtures("torch_is_loaded")
def test_a_tensor_whose_plugin_is_missing(painting: Painting) -> None:
    for call in (
        lambda: cfi.attribute(painting, "press_gradient", inputs=Tensor(), target=0),
        lambda: cfi.attribute(lambda x: x, "press_gradient", inputs=Tensor(), target=0),
    ):
        with pytest.raises(
            cfi.UnknownFrameworkError, match=r"A Tensor is a tensor of torch, .*: pip install cfi-torch"
        ):
            call()


def test_a_target_of_a_translation_whose_plugin_is_missing(painting: Painting, images: np.ndarray) -> None:
    with pytest.raises(cfi.ArgumentError, match="understands jax models: pip install cfi-jax"):
        cfi.translate(painting, "jax", inputs=images)
    with pytest.raises(cfi.ArgumentError, match="'keras' models are of the framework 'tensorflow'"):
        cfi.translate(painting, "keras", inputs=images)


@pytest.mark.usefixtures("torch_is_loaded")
def test_a_plugin_that_was_left_out_is_not_to_be_installed_again() -> None:
    class Broken:
        @staticmethod
        @hookimpl
        def cfi_frameworks() -> list[FrameworkSpec]:
            raise RuntimeError("half installed")

    with pytest.warns(cfi.PluginWarning):
        registry = load([(PluginInfo("torch", "cfi-torch", "1", "cfi_torch.plugin"), Broken())])
    with pytest.raises(cfi.UnknownFrameworkError, match=r"cfi-torch was left out: RuntimeError: half installed"):
        detect_framework(registry, Module())
