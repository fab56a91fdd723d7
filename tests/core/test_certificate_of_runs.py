"""Certificates of what a run does to a translated model, of thorough comparisons, and what they say in words."""

from dataclasses import replace

import numpy as np
import pytest

from cfi_core.certificate import (
    Certificate,
    Divergence,
    bridge_tolerance,
    certify,
    certify_at,
    certify_bridge,
    certify_thoroughly,
    confirm,
    gradient_tolerance,
)
from cfi_core.distance import Excerpt, Pair, Side
from cfi_core.errors import NoGradientError
from cfi_core.testing.fake import NetworkAdapter, Print

TO_LAST = ((0, 2, 3, 1),)


@pytest.fixture
def pair(painting):
    adapter = NetworkAdapter()
    return Side(adapter, painting), Side(adapter, Print(painting.mix, painting.head), TO_LAST, (None,))


class Scaling(NetworkAdapter):
    """Outputs and gradients are the network's times a factor, which a pass may tell by its inputs or its number."""

    def __init__(self, factor):
        self.factor, self.passes = factor, 0

    def _now(self, inputs):
        self.passes += 1
        return self.factor(inputs[0], self.passes) if callable(self.factor) else self.factor

    def outputs(self, model, inputs):
        return super().outputs(model, inputs) * self._now(inputs)

    def vjp(self, model, inputs, cotangents):
        factor = self._now(inputs)
        (output,), (gradient,) = NetworkAdapter().vjp(model, inputs, cotangents)
        return [output * factor], [gradient * factor]


def test_other_samples_are_added_with_their_gradients(pair, images):
    earlier, elsewhere = certify(*pair, [images]), np.random.default_rng(7).normal(size=(11, 3, 5, 7))
    found = certify_at(*pair, [elsewhere], "samples of the method", earlier)
    assert found.faithful and found.measurements[:2] == earlier.measurements
    assert (found.measurements[2].samples_of, found.measurements[2].samples) == ("samples of the method", 11)
    assert found.measurements[2].gradient_difference < 1e-12
    faulty = certify_at(pair[0], replace(pair[1], adapter=Scaling(1.01)), [elsewhere], "samples", earlier)
    assert not faulty.faithful and faulty.measurements[2].output_difference == pytest.approx(0.01)
    assert faulty.measurements[2].gradient_difference is None, "outputs that are far apart say enough"


def test_a_thorough_comparison_goes_everywhere(pair, images):
    found = certify_thoroughly(*pair, [images], certify(*pair, [images]))
    assert found.faithful
    # Of a constant image every unit is below its edge, here.
    assert found.notes == tuple(f"the input gradient vanishes on {one}" for one in ("zeros", "your inputs' means"))
    assert {one.samples_of: one.samples for one in found.measurements} == {
        "your inputs": 2,
        "random inputs": 2,
        "all your inputs": 2,
        "your sample 0 alone": 1,
        "your sample 1 alone": 1,
        "your inputs repeated to 100": 100,
        "16 random inputs": 16,
        "zeros": 2,
        "your inputs' means": 2,
        "your inputs times 2": 2,
        "your inputs times 10": 2,
        "your inputs with another sign": 2,
        "your first inputs, again and again": 2,
    }


@pytest.mark.parametrize(
    ("factor", "where"),
    [
        (lambda x, _: 1.01 if len(x) == 100 else 1.0, "your inputs repeated to 100"),
        (lambda x, _: 1.01 if len(x) == 16 else 1.0, "16 random inputs"),
        (lambda x, _: 1.01 if abs(x).max() > 15 else 1.0, "your inputs times 10"),
        (lambda _, number: 1.01 if number > 60 else 1.0, "your first inputs, again and again"),
    ],
)
def test_faults_that_only_a_thorough_comparison_meets(pair, images, factor, where):
    original, translated = pair[0], replace(pair[1], adapter=Scaling(factor))
    earlier = certify(original, translated, [images])
    assert earlier.faithful
    found = certify_thoroughly(original, translated, [images], earlier)
    assert not found.faithful and all(where in fault for fault in found.faults)
    assert len(set(found.faults)) == len(found.faults)
    worst = {one.samples_of: one.output_difference for one in found.measurements}
    assert worst[where] == pytest.approx(0.01) and worst["all your inputs"] < 1e-12


def test_what_the_original_does_not_take_is_noted(pair, images):
    class Small(NetworkAdapter):
        def outputs(self, model, inputs):
            if len(inputs[0]) > 20:
                raise ValueError("too many")
            return super().outputs(model, inputs)

    original = replace(pair[0], adapter=Small())
    found = certify_thoroughly(original, pair[1], [images], certify(original, pair[1], [images]))
    assert found.faithful
    assert "not compared on your inputs repeated to 100, which the original itself does not take" in found.notes
    assert "your inputs repeated to 100" not in [one.samples_of for one in found.measurements]


def test_an_original_that_takes_no_random_inputs(pair, images):
    class Known(NetworkAdapter):
        def outputs(self, model, inputs):
            if not np.isin(inputs[0], images).all():
                raise ValueError("not one of mine")
            return super().outputs(model, inputs)

    found = certify(replace(pair[0], adapter=Known()), pair[1], [images])
    assert found.faithful and [one.samples_of for one in found.measurements] == ["your inputs"]
    assert found.notes == ("not compared on random inputs, which the original itself does not take",)


@pytest.fixture
def excerpt(pair, painting, images):
    """What a run would have recorded, of the closed form."""
    cotangent = np.random.default_rng(9).normal(size=(2, 5))
    gradient = painting.gradients(images, cotangent)["input"]
    return Excerpt(Pair(pair), [images], [painting(images)], [cotangent], [gradient])


def test_what_a_run_fed_to_the_model_is_compared_with_the_original(excerpt, pair, images):
    earlier = certify(*pair, [images])
    found = confirm(excerpt, "samples of the run", earlier)
    assert found.faithful and found.measurements[2].samples_of == "samples of the run"
    assert found.measurements[2].output_difference == 0
    assert found.measurements[2].gradient_cosine == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda one: replace(one, gradients=[-one.gradients[0]]), "input gradients on the run differ by 2.0e+00"),
        (lambda one: replace(one, gradients=[one.gradients[0] * 1.5]), "input gradients on the run differ by 5.0e-01"),
        (lambda one: replace(one, outputs=[one.outputs[0] * 1.1]), "outputs on the run differ by 1.0e-01"),
        (lambda one: replace(one, outputs=[one.outputs[0] * np.nan]), "outputs on the run differ by nan"),
        (lambda one: replace(one, outputs=[one.outputs[0][:, :4]]), "have shapes [(2, 4)] instead of [(2, 5)] on the"),
        # It goes with the other one by numpy's rules, which make rows of both.
        (lambda one: replace(one, outputs=[one.outputs[0][:, :1]]), "have shapes [(2, 1)] instead of [(2, 5)] on the"),
        (lambda one: replace(one, gradients=[one.gradients[0][..., :1]]), "input gradients have shapes [(2, "),
    ],
)
def test_what_went_wrong_in_a_run_is_told(excerpt, pair, images, change, what):
    found = confirm(change(excerpt), "the run", certify(*pair, [images]))
    assert not found.faithful and what in "; ".join(found.faults)


def test_no_number_at_the_same_places_is_no_difference(pair, images):
    holey = images.copy()
    holey[0, 0, 0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        outputs, found = pair[0].outputs([holey]), certify(*pair, [images])
        assert np.isnan(outputs[0][0]).all()
        assert confirm(Excerpt(Pair(pair), [holey], outputs), "the run", found).faithful
        assert not confirm(Excerpt(Pair(pair), [holey], [np.nan_to_num(outputs[0])]), "the run", found).faithful


def test_gradients_that_the_original_has_not_are_noted(excerpt, pair, images):
    class Without(NetworkAdapter):
        def vjp(self, model, inputs, cotangents):
            raise NoGradientError("a lookup")

    original = replace(pair[0], adapter=Without())
    found = confirm(replace(excerpt, pair=Pair((original, pair[1]))), "the run", certify(*pair, [images]))
    assert found.faithful and found.notes == ("gradients of the run not compared (a lookup)",)
    assert found.measurements[2].gradient_difference is None


def test_outputs_that_are_the_originals_own_rounding_say_so(pair, images):
    """The original's double precision is the network, and its single precision is as far from that as the other."""

    class Coarse(NetworkAdapter):
        def outputs(self, model, inputs):
            return super().outputs(model, inputs) * (1 if getattr(model, "precise", False) else 1.01)

        def in_double(self, model):
            twin = type(model)(model.mix, model.head)
            twin.precise = True
            return twin

    sides = replace(pair[0], adapter=Coarse()), replace(pair[1], adapter=Scaling(1.0))
    assert "own outputs" not in certify(*sides, [images]).faults[0], "the other has no double precision"
    twice = replace(pair[1], adapter=type("Exact", (Scaling,), {"in_double": Coarse.in_double})(1.0))
    found = certify(sides[0], twice, [images])
    assert not found.faithful
    assert found.faults[0].endswith("; in single precision your model's own outputs are wrong by 1.0e-02)")


def test_a_bridge_without_gradients(pair, images):
    outputs = pair[0].outputs([images])
    found = certify_bridge(*pair, [images], outputs, gradients=False)
    assert found.faithful and found.notes == ("input gradients not compared (the method needs none)",)
    assert found.measurements[0].gradient_difference is None
    scaled = replace(pair[1], adapter=Scaling(1.01))
    assert not certify_bridge(pair[0], scaled, [images], outputs, gradients=False).faithful


def test_what_bridges_may_differ_by(pair):
    original, eighths = pair[0], np.arange(6, dtype=np.float32).reshape(2, 3) / 8
    assert bridge_tolerance(original, [eighths.astype(np.float64)]) == 1e-5
    assert bridge_tolerance(original, [eighths.astype(np.float16)]) == 8 * 2.0**-10
    # A simple fraction looks like a number of bfloat16 and may be one of single precision.
    assert bridge_tolerance(original, [eighths]) == 1e-5
    assert bridge_tolerance(original, [eighths / 128]) == 8 * 2.0**-8
    assert bridge_tolerance(original, [eighths / 3]) == 1e-5
    assert bridge_tolerance(original, [np.arange(3)]) == 1e-5


def test_what_gradients_may_differ_by():
    assert gradient_tolerance(Certificate(()), 1e-5) == 1e-3
    assert gradient_tolerance(Certificate(()), 0.03) == 0.03
    assert gradient_tolerance(Certificate((), gradient_floor=0.01), 1e-5) == 0.05
    assert gradient_tolerance(Certificate((), gradient_floor=1.0), 1e-5) == 0.25


def test_certificates_in_words(pair, images):
    parts = Divergence("conv", "conv_1", 0.5), Divergence("conv", "conv_1", np.inf)
    assert str(parts[0]) == "the first layer that differs is 'conv' (by 5.0e-01)"
    assert str(parts[1]) == "the first layer that differs is 'conv' (in shape, or is not finite)"
    found = replace(
        certify(*pair, [images]), layers_total=4, layers_found=3, layer_difference=2e-6, divergence=parts[0]
    )
    assert "; 3 of 4 layers found, activations differ by up to 2.0e-06; " in str(found)
    assert str(found).endswith(str(parts[0])) and "layers; " not in found.report()
    assert str(Certificate(())) == "faithful: outputs differ by inf"
