"""An argument that a call does not have is told with the call as it must be written."""

import inspect

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Kind, MethodSpec, Need, ToolsetSpec
from cfi_core.testing import fake, use_plugins

WRITE = "Write: cfi."


class Tools:
    """A toolset of another method."""

    @staticmethod
    @hookimpl
    def cfi_toolsets():
        return [ToolsetSpec(name="tools", framework="paint")]

    @staticmethod
    @hookimpl
    def cfi_methods():
        needs = frozenset({Need.FORWARD})
        fields = {"kind": Kind.ATTRIBUTION, "needs": needs, "implementation": "module:run", "exec_args": ("size",)}
        return [MethodSpec(key="measure", toolset="tools", **fields)]


def slip(call, *args, **kwargs) -> str:
    with pytest.raises(cfi.ArgumentError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def written(message: str) -> str:
    return WRITE.removeprefix("Write: ") + message.partition(WRITE)[2]


def test_a_toolsets_own_argument_goes_into_its_place(painting, images):
    said = slip(cfi.attribute, painting, "press_gradient", inputs=images, target=3, scale=20)
    assert "'scale' is an argument of press's own call, so it goes into exec_args=." in said
    corrected = written(said)
    assert corrected == 'cfi.attribute(model, "press_gradient", inputs=…, target=3, exec_args={"scale": 20})'
    made = eval(corrected.replace("…", "images"), {"cfi": cfi, "model": painting, "images": images})
    assert made.provenance["applied"] == {"scale": 20}


def test_those_that_are_given_stay(painting, images):
    said = slip(cfi.attribute, painting, "press_gradient", inputs=images, exec_args={"fail": False}, scale=2.0)
    assert written(said).endswith('exec_args={"fail": False, "scale": 2.0})')


@pytest.mark.parametrize("call", [cfi.attribute, cfi.plan])
def test_of_an_unknown_method_both_are_put_right(call, painting, images):
    said = slip(call, painting, "PressGradient", "Press", inputs=images, scale=2)
    assert "No toolset 'Press' is installed" in said
    assert "Did you mean 'press_gradient'" in said
    assert written(said) == f'cfi.{call.__name__}(model, "press_gradient", "press", inputs=…, exec_args={{"scale": 2}})'


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"target_layers": ["relu"]}, "layer='relu'"),
        ({"target_layers": ["relu", "mix"]}, "layer=['relu', 'mix']"),
        ({"input_tensor": 1}, "inputs=1"),
        ({"targets": 2}, "target=2"),
        ({"class_idx": 2}, "target=2"),
        ({"background": 0}, "baselines=0"),
        ({"baseline": 0}, "baselines=0"),
        ({"images": 0}, "inputs=0"),  # the toolset's own word
        ({"tagret": 1}, "target=1"),
        ({"neuron_index": 1}, "neuron=1"),
        ({"random_state": 1}, "seed=1"),
        ({"scales": 3}, 'exec_args={"scale": 3}'),
    ],
)
def test_words_of_other_libraries_are_translated(painting, words, expected):
    said = slip(cfi.attribute, painting, "press_gradient", **words)
    assert written(said) == f'cfi.attribute(model, "press_gradient", {expected})'


def test_a_long_value_is_left_out(painting, images):
    said = slip(cfi.attribute, painting, "press_gradient", input_tensor=images, window=np.zeros(9))
    assert written(said) == 'cfi.attribute(model, "press_gradient", inputs=…, exec_args={"window": …})'


def test_inputs_in_the_place_of_the_toolset_are_named(painting, images):
    said = slip(cfi.attribute, painting, "press_gradient", images, scale=2)
    assert written(said) == 'cfi.attribute(model, "press_gradient", inputs=…, exec_args={"scale": 2})'


def test_what_nobody_knows_is_told_with_what_there_is(painting, images):
    said = slip(cfi.attribute, painting, "press_gradient", inputs=images, zzz=1)
    assert "takes no 'zzz'. It takes inputs=, explain=" in said
    assert "cfi.methods('press_gradient')" in said
    assert written(said) == 'cfi.attribute(model, "press_gradient", inputs=…)'


def test_an_argument_of_another_method_is_told(painting, images):
    with use_plugins(fake, Tools):
        said = slip(cfi.attribute, painting, "press_gradient", inputs=images, size=3)
    assert "press_gradient of press has no argument 'size'; it is one of measure." in said


def test_other_type_errors_stay(painting, images):
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'method_key'"):
        cfi.attribute(painting)
    with pytest.raises(TypeError, match="takes from 2 to 3 positional arguments but 4 were given"):
        cfi.attribute(painting, "press_gradient", "press", images)
    with pytest.raises(TypeError, match="multiple values for argument 'model'"):
        cfi.attribute(painting, "press_gradient", model=painting)


@pytest.mark.parametrize("call", [cfi.attribute, cfi.plan, cfi.visualize_features])
def test_signatures_are_those_of_the_calls(call):
    assert "kwargs" not in inspect.signature(call).parameters
    assert list(inspect.signature(call).parameters)[:3] == ["model", "method_key", "toolset"]
