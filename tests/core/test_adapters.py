"""Adapters are loaded when they are needed, with care, and one that fails leaves the others alone."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.adapters import adapter_for, is_importable
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
