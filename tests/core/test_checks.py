"""Checks of explanations, against closed forms: linear models, an edge detector, curves that are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.checks import Check, Curve
from cfi_core.checks.places import Places
from cfi_core.checks.question import Question
from cfi_core.checks.randomisation import correlations, draw
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.silence import without_warnings
from cfi_core.specs import Kind, MethodSpec, MetricSpec, Need, PlotterSpec, ToolsetSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting

OWN = ["parameter_randomisation", "deletion", "insertion", "infidelity", "max_sensitivity", "completeness"]
WEIGHTS = np.array([3.0, -1.0, 0.5, 2.0, 0.0])
ROWS = np.array([[1.0, 2.0, -1.0, 0.5, 4.0], [0.5, -1.0, 2.0, 1.0, 1.0], [-2.0, 1.0, 1.0, 3.0, 0.2]])


def linear(rows):
    return rows @ WEIGHTS[:, None]


def omitted(rows=ROWS, function=linear):
    """What is lost when an element becomes zero: of a linear function weight times element."""
    return cfi.attribute(function, "omit", inputs=rows, target=0, seed=0)


def edges(request: MethodRequest) -> MethodResult:
    """Looks at the images alone."""
    images = request.inputs[0]
    return MethodResult((np.abs(np.diff(images, axis=1, prepend=images[:, :1])),), Axes.INPUT)


def tally(model, attributions, name, *, inputs=None, seed=None, bonus=0):
    """A metric that counts."""
    counts = np.array([len(row) + bonus for row in np.atleast_2d(attributions.values)], float)
    return Check(name=name, scores=counts, better="higher", means="elements", settings={"seed": seed})


class Extra:
    """An edge detector for prints, metrics, and a plotter of checks."""

    @staticmethod
    @hookimpl
    def cfi_toolsets():
        return [ToolsetSpec(name="eyes", framework="print")]

    @staticmethod
    @hookimpl
    def cfi_methods():
        needs = frozenset({Need.FORWARD})
        where = f"{__name__}:edges"
        return [
            MethodSpec(
                key="edges",
                toolset="eyes",
                kind=Kind.ATTRIBUTION,
                needs=needs,
                implementation=where,
                optional=("target",),
            )
        ]

    @staticmethod
    @hookimpl
    def cfi_metrics():
        fields = {"category": "Size", "better": "higher", "needs": frozenset(), "implementation": f"{__name__}:tally"}
        return [
            MetricSpec(name="Tally", library="scales", **fields),
            MetricSpec(name="Weight", library="scales", **fields),
            MetricSpec(name="Weight", library="rulers", **fields),
            MetricSpec(name="Absent", library="scales", requirements=("no-such-distribution",), **fields),
            MetricSpec(name="Broken", library="scales", **{**fields, "implementation": f"{__name__}:fail"}),
        ]

    @staticmethod
    @hookimpl
    def cfi_plotters():
        return [PlotterSpec(name="lines", implementation=f"{__name__}:sketch", draws="checks")]


def fail(model, attributions, name):
    raise ZeroDivisionError("nothing to divide by")


class Sketch:
    def savefig(self, path, **_):
        Path(path).write_bytes(b"a picture") if isinstance(path, str | Path) else path.write(b"a picture")


def sketch(checks, *, colour="red"):
    return Sketch()


@pytest.fixture
def explained(painting, images):
    """A painting in which every unit is on, so that it is linear; explained by its gradient, in a print."""
    with use_plugins(fake, Extra):
        model = Painting(np.abs(painting.mix), painting.head)
        yield model, cfi.attribute(model, "press_gradient", inputs=np.abs(images) + 0.5, target=[1, 3], seed=4)


def check_all(made, model):
    """Without the warning that the order of equal values is no better than any other."""
    with without_warnings("press_gradient of press, (deletion|insertion)"):
        return cfi.check(made, model, seed=0)


# numbers


def test_a_deletion_curve_of_a_linear_model_is_known(omission):
    found = cfi.check(omitted(), linear, checks=[("deletion", {"baseline": "zero", "steps": 5})], seed=1)["deletion"]
    contributions = -np.sort(-ROWS * WEIGHTS, axis=1)
    totals = (ROWS @ WEIGHTS)[:, None]
    expected = np.hstack([totals, totals - np.cumsum(contributions, axis=1)])
    np.testing.assert_allclose(found.curves[0].values, expected, atol=1e-12)
    np.testing.assert_allclose(found.scores, (expected[:, 1:] + expected[:, :-1]).sum(1) / 10, atol=1e-12)
    assert found.places == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) and found.better == "lower"


def test_insertion_is_deletion_from_the_other_end(omission):
    given = {"baseline": "zero", "steps": 5}
    found = cfi.check(omitted(), linear, checks={"insertion": given, "deletion": given}, seed=1)
    total = (ROWS @ WEIGHTS)[:, None]
    away, back = (found[name].curves[0].values for name in ("deletion", "insertion"))
    np.testing.assert_allclose(away + back, np.repeat(total, 6, axis=1), atol=1e-12)
    assert found["insertion"].score > found["deletion"].score and not found.warnings


def test_chance_is_half_of_a_linear_models_output(omission):
    options = {"baseline": "zero", "orders": 400, "steps": 5}
    found = cfi.check(omitted(), linear, checks={"deletion": options}, seed=1)["deletion"]
    np.testing.assert_allclose(found.reference, ROWS @ WEIGHTS / 2, atol=0.25)
    assert found.curves[1].is_reference


def test_the_wrong_order_is_told(omission):
    wrong = replace(omitted(), values=-omitted().values)
    with pytest.warns(cfi.ModelWarning, match="insertion: the order of the values is not clearly better"):
        found = cfi.check(wrong, linear, checks="insertion", seed=1)
    assert found["insertion"].score < found["insertion"].chance


def test_equal_values_are_taken_in_any_order_which_the_seed_decides(omission):
    flat = replace(omitted(), values=np.ones_like(ROWS))
    places = Places(Question.of(linear, flat, None, None, None, 0))
    orders = [places.order(np.random.default_rng(seed), absolute=False) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2]) and (np.sort(orders[0], axis=1) == np.arange(5)).all()


def test_contributions_of_a_linear_model_are_told_without_infidelity(omission):
    found = cfi.check(omitted(), linear, checks="infidelity", seed=2)["infidelity"]
    assert found.scores.max() < 1e-20 and max(found.settings["infidelity"]) < 1e-20
    assert found.settings["reading"] == "contributions" and found.settings["baseline"] == "zero"


def test_infidelity_is_the_one_of_the_paper(omission):
    """By loops over draws and samples, with given noise."""
    noise = np.random.default_rng(0).normal(size=(30, *ROWS.shape))
    values = np.random.default_rng(1).normal(size=ROWS.shape)
    given = {"reading": "gradients", "perturbations": noise}
    made = replace(omitted(function=curved), values=values)
    found = cfi.check(made, curved, checks={"infidelity": given})["infidelity"]
    for sample, row in enumerate(ROWS):
        told = [noise[one, sample] @ values[sample] for one in range(30)]
        drops = [(curved(row[None]) - curved(row[None] - noise[one, sample]))[0, 0] for one in range(30)]
        scale = np.mean(np.multiply(told, drops)) / np.mean(np.square(told))
        assert found.settings["infidelity"][sample] == pytest.approx(np.mean(np.square(np.subtract(told, drops))))
        left = np.mean((scale * np.array(told) - drops) ** 2) / np.mean(np.square(drops))
        assert found.scores[sample] == pytest.approx(left)


def curved(rows):
    return np.tanh(rows @ WEIGHTS[:, None]) + (rows**2).sum(1, keepdims=True)


def test_nothing_is_better_told_by_zeros(omission):
    zero = replace(omitted(), values=np.zeros_like(ROWS))
    assert cfi.check(zero, linear, checks="infidelity", seed=0)["infidelity"].scores.tolist() == [1, 1, 1]


def test_the_gradient_of_a_linear_model_does_not_move(explained):
    model, made = explained
    found = cfi.check(made, model, checks=["max_sensitivity", "infidelity"], seed=3)
    assert found["max_sensitivity"].scores.max() < 1e-12
    assert found["infidelity"].scores.max() < 1e-20 and found["infidelity"].settings["reading"] == "gradients"


def test_max_sensitivity_is_the_one_of_the_paper(omission):
    made, moves = omitted(function=curved), np.random.default_rng(0).uniform(-0.1, 0.1, (6, *ROWS.shape))
    found = cfi.check(made, curved, checks={"max_sensitivity": {"perturbations": moves}})["max_sensitivity"]
    for sample in range(len(ROWS)):
        away = [np.linalg.norm(omitted(ROWS + move, curved).values[sample] - made.values[sample]) for move in moves]
        assert found.scores[sample] == pytest.approx(max(away) / np.linalg.norm(made.values[sample]))


def test_what_looks_at_the_image_alone_fails_the_randomisation(explained):
    model, made = explained
    looked = cfi.attribute(model, "edges", inputs=made.inputs[0], target=1)
    with pytest.warns(cfi.ModelWarning, match="does not depend on the parameters"):
        found = cfi.check(looked, model, checks="parameter_randomisation", seed=0)
    assert found["parameter_randomisation"].scores.tolist() == [1, 1]
    assert "warning: parameter_randomisation: the explanation does not depend" in str(found)


def test_a_cascade_goes_from_the_last_layer_to_the_first(painting, images):
    with use_plugins(fake, Extra):
        model, weights = painting, [painting.mix.copy(), painting.head.copy()]
        made = cfi.attribute(model, "press_gradient", inputs=images, target=2, seed=4)
        found = cfi.check(made, model, checks={"parameter_randomisation": {"draws": 1}}, seed=0)[
            "parameter_randomisation"
        ]
        at_once = cfi.check(made, model, checks={"parameter_randomisation": {"order": "all"}}, seed=0)
    assert found.places == ("head", "mix") and at_once["parameter_randomisation"].places == ("mix",)
    assert found.scores.max() < 0.9 and not found.verdict
    np.testing.assert_array_equal(model.mix, weights[0])
    np.testing.assert_array_equal(model.head, weights[1])
    # The head alone: by hand, with a copy of the first draw.
    head = draw(painting.head, np.random.default_rng(0))
    with use_plugins(fake, Extra):
        by_hand = cfi.attribute(Painting(painting.mix, head), "press_gradient", inputs=images, target=2, seed=4)
    np.testing.assert_allclose(found.curves[0].values[:, 0], correlations([made.values], [by_hand.values]))


def test_one_draw_that_agrees_by_chance_is_no_verdict(explained):
    """The gradients of three channels have three ranks, which agree every now and then."""
    model, made = explained
    options = {"order": "all", "draws": 1}
    found = [cfi.check(made, model, checks={"parameter_randomisation": options}, seed=seed) for seed in (1, 2)]
    lone = [one["parameter_randomisation"].score for one in found]
    many = cfi.check(made, model, checks={"parameter_randomisation": {"order": "all", "draws": 40}}, seed=1)
    assert abs(many["parameter_randomisation"].score) < 0.3 and lone[0] != lone[1]
    assert not many.warnings


def test_rank_correlations():
    row = np.array([[3.0, 1.0, 2.0, 5.0]])
    assert correlations([row], [np.exp(row)]) == pytest.approx(1)
    assert correlations([row], [-(row**3)]) == pytest.approx(-1)
    assert correlations([row], [-row], absolute=True) == pytest.approx(1)
    assert np.isnan(correlations([row], [np.zeros_like(row)]))
    # Ranks 1.5, 1.5, 3 and 1, 2, 3: their correlation by hand is sqrt(3) / 2.
    assert correlations([np.array([[1.0, 1.0, 2.0]])], [np.array([[1.0, 2.0, 3.0]])]) == pytest.approx(np.sqrt(3) / 2)


def test_drawn_parameters_have_the_size_of_the_learnt_ones():
    generator = np.random.default_rng(0)
    kernel, bias = draw(np.full((200, 50), 0.3), generator), draw(generator.normal(2, 0.1, 5000), generator)
    assert abs(kernel.mean()) < 0.01 and kernel.std() == pytest.approx(0.3, rel=0.03)
    assert bias.mean() == pytest.approx(2, rel=0.01) and bias.std() == pytest.approx(0.1, rel=0.05)


def test_completeness_comes_from_the_provenance(omission):
    told = {"gap": 0.3, "bound": 0.1, "against": "f(inputs) - f(baselines)"}
    made = replace(omitted(), provenance={**omitted().provenance, "completeness": told})
    with pytest.warns(cfi.ModelWarning, match=r"do not add up: a gap of 30\.0% where 10\.0% is expected"):
        found = cfi.check(made, linear, checks="completeness")["completeness"]
    assert found.score == 0.3 and found.chance == 0.1


# places


def pictured(values, dims, images, **fields):
    made = cfi.Attribution(values, dims, "some", "thing", inputs=(images,), **fields)
    return Places(
        Question.of(None, replace(made, input_dims=(("sample", "channel", "height", "width"),)), None, None, None, 0)
    )


def test_pixels_are_changed_with_all_their_channels(images):
    places = pictured(images, ("sample", "channel", "height", "width"), images)
    np.testing.assert_allclose(places.values(), images.sum(1).reshape(2, -1))
    np.testing.assert_allclose(places.values(absolute=True), np.abs(images).sum(1).reshape(2, -1))
    marked = np.zeros((2, 35), bool)
    marked[0, 8] = marked[1, 34] = True
    (changed,) = places.exchange(marked, [np.full_like(images, 9)])
    expected = images.copy()
    expected[0, :, 1, 1] = expected[1, :, 4, 6] = 9
    np.testing.assert_array_equal(changed, expected)


def test_maps_of_layers_are_stretched_over_the_image():
    images = np.zeros((1, 3, 4, 4))
    values = np.array([[[0.0, 4.0], [8.0, 12.0]]])
    found = pictured(values, ("sample", "height", "width"), images, layer="mix").values().reshape(4, 4)
    # Between the middles of cells linear, outside of them as at the edge.
    np.testing.assert_allclose(found[0], [0, 1, 3, 4])
    np.testing.assert_allclose(found[:, 0], [0, 2, 6, 8])


def test_values_that_belong_to_no_place_are_refused(images):
    places = pictured(np.zeros((2, 7)), ("sample", "feature"), images, layer="head")
    with pytest.raises(cfi.InputError, match="the values are of layer 'head', with the axes"):
        places.values()


def test_baselines(images):
    places = pictured(images, ("sample", "channel", "height", "width"), images)
    assert not places.baselines("zero")[0].any()
    mean = images.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(places.baselines("mean")[0], np.broadcast_to(mean, images.shape))
    np.testing.assert_array_equal(places.baselines(2.5)[0], np.full_like(images, 2.5))
    flat = pictured(images, ("sample", "channel", "height", "width"), np.full_like(images, 3.0))
    np.testing.assert_allclose(flat.baselines("blur")[0], 3)
    assert places.baselines("blur")[0].std() < images.std() / 1.5
    with pytest.raises(cfi.ArgumentError, match=r"baseline has shape \(2, 5\), the inputs \(2, 3, 5, 7\)"):
        places.baselines(np.zeros((2, 5)))
    with pytest.raises(cfi.ArgumentError, match="baseline='grey' is none of 'zero', 'mean', 'blur'"):
        places.baselines("grey")


def test_whole_numbers_have_no_baseline_of_their_own(omission):
    def count(rows):
        return (rows == 3).sum(1, keepdims=True).astype(float)

    made = cfi.attribute(count, "omit", inputs=np.array([[3, 1, 3]]), target=0)
    found = cfi.check(made, count, seed=0)
    assert "pass baseline= as a number" in found.left_out["deletion"]
    assert "whole numbers, which have no neighbours" in found.left_out["max_sensitivity"]
    known = cfi.check(made, count, checks={"deletion": {"baseline": 0, "steps": 3}}, seed=0)["deletion"]
    assert known.curves[0].values.tolist() == [[2, 1, 0, 0]]


# what can be asked


def test_what_cannot_run_is_told_and_an_error_only_where_it_was_asked_for(omission):
    found = cfi.check(omitted(), linear, seed=0)
    assert set(found.found) == {"deletion", "insertion", "infidelity", "max_sensitivity"}
    assert "has no parameters that can be seen" in found.left_out["parameter_randomisation"]
    assert found.left_out["completeness"] == "omit promises no sum."
    with pytest.raises(
        cfi.MethodError, match="parameter_randomisation cannot run: a function of numpy has no parameters"
    ):
        cfi.check(omitted(), linear, checks=["parameter_randomisation"])
    with pytest.raises(cfi.ArgumentError, match="'parameter_randomisation' did not run: a function"):
        found["parameter_randomisation"]
    with pytest.raises(cfi.ArgumentError, match="no check 'speed' here"):
        found["speed"]


def test_all_of_the_own_checks_run_where_the_model_has_parameters(explained):
    model, made = explained
    found = check_all(made, model)
    assert list(found.found) + list(found.left_out) == OWN[:5] + OWN[5:]
    again = check_all(made, model)
    for name, one in found.found.items():
        np.testing.assert_array_equal(one.scores, again[name].scores)


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        (["deletoin"], "no metric 'deletoin'. Did you mean 'deletion'"),
        ([], "checks is empty"),
        ([3], "checks holds 3, which is neither a name nor a pair"),
        (3, "checks=3 is none of a name, a list of names, and a mapping"),
        ({"deletion": {"step": 3}}, "no option 'step'; its options are baseline, steps, orders, reading"),
        ({"deletion": {"steps": 0}}, "steps=0 is no number of times"),
        ({"infidelity": {"reading": "tea"}}, "reading='tea' is none of 'contributions', 'gradients'"),
        ({"infidelity": {"reading": "gradients", "noise": 0}}, "noise=0 is no share"),
        ({"infidelity": {"reading": "gradients", "noise": float("nan")}}, "noise=nan is no share"),
        ({"infidelity": {"perturbations": np.zeros((2, 7))}}, r"has shape \(2, 7\), where \(draws, 3, 5\) is needed"),
        ({"max_sensitivity": {"radius": -1}}, "radius=-1 is no share"),
        ({"max_sensitivity": {"radius": float("inf")}}, "radius=inf is no share"),
        ({"max_sensitivity": {"perturbations": ROWS}}, r"has shape \(3, 5\), where \(draws, 3, 5\) is needed"),
        ("Weight", "Several libraries have a metric 'Weight': name one of rulers:Weight, scales:Weight"),
    ],
)
def test_what_cannot_be_asked(omission_plugin, checks, message):
    with use_plugins(omission_plugin, Extra), pytest.raises(cfi.ArgumentError, match=message):
        cfi.check(omitted(), linear, checks=checks)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"explain": {"method": "omit"}}, "explain= takes a dict with any of method_key, .*; it was given 'method'"),
        ({"explain": 3}, "it was no dict"),
        ({"seed": -1}, "seed=-1 is no integer between"),
        ({"seed": "a"}, "seed='a' is no integer between"),
        ({"attribution": np.zeros(3)}, "What is checked is an Attribution, .* not a ndarray"),
    ],
)
def test_what_cannot_be_given(omission, given, message):
    given = {"attribution": omitted(), "model": linear, **given}
    with pytest.raises(cfi.ArgumentError, match=message):
        cfi.check(**given)


def test_more_steps_than_places_are_as_many_as_places(omission):
    found = cfi.check(omitted(), linear, checks={"deletion": {"steps": 10**12}}, seed=1)["deletion"]
    assert found.places == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def test_what_was_summed_is_made_again_and_summed(explained):
    """A linear model's gradients depend on nothing but its parameters."""
    model, made = explained
    asked = ["parameter_randomisation", "max_sensitivity"]
    whole, summed = (cfi.check(one, model, checks=asked, seed=0) for one in (made, made.sum("channel")))
    assert not whole.left_out and summed["max_sensitivity"].score == pytest.approx(0)


def test_a_unit_of_a_layer_is_no_output_to_be_checked_by(explained):
    model, made = explained
    unit = cfi.attribute(model, "press_neuron", inputs=made.inputs[0], layer="relu", neuron=(1, 2, 3))
    with pytest.raises(cfi.MethodError, match=r"press_neuron explains no output of the model.*pass target="):
        cfi.check(unit, model, checks="deletion")
    assert cfi.check(unit, model, checks="max_sensitivity", seed=0)["max_sensitivity"].score == pytest.approx(0)


def test_metrics_of_plugins_run_by_name(omission_plugin):
    with use_plugins(omission_plugin, Extra):
        found = cfi.check(omitted(), linear, checks=["Tally", ("scales:Weight", {"bonus": 2})], seed=9)
        assert found["Tally"].scores.tolist() == [5, 5, 5] and found["Weight"].score == 7
        assert found["Tally"].settings == {"seed": 9}
        with pytest.raises(cfi.MethodError, match="Absent needs no-such-distribution"):
            cfi.check(omitted(), linear, checks="Absent")
        with pytest.raises(
            cfi.MethodError, match="Broken cannot run: it failed: ZeroDivisionError: nothing to divide by"
        ):
            cfi.check(omitted(), linear, checks="Broken")


def test_an_explanation_that_cannot_be_made_again_is_refused(omission):
    made = cfi.attribute(linear, "omit", inputs=ROWS, target=0, baselines=np.ones_like(ROWS))
    with pytest.raises(cfi.ArgumentError, match=r"differ by a relative .* pass explain=.*baselines"):
        cfi.check(made, linear, checks="max_sensitivity")
    given = {"baselines": np.ones_like(ROWS)}
    again = cfi.check(made, linear, checks="max_sensitivity", explain=given, seed=0)
    assert again["max_sensitivity"].score < 0.2
    exact = cfi.check(made, linear, checks="infidelity", explain=given)["infidelity"]
    assert exact.scores.max() < 1e-20 and exact.settings["baseline"] == "given"


def test_arguments_of_which_the_text_alone_is_known_are_asked_for(omission):
    told = {**omitted().provenance, "exec_args": {"behind": "<object at 0x1>"}}
    with pytest.raises(cfi.ArgumentError, match="'behind' must be known, of which the provenance holds the text alone"):
        cfi.check(replace(omitted(), provenance=told), linear, checks="max_sensitivity")


def test_what_was_read_from_a_file_is_checked_too(explained, tmp_path):
    model, made = explained
    made.save(tmp_path / "made.npz")
    read = check_all(cfi.load(tmp_path / "made.npz"), model)
    for name, one in check_all(made, model).found.items():
        np.testing.assert_array_equal(one.scores, read[name].scores)


def test_values_without_inputs_need_them(explained):
    model, made = explained
    found = cfi.check(replace(made, inputs=()), model, inputs=made.inputs[0], seed=0)
    assert "what was explained is not known: pass inputs=" in found.left_out["deletion"]


@pytest.mark.parametrize(
    ("model", "message"), [(None, "model"), (Painting, "class Painting, and no instance"), ("nothing", "no path")]
)
def test_what_is_no_model_is_refused_at_once(explained, model, message):
    with pytest.raises(cfi.CFIError, match=message):
        cfi.check(explained[1], model)


def test_a_model_of_another_framework_is_refused(explained):
    with pytest.raises(cfi.ArgumentError, match="is of a model of paint, and this one is of numpy"):
        cfi.check(explained[1], linear)


def test_a_model_that_predicts_something_else_is_refused(explained, images):
    model, made = explained
    other = Painting(model.mix, 2 * model.head)
    for given in ({"model": other}, {"model": model, "inputs": images}):
        with pytest.raises(cfi.ArgumentError, match="deletion cannot run: the model predicts something else"):
            cfi.check(made, **given, checks="deletion")
    assert "the model is another one" in cfi.check(made, other).left_out["insertion"]


def test_inputs_that_were_made_are_not_checked(explained):
    _, made = explained
    drawn = replace(made, provenance={**made.provenance, "kind": "feature visualization"})
    with pytest.raises(cfi.ArgumentError, match="makes inputs and explains none"):
        cfi.check(drawn, linear)


# how it is shown


@pytest.fixture
def checked(explained):
    model, made = explained
    return check_all(made, model)


def test_it_prints_a_narrow_table(checked):
    lines = str(checked).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(
        line.split()[:3] == ["max_sensitivity", f"{checked['max_sensitivity'].score:.3g}", "lower"] for line in lines
    )
    assert lines[-1] == "completeness did not run: press_gradient promises no sum."
    assert repr(checked["deletion"]).startswith("<Check deletion: ")


def test_it_shows_a_table_in_notebooks(checked):
    page = checked._repr_html_()
    assert "press_gradient" in page and "random order" in page and "promises no sum" in page
    hostile = replace(checked, left_out={"<script>": "<b>"}, found={})
    assert "<script>" not in hostile._repr_html_()


def test_it_is_drawn_by_a_plotter_of_checks(checked, tmp_path):
    assert isinstance(checked.plot(), Sketch) and isinstance(checked.plot("lines", colour="blue"), Sketch)
    with pytest.raises(cfi.PlotError, match="no option 'color'; its options are colour"):
        checked.plot(color="blue")
    with pytest.raises(cfi.PlotError, match="No plotter 'stars' draws checks; there are lines"):
        checked.plot("stars")
    assert checked.save(tmp_path / "found.png").read_bytes() == b"a picture"
    with pytest.raises(cfi.PlotError, match="No plotter"):
        checked.attribution.plot()  # a plotter of checks draws no attributions


def test_what_has_no_curves_is_not_drawn(omission):
    found = cfi.check(omitted(), linear, checks="infidelity", seed=0)
    with pytest.raises(cfi.PlotError, match="No check that ran has a curve"):
        found.plot()
    with pytest.raises(cfi.PlotError, match="pip install cfi-matplotlib"):
        cfi.check(omitted(), linear, checks="deletion", seed=0).plot()


def test_it_is_saved(checked, tmp_path):
    told = json.loads(checked.save(tmp_path / "found.json").read_text())
    assert told["checks"]["deletion"]["scores"] == checked["deletion"].scores.tolist()
    assert told["attribution"]["method_key"] == "press_gradient" and told["seed"] == 0
    assert "press_gradient" in checked.save(tmp_path / "found.html").read_text()
    with pytest.raises(cfi.PlotError, match=r"not to '\.csv'"):
        checked.save(tmp_path / "found.csv")
    with pytest.raises(cfi.PlotError, match="takes no options, and 'colour' was given"):
        checked.save(tmp_path / "found.json", colour="blue")


def test_samples_without_a_number_are_left_out_of_the_mean():
    one = Check(
        name="some",
        scores=np.array([1.0, np.nan, 3.0]),
        better="lower",
        means="",
        curves=(Curve("a", np.ones((3, 2))),),
    )
    assert one.score == 2 and one.chance is None and repr(one) == "<Check some: 2 (lower is better)>"
