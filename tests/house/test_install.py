"""Installation from a clone: pip is given the folders of all that is needed, and what the extras add."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from types import SimpleNamespace

import install
import pytest
from distributions import distributions

DISTRIBUTIONS = distributions()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pip is called with."""
    arguments: list[str] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        arguments.extend(command[4:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return arguments


def folders(given: list[str]) -> set[str]:
    return {value for option, value in pairwise(given) if option == "--editable"}


def test_what_lives_here_comes_with_what_requires_it(given: list[str]) -> None:
    assert install.main(["cfi-captum", "--quiet"]) == 0
    names = ("cfi-captum", "cfi-torch", "cfi-torchgraph", "cfi-matplotlib", "cfi-core")
    assert folders(given) == {str(DISTRIBUTIONS[name].folder) for name in names}
    assert given[0] == "--quiet"


def test_extras_are_spelled_out_and_folders_stay_plain(given: list[str]) -> None:
    # pip 23, which comes with Python 3.11, finds no `cfi-core` for `cfi-torch` where it was given `folder[xarray]`.
    assert install.main([]) == 0
    assert folders(given) == {str(found.folder) for found in DISTRIBUTIONS.values()}
    for found in DISTRIBUTIONS.values():
        assert set(found.extra_requirements(found.extras)) <= set(given)


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SystemExit, match=r"Not in this repository: cfi-nothing\. There are cfi-core, .*cfi-translate"):
        install.main(["cfi-nothing"])
