"""Core's code names no framework and no toolset; what its errors say of them comes from specs and the catalogue."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cfi_core

FOREIGN = re.compile(r"torch|tensorflow|keras|onnx|jax|flax|captum|triton|sklearn|scikit", re.IGNORECASE)
CORE = Path(cfi_core.__file__).parent
FILES = sorted(CORE.rglob("*.py"))


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Identifiers and strings of code; docstrings, which show users concrete examples, are none."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            for statement in body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    statement.value = ast.Constant(None)  # visited later
        texts = [value for _, value in ast.iter_fields(node) if isinstance(value, str)]
        yield from ((getattr(node, "lineno", 0), text) for text in texts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_no_framework_is_named(path: Path) -> None:
    found = [(line, text) for line, text in names_in(ast.parse(path.read_text())) if FOREIGN.search(text)]
    assert found == []


def test_the_test_sees_code_and_no_docstrings() -> None:
    tree = ast.parse('"""torch"""\nclass A:\n    """keras"""\n    b = f"{1} onnx"\n\n    def jax(self): ...\n')
    assert sorted(text for _, text in names_in(tree) if FOREIGN.search(text)) == [" onnx", "jax"]
