"""Targets and neurons in all the words that users have for them, against outputs of every structure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from cfi_core.checking.targets import find_target, position_of, resolve_neuron
from cfi_core.contract import Target
from cfi_core.errors import ArgumentError, TargetError

SCORES = np.zeros((2, 5))
BOXES = np.zeros((2, 3, 4))
ONE_EACH = np.zeros((2, 1))
ALONE = np.zeros(2)


@dataclass
class Detection:
    scores: np.ndarray
    boxes: np.ndarray


def first(output: Any) -> Any:
    return output


def resolve_target(registry: Any, target: Any, outputs: Any, classes: Any = None) -> Target:
    """With the key of the output that is meant, where that leads there."""
    found = find_target(registry, target, outputs, classes)
    return replace(found.target, output=found.path[0]) if len(found.path) == 1 else found.target


# one tensor


@pytest.mark.parametrize(
    ("target", "output", "index"),
    [
        (3, SCORES, (3,)),
        (-1, SCORES, (4,)),
        (np.int64(2), SCORES, (2,)),
        ((3,), SCORES, (3,)),
        ([3, -5], SCORES, ((3,), (0,))),
        ([(3,), [1]], SCORES, ((3,), (1,))),
        (np.array([3, 1]), SCORES, ((3,), (1,))),
        (np.array(4), SCORES, (4,)),
        (np.array([4]), SCORES, (4,)),
        (np.array([[4]]), SCORES, (4,)),
        ((2, -1), BOXES, (2, 3)),
        ([(2, 0), (0, 1)], BOXES, ((2, 0), (0, 1))),
        (np.array([[2, 0], [0, 1]]), BOXES, ((2, 0), (0, 1))),
        (3, np.zeros((2, 5, 1, 1)), (3, 0, 0)),
        ([3, (1, 0)], np.zeros((2, 5, 1, 1)), ((3, 0, 0), (1, 0, 0))),
        (None, ONE_EACH, (0,)),
        (None, np.zeros((2, 1, 1)), (0, 0)),
        (None, ALONE, None),
    ],
)
def test_words_for_an_index(registry, target, output, index):
    assert resolve_target(registry, target, output) == Target(index=index)


@pytest.mark.parametrize(
    ("target", "output", "message"),
    [
        (None, SCORES, r"gives 5 values per sample. Pass target=, for example target=0"),
        (None, BOXES, r"output of shape \(2, 3, 4\). Pass target= with a tuple of 2 indices into \(3, 4\)"),
        (5, SCORES, r"The target 5 is out of range.*between 0 and 4"),
        (-6, SCORES, "out of range"),
        ("cat", SCORES, "'cat' is no index. Pass a class index"),
        (True, SCORES, "True is no index"),
        ((True,), SCORES, "True is no index"),
        ((0, True), BOXES, "out of range"),
        (1.0, SCORES, r"holds no indices. Class indices are whole numbers: .*int\(target\)"),
        (np.array([0.5, 1]), SCORES, "holds no indices"),
        ([1, 2, 3], SCORES, "3 targets for 2 samples"),
        ([1], SCORES, "1 targets for 2 samples"),
        ((1, 2), SCORES, r"has 2 indices for an output of shape \(2, 5\).* One class per sample is a list"),
        (1, BOXES, r"The target 1 has 1 indices for an output of shape \(2, 3, 4\). Pass a tuple of 2"),
        ((1, 4), BOXES, r"The target \(1, 4\) is out of range"),
        ([1, (2, 3)], BOXES, "The target 1 has 1 indices"),
        (1, np.zeros((2, 5, 1, 2)), r"has 1 indices for an output of shape \(2, 5, 1, 2\)"),
        (5, np.zeros((2, 5, 1)), "The target 5 is out of range"),
    ],
)
def test_what_names_nothing_is_refused(registry, target, output, message):
    with pytest.raises(TargetError, match=message):
        resolve_target(registry, target, output)


def test_a_function_is_given_the_tensor(registry):
    assert resolve_target(registry, first, SCORES) == Target(function=first)


# structures


PAIR = (SCORES, BOXES)
NAMED = {"scores": SCORES, "boxes": BOXES}


@pytest.mark.parametrize(
    ("outputs", "target", "resolved", "position"),
    [
        (PAIR, (0, 3), Target(output=0, index=(3,)), 0),
        (PAIR, (1, 2, -1), Target(output=1, index=(2, 3)), 1),
        (PAIR, (0, [3, 1]), Target(output=0, index=((3,), (1,))), 0),
        (PAIR, (1, [(0, 1), (2, 3)]), Target(output=1, index=((0, 1), (2, 3))), 1),
        (PAIR, (0, np.array([3, 1])), Target(output=0, index=((3,), (1,))), 0),
        (PAIR, (1, first), Target(output=1, function=first), 1),
        (PAIR, first, Target(function=first), 0),
        (list(PAIR), (0, 3), Target(output=0, index=(3,)), 0),
        (NAMED, ("boxes", 1, 1), Target(output="boxes", index=(1, 1)), 1),
        (Detection(SCORES, BOXES), ("boxes", 1, 1), Target(output="boxes", index=(1, 1)), 1),
        (((SCORES, SCORES), ALONE), (1,), Target(output=1), 2),
        ({"a": None, "b": SCORES}, ("b", 0), Target(output="b", index=(0,)), 0),
        ({"scores": SCORES}, 3, Target(output="scores", index=(3,)), 0),
        ({"scores": SCORES}, (3,), Target(output="scores", index=(3,)), 0),
        ({"scores": SCORES}, ("scores", 3), Target(output="scores", index=(3,)), 0),
        ((BOXES,), (1, 2), Target(output=0, index=(1, 2)), 0),
        ((BOXES,), (0, 1, 2), Target(output=0, index=(1, 2)), 0),
        ((ONE_EACH,), None, Target(output=0, index=(0,)), 0),
    ],
)
def test_an_output_of_several_is_named_first(registry, outputs, target, resolved, position):
    found = resolve_target(registry, target, outputs)
    assert found == resolved and position_of(found, outputs) == position


@pytest.mark.parametrize(
    ("outputs", "target", "message"),
    [
        (
            PAIR,
            3,
            r"has 2 outputs: 0, 1. Pass a tuple that begins with one of them, for example target=\(0, 0\); got 3",
        ),
        (PAIR, (2, 0), r"has 2 outputs"),
        (PAIR, None, "has 2 outputs"),
        (PAIR, (), "has 2 outputs"),
        (PAIR, [0, 1], "has 2 outputs"),
        (NAMED, ("labels", 0), r"has 2 outputs: 'scores', 'boxes'.*target=\('scores', 0\)"),
        (NAMED, ("scores",), "gives 5 values per sample"),
        (NAMED, ("scores", 5), "out of range"),
        (NAMED, ("boxes", 1), r"has 1 indices for an output of shape \(2, 3, 4\)"),
        (((SCORES, SCORES), ALONE), (0, 2), r"Output 0 of the model has 2 outputs: 0, 1.*target=\(0, 0, 0\)"),
    ],
)
def test_an_output_that_is_not_there_is_refused(registry, outputs, target, message):
    with pytest.raises(TargetError, match=message):
        resolve_target(registry, target, outputs)


def test_without_a_target_the_first_output_counts():
    assert position_of(None, PAIR) == 0


# neurons


@pytest.mark.parametrize(
    ("neuron", "channel_allowed", "resolved"),
    [
        (None, False, None),
        (first, False, first),
        ((1, 2, 3), False, (1, 2, 3)),
        ([-1, np.int64(2), -3], False, (3, 2, 4)),
        ((slice(1, 3), -1, slice(None)), False, (slice(1, 3), 4, slice(None))),
        (2, True, (2,)),
        ((1, 2, 3), True, (1, 2, 3)),
    ],
)
def test_words_for_a_unit(neuron, channel_allowed, resolved):
    assert resolve_neuron(neuron, (2, 4, 5, 7), channel_allowed=channel_allowed, layer="conv") == resolved


def test_a_unit_of_a_layer_whose_other_axes_have_length_one():
    assert resolve_neuron(3, (2, 4, 1, 1), channel_allowed=False, layer="pool") == (3, 0, 0)
    with pytest.raises(ArgumentError, match="neuron=4 is out of range"):
        resolve_neuron(4, (2, 4, 1), channel_allowed=False, layer="pool")


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (2, r"neuron=2 has 1 indices, but layer 'conv' gives \(4, 5, 7\) values per sample"),
        ((4, 0, 0), r"neuron=\(4, 0, 0\) is out of range"),
        ((0, 0, -8), "out of range"),
        ((0, 0, True), "out of range"),
        ((0, 0, 1.0), "out of range"),
    ],
)
def test_what_is_no_unit_is_refused(neuron, message):
    with pytest.raises(ArgumentError, match=message):
        resolve_neuron(neuron, (2, 4, 5, 7), channel_allowed=False, layer="conv")


@pytest.mark.parametrize("units", [slice(4, 9), slice(2, 2), slice(0, 4, 0), slice(0.5), slice(False, True)])
def test_a_slice_without_units_is_refused(units):
    with pytest.raises(ArgumentError, match="out of range"):
        resolve_neuron((units, 0, 0), (2, 4, 5, 7), channel_allowed=False, layer="conv")


@pytest.mark.parametrize("neuron", [slice(0, 2), (slice(0, 2), 0, 0)])
def test_several_units_are_not_visualised(neuron):
    with pytest.raises(ArgumentError, match="several units"):
        resolve_neuron(neuron, (2, 4, 5, 7), channel_allowed=True, layer="conv")


CLASSES = ("cat", "dog", "cow", "hen", "cow")


@pytest.mark.parametrize(
    ("target", "index"),
    [
        ("dog", (1,)),
        (["dog", "cat"], ((1,), (0,))),
        (["dog", 3], ((1,), (3,))),
        (("hen",), (3,)),
        ("predicted", tuple((int(place),) for place in SCORES.argmax(1))),
    ],
)
def test_classes_by_name(registry, target, index):
    assert resolve_target(registry, target, SCORES, CLASSES) == Target(index=index)


def test_an_output_and_a_class_by_name(registry):
    outputs = {"cat": ONE_EACH, "scores": SCORES}
    assert resolve_target(registry, ("scores", "cat"), outputs, CLASSES) == Target(output="scores", index=(0,))
    assert resolve_target(registry, ("scores", "predicted"), outputs, CLASSES).output == "scores"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("dogs", r"no class named 'dogs'. Near: 'dog'"),
        ("cow", "2 classes named 'cow'"),
        (["cat", "pig"], "no class named 'pig'"),
    ],
)
def test_names_of_no_class_or_of_several(registry, target, message):
    with pytest.raises(TargetError, match=message):
        resolve_target(registry, target, SCORES, CLASSES)


def test_the_predicted_class_is_one_of_several(registry):
    with pytest.raises(TargetError, match=r"largest of several classes, .* shape \(2, 3, 4\)"):
        resolve_target(registry, "predicted", BOXES)
