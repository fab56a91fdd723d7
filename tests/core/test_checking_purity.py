"""Whether a model is a function of each sample alone, found with one further pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.arrays import ArrayAdapter
from cfi_core.checking.inputs import read_inputs, run_original
from cfi_core.checking.purity import Examination
from cfi_core.framework import State
from cfi_core.records import Original, Purity
from cfi_core.testing.fake import Print

TABLE = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
MATRIX = np.random.default_rng(4).normal(size=(3, 2)).astype(np.float32)


_NUMBERS = count()


class Counting:
    """A function of arrays that notes the arrays it got."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.passes, self.number = function, [], next(_NUMBERS)

    def __call__(self, *arrays: np.ndarray) -> Any:
        self.passes.append(arrays)
        return self.function(*arrays)


def examine(registry, function, *tables: np.ndarray, adapter: ArrayAdapter | None = None, held: tuple = ()) -> Purity:
    adapter = adapter or ArrayAdapter()
    original = Original("numpy", adapter, adapter.load(function))
    inputs = read_inputs(registry, original, tables if len(tables) > 1 else tables[0], held)
    with Examination(original, inputs) as examination:
        return examination.judge(run_original(original, inputs, native=True, twin=examination.twin))


def linear(table: np.ndarray) -> np.ndarray:
    return table @ MATRIX


def noisy(table: np.ndarray) -> np.ndarray:
    return linear(table) + 0.01 * np.random.normal(size=(len(table), 2))


def noisy_for_all(table: np.ndarray) -> np.ndarray:
    """The same noise for all samples of a batch."""
    return linear(table) + 0.01 * np.random.normal(size=2)


def remembering() -> Callable[[np.ndarray], np.ndarray]:
    calls = []

    def function(table: np.ndarray) -> np.ndarray:
        calls.append(len(table))
        return linear(table) * len(calls)

    return function


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("make", [lambda: noisy, lambda: noisy_for_all, remembering], ids=["noise", "same", "state"])
def test_a_random_model_and_one_with_a_state_are_told(registry, make, samples):
    with pytest.warns(cfi.ModelWarning, match="is random or keeps a state.*seed="):
        found = examine(registry, make(), TABLE[:samples])
    assert found.found.startswith("random, or with a state")


def test_a_pass_that_draws_random_numbers_is_repeated(registry):
    """By chance a dropout may drop nothing that counts."""

    def rarely(table: np.ndarray) -> np.ndarray:
        return linear(table) * (1 + (np.random.random() >= 0 and len(model.passes) == 6))

    model = Counting(rarely)
    with pytest.warns(cfi.ModelWarning, match="random"):
        examine(registry, model, TABLE)
    harmless = Counting(lambda table: linear(table + 0 * np.random.random()))
    assert examine(registry, harmless, TABLE).found == "a function of each sample"
    assert len(harmless.passes) == 10


def softmax_over_samples(table: np.ndarray) -> np.ndarray:
    powers = np.exp(linear(table))
    return powers / powers.sum(0)


def first_of_all(table: np.ndarray) -> np.ndarray:
    return linear(table + table[:1])


MIXING = {
    "first": first_of_all,
    "last": lambda table: linear(table + table[-1:]),
    "next": lambda table: linear(table + np.concatenate([table[1:], 0 * table[:1]])),
    "sorted": lambda table: linear(table[np.argsort(-np.abs(table).sum(1))]),
    "in turn": lambda table: linear(np.roll(table, 1, 0)),
    "mean": lambda table: linear(table) - linear(table).mean(0),
    "largest": lambda table: linear(table / np.abs(table).max(0)),
    "softmax": softmax_over_samples,
    "attention": lambda table: linear((table @ table.T) @ table),
    "one after the other": lambda table: np.cumsum(linear(table), 0),
}


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("name", MIXING)
def test_samples_that_influence_each_other_are_told(registry, name, samples):
    with pytest.warns(cfi.ModelWarning, match=r"samples influence each other.*batch statistics.*x\[:1\]"):
        found = examine(registry, MIXING[name], TABLE[:samples])
    assert found.found.startswith("samples influence each other")


def half(table: np.ndarray) -> np.ndarray:
    """Rounded to half precision in another way for every number of samples."""
    return linear(table.astype(np.float16) * np.float16(1 + len(table) / 1024)).astype(np.float16)


def only(count: int) -> Callable[[np.ndarray], np.ndarray]:
    def function(table: np.ndarray) -> np.ndarray:
        if len(table) != count:
            raise ValueError(f"{count} samples, please")
        return linear(table)

    return function


def longest_first(table: np.ndarray) -> np.ndarray:
    sizes = np.abs(table).sum(1)
    if (np.diff(sizes) > 1e-6).any():
        raise ValueError("not sorted")
    return linear(table)


def without_a_row_for_each(table: np.ndarray) -> np.ndarray:
    return linear(table)[: len(TABLE)] if len(table) >= len(TABLE) else linear(table)[:1]


ONE = "the same twice; whether samples influence each other was not tried"
HONEST = {
    "linear": (linear, TABLE, "a function of each sample"),
    "one sample": (linear, TABLE[:1], "a function of each sample"),
    "half precision": (half, TABLE, "a function of each sample"),
    "a fixed number": (only(4), TABLE, "a function of each sample"),
    "exactly one": (only(1), TABLE[:1], ONE),
    "sorted": (longest_first, TABLE[np.argsort(-np.abs(TABLE).sum(1))], "a function of each sample"),
    "fewer rows": (without_a_row_for_each, TABLE, "a function of each sample"),
    "one number": (lambda table: linear(table).sum(), TABLE[:1], ONE),
    "tokens": (lambda tokens: MATRIX[tokens].sum(1), np.array([[0, 2, 1, 1]]), "a function of each sample"),
    "zeros": (linear, np.zeros((1, 3), np.float32), "a function of each sample"),
    "all alike": (lambda marks: marks * 1.0, np.zeros((2, 3), int), "as far as samples that are all alike tell"),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_is_not_warned_of(registry, name):
    function, table, found = HONEST[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found in examine(registry, function, table).found


def test_whole_numbers_stay_among_the_users(registry):
    """What is looked up by them must be there: on a GPU an index out of range ends the process."""
    tokens, coded = np.array([[5, 0], [3, 9], [7, 2]]), np.array([[2.0, 0.5], [0.0, 0.7], [1.0, 0.9]], np.float32)
    model = Counting(lambda tokens, coded: coded * tokens)
    examine(registry, model, tokens, coded)
    examine(registry, model, tokens[:1], coded[:1])
    for given, (integers, table) in zip((tokens, tokens[:1]), model.passes[1::2], strict=True):
        another = [7, 2] if len(given) > 1 else [3, 0]
        rows = [another, [5, 0], [7, 2], [5, 0]] if len(given) > 1 else [another, *[[5, 0]] * 2, *[another] * 2]
        assert integers.dtype == tokens.dtype and integers.tolist() == rows
        assert 0 < table[0, 0] < 2 and table[0, 1] not in (0.5, 0.7, 0.9)


def positive(table: np.ndarray) -> np.ndarray:
    if (table <= 0).any():
        raise ValueError("positive numbers, please")
    return linear(np.log(table))


def test_a_model_that_takes_no_value_beyond_the_users_is_examined_between_them(registry):
    model = Counting(positive)
    assert examine(registry, model, np.abs(TABLE)).found == "a function of each sample"
    assert (model.passes[-1][0] > 0).all()


def test_what_is_held_goes_along(registry):
    seen = []

    def function(table: np.ndarray, scale: np.ndarray, mode: str) -> np.ndarray:
        seen.append((scale.shape, mode))
        return linear(table) * (scale[:, None] if scale.ndim else scale)

    examine(registry, function, TABLE, held=(np.arange(1.0, 5.0), "plain"))
    assert seen == [((4,), "plain"), ((4,), "plain")]
    examine(registry, function, TABLE, held=(np.arange(1.0, 3.0)[:0].sum(keepdims=True), "plain"))
    assert seen[2:] == [((1,), "plain"), ((1,), "plain")]


class SinglePrecision(ArrayAdapter):
    """Rows that depend on their place in single precision alone."""

    def __init__(self, share: float) -> None:
        self.share = share

    def precision(self, model: Any) -> tuple[str, ...]:
        return ("float32",)

    def outputs(self, model: Any, tensors: Any) -> Any:
        return (super().outputs(model, tensors) * (1 + self.share * np.arange(len(tensors[0]))[:, None])).astype("f4")

    def in_double(self, model: Any) -> Any:
        return _InDouble(model)


class _InDouble:
    def __init__(self, model: Any) -> None:
        self.function = model.function


@pytest.mark.parametrize("share", [1e-5, 1e-3, 0.05, 0.5])
def test_double_precision_explains_rounding_and_no_more(registry, share, monkeypatch):
    whole = SinglePrecision.outputs

    def outputs(adapter: Any, model: Any, tensors: Any) -> Any:
        is_double = isinstance(model, _InDouble)
        return model.function(*(one.astype("f8") for one in tensors)) if is_double else whole(adapter, model, tensors)

    monkeypatch.setattr(SinglePrecision, "outputs", outputs)
    with pytest.warns(cfi.ModelWarning, match="influence each other") if share > 0.01 else nullcontext():
        examine(registry, linear, TABLE, adapter=SinglePrecision(share))


class RecordingAdapter(ArrayAdapter):
    """Passes that are made otherwise give so much more."""

    def __init__(self, share: float) -> None:
        self.share = share

    def other_outputs(self, model: Any, tensors: Any) -> Any:
        return self.outputs(model, tensors) * (1 + self.share)


@pytest.mark.parametrize("share", [1e-15, 1e-6, 0.01, 1.0])
def test_a_model_that_gives_something_else_where_gradients_are_recorded_is_told(registry, share):
    """In single precision 1e-15 is nothing, and 1e-6 might be rounding."""
    told = share > 1e-4
    with pytest.warns(cfi.ModelWarning, match="where gradients are recorded") if told else nullcontext():
        found = examine(registry, linear, TABLE, adapter=RecordingAdapter(share)).found
    assert found.startswith("another function" if told else "a function of each sample")


def test_a_pass_that_only_fails_where_it_is_made_otherwise_is_made_as_it_was(registry):
    class Failing(ArrayAdapter):
        def other_outputs(self, model: Any, tensors: Any) -> Any:
            raise RuntimeError("no gradients here")

    assert examine(registry, linear, TABLE, adapter=Failing()).found == "a function of each sample"
    with pytest.warns(cfi.ModelWarning, match="samples influence each other"):
        examine(registry, MIXING["mean"], TABLE, adapter=Failing())


def test_the_last_sample_is_compared_too_by_what_is_held_where_that_tells(registry):
    """The first one may be the only one that is not padded."""
    lengths = np.array([3.0, 2.0, 3.0, 3.0])

    class OfPadded(ArrayAdapter):
        def other_outputs(self, model: Any, tensors: Any) -> Any:
            return self.outputs(model, tensors) * np.where(tensors[1] < 3, 0.5, 1)[:, None]

    def function(table: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return linear(table)

    with pytest.warns(cfi.ModelWarning, match="where gradients are recorded"):
        examine(registry, function, TABLE, adapter=OfPadded(), held=(lengths,))


def test_outputs_in_memory_that_the_next_pass_overwrites_are_told(registry):
    room = np.empty((9, 2), np.float32)

    class Overwriting(ArrayAdapter):
        def outputs(self, model: Any, tensors: Any) -> Any:
            room[: len(tensors[0])] = model.function(*tensors) if hasattr(model, "function") else model(*tensors)
            return room[: len(tensors[0])]

    with pytest.warns(cfi.ModelWarning, match="memory that its next pass overwrites.*Return a copy"):
        examine(registry, linear, TABLE, adapter=Overwriting())


# for the model's content


class KnownAdapter(ArrayAdapter):
    """Functions whose content is their name, and which may write to a list."""

    def __init__(self, held: list[float] | None = None) -> None:
        self.held = held

    def fingerprint(self, model: Any) -> str:
        return f"{getattr(model.function, 'number', model.function)} {self.held}"

    def state(self, model: Any) -> State:
        return _State(self.held) if self.held is not None else State()


class _State(State):
    def __init__(self, held: list[float]) -> None:
        self._held, self._former = held, list(held)

    def changes(self, model: Any) -> tuple[str, ...]:
        return tuple(f"weight {i}" for i, one in enumerate(self._former) if self._held[i] != one)

    def restore(self) -> None:
        self._held[:] = self._former


def test_a_second_call_with_an_unchanged_model_does_not_pay(registry):
    adapter, model = KnownAdapter(), Counting(linear)
    for _ in range(3):
        assert examine(registry, model, TABLE, adapter=adapter).found == "a function of each sample"
    assert len(model.passes) == 4  # two in the first call
    examine(registry, model, TABLE[:, None], adapter=adapter)  # another shape is another model to some
    assert len(model.passes) == 6


def test_what_was_found_is_told_in_each_call(registry):
    adapter, model = KnownAdapter(), Counting(MIXING["mean"])
    for _ in range(2):
        with pytest.warns(cfi.ModelWarning, match="samples influence each other"):
            examine(registry, model, TABLE, adapter=adapter)
    assert len(model.passes) == 5  # the third is the second again, the fourth as the first


def test_a_model_whose_content_cannot_be_seen_is_examined_each_time(registry):
    model = Counting(linear)
    for _ in range(2):
        examine(registry, model, TABLE)
    assert len(model.passes) == 4


def test_what_a_pass_writes_is_told_and_undone(registry):
    held = [1.0, 2.0]

    def writing(table: np.ndarray) -> np.ndarray:
        held[1] += 1
        return linear(table)

    adapter = KnownAdapter(held)
    for _ in range(2):  # the second time by what is known
        with pytest.warns(cfi.ModelWarning, match="changes 'weight 1' of the model itself, which is undone"):
            assert examine(registry, writing, TABLE, adapter=adapter).writes
        assert held == [1.0, 2.0]


def test_a_number_that_is_none_is_not_written(registry, monkeypatch):
    monkeypatch.setattr(_State, "numbers", lambda state, model: {"missing": float("nan")}, raising=False)
    assert not examine(registry, linear, TABLE, adapter=KnownAdapter([1.0])).writes


def test_what_cannot_be_undone_is_told(registry, monkeypatch):
    held = [1.0]
    monkeypatch.setattr(_State, "is_whole", False)
    monkeypatch.setattr(_State, "restore", lambda state: None)

    def writing(table: np.ndarray) -> np.ndarray:
        held[0] += 1
        return linear(table)

    with pytest.warns(
        cfi.ModelWarning, match="changes 'weight 0' of the model itself, which stays so: the model is too"
    ):
        examine(registry, writing, TABLE, adapter=KnownAdapter(held))


def test_what_a_pass_writes_is_undone_after_an_error_too(registry):
    held = [1.0]

    def failing(table: np.ndarray) -> np.ndarray:
        held[0] += 1
        raise ValueError("no")

    with pytest.raises(cfi.InputError, match="no"):
        examine(registry, failing, TABLE, adapter=KnownAdapter(held))
    assert held == [1.0]


# in a call


class Mixing(Print):
    def apply(self, step: str, value: np.ndarray) -> Any:
        result, pullback = super().apply(step, value)
        return (result - result.mean(0) if step == "pool" else result), pullback


def test_a_call_says_what_was_found(painting, images):
    for model in (painting, Print(painting.mix, painting.head)):
        given = images if model is painting else images.transpose(0, 2, 3, 1)
        result = cfi.attribute(model, "press_gradient", inputs=given, target=1)
        assert result.provenance["function"] == "a function of each sample"
    with pytest.warns(cfi.ModelWarning, match="samples influence each other.*first seen at layer 'pool'") as told:
        result = cfi.attribute(Mixing(painting.mix, painting.head), "press_gradient", inputs=given, target=1)
    assert result.provenance["function"].startswith("samples influence each other")
    assert [one.filename for one in told] == [__file__]
