"""Every test of the repository is run by some environment of `make test`."""

from __future__ import annotations

import configparser
import re

import pytest
from distributions import ROOT, distributions

TOX = configparser.RawConfigParser()
TOX.read(ROOT / "tox.ini")
LISTED = [name.strip() for name in TOX["tox"]["env_list"].split(",")]


def commands() -> str:
    """The commands of all environments that `make test` runs."""
    texts = []
    for section in TOX.sections():
        names = section.removeprefix("testenv:").strip("{}").split(",")
        texts += [TOX[section]["commands"].replace("{env_name}", name) for name in names if name in LISTED]
    return "\n".join(texts)


@pytest.mark.parametrize("folder", sorted({path.parent for path in ROOT.glob("tests/**/test_*.py")}), ids=str)
def test_a_folder_of_tests_is_run(folder):
    assert re.search(rf"pytest .*\b{folder.relative_to(ROOT)}\b", commands())


@pytest.mark.parametrize("name", [name for name in distributions() if name != "cfi-core"])
def test_the_tests_of_a_plugin_are_run(name):
    assert re.search(rf"pytest .*\bplugins/{distributions()[name].folder.name}/tests\b", commands())
