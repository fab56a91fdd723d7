"""The bridge: a model that is run where it lives, on networks whose gradients are known in closed form."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.registry import Registry
from cfi_core.testing import fake, use_plugins


@pytest.fixture(autouse=True)
def registry() -> Iterator[Registry]:
    """In place of the one without a bridge."""
    cfi.forget_translations()
    with use_plugins(fake, fake.bridge_plugin) as current:
        yield current


def test_a_bridge_comes_before_a_conversion(painting, images):
    result = cfi.attribute(painting, "press_gradient", inputs=images, target=[3, 1])
    assert result.route == ("bridge-to-print",)
    assert result.dims == ("sample", "channel", "height", "width")
    expected = painting.gradients(images, np.eye(painting.head.shape[0])[[3, 1]])["input"]
    np.testing.assert_allclose(result.values, expected, atol=1e-12)


def test_the_conversion_stays_within_reach(painting, images):
    bridged = cfi.attribute(painting, "press_gradient", inputs=images, target=2)
    for wish in ("conversion", "paint2print", ["paint2print"]):
        result = cfi.attribute(painting, "press_gradient", inputs=images, target=2, translator=wish)
        assert result.route == ("paint2print",)
        np.testing.assert_allclose(result.values, bridged.values, atol=1e-12)


def test_the_plan_says_why(painting, images):
    text = str(cfi.plan(painting, "press_gradient", inputs=images, target=0))
    assert "bridge-to-print" in text and "runs where it lives" in text
    assert "if that fails: paint → print (paint2print)" in text


def test_a_method_that_needs_modules_is_converted(painting, images):
    plan = cfi.plan(painting, "press_gradient", inputs=images, target=0, exec_args={"engrave": True})
    assert plan.route.names == ("paint2print",)
    assert "a bridge has no modules" in str(plan)
    plan = cfi.plan(painting, "press_gradient", inputs=images, target=0, exec_args={"engrave": False})
    assert plan.route.names == ("bridge-to-print",)


def test_a_bridge_alone_cannot_serve_modules_and_says_what_can(painting, images):
    with pytest.raises(cfi.RouteError, match=r"missing modules.*leave translator= out.*paint2print"):
        cfi.attribute(
            painting, "press_gradient", inputs=images, target=0, exec_args={"engrave": True}, translator="bridge"
        )


def test_layers_are_opened_by_the_call(painting, images):
    result = cfi.attribute(painting, "press_layer", inputs=images, layer="relu")
    np.testing.assert_allclose(result.values, painting.layers(images)["relu"])
    assert result.dims == ("sample", "channel", "height", "width")
    assert result.certificate.layers_found == result.certificate.layers_total == 1


def test_maps_and_neurons_agree_with_the_conversion(painting, images):
    for key, arguments in {
        "press_map": {"layer": "mix", "target": 1},
        "press_neuron": {"layer": "relu", "neuron": (1, 2, 3)},
    }.items():
        bridged = cfi.attribute(painting, key, inputs=images, **arguments)
        converted = cfi.attribute(painting, key, inputs=images, **arguments, translator="conversion")
        assert bridged.route != converted.route and bridged.dims == converted.dims
        np.testing.assert_allclose(bridged.values, converted.values, atol=1e-12)


def test_a_pending_call_builds_the_bridge_at_the_layer_that_is_chosen(painting, images):
    pending = cfi.attribute(painting, "press_layer", inputs=images)
    assert isinstance(pending, cfi.PendingLayer)
    assert [layer.name for layer in pending.layers] == ["mix", "relu", "pool", "head"]
    for name in ("mix", "relu"):
        result = cfi.finish_execution_with_layer(pending, name)
        assert result.route == ("bridge-to-print",)
        np.testing.assert_allclose(result.values, painting.layers(images)[name])


def test_the_softmax_is_cut_off_before_the_bridge(images):
    generator = np.random.default_rng(3)
    model = fake.Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)), softmax=True)
    logits = fake.Painting(model.mix, model.head)
    cotangent = np.eye(5)[[2, 2]]
    result = cfi.attribute(model, "press_gradient", inputs=images, target=2)
    np.testing.assert_allclose(result.values, logits.gradients(images, cotangent)["input"], atol=1e-12)
    assert "softmax was left out" in result.provenance["explained"]
    result = cfi.attribute(model, "press_probability", inputs=images, target=2)
    np.testing.assert_allclose(result.values, model.gradients(images, cotangent)["input"], atol=1e-12)


def test_the_bridge_is_kept_until_the_model_changes(painting, images, monkeypatch):
    built = []
    original = fake.NetworkAdapter.runner
    monkeypatch.setattr(
        fake.NetworkAdapter,
        "runner",
        lambda *args: built.append(1) or original(*args),  # type: ignore[func-returns-value]
    )
    for _ in range(3):
        cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    assert len(built) == 1
    painting.head *= 2
    result = cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    assert len(built) == 2
    expected = painting.gradients(images, np.eye(painting.head.shape[0])[[0, 0]])["input"]
    np.testing.assert_allclose(result.values, expected, atol=1e-12)


class _Crooked(fake.NetworkRunner):
    """Carries gradients back wrongly."""

    def linearize(self, stage, values):
        results, pullback = super().linearize(stage, values)
        return results, lambda *given: tuple(gradient[:, ::-1] for gradient in pullback(*given))


def test_a_wrong_gradient_is_caught_and_the_conversion_taken(painting, images, monkeypatch):
    monkeypatch.setattr(fake, "NetworkRunner", _Crooked)
    with pytest.warns(cfi.TranslationWarning, match="input gradients on your inputs differ"):
        result = cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    assert result.route == ("paint2print",)
    with pytest.raises(cfi.UnfaithfulTranslationError, match="something else than by itself"):
        cfi.attribute(painting, "press_gradient", inputs=images, target=0, translator="bridge")


class _LayersSwapped(fake.NetworkRunner):
    """Opens another layer than the one asked for."""

    def __init__(self, model, layers):
        super().__init__(model, ["relu" if name == "mix" else name for name in layers])
        self.layers = tuple("mix" if name == "relu" else name for name in self.layers)


def test_a_wrong_layer_is_caught(painting, images, monkeypatch):
    monkeypatch.setattr(fake, "NetworkRunner", _LayersSwapped)
    with pytest.raises(cfi.UnfaithfulTranslationError, match="layer 'mix' differs"):
        cfi.attribute(painting, "press_layer", inputs=images, layer="mix", translator="bridge")


def test_translate_refuses_a_bridge(painting, images):
    with pytest.raises(cfi.RouteError, match="makes no print model"):
        cfi.translate(painting, "print", inputs=images, translator="bridge")


def test_a_function_of_arrays_has_outputs_only(images):
    with pytest.raises(cfi.RouteError, match="perturbation"):
        cfi.attribute(lambda batch: batch.mean(axis=(2, 3)), "press_gradient", inputs=images, target=0)


def test_listing_names_the_bridge():
    assert "any framework → print, bridge" in repr(cfi.translators())


def test_a_bridge_that_is_asked_for_is_taken_for_a_native_model_too(painting, images):
    model = fake.Print(painting.mix, painting.head)
    last = images.transpose(0, 2, 3, 1)
    assert cfi.plan(model, "press_gradient", inputs=last, target=0).route.native
    native = cfi.attribute(model, "press_gradient", inputs=last, target=0)
    bridged = cfi.attribute(model, "press_gradient", inputs=last, target=0, translator="bridge")
    assert bridged.route == ("bridge-to-print",)
    np.testing.assert_allclose(native.values, bridged.values, atol=1e-12)


class _Hidden(fake.Painting):
    """Depends on something that its fingerprint does not show."""

    scale: ClassVar[list[float]] = [1.0]

    def layers(self, images):
        return super().layers(images * self.scale[0])

    def gradients(self, images, cotangent):
        return {
            name: g * (self.scale[0] if name == "input" else 1)
            for name, g in super().gradients(images, cotangent).items()
        }


class _HiddenRunner(fake.NetworkRunner):
    """Made with the scale that there was."""

    def __init__(self, model, layers):
        super().__init__(model, layers)
        self._scale = _Hidden.scale[0]

    def linearize(self, stage, values):
        results, pullback = super().linearize(stage, (values[0] * self._scale,))
        return results, lambda *given: (pullback(*given)[0] * self._scale,)


@pytest.mark.parametrize("softmax", [False, True])
def test_a_change_that_the_fingerprint_does_not_show_gives_itself_away(painting, images, monkeypatch, softmax):
    monkeypatch.setattr(fake, "NetworkRunner", _HiddenRunner)
    model = _Hidden(painting.mix, painting.head, softmax=softmax)
    cotangent = np.eye(painting.head.shape[0])[[0, 0]]
    for scale in (1.0, 3.0):
        monkeypatch.setattr(_Hidden, "scale", [scale])
        result = cfi.attribute(model, "press_gradient", inputs=images, target=0, translator="bridge")
        expected = _Hidden(painting.mix, painting.head).gradients(images, cotangent)["input"]
        np.testing.assert_allclose(result.values, expected, atol=1e-12)
