"""Texts as inputs of functions and estimators: their words are features, and a word's baseline is that it is left out.

The model that is explained takes whole numbers, one for each word, and puts the text together again. 0 is no word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from cfi_core.adapters import find_type, known_frameworks
from cfi_core.arrays import ArrayAdapter, ArrayModel
from cfi_core.contract import Unpacked
from cfi_core.errors import InputError
from cfi_core.registry import registry
from cfi_core.tokens import TokenBaseline

_WORD = re.compile(r"\w+(?:['’\-]\w+)*")


class WordTable:
    """The words of some texts, each with what stands between it and the next one, by their numbers.

    Attributes:
        pad_token_id: The number of no word at all.
        numbers: Of each text a row, filled up with `pad_token_id`.
    """

    pad_token_id = 0

    def __init__(self, texts: Sequence[str]) -> None:
        rows = [split_words(text) for text in texts]
        if not all(rows):
            raise InputError(f"There are no words in text {next(place for place, row in enumerate(rows) if not row)}.")
        self._pieces = ["", *dict.fromkeys(piece for row in rows for piece in row)]
        places = {piece: place for place, piece in enumerate(self._pieces)}
        self.numbers = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for row, numbers in zip(rows, self.numbers, strict=True):
            numbers[: len(row)] = [places[piece] for piece in row]

    def __len__(self) -> int:
        return len(self._pieces)

    def convert_ids_to_tokens(self, number: int) -> str:
        """The word of that number, without what stands around it."""
        return next(iter(_WORD.findall(self._pieces[number])), self._pieces[number].strip())

    def text(self, numbers: np.ndarray) -> str:
        """The text of a row of numbers."""
        return "".join(self._pieces[number] for number in numbers)


def unpack_texts(model: Any, inputs: Any) -> Unpacked | None:
    """A function of texts, or an estimator that begins with one, as a model of words; None for other models or inputs.

    Raises:
        InputError: There is a text without words.
    """
    texts = as_texts(inputs)
    known = known_frameworks(registry()).values()
    if texts is None or any(find_type(*pair, model) for spec in known for pair in spec.model_types):
        return None
    if isinstance(model, type) or not (callable(model) or hasattr(model, "predict")):
        return None
    table, scores = WordTable(texts), ArrayAdapter().load(model)
    words = ArrayModel(
        lambda numbers: scores.function([table.text(row) for row in numbers]),
        shapes=((None, table.numbers.shape[1]),),
        classes=scores.classes,
    )
    return Unpacked(
        model=words,
        inputs=table.numbers,
        did="texts were split into words, and a word is left out where it takes its baseline",
        feature_names=table,
        baselines=TokenBaseline(table.pad_token_id, keep=("padding",)),
    )


def as_texts(inputs: Any) -> list[str] | None:
    """One text or several, in a list, an array or a column of a table; None of anything else."""
    if isinstance(inputs, str):
        return [inputs]
    if str(getattr(inputs, "dtype", "")).lstrip("<>=").startswith(("object", "str", "U")) and inputs.ndim == 1:
        inputs = inputs.tolist()
    is_listed = isinstance(inputs, list | tuple) and bool(inputs)
    return list(inputs) if is_listed and all(isinstance(one, str) for one in inputs) else None


def split_words(text: str) -> list[str]:
    """The words of a text, each up to the next, and the first from the beginning: together they are the text."""
    starts = [match.start() for match in _WORD.finditer(text)]
    bounds = [0, *starts[1:], len(text)]
    return [text[start:end] for start, end in pairwise(bounds)] if starts else []
