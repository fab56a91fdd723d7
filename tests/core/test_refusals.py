"""Bad input, one by one: each gives a typed error that names the culprit and the next step."""

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.testing.fake import Painting


def refuse(error, match, *args, **kwargs):
    with pytest.raises(error, match=match) as caught:
        cfi.attribute(*args, **kwargs)
    return caught.value


def test_unknown_method(painting, images):
    refuse(cfi.UnknownMethodError, "Did you mean 'press_gradient'", painting, "press_gradiant", inputs=images)


def test_method_of_a_plugin_that_is_not_installed(painting, images):
    refuse(cfi.UnknownMethodError, "pip install cfi-captum", painting, "integrated_gradients", inputs=images)


def test_method_key_that_is_no_string(painting, images):
    refuse(cfi.UnknownMethodError, "must be a string", painting, 3, inputs=images)


def test_unknown_toolset(painting, images):
    refuse(cfi.UnknownMethodError, "installed are press", painting, "press_gradient", "captuum", inputs=images)
    refuse(cfi.UnknownMethodError, "pip install cfi-captum", painting, "saliency", "captum", inputs=images)


def test_feature_visualization_key_goes_to_its_own_call(painting, images):
    with pytest.raises(cfi.UnknownMethodError, match=r"cfi\.attribute\(\)"):
        cfi.visualize_features(painting, "press_gradient", inputs=images)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (object(), "no known framework"),
        ("model.bin", r"cfi\.load_model\('model\.bin'\)"),
        (None, "The model is None"),
        (3, "no known framework"),
    ],
)
def test_model_of_no_known_framework(registry, model, said, images):
    refuse(cfi.UnknownFrameworkError, said, model, "press_gradient", inputs=images)


def test_no_plugin_leads_to_the_toolset(registry, painting, images):
    from cfi_core.testing import fake, use_plugins

    class WithoutTranslator:
        cfi_frameworks = staticmethod(fake.cfi_frameworks)
        cfi_toolsets = staticmethod(fake.cfi_toolsets)
        cfi_methods = staticmethod(fake.cfi_methods)

    with use_plugins(WithoutTranslator()):
        hint = "pip install cfi-bridge or cfi-translate"
        refuse(cfi.RouteError, hint, painting, "press_gradient", inputs=images, target=0)


def test_unknown_translator(painting, images):
    refuse(cfi.RouteError, "installed are paint2print", painting, "press_gradient", inputs=images, translator="x2y")
    refuse(cfi.RouteError, "cfi-translate", painting, "press_gradient", inputs=images, translator="onnx2torch")


def test_translator_for_a_native_model(painting, images):
    from cfi_core.testing.fake import Print

    model = Print(painting.mix, painting.head)
    refuse(cfi.RouteError, "already is", model, "press_gradient", inputs=images, translator="paint2print")


def test_translation_that_fails(painting, images):
    model = Painting(painting.mix, painting.head, refuses=True)
    refuse(cfi.TranslationError, "no rule for this painting", model, "press_gradient", inputs=images, target=0)


def test_translation_that_computes_something_else(painting, images):
    model = Painting(painting.mix, painting.head, distorts=True)
    error = refuse(
        cfi.UnfaithfulTranslationError, "computes something else", model, "press_gradient", inputs=images, target=0
    )
    assert not error.certificate.faithful
    assert "UNFAITHFUL" in str(error.certificate)


def test_unknown_layer(painting, images):
    refuse(cfi.LayerError, "Nearest: relu", painting, "press_layer", inputs=images, layer="rellu")
    refuse(cfi.LayerError, "not part of this model", painting, "press_layer", inputs=images, layer=object())


def test_layer_for_a_method_without_one(painting, images):
    refuse(cfi.ArgumentError, "takes no 'layer'", painting, "press_gradient", inputs=images, layer="mix")


def test_missing_inputs(painting):
    refuse(cfi.ArgumentError, "needs 'inputs'", painting, "press_gradient", target=0)


def test_missing_neuron(painting, images):
    refuse(cfi.ArgumentError, "needs 'neuron'", painting, "press_neuron", inputs=images, layer="mix")


@pytest.mark.parametrize("neuron", [(0, 0), (4, 0, 0), (0, 0, 7), 3])
def test_neuron_out_of_the_layer(painting, images, neuron):
    refuse(cfi.ArgumentError, r"\(4, 5, 7\)", painting, "press_neuron", inputs=images, layer="mix", neuron=neuron)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x[0], "fails on inputs"),
        (lambda x: x.transpose(0, 2, 3, 1), "fails on inputs"),
        (lambda x: x.astype(np.uint8), "astype"),
        (lambda x: x * np.nan, "NaN"),
        (lambda x: x[:0], "non-zero number of samples"),
        (lambda x: "photo.jpg", "is the path 'photo.jpg', and the model takes an array of numbers"),
        (lambda x: [[1, 2], [3]], "is no array"),
        (lambda x: {"x": x}, "tuple of arrays"),
        (lambda x: 3.0, "array of numbers"),
    ],
)
def test_wrong_inputs(painting, images, change, match):
    refuse(cfi.InputError, match, painting, "press_gradient", inputs=change(images), target=0)


@pytest.mark.parametrize(
    ("target", "match"),
    [
        (5, "between 0 and 4"),
        (-6, "between 0 and 4"),
        (None, "Pass target="),
        ("cat", "is no index"),
        (True, "is no index"),
        ((1, 2), "2 indices"),
        ([1, 2, 3], "3 targets for 2 samples"),
        ([0, 9], "out of range"),
        (1.5, "no indices"),
    ],
)
def test_wrong_target(painting, images, target, match):
    refuse(cfi.TargetError, match, painting, "press_gradient", inputs=images, target=target)


def test_unknown_own_argument(painting, images):
    refuse(cfi.ArgumentError, "Nearest: scale", painting, "press_gradient", inputs=images, exec_args={"skale": 1})
    refuse(
        cfi.ArgumentError, "belongs into exec_args", painting, "press_gradient", inputs=images, init_args={"scale": 1}
    )


def test_argument_given_twice(painting, images):
    refuse(cfi.ArgumentError, "given twice", painting, "press_gradient", inputs=images, exec_args={"images": images})


def test_wrong_head_and_seed(painting, images):
    refuse(cfi.ArgumentError, "head=", painting, "press_gradient", inputs=images, head="softmax")
    refuse(cfi.ArgumentError, "seed=", painting, "press_gradient", inputs=images, seed=-1)


def test_toolset_that_fails(painting, images):
    error = refuse(
        cfi.MethodError,
        "press_gradient of press",
        painting,
        "press_gradient",
        inputs=images,
        target=0,
        exec_args={"fail": True},
    )
    assert isinstance(error.__cause__, RuntimeError)


def test_translate_to_nowhere(painting, images):
    with pytest.raises(cfi.ArgumentError, match="known are"):
        cfi.translate(painting, "pytroch", inputs=images)
    with pytest.raises(cfi.ArgumentError, match="already"):
        cfi.translate(painting, "paint", inputs=images)


def test_finishing_something_else(registry):
    with pytest.raises(cfi.ArgumentError, match="PendingLayer"):
        cfi.finish_execution_with_layer(None, "mix")


def test_every_error_is_a_cfi_error():
    for name in cfi.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(cfi, name), cfi.CFIError)


def test_slips_of_the_pen_are_told(painting, images):
    refuse(cfi.UnknownMethodError, "Did you mean 'grad_cam'\\?", painting, "GradCAM ", inputs=images)
    refuse(cfi.UnknownMethodError, "Did you mean 'press'", painting, "press_gradient", "Press", inputs=images)
    refuse(cfi.ArgumentError, "inputs=", painting, "press_gradient", images, target=0)
    refuse(cfi.TargetError, "is a list", painting, "press_gradient", inputs=images, target=(0, 1))


def test_listings_are_readable(registry):
    text = repr(cfi.methods())
    assert len(text.splitlines()) == len(cfi.methods()) == 6
    assert "press_map" in text and "inputs, layer" in text
    assert repr(cfi.toolsets()) == "press         for print models, usable" and "paint → print" in repr(
        cfi.translators()
    )
