"""Links of pages lead to the same file on a code host and in the site, and the reference has every public name."""

from __future__ import annotations

import posixpath
import re

import pytest
import site_hooks
from distributions import ROOT


@pytest.mark.parametrize(
    "path", ["docs/calls.md", "SECURITY.md", "examples/demo.py", "Makefile", "docs/images/routes.svg"]
)
def test_a_place_in_the_site_is_that_of_one_file(path):
    assert site_hooks.source(site_hooks.place(path)) == path


@pytest.mark.parametrize(
    ("link", "at", "to"),
    [
        ("../SECURITY.md", "docs/calls.md", "SECURITY.md"),
        ("../../plugins/cfi_captum", "docs/hooks/index.md", "plugins/cfi_captum/README.md"),
        ("docs/calls.md", "CONTRIBUTING.md", "docs/calls.md"),
        ("../../elsewhere.md", "docs/calls.md", None),
        ("nothing.md", "docs/calls.md", None),
    ],
)
def test_a_link_leads_to_a_file_of_the_repository(link, at, to):
    assert site_hooks.resolve(link, at) == to


def test_links_are_turned_and_code_is_not():
    text = "[a](../SECURITY.md#b) [c](targets.md)\n\n```\n[d](../SECURITY.md)\n```\n[e](https://f.example)"
    turned = site_hooks.turn_links(text, "docs/hooks/index.md", "hooks/index.md")
    assert turned == text  # of docs/hooks, ../SECURITY.md is no file
    turned = site_hooks.turn_links(text, "docs/calls.md", "calls.md")
    assert turned == text.replace("[a](../SECURITY.md", "[a](repository/SECURITY.md")
    back = site_hooks.turn_links("[a](docs/calls.md)", "CONTRIBUTING.md", "repository/CONTRIBUTING.md")
    assert back == "[a](../calls.md)"


def test_every_link_of_every_page_leads_somewhere():
    lost = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/README.md")]:
        at = page.relative_to(ROOT).as_posix()
        text = re.sub(r"`[^`\n]+`", "", site_hooks.FENCED.sub("", page.read_text()))
        lost += [(at, link) for link in site_hooks.LINK.findall(text) if site_hooks.resolve(link, at) is None]
    assert lost == []


def test_the_reference_has_all_public_names():
    users, authors = site_hooks.reference_rows()
    pages = site_hooks.reference_pages()
    for title, names in [*users, *authors]:
        text = pages[site_hooks.page_at(title)]
        assert text.count("\n::: ") == len(names) > 0
    assert all(posixpath.dirname(place) == "reference" for place in pages)
