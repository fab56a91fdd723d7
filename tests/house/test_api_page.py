"""docs/api.md names what is public, and our own plugins take nothing else from the core."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from distributions import ROOT, distributions

import cfi_core as cfi
from cfi_core import errors

PAGE = (ROOT / "docs" / "api.md").read_text()
_, USERS, AUTHORS = re.split(r"^## For .*$", PAGE.partition("\n## Versions")[0], flags=re.MULTILINE)
ERRORS = {
    name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
}


def rows(section: str) -> Iterator[tuple[str, set[str]]]:
    """First cell and the names in the second of each row of the section's table."""
    for first, second in re.findall(r"^\| (.*?) \| (.*) \|$", section, re.MULTILINE)[2:]:
        yield first.strip("`"), set(re.findall(r"`(\w+)`", second))


MODULES = {module: names | (ERRORS if module == "cfi_core.errors" else set()) for module, names in rows(AUTHORS)}
WHOLE = (
    "cfi_core.contract",
    "cfi_core.specs",
    "cfi_core.framework",
    "cfi_core.testing",
    "cfi_core.testing.conformance",
)


def public(module: str) -> set[str]:
    """What a module declares, or defines without an underscore."""
    loaded = import_module(module)
    defined = (name for name, value in vars(loaded).items() if getattr(value, "__module__", None) == module)
    return {name for name in getattr(loaded, "__all__", defined) if not name.startswith("_")}


def test_the_users_names():
    named = [name for _, names in rows(USERS) for name in sorted(names)]
    assert sorted(named) == sorted(cfi.__all__)


def test_the_errors_are_the_users():
    assert {name for name in cfi.__all__ if name.endswith(("Error", "Warning"))} == ERRORS


@pytest.mark.parametrize("module", MODULES)
def test_what_is_named_is_there(module):
    assert [name for name in sorted(MODULES[module]) if not hasattr(import_module(module), name)] == []


@pytest.mark.parametrize("module", WHOLE)
def test_a_module_that_is_public_as_a_whole(module):
    # Functions and classes; the constants that are public beside them are named on the page.
    assert public(module) - MODULES[module] == set()


def test_every_hook_is_named():
    hooks = {name for name in vars(import_module("cfi_core.hookspec")) if name.startswith("cfi_")}
    assert hooks == {name for name in MODULES["cfi_core.hookspec"] if name.startswith("cfi_")}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """What a file takes from the core: modules and names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cfi_core"):
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("cfi_core."))


@pytest.mark.parametrize("plugin", [found for name, found in distributions().items() if name != "cfi-core"], ids=str)
def test_our_plugins_take_public_names_alone(plugin):
    taken = {pair for path in plugin.sources.rglob("*.py") for pair in imports(path)}
    named = {(module, name) for module, names in {"cfi_core": cfi.__all__, **MODULES}.items() for name in names}
    assert sorted(taken - named) == []
