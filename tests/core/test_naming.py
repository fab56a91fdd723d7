"""Inputs by name, of functions of arrays: what is explained, what is carried, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.checking.targets import find_target
from cfi_core.columns import check_columns
from cfi_core.contract import Target
from cfi_core.framework import Parameters, flatten
from cfi_core.naming import in_order, name_inputs, turn_named
from cfi_core.records import Arguments, InputNames, Original
from cfi_core.registry import registry
from cfi_core.specs import Kind, MethodSpec, Need, Role

FLOATS, WHOLE = np.zeros((2, 3)), np.ones((2, 3), int)


def function(**_kwargs):
    return FLOATS


def named(inputs, explain=None, model=function):
    adapter = adapter_for(registry(), "numpy")
    return name_inputs(registry(), Original("numpy", adapter, adapter.load(model)), inputs, explain).names


@pytest.mark.parametrize(
    ("inputs", "explained", "held"),
    [
        ({"x": FLOATS, "n": WHOLE}, ("x",), ("n",)),
        ({"attention_mask": WHOLE, "input_ids": WHOLE, "token_type_ids": WHOLE}, ("input_ids",), None),
        ({"bbox": WHOLE, "input_ids": WHOLE}, ("input_ids",), None),
        ({"attention_mask": FLOATS, "input_ids": WHOLE}, ("input_ids",), ("attention_mask",)),
        ({"pixel_values": FLOATS, "pixel_mask": FLOATS, "bool_masked_pos": WHOLE > 0}, ("pixel_values",), None),
        ({"input_ids": WHOLE, "decoder_input_ids": WHOLE}, ("input_ids",), ("decoder_input_ids",)),
        ({"colour": WHOLE, "size": WHOLE}, ("colour", "size"), ()),
        ({"mask": WHOLE}, ("mask",), ()),
        ({"x": FLOATS, "use_cache": False, "none": None}, ("x",), ()),
        ({"tokens": [[1, 2], [3, 4]], "mask": [[1, 1], [1, 0]]}, ("tokens",), ("mask",)),
    ],
)
def test_what_is_explained(inputs, explained, held):
    found = named(inputs)
    arrays = [name for name, value in inputs.items() if isinstance(value, np.ndarray | list)]
    assert found == InputNames(explained, tuple(n for n in arrays if n not in explained) if held is None else held)


def test_without_names_nothing_changes():
    adapter = adapter_for(registry(), "numpy")
    original = Original("numpy", adapter, adapter.load(function))
    assert name_inputs(registry(), original, FLOATS, None) is original
    assert in_order(None, FLOATS) == (FLOATS, ())


def test_refusals():
    with pytest.raises(cfi.InputError, match="has the key 0"):
        named({0: FLOATS})
    with pytest.raises(cfi.InputError, match="None of the inputs 'flag' is an array"):
        named({"flag": True})
    with pytest.raises(cfi.ArgumentError, match=r"explain=\('y',\) names no input to explain"):
        named({"x": FLOATS}, explain=("y",))
    with pytest.raises(cfi.InputError, match="have no names"):
        named({"x": FLOATS}, model=LogisticRegression().fit(FLOATS, [0, 1]))


def method(**more):
    return MethodSpec(
        key="m", toolset="t", kind=Kind.ATTRIBUTION, needs=frozenset({Need.FORWARD}), implementation="a:b", **more
    )


def test_baselines_and_masks_come_in_the_order_of_the_inputs():
    names = InputNames(("a", "b"), ("mask",))
    spec = method(exec_args=("feature_mask", "more"), roles={"feature_mask": Role.LIKE_INPUTS, "more": Role.HELD})
    given = Arguments(
        function,
        "m",
        inputs={"b": 2, "a": 1, "mask": 3},
        baselines={"b": 5},
        exec_args={"feature_mask": {"b": 8, "a": 7}},
    )
    turned = turn_named(given, spec, names)
    assert turned.baselines == (0, 5) and turned.exec_args == {"feature_mask": (7, 8), "more": (3,)}
    for wrong in ({"feature_mask": {"a": 7}}, {"feature_mask": {"a": 7, "b": 8, "mask": 9}}, {"more": 4}):
        with pytest.raises(cfi.ArgumentError, match=r"nothing for 'b'|'mask', which is not explained|leave 'more' out"):
            turn_named(Arguments(function, "m", inputs=given.inputs, exec_args=wrong), spec, names)
    without = turn_named(given, method(exec_args=("feature_mask",), roles={"feature_mask": Role.LIKE_INPUTS}), names)
    assert without.exec_args == {"feature_mask": (7, 8)}  # what is held becomes part of the model


def test_parameters():
    def plain(x, y=1, *, z):
        return x, y, z

    found = Parameters.of(plain, leave_out=("y",))
    assert found == Parameters(("x", "z"), frozenset({"x", "z"}))
    found.check(["x"], ["z"], "it")
    with pytest.raises(cfi.InputError, match=r"none named 'w'; 'z' is missing. Its inputs are x, z"):
        found.check(["x", "w"], [], "it")
    open_to_all = Parameters.of(lambda x, **more: x)
    open_to_all.check(["x"], ["flag"], "it")
    with pytest.raises(cfi.InputError, match="none named 'mask'"):
        open_to_all.check(["x", "mask"], [], "it")  # it would be ignored without a word
    Parameters.of(function).check(["anything"], [], "it")


def loaded(model):
    adapter = adapter_for(registry(), "numpy")
    return Original("numpy", adapter, adapter.load(model))


def test_columns_in_another_order_are_refused():
    """Read as an array, each would be taken for another."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["age", "dose"])
    original = loaded(LogisticRegression().fit(frame, frame["age"] > 0))
    check_columns(original, frame, "inputs")
    check_columns(original, frame.to_numpy(), "inputs")
    with pytest.raises(
        cfi.InputError, match=r"columns dose, age.*fitted on age, dose.*pass inputs\[\['age', 'dose'\]\]"
    ):
        check_columns(original, frame[["dose", "age"]], "inputs")
    with pytest.raises(cfi.InputError, match="pass a table of these"):
        check_columns(original, frame.rename(columns={"dose": "weight"}), "baselines")


def test_estimators_know_the_names_of_their_classes():
    rows = np.random.default_rng(0).normal(size=(30, 2))
    named, numbered = (
        loaded(LogisticRegression().fit(rows, classes))
        for classes in (np.where(rows[:, 0] > 0, "ill", "well"), rows[:, 0] > 0)
    )
    assert named.adapter.class_names(named.model) == ("ill", "well")
    assert numbered.adapter.class_names(numbered.model) is None


def test_what_is_no_array_in_an_output_is_left_out():
    """As the caches of language models are; positions stay."""
    original = loaded(lambda x: (object(), "words", x @ np.eye(3)))
    outputs = original.adapter.outputs(original.model, [FLOATS + 1])
    assert outputs[:2] == (None, None) and len(flatten(outputs)) == 1
    found = find_target(registry(), 1, outputs)
    assert (found.path, found.target) == ((2,), Target(index=(1,)))
    with pytest.raises(cfi.InputError, match="gives nothing"):
        loaded(lambda x: "words").model(FLOATS)
