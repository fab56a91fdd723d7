"""What is no model, inputs that are no arrays, targets and layers of the wrong kind: each says what to do."""

from pathlib import Path

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.testing.fake import Painting

WEIGHTS = {"mix.weight": np.zeros((2, 3)), "mix.bias": np.zeros(2)}


Adam = type("Adam", (type("Optimizer", (), {}),), {})


class Trainer:
    """Holds a model, and has properties that fail."""

    def __init__(self, model):
        self.network = model

    @property
    def model(self):
        raise RuntimeError("no run yet")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Painting, r"the class Painting, and no instance of it. Make one \(model = Painting\(…\)\)"),
        (WEIGHTS, "a dict of weights by name .'mix.weight', 'mix.bias'.*load_state_dict"),
        ({"params": {"mix": {"kernel": np.zeros(2)}}}, "a dict of weights by name"),
        (
            {"epoch": 3, "weights": WEIGHTS},
            "a checkpoint: a dict of 'epoch', 'weights', whose weights stand under 'weights'",
        ),
        ({"note": "hi"}, "The model is a dict of 'note'"),
        (Adam(), "is an optimizer .Adam.*Pass the model that it trains"),
        (None, "The model is None"),
        ("net.keras", r"cfi.load_model\('net.keras'\) gives the model of a file; pass that. There is no 'net.keras'"),
        (Path("net.pt"), r"cfi.load_model\('net.pt'\)"),
        ("weights/net.h5", r"cfi.load_model\('weights/net.h5'\)"),
        ("net.safetensors", r"cfi.load_model\('net.safetensors'\)"),
        ("resnet18", "The model is the string 'resnet18', which is no path of a model's file"),
        ("", "which is no path"),
        ("\0", "which is no path"),
        (np.zeros((2, 3)), "a ndarray of numbers. The model comes first"),
        ([np.zeros(2), np.zeros(3)], "a list of ndarray. Pass a model"),
    ],
    ids=lambda value: str(value)[:30].replace("\0", "null"),
)
def test_what_is_no_model_says_what_to_pass(registry, images, model, said):
    for call in (cfi.attribute, cfi.plan):
        with pytest.raises(cfi.UnknownFrameworkError, match=said):
            call(model, "press_gradient", inputs=images, target=0)
    with pytest.raises(cfi.UnknownFrameworkError, match=said):
        cfi.layers(model)


def test_what_holds_a_model_says_where(painting, images):
    with pytest.raises(cfi.UnknownFrameworkError, match=r"a Trainer, which holds a Painting: pass its .network"):
        cfi.attribute(Trainer(painting), "press_gradient", inputs=images)
    with pytest.raises(cfi.UnknownFrameworkError, match="a dict that holds one: pass what stands under 'best'"):
        cfi.attribute({"best": painting}, "press_gradient", inputs=images)
    with pytest.raises(cfi.UnknownFrameworkError, match=r"a list of 2 models. Pass one of them, or all to cfi.compare"):
        cfi.attribute([painting, painting], "press_gradient", inputs=images)


def test_a_file_that_is_there_is_not_said_to_be_missing(registry, tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(b"")
    with pytest.raises(cfi.UnknownFrameworkError) as caught:
        cfi.layers(path)
    assert "cfi.load_model" in str(caught.value)
    assert "There is no" not in str(caught.value)


class Loader:
    """As data loaders are: it has a length, and gives batches."""

    dataset = ()

    def __len__(self):
        return 1

    def __iter__(self):
        yield np.zeros((2, 3))


class Picture:
    """As an open picture is."""

    mode, size = "RGB", (7, 5)

    def convert(self, mode):
        return self

    def getbands(self):
        return ("R", "G", "B")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (Loader(), r"is a Loader, which gives batches .*next\(iter\(loader\)\)"),
        ((one for one in ()), "is a generator, which gives batches"),
        (Picture(), "is a picture .Picture.*prepared as it was trained"),
        ([Picture(), Picture()], "is a list of 2 pictures.*stack them"),
        ("cat.jpg", "is the path 'cat.jpg'.*Read the file"),
        (Path("cat.jpg"), "is the path 'cat.jpg'"),
        (["a.png", "b.png"], "is a list of 2 paths"),
        ("a fine film", "is a text, and the model takes an array of numbers. Pass tokens, or a pipeline"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_inputs_that_are_no_arrays_say_how_to_make_some(painting, inputs, said):
    with pytest.raises(cfi.InputError, match=said):
        cfi.attribute(painting, "press_gradient", inputs=inputs, target=0)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (np.eye(5)[:2], "one-hot: pass the class of each sample, target.argmax"),
        (np.eye(5, dtype=int)[:2], "one-hot"),
        ([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]], "one-hot"),
        (np.array([1.0, 3.0]), r"whole numbers: pass target.astype\(int\)"),
        ([1.0, 3.0], "whole numbers"),
        (np.full((2, 5), 0.2), "holds no indices. Pass integers"),
    ],
    ids=str,
)
def test_targets_of_the_wrong_kind_say_the_right_one(painting, images, target, said):
    with pytest.raises(cfi.TargetError, match=said):
        cfi.attribute(painting, "press_gradient", inputs=images, target=target)


@pytest.mark.parametrize("target", [1, -2, [0, 1]])
def test_the_one_value_of_a_sigmoid_is_class_one(registry, images, target):
    generator = np.random.default_rng(1)
    single = Painting(generator.normal(size=(4, 3)), generator.normal(size=(1, 4)))
    with pytest.raises(cfi.TargetError, match=r"one value for each sample.*stands for class 1.*-outputs\[:, 0\]"):
        cfi.attribute(single, "press_gradient", inputs=images, target=target)
    same = [cfi.attribute(single, "press_gradient", inputs=images, target=one, seed=1) for one in (None, 0, -1)]
    assert all(np.array_equal(same[0].values, other.values) for other in same[1:])


class Mix:
    """A layer's class, by its name."""


class Named:
    """A layer of another model."""

    name = "relu"


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (1, "layer=1 is an index, and layers go by name. The one at 1 in cfi.layers.model. is 'relu'"),
        (-1, "The one at -1 in cfi.layers.model. is 'head'"),
        (9, "layer=9 is an index, and layers go by name. It has: mix"),
        (Mix, "is the class Mix, and no layer of the model. Of this class are 'mix'"),
        (np.zeros(3), "a ndarray of numbers, such as a layer's weight"),
        (Named(), "another model's .or copy's. layer, of a name that this model has, too. Pass layer='relu'"),
        ({}, "The dict given as layer is not part of this model"),
    ],
    ids=str,
)
def test_layers_of_the_wrong_kind_say_the_right_one(painting, images, layer, said):
    for call in (cfi.attribute, cfi.plan):
        with pytest.raises(cfi.LayerError, match=said):
            call(painting, "press_layer", inputs=images, layer=layer)


def test_a_call_that_waits_for_a_layer_names_the_usual_one(painting, images):
    pending = cfi.attribute(painting, "press_layer", inputs=images)
    assert isinstance(pending, cfi.PendingLayer)
    assert pending.usual.name == "relu"
    assert "relu  Relu  (4, 5, 7)  ← usual" in str(pending)
    assert "Usual is 'relu', the last layer with axes of space; layer='auto' finds" in str(pending)
    assert "usual" in pending._repr_html_()
    assert ">relu</td>" in pending._repr_html_()
    with pytest.raises(cfi.LayerError, match=r"Pass a layer: one of mix, .*Usual is 'relu'"):
        cfi.finish_execution_with_layer(pending, None)


def test_plan_misses_a_target_as_attribute_does(painting, images):
    said = [None, None]
    for place, call in enumerate((cfi.attribute, cfi.plan)):
        with pytest.raises(cfi.TargetError, match="5 values per sample") as caught:
            call(painting, "press_gradient", inputs=images)
        said[place] = str(caught.value)
    assert said[0] == said[1]
    assert cfi.plan(painting, "press_gradient", inputs=images, target=0).layers == ()
