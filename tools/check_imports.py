"""Checks who imports whom. Every import statement counts, those for types alone and those within functions too.

1. No circle: neither among the modules of a distribution, nor among the parts (modules and packages) of a package.
2. The core's modules stand in layers (`[tool.check-imports]` in pyproject.toml), and import only what stands below.
3. The core imports the standard library and what it requires, no framework, and no plugin.
4. A plugin imports the core and itself, and of the other distributions those that it requires and that are libraries,
   which have no entry point. A library imports no plugin.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import grimp
from distributions import ROOT, Distribution, distributions, split

Arrows = Mapping[str, set[str]]


def circles(arrows: Arrows) -> Iterator[list[str]]:
    """Circles of imports, as many as must be broken; each begins and ends with the same name."""
    left = {name: sorted(others) for name, others in arrows.items()}
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]  # in the order of the imports
            yield circle
            left[circle[0]].remove(circle[1])
        else:
            return


def between(package: str, arrows: Arrows) -> Arrows:
    """Imports between the parts of a package, each of which is a module or a whole package."""

    def part(name: str) -> str:
        return name.removeprefix(f"{package}.").partition(".")[0] if name.startswith(f"{package}.") else ""

    parts: dict[str, set[str]] = {}
    for importer, imported in arrows.items():
        parts.setdefault(part(importer), set()).update(map(part, imported))
    return {name: others - {name, ""} for name, others in parts.items() if name}


def rising(arrows: Arrows, layers: Sequence[Sequence[str]]) -> Iterator[str]:
    """Imports of what does not stand on a lower layer, and names that only one of modules and layers has."""
    height = {name: -number for number, layer in enumerate(layers) for name in layer}
    for name in sorted(height.keys() ^ arrows.keys()):
        yield f"{name} is in no layer" if name in arrows else f"{name} is in a layer and no module"
    for importer, imported in sorted(arrows.items()):
        for name in sorted(imported):
            if height.get(name, 0) >= height.get(importer, 0):
                yield f"{importer} imports {name}, which does not stand below it"


def foreign(package: str, imported: set[str], allowed: set[str]) -> Iterator[str]:
    """What is imported from outside and may not be."""
    for name in sorted({name.partition(".")[0] for name in imported} - {package} - allowed - sys.stdlib_module_names):
        yield f"{package} imports {name}"


def main() -> int:
    """Prints every import that breaks a rule."""
    known = distributions()
    sys.path[:0] = [str(found.sources) for found in known.values()]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["check-imports"]
    faults = [fault for found in known.values() for fault in check(found, known, settings)]
    print(*faults, sep="\n") if faults else print(f"The imports of {len(known)} distributions keep the rules.")
    return int(bool(faults))


def check(found: Distribution, known: Mapping[str, Distribution], settings: Mapping[str, list[str]]) -> Iterator[str]:
    """What one distribution does against the rules."""
    graph = grimp.build_graph(found.package, include_external_packages=True, cache_dir=None)
    modules = {name for name in graph.modules if not graph.is_module_squashed(name)}
    everything = {name: graph.find_modules_directly_imported_by(name) for name in sorted(modules)}
    arrows = {name: imported & modules for name, imported in everything.items()}
    faults = [f"Circle: {' → '.join(circle)}" for circle in circles(arrows)]
    # Parts that form a circle are most often modules that do, which says more.
    for package in () if faults else filter(graph.find_children, arrows):
        faults += [f"Circle in {package}: {' → '.join(circle)}" for circle in circles(between(package, arrows))]
    yield from faults
    outside = set().union(*everything.values()) - modules
    if found.name == "cfi-core":
        layers = [layer.split() for layer in settings["core"]]
        yield from (f"{found.package}: {fault}" for fault in rising(between(found.package, arrows), layers))
        required = {split(text)[0].replace("-", "_") for text in found.requirements(found.extras)}
        yield from foreign(found.package, outside, required | set(settings["optional"]))
    else:
        required = {split(text)[0] for text in found.requirements(found.extras)}
        libraries = {other.package for name, other in known.items() if other.is_library and name in required}
        others = {other.package for other in known.values()} - {found.package, "cfi_core"} - libraries
        yield from (f"{found.package} imports {name}" for name in sorted(outside & others))


if __name__ == "__main__":
    sys.exit(main())
