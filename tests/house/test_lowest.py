"""The lowest versions that are declared are those that are tested."""

from __future__ import annotations

import re

import pytest
from distributions import ROOT, distributions
from packaging.requirements import Requirement
from packaging.version import Version

KNOWN = distributions()
TESTED = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE))


def declared() -> list[tuple[str, str]]:
    """Where a requirement stands, and the requirement: in metadata, and in what plugins register."""
    found = [(name, text) for name, one in KNOWN.items() for text in one.requirements(one.extras)]
    for path in ROOT.glob("plugins/[!_]*/src/*/plugin.py"):
        texts = re.findall(r'"([a-z][\w.-]*[<>=~!][^"]*)"', path.read_text())
        found += [(path.parent.name, text) for text in texts]
    return [(name, text) for name, text in found if Requirement(text).name not in KNOWN]


@pytest.mark.parametrize(("where", "text"), sorted(set(declared())))
def test_a_floor_is_what_is_tested(where, text):
    requirement = Requirement(text)
    floors = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
    assert len(floors) == 1, f"{where} says nothing of how old {requirement.name} may be"
    assert floors == [Version(TESTED[requirement.name])], f"{where} declares {text}"
