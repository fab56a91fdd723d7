"""Letters of many scripts: the fonts that are there for them, and a box for what none has."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

_FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Emoji", "Arial Unicode MS")
_UNKNOWN = "□"
_PILES = re.compile("([\u0300-\u036f]{3})[\u0300-\u036f]+")  # of accents, which grow higher than any figure


@cache
def families() -> list[str]:
    """Fonts that are there, for letters of many scripts."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _FONTS if name in there]


def known(text: str) -> str:
    """The text with a box in the place of letters that no font has, and nothing that breaks a line."""
    plain = "".join(letter if letter.isprintable() else " " for letter in _PILES.sub(r"\1", text))
    return "".join(letter if letter == " " or _is_known(letter) else _UNKNOWN for letter in plain) or " "


def shown(text: str) -> str:
    """The text, line by line, as it can be drawn."""
    return "\n".join(known(line) if line else "" for line in text.split("\n"))


def cut(text: str, letters: int) -> str:
    """A long name without its middle: names that begin alike mostly end differently."""
    plain = " ".join(text.split())
    back = letters // 3
    return plain if len(plain) <= letters else f"{plain[: letters - back - 1].rstrip()}…{plain[-back:].lstrip()}"


def dress(figure: Figure) -> Figure:
    """The same figure, all its words in fonts of many scripts, with a box for the letters that none has."""
    for text in figure.findobj(Text):
        text.set_fontfamily(families())
        text.set_text(shown(text.get_text()))
    for axes in figure.findobj(Axes):
        axes.tick_params(labelfontfamily=families())
    return figure


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
