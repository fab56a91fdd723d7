"""Targets with names: what they compute of arrays, how they are resolved, printed and kept."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import targets
from cfi_core.checking.targets import find_target
from cfi_core.contract import Target
from cfi_core.outputs import main_path, one_each
from cfi_core.registry import registry
from cfi_core.targets import Region, Selected, Values

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=(2, 5))
WORDS = RANDOM.normal(size=(2, 4, 6))
PIXELS = RANDOM.normal(size=(2, 3, 4, 6))
CLASSES = ("cat", "dog", "cow", "hen", "pig")


def find(registry: Any, target: Any, outputs: Any, **more: Any) -> Target:
    return find_target(registry, target, outputs, **more).target


# what they are


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (targets.class_("cat"), "class_('cat')"),
        (targets.class_(3), "class_(3)"),
        (targets.mean(), "mean()"),
        (targets.difference("cat", 3), "difference(class_('cat'), class_(3))"),
        (targets.token(-1, 7), "token(-1, 7)"),
        (targets.token(slice(1, 3), 7), "token(1:3, 7)"),
        (targets.mask("predicted", "cat"), "mask('predicted', 'cat')"),
        (targets.box(iou_with=(0, 1, 2, 3), label=4), "box((0.0, 1.0, 2.0, 3.0), 4)"),
        (Selected(((slice(1, 3), 7),)), "(1:3, 7)"),
    ],
)
def test_they_print_compare_and_are_kept(target, words):
    assert repr(target) == str(target) == words
    assert pickle.loads(pickle.dumps(target)) == target
    with pytest.raises(AttributeError):
        target.anything = 1


def test_regions_compare_by_their_pixels():
    first, second = PIXELS[0, 0] > 0, PIXELS[0, 0] > 0.1
    assert targets.mask(first, 2) == targets.mask(first.astype(int), 2) != targets.mask(second, 2)
    assert repr(targets.mask(first, 2)) != repr(targets.mask(second, 2))
    np.testing.assert_array_equal(Region.of(first).array, first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(targets.mask(first, 2))).region.array, first)


def test_only_what_stands_in_a_target_makes_two_of_them_equal():
    function: Callable[[Any], Any] = lambda scores: scores[:, 0]  # noqa: E731
    assert Values.of(targets.mean()) == Values.of(targets.mean())
    assert Values.of(function) != Values.of(function)
    assert Values.of(targets.difference(function, 1)) != Values.of(targets.difference(function, 1))


# what they compute


@pytest.mark.parametrize(
    ("target", "output", "expected"),
    [
        (targets.class_(3), SCORES, SCORES[:, 3]),
        (targets.mean(), WORDS, WORDS.mean((1, 2))),
        (targets.mean(), SCORES[:, 0], SCORES[:, 0]),
        (targets.difference(3, 1), SCORES, SCORES[:, 3] - SCORES[:, 1]),
        (targets.difference(lambda scores: scores.max(1), 1), SCORES, SCORES.max(1) - SCORES[:, 1]),
        (targets.token(-1, 2), WORDS, WORDS[:, 3, 2]),
        (targets.token(slice(1, 3), 2), WORDS, WORDS[:, 1, 2] + WORDS[:, 2, 2]),
        (Selected(((slice(1, 3), 2), (0, slice(None)))), WORDS, [WORDS[0, 1:3, 2].sum(), WORDS[1, 0].sum()]),
        (targets.class_(3), {"logits": SCORES, "cache": None}, SCORES[:, 3]),
        (targets.mask(PIXELS[0, 0] > 0, 2, axis=1), PIXELS, (PIXELS[:, 2] * (PIXELS[0, 0] > 0)).sum((1, 2))),
        (
            targets.mask(PIXELS[:, 1] > 0, 2, axis=-1),
            np.moveaxis(PIXELS, 1, -1),
            (PIXELS[:, 2] * (PIXELS[:, 1] > 0)).sum((1, 2)),
        ),
    ],
)
def test_their_values(target, output, expected):
    np.testing.assert_allclose(target(output), expected)


def test_of_several_copies_of_the_samples_each_row_has_its_own():
    """So methods lay out the points of a path: all samples, and all of them again."""
    rows, region = np.tile(WORDS, (3, 1, 1)), PIXELS[:, 1] > 0
    selected = Selected(((0, 1), (3, 2)))
    np.testing.assert_allclose(selected(rows), np.tile(selected(WORDS), 3))
    mask = targets.mask(region, 2, axis=1)
    np.testing.assert_allclose(mask(np.tile(PIXELS, (3, 1, 1, 1))), np.tile(mask(PIXELS), 3))
    np.testing.assert_allclose(mask.take([1])(PIXELS[1:]), mask(PIXELS)[1:])
    np.testing.assert_allclose(selected.take([1])(WORDS[1:]), selected(WORDS)[1:])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(3.0), [0, 1, 2]),
        (np.arange(3.0)[:, None], [0, 1, 2]),
        ([np.float64(1), np.float64(2)], [1, 2]),
        (2.5, [2.5]),
        (np.array(2.5), [2.5]),
    ],
)
def test_one_value_for_each_sample(values, expected):
    np.testing.assert_array_equal(one_each(values), expected)


@pytest.mark.parametrize("values", [np.zeros((2, 3)), np.zeros((1, 3)), "words", None])
def test_something_else_than_one_value_for_each_sample(values):
    with pytest.raises(cfi.TargetError, match="must return one value per sample"):
        one_each(values)


# boxes: an implementation that goes box by box


def overlap(one: Any, other: Any) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)


def best(corners: np.ndarray, scores: np.ndarray, allowed: np.ndarray, wanted: np.ndarray) -> float:
    overlaps = [overlap(box, wanted) if ok else 0.0 for box, ok in zip(corners, allowed, strict=True)]
    place = int(np.argmax(overlaps)) if overlaps else 0
    return overlaps[place] * scores[place] if overlaps else 0.0


def corners_of(centred: np.ndarray) -> np.ndarray:
    return np.concatenate([centred[..., :2] - centred[..., 2:] / 2, centred[..., :2] + centred[..., 2:] / 2], -1)


WANTED = np.array([[10.0, 12, 30, 40], [5, 5, 25, 22]])


def detections() -> list[dict[str, np.ndarray]]:
    found = []
    for count in (7, 4):
        low = RANDOM.uniform(0, 20, (count, 2))
        boxes = np.concatenate([low, low + RANDOM.uniform(8, 25, (count, 2))], 1)
        found.append({"boxes": boxes, "scores": RANDOM.uniform(size=count), "labels": RANDOM.integers(0, 2, count)})
    return found


def test_boxes_of_each_image():
    outputs = detections()
    for label in (0, 1, None):
        expected = [
            best(one["boxes"], one["scores"], one["labels"] == label if label is not None else one["labels"] > -1, box)
            for one, box in zip(outputs, WANTED, strict=True)
        ]
        np.testing.assert_allclose(targets.box(iou_with=WANTED, label=label)(outputs), expected)
    assert min(expected) > 0


def test_boxes_of_queries():
    logits = RANDOM.normal(size=(2, 6, 4))
    boxes = RANDOM.uniform(0.2, 0.5, (2, 6, 4))
    wanted = np.array([0.1, 0.1, 0.5, 0.4])
    powers = np.exp(logits)
    scores = (powers / powers.sum(-1, keepdims=True))[..., :-1]
    every = np.ones(6, bool)
    outputs = {"loss": None, "logits": logits, "pred_boxes": boxes, "last_hidden_state": WORDS}
    for label, chosen in ((1, scores[..., 1]), (None, scores.max(-1))):
        expected = [best(corners_of(boxes[row]), chosen[row], every, wanted) for row in range(2)]
        np.testing.assert_allclose(targets.box(iou_with=wanted, label=label)(outputs), expected)


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_of_anchors(turned):
    centred, scores = RANDOM.uniform(8, 30, (2, 30, 4)), RANDOM.uniform(size=(2, 30, 3))
    outputs = np.concatenate([centred, scores], -1)
    expected = [best(corners_of(centred[row]), scores[row, :, 2], np.ones(30, bool), WANTED[row]) for row in range(2)]
    given = outputs if turned else outputs.swapaxes(1, 2)
    np.testing.assert_allclose(targets.box(iou_with=WANTED, label=2)(given), expected)


def test_what_overlaps_nothing_is_nothing_and_told(registry):
    outputs = detections()
    outputs.append({"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)})
    target = targets.box(iou_with=(70, 70, 90, 90))
    with pytest.warns(cfi.ModelWarning, match="In sample 0 the model finds no box that overlaps"):
        found = find(registry, target, outputs, samples=3)
    np.testing.assert_array_equal(found.function(outputs), [0, 0, 0])
    with pytest.warns(cfi.ModelWarning, match="In sample 0 the model finds no box of class 9"):
        find(registry, targets.box(iou_with=(10, 10, 30, 30), label=9), outputs, samples=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iou_with": (3, 1, 2, 4)}, "is no box"),
        ({"iou_with": (1, 2, 3)}, "is no box"),
        ({}, "iou_with=None is no box"),
        ({"iou_with": (0, 0, 1, 1), "form": "other"}, "form='other' is none of 'list', 'queries', 'anchors'"),
    ],
)
def test_what_is_no_box(arguments, message):
    with pytest.raises(cfi.TargetError, match=message):
        targets.box(**arguments)


# resolved


@dataclass
class Result:
    loss: Any
    logits: Any
    cache: Any = None


@pytest.mark.parametrize(
    ("target", "outputs", "expected"),
    [
        (targets.class_("dog"), SCORES, Target(index=(1,))),
        (targets.class_(-1), SCORES, Target(index=(4,))),
        (targets.token(-1, 2), WORDS, Target(index=(3, 2))),
        (targets.token(slice(1, 3), 2), WORDS, Target(function=Selected(((slice(1, 3), 2),)))),
        (targets.difference("dog", "cat"), SCORES, Target(function=targets.difference(1, 0))),
        ((slice(2, 4), 5), WORDS, Target(function=Selected(((slice(2, 4), 5),)))),
        (slice(0, 3), SCORES, Target(function=Selected(((slice(0, 3),),)))),
        ([(slice(2, 4), 5), (-1, 0)], WORDS, Target(function=Selected(((slice(2, 4), 5), (3, 0))))),
        (np.array(["dog", "cat"]), SCORES, Target(index=((1,), (0,)))),
        (np.array(["dog", "cat"], object), SCORES, Target(index=((1,), (0,)))),
        (["predicted", "predicted"], SCORES, Target(index=tuple((int(i),) for i in SCORES.argmax(1)))),
        (["predicted", "cat"], SCORES, Target(index=((int(SCORES[0].argmax()),), (0,)))),
        ("predicted", SCORES[:, :1], Target(index=((0,), (0,)))),
        ("predicted", SCORES[:, 0], Target()),
    ],
)
def test_words_for_what_is_explained(registry, target, outputs, expected):
    assert find(registry, target, outputs, classes=CLASSES) == expected


@pytest.mark.parametrize(
    ("target", "path", "index"),
    [
        (3, ("logits",), (3,)),
        ("dog", ("logits",), (1,)),
        (targets.class_("dog"), ("logits",), (1,)),
        (("logits", 3), ("logits",), (3,)),
        (("cache", "keys", 1, 2, 3), ("cache", "keys", 1), (2, 3)),
        ([("logits", 3), ("logits", "dog")], ("logits",), ((3,), (1,))),
        ([("cache", "keys", 1, 2, 3), ("cache", "keys", 1, 0, 0)], ("cache", "keys", 1), ((2, 3), (0, 0))),
        (("logits", [3, 4]), ("logits",), ((3,), (4,))),
    ],
)
def test_a_path_leads_to_an_output_and_logits_are_meant_without_one(registry, target, path, index):
    outputs = Result(np.float64(0.3), SCORES, {"keys": [SCORES, WORDS], "flag": None})
    found = find_target(registry, target, outputs, CLASSES)
    assert (found.path, found.target) == (path, Target(index=index))


def test_samples_that_name_several_outputs(registry):
    with pytest.raises(cfi.TargetError, match="name several outputs"):
        find(registry, [("a", 3), ("b", 3)], {"a": SCORES, "b": SCORES})


@pytest.mark.parametrize(
    ("outputs", "path"),
    [
        (SCORES, ()),
        ((np.float64(0.3), SCORES), (1,)),
        ((np.zeros(1), SCORES), (1,)),
        ({"loss": np.zeros(2), "scores": SCORES}, ("scores",)),
        ({"ids": np.zeros((2, 5), int), "scores": SCORES}, ("scores",)),
        ({"a": {"b": (SCORES,)}}, ("a", "b", 0)),
        ({"logits": SCORES, "features": WORDS}, ("logits",)),
        ((SCORES, WORDS), None),
        ((np.zeros(3), np.zeros((4, 2))), None),
    ],
)
def test_which_output_is_meant(outputs, path):
    assert main_path(outputs, 2) == path


def test_a_region_is_read_from_what_is_predicted(registry):
    def channels_first(shape: Any) -> int:
        return 1

    found = find(registry, targets.mask("predicted", "dog"), PIXELS, classes=CLASSES, channel_axis=channels_first)
    region = PIXELS.argmax(1) == 1
    assert found.function == targets.mask(region, 1, axis=1)
    last = find(registry, targets.mask("predicted", 1), np.moveaxis(PIXELS, 1, -1), channel_axis=lambda shape: 3)
    assert last.function == targets.mask(region, 1, axis=-1)
    never = np.concatenate([PIXELS, PIXELS[:, :1] - 100], 1)
    with pytest.warns(cfi.ModelWarning, match="class 3 at no pixel of sample 0"):
        find(registry, targets.mask("predicted", 3), never, channel_axis=channels_first)


@pytest.mark.parametrize(
    ("target", "outputs", "message"),
    [
        (targets.class_("horse"), SCORES, "no class named 'horse'"),
        (targets.class_(5), SCORES, r"class_\(5\) is out of range"),
        (targets.class_(1), WORDS, "one of several classes"),
        (targets.token(4, 2), WORDS, "out of range"),
        (targets.token(1, 2), SCORES, r"takes an output of shape \(samples, positions, tokens\)"),
        (targets.mask(np.ones((3, 3), bool), 1), PIXELS, "Bring the region to that size"),
        (targets.mask(np.ones((3, 4, 6), bool), 1), PIXELS, "Bring the region to that size"),
        (targets.mask("largest", 1), PIXELS, "neither an array of True and False nor 'predicted'"),
        (targets.box(iou_with=(0, 0, 1, 1)), SCORES, "of no form that is known of detectors"),
        (targets.box(iou_with=[(0, 0, 1, 1)] * 3), WORDS.repeat(3, 1), "3 boxes for 2 samples"),
        ([targets.class_(1), 2], SCORES, "one target for all samples"),
        ("predicted", PIXELS, r"cfi.targets.mask\('predicted', class\)"),
        ((slice(4, 9), 0), WORDS, "out of range"),
        (3, detections(), r"Pass cfi.targets.box\(iou_with="),
    ],
)
def test_what_names_nothing(registry, target, outputs, message):
    with warnings.catch_warnings(), pytest.raises(cfi.TargetError, match=message):
        find(registry, target, outputs, classes=CLASSES)


# in calls: functions of arrays


def language(tokens: np.ndarray) -> Result:
    """A linear model of words, with a loss, a cache and labels beside its scores."""
    logits = tokens[:, :, None] * np.arange(1.0, 7)
    return Result(logits.sum(), logits, {"ids": logits.argmax(-1), "memory": object()})


TOKENS = RANDOM.normal(size=(2, 4))


@pytest.mark.parametrize(
    ("target", "weights", "words"),
    [
        ((-1, 2), [0, 0, 0, 3], "(3, 2) of output logits"),
        (targets.token(-1, 2), [0, 0, 0, 3], "token(-1, 2) of output logits"),
        ((slice(1, 3), 2), [0, 3, 3, 0], "(1:3, 2) of output logits"),
        ([(0, 1), (slice(0, 2), 0)], [[2, 0, 0, 0], [1, 1, 0, 0]], "(0, 1), (0:2, 0) of output logits"),
        (targets.mean(), [21 / 24] * 4, "mean() of output logits"),
        (("logits", lambda logits: logits[:, 0, 4]), [5, 0, 0, 0], None),
        (lambda outputs: outputs.logits[:, 0, 4] + outputs.cache["ids"][:, 0], None, None),
    ],
)
def test_outputs_as_they_come(target, weights, words, omission):
    found = cfi.attribute(language, "omit", inputs=TOKENS, target=target)
    if weights is not None:
        np.testing.assert_allclose(found.values, np.broadcast_to(weights, TOKENS.shape) * TOKENS)
    if words is not None:
        assert found.provenance["target_in_words"] == words


@pytest.mark.parametrize("which", [1.5, True, None])
def test_a_class_is_a_whole_number_or_a_name(which: object) -> None:
    """1.5 was taken for 1."""
    with pytest.raises(cfi.TargetError, match="neither an index nor a name"):
        find_target(registry(), targets.class_(which), np.zeros((2, 3), np.float32))  # type: ignore[arg-type]


def test_a_slice_that_runs_backwards_is_the_same_sum() -> None:
    """torch takes no negative steps."""
    output = np.arange(24.0).reshape(2, 4, 3)
    found = find_target(registry(), (slice(None, 0, -2), slice(np.int64(0), np.int64(2))), output).target
    assert found.function is not None
    assert found.function.rows == ((slice(1, 4, 2), slice(0, 2)),)
    np.testing.assert_array_equal(found.function(output), output[:, 3:0:-2, :2].sum((1, 2)))


# samples that are told apart


def test_some_of_the_samples_keep_what_is_theirs() -> None:
    mask = targets.mask(PIXELS[:, 1] > 0, 2, axis=1)
    apart = targets.difference(mask, targets.mask(PIXELS[0, 0] > 0, 1, axis=1))
    assert apart.samples == mask.samples == 2 and targets.difference(0, 1).samples == targets.mean().samples == 1
    np.testing.assert_allclose(apart.take([1])(PIXELS[1:]), apart(PIXELS)[1:])
    assert apart.take([1]).samples == 1
    assert targets.mean().take([1]) == targets.mean()
    with_function = targets.difference(lambda scores: scores[:, 0], 1).take([0])
    np.testing.assert_allclose(with_function(SCORES[:1]), SCORES[:1, 0] - SCORES[:1, 1])


def test_boxes_and_labels_of_each_sample_go_with_it() -> None:
    box = targets.box(iou_with=WANTED, label=[0, 1])
    assert box.samples == 2 and targets.box(iou_with=WANTED[0], label=[0, 1]).samples == 2
    assert targets.box(iou_with=WANTED[0], label=1).samples == 1
    assert box.take([1]) == targets.box(iou_with=WANTED[1:], label=[1])
    assert targets.box(iou_with=WANTED[0], label=1).take([1]) == targets.box(iou_with=WANTED[0], label=1)


def test_as_many_boxes_as_samples(registry: Any) -> None:
    with pytest.raises(cfi.TargetError, match=r"2 boxes for 3 samples\. Pass one for each, or for all"):
        find(registry, targets.box(iou_with=WANTED), [*detections(), detections()[0]], samples=3)


def test_the_end_of_a_model_in_values_of_each_sample_refuses_other_rows() -> None:
    end = Values.of(Selected(((0, 1), (3, 2))))
    np.testing.assert_allclose(end(WORDS), [WORDS[0, 0, 1], WORDS[1, 3, 2]])
    with pytest.raises(cfi.TargetError, match="another one for each of 2 samples, and the method gives the model 4"):
        end(np.tile(WORDS, (2, 1, 1)))


def test_positions_that_are_equal_are_found_again() -> None:
    kept = {targets.token(slice(1, 3), 2): "a span", targets.token(1, 2): "a place"}
    assert kept[targets.token(slice(1, 3), 2)] == "a span" and kept[targets.token(1, 2)] == "a place"
    assert repr(targets.token(slice(None, 4, 2), 2)) == "token(:4:2, 2)"


# regions


@pytest.mark.parametrize("region", [PIXELS[0, 0], np.zeros(4, bool), np.full((2, 2), 3)])
def test_what_is_no_region(region: np.ndarray) -> None:
    with pytest.raises(cfi.TargetError, match="A region is an array of True and False"):
        targets.mask(region, 0)


def test_a_target_that_is_not_resolved_or_does_not_fit_is_no_function() -> None:
    with pytest.raises(cfi.TargetError, match="is not resolved yet"):
        targets.mask("predicted", 1)(PIXELS)
    with pytest.raises(cfi.TargetError, match=r"The region is of \(2, 2\) pixels, and the output of \(4, 6\)"):
        targets.mask(np.ones((2, 2), bool), 1, axis=1)(PIXELS)
    with pytest.raises(cfi.TargetError, match="is a column of an output of shape"):
        targets.class_("cat")(SCORES)
    with pytest.raises(cfi.TargetError, match="is a column of an output of shape"):
        targets.class_(1)(WORDS)


def test_where_the_classes_are_is_what_the_user_says(registry: Any) -> None:
    last, region = np.moveaxis(PIXELS, 1, -1), PIXELS[0, 0] > 0
    expected = (PIXELS[:, 2] * region).sum((1, 2))
    for axis, output in ((1, PIXELS), (-1, last), (3, last)):
        found = find(registry, targets.mask(region, 2, axis=axis), output).function
        assert found is not None and found.axis == (1 if axis == 1 else -1)
        np.testing.assert_allclose(found(output), expected)
    with pytest.raises(cfi.TargetError, match="on axis 1 or -1, not 2"):
        find(registry, targets.mask(region, 2, axis=2), PIXELS)


@pytest.mark.parametrize(("low", "middle"), [(-1.0, 0.0), (0.0, 0.5)])
def test_of_one_column_what_is_above_the_middle_is_predicted(registry: Any, low: float, middle: float) -> None:
    """Logits have it at zero, probabilities at one half."""
    scores = np.random.default_rng(5).uniform(low, 1, (2, 1, 4, 6))
    found = find(registry, targets.mask("predicted", 0, axis=1), scores).function
    np.testing.assert_allclose(found(scores), (scores * (scores > middle)).sum((1, 2, 3)))
    with pytest.raises(cfi.TargetError, match="neither an array of True and False nor 'predicted'"):
        find(registry, targets.mask("guessed", 0, axis=1), scores)


def test_a_class_that_is_predicted_nowhere_is_told(registry: Any) -> None:
    scores = np.zeros((2, 3, 4, 6))
    scores[:, 1] = 1
    scores[0, 2, 0, 0] = 2
    with pytest.warns(cfi.ModelWarning, match="predicts class 2 at no pixel of sample 1"):
        found = find(registry, targets.mask("predicted", 2, axis=1), scores).function
    np.testing.assert_array_equal(found(scores), [2, 0])
