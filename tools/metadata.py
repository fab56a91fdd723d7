"""Gives all distributions one version and the same facts about the project.

    python tools/metadata.py            # copies them to each distribution
    python tools/metadata.py 0.2.0      # gives all of them a new version
    python tools/metadata.py --check    # says which files differ

The facts stand once, in the core's `pyproject.toml`, between two marks. Every distribution holds a copy as plain text,
so that it can be built and read by itself. The distributions require each other from this version on, up to the next
minor one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from distributions import ROOT, distributions

SHARED = re.compile(r"^# Shared by all distributions.*?^# End of what is shared\.\n", re.DOTALL | re.MULTILINE)
VERSION = re.compile(r'^version = "(.*)"$', re.MULTILINE)


def intended(root: Path = ROOT, version: str = "") -> dict[Path, str]:
    """What the files that hold shared facts should hold.

    Args:
        root: Folder of the repository.
        version: The version to give to all distributions; left out, the one that the core has.
    """
    known = distributions(root)
    core, *plugins = (found.pyproject for found in known.values())
    shared = _first(SHARED, core.read_text()).group()
    version = version or _first(VERSION, shared).group(1)
    shared = VERSION.sub(f'version = "{version}"', shared)
    files = {path: _sharing(path.read_text(), shared) for path in (core, *plugins)}
    files = {path: _requiring(text, known, version) for path, text in files.items()}
    files |= {path.with_name("LICENSE"): (root / "LICENSE").read_text() for path in plugins}
    citation = root / "CITATION.cff"
    files[citation] = re.sub(r"^version: .*$", f"version: {version}", citation.read_text(), flags=re.MULTILINE)
    return files


def _sharing(text: str, shared: str) -> str:
    """A `pyproject.toml` with the shared lines in the place of its own; a new one gets them at the end of its table."""
    if SHARED.search(text):
        return SHARED.sub(lambda _: shared, text)
    own = re.sub(r"^(version|requires-python|license) = .*\n", "", text, flags=re.MULTILINE)
    project, table, rest = own.partition("\n[project.")
    return project + shared + table + rest


def _requiring(text: str, names: Iterable[str], version: str) -> str:
    """A `pyproject.toml` that requires this version of the other distributions."""
    requirement = rf'(?<!name = )"({"|".join(names)})(\[[^]]*\])?(?=["<>=~!; ])[^";]*'
    return re.sub(requirement, rf'"\1\2~={version}', text)


def _first(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.search(text)
    if match is None:
        raise ValueError(f"The core's pyproject.toml has no {pattern.pattern!r}.")
    return match


def main(arguments: list[str]) -> int:
    """Writes the files, or tells which are not as they should be."""
    check = arguments == ["--check"]
    files = intended(version="" if check or not arguments else arguments[0])
    differing = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in differing:
        if not check:
            path.write_text(files[path])
        print(path.relative_to(ROOT), "differs: run python tools/metadata.py" if check else "written")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
