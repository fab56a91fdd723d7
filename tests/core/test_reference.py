"""The user's model beside a run: compiled once it has been asked for often, and as it is now."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import reference
from cfi_core.checking.purity import Examination
from cfi_core.records import Purity
from cfi_core.reference import USES
from cfi_core.testing.fake import NetworkAdapter, Painting


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that have been compiled."""
    made: list[Any] = []

    def compile_model(self: NetworkAdapter, model: Any, inputs: Any) -> Any:
        made.append(model)
        return self.twin(model)

    monkeypatch.setattr(NetworkAdapter, "compiled", compile_model)
    cfi.forget_translations()
    return made


def explain(model: Painting, images: np.ndarray, times: int, **arguments: Any) -> None:
    for turn in range(times):
        result = cfi.attribute(model, "press_gradient", inputs=images * (1 + turn), target=2, **arguments)
        assert isinstance(result, cfi.Attribution)


def test_a_model_that_is_asked_for_often_is_compiled_once(painting, images, compiled):
    explain(painting, images, USES - 1)
    assert not compiled
    explain(painting, images, 3)
    assert len(compiled) == 1 and compiled[0] is not painting


def test_what_is_compiled_stands_for_the_model(painting, images, compiled):
    explain(painting, images, USES)
    (entries,) = reference._kept.values()
    (entry,) = entries.values()
    assert entry.reference is not None and entry.reference.model is compiled[0]
    assert entry.reference.compiled is not None


def test_another_content_another_head_and_other_shapes_are_other_models(painting, images, compiled):
    explain(painting, images, USES)
    painting.head *= 2
    explain(painting, images, USES - 1)
    assert len(compiled) == 1, "changed weights begin anew"
    explain(painting, images, 1)
    explain(painting, images[..., :-1], USES - 1)
    assert len(compiled) == 2


def test_a_model_that_is_no_function_is_not_compiled(images, compiled, painting, monkeypatch):
    found = Purity("samples influence each other")
    monkeypatch.setattr(Examination, "judge", lambda self, outputs, end=None, by_sample=True: found)
    explain(painting, images, USES + 1)
    assert not compiled


def test_nothing_of_a_model_stays_when_it_goes(registry, images, compiled):
    generator = np.random.default_rng(1)
    model = Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))
    explain(model, images, USES)
    watched, known = weakref.ref(model), id(model)
    assert known in reference._kept
    del model
    gc.collect()
    assert watched() is None and known not in reference._kept


def test_what_was_compiled_is_forgotten_with_the_translations(painting, images, compiled):
    explain(painting, images, USES)
    cfi.forget_translations()
    assert not reference._kept
