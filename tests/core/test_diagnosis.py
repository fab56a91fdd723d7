"""Why a step failed, where it is the model that cannot do what the method asks."""

from types import SimpleNamespace

import pytest

from cfi_core.diagnosis import tell_what_is_missing
from cfi_core.errors import MethodError, NoGradientError
from cfi_core.specs import Need
from cfi_core.testing.fake import NetworkAdapter


class Cut(NetworkAdapter):
    def missing_gradient(self, model, inputs, layers=()):
        return "an argmax stands between them"


class Taking(NetworkAdapter):
    def outputs(self, model, inputs):
        if len(inputs[0]) != 2:
            raise ValueError(f"built for 2, got {len(inputs[0])}")
        return super().outputs(model, inputs)


def call(adapter, painting, images, *needs, layers=()):
    method = SimpleNamespace(needs=frozenset(needs), key="m")
    inputs = SimpleNamespace(arrays=(images,), held_arrays=(), passed=(images,), samples=len(images), given=True)
    original = SimpleNamespace(adapter=adapter, model=painting)
    return SimpleNamespace(original=original, plan=SimpleNamespace(method=method, layers=layers), inputs=inputs)


@pytest.mark.parametrize(
    ("need", "layers", "where"),
    [(Need.INPUT_GRADIENT, (), "its inputs"), (Need.LAYER_GRADIENT, ("mix",), "layer 'mix'")],
)
def test_a_gradient_that_leads_nowhere(painting, images, need, layers, where):
    lost = pytest.raises(NoGradientError, match=f"to {where}, and m needs one: an argmax stands between them")
    with lost, tell_what_is_missing(call(Cut(), painting, images, need, layers=layers)):
        raise MethodError("no gradient")
    with (
        pytest.raises(MethodError, match=r"^another$"),
        tell_what_is_missing(call(Cut(), painting, images, Need.FORWARD)),
    ):
        raise MethodError("another")


def test_a_model_of_one_number_of_samples(painting, images):
    refused = pytest.raises(MethodError, match=r"The model takes exactly 2 samples.*and m runs it on others")
    with refused as caught, tell_what_is_missing(call(Taking(), painting, images, Need.FORWARD)):
        raise MethodError("first") from ValueError("built for 2, got 40")
    assert str(caught.value.__cause__) == "first"
    with pytest.raises(ValueError, match="mine"), tell_what_is_missing(call(Taking(), painting, images, Need.FORWARD)):
        raise ValueError("mine")


def test_a_failure_of_another_reason_on_a_model_of_one_number_of_samples(painting, images):
    refused = pytest.raises(MethodError, match=r"^no map for a single number$")
    with refused, tell_what_is_missing(call(Taking(), painting, images, Need.FORWARD)):
        raise MethodError("no map for a single number") from ValueError("nothing to interpolate")
