"""The calls of layers, as adapters of frameworks note them down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cfi_core.errors import LayerError
from cfi_core.framework import LayerCalls

ONE = np.ones(3)


def calls(replace: Any = lambda name, tensor: None) -> LayerCalls:
    return LayerCalls(np.ndarray, {"dense": "Dense", "never": "Dense"}, replace)


def test_a_tensor_is_replaced_in_its_structure() -> None:
    seen = calls(lambda name, tensor: tensor + 1 if name == "dense" else None)
    assert (seen.see("dense", ONE) == 2).all()
    found = seen.see("dense", {"value": ONE, "nothing": None})
    assert found["nothing"] is None and (found["value"] == 2).all()
    assert seen.see("other", ONE) is ONE
    assert seen.counts == {"dense": 2, "other": 1} and not seen.is_single("dense") and seen.is_single("other")


def test_what_is_no_single_tensor_goes_on_as_it_is() -> None:
    seen = calls(lambda name, tensor: pytest.fail("shown"))
    for output in ((ONE, ONE), "words", None):
        assert seen.see("dense", output) is output
    assert not seen.is_single("dense")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("never", r"'never' \(Dense\) is not called"),
        ("nowhere", r"'nowhere' is not called"),
        ("twice", "is called 2 times"),
        ("pair", "gives 2 values"),
        ("inside", "runs inside a loop, so"),
        ("dens", "such as dense: cfi.layers"),
    ],
)
def test_a_layer_without_a_single_activation_is_refused(name: str, reason: str) -> None:
    seen = calls()
    for layer, output in (("dense", ONE), ("twice", ONE), ("twice", ONE), ("pair", (ONE, ONE))):
        seen.see(layer, output)
    seen.hidden["inside"] = "runs inside a loop"
    seen.check("dense")
    with pytest.raises(LayerError, match=reason):
        seen.check(name)
