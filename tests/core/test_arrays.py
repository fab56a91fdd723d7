"""Functions of numpy arrays and estimators as models."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from cfi_core.arrays import ArrayAdapter
from cfi_core.errors import InputError, LayerError, NoGradientError
from cfi_core.framework import flatten

ADAPTER = ArrayAdapter()


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(90, 4))
    return x, (x @ generator.normal(size=(4, 3))).argmax(1)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


# what is taken


def test_a_classifier_gives_its_probabilities(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = data
    classifier = LogisticRegression().fit(x, labels)
    model = ADAPTER.load(classifier)
    expected = softmax(x @ classifier.coef_.T + classifier.intercept_)
    np.testing.assert_allclose(ADAPTER.outputs(model, [x]), expected, rtol=1e-6)
    np.testing.assert_allclose(ADAPTER.runner(model, [x]).run(0, [x[:7]])[0], expected[:7], rtol=1e-6)
    assert ADAPTER.input_shapes(model) == ((None, 4),)
    assert ADAPTER.load(model) is model


def test_a_pipeline_and_a_bound_method_are_the_same_classifier(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = data
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, labels)
    scaled = (x - x.mean(0)) / x.std(0)
    expected = softmax(scaled @ pipeline[-1].coef_.T + pipeline[-1].intercept_)
    for given in (pipeline, pipeline.predict_proba):
        model = ADAPTER.load(given)
        np.testing.assert_allclose(ADAPTER.outputs(model, [x]), expected, rtol=1e-6)
        assert ADAPTER.input_shapes(model) == ((None, 4),)


def test_a_decision_function_where_there_are_no_probabilities(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = data
    classifier = RidgeClassifier().fit(x, labels)
    expected = x @ classifier.coef_.T + classifier.intercept_
    np.testing.assert_allclose(ADAPTER.outputs(ADAPTER.load(classifier), [x]), expected)


def test_a_regressor_gives_its_predictions(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = data
    regressor = LinearRegression().fit(x, labels)
    expected = x @ regressor.coef_ + regressor.intercept_
    np.testing.assert_allclose(ADAPTER.outputs(ADAPTER.load(regressor), [x]), expected)


def test_several_outputs_stay_apart(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = data
    forest = RandomForestClassifier(3, random_state=0).fit(x, np.stack([labels, labels == 0], 1))
    outputs = ADAPTER.outputs(ADAPTER.load(forest), [x])
    assert [output.shape for output in outputs] == [(90, 3), (90, 2)]
    assert len(ADAPTER.runner(ADAPTER.load(forest), [x]).run(0, [x])) == 2


def test_estimators_fitted_on_frames_get_frames(data: tuple[np.ndarray, np.ndarray]) -> None:
    pandas = pytest.importorskip("pandas")
    x, labels = data
    frame = pandas.DataFrame(x, columns=list("abcd"))
    chosen = ColumnTransformer([("two", "passthrough", ["d", "a"])])
    pipeline = make_pipeline(chosen, LogisticRegression()).fit(frame, labels)
    expected = softmax(x[:, [3, 0]] @ pipeline[-1].coef_.T + pipeline[-1].intercept_)
    for given in (pipeline, pipeline.predict_proba):
        np.testing.assert_allclose(ADAPTER.outputs(ADAPTER.load(given), [x]), expected, rtol=1e-6)


def test_an_object_like_an_estimator_of_another_library() -> None:
    class Booster:
        n_features_in_ = 2

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return np.stack([x[:, 0], 1 - x[:, 0]], 1)

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x[:, 0] > 0.5

    model = ADAPTER.load(Booster())
    np.testing.assert_array_equal(ADAPTER.outputs(model, [np.array([[0.25, 9.0]])]), [[0.25, 0.75]])


def test_functions_and_callable_objects() -> None:
    class Scaling:
        def __call__(self, x: np.ndarray) -> dict[str, Any]:
            return {"twice": 2 * x, "others": (x.sum(1), None)}

    x = np.arange(6.0).reshape(2, 3)
    twice, total = flatten(ADAPTER.outputs(ADAPTER.load(Scaling()), [x]))
    np.testing.assert_array_equal(twice, 2 * x)
    np.testing.assert_array_equal(total, x.sum(1))
    added = ADAPTER.runner(ADAPTER.load(functools.partial(np.add, 1)), [x]).run(0, [x])
    np.testing.assert_array_equal(added[0], x + 1)
    two = ADAPTER.runner(ADAPTER.load(lambda a, b: (a * b, a)), [x, x]).run(0, [x, x])
    np.testing.assert_array_equal(two[0], x**2)


# what is refused


def test_what_gives_no_scores_is_refused(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = data
    vote = VotingClassifier([("a", DecisionTreeClassifier()), ("b", LogisticRegression())]).fit(x, labels)
    with pytest.raises(InputError, match="VotingClassifier gives class labels only"):
        ADAPTER.load(vote)
    soft = vote.set_params(voting="soft")
    np.testing.assert_allclose(ADAPTER.outputs(ADAPTER.load(soft), [x]).sum(1), 1)
    with pytest.raises(InputError, match="LogisticRegression is not fitted yet: call fit"):
        ADAPTER.outputs(ADAPTER.load(LogisticRegression()), [x])
    with pytest.raises(InputError, match="LogisticRegression is a class"):
        ADAPTER.load(LogisticRegression)
    with pytest.raises(InputError, match="is no function of arrays"):
        ADAPTER.load(x)
    with pytest.raises(InputError, match="gives nothing"):
        ADAPTER.outputs(ADAPTER.load(lambda x: None), [x])


def test_gradients_and_layers_are_refused_with_a_way_on() -> None:
    model, x = ADAPTER.load(np.tanh), np.ones((2, 3))
    runner = ADAPTER.runner(model, [x])
    for asked in (
        lambda: runner.linearize(0, [x]),
        lambda: ADAPTER.vjp(model, [x], [x]),
        lambda: ADAPTER.layer_gradients(model, [x], [x]),
    ):
        with pytest.raises(NoGradientError, match="perturbation method"):
            asked()
    assert ADAPTER.layers(model, [x]) == () and ADAPTER.activations(model, [x]) == {} and runner.layers == ()
    assert ADAPTER.layer_name(model, "conv") is None
    for asked in (lambda: ADAPTER.runner(model, [x], ["conv"]), lambda: ADAPTER.layer_object(model, "conv")):
        with pytest.raises(LayerError, match="has no layers, so none named 'conv'"):
            asked()


# whose memory


def test_a_function_can_neither_write_to_what_it_gets_nor_change_what_it_gave() -> None:
    kept = np.zeros((2, 3))

    def rude(x: np.ndarray) -> np.ndarray:
        assert x.flags.c_contiguous and x.flags.writeable
        x += 1
        kept[:] = x
        return kept

    x = np.arange(6.0).reshape(3, 2).T
    x.flags.writeable = False
    model = ADAPTER.load(rude)
    first = ADAPTER.outputs(model, [x])
    ADAPTER.outputs(model, [x * 5])
    np.testing.assert_array_equal(first, x + 1)
    np.testing.assert_array_equal(x, [[0, 2, 4], [1, 3, 5]])
    fresh = ADAPTER.tensor(x, model)
    assert fresh.flags.writeable and not np.shares_memory(fresh, x)


def test_contents_that_cannot_be_seen_are_never_taken_for_unchanged() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        return x

    model = ADAPTER.load(function)
    assert ADAPTER.twin(model) is model
    assert ADAPTER.fingerprint(model) != ADAPTER.fingerprint(model)


def test_several_threads_at_once(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = data
    model = ADAPTER.load(LogisticRegression().fit(x, labels))
    expected, found = ADAPTER.outputs(model, [x]), []
    runner = ADAPTER.runner(model, [x])
    threads = [threading.Thread(target=lambda: found.append(runner.run(0, [x])[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for result in found:
        np.testing.assert_array_equal(result, expected)


# axes


@pytest.mark.parametrize(
    ("shape", "axis", "names"),
    [
        ((2, 7), None, ("sample", "feature")),
        ((2,), None, ("sample",)),
        ((2, 8, 9, 3), 3, ("sample", "height", "width", "channel")),
        ((2, 3, 8, 9), 1, ("sample", "channel", "height", "width")),
        ((2, 4, 4, 1), 3, ("sample", "height", "width", "channel")),
        ((2, 16, 8, 9), 1, ("sample", "channel", "height", "width")),
        ((2, 100, 3), 2, ("sample", "position", "channel")),
        ((2, 3, 100), 1, ("sample", "channel", "position")),
        ((0, 0, 0, 0), 1, ("sample", "channel", "height", "width")),
    ],
)
def test_the_channel_axis_of_a_function_is_the_one_short_enough_for_colours(
    shape: tuple[int, ...], axis: int | None, names: tuple[str, ...]
) -> None:
    model = ADAPTER.load(np.tanh)
    assert ADAPTER.channel_axis(model, shape) == axis
    assert ADAPTER.dims(model, shape) == names
