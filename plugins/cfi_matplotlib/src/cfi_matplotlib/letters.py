"""Letters of many scripts: the fonts that are there for them, and a box for what none has."""

from __future__ import annotations

from functools import cache
from typing import Any

from matplotlib import font_manager

_FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Emoji", "Arial Unicode MS")
_UNKNOWN = "□"


@cache
def families() -> list[str]:
    """Fonts that are there, for letters of many scripts."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _FONTS if name in there]


def known(text: str) -> str:
    """The text with a box in the place of letters that no font has, and nothing that breaks a line."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return "".join(letter if letter == " " or _is_known(letter) else _UNKNOWN for letter in plain) or " "


def width_of(text: str, points: float) -> float:
    """Of a text of one line in inches."""
    font: Any = font_manager.get_font([font_manager.findfont(name) for name in families()])
    font.set_size(points, 72)
    font.set_text(known(text))
    width, _ = font.get_width_height()
    return float(width) / 64 / 72


@cache
def _is_known(letter: str) -> bool:
    paths = (font_manager.findfont(name) for name in families())
    return any(font_manager.get_font(path).get_char_index(ord(letter)) for path in paths)
