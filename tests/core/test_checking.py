"""What names and one pass tell of a call, by a toolset with every kind of argument of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.checking import _check_layers_lead
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.records import Original
from cfi_core.specs import Head, Kind, MethodSpec, Need, Role, ToolsetSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import NetworkAdapter, Painting, Print

HERE = "planted_for_checking"
seen: list[MethodRequest] = []


def run(request: MethodRequest) -> MethodResult:
    """The inputs themselves; ones for each target where there are none."""
    seen.append(request)
    if not request.inputs:
        index = request.target.index
        return MethodResult((np.ones((len(index) if isinstance(index[0], tuple) else 1, 5, 7, 3)),), Axes.INPUT)
    return MethodResult(tuple(np.array(one) for one in request.inputs), Axes.INPUT)


def _method(key: str, kind: Kind = Kind.ATTRIBUTION, need: Need = Need.FORWARD, **fields: Any) -> MethodSpec:
    return MethodSpec(
        key=key, toolset="desk", kind=kind, needs=frozenset({need}), implementation=f"{HERE}:run", **fields
    )


class Desk:
    """The toolset."""

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="desk", framework="print")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        return [
            _method("holding", exec_args=("behind",), roles={"behind": Role.HELD}),
            _method(
                "naming",
                optional=("target",),
                exec_args=("score",),
                roles={"score": Role.OWN_TARGET},
                head=Head.OUTPUT,
            ),
            _method("reading", exec_args=("data",), roles={"data": Role.ONE_OR_SEVERAL}),
            _method("going", need=Need.INPUT_GRADIENT, optional=("baselines",)),
            _method(
                "drawing",
                Kind.FEATURE_VISUALIZATION,
                required=(),
                optional=("inputs", "target", "layer", "neuron"),
                head=Head.LOGIT,
            ),
        ]


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType(HERE)
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, HERE, module)
    seen.clear()
    cfi.forget_translations()
    with use_plugins(fake, Desk):
        yield


@pytest.fixture
def painting() -> Painting:
    generator = np.random.default_rng(1)
    return Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))


@pytest.fixture
def printed(painting: Painting) -> Print:
    return Print(painting.mix, painting.head)


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prints that declare their inputs."""
    monkeypatch.setattr(NetworkAdapter, "input_shapes", lambda self, model: ((None, 5, 7, 3),))


LAST = np.random.default_rng(2).normal(size=(2, 5, 7, 3))


def test_what_is_no_tensor_of_samples_is_held_natively_alone(painting, printed):
    with pytest.raises(cfi.InputError, match=r"A translated model takes tensors of 2 samples as yours does"):
        cfi.attribute(painting, "holding", "desk", inputs=LAST.transpose(0, 3, 1, 2), exec_args={"behind": 3})
    with pytest.raises(cfi.InputError, match="what the forward pass takes behind them"):
        cfi.attribute(printed, "holding", "desk", inputs=LAST, exec_args={"behind": 3})
    assert not seen


def test_a_target_is_given_once(printed):
    with pytest.raises(cfi.ArgumentError, match="got its target twice: as 'target' and in the toolset's own words"):
        cfi.attribute(printed, "naming", "desk", inputs=LAST, target=1, exec_args={"score": lambda y: y[:, 0]})
    assert cfi.attribute(printed, "naming", "desk", inputs=LAST, target=1).values.shape == LAST.shape


@pytest.mark.parametrize("given", [LAST[0], LAST[:1], LAST[0].tolist()])
def test_a_single_sample_gets_its_axis_where_shapes_are_declared(declared, printed, given):
    found = cfi.attribute(printed, "reading", "desk", exec_args={"data": given})
    np.testing.assert_array_equal(found.values, LAST[:1])


def test_a_straight_line_needs_finite_ends(printed):
    with pytest.raises(cfi.InputError, match="baselines holds NaN or infinite values, and going goes in a straight"):
        cfi.attribute(printed, "going", "desk", inputs=LAST, baselines=np.nan)
    assert cfi.attribute(printed, "going", "desk", inputs=LAST, baselines=0.0).values.shape == LAST.shape


def test_a_layer_is_visualised_by_one_of_its_units(declared, printed):
    for given in ({"layer": "mix"}, {"neuron": 1}):
        with pytest.raises(cfi.ArgumentError, match="pass both layer= and neuron="):
            cfi.visualize_features(printed, "drawing", "desk", **given)


class Noting(Print):
    """Keeps what it is given."""

    given: list[np.ndarray] = []  # noqa: RUF012 - its twins keep it too

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.given.append(images)
        return super().__call__(images)


@pytest.mark.parametrize(("target", "samples"), [(3, 1), ([3, 1, 0], 3)])
def test_inputs_are_made_up_for_as_many_samples_as_there_are_targets(declared, printed, target, samples):
    Noting.given.clear()
    model = Noting(printed.mix, printed.head)
    found = cfi.visualize_features(model, "drawing", "desk", target=target)
    (request,) = seen
    assert request.inputs == () and found.values.shape == (samples, 5, 7, 3)
    drawn = np.random.default_rng(0).normal(size=(samples, 5, 7, 3)).astype(np.float32)
    np.testing.assert_array_equal(Noting.given[0], drawn)


def test_a_model_that_stays_in_training_mode_is_told(monkeypatch, printed):
    monkeypatch.setattr(NetworkAdapter, "in_training_mode", lambda self, model: True)
    with pytest.warns(cfi.ModelWarning, match="stays in training mode whatever it is told"):
        cfi.attribute(printed, "going", "desk", inputs=LAST)


def test_a_call_that_waits_for_its_layer_gets_one(printed):
    pending = cfi.attribute(printed, "press_layer", "press", inputs=LAST)
    with pytest.raises(cfi.LayerError, match="Pass a layer: one of mix, relu, pool, head"):
        cfi.finish_execution_with_layer(pending, ())
    found = cfi.finish_execution_with_layer(pending, "relu")
    np.testing.assert_array_equal(found.values, printed.layers(LAST)["relu"])
    printed.head[0] += 1
    with pytest.raises(cfi.ArgumentError, match="The model has changed since the call was prepared"):
        cfi.finish_execution_with_layer(pending, "relu")


def test_a_layer_that_leads_elsewhere_is_refused(printed):
    ended = Original("print", NetworkAdapter(), printed)
    assert _check_layers_lead(SimpleNamespace(layers=("mix",)), ended) is None
    with pytest.raises(cfi.LayerError, match="Layer 'boxes' does not lead to the score that is explained"):
        _check_layers_lead(SimpleNamespace(layers=("mix", "boxes")), ended)


def test_an_object_of_another_model_is_no_layer(printed):
    with pytest.raises(cfi.LayerError, match=r"The object given as layer is not part of this model.*mix, relu"):
        cfi.attribute(printed, "press_layer", "press", inputs=LAST, layer=object())
