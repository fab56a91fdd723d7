"""Observers get copies: nothing that they do to them reaches the call, the user's objects or the result."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Kind
from cfi_core.testing import fake, use_plugins
from cfi_core.views import Description, protect


def spoil(value, seen=()):
    """Writes to whatever can be written to, however deep."""
    if id(value) in seen:
        return
    seen = (*seen, id(value))
    if isinstance(value, np.ndarray):
        try:
            value.setflags(write=True)
            value[...] = -1
        except ValueError:
            pass
    for entry in (
        value.values()
        if hasattr(value, "values") and callable(value.values)
        else value
        if isinstance(value, tuple | list | frozenset)
        else vars(value).values()
        if hasattr(value, "__dict__") and not isinstance(value, type)
        else ()
    ):
        spoil(entry, seen)
    if isinstance(value, dict | list):
        value.clear()
    if hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            object.__setattr__(value, name, None)


class Spoiler:
    @hookimpl
    def cfi_before_run(self, plan):
        spoil(plan)

    @hookimpl
    def cfi_after_run(self, plan, attribution):
        spoil(plan)
        spoil(attribution)


def test_no_observer_can_change_a_call_or_its_result(painting, images):
    before, target = images.copy(), np.array([3, 1])
    call = {"inputs": images, "target": target, "exec_args": {"scale": 2.0}}
    with use_plugins(fake):
        expected = cfi.attribute(painting, "press_gradient", **call)
    with use_plugins(fake, Spoiler(), SpoilerToo()):
        result = cfi.attribute(painting, "press_gradient", **call)
    np.testing.assert_array_equal(result.values, expected.values)
    np.testing.assert_array_equal(result.inputs[0], before)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(target, [3, 1])
    assert result.extras == expected.extras and result.dims == expected.dims
    assert result.provenance["exec_args"] == {"scale": "2.0"} and result.certificate.faithful
    assert call["exec_args"] == {"scale": 2.0}


class SpoilerToo(Spoiler):
    pass


class Reader:
    def __init__(self):
        self.seen = {}

    @hookimpl
    def cfi_before_run(self, plan):
        self.seen["before"] = plan

    @hookimpl
    def cfi_after_run(self, plan, attribution):
        self.seen |= {"plan": plan, "attribution": attribution}


def test_observers_can_read_and_show_everything_but_the_users_objects(painting, images, tmp_path):
    reader = Reader()
    with use_plugins(fake, reader):
        result = cfi.attribute(painting, "press_gradient", inputs=images, target=[3, 1])
        plan = cfi.plan(painting, "press_gradient", inputs=images, target=[3, 1])
        seen, view = reader.seen["before"], reader.seen["attribution"]
        assert str(seen) == str(reader.seen["plan"]) == str(plan) and "Painting" in str(seen)
        assert type(seen) is type(plan) and seen.method == plan.method and seen.route.names == ("paint2print",)
        assert seen.arguments.target == [3, 1] and isinstance(seen.arguments.exec_args, MappingProxyType)
        assert repr(seen.arguments.model) == "<cfi_core.testing.fake.Painting>"
        assert not any(value is painting for value in vars(seen.arguments).values())
        np.testing.assert_array_equal(view.values, result.values)
        assert not view.values.flags.writeable and view.values is not result.values
        assert str(view.certificate) == str(result.certificate) and repr(view) == repr(result)
        assert json.loads(json.dumps(view.provenance["versions"])) == result.provenance["versions"]
        assert view.save(tmp_path / "seen.npz").exists()


class ReaderToo(Reader):
    pass


def test_each_observer_has_a_view_of_its_own(painting, images):
    first, second = Reader(), ReaderToo()
    with use_plugins(fake, first, second):
        cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    assert first.seen["attribution"].values is not second.seen["attribution"].values


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "text", b"bytes", Path("x"), Kind.LAYER])
def test_what_cannot_change_is_passed_on(value):
    assert protect(value) is value


def test_models_that_are_frozen_dataclasses_are_described_too():
    @dataclass(frozen=True)
    class Module:
        weight: np.ndarray

    view = protect({"model": Module(np.zeros(2)), "function": spoil, "objects": np.array([object()])})
    assert all(isinstance(entry, Description) for entry in view.values())
    assert repr(view["function"]) == f"<{__name__}.spoil>"
    assert repr(view["objects"]) == "<numpy.ndarray of shape (1,)>"
