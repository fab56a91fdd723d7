"""docs/checking.md shows what its code prints."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import cfi_core as cfi


def test_the_page_shows_what_is_printed() -> None:
    """Numbers to one digit, as rounding moves them."""
    page = (Path(__file__).parents[2] / "docs" / "checking.md").read_text("utf-8")
    printed: list[str] = []
    names: dict[str, Any] = {"print": lambda found: printed.append(repr(found))}
    shown: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cfi.ModelWarning)  # guided backpropagation fails, as the page says
        for kind, text in re.findall(r"```(python|)\n(.*?)```", page, re.S):
            if kind:
                exec(compile(text, "docs/checking.md", "exec"), names)
            else:
                shown.append(text)
    found, expected = _words("\n".join(printed)), _words("\n".join(shown))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == other or abs(float(one) - float(other)) <= 0.1 + 0.1 * abs(float(other))


def _words(text: str) -> list[str]:
    return re.sub(r"[,()]", " ", text).split()
