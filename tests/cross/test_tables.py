"""Data frames with texts, categories, dates, truth values and missing ones, explained column by column.

Compared with Shapley's formula written out over all coalitions, in which cells are exchanged in the data frame itself.
"""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd
import pytest
import shap
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr._core.lime import get_exp_kernel_similarity_function
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

import cfi_core as cfi


def make_rows(count: int) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "age": draw.integers(18, 80, count),
            "income": draw.normal(40, 9, count).round(2),
            "job": draw.choice(["nurse", "clerk", "pilot"], count),
            "note": draw.choice(["good and quick", "slow and rude", "fine"], count),
            "since": pd.Timestamp("2015-01-01") + pd.to_timedelta(draw.integers(0, 3000, count), unit="D"),
            "member": draw.random(count) < 0.4,
            "grade": pd.Categorical(draw.choice(["a", "b", "c"], count), categories=["c", "a", "b", "d"]),
        }
    )
    return rows.assign(income=rows["income"].where(draw.random(count) > 0.2))


ROWS = make_rows(120)
LABELS = np.where(
    (ROWS["age"] > 50).astype(float) + (ROWS["job"] == "pilot") + ROWS["note"].str.contains("good") + ROWS["member"]
    > 1.5,
    "yes",
    "no",
)
BASE = ROWS.iloc[7]


def years(dates: pd.DataFrame) -> pd.DataFrame:
    return dates.apply(lambda column: column.dt.year - 2015)


NUMBERS = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
PIPELINE = make_pipeline(
    make_column_transformer(
        (OneHotEncoder(), ["job", "grade"]),
        (TfidfVectorizer(), "note"),
        (NUMBERS, ["age", "income"]),
        (FunctionTransformer(years), ["since"]),
        ("passthrough", ["member"]),
    ),
    LogisticRegression(max_iter=1000),
).fit(ROWS, LABELS)


def shapley(score, rows: pd.DataFrame, base: pd.Series, columns: list[str]) -> np.ndarray:
    """By the formula; columns that are not named are left as they are."""

    def value(kept: tuple[str, ...]) -> np.ndarray:
        exchanged = rows.copy()
        for name in set(columns) - set(kept):
            exchanged[name] = pd.Series([base[name]] * len(rows), index=rows.index).astype(rows[name].dtype)
        return score(exchanged)

    values = {kept: value(kept) for size in range(len(columns) + 1) for kept in combinations(columns, size)}
    found = np.zeros((len(rows), len(columns)))
    for place, name in enumerate(columns):
        for kept, without in values.items():
            if name not in kept:
                share = factorial(len(kept)) * factorial(len(columns) - len(kept) - 1) / factorial(len(columns))
                found[:, place] += share * (values[tuple(one for one in columns if one in (*kept, name))] - without)
    return found


def chance(rows: pd.DataFrame) -> np.ndarray:
    return PIPELINE.predict_proba(rows)[:, 1]


def test_every_column_by_shap_as_the_formula_says() -> None:
    rows = ROWS.iloc[:3]
    found = cfi.attribute(PIPELINE, "kernel_shap", "shap", inputs=rows, baselines=BASE, target="yes")
    np.testing.assert_allclose(found.values, shapley(chance, rows, BASE, list(ROWS)), atol=1e-12)
    assert found.dims == ("sample", "feature")
    assert found.provenance["columns"] == tuple(ROWS)
    assert found.provenance["baselines"]["note"] == BASE["note"]
    assert found.provenance["function"] == "a function of each sample"
    assert found.inputs[0][0, 2] == rows["job"].iloc[0]
    assert found.provenance["completeness"]["gap"] < 1e-12


def test_a_background_of_rows() -> None:
    rows, background = ROWS.iloc[:2], ROWS.iloc[20:22]
    found = cfi.attribute(PIPELINE, "kernel_shap", "shap", inputs=rows, baselines=background, target="predicted")
    expected = [shapley(chance, rows, row, list(ROWS)) for _, row in background.iterrows()]
    signs = np.where(PIPELINE.predict(rows) == "yes", 1, -1)[:, None]
    np.testing.assert_allclose(found.values, signs * np.mean(expected, axis=0), atol=1e-12)


@pytest.mark.parametrize(("method", "toolset"), [("shapley_values", "captum"), ("kernel_shap", "shap")])
def test_some_columns_while_the_others_are_held(method, toolset) -> None:
    rows, columns = ROWS.iloc[:3], ["job", "note", "grade"]
    found = cfi.attribute(
        PIPELINE, method, toolset, inputs=rows, baselines=dict(BASE), explain=tuple(columns), target="yes"
    )
    np.testing.assert_allclose(found.values, shapley(chance, rows, BASE, columns), atol=1e-6)
    assert found.provenance["held"] == "age, income, since, member: each row's own"
    assert found.feature_names == tuple(columns)


def test_ablation_of_columns_and_of_groups() -> None:
    rows = ROWS.iloc[:4]

    def without(*names: str) -> np.ndarray:
        return chance(rows) - chance(rows.assign(**{name: BASE[name] for name in names}).astype(rows.dtypes))

    found = cfi.attribute(PIPELINE, "feature_ablation", "captum", inputs=rows, baselines=BASE, target="yes")
    np.testing.assert_allclose(found.values, np.stack([without(name) for name in ROWS], 1), atol=1e-6)
    mask = {"job": 0, "income": 0, "note": 1}
    grouped = cfi.attribute(
        PIPELINE,
        "feature_ablation",
        "captum",
        inputs=rows,
        baselines=BASE,
        target="yes",
        exec_args={"feature_mask": mask},
    )
    together, names = without("job", "income"), list(ROWS)
    np.testing.assert_allclose(
        grouped.values[:, [names.index("job"), names.index("income")]].T, [together] * 2, atol=1e-6
    )
    np.testing.assert_allclose(grouped.values[:, names.index("age")], without("age"), atol=1e-6)


def test_a_baseline_for_each_row_and_windows() -> None:
    rows, others = ROWS.iloc[:3], ROWS.iloc[10:13]
    found = cfi.attribute(
        PIPELINE,
        "occlusion",
        "captum",
        inputs=rows,
        baselines=others,
        target="yes",
        exec_args={"sliding_window_shapes": (1,)},
    )
    changed = rows.assign(job=others["job"].to_numpy())
    np.testing.assert_allclose(found.values[:, 2], chance(rows) - chance(changed), atol=1e-6)


def test_permutation_exchanges_whole_cells() -> None:
    rows = ROWS.iloc[:5]
    found = cfi.attribute(PIPELINE, "feature_permutation", "captum", inputs=rows, target="yes", seed=3)
    exchanges = [chance(rows) - chance(rows.assign(job=[job] * 5)) for job in rows["job"]]
    assert all(np.abs(np.array(exchanges)[:, i] - value).min() < 1e-6 for i, value in enumerate(found.values[:, 2]))


def test_lime_weighs_by_which_cells_are_kept() -> None:
    """A model that adds up columns is linear in which are kept: LIME without a penalty finds what each adds."""

    def score(rows: pd.DataFrame) -> np.ndarray:
        return (rows["age"] / 10 + 3 * (rows["job"] == "pilot") - (rows["grade"] == "c")).to_numpy()

    rows = ROWS[["age", "job", "grade"]].iloc[:4]
    row = {"age": 20, "job": "pilot", "grade": "c"}
    for settings in ({}, {"interpretable_model": SkLearnLinearRegression()}):
        found = cfi.attribute(score, "lime", "captum", inputs=rows, baselines=row, init_args=settings, seed=0)
        assert "kept" in found.provenance["applied"]["similarity_func"]
    parts = [rows["age"] / 10 - 2, 3.0 * (rows["job"] == "pilot") - 3, 1.0 - (rows["grade"] == "c")]
    np.testing.assert_allclose(found.values, np.stack(parts, 1), atol=1e-4)
    kernel = {"similarity_func": get_exp_kernel_similarity_function()}
    with pytest.raises(cfi.ArgumentError, match="the cells of this table have codes"):
        cfi.attribute(score, "lime", "captum", inputs=rows, baselines=row, init_args=kernel)


@pytest.mark.parametrize(
    "steps",
    [
        (OrdinalEncoder(), RandomForestClassifier(8, random_state=0)),
        (TargetEncoder(), LogisticRegression()),
    ],
)
def test_other_encoders(steps) -> None:
    encoder, classifier = steps
    names = ["job", "grade", "member"]
    model = make_pipeline(make_column_transformer((encoder, names)), classifier).fit(ROWS[names], LABELS)
    found = cfi.attribute(model, "kernel_shap", "shap", inputs=ROWS[names][:3], baselines=BASE[names], target="no")
    expected = shapley(lambda rows: model.predict_proba(rows)[:, 0], ROWS[names][:3], BASE, names)
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_trees_on_categories_and_missing_values() -> None:
    names = ["age", "income", "grade"]
    trees = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=20).fit(ROWS[names], LABELS)
    rows = ROWS[names][:6]
    found = cfi.attribute(trees, "shapley_values", "captum", inputs=rows, baselines=BASE[names], target="yes")
    expected = shapley(lambda one: trees.predict_proba(one)[:, 1], rows, BASE, names)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    with pytest.raises(cfi.MethodError, match="Use 'kernel_shap' or 'shapley_value_sampling'"):
        cfi.attribute(trees, "tree_shap", inputs=rows, baselines=BASE[names], target="yes")


def test_trees_on_a_frame_of_numbers_natively() -> None:
    frame = ROWS[["age", "income"]].fillna(0)
    trees = RandomForestClassifier(5, random_state=0).fit(frame, LABELS)
    found = cfi.attribute(trees, "tree_shap", inputs=frame[:3], baselines=frame.iloc[5], target="yes")
    assert found.route == ()
    by_hand = shap.TreeExplainer(trees, frame[5:6].to_numpy()).shap_values(frame[:3].to_numpy())[..., 1]
    np.testing.assert_allclose(found.values, by_hand, atol=1e-12)


def test_a_dict_of_columns_in_any_order() -> None:
    columns = {name: ROWS[name][:2].tolist() for name in reversed(list(ROWS))}
    columns["grade"] = pd.Categorical(columns["grade"], categories=["c", "a", "b", "d"])
    found = cfi.attribute(PIPELINE, "feature_ablation", "captum", inputs=columns, baselines=BASE, target="yes")
    frame = cfi.attribute(PIPELINE, "feature_ablation", "captum", inputs=ROWS[:2], baselines=BASE, target="yes")
    np.testing.assert_array_equal(found.values, frame.values)
    with pytest.raises(cfi.InputError, match="same length for each column"):
        cfi.attribute(PIPELINE, "feature_ablation", "captum", inputs={"age": [1], "job": ["a", "b"]}, target=1)


def test_regressors_need_no_target() -> None:
    model = make_pipeline(make_column_transformer((OneHotEncoder(), ["job"]), (NUMBERS, ["age"])), LinearRegression())
    names = ["job", "age"]
    model.fit(ROWS[names], ROWS["age"] * 2.0)
    found = cfi.attribute(model, "kernel_shap", "shap", inputs=ROWS[names][:2], baselines=BASE[names])
    np.testing.assert_allclose(found.values.sum(1), 2 * (ROWS["age"][:2] - BASE["age"]), rtol=1e-9)


def test_types_reach_the_model_as_they_are() -> None:
    seen = []

    def score(rows: pd.DataFrame) -> np.ndarray:
        seen.append(rows)
        return rows["age"].to_numpy(float)

    rows = ROWS.iloc[[5, 3]]
    cfi.attribute(score, "feature_ablation", "captum", inputs=rows, baselines=BASE, target=None)
    assert all(dict(one.dtypes) == dict(ROWS.dtypes) for one in seen)
    assert all(list(one.columns) == list(ROWS) for one in seen)
    pd.testing.assert_frame_equal(seen[0], rows)
    assert all(list(one["grade"].cat.categories) == ["c", "a", "b", "d"] for one in seen)


def test_what_is_refused_says_what_to_do() -> None:
    def explain(method: str = "feature_ablation", **given) -> None:
        cfi.attribute(PIPELINE, method, "captum", **{"inputs": ROWS[:2], "target": "yes", "baselines": BASE} | given)

    for given, message in [
        ({"baselines": None}, "nothing to compare the columns job, note, since, member, grade with. Pass baselines="),
        ({"baselines": {**BASE, "job": "astronaut"}}, "ValueError: Found unknown categories.*types and categories"),
        ({"baselines": {**BASE, "grade": "z"}}, "its categories are c, a, b, d"),
        ({"inputs": ROWS[["job", *ROWS.columns.drop("job")]][:2]}, "in this order: pass inputs"),
        ({"inputs": ROWS.drop(columns="job")[:2]}, "pass a table of these"),
        ({"target": "maybe"}, "no class named 'maybe'"),
    ]:
        with pytest.raises(cfi.ArgumentError, match=message):
            explain(**given)
    with pytest.raises(cfi.RouteError, match="use a perturbation method"):
        explain("integrated_gradients")


def test_rows_that_influence_each_other_are_told() -> None:
    def score(rows: pd.DataFrame) -> np.ndarray:
        return (rows["job"] == "pilot").to_numpy(float) * len(set(rows["job"]))

    with pytest.warns(cfi.ModelWarning, match="samples influence each other"):
        cfi.attribute(
            score,
            "feature_ablation",
            "captum",
            inputs=ROWS[ROWS["job"] == "pilot"][:1],
            baselines={**BASE, "job": "clerk"},
        )
