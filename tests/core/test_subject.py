"""A model made ready for a metric: checked, translated, certified, seeded; everything as before at the end."""

import random

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.specs import Head, Need
from cfi_core.subject import prepare_subject, samples_apart
from cfi_core.testing import fake, use_plugins

NEEDS = frozenset({Need.FORWARD})


@pytest.fixture(autouse=True)
def plugins():
    with use_plugins(fake, fake.bridge_plugin):
        yield


@pytest.fixture
def painting():
    generator = np.random.default_rng(0)
    return fake.Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(2, 3, 4, 6))


def test_a_model_where_it_lives(painting, images):
    with prepare_subject(painting, "paint", NEEDS, inputs=images, target=[1, -1], seed=3) as subject:
        assert subject.route == () and subject.framework == "paint" and subject.seed == 3
        assert subject.dims == (("sample", "channel", "height", "width"),)
        assert subject.target.indices(2) == ((1,), (4,))
        np.testing.assert_allclose(subject.outputs[0], painting(images))
        assert subject.layer_names(["mix"]) == ["mix"]
        with pytest.raises(cfi.LayerError, match="has no layer 'max'"):
            subject.layer_names(["max"])


def test_a_model_in_another_framework(painting, images):
    with prepare_subject(painting, "print", NEEDS, inputs=images, target=0) as subject:
        (axes,) = subject.input_axes
        assert subject.route and subject.arrays[0].shape == images.shape
        np.testing.assert_array_equal(subject.tensors[0], images.transpose(axes))


def test_arguments_in_the_layout_of_a_translated_model(painting, images):
    given = {
        "method_key": "press_gradient",
        "toolset": "press",
        "layer": "mix",
        "baselines": np.arange(72.0).reshape(1, 3, 4, 6),
    }
    with prepare_subject(painting, "print", NEEDS, inputs=images, target=0, translator="conversion") as subject:
        carried = subject.to_layout(given)
        (axes,) = subject.input_axes
        np.testing.assert_array_equal(carried["baselines"], given["baselines"].transpose(axes))
        assert carried["layer"] == subject.layer_names(["mix"])[0] and carried["method_key"] == "press_gradient"
        with pytest.raises(cfi.ArgumentError, match="neuron of your model cannot be carried"):
            subject.to_layout({**given, "neuron": (1, 2, 3)})
    with prepare_subject(painting, "paint", NEEDS, inputs=images, target=0) as subject:
        assert subject.to_layout(given)["baselines"] is given["baselines"]


def test_generators_are_seeded_inside_and_the_users_outside(painting, images):
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)
    with prepare_subject(painting, "paint", NEEDS, inputs=images, target=0, seed=8) as subject:
        first = np.random.rand(3), random.random()
        subject.reseed()
        second = np.random.rand(3), random.random()
        np.testing.assert_array_equal(first[0], second[0])
        assert first[1] == second[1]
    assert (random.random(), np.random.rand()) == expected


def test_what_a_call_refuses_is_refused(painting, images):
    with pytest.raises(cfi.TargetError), prepare_subject(painting, "paint", NEEDS, inputs=images, target=9):
        pass
    with pytest.raises(cfi.RouteError), prepare_subject(painting, "silk", NEEDS, inputs=images, target=0):
        pass
    wrong = {"inputs": images, "target": 0, "head": Head.LOGIT, "seed": -1}
    with pytest.raises(cfi.ArgumentError, match="seed"), prepare_subject(painting, "paint", NEEDS, **wrong):
        pass


def test_the_run_of_a_converted_model_is_compared_unless_its_weights_are_changed(painting, images, monkeypatch):
    compared = []
    monkeypatch.setattr("cfi_core.subject.confirm_run", lambda call, prepared, carried, run: compared.append(run))
    given = {"inputs": images, "target": 0}
    for translator, alters, count in (("bridge", False, 0), ("conversion", False, 1), ("conversion", True, 1)):
        with prepare_subject(painting, "print", NEEDS, translator=translator, alters_model=alters, **given):
            pass
        assert len(compared) == count
    with pytest.raises(KeyError), prepare_subject(painting, "print", NEEDS, translator="conversion", **given):
        raise KeyError
    assert len(compared) == 1


# inputs that go by name


WEIGHTS = np.arange(1.0, 13.0).reshape(4, 3)


def masked(x: np.ndarray, mask: np.ndarray, factor: float = 1.0) -> np.ndarray:
    return factor * (x * mask) @ WEIGHTS


def named(mask: np.ndarray) -> dict[str, object]:
    return {"x": np.arange(8.0).reshape(2, 4) + 1, "mask": mask, "factor": 2.0}


def test_what_is_held_is_part_of_the_model():
    mask = np.array([[1, 0, 1, 1], [1, 0, 1, 1]])
    given = named(mask)
    with prepare_subject(masked, "numpy", NEEDS, inputs=given, target=1) as subject:
        (rows,) = subject.tensors
        np.testing.assert_array_equal(rows, given["x"])
        other = np.ones((3, 4))
        np.testing.assert_allclose(subject.model(other), 2 * (other * mask[0]) @ WEIGHTS)
        whole = subject.users_inputs(other)
        assert sorted(whole) == ["factor", "mask", "x"] and whole["factor"] == 2.0
        np.testing.assert_array_equal(whole["mask"], np.repeat(mask[:1], 3, 0))
        np.testing.assert_allclose(masked(**whole), 2 * (other * mask[0]) @ WEIGHTS)


def test_samples_that_hold_something_else_are_measured_one_at_a_time():
    mask = np.array([[1, 0, 1, 1], [0, 1, 1, 0]])
    assert samples_apart(masked, named(mask)) == 2
    assert samples_apart(masked, named(mask[[0, 0]])) == 1
    with (
        pytest.raises(cfi.InputError, match="Each sample has its own mask: measure one sample at a time"),
        prepare_subject(masked, "numpy", NEEDS, inputs=named(mask), target=1),
    ):
        pass
    one = {name: value[1:] if isinstance(value, np.ndarray) else value for name, value in named(mask).items()}
    with prepare_subject(masked, "numpy", NEEDS, inputs=one, target=1) as subject:
        np.testing.assert_allclose(subject.model(one["x"]), 2 * (one["x"] * mask[1]) @ WEIGHTS)


def test_inputs_without_names_need_one_subject(painting, images):
    assert samples_apart(painting, images) == 1
    with prepare_subject(painting, "paint", NEEDS, inputs=images, target=0) as subject:
        np.testing.assert_array_equal(subject.users_inputs(images[:1]), images[:1])
        np.testing.assert_array_equal(subject.users_tensor(images), images)
