"""An explainer: the same values as single calls, prepared once, checked as it says, and nothing stale."""

from __future__ import annotations

import inspect
import pickle
import threading
import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.explainer import SAMPLED
from cfi_core.records import Arguments
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting

BRIDGED = (fake, fake.bridge_plugin())


def batches(count: int, samples: int = 2) -> list[np.ndarray]:
    """Of images, channels first."""
    generator = np.random.default_rng(5)
    return [generator.normal(size=(samples + number % 2, 3, 5, 7)) for number in range(count)]


def make_painting() -> Painting:
    """The model of a factory."""
    generator = np.random.default_rng(1)
    return Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))


class Counting(Painting):
    """Counts its forward passes."""

    passes = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The outputs."""
        type(self).passes += 1
        return super().__call__(images)


def test_it_takes_the_arguments_of_a_call():
    own = ("checks", "columns", "factory")
    taken = [field.name for field in fields(Arguments) if not field.kw_only and field.name != "plot"]
    parameters = inspect.signature(cfi.Explainer).parameters
    assert [name for name in parameters if name not in own] == taken
    of_call = inspect.signature(cfi.attribute).parameters
    for name in taken:
        assert (
            parameters[name].default == of_call[name].default
            and parameters[name].annotation == of_call[name].annotation
        )


@pytest.mark.parametrize("plugins", [(fake,), BRIDGED], ids=["conversion", "bridge"])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("press_gradient", {"target": 3}),
        ("press_gradient", {"target": -1}),
        ("press_map", {"target": 1, "layer": "mix"}),
    ],
)
def test_every_batch_has_the_values_of_a_call(painting, plugins, method, arguments):
    with use_plugins(*plugins):
        explainer = cfi.Explainer(painting, method, checks="first", **arguments)
        for number, images in enumerate(batches(5)):
            found, wanted = explainer(images), cfi.attribute(painting, method, inputs=images, **arguments)
            np.testing.assert_array_equal(found.values, wanted.values)
            assert found.dims == wanted.dims and found.layer == wanted.layer and found.route == wanted.route
            np.testing.assert_array_equal(found.inputs[0], images)
            assert (found.provenance["checks"] == "in full") == (number == 0)


def test_targets_come_with_the_batches(painting, registry):
    explainer = cfi.Explainer(painting, "press_gradient", checks="first")
    for images in batches(4):
        target = list(range(len(images)))
        wanted = cfi.attribute(painting, "press_gradient", inputs=images, target=target)
        found = explainer(images, target)
        np.testing.assert_array_equal(found.values, wanted.values)
        assert found.provenance["target"] == wanted.provenance["target"]


def test_what_is_predicted_is_asked_of_every_batch(painting, registry):
    explainer = cfi.Explainer(painting, "press_gradient", target="predicted", checks="first")
    for images in batches(6):
        found = explainer(images)
        predicted = [(int(row),) for row in painting(images).argmax(1)]
        assert list(found.provenance["target"]) == predicted
        assert [one["class"] for one in found.provenance["predicted"]] == [row for (row,) in predicted]


def test_outputs_that_are_not_known_are_not_told(painting, registry):
    explainer = cfi.Explainer(painting, "press_gradient", target=0, checks="first")
    first, second = (explainer(images) for images in batches(2))
    assert first.provenance["predicted"] is not None and second.provenance["predicted"] is None


def test_a_batch_that_is_not_checked_in_full_runs_your_model_in_the_method_alone(registry):
    model = Counting(np.ones((4, 3)), np.ones((5, 4)))
    with use_plugins(*BRIDGED):
        explainer = cfi.Explainer(model, "press_gradient", target=0, checks="first")
        images = batches(1)[0]
        explainer(images)
        Counting.passes = 0
        explainer(images)
        light, Counting.passes = Counting.passes, 0
        explainer(images, check=True)
        assert light < Counting.passes


def test_the_certificate_of_a_batch_says_that_its_run_was_not_compared(painting, registry):
    explainer = cfi.Explainer(painting, "press_gradient", target=0, checks="first")
    first, second = (explainer(images) for images in batches(2))
    assert "others of its kind were" not in first.certificate.report()
    assert "the run not compared: others of its kind were" in second.certificate.report()


@pytest.mark.parametrize("plugins", [(fake,), BRIDGED], ids=["conversion", "bridge"])
def test_a_model_that_changes_is_noticed(painting, plugins):
    with use_plugins(*plugins):
        explainer = cfi.Explainer(painting, "press_gradient", target=2, checks="first")
        images = batches(1)[0]
        before = explainer(images).values
        painting.head = painting.head + 1
        changed = explainer(images)
        assert changed.provenance["checks"] == "in full"
        np.testing.assert_array_equal(
            changed.values, cfi.attribute(painting, "press_gradient", inputs=images, target=2).values
        )
        assert np.abs(changed.values - before).max() > 0.01


def test_checks_are_drawn_by_the_seed(painting, registry):
    images = batches(1)[0]

    def drawn(seed: int) -> list[bool]:
        explainer = cfi.Explainer(painting, "press_gradient", target=0, seed=seed)
        return [explainer(images).provenance["checks"] == "in full" for _ in range(10 * SAMPLED)]

    first = drawn(0)
    assert first == drawn(0) != drawn(1)
    assert first[0] and 4 <= sum(first) <= 20


@pytest.mark.parametrize(("checks", "count"), [("every", 4), ("first", 1)])
def test_checks_can_be_chosen(painting, registry, checks, count):
    explainer = cfi.Explainer(painting, "press_gradient", target=0, checks=checks)
    found = [explainer(images).provenance["checks"] == "in full" for images in batches(4)]
    assert sum(found) == count
    assert explainer(batches(1)[0], check=True).provenance["checks"] == "in full"


def test_another_kind_of_batch_is_checked_in_full(painting, registry):
    explainer = cfi.Explainer(painting, "press_gradient", target=0, checks="first")
    kinds = [np.ones((2, 3, 5, 7)), np.ones((2, 3, 6, 6)), np.ones((1, 3, 6, 6)), np.ones((4, 3, 5, 7), np.float32)]
    assert [explainer(images).provenance["checks"] == "in full" for images in kinds] == [True, True, False, True]


@pytest.mark.parametrize(
    ("inputs", "target", "error", "message"),
    [
        (np.ones((2, 3, 5, 7)), 9, cfi.TargetError, "9"),
        (np.ones((2, 3, 5, 7)), [0], cfi.TargetError, "1 targets for 2 samples"),
        (np.full((2, 3, 5, 7), np.nan), 0, cfi.CFIError, "NaN"),
        (np.ones((0, 3, 5, 7)), 0, cfi.InputError, "non-zero"),
        (np.ones((2, 4, 5, 7)), 0, cfi.InputError, "channels"),
        (None, 0, cfi.ArgumentError, "inputs"),
    ],
)
def test_what_a_batch_has_wrong_is_refused_as_by_a_call(painting, registry, inputs, target, error, message):
    explainer = cfi.Explainer(painting, "press_gradient", inputs=np.ones((2, 3, 5, 7)), target=1, checks="first")
    explainer(np.ones((2, 3, 5, 7)))
    with pytest.raises(error, match=message):
        explainer(inputs, target)
    assert explainer(np.ones((2, 3, 5, 7))).values.shape == (2, 3, 5, 7)  # goes on


def test_it_is_prepared_when_inputs_are_given(painting, registry):
    explainer = cfi.Explainer(painting, "press_gradient", inputs=np.ones((2, 3, 5, 7)), target=0)
    assert explainer.plan.route.names == ("paint2print",) and "prepared" in repr(explainer)
    later = cfi.Explainer(painting, "press_gradient", target=0)
    with pytest.raises(cfi.ArgumentError, match="prepare"):
        _ = later.plan
    assert later.prepare(np.ones((2, 3, 5, 7))).route.names == ("paint2print",)


def test_a_target_may_come_with_each_batch_all_the_same(painting, registry):
    explainer = cfi.Explainer(painting, "press_gradient", inputs=np.ones((2, 3, 5, 7)))
    assert explainer(np.ones((2, 3, 5, 7)), 2).provenance["target"] == (2,)
    with pytest.raises(cfi.TargetError, match="Pass target="):
        explainer(np.ones((2, 3, 5, 7)))


def test_what_cannot_be_translated_is_refused_when_it_is_made(registry):
    model = make_painting()
    model.distorts = True
    with pytest.raises(cfi.UnfaithfulTranslationError):
        cfi.Explainer(model, "press_gradient", inputs=batches(1)[0], target=0)


def test_a_method_of_a_layer_needs_one(painting, registry):
    with pytest.raises(cfi.LayerError, match="pass layer="):
        cfi.Explainer(painting, "press_map", inputs=np.ones((2, 3, 5, 7)), target=0)
    with pytest.raises(cfi.LayerError, match="pass layer="):
        cfi.Explainer(painting, "press_map", target=0)(np.ones((2, 3, 5, 7)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checks": "some"}, "'every', 'sampled', 'first'"),
        ({"columns": {"target": "label"}}, "columns="),
        ({"columns": "image"}, "columns="),
        ({"factory": True, "model": "no_function"}, "package.module:function"),
        ({"head": "other"}, "head="),
        ({"seed": -1}, "seed="),
    ],
)
def test_wrong_arguments(painting, registry, arguments, message):
    with pytest.raises(cfi.ArgumentError, match=message):
        cfi.Explainer(**{"model": painting, "method_key": "press_gradient", **arguments})


def test_an_unknown_argument_is_told_with_the_call_as_it_must_be(painting, registry):
    with pytest.raises(cfi.ArgumentError, match=r"Explainer\("):
        cfi.Explainer(painting, "press_gradient", targets=3)


def test_it_tells_what_it_was_asked(painting, registry):
    explainer = cfi.Explainer(painting, "press_map", target=1, layer="mix", seed=3, batch_size=2)
    asked = explainer.asked
    assert (asked.model, asked.method_key, asked.target, asked.layer) == (painting, "press_map", 1, "mix")
    assert (asked.seed, asked.batch_size, asked.inputs) == (3, 2, None)


def test_pickled_it_is_the_same_question(painting, registry):
    images = batches(1)[0]
    explainer = cfi.Explainer(painting, "press_map", inputs=images, target=1, layer="mix", seed=3)
    again = pickle.loads(pickle.dumps(explainer))
    assert "not prepared yet" in repr(again)
    np.testing.assert_array_equal(again(images).values, explainer(images).values)


@pytest.mark.parametrize("factory", [make_painting, f"{__name__}:make_painting"])
def test_a_factory_makes_the_model_once(registry, factory):
    explainer = cfi.Explainer(factory, "press_gradient", target=0, factory=True)
    images = batches(1)[0]
    found = pickle.loads(pickle.dumps(explainer))
    np.testing.assert_array_equal(found(images).values, explainer(images).values)
    assert found._model() is found._model()


@pytest.mark.parametrize("factory", [lambda: None, lambda: 1 / 0, "no_module_of_this_name:make"])
def test_a_factory_that_makes_nothing(registry, factory):
    with pytest.raises(cfi.ArgumentError, match="factory"):
        cfi.Explainer(factory, "press_gradient", target=0, factory=True)(batches(1)[0])


def test_batches_of_columns(painting, registry):
    explainer = cfi.Explainer(painting, "press_gradient", columns={"inputs": "image", "target": "label"})
    images = batches(1)[0]
    batch = {"image": images, "label": np.array([3, 1]), "id": np.array(["a", "b"])}
    given = explainer(batch)
    assert list(given) == ["image", "label", "id", "attribution"] and given["id"] is batch["id"]
    wanted = cfi.attribute(painting, "press_gradient", inputs=images, target=[3, 1])
    np.testing.assert_array_equal(given["attribution"], wanted.values)
    assert "attribution" not in batch
    with pytest.raises(cfi.ArgumentError, match="no column 'label'"):
        explainer({"image": images})
    with pytest.raises(cfi.ArgumentError, match="dicts"):
        explainer(images)
    with pytest.raises(cfi.ArgumentError, match="'attribution' already"):
        explainer({**batch, "attribution": images})


def test_threads_share_one(painting, registry):
    explainer = cfi.Explainer(painting, "press_gradient", target=2, checks="first")
    images = batches(12)
    wanted = [cfi.attribute(painting, "press_gradient", inputs=one, target=2).values for one in images]
    explainer(images[0])
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: explainer(images[i]).values})) for i in range(len(images))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, values in enumerate(wanted):
        np.testing.assert_array_equal(found[number], values)


def test_warnings_are_at_the_users_line(registry):
    model = Painting(np.ones((4, 3)), np.ones((5, 4)))
    explainer = cfi.Explainer(model, "press_gradient", target=2, checks="first")
    zeros = np.zeros((2, 3, 5, 7))
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            explainer(zeros)
        assert all(one.filename == __file__ for one in caught)
