"""Writes cfi_core/catalogue.py: what the plugins in this repository bring, so that core can say what to install.

python tools/catalogue.py          writes the file
python tools/catalogue.py --check  only says whether it is what would be written
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from textwrap import fill
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "cfi_core" / "catalogue.py"
_LINE = 120
FIELDS = ("name", "model_types", "tensor_types", "adapter", "module", "file_suffixes", "aliases")

_EMPTY = ModuleType("cfi_core.catalogue")
_EMPTY.__getattr__ = lambda name: {}  # type: ignore[method-assign]

HEADER = '''"""What the project's own plugins bring, so that an error can say what to install.

Written by tools/catalogue.py: run it after a change of what a plugin offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cfi_core.specs import FrameworkSpec

'''

_METHODS = """_METHODS_OF_TOOLSET = {{
{rows}}}

TOOLSETS_OF_METHOD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {{
        key: tuple(toolset for toolset, keys in _METHODS_OF_TOOLSET.items() if key in keys.split())
        for keys in _METHODS_OF_TOOLSET.values()
        for key in keys.split()
    }}
)
"""


def plugins() -> Iterator[tuple[str, Any]]:
    """The distributions of the repository, and the plugin module of each."""
    sys.path[:0] = [str(ROOT), *map(str, sorted(ROOT.glob("plugins/*/src")))]
    sys.modules.setdefault("cfi_core.catalogue", _EMPTY)  # core is imported, and the file may be what is broken
    for path in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]
        for module in project["entry-points"]["cfi_core.plugins"].values():
            yield project["name"], import_module(module)


def text() -> str:
    """What belongs into the file."""
    toolsets: dict[str, str] = {}
    translators: dict[str, str] = {}
    plotters: dict[str, str] = {}
    writers: dict[str, str] = {}
    frameworks: dict[str, str] = {}
    specs: dict[str, Any] = {}
    methods: dict[str, list[str]] = {}
    for distribution, plugin in plugins():
        toolsets |= {spec.name: distribution for spec in _offered(plugin, "cfi_toolsets")}
        translators |= {spec.name: distribution for spec in _offered(plugin, "cfi_translators")}
        plotters |= {spec.name: distribution for spec in _offered(plugin, "cfi_plotters")}
        writers |= {suffix: distribution for spec in _offered(plugin, "cfi_writers") for suffix in spec.suffixes}
        for spec in _offered(plugin, "cfi_frameworks"):
            frameworks[spec.name], specs[spec.name] = distribution, spec
        for spec in _offered(plugin, "cfi_methods"):
            methods.setdefault(spec.toolset, []).append(spec.key)
    parts = (
        _mapping("DISTRIBUTION_OF_TOOLSET", "str", toolsets),
        _mapping("DISTRIBUTION_OF_TRANSLATOR", "str", translators),
        _mapping("DISTRIBUTION_OF_PLOTTER", "str", plotters),
        _mapping("DISTRIBUTION_OF_WRITER", "str", writers),
        _mapping("DISTRIBUTION_OF_FRAMEWORK", "str", frameworks),
        _METHODS.format(rows="".join(_words(toolset, methods[toolset]) for toolset in sorted(methods))),
        _mapping("FRAMEWORKS", "FrameworkSpec", specs),
    )
    return HEADER + "\n".join(parts)


def _offered(plugin: Any, hook: str) -> Iterable[Any]:
    return getattr(plugin, hook)() if hasattr(plugin, hook) else ()


def _words(toolset: str, keys: Iterable[str]) -> str:
    words = fill(" ".join(sorted(keys)), _LINE, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f'    "{toolset}": """\n{words}\n    """,\n'


def _mapping(name: str, kind: str, entries: dict[str, Any]) -> str:
    start = f"{name}: Mapping[str, {kind}] = MappingProxyType("
    rows = [f"{_code(key, 8)}: {_code(entries[key], 8)}" for key in sorted(entries)]
    line = f"{start}{{{', '.join(rows)}}})\n"
    if len(line) <= _LINE + 1:
        return line
    return f"{start}\n    {{\n" + "".join(f"        {row},\n" for row in rows) + "    }\n)\n"


def _code(value: Any, indent: int) -> str:
    """Python for a value, laid out as the formatter does."""
    inner, outer = " " * (indent + 4), " " * indent
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        rows = [_code(entry, indent + 4) for entry in value]
        if len(rows) > 1 and isinstance(value[0], tuple):
            return "(\n" + "".join(f"{inner}{row},\n" for row in rows) + f"{outer})"
        return f"({', '.join(rows)}{',' * (len(rows) == 1)})"
    given = {field: getattr(value, field) for field in FIELDS if getattr(value, field) or field.endswith("_types")}
    rows = [f"{inner}{field}={_code(entry, indent + 4)},\n" for field, entry in given.items()]
    return f"{type(value).__name__}(\n{''.join(rows)}{outer})"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if FILE.read_text() == text() else f"{FILE} is not up to date: run python {Path(__file__).name}.")
    FILE.write_text(text())
