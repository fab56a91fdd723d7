"""Writes cfi_core/catalogue.json: what the plugins in this repository bring, so that core can say what to install.

python tools/catalogue.py          writes the file
python tools/catalogue.py --check  only says whether it is what would be written
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "cfi_core" / "catalogue.json"
_FIELDS = ("name", "model_types", "tensor_types", "adapter", "module", "file_suffixes", "aliases", "formats")

_EMPTY = ModuleType("cfi_core.catalogue")
_EMPTY.__getattr__ = lambda name: {}  # type: ignore[method-assign]


def plugins() -> Iterator[tuple[str, Any]]:
    """The distributions of the repository, and the plugin module of each."""
    sys.path[:0] = [str(ROOT), *map(str, sorted(ROOT.glob("plugins/*/src")))]
    sys.modules.setdefault("cfi_core.catalogue", _EMPTY)  # core is imported, and the file may be what is broken
    for path in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]
        for module in project.get("entry-points", {}).get("cfi_core.plugins", {}).values():
            yield project["name"], import_module(module)


def text() -> str:
    """What belongs into the file: who brings each name, the toolsets of each method, and how frameworks are known."""
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    toolsets: dict[str, list[str]] = defaultdict(list)
    known: list[dict[str, Any]] = []
    prepared: list[dict[str, Any]] = []
    for distribution, plugin in plugins():
        for kind in ("frameworks", "toolsets", "translators", "plotters"):
            owners[kind] |= dict.fromkeys(sorted(spec.name for spec in _offered(plugin, kind)), distribution)
        owners["reached"] |= {spec.name: spec.target for spec in _offered(plugin, "translators")}
        suffixes = sorted(suffix for spec in _offered(plugin, "writers") for suffix in spec.suffixes)
        owners["writers"] |= dict.fromkeys(suffixes, distribution)
        for spec in sorted(_offered(plugin, "methods"), key=lambda spec: spec.key):
            toolsets[spec.key].append(spec.toolset)
        types = [(spec.name, spec.model_types) for spec in _offered(plugin, "preparations")]
        prepared += [{"name": name, "model_types": own, "distribution": distribution} for name, own in types]
        known += [{name: getattr(spec, name) for name in _FIELDS} for spec in _offered(plugin, "frameworks")]
    tables = {**owners, "methods": toolsets, "preparations": prepared, "known": known}
    return json.dumps(tables, indent=2, default=_told) + "\n"


def _told(record: Any) -> dict[str, Any]:
    """Of a record what it does not say by default."""
    return {one.name: value for one in fields(record) if (value := getattr(record, one.name)) != one.default}


def _offered(plugin: Any, kind: str) -> Any:
    hook = f"cfi_{kind}"
    return getattr(plugin, hook)() if hasattr(plugin, hook) else ()


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if FILE.read_text() == text() else f"{FILE} is not up to date: run python {Path(__file__).name}.")
    FILE.write_text(text())
