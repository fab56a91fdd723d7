"""When a model is explained while it is trained, and what is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cfi_core.attribution import Attribution, Outlets
from cfi_core.errors import ArgumentError, LayerError, MethodError, ModelWarning, PlotError, TargetError
from cfi_core.hookspec import hookimpl
from cfi_core.specs import PlotterSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.training import TrainingLog, picture_of

IMAGES = np.random.default_rng(1).normal(size=(2, 4, 6, 3))


class Canvas:
    """Of a figure whose pixels tell how often it was drawn."""

    drawn = 0

    def draw(self) -> None:
        self.drawn += 1

    def buffer_rgba(self) -> np.ndarray:
        return np.full((5, 7, 4), self.drawn, np.uint8)


def draw(attribution: Attribution, **options: Any) -> Any:
    return SimpleNamespace(canvas=Canvas() if not options else None)


class Easel:
    """A plugin with a plotter."""

    @hookimpl
    def cfi_plotters(self) -> list[PlotterSpec]:
        return [PlotterSpec(name="easel", implementation="easel:draw")]


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "easel", SimpleNamespace(draw=draw))
    with use_plugins(fake, Easel()):
        yield


@pytest.fixture
def model() -> fake.Print:
    generator = np.random.default_rng(0)
    return fake.Print(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))


class Book(list[Any]):
    """What was written, as tag and step."""

    def write(self, tag: str, picture: np.ndarray, step: int) -> None:
        assert picture.shape == (5, 7, 3) and picture.dtype == np.uint8 and (picture == 1).all()
        self.append((tag, step))


GRADIENT = {"press_gradient": {"target": 1}}


def log(book: Book, explanations: Any = GRADIENT, **more: Any) -> TrainingLog:
    arguments = {"every_epochs": None, "every_steps": None, "plot": None, **more}
    return TrainingLog(IMAGES, explanations, write=book.write, **arguments)


# when


def test_epochs(model: fake.Print) -> None:
    book = Book()
    training = log(book, every_epochs=2)
    training.start(model)
    for _ in range(5):
        training.count_steps(model)
        training.count_epoch(model)
    assert book == [("press_gradient", 0), ("press_gradient", 2), ("press_gradient", 4)]


def test_steps_also_where_several_are_told_at_once(model: fake.Print) -> None:
    book = Book()
    training = log(book, every_steps=3)
    for number in (1, 1, 2, 1, 7, 1):  # 1, 2, 4, 5, 12, 13
        training.count_steps(model, number)
        training.count_epoch(model)
    assert [step for _, step in book] == [4, 12]


def test_a_training_that_goes_on_does_not_begin_anew(model: fake.Print) -> None:
    book = Book()
    training = log(book, every_epochs=1)
    for _ in range(2):
        training.start(model)
        training.count_epoch(model)
        training.finish()
    assert [step for _, step in book] == [0, 1, 2]


@pytest.mark.parametrize(
    "every", [{}, {"every_epochs": 1, "every_steps": 1}, {"every_epochs": 0}, {"every_steps": 1.5}]
)
def test_a_schedule_that_is_none(every: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="every_epochs= or every_steps=, one of them"):
        log(Book(), **every)


# of what


def test_tags_methods_and_layers(model: fake.Print) -> None:
    book = Book()
    layers = {"method_key": "press_map", "target": [1, 2], "layer": ["mix", "relu"]}
    one = {"method_key": "press_layer", "toolset": "press", "layer": "mix"}
    log(book, {"press_gradient": {"target": 0}, "maps": layers, "one": one}, every_epochs=1).start(model)
    assert [tag for tag, _ in book] == ["press_gradient", "maps/mix", "maps/relu", "one"]


@pytest.mark.parametrize("explanations", [{}, None, ["press_gradient"]])
def test_nothing_to_explain(explanations: Any) -> None:
    with pytest.raises(ArgumentError, match="Pass a dict of explanations"):
        log(Book(), explanations, every_epochs=1)


@pytest.mark.parametrize("name", ["layers", "model", "plot"])
def test_an_unknown_argument_is_told_before_the_training(name: str) -> None:
    with pytest.raises(ArgumentError, match=rf"'press_map' has unknown arguments \['{name}'\]"):
        log(Book(), {"press_map": {name: 1}}, every_epochs=1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": 9}, TargetError, "out of range"),
        ({"method_key": "press_map", "target": 1, "layer": "none"}, LayerError, "no layer 'none'"),
        ({"method_key": "press_map", "target": 1}, MethodError, "needs a layer: pass layer=, one of mix, relu"),
    ],
)
def test_what_does_not_fit_raises_at_the_start(
    model: fake.Print, arguments: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        log(Book(), {"press_gradient": arguments}, every_epochs=1).start(model)


def test_what_fails_later_is_told_and_the_training_goes_on(model: fake.Print) -> None:
    book = Book()
    training = log(book, {**GRADIENT, "maps": {"method_key": "press_map", "target": 1, "layer": "mix"}}, every_epochs=1)
    training.start(model)
    broken = fake.Print(model.mix * np.nan, model.head)
    with pytest.warns(ModelWarning, match=r"No picture of '\w+' at 1: InputError: .* weights\. The training goes on"):
        training.count_epoch(broken)
    training.count_epoch(model)
    assert [step for tag, step in book if tag == "maps"] == [0, 2] and training.pictures == 4


def test_random_methods_draw_the_same_in_every_round(model: fake.Print, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def keep(attribution: Attribution, **_: Any) -> Any:
        seen.append(attribution.values)
        return draw(attribution)

    monkeypatch.setattr(sys.modules["easel"], "draw", keep)
    training = log(Book(), {"press_noise": {}}, every_epochs=1)
    training.start(model)
    training.count_epoch(model)
    np.testing.assert_array_equal(*seen)


# as which picture


def test_the_share_of_the_time_is_told(model: fake.Print) -> None:
    training = log(Book(), every_epochs=1)
    training.start(model)
    training.count_epoch(model)
    told = training.finish()
    assert told.startswith("Explanations: 2 pictures in 2 rounds took ")
    share = float(told.rpartition("(")[2].partition("%")[0])
    assert 0 < share <= 100 and training.seconds > 0


def test_a_picture_of_the_toolsets_own_comes_first() -> None:
    own = np.arange(12, dtype=np.uint8).reshape(3, 4)
    found = Attribution(values=own, dims=("sample", "feature"), method_key="m", toolset="t", extras={"picture": own})
    np.testing.assert_array_equal(picture_of(found), np.stack([own] * 3, axis=-1))


def test_a_figure_without_pixels() -> None:
    outlets = Outlets(plotters={"easel": PlotterSpec(name="easel", implementation="easel:draw")})
    found = Attribution(
        values=np.ones((2, 3)), dims=("sample", "feature"), method_key="m", toolset="t", outlets=outlets
    )
    assert picture_of(found).shape == (5, 7, 3)
    with pytest.raises(PlotError, match="no figure of matplotlib"):
        picture_of(found, without="canvas")
