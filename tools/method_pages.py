"""Writes docs/methods: a page for each method, from what `cfi.methods(key)` finds in the toolsets that are installed.

python tools/method_pages.py          writes the pages
python tools/method_pages.py --check  only says whether they are what would be written

All toolsets must be installed. The pages hold facts: names, types, defaults, routes. What an argument means is said by
the toolsets in their own words, under their own licences: a page names the place, and `cfi.methods(key)` prints them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfi_core.guide.record import ArgumentGuide, MethodGuide, RouteGuide

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "methods"
KINDS = {
    "attribution": "Of inputs",
    "layer": "Of layers",
    "neuron": "Of neurons",
    "feature visualization": "Feature visualization",
}
EXPLAINED = {"attribution": "the inputs", "layer": "a layer", "neuron": "a neuron of a layer"}


def pages() -> dict[str, str]:
    """The text of each page, by its file's name."""
    import cfi_core as cfi

    keys = sorted({spec.key for spec in cfi.methods()})
    guides = {key: cfi.methods(key).guides for key in keys}
    missing = sorted({f"{one.toolset}: {one.missing}" for found in guides.values() for one in found if one.missing})
    if missing:
        sys.exit(f"All toolsets must be installed. {'; '.join(missing)}")
    return {"index.md": index(guides), **{f"{key}.md": page(key, found) for key, found in guides.items()}}


def index(guides: dict[str, tuple[MethodGuide, ...]]) -> str:
    """All methods by what they explain."""
    lines = ["# Methods", ""]
    lines += [
        "Every method of every toolset of this project, read from the toolsets themselves: `cfi.methods(key)` shows",
        "the same for what is installed, with the meaning of every argument. Each method is tested natively and across",
        "frameworks; how far a bridge or a conversion is from the toolset by itself, and which toolsets agree, stands",
        "in [toolsets side by side](../toolsets.md), and what conversions cannot serve in",
        "[conversions](../conversions.md#what-cannot-be-served).",
    ]
    for kind, title in KINDS.items():
        lines += ["", f"## {title}", "", "| method | toolsets | reference |", "| --- | --- | --- |"]
        for key, found in guides.items():
            own = [one for one in found if one.kind == kind]
            if own:
                toolsets = ", ".join(one.toolset for one in own)
                lines.append(f"| [`{key}`]({key}.md) | {toolsets} | {own[0].citation} |")
    return "\n".join(lines) + "\n"


def page(key: str, guides: Iterable[MethodGuide]) -> str:
    """One method, with a section for each toolset that has it."""
    guides = list(guides)
    citations = list(dict.fromkeys(one.citation for one in guides))
    lines = [f"# {key}", "", f"{'; '.join(citations)}.", ""]
    trees = {one.framework for one in guides} == {"trees"}
    model, inputs = (
        ("a fitted tree", "an array of rows of its table") if trees else ("a model of images", "an array of some")
    )
    lines += [f"In the calls, `model` is {model} and `inputs` is {inputs}."]
    for guide in guides:
        lines += ["", f"## With {guide.toolset}", "", *section(guide)]
    return "\n".join(lines) + "\n"


def section(guide: MethodGuide) -> Iterator[str]:
    """A method of one toolset."""
    yield from ("```python", guide.example, "```", "", "| | |", "| --- | --- |")
    yield f"| explains | {EXPLAINED.get(guide.kind, 'what excites a class or a channel')} of {guide.framework} models |"
    yield f"| a softmax at the end | is explained at its {guide.head} |"
    yield f"| uniform arguments | {uniform(guide)} |"
    yield f"| needs of a model | {', '.join(need.replace('_', ' ') for need in guide.needs) or 'nothing'} |"
    for names, route in routes(guide):
        yield f"| {names} | {route} |"
    for where, whose in (("init_args", "constructor"), ("exec_args", "call")):
        own = [one for one in guide.arguments if one.where == where and not one.uniform]
        if own:
            yield from ("", f"`{where}`, of the toolset's {whose}:", "", *table(own))
    filled = [f"`{one.name}` (by `{one.uniform}=`)" for one in guide.arguments if one.uniform]
    if filled:
        yield from ("", f"Filled by uniform arguments: {', '.join(filled)}.")


def uniform(guide: MethodGuide) -> str:
    """The uniform arguments that it takes, those it cannot do without in bold."""
    return " ".join([*(f"**`{name}`**" for name in guide.required), *(f"`{name}`" for name in guide.optional)])


def routes(guide: MethodGuide) -> Iterator[tuple[str, str]]:
    """From which frameworks models get there, and how; frameworks of one route in a row."""

    def way(one: RouteGuide) -> str:
        return one.route.partition("(")[2].rstrip(")") or one.route or one.install

    for told, rows in groupby(sorted(guide.routes, key=lambda one: (way(one), one.framework)), key=way):
        yield "from " + ", ".join(one.framework for one in rows), told


def table(arguments: Iterable[ArgumentGuide]) -> Iterator[str]:
    """The toolset's own arguments."""
    yield "| argument | type | default | what it means, or where the toolset tells it |"
    yield "| --- | --- | --- | --- |"
    for one in arguments:
        yield f"| `{one.name}` | {code(one.type)} | {default(one)} | {meaning(one)} |"


def default(one: ArgumentGuide) -> str:
    """What it is where nothing is passed: here, and for the toolset's own users where that is something else."""
    if one.required:
        return "**required**"
    told = [code(one.raw or one.default) or "needed with some settings"]
    theirs = one.toolset or one.default
    if theirs and theirs != (one.raw or one.default):
        told.append(f'{code(theirs)} with `defaults="toolset"`')
    return ", ".join(told)


def meaning(one: ArgumentGuide) -> str:
    """In our words, or where the toolset says it."""
    if ":" not in one.source:
        return " ".join(one.meaning.split()).replace("|", "\\|")
    module, _, name = one.source.partition(":")
    return f"`{module}.{name}`"


def code(text: str) -> str:
    """As code in a cell of a table."""
    text = " ".join(text.split()).replace("|", "\\|").replace("`", "")
    return f"`{text}`" if text else ""


def main() -> None:
    """Writes the pages, or compares them."""
    made = pages()
    found = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    if "--check" in sys.argv:
        differing = sorted(name for name in made.keys() | found.keys() if made.get(name) != found.get(name))
        sys.exit(f"{', '.join(differing)} in {FOLDER}: run python tools/method_pages.py." if differing else 0)
    FOLDER.mkdir(exist_ok=True)
    for name in found.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
