"""What cannot be carried across, or comes out as something else, is refused with a typed error."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from shared_cnn import Twins
from torch import nn

import cfi_core as cfi
from cfi_core.contract import Converted
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Need, TranslatorSpec
from cfi_core.testing import use_plugins


def wrong_by_one_percent(model, inputs):
    """A translator with a fault: it builds a Keras model whose last bias is off."""
    from cfi_translate.onnx_to_keras import convert
    from cfi_translate.torch_to_onnx import convert as export

    converted = convert(export(model, inputs).model, inputs)
    *rest, bias = converted.model.get_weights()
    converted.model.set_weights([*rest, bias + 0.01 * np.abs(bias).max() * np.arange(len(bias))])
    return Converted(converted.model, converted.input_axes, converted.output_axes)


class Faulty:
    @hookimpl
    def cfi_translators(self):
        return [
            TranslatorSpec(
                name="faulty",
                source="torch",
                target="tensorflow",
                preserves=frozenset(Need),
                cost=1,
                implementation=f"{__name__}:wrong_by_one_percent",
            )
        ]


def test_an_unfaithful_translation_is_refused_and_the_next_route_taken(twins: Twins, monkeypatch):
    import sys

    monkeypatch.setitem(
        sys.modules, __name__, sys.modules.get(__name__) or sys.modules[wrong_by_one_percent.__module__]
    )
    with use_plugins(Faulty(), with_installed=True):
        with pytest.raises(cfi.UnfaithfulTranslationError, match="computes something else") as caught:
            cfi.attribute(
                twins.torch_model, "saliency", "tf-keras-vis", inputs=twins.first, target=0, translator="faulty"
            )
        assert not caught.value.certificate.faithful
        with pytest.warns(cfi.TranslationWarning, match="Taken instead"):
            result = cfi.attribute(
                twins.torch_model, "saliency", "tf-keras-vis", inputs=twins.first, target=0, translator="conversion"
            )
    assert result.route == ("torch-export", "onnx-keras")


def test_a_model_that_no_translator_knows(twins: Twins):
    class Sampled(nn.Module):
        def forward(self, x):
            grid = torch.zeros(len(x), 4, 4, 2) + x.mean((1, 2, 3))[:, None, None, None]
            return nn.functional.grid_sample(x, grid, align_corners=False).flatten(1)

    with pytest.raises(cfi.TranslationError, match=r"(?i)grid"):
        cfi.attribute(
            Sampled().eval(), "saliency", "tf-keras-vis", inputs=twins.first, target=0, translator="conversion"
        )
    result = cfi.attribute(Sampled().eval(), "saliency", "tf-keras-vis", inputs=twins.first, target=0)
    assert result.route == ("bridge-to-keras",)


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(x).abs().flatten(1)[:, :5]


class KerasSpectrum(keras.layers.Layer):
    def call(self, x):
        return tf.math.abs(tf.signal.fft2d(tf.cast(tf.transpose(x, (0, 3, 1, 2)), tf.complex64)))

    def compute_output_shape(self, shape):
        return shape[0], shape[3], *shape[1:3]


def keras_spectrum() -> keras.Model:
    given = keras.Input((14, 20, 3))
    return keras.Model(given, keras.layers.Dense(5)(keras.layers.Flatten()(KerasSpectrum(name="spectrum")(given))))


def spectrum_function(x):
    return tf.math.abs(tf.signal.fft2d(tf.cast(x, tf.complex64)))[:, 0, 0]


@pytest.mark.parametrize(
    ("make", "to", "begins"),
    [
        (lambda: Spectrum().eval(), "tensorflow", "torch-export cannot translate aten::_to_copy"),
        (lambda: Spectrum().eval(), "onnx", "torch-export cannot translate aten::_to_copy"),
        (keras_spectrum, "torch", "keras-torch cannot translate layer KerasSpectrum 'spectrum'"),
        (keras_spectrum, "onnx", "keras-torch cannot translate layer KerasSpectrum 'spectrum'"),
        (lambda: tf.function(spectrum_function), "torch", "tf2onnx cannot translate operator FFT2D"),
    ],
)
def test_what_no_translator_takes_is_refused_for_one_reason_in_one_line(twins: Twins, make, to, begins):
    """The reason first, then what else was tried; no advice to try what was tried."""
    model = make()
    images = tf.constant(twins.last) if not isinstance(model, nn.Module | keras.Model) else twins.last
    with pytest.raises(cfi.TranslationError) as refused:
        cfi.translate(model, to, inputs=twins.first if isinstance(model, nn.Module) else images)
    told = str(refused.value)
    assert told.startswith(begins) and told.count("Also tried: ") == 1
    assert "\n" not in told and len(told) < 620 and told.count("(") == told.count(")")
    assert "Try another translator" not in told and told.endswith(".")


def test_a_translator_that_is_named_is_taken(twins: Twins):
    result = cfi.attribute(
        twins.keras_model,
        "saliency",
        "captum",
        inputs=twins.last,
        target=0,
        translator=["keras-onnx-export", "onnx2torch"],
    )
    assert result.route == ("keras-onnx-export", "onnx2torch")
    named = cfi.attribute(twins.keras_model, "saliency", "captum", inputs=twins.last, target=0, translator="tf2onnx")
    assert named.route == ("tf2onnx", "onnx-torch")
    with pytest.raises(cfi.RouteError, match="onnx2keras"):
        cfi.attribute(twins.keras_model, "saliency", "captum", inputs=twins.last, target=0, translator="onnx2keras")


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_wrong_inputs_and_targets(twins: Twins, framework):
    model, images = (twins.torch_model, twins.first) if framework == "torch" else (twins.keras_model, twins.last)
    toolset = "tf-keras-vis" if framework == "torch" else "captum"
    for wrong, error in (
        ({"inputs": (images * 255).astype(np.uint8), "target": 0}, cfi.InputError),
        ({"inputs": images[0], "target": 0}, cfi.InputError),
        ({"inputs": np.moveaxis(images, 1, 2), "target": 0}, cfi.InputError),
        ({"inputs": images[:, :, :, :2], "target": 0}, cfi.InputError),
        ({"inputs": (images, images), "target": 0}, cfi.InputError),
        ({"inputs": images, "target": 5}, cfi.TargetError),
        ({"inputs": images}, cfi.TargetError),
        ({"inputs": images, "target": [0, 1, 2]}, cfi.TargetError),
    ):
        with pytest.raises(error):
            cfi.attribute(model, "saliency", toolset, **wrong)


def test_layers_that_cannot_be_used(twins: Twins):
    with pytest.raises(cfi.LayerError, match=r"Nearest: .*relu2"):
        cfi.attribute(twins.torch_model, "grad_cam", "tf-keras-vis", inputs=twins.first, target=0, layer="relu22")
    with pytest.raises(cfi.LayerError, match="not part of this model"):
        cfi.attribute(twins.torch_model, "grad_cam", "captum", inputs=twins.first, target=0, layer=nn.ReLU())


def test_a_subclassed_keras_model_says_what_to_do(twins: Twins):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(keras.ops.mean(x, axis=(1, 2)))

    model = Own()
    with pytest.raises(cfi.InputError, match="not built"):
        cfi.attribute(model, "saliency", "captum", inputs=twins.last, target=0)
    model(twins.last)
    result = cfi.attribute(model, "saliency", "captum", inputs=twins.last, target=0)
    expected = np.broadcast_to(model.dense.kernel.numpy()[:, 0] / (14 * 20), twins.last.shape)
    np.testing.assert_allclose(result.values, expected, rtol=1e-5)
    with pytest.raises(cfi.CFIError, match=r"(?i)functional"):
        cfi.attribute(model, "saliency", "tf-keras-vis", inputs=twins.last, target=0)


class Functional(nn.Module):
    """Computes by a function what rules attach to as a module."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.fc, self.function = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), function

    def forward(self, x):
        return self.fc(self.function(self.conv(x)).mean((2, 3)))


def test_methods_that_find_nothing_to_attach_to_get_it(twins: Twins):
    functional, modular = Functional(torch.relu).eval(), Functional(nn.ReLU()).eval()
    modular.load_state_dict(functional.state_dict())
    for key in ("guided_backprop", "deconvolution", "deep_lift"):
        found, expected = (
            cfi.attribute(model, key, "captum", inputs=twins.first, target=0) for model in (functional, modular)
        )
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
        assert found.provenance["repaired"] and not expected.provenance["repaired"]
    relevance = cfi.attribute(functional, "lrp", "captum", inputs=twins.first, target=0)
    assert relevance.provenance["completeness"]["gap"] < 1e-3


def test_methods_that_nothing_can_give_what_to_attach_to_refuse(twins: Twins):
    model = Functional(lambda x: x * torch.sigmoid(x).roll(1, 1)).eval()
    for key in ("guided_backprop", "deconvolution", "deep_lift", "lrp"):
        with pytest.raises(cfi.MethodError, match=f"'{key}' (has no rule for|changes the gradient of)"):
            cfi.attribute(model, key, "captum", inputs=twins.first, target=0)


def test_probabilities_without_a_softmax_are_told(twins: Twins):
    class ByHand(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            powers = torch.exp(self.model(x))
            return powers / powers.sum(1, keepdim=True)

    with pytest.warns(cfi.ModelWarning, match="no softmax was found"):
        result = cfi.attribute(ByHand(twins.torch_model).eval(), "saliency", "captum", inputs=twins.first, target=0)
    assert "probabilities" in result.provenance["explained"]


def test_a_zero_attribution_is_told(twins: Twins):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 20, 2)).eval()
    nn.init.zeros_(model[1].weight)
    with pytest.warns(cfi.ModelWarning, match="zero everywhere"):
        cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=0)
