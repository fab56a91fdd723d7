"""The whole way of a call, on models whose gradients are known in closed form."""

import random
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting, Print


def by_hand(model: Painting, images: np.ndarray, target: list[int]) -> np.ndarray:
    """Gradient of the target's logit by central differences: independent of the model's own closed form."""
    gradient = np.zeros_like(images)
    for index in np.ndindex(images.shape):
        step = np.zeros_like(images)
        step[index] = 1e-6
        up, down = model(images + step), model(images - step)
        sample = index[0]
        gradient[index] = (up[sample, target[sample]] - down[sample, target[sample]]) / 2e-6
    return gradient


def as_print(model: Painting) -> Print:
    return Print(model.mix, model.head, softmax=model.softmax)


def test_values_come_home_in_the_users_axes(painting, images):
    result = cfi.attribute(painting, "press_gradient", inputs=images, target=[3, 1])
    assert result.dims == ("sample", "channel", "height", "width")
    np.testing.assert_allclose(result.values, by_hand(painting, images, [3, 1]), atol=1e-7)
    assert result.route == ("paint2print",)
    assert result.certificate.faithful
    assert result.extras == {"loss": 0.5}
    assert result.provenance["applied"] == {"scale": 1.0}


def test_provenance_names_every_plugin_that_took_part(painting, images):
    versions = cfi.attribute(painting, "press_gradient", inputs=images, target=0).provenance["versions"]
    assert versions["dist-of-cfi_core.testing.fake"] == "1.0" and versions["cfi-core"]


def test_native_model_needs_no_translation(painting, images):
    native = cfi.attribute(as_print(painting), "press_gradient", inputs=images.transpose(0, 2, 3, 1), target=[3, 1])
    assert native.route == () and native.certificate is None
    assert native.dims == ("sample", "height", "width", "channel")
    np.testing.assert_allclose(native.values.transpose(0, 3, 1, 2), by_hand(painting, images, [3, 1]), atol=1e-7)


def test_layer_values_come_home(painting, images):
    result = cfi.attribute(painting, "press_layer", inputs=images, layer="relu")
    assert result.dims == ("sample", "channel", "height", "width")
    np.testing.assert_allclose(result.values, painting.layers(images)["relu"])
    pooled = cfi.attribute(painting, "press_layer", inputs=images, layer="pool")
    assert pooled.dims == ("sample", "unit")


def test_a_map_has_no_channel_axis(painting, images):
    result = cfi.attribute(painting, "press_map", inputs=images, layer="mix", target=0)
    assert result.dims == ("sample", "height", "width")
    assert result.values.shape == (2, 5, 7)


def test_a_neuron_is_named_in_the_users_axes(painting, images):
    result = cfi.attribute(painting, "press_neuron", inputs=images, layer="mix", neuron=(2, 4, 6))
    expected = np.zeros((2, 4, 5, 7))
    expected[:, 2, 4, 6] = 1
    np.testing.assert_array_equal(result.values, expected)


def test_softmax_is_explained_where_the_method_says(painting, images):
    softmax = Painting(painting.mix, painting.head, softmax=True)
    logit = cfi.attribute(softmax, "press_gradient", inputs=images, target=[3, 1])
    np.testing.assert_allclose(logit.values, by_hand(painting, images, [3, 1]), atol=1e-7)
    assert "logit" in logit.provenance["explained"]
    probability = cfi.attribute(softmax, "press_probability", inputs=images, target=[3, 1])
    np.testing.assert_allclose(probability.values, by_hand(softmax, images, [3, 1]), atol=1e-7)
    assert "logit" not in probability.provenance["explained"]
    asked_for = cfi.attribute(softmax, "press_gradient", inputs=images, target=[3, 1], head="output")
    np.testing.assert_allclose(asked_for.values, probability.values)


def test_the_toolsets_own_words_mean_the_same(painting, images):
    uniform = cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    own = cfi.attribute(painting, "press_gradient", exec_args={"images": images, "target": 0, "scale": 2.0})
    np.testing.assert_allclose(own.values, 2 * uniform.values)
    assert own.provenance["exec_args"] == {"scale": "2.0"}


def test_callable_target(painting, images):
    with pytest.raises(cfi.MethodError):  # `press` knows index targets only, and says so by failing
        cfi.attribute(painting, "press_gradient", inputs=images, target=lambda output: output[:, 0])


def test_pending_layer_is_finished_without_translating_again(painting, images, monkeypatch):
    pending = cfi.attribute(painting, "press_layer", inputs=images)
    assert isinstance(pending, cfi.PendingLayer)
    assert [layer.name for layer in pending.layers] == ["mix", "relu", "pool", "head"]
    assert "finish_execution_with_layer" in str(pending)
    monkeypatch.setattr(fake, "to_print", None)
    result = cfi.finish_execution_with_layer(pending, "relu")
    np.testing.assert_allclose(result.values, painting.layers(images)["relu"])
    with pytest.raises(cfi.LayerError, match="relu"):
        cfi.finish_execution_with_layer(pending, "rleu")
    painting.head = painting.head * 2
    with pytest.raises(cfi.ArgumentError, match="has changed"):
        cfi.finish_execution_with_layer(pending, "relu")


def test_a_translation_is_made_once_and_again_when_a_weight_changes(painting, images, monkeypatch):
    made = []
    translate = fake.to_print
    monkeypatch.setattr(fake, "to_print", lambda model, inputs: made.append(1) or translate(model, inputs))
    first = cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    cfi.attribute(painting, "press_gradient", inputs=images[:1], target=1)
    assert len(made) == 1
    painting.head = painting.head * 2
    second = cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    assert len(made) == 2
    np.testing.assert_allclose(second.values, 2 * first.values)


def test_a_seed_repeats_a_run_and_is_told(painting, images):
    drawn = cfi.attribute(painting, "press_noise", inputs=images)
    again = cfi.attribute(painting, "press_noise", inputs=images, seed=drawn.provenance["seed"])
    other = cfi.attribute(painting, "press_noise", inputs=images)
    np.testing.assert_array_equal(drawn.values, again.values)
    assert not np.array_equal(drawn.values, other.values)


@pytest.mark.parametrize("options", [{}, {"fail": True}])
def test_model_inputs_and_process_stay_as_they_were(painting, images, options):
    painting.training = True
    before = (painting.mix.copy(), painting.head.copy(), images.copy())
    random.seed(3)
    np.random.seed(3)
    states = random.getstate(), np.random.get_state()[1].copy()
    expected = pytest.raises(cfi.MethodError, match="the press is jammed") if options else nullcontext()
    with expected, pytest.warns(cfi.ModelWarning, match="training mode"):
        cfi.attribute(painting, "press_gradient", inputs=images, target=0, exec_args=options)
    assert painting.training
    for former, now in zip(before, (painting.mix, painting.head, images), strict=True):
        np.testing.assert_array_equal(former, now)
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])


def test_plan_tells_without_running(painting, images, monkeypatch):
    monkeypatch.setattr(Painting, "__call__", None)
    plan = cfi.plan(painting, "press_map", inputs=images, target=0)
    text = str(plan)
    assert "paint → print (paint2print)" in text
    assert "press" in text and "PendingLayer" in text
    assert plan.route.names == ("paint2print",)


def test_translate_gives_the_model_and_the_evidence(painting, images):
    translation = cfi.translate(painting, "print", inputs=images)
    assert isinstance(translation.model, Print)
    assert translation.route.names == ("paint2print",)
    assert translation.certificate.faithful
    assert dict(zip(translation.layer_map, translation.layer_map, strict=True))
    assert translation.layer_map["mix"] == "mix"
    assert translation.layer_map.matches["mix"].axes == (0, 2, 3, 1)
    assert translation.layer_map.missing == ()


def test_which_layer_is_which_is_measured_when_it_is_asked_for(painting, images, monkeypatch):
    conversions, convert = [], fake.to_print
    monkeypatch.setattr(fake, "to_print", lambda model, inputs: conversions.append(model) or convert(model, inputs))
    cfi.forget_translations()
    without = cfi.attribute(painting, "press_gradient", inputs=images, target=2).certificate
    assert without.layers_total == 0 and "layers" not in str(without) and "; layers; and" in without.report()
    for samples in (images, 2 * images):
        asked = cfi.attribute(painting, "press_layer", inputs=samples, layer="mix").certificate
        assert asked.layers_found == asked.layers_total == 4 and "layers;" not in asked.report()
    pending = cfi.attribute(Painting(2 * painting.mix, painting.head), "press_layer", inputs=images)
    assert [layer.name for layer in pending.layers] == ["mix", "relu", "pool", "head"]
    assert cfi.attribute(painting, "press_gradient", inputs=images, target=2).certificate.layers_total == 4
    assert len(conversions) == 2, "one for each model"


def test_layers_lists_names_and_shapes(painting, images):
    assert [layer.output_shape for layer in cfi.layers(painting, images)] == [(4, 5, 7), (4, 5, 7), (4,), (5,)]
    assert cfi.layers(painting)[0].output_shape is None


def test_observers_see_the_call_and_cannot_stop_it(painting, images):
    from cfi_core.hookspec import hookimpl

    class Observer:
        seen: ClassVar[list[str]] = []

        @hookimpl
        def cfi_before_run(self, plan):
            self.seen.append(plan.method.key)

        @hookimpl
        def cfi_after_run(self, plan, attribution):
            self.seen.append(attribution.toolset)
            raise RuntimeError("observer down")

    with use_plugins(fake, Observer()), pytest.warns(cfi.PluginWarning, match="observer down"):
        cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    assert Observer.seen == ["press_gradient", "press"]
