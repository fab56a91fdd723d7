"""Adapters are loaded when they are needed, with care, and one that fails leaves the others alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.adapters import adapter_for, as_array, is_importable, is_number
from cfi_core.hookspec import hookimpl
from cfi_core.registry import Registry
from cfi_core.specs import FrameworkSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting

CALLS: list[str] = []


class Careful:
    """A framework with a precaution, and one whose adapter cannot be imported."""

    def __init__(self, here: str) -> None:
        self.here = here

    @hookimpl
    def cfi_frameworks(self) -> list[FrameworkSpec]:
        types = {"model_types": (), "tensor_types": (), "module": "numpy"}
        return [
            FrameworkSpec(name="careful", adapter=f"{self.here}:make", before_use=f"{self.here}:precaution", **types),
            FrameworkSpec(name="torn", adapter="cfi_core.no_such_module:Adapter", **types),
            FrameworkSpec(name="absent", adapter=f"{self.here}:never", **{**types, "module": "no_such_framework"}),
        ]


@pytest.fixture
def careful(monkeypatch: pytest.MonkeyPatch) -> Careful:
    module = ModuleType("careful_plugin")
    module.precaution = lambda: CALLS.append("precaution")
    module.make = lambda: CALLS.append("adapter") or fake.NetworkAdapter()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    CALLS.clear()
    return Careful(module.__name__)


def test_precautions_come_before_any_adapter(careful: Careful) -> None:
    with use_plugins(careful) as registry:
        adapter_for(registry, "careful")
        assert CALLS == ["precaution", "adapter"]
        assert adapter_for(registry, "careful") is adapter_for(registry, "careful")
        assert CALLS == ["precaution", "adapter"]


def test_an_adapter_that_cannot_be_loaded_stops_nobody_else(careful: Careful, images: np.ndarray) -> None:
    generator = np.random.default_rng(1)
    painting = Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))
    with use_plugins(fake, careful) as registry:
        with pytest.raises(cfi.UnknownFrameworkError, match=r"The adapter of torn in .* does not load"):
            adapter_for(registry, "torn")
        result = cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    assert result.values.shape == images.shape


def test_a_framework_that_is_not_installed(careful: Careful) -> None:
    with use_plugins(careful) as registry:
        with pytest.raises(cfi.UnknownFrameworkError, match="no module 'no_such_framework' is installed"):
            adapter_for(registry, "absent")
        with pytest.raises(cfi.UnknownFrameworkError, match=r"framework 'torch'; .*pip install cfi-torch"):
            adapter_for(registry, "torch")
        listed = {entry.name: entry for entry in cfi.frameworks()}
    assert listed["careful"].usable and listed["absent"].missing == ("no_such_framework",)
    assert "not usable: no_such_framework not installed" in repr(listed["absent"])


def test_the_listing_says_whose_and_what_models_are(registry: Registry) -> None:
    listed = {entry.name: repr(entry) for entry in cfi.frameworks()}
    assert set(listed) == {"numpy", "paint", "print"}
    assert "cfi_core" in listed["numpy"] and "a function of numpy arrays" in listed["numpy"]


def test_a_module_may_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_importable("numpy") and is_importable("wsgiref")
    monkeypatch.setitem(sys.modules, "wsgiref", None)
    assert not is_importable("wsgiref") and not is_importable("no_such_framework")


class Tensor:
    """A tensor that may refuse to be read."""

    shape, dtype = (2, 2), "complex8"

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal


class TensorAdapter(fake.NetworkAdapter):
    def unreadable(self, tensor: Tensor) -> str:
        return "lies on a device that is gone" if tensor.refusal == "unreadable" else ""

    def to_numpy(self, tensor: Tensor) -> np.ndarray:
        if tensor.refusal:
            raise NotImplementedError(tensor.refusal)
        return np.eye(2)


class Tensors:
    @hookimpl
    def cfi_frameworks(self) -> list[FrameworkSpec]:
        types = (("tensor_plugin", "Tensor"),)
        adapter = "tensor_plugin:TensorAdapter"
        return [FrameworkSpec(name="t", model_types=(), tensor_types=types, adapter=adapter, module="tensor_plugin")]


@pytest.fixture
def tensors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    module = ModuleType("tensor_plugin")
    module.Tensor, module.TensorAdapter = Tensor, TensorAdapter
    monkeypatch.setitem(sys.modules, "tensor_plugin", module)
    with use_plugins(Tensors()) as registry:
        yield registry


def test_tensors_are_read_by_their_framework(tensors: Registry) -> None:
    np.testing.assert_array_equal(as_array(tensors, Tensor(), "inputs"), np.eye(2))
    with pytest.raises(cfi.InputError, match=r"^inputs lies on a device that is gone\.$"):
        as_array(tensors, Tensor("unreadable"), "inputs")
    with pytest.raises(cfi.InputError, match=r"is a Tensor of complex8 that cannot be read as an array \(.*sub-byte"):
        as_array(tensors, Tensor("sub-byte"), "inputs")


class Refusing:
    def __array__(self, *_: object) -> np.ndarray:
        raise RuntimeError("not mine to give")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1]}, "inputs is a dict. Pass a tuple of arrays"),
        (np.ma.array([1.0, 2.0], mask=[True, False]), r"masked array, and its mask would be lost.*x.filled\(0\)"),
        (type("SparseThing", (), {})(), "is a SparseThing, which is no dense array"),
        (Refusing(), r"inputs is no array \(.*not mine to give"),
        ("words", r"inputs holds <U5 of shape \(\); pass an array of numbers"),
    ],
)
def test_what_is_no_array_of_numbers(registry: Registry, value: object, message: str) -> None:
    with pytest.raises(cfi.InputError, match=message):
        as_array(registry, value, "inputs")


def test_what_is_one_number() -> None:
    class Nested:
        @property
        def shape(self) -> tuple[int, ...]:
            raise RuntimeError("a nested tensor has no shape")

    assert all(map(is_number, (1, 2.5, True, np.float32(3), np.array(4))))
    assert not any(map(is_number, ("5", None, np.array([6]), np.array("7"), Nested(), [8])))
    assert is_number(SimpleNamespace(shape=())) and not is_number(SimpleNamespace(shape=(1,)))
