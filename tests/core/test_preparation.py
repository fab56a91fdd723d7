"""Models that bring their own preparation: explained without it, and home through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import preparation
from cfi_core.contract import Axes, Unpacked
from cfi_core.hookspec import hookimpl
from cfi_core.registry import registry
from cfi_core.specs import PreparationSpec
from cfi_core.testing import use_plugins

HERE = __name__


class Doubler:
    """Doubles what it is given before the function inside gets it."""

    def __init__(self, function: Any, *, leads_back: bool = True) -> None:
        self.function, self.leads_back = function, leads_back


def unpack(model: Doubler, inputs: Any) -> Unpacked | None:
    if isinstance(inputs, dict):
        return None
    if inputs is None or len(inputs) == 0:
        raise ValueError("nothing there")
    given = np.asarray(inputs, float)
    return Unpacked(
        model=model.function,
        inputs={"x": 2 * given},
        did="doubled",
        feature_names={"x": ["a", "b", "c"]},
        baselines=1.0,
        home=home if model.leads_back else None,
        stays="values are of the double",
        shown=((given, ("sample", "thing")),),
    )


def home(values: np.ndarray, dims: tuple[str, ...], axes: Axes) -> tuple[np.ndarray, tuple[str, ...]]:
    assert axes is Axes.INPUT
    return values / 2, ("sample", "thing")


class Plugin:
    @staticmethod
    @hookimpl
    def cfi_preparations() -> list[PreparationSpec]:
        return [PreparationSpec(name="doubler", model_types=((HERE, "Doubler"),), implementation=f"{HERE}:unpack")]


def total(x: np.ndarray) -> np.ndarray:
    return x.sum(1, keepdims=True)


ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


@pytest.fixture(autouse=True)
def plugins(omission_plugin: Any) -> Iterator[None]:
    with use_plugins(omission_plugin, Plugin):
        yield


def test_values_come_home():
    found = cfi.attribute(Doubler(total), "omit", inputs=ROWS, target=0)
    np.testing.assert_array_equal(found.values, np.asarray(ROWS) - 0.5)  # (2 x - 1) / 2
    assert found.dims == ("sample", "thing") and found.feature_names == ("a", "b", "c")
    assert found.provenance["preparation"] == "doubled; values are on what was given"
    np.testing.assert_array_equal(found.inputs[0], ROWS)
    assert found.input_dims == (("sample", "thing"),)


def test_or_stay_and_say_so():
    found = cfi.attribute(Doubler(total, leads_back=False), "omit", inputs=ROWS, target=0, baselines=0)
    np.testing.assert_array_equal(found.values, 2 * np.asarray(ROWS))
    assert found.dims == ("sample", "feature")
    assert found.provenance["preparation"] == "doubled; values are of the double"
    np.testing.assert_array_equal(found.inputs[0], 2 * np.asarray(ROWS))


def test_other_calls_unpack_it_too():
    arguments = cfi.plan(Doubler(total), "omit", inputs=ROWS).arguments
    np.testing.assert_array_equal(arguments.model(2 * np.asarray(ROWS)), 2 * total(np.asarray(ROWS)))
    assert cfi.layers(Doubler(total), ROWS) == []
    with pytest.raises(cfi.ArgumentError, match="already is a numpy model"):
        cfi.translate(Doubler(total), "numpy", inputs=ROWS)


def test_what_fails_in_it_is_told_with_its_plugin():
    with pytest.raises(cfi.InputError, match=r"preparation of the Doubler \(dist-of-Plugin.*\) fails .*nothing there"):
        cfi.attribute(Doubler(total), "omit", inputs=[], target=0)


def test_what_it_does_not_take_goes_to_the_model_as_it_is():
    with pytest.raises(cfi.UnknownFrameworkError):
        cfi.attribute(Doubler(total), "omit", inputs={"x": ROWS}, target=0)


def test_a_plugin_that_is_missing_is_named(monkeypatch):
    class Pipeline(Doubler):
        pass

    monkeypatch.setitem(globals(), "Pipeline", Pipeline)
    known = {"name": "pipelines", "model_types": [[HERE, "Pipeline"]], "distribution": "cfi-pipelines"}
    monkeypatch.setattr(preparation, "PREPARATIONS", [known])
    with use_plugins(), pytest.raises(cfi.ArgumentError, match="pip install cfi-pipelines"):
        preparation.unpack_model(registry(), Pipeline(total), ROWS)


def test_a_requirement_that_is_missing_is_named():
    class Demanding:
        @staticmethod
        @hookimpl
        def cfi_preparations() -> list[PreparationSpec]:
            types, where = ((HERE, "Doubler"),), f"{HERE}:unpack"
            lacking = ("no-such-distribution>=1",)
            return [PreparationSpec(name="d", model_types=types, implementation=where, requirements=lacking)]

    with use_plugins(Demanding), pytest.raises(cfi.ArgumentError, match="no-such-distribution"):
        cfi.layers(Doubler(total), ROWS)
