"""A guard looks at the model before the run; where rules would not attach, a canonical copy takes its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.contract import Axes, GuardRequest, MethodRequest, MethodResult, Miss
from cfi_core.framework import Canonical
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Guard, Head, Kind, MethodSpec, Need, ToolsetSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Network, NetworkAdapter, Painting, Print

HERE = "planted_for_guarding"  # pytest's importlib mode may not have put this module where it can be imported from
NAMES = ("mix", "relu", "pool", "head")


class Rewritten(Print):
    """What the planted rules know."""


class Plugin:
    """A toolset with one method, whose guard and whose run are planted by the test."""

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="rules", framework="print")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        return [
            MethodSpec(
                key="rule",
                toolset="rules",
                kind=Kind.LAYER,
                needs=frozenset({Need.LAYER}),
                implementation=f"{HERE}:run",
                required=("inputs", "layer"),
                optional=("target",),
                exec_args=("of_input",),
                native_only=("of_input",),
                head=Head.LOGIT,
                guard=Guard(check=f"{HERE}:check", modules={"relu": f"{HERE}:make_relu"}, knows=f"{HERE}:knows"),
            )
        ]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The planted functions, and what they were called with."""
    module = ModuleType(HERE)
    planted = SimpleNamespace(looked=[], rewritten=[], canonical=[])

    def check(request: GuardRequest) -> tuple[Miss, ...]:
        planted.looked.append(request)
        known = isinstance(request.model, Rewritten) and not planted.stubborn
        return () if known or planted.content else (Miss("relu", "'rule' finds no relu."),)

    def run(request: MethodRequest) -> MethodResult:
        planted.request = request
        return MethodResult((request.model.layers(request.inputs[0])[request.layer[0]],), Axes.LAYER)

    planted.stubborn = planted.content = False
    module.check, module.run = lambda request: planted.check(request), run  # type: ignore[attr-defined]
    module.make_relu, module.knows = lambda: "relu", lambda layer: False  # type: ignore[attr-defined]
    planted.check = check
    monkeypatch.setitem(sys.modules, HERE, module)
    cfi.forget_translations()
    with use_plugins(fake, Plugin):
        yield planted


@pytest.fixture
def rewriting(here: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An adapter that rewrites; `here.change` changes what it made."""

    def canonical(self: NetworkAdapter, model: Network, inputs: Any, modules: Any, **more: Any) -> Canonical:
        here.rewritten.append((model, inputs, modules, more))
        made = Rewritten(model.mix, model.head, softmax=model.softmax)
        return here.change(Canonical(made, {name: name for name in NAMES}, repairs=("relu: a",)))

    here.change = lambda made: made
    monkeypatch.setattr(NetworkAdapter, "canonical", canonical)
    return here


def call(model: Network, images: np.ndarray, layer: str = "mix", **arguments: Any) -> cfi.Attribution:
    found = cfi.attribute(model, "rule", "rules", inputs=images, layer=layer, target=1, **arguments)
    assert isinstance(found, cfi.Attribution)
    return found


def printed() -> tuple[Print, np.ndarray]:
    generator = np.random.default_rng(1)
    return Print(generator.normal(size=(4, 3)), generator.normal(size=(5, 4))), generator.normal(size=(2, 5, 7, 3))


def test_a_model_that_the_rules_know_is_left_alone(here, rewriting):
    here.content = True
    model, images = printed()
    found = call(model, images)
    assert here.rewritten == []
    assert found.provenance["repaired"] == ()
    assert found.certificate is None
    (request,) = here.looked
    assert request.model is not model
    assert request.layer == ("mix",)
    np.testing.assert_array_equal(request.inputs[0], images)
    assert request.inputs[0] is not images


def test_a_model_with_misses_is_rewritten_once(here, rewriting):
    model, images = printed()
    found = call(model, images)
    assert isinstance(here.request.model, Rewritten)
    assert found.provenance["repaired"] == ("relu: a",)
    assert found.certificate is not None
    assert found.certificate.faithful
    assert found.provenance["certificate"].startswith("faithful")
    np.testing.assert_array_equal(found.values, model.layers(images)["mix"])
    call(model, images)
    call(model, 2 * images)
    ((rewritten, _, modules, more),) = here.rewritten
    assert rewritten is not model
    assert modules["relu"]() == "relu"
    assert more["knows"]("anything") is False
    model.head[0] += 1
    call(model, images)
    assert len(here.rewritten) == 2


def test_a_translated_model_is_rewritten_in_its_own_axes(here, rewriting):
    model, last = printed()
    painting, images = Painting(model.mix, model.head), last.transpose(0, 3, 1, 2)
    found = call(painting, images)
    ((rewritten, inputs, _, _),) = here.rewritten
    assert type(rewritten) is Print
    np.testing.assert_array_equal(inputs[0], last)
    np.testing.assert_allclose(found.values, painting.layers(images)["mix"])
    assert found.route == ("paint2print",)
    assert found.certificate is not None


def test_a_softmax_is_cut_before_the_guard_looks(here, rewriting):
    model, images = printed()
    soft = Print(model.mix, model.head, softmax=True)
    found = call(soft, images)
    assert [request.model.softmax for request in here.looked] == [False] * len(here.looked)
    assert "left out" in found.provenance["explained"]


def test_a_call_that_waits_for_its_layer_is_looked_at_when_it_has_one(here, rewriting):
    model, images = printed()
    pending = cfi.attribute(model, "rule", "rules", inputs=images, target=1)
    assert isinstance(pending, cfi.PendingLayer)
    assert here.looked == []
    found = cfi.finish_execution_with_layer(pending, "relu")
    assert found.provenance["repaired"] == ("relu: a",)
    assert {request.layer for request in here.looked} == {("relu",)}


def test_layers_go_by_their_names_in_the_copy(here, rewriting):
    here.change = lambda made: Canonical(made.model, {"mix": "relu", "pool": "pool"}, repairs=made.repairs)
    model, images = printed()
    found = call(model, images, layer="mix")
    assert here.request.layer == ("relu",)
    assert found.layer == "mix"
    with pytest.raises(cfi.LayerError, match=r"'head'.*canonical copy of the model.*Layers that can: mix, pool"):
        call(model, images, layer="head")


def test_what_goes_into_a_layer_may_not_be_there(here, rewriting):
    def without_input(made: Canonical) -> Canonical:
        return Canonical(made.model, made.layers, frozenset({"pool"}), made.repairs)

    here.change = without_input
    model, images = printed()
    call(model, images, layer="mix", exec_args={"of_input": True})
    call(model, images, layer="pool")
    with pytest.raises(cfi.LayerError, match=r"of_input: what goes into layer 'pool' is not in the canonical copy"):
        call(model, images, layer="pool", exec_args={"of_input": True})


def test_without_rewriting_the_miss_is_the_error(here):
    with pytest.raises(
        cfi.MethodError, match=r"^'rule' finds no relu. The model could not be rewritten for it: models"
    ):
        call(*printed())


def test_a_miss_that_stays_is_the_error(here, rewriting):
    here.stubborn = True
    with pytest.raises(cfi.MethodError, match=r"^'rule' finds no relu.$"):
        call(*printed())
    here.check = lambda request: (Miss("relu", f"none in a {type(request.model).__name__}."),)
    with pytest.raises(cfi.MethodError, match=r"^none in a Rewritten. This is said of a canonical copy of the model"):
        call(*printed())


def test_a_copy_that_computes_something_else_is_not_used(here, rewriting):
    def distort(made: Canonical) -> Canonical:
        made.model.head = made.model.head[::-1].copy()
        return made

    here.change = distort
    with pytest.raises(cfi.MethodError, match=r"finds no relu.*computes something else: outputs on your inputs differ"):
        call(*printed())
    assert not hasattr(here, "request")


def test_a_rewriting_that_fails_is_told(here, rewriting):
    def fail(made: Canonical) -> Canonical:
        raise KeyError("relu")

    here.change = fail
    with pytest.raises(cfi.MethodError, match=r"finds no relu.*could not be rewritten.*KeyError"):
        call(*printed())


@pytest.mark.parametrize("answer", [None, ["relu"], ("relu",), True])
def test_a_guard_that_answers_something_else_is_at_fault(here, answer):
    here.check = lambda request: answer
    with pytest.raises(cfi.MethodError, match=r"The guard of rule .*returned a \w+ where a (tuple|Miss) is expected"):
        call(*printed())


def test_what_no_rewriting_can_help_the_guard_says_itself(here, rewriting):
    def refuse(request: GuardRequest) -> Any:
        raise cfi.MethodError("this model has no modules")

    here.check = refuse
    with pytest.raises(cfi.MethodError, match=r"^this model has no modules$"):
        call(*printed())
    here.check = lambda request: 1 / 0
    with pytest.raises(cfi.MethodError, match=r"The guard of rule .*failed .*ZeroDivisionError"):
        call(*printed())


def test_a_guard_checks_itself():
    with pytest.raises(ValueError, match="check='nowhere' is not of the form"):
        Guard(check="nowhere")
    with pytest.raises(ValueError, match="modules"):
        Guard(check="a:b", modules={"relu": "nowhere"})


def test_what_goes_into_a_layer_is_asked_of_native_models_alone(here, rewriting):
    model, images = printed()
    painting = Painting(model.mix, model.head)
    with pytest.raises(cfi.ArgumentError, match="'of_input' asks for a place in the translated model"):
        call(painting, images.transpose(0, 3, 1, 2), exec_args={"of_input": True})


def test_a_guard_looks_at_a_few_samples_if_the_model_takes_them(here):
    here.content = True
    model, _ = printed()
    images = np.random.default_rng(4).normal(size=(5, 5, 7, 3))
    call(model, images)
    np.testing.assert_array_equal(here.looked[-1].inputs[0], images[:2])

    class OfFive(Print):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            if len(images) != 5:
                raise ValueError("built for 5 samples")
            return super().__call__(images)

    found = call(OfFive(model.mix, model.head), images)
    np.testing.assert_array_equal(here.looked[-1].inputs[0], images)
    np.testing.assert_array_equal(found.values, model.layers(images)["mix"])
