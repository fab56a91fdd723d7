"""Models with an input for each column, some of words: as a table, or with the words held while others are explained.

In a framework of numpy whose models take their inputs by name, with gradients in closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cfi_core as cfi
from cfi_core.arrays import ArrayRunner
from cfi_core.columns import describe_table, turn_table
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.detection import load_original
from cfi_core.framework import FrameworkAdapter
from cfi_core.hookspec import hookimpl
from cfi_core.records import Arguments
from cfi_core.registry import registry
from cfi_core.specs import FrameworkSpec, Kind, MethodSpec, Need, Role, ToolsetSpec
from cfi_core.strings import turn_strings
from cfi_core.testing import use_plugins

PAY = {"nurse": 1.0, "clerk": 2.0, "pilot": 3.0}
AGE, ZIP = np.array([[0.5], [-1.0], [2.0]]), np.array([[4], [17], [23]])
INPUTS = {"age": AGE, "job": np.array([["pilot"], ["nurse"], ["pilot"]]), "zip": ZIP}
OF_JOB = np.array([[3.0], [1.0], [3.0]])
ROW = {"age": 0.25, "job": "clerk", "zip": 8}
FRAME = pd.DataFrame({name: value[:, 0] for name, value in INPUTS.items()})


class Form:
    """Pay times the age squared, and the zip; one output for each, times `scale`."""

    def __init__(self, names: tuple[str, ...] = ("age", "job", "zip"), scale: float = 1.0) -> None:
        self.names, self.scale = names, scale
        self.strings: Sequence[np.ndarray | None] = (None,) * len(names)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        age, pay, area = self.read(inputs)
        return np.concatenate([pay * age**2, area], 1).astype(float) * self.scale

    def read(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pairs = zip(self.names, inputs, self.strings, strict=True)
        given = {name: value if known is None else known[value] for name, value, known in pairs}
        pay = np.array([[PAY[str(job)]] for job in np.ravel(given["job"])])
        return np.reshape(given["age"], (-1, 1)), pay, np.reshape(given["zip"], (-1, 1))


class Strings:
    """A tensor of strings."""

    dtype = "string"

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


class Positions:
    """Takes one array of words and numbers by position, of which none has a name."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return np.array([[PAY[job] * float(age)] for job, age in rows])


class Adapter(FrameworkAdapter):
    name = "desk"

    def channel_axis(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> None:
        return None

    def outputs(self, model: Any, inputs: Sequence[Any]) -> np.ndarray:
        return model(*inputs)

    def runner(self, model: Any, inputs: Sequence[Any], layers: Sequence[str] = ()) -> ArrayRunner:
        return ArrayRunner(model)

    def input_names(self, model: Any) -> tuple[str, ...] | None:
        return model.names if isinstance(model, Form) else None

    def input_shapes(self, model: Any) -> Any:
        return ((None, 1),) * 3 if isinstance(model, Form) else None

    def by_name(self, model: Form, names: Sequence[str], constants: Mapping[str, Any]) -> Form:
        return Form(tuple(names), constants.get("scale", 1.0))

    def with_strings(self, model: Form, strings: Sequence[np.ndarray | None]) -> Form:
        made = Form(model.names, model.scale)
        made.strings = strings
        return made

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, np.ndarray | Strings)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        return tensor.array.astype("S").astype(object) if isinstance(tensor, Strings) else np.asarray(tensor)

    def vjp(self, model: Form, inputs: Any, cotangents: Any) -> Any:
        slope = steepness(model, inputs) * cotangents[0][:, :1]
        return [model(*inputs)], [slope if name == "age" else None for name in model.names]


def steepness(model: Form, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Of the first score, along the age."""
    age, pay, _ = model.read(inputs)
    return 2 * pay * age * model.scale


def slope(request: MethodRequest) -> MethodResult:
    """Of the first score; with baselines times the distance to them, at the middle of the way."""
    (age,), held = request.inputs, request.exec_args["behind"]
    if request.baselines is None:
        return MethodResult((steepness(request.model, (age, *held)),), Axes.INPUT)
    base = request.baselines[0]
    return MethodResult((steepness(request.model, ((age + base) / 2, *held)) * (age - base),), Axes.INPUT)


class Desk:
    """The framework and a toolset for it."""

    @staticmethod
    @hookimpl
    def cfi_frameworks() -> list[FrameworkSpec]:
        kinds = tuple((__name__, kind) for kind in ("Form", "Positions"))
        spec = FrameworkSpec(
            name="desk",
            module=__name__,
            model_types=kinds,
            tensor_types=((__name__, "Strings"),),
            adapter=f"{__name__}:Adapter",
        )
        return [spec]

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="pencil", framework="desk")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        method = MethodSpec(
            key="slope",
            toolset="pencil",
            kind=Kind.ATTRIBUTION,
            needs=frozenset({Need.FORWARD, Need.INPUT_GRADIENT}),
            implementation=f"{__name__}:slope",
            optional=("target", "baselines"),
            exec_args=("behind",),
            roles={"behind": Role.HELD},
        )
        return [method]


@pytest.fixture(autouse=True)
def desk(omission_plugin: Any) -> Iterator[None]:
    with use_plugins(Desk, omission_plugin):
        yield


def omit(inputs: Any = INPUTS, model: Any = None, **arguments: Any) -> cfi.Attribution:
    return cfi.attribute(model or Form(), "omit", inputs=inputs, target=0, **{"baselines": ROW, **arguments})


def differentiate(inputs: Any = INPUTS, **arguments: Any) -> cfi.Attribution:
    return cfi.attribute(Form(), "slope", inputs=inputs, target=0, **arguments)


WITHOUT = np.concatenate([OF_JOB * (AGE**2 - 0.25**2), (OF_JOB - 2.0) * AGE**2, 0 * AGE], 1)
"""What the first score loses with the age, the job and the zip of `ROW`."""


# as a table


@pytest.mark.parametrize(
    "inputs",
    [
        INPUTS,
        {**INPUTS, "job": INPUTS["job"].astype(object)},
        {**INPUTS, "job": INPUTS["job"].astype("S")},
        {**INPUTS, "job": INPUTS["job"].tolist()},
        {name: value[:, 0] for name, value in INPUTS.items()},
        FRAME,
    ],
    ids=["strings", "objects", "bytes", "lists", "flat", "frame"],
)
def test_each_input_is_a_column(inputs):
    found = omit(inputs)
    np.testing.assert_allclose(found.values, WITHOUT, atol=1e-12)
    assert found.feature_names == ("age", "job", "zip")


def test_columns_in_another_order_and_some_of_them():
    turned = omit({name: INPUTS[name] for name in ("zip", "job", "age")})
    np.testing.assert_allclose(turned.values, WITHOUT[:, ::-1], atol=1e-12)
    some = omit(explain=("job",))
    np.testing.assert_allclose(some.values, WITHOUT[:, 1:2], atol=1e-12)
    assert some.provenance["held"] == "age, zip: each row's own"


def test_what_is_no_array_is_part_of_every_pass():
    np.testing.assert_allclose(omit({**INPUTS, "scale": 3.0}).values, 3 * WITHOUT, atol=1e-12)


def test_a_frame_of_other_columns_is_not_by_name():
    with pytest.raises(cfi.InputError, match="This desk model takes arrays, and inputs is a data frame of age"):
        omit(FRAME[["age", "job"]])


@pytest.mark.parametrize(
    ("inputs", "model", "said"),
    [
        (
            {**INPUTS, "job": np.array([["a", "b"]] * 3)},
            Form(),
            r"\['job'\] has shape \(3, 2\). Where inputs hold words",
        ),
        ({**INPUTS, "age": AGE[:2]}, Form(), "same number of samples along their first axis"),
        (INPUTS, Positions(), "The inputs of this desk model have no names"),
        (
            {**INPUTS, "job": np.array([["pilot"], ["nurse"], ["cook"]])},
            Form(),
            "The model fails on a table of .* KeyError",
        ),
    ],
)
def test_columns_that_are_none(inputs, model, said):
    with pytest.raises(cfi.InputError, match=said):
        omit(inputs, model)


WORDS = np.array([["pilot", 2.0], ["nurse", -1.5]], dtype=object)


@pytest.mark.parametrize("model", [Positions(), Positions().__call__], ids=["framework", "function"])
@pytest.mark.parametrize("baselines", [{0: "clerk", 1: 1.0}, np.array([["clerk", 1.0]], object), [["clerk", 1.0]]])
def test_arrays_of_words_and_numbers(model, baselines):
    found = omit(WORDS, model, baselines=baselines)
    np.testing.assert_allclose(found.values, [[(3 - 2) * 2.0, 3 * 1.0], [(1 - 2) * -1.5, 1 * -2.5]])


@pytest.mark.parametrize("row", [["cook", 2.0], [1, 2.0]], ids=["unknown", "numbers"])
def test_arrays_that_the_model_does_not_take_are_no_table(row):
    assert load_original(registry(), Positions(), WORDS).table.names == ("0", "1")
    assert load_original(registry(), Positions(), np.array([row], object)).table is None


class Estimator:
    """Fitted on a data frame of age and job."""

    feature_names_in_ = np.array(["age", "job"], object)
    n_features_in_ = 2

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        assert list(frame.columns) == ["age", "job"]
        return (frame["age"].astype(float) * frame["job"].map(PAY)).to_numpy()[:, None]


def test_estimators_take_columns_in_a_dict():
    base = {"age": 1, "job": "clerk"}
    found = omit({"job": ["pilot", "nurse"], "age": [2.0, 3.0]}, Estimator(), baselines=base)
    assert found.feature_names == ("age", "job")
    np.testing.assert_allclose(found.values, [[3.0 * 1, 1.0 * 2], [1.0 * 2, -1.0 * 3]])
    for given in ({"job": ["pilot"], "age": [2.0, 3.0]}, {"job": "pilot", "age": 2.0}):
        with pytest.raises(cfi.InputError, match="inputs is a dict, and no table"):
            omit(given, Estimator(), baselines=None)


def test_rows_and_cells_in_the_toolsets_own_words():
    """Inputs among own arguments stand for cells, baselines for rows."""
    frame, row = pd.DataFrame({"age": [2.0], "job": ["pilot"]}), {"age": 1.0, "job": "clerk"}
    model = Estimator()
    original = load_original(registry(), model, frame, None, row)
    own = {"inputs": frame, "baselines": row, "behind": None}
    method = cfi.plan(model, "omit", inputs=frame, baselines=row).method
    turned = turn_table(Arguments(model, "omit", exec_args=own), method, original.table)
    assert turned.inputs is None and turned.baselines is None
    assert turned.exec_args["behind"] is None
    run = original.adapter.outputs
    np.testing.assert_allclose(run(original.model, [turned.exec_args["inputs"]]), [[2.0 * 3]])
    np.testing.assert_allclose(run(original.model, [turned.exec_args["baselines"]]), [[1.0 * 2]])


def test_several_rows_are_told_by_their_number():
    frame, rows = FRAME[["job"]], {"job": ["clerk", "nurse"]}
    original = load_original(registry(), lambda table: table["job"].map(PAY).to_numpy(), frame, None, rows)
    told = describe_table(original.table, original.table.baselines)
    assert told == {"columns": ("job",), "baselines": "2 rows"}
    assert describe_table(original.table, None)["baselines"] == "nothing that was given"
    np.testing.assert_array_equal(original.adapter.outputs(original.model, [original.table.baselines]), [2.0, 1.0])


def test_some_columns_of_plain_numbers():
    """A function of arrays gets arrays, with what each row holds in the others."""
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [5.0, 7.0]})
    found = omit(frame, lambda rows: rows[:, :1] * rows[:, 1:], baselines=0, explain=("a",))
    np.testing.assert_allclose(found.values, [[5.0], [14.0]])


def test_what_the_model_refuses_in_cfis_words_stays():
    def refuse(table: pd.DataFrame) -> np.ndarray:
        raise cfi.InputError("Ages are missing.")

    with pytest.raises(cfi.InputError, match=r"^Ages are missing\.$"):
        omit(FRAME[["job"]], refuse, baselines={"job": "nurse"})


# held beside what is differentiated


@pytest.mark.parametrize(
    "inputs", [INPUTS, {**INPUTS, "job": Strings(INPUTS["job"])}, FRAME], ids=["arrays", "tensor", "frame"]
)
def test_words_are_held_while_floats_are_differentiated(inputs):
    found = differentiate(inputs)
    assert list(found.values) == ["age"]
    np.testing.assert_allclose(found.values["age"], 2 * OF_JOB * AGE, atol=1e-12)


@pytest.mark.parametrize("row", [ROW, {"age": np.float64(0.25)}, pd.Series(ROW)], ids=["row", "age", "series"])
def test_of_a_row_of_baselines_that_of_the_explained_counts(row):
    found = differentiate(baselines=row)
    np.testing.assert_allclose(found.values["age"], OF_JOB * (AGE**2 - 0.25**2), atol=1e-12)


def test_places_stand_for_the_words():
    original = load_original(registry(), Form(), {**INPUTS, "scale": 2.0}, gradients=True)
    assert original.names.every == ("age", "job", "zip")
    np.testing.assert_array_equal(original.coded["job"], [[1], [0], [1]])
    np.testing.assert_array_equal(original.model.strings[1], ["nurse", "pilot"])
    passed = [original.coded[name] for name in original.names.every]
    np.testing.assert_allclose(original.model(*passed), np.concatenate([2 * OF_JOB * AGE**2, 2 * ZIP], 1))
    numbers = load_original(registry(), Form(), {"age": AGE}, gradients=True)
    arguments = cfi.plan(Form(), "slope", inputs=INPUTS, target=0).arguments
    assert turn_strings(arguments, numbers) is arguments  # nothing is coded there


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"explain": "job"}, cfi.ArgumentError, r"floating point numbers \(age here\), which 'job' is not. Hold it"),
        ({"explain": ("age", "zip")}, cfi.ArgumentError, "which 'zip' is not"),
        ({"inputs": {"job": INPUTS["job"], "zip": ZIP}}, cfi.ArgumentError, r"\(none here\), which 'job' is not"),
        (
            {"inputs": {**INPUTS, "job": np.array([["pilot"], [None], [3]], object)}},
            cfi.InputError,
            "holds something else than strings, which cannot be held",
        ),
    ],
)
def test_what_cannot_be_differentiated(given, error, said):
    with pytest.raises(error, match=said):
        differentiate(**given)


def test_a_framework_that_looks_up_no_strings(monkeypatch):
    monkeypatch.delattr(Adapter, "with_strings")
    with pytest.raises(cfi.InputError, match="Strings cannot be held while a desk model is differentiated"):
        differentiate()
