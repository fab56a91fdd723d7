"""Writes cfi_core/catalogue.py: what the plugins in this repository bring, so that core can say what to install.

python tools/catalogue.py          writes the file
python tools/catalogue.py --check  only says whether it is what would be written
"""

from __future__ import annotations

import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from textwrap import fill
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "cfi_core" / "catalogue.py"
_LINE = 120

_EMPTY = ModuleType("cfi_core.catalogue")
_EMPTY.__getattr__ = lambda name: {}  # type: ignore[method-assign]

_HEADER = '''"""What the project's own plugins bring, so that an error can say what to install.

Written by tools/catalogue.py: run it after a change of what a plugin offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cfi_core.specs import FrameworkSpec

'''

_FOOTER = """

def _owners(table: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({name: owner for owner, names in table.items() for name in names.split()})


def _pairs(types: str) -> tuple[Any, ...]:
    return tuple(text.split(":") for text in types.split())


DISTRIBUTION_OF_FRAMEWORK = _owners(_FRAMEWORKS)
DISTRIBUTION_OF_TOOLSET = _owners(_TOOLSETS)
DISTRIBUTION_OF_TRANSLATOR = _owners(_TRANSLATORS)
DISTRIBUTION_OF_PLOTTER = _owners(_PLOTTERS)
DISTRIBUTION_OF_WRITER = _owners(_WRITERS)

TOOLSETS_OF_METHOD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        key: tuple(toolset for toolset, keys in _METHODS.items() if key in keys.split())
        for key in " ".join(_METHODS.values()).split()
    }
)

FRAMEWORKS: Mapping[str, FrameworkSpec] = MappingProxyType(
    {
        name: FrameworkSpec(
            name=name,
            model_types=_pairs(_MODEL_TYPES.get(name, "")),
            tensor_types=_pairs(_TENSOR_TYPES.get(name, "")),
            adapter=_ADAPTER[name],
            module=_MODULE[name],
            file_suffixes=tuple(_FILE_SUFFIXES.get(name, "").split()),
            aliases=tuple(_ALIASES.get(name, "").split()),
        )
        for name in DISTRIBUTION_OF_FRAMEWORK
    }
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
    """What belongs into the file: tables of words, each by its distribution, toolset or framework."""
    tables: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for distribution, plugin in plugins():
        for kind in ("frameworks", "toolsets", "translators", "plotters"):
            tables[kind][distribution] += [spec.name for spec in _offered(plugin, kind)]
        tables["writers"][distribution] += [name for spec in _offered(plugin, "writers") for name in spec.suffixes]
        for spec in _offered(plugin, "methods"):
            tables["methods"][spec.toolset].append(spec.key)
        for spec in _offered(plugin, "frameworks"):
            tables["adapter"][spec.name], tables["module"][spec.name] = [spec.adapter], [spec.module]
            for field in ("model_types", "tensor_types"):
                tables[field][spec.name] = [":".join(names) for names in getattr(spec, field)]
            for field in ("file_suffixes", "aliases"):
                tables[field][spec.name] = list(getattr(spec, field))
    return _HEADER + "".join(_table(name, entries) for name, entries in tables.items()) + _FOOTER


def _offered(plugin: Any, kind: str) -> Any:
    hook = f"cfi_{kind}"
    return getattr(plugin, hook)() if hasattr(plugin, hook) else ()


def _table(name: str, entries: Mapping[str, list[str]]) -> str:
    """Python for a table, laid out as the formatter does."""
    ordered = name not in ("model_types", "tensor_types")  # where the first type that fits is taken
    words = {key: " ".join(sorted(entries[key]) if ordered else entries[key]) for key in sorted(entries)}
    rows = [_row(key, value) for key, value in words.items() if value]
    line = f"_{name.upper()} = {{{', '.join(rows)}}}\n"
    if len(line) <= _LINE + 1 and "\n" not in line[:-1]:
        return line
    return f"_{name.upper()} = {{\n" + "".join(f"    {row},\n" for row in rows) + "}\n"


def _row(key: str, words: str) -> str:
    row = f'"{key}": "{words}"'
    if len(row) <= _LINE - 5:
        return row
    return f'"{key}": """\n{fill(words, _LINE, initial_indent=" " * 8, subsequent_indent=" " * 8)}\n    """'


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if FILE.read_text() == text() else f"{FILE} is not up to date: run python {Path(__file__).name}.")
    FILE.write_text(text())
