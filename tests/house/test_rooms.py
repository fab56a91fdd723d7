"""The table of rooms in docs/design.md names every module of the core, and its floors are those of the imports."""

from __future__ import annotations

import re

import grimp
from check_imports import between
from distributions import ROOT


def test_every_module_has_a_floor_and_imports_none_above_its_own():
    page = (ROOT / "docs" / "design.md").read_text()
    _, _, table = page.partition("## The rooms of the core")
    rows = re.findall(r"^\| [^|]+ \| ([^|]*`[^|]*) \|$", table.partition("Everything else")[0], re.M)
    floor = {name: -number for number, row in enumerate(rows) for name in re.findall(r"`(\w+)`", row)}
    graph = grimp.build_graph("cfi_core", cache_dir=None)
    arrows = between("cfi_core", {name: graph.find_modules_directly_imported_by(name) for name in graph.modules})
    assert floor.keys() == arrows.keys()
    assert not [
        (importer, name) for importer, imported in arrows.items() for name in imported if floor[name] > floor[importer]
    ]
