"""Held inputs of a toolset that hands nothing to the model besides what it explains."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.framework import Passes
from cfi_core.holding import _join_notes
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
