"""How the translators say that they cannot."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto

from cfi_core.contract import Converted
from cfi_core.errors import CFIError, TranslationError, kind_of
from cfi_translate.grammar import NEXT_STEP, first_line
from cfi_translate.program import Operation, describe


def refusal(translator: str, node: NodeProto | Operation, reason: str) -> TranslationError:
    """An error that names the operator, the node and the translator."""
    return TranslationError(f"{translator} cannot translate {describe(node)}: {reason}. {NEXT_STEP}")


def failure(translator: str, what: str, cause: BaseException | None = None) -> TranslationError:
    """An error for a translation that failed as a whole."""
    reason = "" if cause is None else f" ({type(cause).__name__}: {first_line(cause) or 'no message'})"
    return TranslationError(f"{translator} {what}{reason}. {NEXT_STEP}")


Translator = Callable[[Any, tuple[np.ndarray, ...]], Converted]


def name_failures(translator: str) -> Callable[[Translator], Translator]:
    """Turns whatever a library raises in between into a `TranslationError`; errors of CFI's own pass as they are."""

    def decorate(convert: Translator) -> Translator:
        @functools.wraps(convert)
        def run(model: Any, inputs: tuple[np.ndarray, ...]) -> Converted:
            try:
                return convert(model, inputs)
            except CFIError:
                raise
            except Exception as error:
                raise failure(translator, f"could not translate {kind_of(model)}", error) from error

        return run

    return decorate
