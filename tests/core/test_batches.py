"""Samples and rows are divided as the user, or memory, says: the values, and what is drawn at random, stay."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import batches
from cfi_core.adapters import adapter_for
from cfi_core.contract import Axes, MethodRequest, MethodResult, Sampling
from cfi_core.framework import rows_at_once, seed_of_sample
from cfi_core.hookspec import hookimpl
from cfi_core.registry import registry
from cfi_core.specs import Kind, MethodSpec, Need, Role, Samples, ToolsetSpec
from cfi_core.testing import use_plugins

HERE = "planted_for_batches"
SAMPLES, FEATURES, CLASSES = 5, 4, 3
X = np.random.default_rng(0).normal(size=(SAMPLES, FEATURES))
BASE = np.random.default_rng(1).normal(size=(SAMPLES, FEATURES))
WEIGHTS = np.arange(1.0, 13.0).reshape(FEATURES, CLASSES)
TARGET = [2, 0, 1, 1, 2]
SIZES: list[Any] = [1, 2, 3, "auto"]
asked: list[MethodRequest] = []


class Model:
    """Linear; notes how many rows it gets, and has memory for some."""

    def __init__(self, most: int | None = None) -> None:
        self.most, self.rows = most, list[int]()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.rows.append(len(x))
        if self.most is not None and len(x) > self.most:
            raise MemoryError(f"no room for {len(x)} rows")
        return x @ WEIGHTS


def ablate(request: MethodRequest) -> MethodResult:
    """Sets each feature to its baseline, as many rows at a time as may go through the model."""
    asked.append(request)
    (x,), target, key = request.inputs, request.target, request.method.key
    assert target is not None
    (base,) = request.baselines or (0.0,)
    noise = np.random.default_rng(request.seed).normal(size=x.shape) if key == "splash" else 0.0
    base, given = np.broadcast_to(base, x.shape), x + noise
    rows = np.repeat(given, FEATURES, 0)
    for row in range(len(rows)):
        rows[row, row % FEATURES] = base[row // FEATURES, row % FEATURES]
    most = rows_at_once([x.shape], len(x), limit=request.rows)
    scores = np.concatenate([request.model(rows[at : at + most]) for at in range(0, len(rows), most)])
    whole = np.concatenate([request.model(given[at : at + most]) for at in range(0, len(x), most)])
    columns = np.array([index for (index,) in target.indices(len(x))])
    fallen = whole[range(len(x)), columns, None] - scores.reshape(len(x), FEATURES, -1)[range(len(x)), :, columns]
    scale = request.exec_args.get("scale", 1.0)
    scale = np.broadcast_to(scale, x.shape)  # it may lack axes in front
    # All but the first have the samples on their first axis; the last is the same whatever they are.
    extras = {
        "maps": np.stack([x, 2 * x]),
        "first": x.copy(),
        "constant": np.arange(3.0),
        "delta": np.repeat(x[:, 0], 2),
    }
    sampling = Sampling((np.abs(noise),), 7, "scale") if key == "splash" else None
    axes = {"maps": 1, "delta": 0}
    return MethodResult((fallen * scale,), Axes.INPUT, extras, {"rows": "told"}, sampling=sampling, sample_axes=axes)


@hookimpl
def cfi_toolsets() -> list[ToolsetSpec]:
    return [ToolsetSpec(name="scissors", framework="numpy", patches=())]


@hookimpl
def cfi_methods() -> list[MethodSpec]:
    def method(key: str, samples: Samples | None, **more: Any) -> MethodSpec:
        fields: dict[str, Any] = {} if samples is None else {"samples": samples}
        return MethodSpec(
            key=key,
            toolset="scissors",
            kind=Kind.ATTRIBUTION,
            needs=frozenset({Need.FORWARD}),
            implementation=f"{HERE}:ablate",
            optional=("target", "baselines"),
            exec_args=("scale", "noisy"),
            roles={"scale": Role.LIKE_INPUTS},
            **fields,
            **more,
        )

    return [
        method("snip", Samples.APART, alone_with=("noisy",)),
        method("splash", Samples.ALONE),
        method("unsaid", None),
        method("mix", Samples.TOGETHER),
        method("pair", Samples.APART, rows_together=2),
    ]


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    asked.clear()
    batches.forget_sizes()
    with use_plugins(sys.modules[__name__]):
        yield


def explain(key: str = "snip", batch_size: Any = None, model: Any = None, **more: Any) -> cfi.Attribution:
    given: dict[str, Any] = {"inputs": X, "target": TARGET, "baselines": BASE, "seed": 3, **more}
    return cfi.attribute(Model() if model is None else model, key, "scissors", batch_size=batch_size, **given)


EXACT = (X - BASE) * WEIGHTS.T[TARGET]


@pytest.mark.parametrize("batch_size", [None, *SIZES, 99])
def test_values_targets_and_baselines_are_those_of_each_sample(batch_size: Any) -> None:
    np.testing.assert_allclose(explain(batch_size=batch_size).values, EXACT, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_no_pass_has_more_rows(batch_size: int) -> None:
    model = Model()
    found = explain(batch_size=batch_size, model=model)
    # The examination whether samples influence each other takes four, of which it is no use to have fewer.
    assert max(model.rows) <= max(batch_size, 4)
    assert [len(one.inputs[0]) for one in asked] == [
        min(batch_size, SAMPLES - at) for at in range(0, SAMPLES, batch_size)
    ]
    assert {one.rows for one in asked} == {batch_size}
    assert found.provenance["batch_size"] == {
        "asked": batch_size,
        "rows": batch_size,
        "samples": batch_size,
        "how": "as asked",
    }
    assert explain().provenance["batch_size"] is None


@pytest.mark.parametrize("batch_size", SIZES)
def test_what_is_drawn_belongs_to_the_seed_and_the_place(batch_size: Any) -> None:
    noise = [np.random.default_rng(seed_of_sample(3, place)).normal(size=(1, FEATURES)) for place in range(SAMPLES)]
    found = explain("splash", batch_size)
    np.testing.assert_allclose(found.values, (X + np.concatenate(noise) - BASE) * WEIGHTS.T[TARGET], rtol=1e-12)
    np.testing.assert_array_equal(found.extras["standard_error"], np.abs(np.concatenate(noise)))
    assert found.provenance["sampling"]["draws"] == 7


def test_draws_of_later_samples_do_not_depend_on_how_many_stand_in_front() -> None:
    whole = explain("splash", 2)
    rest = explain("splash", 3, inputs=X[2:], target=TARGET[2:], baselines=BASE[2:], seed=seed_of_sample(3, 2))
    np.testing.assert_allclose(rest.values, whole.values[2:], rtol=1e-12)
    assert seed_of_sample(3, 0) == 3 and seed_of_sample(seed_of_sample(3, 7), 9) == seed_of_sample(3, 16)
    assert len({seed_of_sample(seed, place) for seed in range(50) for place in range(2000)}) == 100_000


def test_a_method_that_says_nothing_is_run_on_one_sample_at_a_time() -> None:
    explain("unsaid", 3)
    assert [len(one.inputs[0]) for one in asked] == [1] * SAMPLES
    assert [one.seed for one in asked] == [seed_of_sample(3, place) for place in range(SAMPLES)]


def test_own_arguments_may_make_a_method_draw() -> None:
    explain("snip", 3, exec_args={"noisy": 2})
    assert [len(one.inputs[0]) for one in asked] == [1] * SAMPLES
    asked.clear()
    explain("snip", 3, exec_args={"noisy": lambda rows: rows})  # a function may draw, or be told of all samples
    assert [len(one.inputs[0]) for one in asked] == [1] * SAMPLES


def test_rows_that_go_together_in_any_case_count() -> None:
    explain("pair", 4)
    assert [len(one.inputs[0]) for one in asked] == [2, 2, 1]


def test_extras_come_home_whole() -> None:
    extras = explain(batch_size=2).extras
    np.testing.assert_array_equal(extras["maps"], np.stack([X, 2 * X]))
    np.testing.assert_array_equal(extras["first"], X)
    np.testing.assert_array_equal(extras["constant"], np.arange(3.0))
    np.testing.assert_array_equal(extras["delta"], np.repeat(X[:, 0], 2))


def test_an_array_without_a_sample_axis_is_not_divided() -> None:
    """As long as there are samples: it is broadcast along the last axis, as numpy has it."""
    square = {"inputs": X[:FEATURES], "target": TARGET[:FEATURES], "baselines": BASE[:FEATURES]}
    scale = np.array([1.0, 2.0, 3.0, 4.0])
    whole = explain(exec_args={"scale": scale}, **square)
    np.testing.assert_allclose(whole.values, EXACT[:FEATURES] * scale, rtol=1e-12)
    divided = explain(batch_size=1, exec_args={"scale": scale}, **square)
    np.testing.assert_allclose(divided.values, whole.values, rtol=1e-12)
    each = np.arange(1.0, 21.0).reshape(SAMPLES, FEATURES)
    np.testing.assert_allclose(explain(batch_size=2, exec_args={"scale": each}).values, EXACT * each, rtol=1e-12)


# what cannot be divided


def test_samples_that_are_made_of_each_other_stay_together() -> None:
    with pytest.raises(cfi.InputError, match="values of a sample from the other samples"):
        explain("mix", 2)
    found = explain("mix", SAMPLES)
    assert len(asked) == 1 and found.provenance["batch_size"]["samples"] == SAMPLES
    found = explain("mix", "auto")
    assert len(asked) == 2 and found.provenance["batch_size"]["samples"] == SAMPLES


def test_a_model_whose_samples_influence_each_other_is_not_divided() -> None:
    def centred(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(0)) @ WEIGHTS

    for batch_size in (2, 99):  # what is beside a row counts, too, where it stands for a step
        with pytest.warns(cfi.ModelWarning), pytest.raises(cfi.InputError, match="samples influence each other"):
            explain(batch_size=batch_size, model=centred)
    with pytest.warns(cfi.ModelWarning):
        whole, alike = explain(model=centred), explain(batch_size="auto", model=centred)
    np.testing.assert_array_equal(alike.values, whole.values)


def test_a_target_function_that_tells_samples_by_their_places_is_refused() -> None:
    with pytest.raises(cfi.TargetError, match="not given all samples at once"):
        explain(batch_size=2, target=lambda outputs: outputs[:, 0] - outputs[:, 0].mean())


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "all", True, "2", np.array([1, 2])])
def test_what_is_no_size_is_refused(wrong: Any) -> None:
    with pytest.raises(cfi.ArgumentError, match="batch_size="):
        explain(batch_size=wrong)


# memory


@pytest.mark.parametrize("batch_size", [4, "auto"])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_half_as_many_rows_are_tried_where_memory_does_not_suffice(most: int, batch_size: Any) -> None:
    model = Model(most)
    found = explain(batch_size=batch_size, model=model)
    np.testing.assert_allclose(found.values, EXACT, rtol=1e-12)
    notes = found.provenance["batch_size"]
    assert notes["rows"] <= most and notes["halved"] >= 1


def test_what_was_explained_is_kept_when_memory_runs_out_later() -> None:
    """The third portion fails once; those before are not run again."""
    model = Model()
    failing = [True]

    def forgetful(x: np.ndarray) -> np.ndarray:
        if len(asked) == 3 and failing and len(x) > 1:
            failing.clear()
            raise MemoryError("another process took it")
        return model(x)

    found = explain(batch_size=2, model=forgetful, target=1, inputs=np.vstack([X, X])[:6], baselines=0)
    np.testing.assert_allclose(found.values, np.vstack([X, X])[:6] * WEIGHTS[:, 1], rtol=1e-12)
    assert [len(one.inputs[0]) for one in asked] == [2, 2, 2, 1, 1]


def test_a_single_row_that_does_not_fit_is_told() -> None:
    def full(x: np.ndarray) -> np.ndarray:
        if asked:
            raise MemoryError("no room")
        return x @ WEIGHTS

    with pytest.raises(cfi.OutOfMemoryError, match=r"one sample, one row at a time.*no room"):
        explain(batch_size="auto", model=full)


def test_without_a_size_the_error_says_how_to_divide() -> None:
    with pytest.raises(cfi.OutOfMemoryError, match="batch_size='auto'"):
        explain(model=Model(2))  # the very first pass, of all samples

    def later(x: np.ndarray) -> np.ndarray:
        if asked and len(x) > 2:
            raise MemoryError("no room")
        return x @ WEIGHTS

    with pytest.raises(cfi.OutOfMemoryError, match="batch_size='auto'"):
        explain(model=later)


MEBI = 2**20


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A system whose memory is told: of each row, and what is free; sizes alone would have 80 rows."""
    system = {"row": 10 * MEBI, "free": 10_000 * MEBI}

    class Peak:
        growth: int | None = None

        def __enter__(self) -> Peak:
            self.before = len(asked)
            return self

        def __exit__(self, *error: object) -> None:
            self.growth = system["row"] * max(len(one.inputs[0]) for one in asked[self.before :])

    monkeypatch.setattr(batches.system, "Peak", Peak)
    monkeypatch.setattr(batches.system, "taken", lambda: 1)
    monkeypatch.setattr(batches.system, "available", lambda: system["free"])
    monkeypatch.setattr("cfi_core.framework.portions.MOST_ELEMENTS", 80 * FEATURES)
    adapter = adapter_for(registry(), "numpy")
    content = lambda self, model: str(self.outputs(model, [np.eye(FEATURES)]))  # noqa: E731 - a function has none that is seen
    monkeypatch.setattr(type(adapter), "fingerprint", content)
    return system


def linear(x: np.ndarray) -> np.ndarray:
    return x @ WEIGHTS


MANY = np.random.default_rng(2).normal(size=(200, FEATURES))


def sizes(**more: Any) -> list[int]:
    asked.clear()
    explain(batch_size="auto", inputs=MANY, target=1, baselines=0, **{"model": linear, **more})
    return [len(one.inputs[0]) for one in asked]


def test_portions_grow_to_what_sizes_say_and_that_is_kept(told: dict[str, int]) -> None:
    assert sizes() == [10, 20, 40, 80, 50]
    assert sizes() == [80, 80, 40]
    assert sizes(model=lambda x: x @ (2 * WEIGHTS))[0] == 10  # another model
    batches.forget_sizes()
    assert sizes()[0] == 10


def test_portions_grow_no_further_than_half_of_the_memory_allows(told: dict[str, int]) -> None:
    told["free"] = 500 * MEBI  # half of it, and of what ten rows took, is that of 30 rows
    assert sizes() == [10, 20, *[35] * 4, 30]
    told["free"] = 50 * MEBI
    batches.forget_sizes()
    assert sizes()[:2] == [10, 7]


def test_where_the_system_tells_nothing_sizes_decide(told: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches.system, "taken", lambda: None)
    assert sizes() == [80, 80, 40]


def test_on_a_device_it_begins_with_more(told: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(adapter_for(registry(), "numpy")), "is_accelerated", lambda self, model: True)
    assert sizes() == [200]


def test_the_peak_is_seen_and_nothing_of_the_process_changes() -> None:
    if batches.system.taken() is None:
        pytest.skip("this system does not tell how much memory a process has taken (no /proc/self/statm)")

    @contextmanager
    def watch() -> Iterator[Any]:
        with batches.system.Peak() as peak:
            yield peak

    with watch() as peak:
        block = np.ones(64 * MEBI // 8)
        block += 1
        sleep(0.05)
        del block
    assert peak.growth is not None and peak.growth > 32 * MEBI
    available = batches.system.available()
    assert available is not None and available > 0


def test_an_explainer_divides_each_batch() -> None:
    """Linear models of numpy are functions, whose content is not seen: each batch is checked in full."""
    explainer = cfi.Explainer(linear, "splash", "scissors", target=1, baselines=0, seed=3, batch_size=2)
    whole = explain("splash", 3, model=linear, target=1, baselines=0)
    for _ in range(2):
        np.testing.assert_allclose(explainer(X).values, whole.values, rtol=1e-12)
    rest = explainer(X[2:], seed=seed_of_sample(3, 2))
    np.testing.assert_allclose(rest.values, whole.values[2:], rtol=1e-12)
    assert rest.provenance["batch_size"]["asked"] == 2


def test_every_call_takes_it() -> None:
    from inspect import signature

    for call in (cfi.attribute, cfi.visualize_features, cfi.plan, cfi.Explainer.__init__):
        assert "batch_size" in signature(call).parameters
    planned = cfi.plan(Model(), "snip", "scissors", inputs=X, target=1, batch_size=2)
    assert planned.arguments.batch_size == 2
