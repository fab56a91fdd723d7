"""Inputs and what has to be like them: brought into the model's framework, or refused with what would have worked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from cfi_core.arrays import ArrayAdapter, ArrayModel
from cfi_core.checking.inputs import (
    check_baselines,
    check_like_inputs,
    check_repeated,
    check_straight,
    check_window,
    example_inputs,
    read_inputs,
    run_original,
)
from cfi_core.errors import ArgumentError, InputError
from cfi_core.records import Inputs, Original

IMAGES = np.random.default_rng(0).normal(size=(2, 5, 7, 3))
TABLE = np.random.default_rng(1).normal(size=(2, 4))


class Declaring(ArrayAdapter):
    """Functions of which it is declared, input by input, whether they take integers."""

    def __init__(self, *integer: bool | None) -> None:
        self.integer = integer

    def declares_integer(self, model: Any, position: int) -> bool | None:
        return self.integer[position]


def original(
    function: Callable[..., Any] = lambda *inputs: inputs[0],
    shapes: Sequence[tuple[int | None, ...]] | None = None,
    adapter: ArrayAdapter | None = None,
) -> Original:
    model = ArrayModel(function, None if shapes is None else tuple(shapes))
    return Original("numpy", adapter or ArrayAdapter(), model)


def inputs(*arrays: np.ndarray) -> Inputs:
    return Inputs(arrays, arrays)


# reading


def test_one_array_is_one_input_and_a_tuple_or_list_of_arrays_several(registry):
    one = read_inputs(registry, original(), IMAGES)
    assert one.samples == 2 and one.given and len(one.arrays) == 1
    for given in ((IMAGES, TABLE), [IMAGES, TABLE]):
        two = read_inputs(registry, original(shapes=[(None, 5, 7, 3), (None, 4)]), given)
        np.testing.assert_array_equal(two.arrays[0], IMAGES)
        np.testing.assert_array_equal(two.tensors[1], TABLE)
    nested = read_inputs(registry, original(), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(nested.arrays[0], [[1, 2], [3, 4]])


def test_the_users_arrays_are_copied(registry):
    mine = IMAGES.copy()
    read = read_inputs(registry, original(), mine)
    mine[:] = 0
    np.testing.assert_array_equal(read.arrays[0], IMAGES)
    np.testing.assert_array_equal(read.tensors[0], IMAGES)


def test_what_is_held_stands_behind_the_inputs(registry):
    read = read_inputs(registry, original(), IMAGES, (TABLE, None, 3, np.ones(7)))
    assert len(read.tensors) == len(read.arrays) == 1 and read.samples == 2
    np.testing.assert_array_equal(read.held[0], TABLE)
    assert read.held[1:3] == (None, 3) and [array.shape for array in read.held_arrays] == [(2, 4), (7,)]
    assert len(read.passed) == 5

    def taking(x: np.ndarray, table: np.ndarray, nothing: None, factor: int, more: np.ndarray) -> np.ndarray:
        return x.sum((1, 2, 3)) * factor * more.sum() + table[:, 0]

    np.testing.assert_allclose(run_original(original(taking), read), IMAGES.sum((1, 2, 3)) * 21 + TABLE[:, 0])
    with pytest.raises(InputError, match="what the forward pass takes behind them"):
        run_original(original(lambda x: x), read)


def test_a_declared_input_may_be_held(registry):
    declaring = original(shapes=[(None, 5, 7, 3), (None, 4)])
    read_inputs(registry, declaring, IMAGES, (TABLE,))
    with pytest.raises(InputError, match="argument 0 behind the inputs has shape"):
        read_inputs(registry, declaring, IMAGES, (TABLE[0],))
    with pytest.raises(InputError, match="has 2 inputs, but 1 were given"):
        read_inputs(registry, declaring, IMAGES)


def test_a_number_for_a_sample_is_taken_natively(registry):
    one = read_inputs(registry, original(), TABLE[:1])
    assert run_original(original(np.sum), one, native=True).shape == (1,)
    with pytest.raises(InputError, match="sample axis first"):
        run_original(original(np.sum), one)
    with pytest.raises(InputError, match="belongs to none of them"):
        run_original(original(np.sum), read_inputs(registry, original(), TABLE), native=True)


@pytest.mark.parametrize("name", ["feature_mask", "baselines"])
def test_one_number_in_an_array_is_like_any_input(registry, name):
    check_like_inputs(registry, inputs(IMAGES, TABLE), (np.array(0), np.float64(1)), name)


def test_another_number_of_inputs_is_refused(registry):
    with pytest.raises(InputError, match=r"has 2 inputs, but 1 were given. Pass a tuple of 2 arrays"):
        read_inputs(registry, original(shapes=[(None, 4), (None, 4)]), TABLE)
    with pytest.raises(InputError, match=r"has 1 input, but 2 were given. Pass one array"):
        read_inputs(registry, original(shapes=[(None, 4)]), (TABLE, TABLE))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((2, 9)), r"inputs\[1\] has shape \(2, 9\), but the model takes \(any, 4\)\.$"),
        (np.ones(4), r"inputs\[1\] has shape \(4,\).* The sample axis is missing: pass x\[None\]\."),
    ],
)
def test_the_input_that_does_not_fit_is_named(registry, given, message):
    with pytest.raises(InputError, match=message):
        read_inputs(registry, original(shapes=[(None, None, 7, 3), (3, 4)]), (IMAGES, given))


def test_axes_in_another_order_are_told_from_another_shape(registry):
    with pytest.raises(InputError, match=r"takes \(any, 3, 5, 7\)\. The axes are in another order: transpose"):
        read_inputs(registry, original(shapes=[(None, 3, 5, 7)]), IMAGES)
    with pytest.raises(InputError, match=r"takes \(any, 3, any, 9\)\.$"):
        read_inputs(registry, original(shapes=[(None, 3, None, 9)]), IMAGES)


def test_the_type_that_the_model_declares_is_told_before_it_runs(registry):
    declaring = original(adapter=Declaring(True, False))
    tokens = np.array([[1, 2], [3, 4]])
    read = read_inputs(registry, declaring, (tokens, TABLE))
    assert read.arrays[0].dtype == tokens.dtype and read.arrays[1].dtype == TABLE.dtype
    with pytest.raises(InputError, match=r"inputs\[0\] is of type float64, but the model takes integers"):
        read_inputs(registry, declaring, (TABLE, TABLE))
    with pytest.raises(InputError, match=r"inputs\[1\] holds int64: the model takes floating point numbers.*/ 255"):
        read_inputs(registry, declaring, (tokens, tokens))


@pytest.mark.parametrize("given", [(IMAGES, TABLE[:1]), (IMAGES[:0], TABLE[:0])])
def test_inputs_need_one_number_of_samples(registry, given):
    with pytest.raises(InputError, match=r"same, non-zero number of samples .* got \(\d, 5, 7, 3\), \(\d, 4\)"):
        read_inputs(registry, original(), given)


# made up


def test_examples_have_the_shapes_and_types_that_are_declared():
    model = original(shapes=[(None, 3, 4), (8, 2)], adapter=Declaring(False, True))
    made = example_inputs(model, 5)
    assert not made.given and made.samples == 5
    assert [array.shape for array in made.arrays] == [(5, 3, 4), (5, 2)]
    assert made.arrays[0].dtype == np.float32 and made.arrays[0].std() > 0.5
    np.testing.assert_array_equal(made.arrays[1], np.zeros((5, 2), np.int64))
    np.testing.assert_array_equal(example_inputs(model, 5).arrays[0], made.arrays[0])


@pytest.mark.parametrize(
    ("shapes", "known"), [(None, "none"), ([(None, 3), (None, None)], r"\(None, 3\), \(None, None\)")]
)
def test_shapes_that_are_not_declared_are_asked_for(shapes, known):
    with pytest.raises(InputError, match=rf"does not declare the shape of its inputs \({known}\). Pass inputs="):
        example_inputs(original(shapes=shapes), 1)


# one forward pass


def test_outputs_keep_their_structure():
    outputs = run_original(original(lambda x: {"sum": x.sum(1), "twice": (2 * x,)}), inputs(TABLE))
    np.testing.assert_array_equal(outputs["sum"], TABLE.sum(1))
    np.testing.assert_array_equal(outputs["twice"][0], 2 * TABLE)


def channels_first(x: np.ndarray) -> np.ndarray:
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError("expected 3 channels on axis 1\nand more lines that nobody reads")
    return x.mean((2, 3))


def channels_last(x: np.ndarray) -> np.ndarray:
    if x.ndim != 4 or x.shape[3] != 3:
        raise ValueError("expected 3 channels on axis 3.")
    return x.mean((1, 2))


@pytest.mark.parametrize(
    ("function", "given", "repair"),
    [
        (channels_first, IMAGES, r"x\.transpose\(0, 3, 1, 2\) would fit"),
        (channels_last, IMAGES.transpose(0, 3, 1, 2), r"x\.transpose\(0, 2, 3, 1\) would fit"),
        (channels_last, IMAGES[0], r"x\[None\] would fit"),
        (channels_first, TABLE, r"Check shape and axis order"),
    ],
)
def test_what_would_have_worked_is_tried_and_told(function, given, repair):
    expected = (
        rf"The model fails on inputs of shape \(.*\) float64: ValueError: expected 3 channels on axis \d\. {repair}"
    )
    with pytest.raises(InputError, match=expected):
        run_original(original(function), inputs(given))


def test_several_samples_in_a_list_are_taken_for_several_inputs_and_told():
    with pytest.raises(InputError, match=r"takes 1 positional argument.*for the samples of one input, stack them"):
        run_original(original(lambda x: x), inputs(TABLE, TABLE))


def test_integers_are_named_as_the_likely_cause():
    def mean(x: np.ndarray) -> np.ndarray:
        if x.dtype.kind != "f":
            raise RuntimeError("mean is not implemented for Byte")
        return x.mean(1)

    with pytest.raises(
        InputError, match=r"\(2, 4\) uint8: RuntimeError: mean is not .* Convert and scale it as in training"
    ):
        run_original(original(mean), inputs(TABLE.astype(np.uint8)))


def test_an_error_of_the_projects_own_stays_what_it_is():
    with pytest.raises(InputError, match=r"^The function gives nothing"):
        run_original(original(lambda x: None), inputs(TABLE))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.argmax(1), "gives int64 values, which cannot be explained. Explain its scores"),
        (lambda x: (x, x > 0), "gives bool values"),
        (lambda x: x.sum(), r"an output of shape \(\) for 2 samples"),
        (lambda x: x.sum(0), r"an output of shape \(4,\) for 2 samples.*x\[None\]"),
        (lambda x: x / 0.0 * 0.0, "NaN or infinite outputs"),
    ],
)
def test_outputs_that_cannot_be_explained_are_refused(function, message):
    with np.errstate(all="ignore"), pytest.raises(InputError, match=message):
        run_original(original(function), inputs(TABLE))


# baselines and masks


@pytest.mark.parametrize(
    "value",
    [
        (IMAGES, TABLE),
        (IMAGES[:1], TABLE[:1]),  # one for all samples
        (np.zeros((1, 1, 1, 1)), 0.5),  # one value for all
        (0, None),
        [np.zeros((9, 5, 7, 3)), np.zeros((9, 4))],  # a distribution of them
    ],
)
def test_what_is_like_the_inputs_passes(registry, value):
    check_like_inputs(registry, inputs(IMAGES, TABLE), value, "baselines")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (IMAGES, "baselines has 1 parts for 2 inputs. Pass one for each"),
        ((0, 0, 0), "baselines has 3 parts for 2 inputs"),
        ((IMAGES[0], TABLE), r"has shape \(5, 7, 3\), but needs the axes of the inputs \(2, 5, 7, 3\), with a first"),
        ((IMAGES, TABLE[:, :3]), r"has shape \(2, 3\), which does not fit inputs of shape \(2, 4\)"),
        ((IMAGES.transpose(0, 3, 1, 2), TABLE), r"has shape \(2, 3, 5, 7\), which does not fit"),
        ((IMAGES, TABLE.astype(int)), "baselines hold int64, the inputs float64: convert and scale them alike"),
        ((IMAGES, "zeros"), "baselines holds <U5"),
        (
            lambda x: 0 * x,
            r"baselines is a function, which may give other.* Call it, and pass .*: baselines=function\(inputs\)",
        ),
    ],
)
def test_what_is_unlike_the_inputs_is_refused(registry, value, message):
    with pytest.raises(InputError, match=message):
        check_like_inputs(registry, inputs(IMAGES, TABLE), value, "baselines")


def test_a_mask_holds_integers_for_inputs_of_any_type(registry):
    mask = np.arange(4)[None]
    check_like_inputs(registry, inputs(TABLE), mask, "feature_mask")
    with pytest.raises(InputError, match="baselines hold int64"):
        check_like_inputs(registry, inputs(TABLE), mask, "baselines")


# windows


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ((3, 3, 1), "sliding_window_shapes"),
        ([5, 7, 3], "sliding_window_shapes"),
        (((2, 2, 3),), "sliding_window_shapes"),
        ((np.int64(2), 2, 3), "sliding_window_shapes"),
        ((2, 2, 1), "strides"),
        (3, "strides"),
        (8, "window"),
        (8, "stride"),
    ],
)
def test_windows_that_fit_the_samples_pass(value, name):
    check_window(inputs(IMAGES), value, name)


def test_a_sample_of_one_axis_takes_a_number():
    check_window(inputs(TABLE), 2, "sliding_window_shapes")


def test_one_window_for_each_input():
    check_window(inputs(IMAGES, TABLE), ((2, 2, 3), (4,)), "sliding_window_shapes")
    with pytest.raises(ArgumentError, match=r"does not fit samples of shape \(4,\).* for example \(4,\)"):
        check_window(inputs(IMAGES, TABLE), ((2, 2, 3), (5,)), "sliding_window_shapes")


@pytest.mark.parametrize("value", [(2, 4), ((2, 2, 1), 4), (2, (4,))])
def test_a_stride_for_each_input_may_be_one_number(value):
    check_window(inputs(IMAGES, TABLE), value, "strides")
    with pytest.raises(ArgumentError, match=r"does not fit samples of shape \(4,\)"):
        check_window(inputs(IMAGES, TABLE), (value[0], 5), "strides")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ((3, 3), "sliding_window_shapes"),
        ((6, 7, 3), "sliding_window_shapes"),
        ((0, 1, 1), "sliding_window_shapes"),
        ((2.0, 2, 1), "sliding_window_shapes"),
        (2, "sliding_window_shapes"),
        (4, "strides"),
        ("all", "strides"),
    ],
)
def test_windows_that_do_not_fit_are_refused_with_one_that_would(value, name):
    with pytest.raises(
        ArgumentError, match=rf"{name}=.* does not fit samples of shape \(5, 7, 3\).*example \(1, 1, 3\)"
    ):
        check_window(inputs(IMAGES), value, name)


# more of what is refused


def masked(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (tokens * mask).sum(1, keepdims=True).astype(float)


def test_whole_numbers_of_one_shape_are_asked_for_by_name(registry):
    tokens = np.array([[4, 5], [6, 7]])
    with pytest.raises(InputError, match=r"2 of the inputs are whole .* inputs=\{'tokens': …, 'mask': …\} \(the model"):
        read_inputs(registry, original(masked), (tokens, np.ones_like(tokens)))
    read = read_inputs(registry, original(masked), (tokens, np.ones((2, 1), int)))
    assert len(read.arrays) == 2, "shapes tell them apart"


def held(array: Any, samples: int = 2) -> Inputs:
    table = TABLE[:samples]
    return Inputs((table,), (table,), held=(array,), held_arrays=(array,))


def test_one_row_that_is_held_is_the_same_where_each_sample_has_it():
    def weighing(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return x * weights

    one = held(np.arange(4.0)[None])
    assert check_repeated(original(weighing), one, TABLE * np.arange(4.0), original(weighing).model) is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x, table: x * table.sum(),  # of all rows
        lambda x, table: x @ table[0].reshape(2, 2, 1).sum((0, 2)).repeat(2).reshape(4, 1) * len(table),
        lambda x, table: x[:, : len(table)],  # another shape
        lambda x, table: {1: x}[len(table)],  # fails
    ],
)
def test_one_row_that_means_something_else_repeated_is_refused(function):
    one, model = held(np.arange(4.0)[None]), original(function)
    outputs = function(TABLE, np.arange(4.0)[None])
    with pytest.raises(
        InputError, match=r"held in one row for 2 samples \(argument 0 behind them\).*functools.partial"
    ):
        check_repeated(model, one, outputs, model.model)


@pytest.mark.parametrize(("array", "samples"), [(np.arange(4.0)[None], 1), (np.ones((1, 1)), 2), (TABLE, 2)])
def test_what_is_not_repeated_is_not_tried(array, samples):
    def failing(*_: Any) -> Any:
        raise AssertionError("it ran")

    assert check_repeated(original(failing), held(array, samples), TABLE, original(failing).model) is None


def test_tokens_beyond_the_vocabulary_are_named():
    tokens = np.array([[1, 2, 9]])
    with pytest.raises(InputError, match=r"whole numbers from 1 to 9: if they are tokens.*more of them \(3\) than"):
        run_original(original(lambda x: np.arange(5.0)[x]), inputs(tokens))


def test_a_function_that_takes_its_inputs_by_name_is_told_how():
    def keywords(x: np.ndarray, *, scale: np.ndarray) -> np.ndarray:
        return x * scale

    with pytest.raises(InputError, match=r"takes its inputs by name: pass inputs=\{'x': …, 'scale': …\}\."):
        run_original(original(keywords), inputs(TABLE, TABLE))


def test_a_model_that_changes_its_inputs_in_place_is_told_how_not_to():
    class InPlace(ArrayAdapter):
        def outputs(self, model: Any, inputs: Sequence[np.ndarray]) -> np.ndarray:
            np.abs(inputs[1], out=inputs[1])
            return inputs[0]

    given, table = -np.abs(TABLE), TABLE.copy()
    both = Inputs((table, given.copy()), (table, given))
    with pytest.raises(InputError, match=r"The model changes inputs\[1\] in place.*begin with a copy"):
        run_original(original(adapter=InPlace()), both, native=True)
    assert run_original(original(adapter=InPlace()), both) is table, "a translated model runs on tensors of its own"


def test_no_numbers_to_explain():
    class Empty(ArrayAdapter):
        def outputs(self, model: Any, inputs: Sequence[np.ndarray]) -> Any:
            return ()

    with pytest.raises(InputError, match="The model gives tuple, in which there are no numbers to explain"):
        run_original(original(adapter=Empty()), inputs(TABLE))


def test_a_model_that_was_built_for_a_number_of_samples_is_told_by_it():
    def of_eight(x: np.ndarray) -> np.ndarray:
        return x.reshape(8, 4)

    with pytest.raises(InputError, match="It would take 8 samples: something in it was built for that number"):
        run_original(original(of_eight), inputs(TABLE))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (TABLE * 1j, "holds complex128"),
        (np.array([["a"], ["b"]]), "holds <U1"),
        (np.array(3.0), "pass an array of numbers, samples first"),
        (np.zeros((2, 0)), r"shape \(2, 0\): an axis of no size leaves nothing to explain"),
        ((), "inputs is empty"),
        ((TABLE, None), r"inputs\[1\] is None"),
    ],
)
def test_what_holds_nothing_to_explain(registry, value, message):
    with pytest.raises(InputError, match=message):
        read_inputs(registry, original(), value)


@pytest.mark.parametrize(
    ("value", "like", "message"),
    [
        (300, np.zeros((1, 1), np.uint8), "whole numbers from 0 to 255"),
        (0.5, np.zeros((1, 1), np.int64), "whole numbers from"),
        (2, np.zeros((1, 1), bool), "True and False"),
        (1e39, np.zeros((1, 1), np.float32), r"numbers up to 3e\+38"),
        (True, np.zeros((1, 1), np.float32), "baselines hold True or False, the inputs float32: pass numbers"),
    ],
)
def test_baselines_that_the_type_of_the_inputs_cannot_hold(registry, value, like, message):
    with pytest.raises(InputError, match=message):
        check_baselines(registry, inputs(like), value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38, np.array([[np.nan]], np.float32), (None,)])
def test_baselines_that_say_a_value_is_missing(registry, value):
    assert check_baselines(registry, inputs(np.zeros((1, 1), np.float32)), value) is None


def test_a_straight_line_needs_ends(registry):
    table = inputs(np.array([[1.0, np.inf]]))
    with pytest.raises(InputError, match="inputs holds NaN or infinite values, and ig goes in a straight line"):
        check_straight(registry, table, 0, "ig")
    for bad in (np.nan, np.array([[np.inf, 0.0]]), (np.array([[np.nan]]),)):
        with pytest.raises(InputError, match="baselines holds NaN"):
            check_straight(registry, inputs(TABLE), bad, "ig")
    assert check_straight(registry, inputs(TABLE), (0.0,), "ig") is None
