"""From tokens to text as people write it: which token begins a word, and what of it is shown."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_NO_SPACE_BEFORE = set(",.;:!?%)]}’”»…、。，！？")
_NO_SPACE_AFTER = set("([{«“")
_JOINING = set("'’-–/")
_SEVERAL = 3  # equal tokens without a value, from so many on, are shown as one


@dataclass(frozen=True)
class Piece:
    """A token as it is shown.

    Attributes:
        text: Without markers of sub-words.
        position: Of the (first) token.
        space: Whether a space goes before it.
        special: It is no text of the user's, such as `[CLS]`.
    """

    text: str
    position: int
    space: bool
    special: bool = False


def read_tokens(tokens: Sequence[str], weights: Sequence[float]) -> list[Piece]:
    """The tokens as pieces of text; many equal special ones without weight in a row become one (`[PAD] ×12`).

    What has neither text nor weight is left out.
    """
    marks = _marks(tokens)
    pieces: list[Piece] = []
    place = 0
    while place < len(tokens):
        token, special = tokens[place], _is_special(tokens[place])
        if not token and not weights[place]:
            place += 1
            continue
        end = place + 1
        while special and end < len(tokens) and tokens[end] == token and not weights[end] and not weights[place]:
            end += 1
        if end - place >= _SEVERAL:
            pieces.append(Piece(f"{token} ×{end - place}", place, True, special=True))
            place = end
            continue
        before = tokens[place - 1] if place else ""
        text, space = (token, True) if special else _read(token, before, marks)
        pieces.append(Piece(text or " ", place, bool(place) and (space or _is_special(before)), special))
        place += 1
    return pieces


def is_right_to_left(pieces: Sequence[Piece]) -> bool:
    """Whether most letters are of a script that is written so."""
    kinds = [unicodedata.bidirectional(letter) for piece in pieces if not piece.special for letter in piece.text]
    return sum(kind in ("R", "AL") for kind in kinds) > sum(kind == "L" for kind in kinds)


def _marks(tokens: Sequence[str]) -> str:
    """How these tokens mark where words begin: `##`, `Ġ` (of bytes), `▁`, `</w>`, or not at all."""
    for mark, is_there in (
        ("##", str.startswith),
        ("Ġ", str.startswith),
        ("▁", str.startswith),
        ("</w>", str.endswith),
    ):
        if any(is_there(token, mark) for token in tokens):
            return mark
    return ""


def _is_special(token: str) -> bool:
    return len(token) > 2 and (token[0], token[-1]) in (("[", "]"), ("<", ">"))


def _read(token: str, before: str, marks: str) -> tuple[str, bool]:
    """What is shown of a token, and whether a space goes before it."""
    if marks == "##" and token.startswith("##"):
        return token[2:], False
    if marks == "Ġ":
        text = _of_bytes(token)
        return text.strip() or ("⏎" if "\n" in text else " "), text[:1].isspace()
    if marks == "▁":
        return token.replace("▁", " ").strip(), token.startswith("▁")
    if marks == "</w>":
        return token.removesuffix("</w>"), before.endswith("</w>")
    joined = set(token) <= _NO_SPACE_BEFORE | _JOINING or set(before) <= _NO_SPACE_AFTER | _JOINING
    return token.strip(), not joined


def _of_bytes(token: str) -> str:
    """The text of a token of bytes, each of which stands there as a letter (Radford et al. 2019, GPT-2)."""
    try:
        return bytes(_BYTES[letter] for letter in token).decode("utf-8", "replace")
    except KeyError:
        return token


def _letters_of_bytes() -> dict[str, int]:
    """Bytes that are printable in Latin-1 stand for themselves, the others for the letters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _letters_of_bytes()
