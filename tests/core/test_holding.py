"""Held inputs of a toolset that hands nothing to the model besides what it explains."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.framework import Passes
from cfi_core.holding import _join_notes, _shape_of, has_own_background, join
from cfi_core.hookspec import hookimpl
from cfi_core.registry import registry
from cfi_core.specs import Completeness, Kind, MethodSpec, Need, Role, ToolsetSpec, Total
from cfi_core.testing import fake, use_plugins

HERE = "planted_for_holding"
X = np.random.default_rng(0).normal(size=(3, 4))
MASK = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]])
WEIGHTS = np.arange(1.0, 13.0).reshape(4, 3)
seen: list[MethodRequest] = []


def function(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Linear in x, with other weights for each sample."""
    return (x * mask) @ WEIGHTS


def ablate(request: MethodRequest) -> MethodResult:
    """Sets each feature to its baseline, in one pass of as many rows as there are features."""
    seen.append(request)
    (x,), target, values = request.inputs, request.target, np.zeros(request.inputs[0].shape)
    assert target is not None
    (base,) = request.baselines or (0.0,)
    base = np.broadcast_to(base, x.shape)
    for row, (index,) in enumerate(target.indices(len(x))):
        rows = np.repeat(x[row : row + 1], 5, axis=0)
        rows[range(1, 5), range(4)] = base[row]
        scores = request.model(rows)[:, index]
        values[row] = (scores[0] - scores[1:]) * request.exec_args.get("scale", np.ones((len(x), 1)))[row]
    drawn = float(np.random.default_rng(request.seed).uniform())
    return MethodResult((values,), Axes.INPUT, {"rows": x.copy(), "drawn": drawn}, {"scores": len(x)})


@hookimpl
def cfi_toolsets() -> list[ToolsetSpec]:
    return [ToolsetSpec(name="scissors", framework="numpy")]


@hookimpl
def cfi_methods() -> list[MethodSpec]:
    def method(key: str, **more: Any) -> MethodSpec:
        return MethodSpec(
            key=key,
            toolset="scissors",
            kind=Kind.ATTRIBUTION,
            needs=frozenset({Need.FORWARD}),
            implementation=f"{HERE}:ablate",
            optional=("target", "baselines"),
            exec_args=("scale", "more"),
            completeness=Completeness(total=Total.DIFFERENCE),
            **more,
        )

    return [
        method("ablate", roles={"scale": Role.LIKE_INPUTS}),
        method("ablate_holding", roles={"more": Role.HELD}),
    ]


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType(HERE)
    vars(module).update({name: globals()[name] for name in ("ablate", "cfi_toolsets", "cfi_methods")})
    monkeypatch.setitem(sys.modules, HERE, module)
    seen.clear()
    with use_plugins(fake, module):
        yield


def explain(mask: np.ndarray = MASK, **arguments: Any) -> cfi.Attribution:
    found = cfi.attribute(function, "ablate", "scissors", inputs={"x": X, "mask": mask}, **arguments)
    assert isinstance(found, cfi.Attribution)
    return found


def test_each_sample_runs_with_what_it_holds() -> None:
    base = np.random.default_rng(1).normal(size=X.shape)
    scale = np.array([[1.0], [10.0], [100.0]])
    with pytest.warns(cfi.CompletenessWarning):  # the scale makes something else of the sum
        found = explain(target=[2, 0, 1], baselines=base, exec_args={"scale": scale})
    np.testing.assert_allclose(found.values["x"], (X - base) * MASK * WEIGHTS.T[[2, 0, 1]] * scale)
    assert [request.place for request in seen] == [(0, 3), (1, 3), (2, 3)]
    assert len({request.seed for request in seen}) == 1  # as a user would seed each
    np.testing.assert_array_equal(found.extras["rows"], X)
    assert isinstance(found.extras["drawn"], float) and found.provenance["applied"] == {"scores": 1}
    assert found.provenance["held"] == "mask: constants of the model, one run for each sample, each begun with the seed"


def test_the_sum_is_measured_with_what_each_sample_holds() -> None:
    found = explain(target=[2, 0, 1], baselines=0.5)
    assert found.provenance["completeness"]["gap"] < 1e-12


def test_one_run_where_all_hold_the_same() -> None:
    found = explain(np.repeat(MASK[:1], 3, 0), target=1)
    np.testing.assert_allclose(found.values["x"], X * MASK[0] * WEIGHTS[:, 1])
    assert [request.place for request in seen] == [None]
    assert found.provenance["held"] == "mask: constants of the model, one run, as all samples hold the same"


def test_functions_see_one_sample_at_a_time() -> None:
    with pytest.raises(cfi.TargetError, match="another value for one than beside the others"):
        explain(target=lambda scores: scores[:, 0] - scores.mean(0)[0])
    with pytest.raises(cfi.TargetError, match="fails on one"):
        explain(target=lambda scores: scores[[0, 1, 2], 0])


def test_models_that_cannot_hold_say_so() -> None:
    with pytest.raises(
        cfi.InputError, match=r"cannot hold inputs here, and the method has no argument .* forward pass"
    ):
        fake.NetworkAdapter().bind(object(), (X,))


def test_what_is_held_stands_among_the_inputs_of_a_pass() -> None:
    passes = Passes(0)
    passes.held = (MASK[:1], np.array(7))
    one = passes.open(4)
    one.inputs, one.outputs = [X[:1].repeat(4, 0)[one.rows]], {0: X[:1].repeat(4, 0)[one.rows]}
    (kept,) = passes.records()
    assert [array.shape for array in kept.inputs] == [(4, 4), (4, 4), ()]
    np.testing.assert_array_equal(kept.inputs[1], MASK[:1].repeat(4, 0))


def test_notes_of_all_samples() -> None:
    parts = [{"a": np.ones(1), "b": 1, "c": {"d": np.zeros((1, 2))}, "picture": np.zeros((2, 3, 3))} for _ in range(2)]
    parts[1]["b"] = 2
    joined = _join_notes([*parts])
    assert joined["a"].shape == (2,) and joined["b"] == (1, 2)
    assert joined["c"]["d"].shape == (2, 2) and joined["picture"].shape == (2, 6, 3)


def test_functions_of_arrays_hold_rows() -> None:
    adapter = adapter_for(registry(), "numpy")
    bound = adapter.bind(adapter.load(function), (MASK[1:2],))
    np.testing.assert_allclose(bound(X), (X * MASK[1]) @ WEIGHTS)


def test_a_constant_of_no_rows_is_held_beside_rows() -> None:
    """What is no row of a sample stays whole in the run of each."""

    def both(x: np.ndarray, mask: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return (x * mask) @ weights

    given = {"x": X, "mask": MASK, "weights": WEIGHTS.astype(int)}
    found = cfi.attribute(both, "ablate", "scissors", inputs=given, target=1)
    np.testing.assert_allclose(found.values["x"], X * MASK * WEIGHTS[:, 1])
    assert [request.place for request in seen] == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.filterwarnings("ignore:The model's samples influence each other")
@pytest.mark.parametrize(
    "mixing",
    [
        lambda x, mask: x @ mask.T.astype(float),  # another shape with a row alone
        lambda x, mask: (x * mask.sum(0)) @ WEIGHTS,  # another value
        lambda x, mask: (x * mask[[0, 1, 2]]) @ WEIGHTS,  # an error
    ],
)
def test_as_many_rows_as_samples_that_are_none_of_them_are_refused(mixing: Any) -> None:
    with pytest.raises(cfi.InputError, match=r"mask cannot be held: the last sample has another output.*one sample\."):
        cfi.attribute(mixing, "ablate", "scissors", inputs={"x": X, "mask": MASK}, target=1)
    assert not seen


def test_a_function_that_cannot_be_tried_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapter_for(registry(), "numpy")
    monkeypatch.setattr(type(adapter), "ended_by", lambda *_: None)
    with pytest.raises(cfi.TargetError, match=r"cannot be tried with a model of numpy.*pass one index for each sample"):
        explain(target=lambda scores: scores[:, 0])


def linear(x: np.ndarray) -> np.ndarray:
    return x @ WEIGHTS


def test_a_function_that_tells_samples_by_their_places_is_told(omission_plugin: type) -> None:
    def numbered(scores: np.ndarray) -> np.ndarray:
        return scores[:, 0] * np.arange(1, len(scores) + 1)

    with use_plugins(omission_plugin):
        with pytest.warns(cfi.ModelWarning, match="The target function tells samples by their places"):
            found = cfi.attribute(linear, "omit", "omission", inputs=X, target=numbered)
        np.testing.assert_allclose(found.values, X * WEIGHTS[:, 0] * [[1], [2], [3]])


@pytest.mark.parametrize("function", [lambda scores: scores[[0, 1, 2], 0], lambda scores: scores[:, 0]])
def test_a_function_that_fails_on_one_sample_is_left_to_the_method(omission_plugin: type, function: Any) -> None:
    with use_plugins(omission_plugin):
        found = cfi.attribute(linear, "omit", "omission", inputs=X, target=function)
    np.testing.assert_allclose(found.values, X * WEIGHTS[:, 0])


def test_arguments_in_a_tuple_are_split_too() -> None:
    scale = np.array([[1.0], [10.0], [100.0]])
    with pytest.warns(cfi.CompletenessWarning):
        found = explain(target=1, exec_args={"scale": (scale,)})
    np.testing.assert_allclose(found.values["x"], X * MASK * WEIGHTS[:, 1] * scale)


def a_part() -> Any:
    plan = SimpleNamespace(method=SimpleNamespace(key="cut", toolset="scissors"))
    return SimpleNamespace(plan=plan, inputs=SimpleNamespace(samples=1))


def test_results_that_do_not_fit_together_are_refused() -> None:
    one = MethodResult((np.ones((1, 4)),), Axes.INPUT)
    joined = join([a_part()] * 2, [one, one], np.asarray)
    np.testing.assert_array_equal(joined.values[0], np.ones((2, 4)))
    assert joined.absorbed is None and join([a_part()], [one], np.asarray) is one
    with pytest.raises(cfi.MethodError, match="cut of scissors explains another place in one sample"):
        join([a_part()] * 2, [one, MethodResult(one.values, Axes.LAYER)], np.asarray)
    with pytest.raises(cfi.MethodError, match="cut of scissors gives values of other shapes for other samples"):
        join([a_part()] * 2, [one, MethodResult((np.ones((1, 5)),), Axes.INPUT)], np.asarray)


class Odd:
    """Like an array of some library: it does not say whether it equals another."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        raise TypeError("ambiguous")

    __hash__ = None

    def __repr__(self) -> str:
        return self.name


def test_notes_that_are_alike_are_told_once() -> None:
    table, other = np.arange(6.0).reshape(3, 2), np.zeros((3, 2))
    joined = _join_notes([{"same": table, "odd": Odd("a")}, {"same": table.copy()}])
    assert joined["same"] is table and repr(joined["odd"]) == "a"
    joined = _join_notes(
        [{"odd": Odd("a"), "two": Odd("a"), "more": table}, {"odd": Odd("a"), "two": Odd("b"), "more": other}]
    )
    assert repr(joined["odd"]) == "a" and repr(joined["two"]) == "(a, b)"
    assert joined["more"][0] is table and joined["more"][1] is other


def test_a_background_of_each_sample() -> None:
    """Tokens that are kept make the baselines of a distribution those of one sample."""

    def call(baselines: Any, required: tuple[str, ...] = ("baselines",), kept: Any = (MASK,)) -> Any:
        plan = SimpleNamespace(
            arguments=SimpleNamespace(baselines=baselines), method=SimpleNamespace(required=required)
        )
        return SimpleNamespace(plan=plan, inputs=SimpleNamespace(samples=3), kept=kept)

    assert has_own_background(call(MASK)) and has_own_background(call((1.0, MASK)))
    assert not has_own_background(call(MASK[:2])) and not has_own_background(call(0.0))
    assert not has_own_background(call(MASK, required=())) and not has_own_background(call(MASK, kept=(None,)))


def test_shapes_of_some_samples_of_a_layer() -> None:
    assert _shape_of((6, 4), 3, 1) == (2, 4) and _shape_of((3, 7, 2), 3, 2) == (2, 7, 2)
    assert _shape_of((7, 4), 3, 1) is None and _shape_of((), 3, 1) is None
