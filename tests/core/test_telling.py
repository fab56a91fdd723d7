"""What a user reads where translations failed: the cause once, and in one line what else was tried."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Need, TranslatorSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting, to_print

ADVICE = "Try another translator (cfi.translators() lists them), or a toolset of the model's own framework."
WHAT = {
    "first": f"first cannot translate Fft (node 'fft'): the operator is not supported. {ADVICE}",
    "alike": f"alike cannot translate Fft (node 'fft'): the operator is not supported. {ADVICE}",
    "other": f"other takes inputs of 2 axes, and 'x' has 4. {ADVICE}",
    "wordy": f"wordy failed: {'the same word again and ' * 100}so on. {ADVICE}",
    "nested": f"nested failed (RuntimeError: {'the same word again and ' * 100}so on). {ADVICE}",
    "strange": f"strange takes pictures of models, and this is a Painting. {ADVICE}",
    "asking": f"asking gives something else each time. Does the model (or its layers) draw? {ADVICE}",
}


def _raising(name: str) -> Callable[..., object]:
    def convert(model: object, inputs: object) -> object:
        raise cfi.TranslationError(WHAT[name])

    return convert


first, alike, other, wordy, nested, strange, asking = map(_raising, WHAT)


def wrong(model: Painting, inputs: tuple[np.ndarray, ...]) -> object:
    return to_print(Painting(model.mix, model.head * 1.5), inputs)


right, wrong_too = to_print, wrong


class Several:
    """Translators from `paint` to `print`, the cheapest first."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def cfi_translators(self) -> list[TranslatorSpec]:
        return [
            TranslatorSpec(
                name=name.replace("_", "-"),
                source="paint",
                target="print",
                preserves=frozenset(Need),
                cost=0.1 * (1 + number),
                implementation=f"{__name__}:{name}",
            )
            for number, name in enumerate(self.names)
        ]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(2, 3, 5, 7))


def painting(**faults: bool) -> Painting:
    generator = np.random.default_rng(1)
    return Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)), **faults)


def refusal(images: np.ndarray, *names: str) -> cfi.TranslationError:
    """By these translators, and that of the fake plugin, which refuses a model that is marked so."""
    with use_plugins(fake, Several(*names)), pytest.raises(cfi.TranslationError) as caught:
        cfi.translate(painting(refuses=True), "print", inputs=images)
    return caught.value


def test_the_cause_of_the_best_route_comes_first_and_once(images: np.ndarray):
    error = refusal(images, "first", "alike", "other")
    told = str(error)
    assert told.startswith(
        "first cannot translate Fft (node 'fft'): the operator is not supported. Also tried: alike ("
    )
    assert told.count("Fft") == told.count("the operator is not supported") == 1
    assert "alike (the same reason); other (other takes inputs of 2 axes, and 'x' has 4); " in told
    assert "Try another translator" not in told, "all were tried"
    assert "own framework" not in told, "no toolset is of it"
    assert str(error.__cause__) == WHAT["first"]


def test_what_else_was_tried_is_one_line_however_long_its_reason(images: np.ndarray):
    told = str(refusal(images, "first", "wordy"))
    assert "\n" not in told and len(told) < 500
    assert "wordy (wordy failed: the same word again and" in told and " …); " in told


def test_a_reason_that_is_cut_closes_its_brackets(images: np.ndarray):
    told = str(refusal(images, "first", "nested"))
    assert "nested (nested failed (RuntimeError: the same word again and" in told and "word …)); " in told
    assert told.count("(") == told.count(")")


def test_a_translator_that_takes_no_such_models_is_not_the_cause(images: np.ndarray):
    told = str(refusal(images, "strange", "first"))
    assert told.startswith("first cannot translate Fft")
    assert "Also tried: strange (strange takes pictures of models, and this is a Painting); " in told


def test_a_question_ends_as_one(images: np.ndarray):
    told = str(refusal(images, "asking", "first"))
    assert told.startswith("asking gives something else each time. Does the model (or its layers) draw? Also tried: ")


def test_one_failure_keeps_its_advice(images: np.ndarray):
    told = str(refusal_by("first", images))
    assert told == WHAT["first"]


def refusal_by(name: str, images: np.ndarray) -> cfi.TranslationError:
    with use_plugins(fake, Several(name)), pytest.raises(cfi.TranslationError) as caught:
        cfi.translate(painting(), "print", inputs=images, translator=name)
    return caught.value


def test_a_model_that_is_wrong_is_the_cause_with_its_certificate(images: np.ndarray):
    error = refusal(images, "first", "wrong", "wrong_too")
    assert isinstance(error, cfi.UnfaithfulTranslationError) and isinstance(
        error.__cause__, cfi.UnfaithfulTranslationError
    )
    assert error.certificate is error.__cause__.certificate is not None and not error.certificate.faithful
    told = str(error)
    assert told.startswith("The model made by wrong computes something else than yours") and "It is not used." in told
    assert told.count("computes something else") == 1
    assert "Also tried: first (first cannot translate Fft" in told and "wrong-too (unfaithful as well)" in told


@pytest.mark.parametrize(
    ("names", "begins"),
    [
        (("first", "alike", "right"), "first cannot translate Fft (node 'fft'): the operator is not supported."),
        (("wrong", "right"), "The model made by wrong computes something else than yours"),
    ],
)
def test_so_is_a_warning_where_a_later_route_succeeded(images: np.ndarray, names: tuple[str, ...], begins: str):
    with use_plugins(fake, Several(*names)), pytest.warns(cfi.TranslationWarning) as caught:
        assert cfi.translate(painting(), "print", inputs=images).route.names == ("right",)
    (told,) = [str(one.message) for one in caught]
    assert told.startswith(begins) and told.endswith("Taken instead: paint → print (right).")
    assert ("Also tried: alike (the same reason). " in told) == ("alike" in names)
    assert "Try another translator" not in told
