"""What values add up to is measured on the user's own model: complete ones are told, others are warned of."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.registry import Registry
from cfi_core.specs import Completeness, Head, Kind, MethodSpec, Need, Role, ToolsetSpec, Total
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Print

HERE = "planted_for_completeness"  # pytest's importlib mode may not have put this module where it can be imported from
BASELINES = np.random.default_rng(3).normal(size=(2, 3, 5, 7)).astype(np.float32)
PROMISES: dict[str, Any] = {
    "sum": Completeness(
        total=Total.DIFFERENCE, only_with={"contributions": True}, groups="mask", suspect="the press is worn."
    ),
    "mean_sum": Completeness(total=Total.MEAN_DIFFERENCE),
    "stepped": Completeness(total=Total.DIFFERENCE, within=0.05, steps="steps", suspect="the model jumps."),
    "relevance": Completeness(total=Total.RELEVANCE),
    "drawn": Completeness(total=Total.DIFFERENCE, unmeasured="it is drawn"),
    "free": None,
}


class Plugin:
    """A toolset whose methods all do what the test plants."""

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="stamps", framework="print")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        fields: dict[str, Any] = {
            "toolset": "stamps",
            "implementation": f"{HERE}:stamp",
            "exec_args": ("contributions", "mask", "steps", "score"),
            "roles": {"mask": Role.LIKE_INPUTS, "score": Role.OWN_TARGET},
            "head": Head.LOGIT,
        }
        methods = [
            MethodSpec(
                key=key,
                kind=Kind.ATTRIBUTION,
                needs=frozenset({Need.FORWARD}),
                optional=("target", "baselines"),
                completeness=promise,
                **fields,
            )
            for key, promise in PROMISES.items()
        ]
        of_layer: dict[str, Any] = {"kind": Kind.LAYER, "needs": frozenset({Need.LAYER}), **fields}
        of_neuron = of_layer | {"kind": Kind.NEURON}
        promise = Completeness(total=Total.DIFFERENCE)
        methods += [
            MethodSpec(
                key="layer_sum",
                required=("inputs", "layer"),
                optional=("target", "baselines"),
                completeness=promise,
                **of_layer,
            ),
            MethodSpec(
                key="neuron_sum",
                required=("inputs", "layer", "neuron"),
                optional=("baselines",),
                completeness=promise,
                **of_neuron,
            ),
        ]
        return methods


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that the plugin names its function in."""
    module: Any = ModuleType(HERE)
    monkeypatch.setitem(sys.modules, HERE, module)
    return module


@pytest.fixture(autouse=True)
def registry(here: Any) -> Iterator[Registry]:
    cfi.forget_translations()
    with use_plugins(fake, Plugin()) as current:
        yield current


def explained(request: MethodRequest, images: np.ndarray) -> np.ndarray:
    """What the run explains, of each image."""
    outputs = request.model(images)
    if request.target.function is not None:
        return request.target.function(outputs)
    return np.array([row[index] for row, index in zip(outputs, request.target.indices(len(images)), strict=True)])


def spread(sums: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Values that add up to these sums, and cancel otherwise."""
    values = np.zeros(like.shape)
    values[:, 0, 0, 0], values[:, 1, 0, 0], values[:, 1, 1, 0] = sums, 0.25, -0.25
    return values


def complete(request: MethodRequest) -> MethodResult:
    images = request.inputs[0]
    baseline = 0.0 if request.baselines is None else request.baselines[0]
    at_baselines = explained(request, np.broadcast_to(baseline, images.shape))
    return MethodResult((spread(explained(request, images) - at_baselines, images),), Axes.INPUT)


def off_by(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[MethodRequest], MethodResult]:
    """Complete values, with their samples changed."""

    def stamp(request: MethodRequest) -> MethodResult:
        (values,) = complete(request).values
        return MethodResult((change(values),), Axes.INPUT, applied={"steps": request.exec_args.get("steps", 8)})

    return stamp


def explain(model: Any, images: np.ndarray, key: str = "sum", **arguments: Any) -> cfi.Attribution:
    found = cfi.attribute(model, key, "stamps", inputs=images, **{"target": 1, **arguments})
    assert isinstance(found, cfi.Attribution)
    return found


def gap(found: cfi.Attribution) -> float:
    return found.provenance["completeness"]["gap"]


def why(found: cfi.Attribution) -> str:
    assert gap(found) is None
    return found.provenance["completeness"]["why"]


# complete values


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("baselines", [None, 0, 0.5, BASELINES[:1], BASELINES], ids=["none", "0", "0.5", "one", "each"])
@pytest.mark.parametrize("target", [2, [0, 3], lambda outputs: outputs[:, 0] - outputs[:, 1] ** 2])
def test_complete_values_are_told_as_such(here, painting, images, softmax, baselines, target):
    """At the logit, which the probabilities do not tell, and over a translation, in the user's axes."""
    here.stamp = complete
    painting.softmax = softmax
    found = explain(painting, images, baselines=baselines, target=target)
    assert gap(found) < 1e-6 and found.route == ("paint2print",)
    assert found.provenance["completeness"]["against"] == "f(inputs) - f(baselines)"


def test_both_ends_of_the_difference_are_told(here, painting, images):
    """What is explained at the inputs and at the baselines, as the model itself gives it."""
    here.stamp = complete
    ends = explain(painting, images, baselines=BASELINES, target=2).provenance["completeness"]
    np.testing.assert_allclose(ends["at_inputs"], painting(images)[:, 2], rtol=1e-12)
    np.testing.assert_allclose(ends["at_baselines"], painting(BASELINES)[:, 2], rtol=1e-12)


@pytest.mark.parametrize("head", ["logit", "output"])
def test_a_softmax_is_where_it_was_explained(here, painting, images, head):
    here.stamp = complete
    painting.softmax = True
    assert gap(explain(painting, images, head=head)) < 1e-6


@pytest.mark.parametrize("counted", [3, 1])
def test_a_distribution_of_baselines_counts_with_its_mean(here, painting, images, counted):
    """Of 3 baselines and 2 samples all pairs count, none of them less."""
    baselines = np.random.default_rng(4).normal(size=(3, 3, 5, 7)).astype(np.float32)

    def stamp(request: MethodRequest) -> MethodResult:
        images, (others,) = request.inputs[0], request.baselines
        at_baselines = [explained(request, np.stack([other] * len(images))) for other in others[:counted]]
        return MethodResult((spread(explained(request, images) - np.mean(at_baselines, 0), images),), Axes.INPUT)

    here.stamp = stamp
    if counted == 3:
        assert gap(explain(painting, images, "mean_sum", baselines=baselines, target=[0, 3])) < 1e-6
        return
    with pytest.warns(cfi.CompletenessWarning, match=r"mean of f\(baselines\)"):
        explain(painting, images, "mean_sum", baselines=baselines, target=[0, 3])


@pytest.mark.parametrize("given", [None, 0.5, BASELINES[:1], BASELINES])
def test_each_baseline_runs_once_and_the_inputs_not_again(here, painting, images, given, monkeypatch):
    rows: list[int] = []
    run = fake.NetworkAdapter.outputs

    def outputs(self: Any, model: Any, inputs: Any) -> Any:
        rows.append(len(inputs[0]))
        return run(self, model, inputs)

    native, turned = Print(painting.mix, painting.head), images.transpose(0, 2, 3, 1)
    given = given.transpose(0, 2, 3, 1) if isinstance(given, np.ndarray) else given
    monkeypatch.setattr(fake.NetworkAdapter, "outputs", outputs)
    here.stamp = lambda request: MethodResult((np.zeros_like(turned) + 1.0,), Axes.INPUT)
    explain(native, turned, "free", baselines=given)
    rows.clear()  # what is found of a model at its first call is kept for its content
    explain(native, turned, "free", baselines=given)
    without = list(rows)
    rows.clear()
    here.stamp = complete
    explain(native, turned, "sum", baselines=given)
    assert rows == [*without, len(given) if isinstance(given, np.ndarray) else 1]


def test_a_group_of_elements_counts_once(here, painting, images):
    """As toolsets give each element of a group the value of the whole group."""
    mask = np.arange(5)[None, None, :, None] * np.ones((1, 3, 1, 7), int)  # 5 groups of 21 elements

    def stamp(request: MethodRequest) -> MethodResult:
        sums = explained(request, request.inputs[0]) - explained(request, 0 * request.inputs[0])
        return MethodResult((np.ones(request.inputs[0].shape) * sums[:, None, None, None] / 5,), Axes.INPUT)

    here.stamp = stamp
    assert gap(explain(painting, images, exec_args={"mask": mask})) < 1e-6
    with pytest.warns(cfi.CompletenessWarning):
        explain(painting, images)


def test_relevance_is_less_what_the_rules_absorb(here, painting, images):
    share = np.array([0.25, -0.5])

    def stamp(request: MethodRequest) -> MethodResult:
        kept = explained(request, request.inputs[0]) * (1 - share)
        return MethodResult((spread(kept, request.inputs[0]),), Axes.INPUT, absorbed=(share,))

    here.stamp = stamp
    found = explain(painting, images, "relevance")
    assert gap(found) < 1e-6 and "absorb" in found.provenance["completeness"]["against"]
    here.stamp = complete
    assert why(explain(painting, images, "relevance")) == "what the rules absorb by design is not known"


@pytest.mark.parametrize("neuron", [(1,), (slice(0, 2),), lambda activation: activation[:, 0] * activation[:, 1]])
def test_of_a_neuron_its_activation_counts(here, painting, images, neuron):
    def stamp(request: MethodRequest) -> MethodResult:
        layers = [request.model.layers(image)["pool"] for image in (request.inputs[0], request.baselines[0])]
        at = [
            one(layer) if callable(one := request.neuron) else layer[:, one[0]].reshape(2, -1).sum(1)
            for layer in layers
        ]
        return MethodResult((spread(at[0] - at[1], request.inputs[0]),), Axes.INPUT)

    here.stamp = stamp
    arguments = {"baselines": BASELINES, "layer": "pool", "neuron": neuron, "target": None}
    assert gap(explain(painting, images, "neuron_sum", **arguments)) < 1e-6
    here.stamp = lambda request: MethodResult((stamp(request).values[0] * 1.1,), Axes.INPUT)
    with pytest.warns(cfi.CompletenessWarning):
        explain(painting, images, "neuron_sum", **arguments)


# values that are not


def test_samples_in_another_order_are_found(here, painting, images):
    here.stamp = off_by(lambda values: values[::-1])
    with pytest.warns(cfi.CompletenessWarning, match="They would fit if the samples stood in another order"):
        explain(painting, images, target=[0, 3])


def test_the_sample_that_is_off_is_told(here, painting, images):
    here.stamp = off_by(lambda values: values * np.array([1, 0.9])[:, None, None, None])
    with pytest.warns(cfi.CompletenessWarning, match=r"of sample 1 .* \(a gap of 10\.0%, .*The press is worn\."):
        found = explain(painting, images)
    assert gap(found) == pytest.approx(0.1)


def test_too_few_steps_are_told_with_how_many_might_do(here, painting, images):
    """A gap of 10 % with 8 steps, which may be 5 %: four times as many for half of that."""
    here.stamp = off_by(lambda values: values * 0.9)
    with pytest.warns(
        cfi.CompletenessWarning, match=r"The 8 steps are too few: pass exec_args=\{'steps': 32\}.*the model jumps"
    ):
        explain(painting, images, "stepped")
    here.stamp = off_by(lambda values: values * 0.96)
    assert gap(explain(painting, images, "stepped")) == pytest.approx(0.04)


def test_a_difference_that_cancels_is_no_alarm(here, painting, images):
    """Between an input and itself there is nothing; the values are as large as their rounding."""
    here.stamp = lambda request: MethodResult((spread(np.array([1e-5, -1e-5]), request.inputs[0]),), Axes.INPUT)
    assert gap(explain(painting, images, baselines=images)) < 1e-3


def test_values_of_half_precision_may_be_rounded(here, painting, images):
    def stamp(request: MethodRequest) -> MethodResult:
        return MethodResult(((complete(request).values[0] * 0.99).astype(kind),), Axes.INPUT)

    here.stamp, kind = stamp, np.float16
    assert gap(explain(painting, images)) == pytest.approx(0.01, abs=2e-3)
    kind = np.float32
    with pytest.warns(cfi.CompletenessWarning):
        explain(painting, images)


# what is not measured


@pytest.mark.parametrize(
    ("key", "arguments", "reason"),
    [
        ("free", {}, "free promises no sum"),
        ("drawn", {}, "it is drawn"),
        ("sum", {"exec_args": {"contributions": False}}, "nothing is promised with contributions=False"),
        ("sum", {"target": None, "exec_args": {"score": sum}}, "the target is named in the toolset's own words"),
    ],
)
def test_what_is_not_promised_is_not_measured(here, painting, images, key, arguments, reason):
    here.stamp = lambda request: MethodResult((np.ones(request.inputs[0].shape),), Axes.INPUT)
    assert why(explain(painting, images, key, **arguments)) == reason


def test_reduced_values_are_not_summed(here, painting, images):
    here.stamp = lambda request: MethodResult((np.ones(request.inputs[0].shape[:3]),), Axes.INPUT_MAP)
    assert why(explain(painting, images)) == "the values are reduced (input map)"


def test_a_model_that_fails_at_the_baselines_costs_no_result(here, painting, images):
    class Fragile(Print):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            if not images.any():
                raise RuntimeError("nothing to see")
            return super().__call__(images)

    class Infinite(Print):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return super().__call__(images) / (1 if images.any() else np.zeros(1))

    here.stamp = lambda request: MethodResult((np.ones(request.inputs[0].shape),), Axes.INPUT)
    turned = images.transpose(0, 2, 3, 1)
    found = explain(Fragile(painting.mix, painting.head), turned)
    assert why(found) == "your model could not be run for it (RuntimeError: nothing to see)" and found.values.all()
    with np.errstate(all="ignore"):
        assert "NaN or infinite" in why(explain(Infinite(painting.mix, painting.head), turned))


# of layers


def test_a_layer_that_all_paths_pass_adds_up(here, painting, images):
    def stamp(request: MethodRequest) -> MethodResult:
        sums = explained(request, request.inputs[0]) - explained(request, 0 * request.inputs[0])
        return MethodResult((spread(sums * factor, request.model.layers(request.inputs[0])["relu"]),), Axes.LAYER)

    here.stamp, factor = stamp, 1.0
    assert gap(explain(painting, images, "layer_sum", layer="relu")) < 1e-6
    factor = 0.5
    with pytest.warns(cfi.CompletenessWarning):
        explain(painting, images, "layer_sum", layer="relu")


def test_the_spec_may_name_its_own_arguments_only():
    with pytest.raises(ValueError, match="completeness speaks of 'n_steps', which init_args and exec_args do not hold"):
        MethodSpec(
            key="a",
            toolset="b",
            kind=Kind.ATTRIBUTION,
            needs=frozenset(),
            implementation="c:d",
            completeness=Completeness(total=Total.DIFFERENCE, steps="n_steps"),
        )
