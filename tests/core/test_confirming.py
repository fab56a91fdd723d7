"""What a run feeds to a converted model is compared with the user's: networks whose passes are recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.contract import Axes, Converted, MethodRequest, MethodResult
from cfi_core.framework import Passes
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Head, Kind, MethodSpec, Need, ToolsetSpec, TranslatorSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import NetworkAdapter, Painting, Print

HERE = "planted_for_confirming"
POINTS = 5  # of a path
MOST_FACTOR = 3.0  # how far beyond the data a method goes

# networks whose passes can be seen, with faults


def none(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values


def from_row_7_on(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values * np.where(np.arange(len(values)) < 7, 1.0, 1.5).reshape(-1, *[1] * (values.ndim - 1))


def in_large_batches(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values * (1.5 if len(values) > 8 else 1.0)


class Walked(Print):
    """A print that can be entered at a layer."""

    watched: ClassVar[Passes | None] = None
    of_outputs: ClassVar[Callable[..., np.ndarray]] = staticmethod(none)
    of_gradients: ClassVar[Callable[..., np.ndarray]] = staticmethod(none)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        outputs = Walked.of_outputs(images, super().__call__(images))
        self._record(images, outputs)
        return outputs

    def gradients(self, images: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        found = super().gradients(images, cotangent)
        found["input"] = Walked.of_gradients(images, found["input"])
        outputs = Walked.of_outputs(images, self.normalise(self.layers(images)["head"]))
        self._record(images, outputs, cotangents={0: cotangent}, gradients={0: found["input"]})
        return found

    def resume(self, images: np.ndarray, layer: str, activation: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """The gradient at an activation that takes the place of what the layer computed."""
        value, pulls = activation, []
        for step in self.steps[self.steps.index(layer) + 1 :]:
            value, pull = self.apply(step, value)
            pulls.append(pull)
        gradient = cotangent
        for pull in reversed(pulls):
            gradient = pull(gradient)
        gradient = Walked.of_gradients(images, gradient)
        back = {"cotangents": {0: cotangent}, "at_layers": {0: gradient}}
        self._record(images, Walked.of_outputs(images, value), activations={0: activation}, **back)
        return gradient

    def _record(self, images: np.ndarray, outputs: np.ndarray, **more: dict[int, np.ndarray]) -> None:
        if Walked.watched is None:
            return
        one = Walked.watched.open(len(images))
        one.inputs, one.outputs = [images[one.rows]], {0: outputs[one.rows]}
        for name, arrays in more.items():
            setattr(one, name, {i: array[one.rows] for i, array in arrays.items()})


@contextmanager
def watch_passes(self: Any, model: Any, passes: Passes, layers: Sequence[Any] = ()) -> Iterator[None]:
    Walked.watched = passes
    try:
        yield
    finally:
        Walked.watched = None


def to_walked(model: Painting, inputs: tuple[np.ndarray, ...]) -> Converted:
    return Converted(Walked(model.mix, model.head, softmax=model.softmax), ((0, 2, 3, 1),), (None,))


# methods


def cotangent_of(request: MethodRequest, copies: int = 1) -> np.ndarray:
    """One at the target, for each row of so many copies of the samples."""
    count, target = len(request.inputs[0]), request.target
    assert target is not None
    made = np.zeros((count, request.model.head.shape[0]))
    for sample, index in enumerate(target.indices(count)):
        made[(sample, *index)] = 1
    return np.tile(made, (copies, 1))


def walk(request: MethodRequest) -> MethodResult:
    """Mean gradient on the straight path from zero, in one pass of all points."""
    (images,) = request.inputs
    factors = (np.arange(POINTS) + 0.5) / POINTS
    rows = np.concatenate([factor * images for factor in factors])
    gradients = request.model.gradients(rows, cotangent_of(request, POINTS))["input"]
    return MethodResult((images * gradients.reshape(POINTS, *images.shape).mean(0),), Axes.INPUT)


def stretch(request: MethodRequest) -> MethodResult:
    """The outputs far beyond the data, without any gradient."""
    (images,) = request.inputs
    outputs = (request.model(MOST_FACTOR * images) * cotangent_of(request)).sum(1)
    return MethodResult((np.ones_like(images) * outputs[:, None, None, None],), Axes.INPUT)


def rules(request: MethodRequest) -> MethodResult:
    """Twice the gradient: what rules of its own make of it."""
    gradients = request.model.gradients(request.inputs[0], cotangent_of(request))["input"]
    if Walked.watched is not None:
        Walked.watched.records()[-1].gradients[0] *= 2
    return MethodResult((2 * gradients,), Axes.INPUT)


def alter(request: MethodRequest) -> MethodResult:
    """The gradient at weights that the method has changed."""
    request.model.head *= 0.5
    return MethodResult((request.model.gradients(request.inputs[0], cotangent_of(request))["input"],), Axes.INPUT)


def walk_layer(request: MethodRequest) -> MethodResult:
    """Mean gradient at a layer whose activations go from zero to what they are."""
    (images,), (layer,) = request.inputs, request.layer
    activation = request.model.layers(images)[layer]
    factors = (np.arange(POINTS) + 0.5) / POINTS
    steps = [request.model.resume(images, layer, factor * activation, cotangent_of(request)) for factor in factors]
    return MethodResult((activation * np.mean(steps, axis=0),), Axes.LAYER)


def quiet(request: MethodRequest) -> MethodResult:
    """Nothing is recorded of it."""
    return MethodResult((np.ones_like(request.inputs[0]),), Axes.INPUT)


METHODS = (walk, stretch, rules, alter, walk_layer, quiet)


@hookimpl
def cfi_toolsets() -> list[ToolsetSpec]:
    return [ToolsetSpec(name="walks", framework="print")]


@hookimpl
def cfi_methods() -> list[MethodSpec]:
    def method(function: Callable[..., Any], **more: Any) -> MethodSpec:
        given = {"kind": Kind.ATTRIBUTION, "needs": frozenset({Need.FORWARD, Need.INPUT_GRADIENT}), "head": Head.LOGIT}
        return MethodSpec(
            key=function.__name__,
            toolset="walks",
            implementation=f"{HERE}:{function.__name__}",
            optional=("target",),
            **{**given, **more},
        )

    return [
        method(walk),
        method(stretch, needs=frozenset({Need.FORWARD})),
        method(rules, needs=frozenset({Need.INPUT_GRADIENT, Need.MODULES})),
        method(alter, alters_model=True),
        method(walk_layer, kind=Kind.LAYER, needs=frozenset({Need.LAYER}), required=("inputs", "layer")),
        method(quiet),
    ]


@hookimpl
def cfi_translators() -> list[TranslatorSpec]:
    return [
        TranslatorSpec(
            name="walkway",
            source="paint",
            target="print",
            preserves=frozenset(Need),
            cost=9,
            implementation=f"{HERE}:to_walked",
        )
    ]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module = ModuleType(HERE)
    hooks = (to_walked, cfi_toolsets, cfi_methods, cfi_translators)
    vars(module).update({one.__name__: one for one in (*METHODS, *hooks)})
    monkeypatch.setitem(sys.modules, HERE, module)
    monkeypatch.setattr(NetworkAdapter, "watch_passes", watch_passes)
    cfi.forget_translations()
    with use_plugins(fake, module) as current:
        yield current
    cfi.forget_translations()


def explain(model: Painting, method: str, images: np.ndarray, **arguments: Any) -> cfi.Attribution:
    arguments = {"target": 2, "translator": "walkway", "seed": 0, **arguments}
    found = cfi.attribute(model, method, "walks", inputs=images, **arguments)
    assert isinstance(found, cfi.Attribution) and found.route == ("walkway",)
    return found


def gradient_at(model: Painting, images: np.ndarray) -> np.ndarray:
    return model.gradients(images, np.eye(5)[[2] * len(images)])["input"]


# runs that are confirmed


def test_the_samples_of_a_path_are_compared_with_their_gradients(painting, images):
    found = explain(painting, "walk", images)
    # relu(f·x) = f·relu(x): the gradient is the same at every point of the path.
    np.testing.assert_allclose(found.values, images * gradient_at(painting, images), atol=1e-12)
    *_, last = found.certificate.measurements
    assert last.samples_of == f"8 of the {POINTS * len(images)} samples that the run fed to it" and last.samples == 8
    assert last.output_difference < 1e-12 and last.gradient_difference < 1e-12
    assert not any("not compared" in note for note in found.certificate.notes)


def test_outputs_alone_are_compared_where_no_gradient_was_taken(painting, images):
    found = explain(painting, "stretch", images)
    expected = MOST_FACTOR * painting(images)[:, 2]
    np.testing.assert_allclose(found.values, np.broadcast_to(expected[:, None, None, None], images.shape))
    *_, last = found.certificate.measurements
    assert last.samples_of == "2 of the 2 samples that the run fed to it" and last.gradient_difference is None


@pytest.mark.parametrize("layer", ["mix", "relu", "pool"])
def test_what_takes_the_place_of_activations_is_put_into_the_users_model(painting, images, layer):
    found = explain(painting, "walk_layer", images, layer=layer)
    weights = painting.gradients(images, np.eye(5)[[2, 2]])[layer]
    np.testing.assert_allclose(found.values, painting.layers(images)[layer] * weights, atol=1e-12)
    *_, last = found.certificate.measurements
    assert "of the 10 samples that the run fed to it" in last.samples_of
    assert last.gradient_difference is not None and last.gradient_difference < 1e-12


def test_a_method_with_rules_of_its_own_has_its_gradients_compared_apart(painting, images):
    found = explain(painting, "rules", images)
    np.testing.assert_allclose(found.values, 2 * gradient_at(painting, images), atol=1e-12)
    covered = [one.samples_of for one in found.certificate.measurements]
    assert covered[-2:] == [
        "2 of the 2 samples that the run fed to it",
        "samples of the run (compared apart from the method's rules)",
    ]
    in_run, apart = found.certificate.measurements[-2:]
    assert in_run.gradient_difference is None and apart.gradient_difference < 1e-12


def test_of_a_method_that_changes_weights_nothing_is_compared(painting, images):
    before = painting.head.copy()
    found = explain(painting, "alter", images)
    np.testing.assert_array_equal(painting.head, before)
    np.testing.assert_allclose(found.values, 0.5 * gradient_at(painting, images), atol=1e-12)
    assert not any("run" in one.samples_of for one in found.certificate.measurements)
    assert not any("not compared" in note for note in found.certificate.notes)


def test_a_run_of_which_nothing_could_be_recorded_is_told(painting, images):
    found = explain(painting, "quiet", images)
    assert found.certificate.faithful
    assert found.certificate.notes[-1] == "the run not compared (nothing of it could be recorded)"


def test_a_model_is_compared_at_the_logits_where_its_softmax_is_left_out(painting, images):
    model = Painting(painting.mix, painting.head, softmax=True)
    found = explain(model, "walk", images)
    np.testing.assert_allclose(found.values, images * gradient_at(painting, images), atol=1e-12)
    assert "that the run fed to it" in found.certificate.measurements[-1].samples_of


def test_a_softmax_that_is_not_found_in_the_users_model_is_told(painting, images, monkeypatch):
    cut = NetworkAdapter.without_softmax
    monkeypatch.setattr(
        NetworkAdapter,
        "without_softmax",
        lambda self, model, inputs: None if isinstance(model, Painting) else cut(self, model, inputs),
    )
    found = explain(Painting(painting.mix, painting.head, softmax=True), "walk", images)
    np.testing.assert_allclose(found.values, images * gradient_at(painting, images), atol=1e-12)
    assert "the softmax that was left out of the converted model was not found in yours" in found.certificate.notes[-1]


# models that do not take what the run fed


class Pairs(Painting):
    """Takes two images at a time."""

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if len(images) != 2:
            raise ValueError("two images, please")
        return super().layers(images)


class Tame(Painting):
    """Takes no values beyond those of the data."""

    most: ClassVar[float] = np.inf

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if np.abs(images).max() > self.most:
            raise ValueError("such values do not exist")
        return super().layers(images)


def test_a_model_that_takes_as_many_samples_as_were_given_is_asked_in_portions(painting, images):
    found = explain(Pairs(painting.mix, painting.head), "walk", images)
    np.testing.assert_allclose(found.values, images * gradient_at(painting, images), atol=1e-12)
    *_, last = found.certificate.measurements
    assert "that the run fed to it" in last.samples_of and last.gradient_difference < 1e-12


def test_a_model_that_does_not_take_the_samples_of_the_run_is_told(painting, images, monkeypatch):
    model = Tame(painting.mix, painting.head)
    monkeypatch.setattr(Tame, "most", 2.9 * np.abs(images).max())
    found = explain(model, "stretch", images)
    (note,) = [one for one in found.certificate.notes if "the run" in one]
    assert note.startswith("the run not compared (your model does not take its samples") and "do not exist" in note


# runs that are thrown away


@pytest.mark.parametrize("place", ["of_outputs", "of_gradients"])
@pytest.mark.parametrize("fault", [from_row_7_on, in_large_batches])
def test_a_fault_where_the_method_goes(painting, images, monkeypatch, place, fault):
    monkeypatch.setattr(Walked, place, staticmethod(fault))
    with pytest.raises(cfi.UnfaithfulTranslationError, match="While walk ran, the model made by walkway") as caught:
        explain(painting, "walk", images)
    assert not caught.value.certificate.faithful
    assert any("that the run fed to it" in fault for fault in caught.value.certificate.faults)


def beyond_the_data(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values + (np.abs(images).max() > 0.9 * MOST_FACTOR * 2.5)


def test_a_fault_beyond_the_data(painting, images, monkeypatch):
    images = images / np.abs(images).max() * 2.5
    monkeypatch.setattr(Walked, "of_outputs", staticmethod(beyond_the_data))
    with pytest.raises(cfi.UnfaithfulTranslationError, match="While stretch ran"):
        explain(painting, "stretch", images)


@pytest.mark.parametrize("place", ["of_outputs", "of_gradients"])
def test_a_fault_behind_an_activation_that_was_replaced(painting, images, monkeypatch, place):
    resume = Walked.resume

    def faulty(self: Walked, *given: Any) -> np.ndarray:
        with monkeypatch.context() as inside:
            inside.setattr(Walked, place, staticmethod(lambda images, values: -values))
            return resume(self, *given)

    monkeypatch.setattr(Walked, "resume", faulty)
    with pytest.raises(cfi.UnfaithfulTranslationError, match="While walk_layer ran"):
        explain(painting, "walk_layer", images, layer="relu")
