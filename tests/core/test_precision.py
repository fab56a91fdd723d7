"""Models in half precision of a framework of numpy: converted from a copy in single precision, if that is the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.precision import _inputs
from cfi_core.records import Inputs
from cfi_core.registry import Registry
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import NetworkAdapter, Painting, Print

DRAWN = np.random.default_rng(0)
MIX, HEAD = DRAWN.normal(size=(4, 3)), DRAWN.normal(size=(5, 4))
IMAGES = DRAWN.integers(0, 64, (2, 3, 5, 7)) / 64  # which half precision holds
WEIGHT = np.float16(HEAD)[[1, 4]].astype(np.float32)


def half() -> Painting:
    return Painting(MIX.astype(np.float16), HEAD.astype(np.float16))


def single(model: Painting, head: float = 1.0) -> Painting:
    return type(model)(model.mix.astype(np.float32), model.head.astype(np.float32) * np.float32(head))


def explain(model: Any, images: np.ndarray = IMAGES, key: str = "press_gradient") -> cfi.Attribution:
    found = cfi.attribute(model, key, inputs=images, target=[1, 4])
    assert isinstance(found, cfi.Attribution)
    return found


def gradients() -> np.ndarray:
    """In single precision, of the weights rounded to half precision."""
    mix = MIX.astype(np.float16).astype(np.float32)
    hidden = np.einsum("kc,nchw->nkhw", mix, IMAGES.astype(np.float32))
    return np.einsum("nk,nkhw,kc->nchw", WEIGHT, hidden > 0, mix) / 35


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    def use(make: Any) -> None:
        monkeypatch.setattr(NetworkAdapter, "in_single", lambda adapter, model: make(model))

    return use


def test_a_conversion_starts_from_the_copy(registry: Registry, copies: Any) -> None:
    copies(single)
    model = half()
    found = explain(model)
    np.testing.assert_allclose(found.values, gradients(), rtol=1e-5, atol=1e-7)
    assert found.provenance["precision"].startswith("converted from a copy in float32, whose outputs differ by ")
    assert found.provenance["precision"].endswith(" from the float16 ones")
    assert model.mix.dtype == np.float16
    np.testing.assert_array_equal(model.head, HEAD.astype(np.float16))


def broken(model: Painting) -> Painting:
    raise ValueError("types are fixed in the code")


@pytest.mark.parametrize(
    "make", [broken, lambda model: None, lambda model: single(model, 2.0)], ids=["raises", "none", "another model"]
)
def test_without_a_copy_that_is_the_model_it_stays_as_it_is(registry: Registry, copies: Any, make: Any) -> None:
    copies(make)
    found = explain(half())
    assert "precision" not in found.provenance
    np.testing.assert_allclose(found.values, gradients(), atol=2e-3 * np.abs(gradients()).max())


def test_what_is_not_converted_from_half_precision_needs_no_copy(copies: Any) -> None:
    asked: list[Any] = []
    copies(asked.append)
    with use_plugins(fake):
        native = Print(MIX.astype(np.float16), HEAD.astype(np.float16))
        np.testing.assert_allclose(
            explain(native, IMAGES.transpose(0, 2, 3, 1)).values.transpose(0, 3, 1, 2), gradients(), atol=2e-3
        )
        explain(Painting(MIX, HEAD))
    with use_plugins(fake, fake.bridge_plugin):
        assert explain(half()).provenance["route"] == ("bridge-to-print",)
    assert asked == []


def test_what_is_held_is_taken_along() -> None:
    """Its floating point part in the type of the copy, whole numbers as they are, and what is no tensor too."""
    mask, whole, word = np.array([[0.1], [0.2]], np.float16), np.array([[1], [2]]), "word"
    given = Inputs((np.float16(IMAGES),), (np.float16(IMAGES),), held=(mask, whole, word), held_arrays=(mask, whole))
    moved = _inputs(given, NetworkAdapter(), single(half()))
    assert [one.dtype for one in (*moved.tensors, *moved.arrays, *moved.held[:2])] == [*["float32"] * 3, "int64"]
    np.testing.assert_array_equal(moved.held[0], mask.astype(np.float32))
    np.testing.assert_array_equal(moved.tensors[0], IMAGES)
    assert moved.held[1].tolist() == [[1], [2]] and moved.held[2] == "word"
