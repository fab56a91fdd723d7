"""The public calls: one list of arguments, eight steps in order, warnings at the user's line."""

import gc
import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.records import Arguments
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting

STEPS = (
    "finding",
    "detection",
    "routing",
    "checking",
    "translation",
    "carrying",
    "running",
    "confirming",
    "homecoming",
)


def steps_of(call: Callable[[], Any]) -> list[str]:
    """The modules of steps that are entered from outside of them, in the order in which that happens."""
    entered: list[str] = []

    def module_of(frame: Any) -> str:
        name = frame.f_globals.get("__name__", "") if frame is not None else ""
        return name.removeprefix("cfi_core.").partition(".")[0] if name.startswith("cfi_core.") else ""

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call" and module_of(frame) in STEPS and module_of(frame.f_back) != module_of(frame):
            entered.append(module_of(frame))

    gc.collect()  # what the cache holds of earlier models goes now, not in the middle of the call
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return [name for name, former in zip(entered, [None, *entered], strict=False) if name != former]


@pytest.mark.parametrize("bridged", [False, True])
@pytest.mark.parametrize(
    ("method", "arguments"), [("press_gradient", {"target": [3, 1]}), ("press_map", {"target": 0, "layer": "mix"})]
)
def test_a_call_goes_through_the_steps_in_order_and_enters_none_again(painting, images, bridged, method, arguments):
    plugins = (fake, fake.bridge_plugin()) if bridged else (fake,)
    with use_plugins(*plugins):
        made = []
        steps = steps_of(lambda: made.append(cfi.attribute(painting, method, inputs=images, **arguments)))
    assert made[0].route == (("bridge-to-print",) if bridged else ("paint2print",))
    assert steps == list(STEPS)


@pytest.mark.parametrize("call", [cfi.attribute, cfi.visualize_features, cfi.plan])
def test_every_call_takes_the_arguments_of_the_one_record(call):
    listed = [field for field in fields(Arguments) if not field.kw_only]
    parameters = inspect.signature(call).parameters
    assert list(parameters) == [field.name for field in listed]
    for field in listed:
        parameter = parameters[field.name]
        assert parameter.annotation == field.type, field.name
        if field.name == "method_key" and call is cfi.visualize_features:
            assert parameter.default == "activation_maximization"
            continue
        missing = parameter.default is inspect.Parameter.empty
        assert missing if field.name in ("model", "method_key") else parameter.default == field.default, field.name
        positional = field.name in ("model", "method_key", "toolset")
        assert (parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD) is positional, field.name


@pytest.fixture
def training(painting: Painting) -> Painting:
    painting.training = True
    return painting


def test_warnings_point_at_the_users_line(training, images):
    calls: list[Callable[[], Any]] = [
        lambda: cfi.attribute(training, "press_gradient", inputs=images, target=0),
        lambda: cfi.attribute(training, "press_layer", inputs=images),
        lambda: cfi.finish_execution_with_layer(waiting, "relu"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        waiting = cfi.attribute(training, "press_layer", inputs=np.zeros_like(images))
    for call in calls:
        with pytest.warns(cfi.CFIWarning) as caught:
            call()
        assert {warning.filename for warning in caught} == {__file__}
        assert {warning.lineno for warning in caught} == {call.__code__.co_firstlineno}
