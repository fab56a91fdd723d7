"""The check of imports finds what it says it finds."""

from __future__ import annotations

import sys
from pathlib import Path

import check_imports
import pytest
from check_imports import between, circles, foreign, rising
from distributions import Distribution

PYPROJECT = '[project]\nname = "{name}"\ndependencies = ["numpy>=2", "cfi-lib"]\n'
ENTRY = '[project.entry-points."cfi_core.plugins"]\nit = "it.plugin"\n'


def make(folder: Path, name: str, modules: dict[str, str]) -> Distribution:
    """A distribution of these modules, by their paths within the package; a plugin, unless it is called a library."""
    text = PYPROJECT.format(name=name) + ("" if "lib" in name else ENTRY)
    (folder / "pyproject.toml").write_text(text)
    found = Distribution(folder)
    for path, text in {"__init__.py": "", **modules}.items():
        file = folder / found.package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return found


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """What is found in a distribution of these modules, which stand beside the distributions of these names."""

    def check(name: str, modules: dict[str, str], beside: tuple[str, ...] = (), layers: tuple[str, ...] = ()):
        monkeypatch.syspath_prepend(str(tmp_path))
        for package in [package for package in sys.modules if package.partition(".")[0] == name.replace("-", "_")]:
            monkeypatch.delitem(sys.modules, package)
        found = make(tmp_path, name, modules)
        known = {name: found}
        for other in beside:
            (tmp_path / other).mkdir()
            known[other] = make(tmp_path / other, other, {})
        return list(check_imports.check(found, known, {"core": list(layers), "optional": []}))

    return check


@pytest.mark.parametrize(
    "statement",
    [
        "import ring.low",
        "from ring import low",
        "from ring.low import thing",
        "from . import low",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ring.low import thing",
        "def late():\n    from ring.low import thing",
    ],
)
def test_a_circle_is_found_however_it_is_closed(faults, statement):
    modules = {"low.py": "from ring.high import other", "high.py": statement}
    (fault,) = faults("ring", modules)
    assert fault.startswith("Circle: ") and "ring.low" in fault and "ring.high" in fault
    assert faults("ring", {**modules, "high.py": "import json"}) == []


def test_a_package_and_its_module_are_a_circle(faults):
    assert faults("ring", {"part/__init__.py": "from ring.part.a import x", "part/a.py": "from ring.part import NAME"})


def test_two_packages_are_a_circle_though_their_modules_are_none(faults):
    modules = {
        **dict.fromkeys(("left/__init__.py", "right/__init__.py", "left/low.py"), ""),
        "left/high.py": "import ring.right.middle",
        "right/middle.py": "import ring.left.low",
    }
    (fault,) = faults("ring", modules)
    assert fault.startswith("Circle in ring: ") and "left" in fault and "right" in fault


def test_a_plugin_imports_no_other_plugin(faults):
    modules = {"plugin.py": "import cfi_core, numpy, torch\ndef run():\n    from cfi_b import deep"}
    assert faults("cfi-a", modules, beside=("cfi-b", "cfi-core")) == ["cfi_a imports cfi_b"]


def test_a_plugin_imports_the_libraries_that_it_requires(faults):
    modules = {"plugin.py": "import cfi_lib, cfi_lib_other"}
    assert faults("cfi-a", modules, beside=("cfi-lib", "cfi-lib-other")) == ["cfi_a imports cfi_lib_other"]


def test_a_library_imports_no_plugin(faults):
    assert faults("cfi-lib", {"low.py": "import cfi_core, cfi_b"}, beside=("cfi-b",)) == ["cfi_lib imports cfi_b"]


def test_the_core_imports_what_it_requires_and_nothing_else():
    imported = {"json", "numpy.linalg", "torch.nn", "cfi_core.specs", "cfi_bridge"}
    assert list(foreign("cfi_core", imported, {"numpy"})) == ["cfi_core imports cfi_bridge", "cfi_core imports torch"]


def test_arrows_point_downward():
    arrows = {"roof": {"ground"}, "floor": {"ground", "room"}, "room": set(), "ground": {"floor"}, "shed": set()}
    assert list(rising(arrows, [["roof"], ["floor", "room"], ["ground"], ["cellar"]])) == [
        "cellar is in a layer and no module",
        "shed is in no layer",
        "floor imports room, which does not stand below it",
        "ground imports floor, which does not stand below it",
    ]


def test_every_circle_is_told():
    arrows = {"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}}
    assert sorted(map(sorted, map(set, circles(arrows)))) == [["a", "b"], ["c", "d"]]
    assert list(circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})) == []


def test_the_parts_of_a_package():
    arrows = {"p": {"p.a.x"}, "p.a.x": {"p.b", "p.a.y"}, "p.a.y": set(), "p.b": {"p"}, "q.a": {"p.a"}}
    assert between("p", arrows) == {"a": {"b"}, "b": set()}
