"""Models as people have them, each explained in one line: the quick rows of benchmarks/models.py, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_rows import ROWS
from model_rows.frame import Line, Row, run_row
from models import run_apart

QUICK = [one for one in ROWS if one.quick]
PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.mark.parametrize("one", QUICK, ids=lambda one: one.name)
def test_every_call_gives_what_is_computed_by_hand(one: Row):
    """Or is refused where no answer can exist."""
    lines: list[Line] = list(run_apart([one]) if one.environment else run_row(one))
    assert lines
    assert not [(line.written, line.outcome) for line in lines if line.failed]


@pytest.mark.parametrize("group", dict.fromkeys(one.group for one in ROWS))
def test_the_page_shows_every_model(group: str):
    text = PAGE.read_text()
    assert not [one.name for one in ROWS if one.group == group and f"| {one.name} |" not in text]


def test_names_of_rows_are_their_own():
    names = [one.name for one in ROWS]
    assert len(names) == len(set(names)) and len(names) >= 60
