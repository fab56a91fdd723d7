"""The certificate tells faults from rounding."""

from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest

from cfi_core.certificate import certify, certify_again, certify_bridge
from cfi_core.distance import Side, relative_difference
from cfi_core.errors import NoGradientError
from cfi_core.layer_map import find_layers, first_divergence, map_layers
from cfi_core.testing.fake import NetworkAdapter, Painting, Print


@pytest.fixture
def pair(painting):
    adapter = NetworkAdapter()
    return Side(adapter, painting), Side(adapter, Print(painting.mix, painting.head), ((0, 2, 3, 1),), (None,))


def test_the_same_computation_is_faithful(pair, images):
    certificate = certify(*pair, [images])
    assert certificate.faithful
    assert {measurement.samples_of for measurement in certificate.measurements} == {"your inputs", "random inputs"}
    for measurement in certificate.measurements:
        assert measurement.output_difference < 1e-12
        assert measurement.gradient_difference < 1e-12
        assert measurement.gradient_cosine == pytest.approx(1)
        assert measurement.top_class_agreement == 1
    assert str(certificate).startswith("faithful")


class TwoOutputs(NetworkAdapter):
    """The second output is the first one, times something; there are no gradients and no other precision."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def outputs(self, model, inputs):
        logits = model(*inputs)
        return logits, logits * self.factor

    def vjp(self, model, inputs, cotangents):
        raise NoGradientError("it has none")

    def without_softmax(self, model, inputs):
        return None


def judge_bridge(original, bridged, arrays):
    return certify_bridge(original, bridged, arrays, original.outputs(arrays))


@pytest.mark.parametrize("judge", [certify, judge_bridge])
@pytest.mark.parametrize("factor", [np.nan, np.inf, 1.001])
def test_no_output_hides_what_is_wrong_with_another(painting, images, judge, factor):
    twin = Print(painting.mix, painting.head)
    original, axes = Side(TwoOutputs(), painting), (((0, 2, 3, 1),), (None, None))
    assert judge(original, Side(TwoOutputs(), twin, *axes), [images]).faithful
    certificate = judge(original, Side(TwoOutputs(factor), twin, *axes), [images])
    assert not certificate.faithful
    assert str(certificate).startswith(
        "UNFAITHFUL: outputs differ by " + ("1.0e-03" if factor == 1.001 else f"{factor}"[:3])
    )


def test_nan_at_any_place_is_told():
    good, bad = np.ones(3), np.array([1.0, np.nan, 1.0])
    for arrays in ([bad, good], [good, bad], [good, bad, good]):
        assert not relative_difference([good] * len(arrays), arrays) <= 1e30
        assert not relative_difference(arrays, [good] * len(arrays)) <= 1e30


def test_infinite_values_in_the_same_places_are_no_difference():
    masked = np.array([-np.inf, 3.0, 4.0, np.inf])
    assert relative_difference([masked], [masked]) == 0
    assert relative_difference([masked], [np.array([-np.inf, 3.0, 4.5, np.inf])]) == pytest.approx(0.1)
    for other in (
        np.array([np.inf, 3, 4, np.inf]),
        np.array([0, 3, 4, np.inf]),
        np.array([-np.inf, 3, np.nan, np.inf]),
    ):
        assert not relative_difference([masked], [other]) <= 1e30
        assert not relative_difference([other], [masked]) <= 1e30


FAULTS = [(("mix", "head", "bias", "order")[i % 4], i) for i in range(40)]


@pytest.mark.parametrize(("kind", "seed"), FAULTS)
def test_planted_faults_are_caught(pair, images, kind, seed):
    generator = np.random.default_rng(seed)
    source, translated = pair
    model = translated.model
    if kind == "mix":
        model.mix = model.mix * (1 + 0.01 * generator.standard_normal(model.mix.shape))
    elif kind == "head":
        model.head = np.array(model.head)
        model.head[tuple(generator.integers(size) for size in model.head.shape)] += 0.1
    elif kind == "bias":
        model.normalise = lambda logits: logits + generator.normal(size=logits.shape[1]) * 0.01
    else:
        model.head = model.head[generator.permutation(5) if seed % 2 else [1, 0, 2, 3, 4]]
    changed = not np.array_equal(model.head, source.model.head) or kind in ("mix", "bias")
    assert certify(source, translated, [images]).faithful is not changed


def test_a_fault_that_only_gradients_show(pair, images):
    """A relu whose backward pass is missing: the outputs agree to the last bit."""
    source, translated = pair
    closed_form = translated.model.gradients

    def without_relu(inputs, cotangent):
        gradients = closed_form(inputs, cotangent)
        gradients["input"] = np.broadcast_to(gradients["relu"] @ translated.model.mix, inputs.shape)
        return gradients

    translated.model.gradients = without_relu
    certificate = certify(source, translated, [images])
    assert not certificate.faithful
    assert all("gradients" in fault for fault in certificate.faults)


def test_a_permuted_input_is_caught(painting, images):
    adapter = NetworkAdapter()
    square = np.random.default_rng(0).normal(size=(2, 3, 3, 3))
    swapped = Side(adapter, Print(painting.mix, painting.head), ((0, 1, 2, 3),), (None,))
    assert not certify(Side(adapter, painting), swapped, [square]).faithful


def test_rounding_is_not_a_fault(pair, images):
    source, translated = pair
    translated.model.mix = translated.model.mix.astype(np.float32).astype(np.float64)
    assert certify(source, translated, [images]).faithful


def test_outputs_of_other_shapes_are_a_fault(pair, images):
    pair[1].model.head = pair[1].model.head[:4]
    certificate = certify(*pair, [images])
    assert not certificate.faithful and "shapes" in str(certificate)


def test_relative_difference_by_hand():
    assert relative_difference([np.array([3.0, 4.0])], [np.array([3.0, 4.5])]) == pytest.approx(0.1)
    assert relative_difference([np.zeros(2)], [np.zeros(2)]) == 0
    assert relative_difference([np.zeros(2)], [np.ones(2)]) == np.inf


def test_layers_are_matched_by_activation_and_gradient(pair, images):
    layer_map = map_layers(*pair, [images])
    assert dict(zip(layer_map, (layer_map[name] for name in layer_map), strict=True)) == {
        name: name for name in ("mix", "relu", "pool", "head")
    }
    assert layer_map.matches["relu"].axes == (0, 2, 3, 1)
    assert layer_map.matches["pool"].axes is None


def test_a_layer_with_the_same_values_elsewhere_in_the_graph_is_no_match(pair, images):
    closed_form = pair[1].model.gradients
    pair[1].model.gradients = lambda x, c: {**closed_form(x, c), "pool": 2 * closed_form(x, c)["pool"]}
    layer_map = map_layers(*pair, [images])
    assert layer_map.missing == layer_map.uncertain == ("pool",)


def test_non_canonical_network_gradients_agree_with_differences(painting, images):
    cotangent = np.random.default_rng(5).normal(size=(2, 5))
    softmax = Painting(painting.mix, painting.head, softmax=True)
    gradient = softmax.gradients(images, cotangent)["input"]
    step = np.random.default_rng(6).normal(size=images.shape) * 1e-6
    difference = ((softmax(images + step) - softmax(images - step)) * cotangent).sum()
    assert difference == pytest.approx(2 * (gradient * step).sum(), rel=1e-5)


class Imprecise(NetworkAdapter):
    """Outputs and gradients of single precision are off; those of double precision are the network's own."""

    def __init__(self, off):
        self.off = off

    def outputs(self, model, inputs):
        outputs = super().outputs(model, inputs)
        return outputs if getattr(model, "precise", False) else outputs * (1 + self.off)

    def in_double(self, model):
        twin = type(model)(model.mix, model.head)
        twin.precise = True
        return twin


def imprecise(pair, off, other):
    """Both models, whose outputs in single precision are off by that much."""
    source, translated = pair
    return Side(Imprecise(off), source.model), replace(translated, adapter=Imprecise(other))


@pytest.mark.parametrize("off", [1e-5, 4e-4])
def test_a_doubt_is_decided_in_double_precision(pair, images, off):
    one, other = imprecise(pair, off, -off)
    certificate = certify(one, other, [images])
    assert certificate.faithful
    assert len(certificate.in_double) == 1 and certificate.gradient_floor is not None
    assert "in double precision: outputs by" in str(certificate)
    assert certificate.report().count("in double precision") == 2
    other.model.head = other.model.head * (1 + off / 2)
    faulty = certify(one, replace(other), [images])
    assert not faulty.faithful
    assert all("in double precision" in fault for fault in faulty.faults)


def test_double_precision_excuses_no_more_than_the_rounding_of_both_models(pair, images):
    """The original has no rounding to speak of, so what the other one does in single precision alone is a fault."""
    certificate = certify(*imprecise(pair, 0.0, 5e-4), [images])
    assert not certificate.faithful
    assert all("outputs" in fault and "in double precision" not in fault for fault in certificate.faults)
    assert certify(*imprecise(pair, 1.5e-4, 5e-4), [images]).faithful


class Leaping(Imprecise):
    """Gradients of single precision leap at one sample in so many, as rounding makes them where a ReLU switches."""

    def __init__(self, one_in, seed):
        super().__init__(0.0)
        self.one_in, self.generator = one_in, np.random.default_rng(seed)

    def vjp(self, model, inputs, cotangents):
        outputs, (gradient,) = super().vjp(model, inputs, cotangents)
        if not getattr(model, "precise", False):
            leaps = self.generator.random(len(gradient)) < 1 / self.one_in
            gradient = gradient * (1 + 0.05 * leaps[:, None, None, None])
        return outputs, [gradient]


@pytest.mark.parametrize("seed", range(20))
def test_leaps_of_both_models_are_rounding(pair, images, seed):
    one, other = Side(Leaping(4, seed), pair[0].model), replace(pair[1], adapter=Leaping(4, 100 + seed))
    samples = np.concatenate([images] * 3)
    certificate = certify(one, other, [samples])
    assert certificate.faithful, str(certificate)


class Edge(Imprecise):
    """One unit of the first sample lies at the edge of its ReLU: in single precision on this side of it or on that."""

    def __init__(self, edge, factor=1.0):
        super().__init__(0.0)
        self.edge, self.factor = edge, factor

    def vjp(self, model, inputs, cotangents):
        outputs, (gradient,) = super().vjp(model, inputs, cotangents)
        if not getattr(model, "precise", False):
            gradient = gradient * self.factor
            is_open = inputs[0].reshape(len(gradient), -1).sum(1) > self.edge
            gradient = gradient * (1 + 0.05 * is_open[:, None, None, None])
        return outputs, [gradient]


@pytest.mark.parametrize(("factor", "faithful"), [(1.0, True), (-1.0, False), (1.5, False)])
def test_a_unit_at_its_edge_is_rounding_and_excuses_nothing_else(pair, images, factor, faithful):
    images = images.astype(np.float32)
    edge = float(images[0].astype(np.float64).sum())
    one = Side(Edge(edge + 1e-9), pair[0].model)
    other = replace(pair[1], adapter=Edge(edge - 1e-9, factor))
    certificate = certify(one, other, [images])
    assert certificate.faithful is faithful, str(certificate)


class Edges(Imprecise):
    """Several units of the first sample lie at the edges of their ReLUs, on this side or on that in single precision.

    The fault is at that sample alone, and not next to it.
    """

    UNITS = 6

    def __init__(self, edges, fault=0.0):
        super().__init__(0.0)
        self.edges, self.fault = edges, fault

    def vjp(self, model, inputs, cotangents):
        outputs, (gradient,) = super().vjp(model, inputs, cotangents)
        if not getattr(model, "precise", False):
            channels_first = inputs[0] if inputs[0].shape[1] == 3 else inputs[0].transpose(0, 3, 1, 2)
            beyond = in_parts(channels_first) - self.edges
            open_ = ((beyond > 0) & (np.abs(beyond).max(1, keepdims=True) < 1e-3)).astype(np.float64)
            scale = np.abs(gradient).mean()
            drawn = np.random.default_rng(4).normal(size=(self.UNITS + 1, *channels_first.shape[1:])) * 0.05 * scale
            is_there = np.abs(beyond).max(1) < 1e-8
            faults = drawn[-1] * (self.fault * is_there)[:, None, None, None]
            more = np.einsum("nu,uchw->nchw", open_, drawn[:-1]) + faults
            gradient = gradient + (more if inputs[0].shape[1] == 3 else more.transpose(0, 2, 3, 1))
        return outputs, [gradient]


def in_parts(images):
    return images.astype(np.float64).reshape(len(images), Edges.UNITS, -1).sum(2)


@pytest.mark.parametrize("by_sample", [False, True])
@pytest.mark.parametrize(("fault", "faithful"), [(0.0, True), (0.02, False), (1.0, False)])
def test_what_several_units_at_their_edges_do_adds_up(pair, fault, faithful, by_sample):
    """All of them at once are not met next to the sample; that each does what it does there is."""
    images = np.random.default_rng(3).normal(size=(2, 3, 6, 8)).astype(np.float32)
    edges = in_parts(images)[0]
    one = Side(Edges(edges + 1e-9), pair[0].model)
    other = replace(pair[1], adapter=Edges(edges - 1e-9, fault))
    certificate = certify(one, other, [images], by_sample=by_sample)
    assert certificate.faithful is faithful, str(certificate)


class Margins(Imprecise):
    """Many units near the edges of their ReLUs; only the first is so near that rounding decides on which side it is.

    It shows alone where the inputs are moved by tens of units in the last place, and among others farther away.
    """

    UNITS = 40

    def __init__(self, images, first):
        super().__init__(0.0)
        generator = np.random.default_rng(5)
        self.weights = generator.choice([-1.0, 1.0], (self.UNITS, *images.shape[1:]))
        margins = np.array([first, *generator.uniform(1e-4, 3e-4, self.UNITS - 1)])
        self.edges = np.einsum("uchw,chw->u", self.weights, images[0].astype(np.float64)) + margins
        self.moves = generator.normal(size=self.weights.shape)

    def vjp(self, model, inputs, cotangents):
        outputs, (gradient,) = super().vjp(model, inputs, cotangents)
        if not getattr(model, "precise", False):
            is_first = inputs[0].shape[1] == 3
            channels_first = inputs[0] if is_first else inputs[0].transpose(0, 3, 1, 2)
            beyond = np.einsum("uchw,nchw->nu", self.weights, channels_first.astype(np.float64)) - self.edges
            is_open = (beyond > 0) & (np.abs(beyond).max(1, keepdims=True) < 1)
            moved = np.einsum("nu,uchw->nchw", is_open, self.moves) * 0.01 * np.abs(gradient).mean()
            gradient = gradient + (moved if is_first else moved.transpose(0, 2, 3, 1))
        return outputs, [gradient]


@pytest.mark.parametrize("seed", range(5))
def test_a_unit_that_shows_alone_at_one_distance_only_is_rounding(pair, seed):
    images = np.random.default_rng(seed).normal(size=(4, 3, 6, 8)).astype(np.float32)
    one = Side(Margins(images, 3e-5), pair[0].model)
    other = replace(pair[1], adapter=Margins(images, -1e-9))
    for by_sample in (False, True):
        certificate = certify(one, other, [images], by_sample=by_sample)
        assert certificate.faithful, str(certificate)


class Rare(Imprecise):
    """Three units of one image at their edges, of which two lie so that few moves of the inputs open them."""

    SHARES, SIZES = (0.5, 0.03, 0.03), (0.5, 0.1, 0.1)

    def __init__(self, image, *, is_open, fault=0.0):
        super().__init__(0.0)
        self.image, self.is_open, self.fault = image, is_open, fault
        self.moves = np.random.default_rng(6).normal(size=(len(self.SIZES) + 1, *image.shape)) * 0.05

    def vjp(self, model, inputs, cotangents):
        outputs, (gradient,) = super().vjp(model, inputs, cotangents)
        if getattr(model, "precise", False):
            return outputs, [gradient]
        is_first = inputs[0].shape[1] == 3
        weights = [self.weights(one if is_first else one.transpose(2, 0, 1)) for one in inputs[0]]
        moved = np.einsum("nu,uchw->nchw", weights, self.moves) * np.abs(gradient).mean()
        return outputs, [gradient + (moved if is_first else moved.transpose(0, 2, 3, 1))]

    def weights(self, image):
        """Of each unit's move, and of the fault's; what is open next to the image depends on where that is."""
        off = np.abs(image - self.image).max()
        drawn = np.random.default_rng(crc32(image.tobytes())).random(len(self.SHARES)) < self.SHARES
        is_open = np.where(off > 0, drawn, self.is_open)
        return [*(is_open * self.SIZES * (off < 1e-2)), self.fault]


@pytest.mark.parametrize(("fault", "faithful"), [(0.0, True), (0.01, False)])
@pytest.mark.parametrize("seed", range(8))
def test_units_that_show_rarely_are_looked_for_where_others_explain_the_most(pair, seed, fault, faithful):
    images = np.random.default_rng(seed).normal(size=(4, 3, 12, 16)).astype(np.float32)
    one = Side(Rare(images[0], is_open=False), pair[0].model)
    other = replace(pair[1], adapter=Rare(images[0], is_open=True, fault=fault))
    certificate = certify(one, other, [images], by_sample=True)
    assert certificate.faithful is faithful, str(certificate)


@pytest.mark.parametrize("seed", range(5))
def test_leaps_of_the_translation_alone_at_every_sample_are_none(pair, images, seed):
    one, other = Side(Leaping(1e9, seed), pair[0].model), replace(pair[1], adapter=Leaping(1, seed))
    certificate = certify(one, other, [images])
    assert not certificate.faithful and "input gradients" in certificate.faults[0]


def test_a_layer_whose_gradient_rounding_hides_is_found_in_double_precision(pair, images):
    class Rounding(Imprecise):
        def layer_gradients(self, model, inputs, cotangents, names=None):
            found = super().layer_gradients(model, inputs, cotangents, names)
            return found if getattr(model, "precise", False) else {**found, "pool": 2 * found["pool"]}

    exact, rounding = Side(Imprecise(0.0), pair[0].model), replace(pair[1], adapter=Rounding(0.0))
    certificate = certify(exact, rounding, [images])
    assert certificate.faithful and not certificate.in_double
    assert map_layers(exact, rounding, [images]).missing == ("pool",)
    assert not find_layers(exact, rounding, [images], certificate).missing
    without = replace(pair[0], adapter=NetworkAdapter())  # has no copy in double precision
    assert find_layers(without, rounding, [images], certificate).missing == ("pool",)


class Counting(NetworkAdapter):
    """Notes how many samples the passes had; it may take so many only."""

    def __init__(self, takes=None):
        self.takes, self.forward, self.backward = takes, [], []

    def outputs(self, model, inputs):
        if self.takes not in (None, len(inputs[0])):
            raise ValueError(f"takes {self.takes} samples")
        self.forward.append(len(inputs[0]))
        return super().outputs(model, inputs)

    def vjp(self, model, inputs, cotangents):
        found = super().vjp(model, inputs, cotangents)
        self.backward.append(len(inputs[0]))
        return found


@pytest.mark.parametrize(
    ("by_sample", "takes", "backward"),
    [(False, None, [3, 2]), (True, None, [5]), (True, 3, [3, 3])],
)
def test_a_function_of_each_sample_runs_on_several_sets_at_once(pair, by_sample, takes, backward):
    images, counting = np.random.default_rng(2).normal(size=(3, 3, 5, 7)), Counting(takes)
    one, other = replace(pair[0], adapter=counting), pair[1]
    certificate = certify(one, other, [images], by_sample=by_sample)
    assert certificate.faithful and counting.backward == backward
    expected = certify(*pair, [images]).measurements
    for measured, own in zip(certificate.measurements, expected, strict=True):
        assert measured.samples_of == own.samples_of
        assert measured.gradient_difference == pytest.approx(own.gradient_difference, abs=1e-12)


@pytest.fixture
def rounded(pair):
    """The pair, with rounding of 1e-5 in single precision, and a list of the copies in double precision."""
    source, translated = pair
    copies = []

    class Counted(Imprecise):
        def in_double(self, model):
            copies.append(model)
            return super().in_double(model)

    def sides(off=1e-5):
        return Side(Imprecise(-off), source.model), replace(translated, adapter=Counted(off))

    return sides, copies


def again(sides, images, earlier):
    return certify_again(*sides, [images], sides[0].outputs([images]), earlier)


def test_a_kept_translation_is_measured_on_new_inputs_by_its_outputs(rounded, images):
    sides, copies = rounded
    first = certify(*sides(), [images])
    assert first.floor.outputs == pytest.approx(1e-5, rel=0.01) and len(copies) == 1
    later = again(sides(), images * 1.5, first)
    assert later.faithful and len(copies) == 1, "the same rounding is no doubt"
    assert [one.samples_of for one in later.measurements] == ["your inputs", "random inputs"]
    assert later.measurements[1] == first.measurements[1] and later.measurements[0] != first.measurements[0]
    assert later.measurements[0].gradient_difference is None
    assert later.gradient_floor == first.gradient_floor and later.floor == first.floor


def test_more_than_the_rounding_found_before_is_a_doubt_again(rounded, images):
    sides, copies = rounded
    first = certify(*sides(), [images])
    assert again(sides(2.4e-5), images * 1.5, first).floor == first.floor and len(copies) == 1
    more = again(sides(2.6e-5), images * 1.5, first)
    assert more.faithful and len(copies) == 2 and more.floor.outputs == pytest.approx(2.6e-5, rel=0.01)


@pytest.mark.parametrize("off", [1e-4, 0.1])
def test_a_fault_that_only_the_new_inputs_show(rounded, images, off):
    limit = 2 * float(images.max())

    class Clipping(Imprecise):
        def outputs(self, model, inputs):
            return super().outputs(model, inputs) * (1 + off * float(inputs[0].max() > limit))

    source, translated = rounded[0]()
    translated = replace(translated, adapter=Clipping(1e-5))
    first = certify(source, translated, [images])
    assert first.faithful and again((source, translated), images * 1.5, first).faithful
    assert not again((source, translated), images * 3, first).faithful


def test_no_rounding_excuses_outputs_that_are_far_apart(pair, images):
    certificate = certify(*imprecise(pair, 0.0, 2e-3), [images])
    assert not certificate.faithful and not certificate.in_double


def test_the_first_layer_that_differs_is_named(pair, images):
    source, translated = pair
    assert first_divergence(source, translated, [images]) is None
    right = translated.model.mix
    translated.model.mix = right * 1.5
    found = first_divergence(source, translated, [images])
    assert (found.layer, found.counterpart) == ("mix", "mix") and found.difference == pytest.approx(0.5)
    translated.model.mix = right
    translated.model.head = translated.model.head[::-1]
    assert first_divergence(source, translated, [images]).layer == "head"
    assert "the first layer that differs is 'head'" in str(first_divergence(source, translated, [images]))


class Reading(NetworkAdapter):
    """Activations are what a function makes of the network's."""

    def __init__(self, change):
        self.change = change

    def activations(self, model, inputs, names=None):
        return self.change(super().activations(model, inputs, names))


def test_the_first_layer_that_differs_is_told(pair, images):
    changed = replace(pair[1], adapter=Reading(lambda found: {**found, "pool": found["pool"] * 1.5}))
    found = first_divergence(*pair[:1], changed, [images])
    assert (found.layer, found.counterpart, found.difference) == ("pool", "pool", pytest.approx(0.5))
    assert first_divergence(*pair, [images]) is None
    # What is found at another layer is right so far, and whole numbers and layers without a namesake prove nothing.
    swapped = Reading(lambda found: {**found, "mix": found["relu"], "relu": found["mix"]})
    assert first_divergence(pair[0], replace(pair[1], adapter=swapped), [images]) is None
    other = Reading(lambda found: {"pooled": found["pool"] * 2, "head": found["head"]})
    assert first_divergence(pair[0], replace(pair[1], adapter=other), [images]) is None
    whole = replace(pair[0], adapter=Reading(lambda found: {"pool": found["pool"].round().astype(int)}))
    assert first_divergence(whole, changed, [images]) is None
    cut = replace(pair[1], adapter=Reading(lambda found: {**found, "pool": found["pool"][:, :3]}))
    assert first_divergence(pair[0], cut, [images]).difference == np.inf


def test_layers_of_models_without_gradients_are_matched_by_activations(pair, images):
    class Without(NetworkAdapter):
        def layer_gradients(self, model, inputs, cotangents, names=None):
            raise NoGradientError("none here")

    found = map_layers(replace(pair[0], adapter=Without()), pair[1], [images])
    assert list(found) == ["mix", "relu", "pool", "head"] and not found.missing
    assert {match.gradient_difference for match in found.matches.values()} == {None}
    assert found.difference < 1e-12 and len(found) == 4


def test_layers_of_whole_numbers_are_not_matched_and_are_shown(pair, images):
    whole = Reading(lambda found: {**found, "pool": found["pool"].round().astype(int)})
    found = map_layers(replace(pair[0], adapter=whole), pair[1], [images])
    assert found.missing == ("pool",) and "pool" not in found and "mix" in found
    assert str(found).splitlines() == ["mix   mix", "relu  relu", "pool  -", "head  head"]
