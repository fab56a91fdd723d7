"""The script that runs libraries' own tests goes on where it was stopped, and sees something of everything soon."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"

TESTS = """
import time
import pytest

@pytest.mark.parametrize("second", range(4))
@pytest.mark.parametrize("first", range(3))
def test_product(first, second):
    pass

def test_endless():
    try:
        time.sleep(60)
    except Exception:
        pass

def test_failing():
    assert False
"""

RUN = """
import pathlib, sys
import pytest
sys.path.insert(0, sys.argv[1])
from session import Log, Session
from tally import REFUSED, Tally

class Calls:
    def pytest_runtest_setup(self, item):
        tally.note("saliency", "native", REFUSED, ValueError("7 rows"))

tally = Tally()
session = Session(tally, Log(pathlib.Path("log.jsonl")), ["native"], 1.0)
pytest.main(["-q", "-p", "no:cacheprovider", "test_them.py", *sys.argv[2:]], plugins=[session, Calls()])
print(session.told())
"""


def run(folder: Path, *options: str) -> str:
    command = [sys.executable, "-c", RUN, str(PEERS), *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(TESTS)
    assert "14 of 14 tests ran: 1 failed, 12 passed, 1 too long" in run(tmp_path)
    kept = (tmp_path / "log.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "log.jsonl").write_text("".join(kept[:9]) + kept[9][:20])  # killed while it wrote the tenth
    told = run(tmp_path)
    assert "14 of 14 tests ran" in told
    assert "14  native      ValueError: … rows" in told
    again = lines(tmp_path)
    assert len({line["test"] for line in again}) == len(again) == 14
    assert all(len(line["calls"]) == 1 for line in again)


def test_every_function_and_value_comes_before_the_rest(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(TESTS)
    run(tmp_path, "--deselect", "test_them.py::test_endless")
    names = [line["test"].partition("::")[2] for line in lines(tmp_path)]
    values = [set(name.strip("]").partition("[")[2].split("-")) for name in names if "[" in name]
    needed = next(n for n in range(13) if {"0", "1", "2", "3"} <= set().union(*values[:n]))
    assert needed <= 6
    assert names.index("test_failing") <= 6
