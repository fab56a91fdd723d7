"""Every hook has a page of its own, that says so, and the list of hooks names them all."""

from __future__ import annotations

import re

import pytest
from distributions import ROOT

from cfi_core import hookspec

HOOKS = sorted(name for name in vars(hookspec) if name.startswith("cfi_"))
FOLDER = ROOT / "docs" / "hooks"


def test_there_is_a_page_for_each_hook_and_for_nothing_else():
    assert {path.stem for path in FOLDER.glob("*.md")} == {"index", *HOOKS}


def test_the_list_names_each():
    assert set(re.findall(r"\[`(\w+)`\]\((?:\w+)\.md\)", (FOLDER / "index.md").read_text())) == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_its_page_has_a_plugin_that_implements_it(hook):
    page = (FOLDER / f"{hook}.md").read_text()
    assert re.search(rf"^@hookimpl\ndef {hook}\(", page, re.M)
    # What the hook is called with are its arguments there, too.
    (told,) = re.findall(rf"`{hook}\(([^)]*)\)`", page)[:1]
    function = getattr(hookspec, hook)
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    assert told == ", ".join(names)
