"""Packages speak through their loggers, warnings and errors: none prints, and none touches the root logger."""

from __future__ import annotations

import ast

import pytest
from distributions import ROOT

# At the end of a training, these tell what the explanations took: their documentation says so.
TELLING = {"cfi_tensorflow/callback.py", "cfi_torch/logger.py"}
TELLING |= {"cfi_scale/commands.py", "cfi_scale/progress.py"}  # commands of `cfi`; a run of hours, asked to tell
SOURCES = sorted([*(ROOT / "cfi_core").rglob("*.py"), *(ROOT / "plugins").glob("cfi_*/src/**/*.py")])
COMMANDS = "cfi_cli"  # whose output is what they are for


def calls(path: str) -> list[str]:
    tree = ast.walk(ast.parse(path))
    return [ast.unparse(one.func) for one in tree if isinstance(one, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_printed(path) -> None:
    if COMMANDS in path.parts or any(str(path).endswith(one) for one in TELLING):
        return
    assert not {"print", "logging.basicConfig"} & set(calls(path.read_text()))


def test_those_that_tell_are_there() -> None:
    assert all(any(str(path).endswith(one) for path in SOURCES) for one in TELLING)
