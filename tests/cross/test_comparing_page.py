"""docs/comparing.md shows what its code prints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest


def test_the_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers aside, which rounding moves."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text("utf-8")
    printed: list[str] = []
    blocks = re.findall(r"```(python|)\n(.*?)```", page, re.S)
    names: dict[str, Any] = {"print": lambda found: printed.append(repr(found))}
    for kind, text in blocks:
        if kind:
            exec(compile(text, "docs/comparing.md", "exec"), names)
    shown = [text.rstrip() for kind, text in blocks if not kind]
    assert [_without_numbers(text) for text in shown] == [_without_numbers(text) for text in printed]


def _without_numbers(text: str) -> list[str]:
    return " ".join(re.sub(r"-?\d+\.\d+(e[+-]\d+)?", "#", text).split()).split()
