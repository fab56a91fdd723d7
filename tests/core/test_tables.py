"""Tables: what stands for a cell, what comes back from it, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import cfi_core as cfi
from cfi_core.columns import cells_of, describe_table, take_table, turn_table
from cfi_core.detection import load_original
from cfi_core.records import Arguments
from cfi_core.registry import registry
from cfi_core.specs import Kind, MethodSpec, Need, Role
from cfi_core.tables import is_plain, make_table

ROWS = pd.DataFrame(
    {
        "age": [31, 52, 31],
        "income": [1.5, np.nan, 0.0],
        "job": ["nurse", None, "pilot"],
        "grade": pd.Categorical(["b", "a", "b"], categories=["c", "b", "a"]),
        "since": pd.to_datetime(["2020-01-01", None, "2021-05-05"]),
        "member": [True, False, True],
        "visits": pd.array([1, None, 3], dtype="Int64"),
        "tags": [["a"], ["a", "b"], []],
    },
    index=[7, 3, 5],
)
METHOD = MethodSpec(
    key="exchange",
    toolset="any",
    kind=Kind.ATTRIBUTION,
    needs=frozenset({Need.FORWARD}),
    implementation="nowhere:run",
    optional=("target", "baselines"),
    exec_args=("groups", "held"),
    roles={"groups": Role.LIKE_INPUTS, "held": Role.HELD},
)


def test_cells_come_back_as_they_were() -> None:
    """Types, categories in their order, missing values of each kind, the index."""
    table = make_table(ROWS, None, None)
    assert table.coded
    assert table.cells.shape == (3, 8)
    assert_frame_equal(table.read(table.cells), ROWS)
    assert list(table.read(table.cells)["grade"].cat.categories) == ["c", "b", "a"]
    assert_frame_equal(table.read(table.cells.astype(np.float32)), ROWS)  # what a bridge may compute in
    turned = table.read(table.cells[[2, 0]])
    assert_frame_equal(turned, ROWS.iloc[[2, 0]].reset_index(drop=True))
    assert turned["tags"][0] is ROWS["tags"][5]


def test_equal_cells_have_the_same_number_and_different_ones_are_apart() -> None:
    numbers = make_table(ROWS, None, ROWS.iloc[[2]]).columns[0].numbers
    assert numbers[0] == numbers[2] == numbers[3] != numbers[1]
    many = make_table(pd.DataFrame({"word": [str(i) for i in range(3000)]}), None, None).cells[:, 0]
    assert not np.isclose(many[1:], many[:-1]).any()  # as some toolsets compare


def test_what_lies_between_cells_is_refused() -> None:
    table = make_table(ROWS[["job", "income"]], None, None)
    for mixed in (table.cells / 2, table.cells[:1] * 0.5 + table.cells[1:2] * 0.5, table.cells * 0, table.cells + 0.1):
        with pytest.raises(cfi.MethodError, match="computes with the values of column 'job'"):
            table.read(mixed)


def test_no_mean_of_two_cells_is_a_third() -> None:
    cells = make_table(pd.DataFrame({"word": [str(i) for i in range(60)]}), None, None).cells[:, 0]
    means = (cells[:, None] + cells)[np.triu_indices(60, 1)] / 2
    assert not np.isin(means, cells).any()


def test_plain_numbers_stay_numbers_in_their_types() -> None:
    frame = pd.DataFrame({"age": [31, 52], "dose": np.array([0.5, 1.5], np.float32)})
    table = make_table(frame, None, {"age": 40.5, "dose": 0.1})
    assert not table.coded
    np.testing.assert_array_equal(table.cells, [[31, 0.5], [52, 1.5]])
    assert_frame_equal(table.read(table.cells), frame)
    assert table.read(np.array([[40.5, 0.5]]))["age"].tolist() == [40.5]  # as the user's baseline says
    np.testing.assert_allclose(table.baselines, [[40.5, 0.1]], rtol=1e-7)
    assert make_table(frame, None, 0).baselines == 0
    assert not is_plain(pd.DataFrame({"kind": pd.Categorical([1, 2])}))  # a category, though its values are numbers


def test_held_columns_go_with_their_row() -> None:
    table = make_table(ROWS, ("job", "grade"), ROWS.iloc[[1]])
    assert table.names == ("job", "grade")
    assert table.holds_rows
    assert table.held == ("age", "income", "since", "member", "visits", "tags")
    given = table.read(np.repeat(table.baselines, 2, 0), np.array([2, 0]))
    expected = ROWS.iloc[[2, 0]].copy()
    expected["job"] = pd.Series([None, None], dtype=ROWS["job"].dtype, index=expected.index)
    expected["grade"] = pd.Categorical(["a", "a"], categories=["c", "b", "a"])
    assert_frame_equal(given, expected)
    assert not make_table(ROWS.iloc[[0]], "job", None).holds_rows


@pytest.mark.parametrize(
    "row", [ROWS.iloc[1], dict(ROWS.iloc[1]), ROWS.iloc[[1]], ROWS.iloc[[1]][list(ROWS.columns[::-1])]]
)
def test_baselines_are_rows_by_names(row) -> None:
    table = make_table(ROWS, None, row)
    assert_frame_equal(table.read(table.baselines), ROWS.iloc[[1]].reset_index(drop=True))


def test_several_baselines() -> None:
    table = make_table(ROWS[["job", "member"]], None, {"job": ["nurse", "cook"], "member": [True, False]})
    assert table.rows == 2
    assert table.read(table.baselines)["job"].tolist() == ["nurse", "cook"]


def test_numbers_in_types_that_cannot_hold_them() -> None:
    """A fraction among whole numbers makes the pass's column one of fractions; others stay whole."""
    table = make_table(ROWS[["age", "job"]], None, {"age": 40.5, "job": "nurse"})
    assert table.read(table.cells)["age"].dtype == np.int64
    assert table.read(table.baselines)["age"].tolist() == [40.5]
    large = pd.DataFrame({"id": [2**60 + 1, 5], "job": ["a", "b"]})
    with pytest.raises(cfi.InputError, match="'id' holds numbers too large"):
        make_table(large, None, {"id": 0.5, "job": "a"})
    assert make_table(large, None, {"id": 1, "job": "a"}).columns[0].cells.tolist() == [2**60 + 1, 5, 1]


@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        ({"grade": "z", "job": "nurse"}, r"baselines\['grade'\] holds 'z'.*categories are c, b, a"),
        ({"grade": "a"}, "baselines have no job"),
        ({"grade": "a", "job": "nurse", "jobb": 1}, "names 'jobb', which is no column here"),
        ({"grade": "a", "job": 3}, r"baselines\['job'\] holds 3"),
        (0, "baselines is 0, which says nothing of what to put into job, grade"),
        (np.zeros((1, 2)), "baselines is an array"),
        (ROWS[["job", "grade"]][:0], "a table without rows"),
    ],
)
def test_baselines_that_are_no_cells(baselines, message) -> None:
    with pytest.raises(cfi.ArgumentError, match=message):
        make_table(ROWS[["job", "grade"]].astype({"job": "str"}), None, baselines)


def test_tables_that_are_none() -> None:
    with pytest.raises(cfi.InputError, match="nothing to explain"):
        make_table(ROWS[:0], None, None)
    with pytest.raises(cfi.InputError, match="several columns named 'job'"):
        make_table(ROWS[["job", "job"]], None, None)
    with pytest.raises(cfi.ArgumentError, match="explain= names 'jobs', which is no column"):
        make_table(ROWS, ("jobs",), None)
    with pytest.raises(cfi.ArgumentError, match="names no column"):
        make_table(ROWS, (), None)


def test_groups_by_names() -> None:
    table = make_table(ROWS[["age", "job", "grade", "member"]], None, None)
    mask = table.mask({"job": "who", "age": "who", "grade": 7}, "feature_mask")
    assert mask[0, 0] == mask[0, 1]
    assert len(set(mask[0])) == 3
    assert set(mask[0]) == {0, 2, 3}


# the model and the arguments


def scores(frame: pd.DataFrame) -> np.ndarray:
    """Of the job and the age."""
    if not set(frame["job"]) <= {"nurse", "pilot", "cook"}:
        raise ValueError("unknown job")
    return np.stack([frame["age"] * (frame["job"] == "pilot"), frame["income"].fillna(-1)], 1).astype(float)


FRAME = ROWS[["age", "income", "job"]].assign(job=["nurse", "cook", "pilot"])


def test_a_function_of_a_frame_gets_the_frame() -> None:
    original = load_original(registry(), scores, FRAME, None, {"age": 0, "income": None, "job": "cook"})
    np.testing.assert_array_equal(original.adapter.outputs(original.model, [original.table.cells]), scores(FRAME))
    turned = turn_table(Arguments(scores, "exchange", inputs=FRAME, baselines=1), METHOD, original.table)
    np.testing.assert_array_equal(turned.inputs, original.table.cells)
    np.testing.assert_array_equal(original.adapter.outputs(original.model, [turned.baselines]), [[0, -1]])


def test_what_the_model_says_of_a_table_is_an_error_with_the_types() -> None:
    original = load_original(registry(), scores, FRAME, None, {"age": 0, "income": None, "job": "astronaut"})
    with pytest.raises(cfi.InputError, match=r"table of age \(int64\).*ValueError: unknown job"):
        original.adapter.outputs(original.model, [original.table.baselines])


def test_baselines_of_words_are_the_users_to_say() -> None:
    original = load_original(registry(), scores, FRAME)
    with pytest.raises(cfi.ArgumentError, match=r"nothing to compare the columns job with\. Pass baselines= a row"):
        turn_table(Arguments(scores, "exchange", inputs=FRAME), METHOD, original.table)
    numbers = load_original(registry(), lambda frame: frame["visits"].to_numpy(float, na_value=0), ROWS[["visits"]])
    turned = turn_table(Arguments(scores, "exchange"), METHOD, numbers.table)
    assert numbers.table.read(turned.baselines)["visits"].tolist() == [0]  # numbers, as in arrays


def test_arguments_by_names_of_columns() -> None:
    row = FRAME.iloc[0]
    original = load_original(registry(), scores, FRAME, ("job",), row)
    given = Arguments(
        scores, "exchange", inputs=FRAME, baselines=row, explain=("job",), exec_args={"groups": {"job": 4}}
    )
    turned = turn_table(given, METHOD, original.table)
    assert set(turned.inputs) == {"cells", "rows"}
    assert turned.explain is None
    np.testing.assert_array_equal(turned.exec_args["groups"], [[0]])
    assert describe_table(original.table, turned.baselines) == {
        "columns": ("job",),
        "held": "age, income: each row's own",
        "baselines": {"job": "nurse"},
    }


def test_a_model_of_arrays_says_that_it_takes_no_table() -> None:
    original = load_original(registry(), scores, np.zeros((2, 3)))
    original.adapter.on_frames = lambda model, columns: None  # type: ignore[method-assign]
    try:
        with pytest.raises(cfi.InputError, match=r"takes arrays, and inputs is a data frame of age \(int64\)"):
            take_table(registry(), original, FRAME, None, None)
        assert take_table(registry(), original, FRAME[["age"]], None, None) is original
    finally:
        del original.adapter.on_frames


def test_what_stands_for_inputs_that_are_no_table() -> None:
    assert cells_of(None, 3) == 3
    assert describe_table(None, 3) == {}


def test_whole_numbers_that_double_precision_does_not_hold_stay_what_they_are() -> None:
    """2**53 + 1 is another number in the array that has a fraction beside it."""
    frame = pd.DataFrame({"id": [2**53 + 1, 2**53 + 3], "share": [0.5, 1.5]})
    assert not is_plain(frame)
    table = make_table(frame, None, {"id": 2**53, "share": 0})
    assert table.read(table.cells)["id"].tolist() == [2**53 + 1, 2**53 + 3]
    assert table.read(table.baselines)["id"].tolist() == [2**53]
    whole = make_table(frame[["id"]], None, {"id": 2**53 + 5})
    assert whole.read(whole.baselines)["id"].tolist() == [2**53 + 5]
    with pytest.raises(cfi.InputError, match=r"beyond 2\*\*53"):
        make_table(pd.DataFrame({"id": [1], "share": [0.5]}), None, {"id": 2**53 + 1, "share": 0.5})
