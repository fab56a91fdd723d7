"""One grammar for the operators of all converters: one table, one decorator, one signature, one way to refuse.

A family of converters goes from one kind of graph to another and has one table. Each operator of the graph that it
reads is converted by one function, registered under the operator's names:

    operator = Operators("onnx-torch", describe)

    @operator("Conv")
    def convolution(op, to, data, weight, bias=None):
        ...

`op` is the operator at hand (its name, its attributes, what is known of its outputs) and `to` is what is being built.
The operands follow in the order of the operator's own definition; those that are left out are left out, or None. The
function returns what the operator gives, or a tuple with one entry for each output. What it cannot convert it refuses
with `Refusal`; the table adds which operator that is, who says so, and what to do next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from cfi_core.errors import CFIError, TranslationError

NEXT_STEP = "Try another translator (cfi.translators() lists them), or a toolset of the model's own framework."

_LONG_LINE = 150

Converter = Callable[..., Any]
_Converter = TypeVar("_Converter", bound=Converter)


class Refusal(Exception):
    """Why an operator cannot be converted, in words that complete 'cannot translate …: '; without a full stop."""


def first_line(error: BaseException) -> str:
    """What an error says, up to the end of its first line; of a long one, of its first sentence."""
    line = str(error).strip().partition("\n")[0]
    return line if len(line) <= _LONG_LINE else line.partition(". ")[0][:300]


def require(condition: object, reason: str) -> None:
    """Refuses the operator at hand unless the condition holds.

    Raises:
        Refusal: It does not hold.
    """
    if not condition:
        raise Refusal(reason)


class Operators(Mapping[str, Converter]):
    """The operators that a family of converters knows, by name.

    Args:
        translator: Name of the translator, for messages.
        describe: How messages name the operator at hand.
    """

    def __init__(self, translator: str, describe: Callable[[Any], str]) -> None:
        self.translator = translator
        self._describe = describe
        self._converters: dict[str, Converter] = {}

    def __call__(self, *names: str) -> Callable[[_Converter], _Converter]:
        """Registers the function that converts the operators of these names.

        Raises:
            ValueError: One of them has a function already.
        """

        def register(converter: _Converter) -> _Converter:
            for name in names:
                if name in self._converters:
                    raise ValueError(f"{self.translator} has two functions for {name}")
                self._converters[name] = converter
            return converter

        return register

    def convert(self, name: str, op: Any, to: Any, *operands: Any) -> Any:
        """What the operator of that name gives.

        Raises:
            TranslationError: It is not known, or its function refuses it.
        """
        converter = self._converters.get(name)
        if converter is None:
            raise self.refusal(op, "the operator is not supported")
        with self.name_refusals(op):
            return converter(op, to, *operands)

    @contextmanager
    def name_refusals(self, op: Any) -> Iterator[None]:
        """Has whatever is refused inside name the operator.

        Raises:
            TranslationError: Something is refused, or a framework raised an error of its own.
        """
        try:
            yield
        except CFIError:
            raise
        except Refusal as error:
            raise self.refusal(op, str(error)) from error.__cause__
        except Exception as error:  # a framework raises whatever it runs into
            raise self.refusal(op, f"{type(error).__name__}: {first_line(error)}".rstrip(": ")) from error

    def refusal(self, op: Any, reason: str) -> TranslationError:
        """An error that names the translator, the operator and the reason."""
        return TranslationError(f"{self.translator} cannot translate {self._describe(op)}: {reason}. {NEXT_STEP}")

    def __getitem__(self, name: str) -> Converter:
        return self._converters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._converters)

    def __len__(self) -> int:
        return len(self._converters)
