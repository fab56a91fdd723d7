"""Models with an input for each column, some of words: explained as a table, or held beside what is differentiated."""

from __future__ import annotations

from itertools import permutations

import keras
import numpy as np
import onnx
import pandas as pd
import pytest
import tensorflow as tf
from onnx import TensorProto, helper

import cfi_core as cfi

JOBS = ["nurse", "clerk", "pilot"]
INPUTS = {
    "age": np.array([[0.5], [-1.0], [2.0]], np.float32),
    "job": np.array([["pilot"], ["nurse"], ["unknown"]]),
    "zip": np.array([[4], [17], [23]]),
}
ROW = {"age": 0.25, "job": "clerk", "zip": 8}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    age, job = keras.Input((1,), name="age"), keras.Input((1,), dtype="string", name="job")
    area = keras.Input((1,), dtype="int64", name="zip")
    jobs = layers.StringLookup(vocabulary=JOBS, output_mode="one_hot")(job)
    areas = layers.Flatten()(layers.Embedding(5, 2)(layers.Hashing(5)(area)))
    hidden = layers.Dense(6, activation="tanh")(layers.Concatenate()([age, jobs, areas]))
    return keras.Model({"age": age, "job": job, "zip": area}, layers.Dense(2, activation="softmax")(hidden))


def score(model: keras.Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return model({name: tf.constant(value) for name, value in inputs.items()}).numpy()[:, 1]


def shapley(run, inputs: dict[str, np.ndarray], row: dict) -> np.ndarray:
    """Over all orders in which the columns come in."""
    values = np.zeros((len(inputs["job"]), len(inputs)))
    base = {name: np.full_like(value, row[name], value.dtype) for name, value in inputs.items()}
    orders = list(permutations(inputs))
    for order in orders:
        now = dict(base)
        for name in order:
            before, now = run(now), {**now, name: inputs[name]}
            values[:, list(inputs).index(name)] += (run(now) - before) / len(orders)
    return values


@pytest.mark.parametrize(
    "inputs",
    [
        INPUTS,
        {name: tf.constant(value) for name, value in INPUTS.items()},
        {**INPUTS, "job": INPUTS["job"].astype(object)},
        pd.DataFrame({name: value[:, 0] for name, value in INPUTS.items()}),
    ],
    ids=["arrays", "tensors", "objects", "frame"],
)
def test_columns_of_a_keras_model(model, inputs) -> None:
    found = cfi.attribute(model, "kernel_shap", "shap", inputs=inputs, baselines=ROW, target=1)
    expected = shapley(lambda given: score(model, given), INPUTS, ROW)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.feature_names == ("age", "job", "zip")


def test_some_columns_of_a_keras_model(model) -> None:
    given = {"inputs": INPUTS, "baselines": ROW, "target": 1, "explain": ("job",)}
    found = cfi.attribute(model, "feature_ablation", "captum", **given)
    changed = {**INPUTS, "job": np.full((3, 1), "clerk")}
    np.testing.assert_allclose(found.values[:, 0], score(model, INPUTS) - score(model, changed), atol=1e-6)


def test_words_are_held_while_floats_are_differentiated(model) -> None:
    found = cfi.attribute(
        model, "integrated_gradients", "captum", inputs=INPUTS, baselines=ROW, target=1, exec_args={"n_steps": 200}
    )
    below, total = np.float32(ROW["age"]), 0.0
    for share in (np.arange(400) + 0.5) / 400:  # the mean gradient, by midpoints
        between = tf.constant((below + share * (INPUTS["age"] - below)).astype(np.float32))
        with tf.GradientTape() as tape:
            tape.watch(between)
            others = {name: tf.constant(INPUTS[name]) for name in ("job", "zip")}
            chosen = model({"age": between, **others})[:, 1]
        total = total + tape.gradient(chosen, between).numpy() / 400
    np.testing.assert_allclose(found.values["age"], total * (INPUTS["age"] - below), atol=1e-5)
    frame = pd.DataFrame({name: value[:, 0] for name, value in INPUTS.items()})
    same = cfi.attribute(
        model, "integrated_gradients", "captum", inputs=frame, baselines=ROW, target=1, exec_args={"n_steps": 200}
    )
    np.testing.assert_array_equal(same.values["age"], found.values["age"])


def test_words_that_cannot_be_differentiated(model) -> None:
    with pytest.raises(cfi.ArgumentError, match=r"floating point numbers \(age here\), which 'job' is not. Hold it"):
        cfi.attribute(model, "saliency", "captum", inputs=INPUTS, target=1, explain=("job",))
    with pytest.raises(cfi.ArgumentError, match="nothing to compare the columns job with"):
        cfi.attribute(model, "feature_ablation", "captum", inputs=INPUTS, target=1)
    wide = {**INPUTS, "job": np.array([["pilot", "nurse"]] * 3)}
    with pytest.raises(cfi.InputError, match=r"shape \(3, 2\). Where inputs hold words, each has to be a column"):
        cfi.attribute(model, "feature_ablation", "captum", inputs=wide, baselines=ROW, target=1)


def make_onnx() -> onnx.ModelProto:
    """Looks the job up, and gives its number, times the age, and the age."""
    age = helper.make_tensor_value_info("age", TensorProto.FLOAT, [None, 1])
    job = helper.make_tensor_value_info("job", TensorProto.STRING, [None, 1])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2])
    nodes = [
        helper.make_node(
            "LabelEncoder", ["job"], ["number"], domain="ai.onnx.ml", keys_strings=JOBS, values_floats=[1.0, 2.0, 3.0]
        ),
        helper.make_node("Mul", ["number", "age"], ["product"]),
        helper.make_node("Concat", ["product", "age"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(nodes, "table", [age, job], [scores])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_columns_of_an_onnx_model() -> None:
    """Products are shared between the two in equal parts, around the baseline."""
    inputs = {"job": np.array([["pilot"], ["nurse"]]), "age": np.array([[2.0], [5.0]], np.float32)}
    found = cfi.attribute(
        make_onnx(), "kernel_shap", "shap", inputs=inputs, baselines={"job": "clerk", "age": 1}, target=0
    )
    number, age = np.array([3.0, 1.0]), np.array([2.0, 5.0])
    of_job, of_age = (number - 2) * (age + 1) / 2, (age - 1) * (number + 2) / 2
    np.testing.assert_allclose(found.values, np.stack([of_job, of_age], 1), atol=1e-6)
    with pytest.raises(cfi.CFIError, match=r"Strings cannot be held while a .* model is differentiated"):
        cfi.attribute(make_onnx(), "saliency", "captum", inputs=inputs, target=0)


def test_columns_of_a_session() -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(make_onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"job": np.array([["pilot"], ["nurse"]]), "age": np.array([[2.0], [5.0]], np.float32)}
    given = {"inputs": inputs, "baselines": {"job": "clerk", "age": 1}, "target": 0}
    found = cfi.attribute(session, "kernel_shap", "shap", **given)
    np.testing.assert_array_equal(found.values, cfi.attribute(make_onnx(), "kernel_shap", "shap", **given).values)


def test_arrays_of_objects() -> None:
    rows = np.array([["nurse", 3], ["pilot", 4], ["clerk", 5]], dtype=object)

    def run(cells: np.ndarray) -> np.ndarray:
        assert cells.dtype == object
        return np.array([float(number) * JOBS.index(job) for job, number in cells])

    found = cfi.attribute(run, "feature_ablation", "captum", inputs=rows, baselines=np.array([["clerk", 1]], object))
    np.testing.assert_allclose(found.values, [[-3.0, 0.0], [4.0, 6.0], [0.0, 4.0]])
