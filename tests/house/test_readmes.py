"""The Python of every README compiles, and says what its names are."""

from __future__ import annotations

import ast
import builtins
import re

import pytest
from distributions import ROOT

PAGES = sorted([ROOT / "README.md", *ROOT.glob("plugins/*/README.md")])
BLOCK = re.compile(r"```python\n(.*?)```", re.S)


def unexplained(text: str, known: set[str]) -> set[str]:
    """Names that a block uses, and that neither it nor one before it (`known`) makes, nor a comment of it speaks of."""
    names = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)]
    made = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            made |= {(one.asname or one.name).partition(".")[0] for one in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            made |= {one.arg for one in node.args.args}
    known |= made
    told = {word for comment in re.findall(r"^# (.*)$", text, re.M) for word in re.findall(r"\w+", comment)}
    return {node.id for node in names} - known - told - set(dir(builtins))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_python_compiles_and_says_what_its_names_are(page):
    known: set[str] = set()
    for text in BLOCK.findall(page.read_text()):
        compile(text, str(page), "exec")
        assert unexplained(text, known) == set()


def test_a_name_out_of_nowhere_is_found():
    assert unexplained("import numpy as np\nx = np.ones(2)\nprint(f(x), y)", set()) == {"f", "y"}
    assert unexplained("# y: a vector\nprint(y)", set()) == set()
