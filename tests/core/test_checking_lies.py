"""Inputs, baselines and targets that are not what they seem: typed errors that say what to do, or a defined meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.arrays import ArrayAdapter
from cfi_core.checking.inputs import check_baselines, check_straight, read_inputs, run_original
from cfi_core.checking.targets import find_target
from cfi_core.records import Inputs, Original

TABLE = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
SCORES = np.zeros((2, 3), np.float32)
MASKED = np.ma.array(TABLE, mask=TABLE > 0)


def original(function=lambda x: x, adapter: ArrayAdapter | None = None) -> Original:
    adapter = adapter or ArrayAdapter()
    return Original("numpy", adapter, adapter.load(function))


def inputs(*arrays: np.ndarray) -> Inputs:
    return Inputs(arrays, arrays)


class Sparse:
    def toarray(self) -> np.ndarray:
        return TABLE


class Ragged:
    def to_tensor(self) -> np.ndarray:
        return TABLE


class Stubborn:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error or RuntimeError("not by me")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise self.error


class Shapeless:
    """Has something else of that name, as classes and modules have."""

    shape = property()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (MASKED, r"inputs is a masked array, and its mask would be lost.*x\.filled\(0\)"),
        ((TABLE, MASKED), r"inputs\[1\] is a masked array"),
        ((TABLE, None), r"inputs\[1\] is None"),
        ([TABLE, None], r"inputs\[1\] is None"),
        ((), "inputs is empty"),
        ([], "inputs is empty"),
        (Sparse(), "inputs is a Sparse, which is no dense array.*toarray"),
        (Ragged(), "inputs is a Ragged, which is no dense array.*to_tensor"),
        (Stubborn(), r"inputs is no array \(RuntimeError: not by me\)"),
        (Stubborn(SystemExit(3)), r"inputs is no array \(SystemExit: 3\)"),
        (np.zeros((2, 0), np.float32), r"inputs has shape \(2, 0\): an axis of no size"),
        (np.zeros((2, 3, 0, 4), np.float32), "an axis of no size"),
        (np.zeros((0, 3), np.float32), r"non-zero number of samples.*got \(0, 3\)"),
        (TABLE.astype(complex), "holds complex128"),
        (TABLE.astype(object), "holds object"),
        (np.array([["a"]]), "holds <U1"),
        (b"abc", "holds |S3"),
        ("abc", "holds <U3"),
        (np.float32(3), r"holds float32 of shape \(\)"),
        (np.array([["2020-01-01"]], "M8[D]"), "holds datetime64"),
    ],
)
def test_inputs_that_are_no_arrays_of_numbers(registry, value, message):
    with pytest.raises(cfi.InputError, match=message):
        read_inputs(registry, original(), value)


def test_a_masked_array_that_leaves_nothing_out_is_an_array(registry):
    given = np.ma.array(TABLE)
    np.testing.assert_array_equal(read_inputs(registry, original(), given).arrays[0], TABLE)
    check_baselines(registry, inputs(TABLE), given)


class Half(ArrayAdapter):
    """Computes in half precision, and in short integers."""

    def tensor(self, value: Any, model: Any) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.asarray(value).astype(np.float16 if np.asarray(value).dtype.kind == "f" else np.int32)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([[1.0, 1e5]]), "holds 100000.0, which is beyond the float16 that the model computes in"),
        (np.array([[1, 2**40]]), f"holds {2**40}, which is beyond the int32"),
    ],
)
def test_what_would_be_another_number_in_the_models_type(registry, value, message):
    with pytest.raises(cfi.InputError, match=message):
        read_inputs(registry, original(adapter=Half()), value)
    read_inputs(registry, original(adapter=Half()), np.array([[1.0, 1e4, np.inf, 1e-30]]))


IMAGE = np.full((2, 3), 10, np.uint8)
TOKENS = np.full((2, 3), 10)


@pytest.mark.parametrize(
    ("like", "value", "message"),
    [
        (IMAGE, -20, "baselines hold -20, which an input of uint8 cannot.*whole numbers from 0 to 255"),
        (IMAGE, 300, "hold 300"),
        (IMAGE, 0.5, "hold 0.5"),
        (IMAGE, np.float32(0.5), "hold 0.5"),
        (IMAGE, np.array(-1), "hold -1"),
        (IMAGE, np.nan, "hold nan"),
        (IMAGE, np.inf, "hold inf"),
        (IMAGE, True, "hold True or False, the inputs uint8"),
        (IMAGE, (-20,), "hold -20"),
        (IMAGE, np.full((1, 3), -20), "hold int64, the inputs uint8"),
        (IMAGE.astype(np.int8), 200, "hold 200.*from -128 to 127"),
        (IMAGE.astype(np.int16), np.full((1, 3), 2**20), "hold 1048576.*from -32768 to 32767"),
        (TOKENS, 0.5, "hold 0.5"),
        (TOKENS, 2**70, "hold 1180591620717411303424"),
        (IMAGE > 5, 2, "hold 2.*True and False"),
        (TABLE, True, "hold True or False, the inputs float32"),
        (TABLE, 1e300, r"hold 1e\+300, which an input of float32 cannot"),
        (TABLE.astype(np.float16), 1e5, "hold 100000.0.*float16"),
        (TABLE, np.full((1, 3), 1e300), r"hold 1e\+300"),
        (TABLE, MASKED, "masked array"),
        (TABLE, 1j, "complex"),
        (TABLE, "zero", "<U4"),
        (TABLE, (0, 0), "2 parts for 1 inputs"),
        (TABLE, TABLE[:0], r"baselines has shape \(0, 3\): an axis of no size"),
        (TABLE, np.ndarray, "baselines is a function"),
        (TABLE, np, "baselines holds object"),
        (TABLE, Shapeless(), "baselines holds object"),
        (TABLE, Stubborn(), "baselines is no array"),
    ],
)
def test_baselines_that_an_input_of_its_type_cannot_hold(registry, like, value, message):
    with pytest.raises(cfi.InputError, match=message):
        check_baselines(registry, inputs(like), value)


@pytest.mark.parametrize(
    ("like", "value"),
    [
        (IMAGE, 0),
        (IMAGE, 255),
        (IMAGE, 20.0),
        (IMAGE, np.full((1, 3), 20, np.uint8)),
        (TOKENS, -1),
        (IMAGE > 5, False),
        (TABLE, 0),
        (TABLE, -1.5),
        (TABLE, (None,)),
        (TABLE, np.nan),  # a missing value, to some models
        (TABLE, -np.inf),
        (TABLE, [[0.0, 0.0, 0.0]]),
    ],
)
def test_baselines_that_fit(registry, like, value):
    check_baselines(registry, inputs(like), value)


@pytest.mark.parametrize(
    ("like", "value", "message"),
    [
        (TABLE, np.nan, "baselines holds NaN or infinite values, and ig goes in a straight line"),
        (TABLE, np.full((1, 3), -np.inf), "baselines holds"),
        (TABLE, (np.array(np.inf),), "baselines holds"),
        (np.where(TABLE > 0, TABLE, -np.inf), None, "inputs holds.*hold that input"),
    ],
)
def test_there_is_no_straight_line_to_infinity(registry, like, value, message):
    with pytest.raises(cfi.InputError, match=message):
        check_straight(registry, inputs(like), value, "ig")
    check_straight(registry, inputs(TABLE, TOKENS), (0.0, None), "ig")


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_infinite_inputs_are_passed_on_where_the_outputs_are_finite(registry):
    given = np.where(TABLE > 0, TABLE, -np.inf)
    read = read_inputs(registry, original(), given)
    assert np.isfinite(run_original(original(np.exp), read)).all()
    with pytest.raises(cfi.InputError, match=r"NaN or infinite outputs.*inputs holds some itself"):
        run_original(original(), read)
    with pytest.raises(cfi.InputError, match=r"NaN or infinite outputs.*Check the inputs and weights"):
        run_original(original(lambda x: x / 0), inputs(TABLE + 10))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (True, "target True is no index"),
        ([True] * 2, "True is no index"),
        ([0, True], "True is no index"),
        ((np.True_,), "is no index"),
        (np.array([True, False]), "holds no indices"),
        (np.ma.array([0, 1], mask=[1, 0]), "masked array"),
        ([None, None], "None is no index"),
        (10**30, f"{10**30} is out of range"),
        (np.nan, "holds no indices"),
        (Stubborn(), r"is no index \(RuntimeError: not by me\)"),
        (Stubborn(SystemExit(3)), r"is no index \(SystemExit: 3\)"),
    ],
)
def test_targets_that_are_no_indices(registry, target, message):
    with pytest.raises(cfi.TargetError, match=message):
        find_target(registry, target, SCORES)


LONG = "x" * 5000


@pytest.mark.parametrize("path", [LONG + ".npz", f"{LONG}/x.npz", "\0.npz", f"{'y' * 400}.npz"])
def test_paths_that_cannot_be_written_to(painting, images, path):
    with pytest.raises(cfi.PlotError, match="no path to write to") as refused:
        cfi.attribute(painting, "press_gradient", inputs=images, target=0, plot=path)
    assert len(str(refused.value)) < 1500


def test_long_names_are_shown_in_short(painting, images):
    with pytest.raises(cfi.UnknownFrameworkError, match="which is no path of a model's file") as refused:
        cfi.attribute(LONG, "press_gradient", inputs=images, target=0)
    assert len(str(refused.value)) < 1500
    with pytest.raises(cfi.LayerError, match="has no layer") as refused:
        cfi.attribute(painting, "press_layer", inputs=images, layer=LONG)
    assert len(str(refused.value)) < 1500


def test_in_a_call(painting, images):
    with pytest.raises(cfi.InputError, match="masked array"):
        cfi.attribute(painting, "press_gradient", inputs=np.ma.array(images, mask=images > 0), target=0)
