"""What a guide holds, and how it looks: in a hundred columns of a terminal, and in a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import indent, wrap

WIDTH = 100


@dataclass(frozen=True)
class ArgumentGuide:
    """One of the toolset's own arguments.

    Attributes:
        name: What the toolset calls it.
        where: `"init_args"` or `"exec_args"`: of the constructor or of the call.
        meaning: What it does, a blank line between paragraphs.
        type: Of which type it is, in the toolset's words; empty if it says nothing.
        default: What the toolset's signature gives where nothing is passed; empty if it gives nothing, or if that is up
            to what the method combines (the method that it wraps, the rules that it is given).
        raw: What CFI gives instead (`defaults="raw"`); empty if it leaves that to the toolset.
        toolset: What `defaults="toolset"` gives; empty if it leaves that to the toolset.
        required: The method cannot run without it.
        uniform: The uniform argument that fills it, such as `"inputs"`; empty if none does.
        source: Where the meaning stands, as `"module:Class.method"`; the distribution whose argument it is, if it is
            no argument of the toolset.
    """

    name: str
    where: str
    meaning: str
    type: str = ""
    default: str = ""
    raw: str = ""
    toolset: str = ""
    required: bool = False
    uniform: str = ""
    source: str = ""


@dataclass(frozen=True)
class RouteGuide:
    """How a model of one framework gets to the toolset.

    Attributes:
        framework: The framework of the model.
        route: The route in words; empty if there is none.
        install: What to install first, or why there is none; empty if it can be used as it is.
    """

    framework: str
    route: str
    install: str = ""


@dataclass(frozen=True)
class MethodGuide:
    """One method of one toolset, in full; print it to read it.

    Attributes:
        key: Its key.
        toolset: Its toolset.
        framework: The framework that the toolset works on.
        kind: What it explains.
        citation: Paper or library that defines it.
        head: Where a softmax at the end of a model is explained.
        needs: What it requires of the model.
        required: Uniform arguments without which it cannot run.
        optional: Uniform arguments that it also understands.
        arguments: The toolset's own, of constructor and call.
        set_by_cfi: Arguments that the toolset has and that are not taken, because CFI gives them.
        routes: From every known framework.
        example: A call that runs as it is written, on a `model` of images (a tree on rows of a table) and its `inputs`.
        missing: What is not installed, so that the toolset's words could not be read; empty in the best case.
    """

    key: str
    toolset: str
    framework: str
    kind: str
    citation: str
    head: str
    needs: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    arguments: tuple[ArgumentGuide, ...]
    set_by_cfi: tuple[str, ...]
    routes: tuple[RouteGuide, ...]
    example: str
    missing: str = ""

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return _as_html(self)


def _lines(guide: MethodGuide) -> Iterator[str]:
    title = f"{guide.key} of {guide.toolset}"
    yield title
    yield "─" * len(title)
    yield from _row("explains", _explains(guide))
    yield from _row("citation", guide.citation)
    yield from _row("needs", ", ".join(guide.needs) or "nothing in particular")
    yield from _row("takes", _uniform(guide))
    for number, (names, text) in enumerate(_routes(guide)):
        yield from _row("routes" if number == 0 else "", f"{names}: {text}")
    if guide.missing:
        yield from _row("missing", f"{guide.missing}; what the toolset says of its arguments can be read once it is")
    yield from ("example", indent(guide.example, "  "))
    for where, what in (("init_args", "constructor"), ("exec_args", "call")):
        own = [one for one in guide.arguments if one.where == where]
        if own:
            yield f"{where} of the toolset's {what}"
        for one in own:
            yield from _argument(one)
    if guide.set_by_cfi:
        yield from _row("not taken", f"{', '.join(guide.set_by_cfi)} (CFI gives them)")


def _row(name: str, text: str) -> list[str]:
    return wrap(text, WIDTH, initial_indent=f"{name:<11}", subsequent_indent=" " * 11, break_on_hyphens=False)


def _explains(guide: MethodGuide) -> str:
    what = {"attribution": "inputs", "layer": "a layer", "neuron": "a neuron of a layer"}.get(guide.kind, guide.kind)
    return f"{what}, on {guide.framework} models; a softmax at the end at its {guide.head}"


def _uniform(guide: MethodGuide) -> str:
    optional = [f"[{name}=]" for name in guide.optional]
    return " ".join((*(f"{name}=" for name in guide.required), *optional)) or "nothing"


def _routes(guide: MethodGuide) -> list[tuple[str, str]]:
    """Frameworks with one kind of route in a row: their names, and the route."""
    rows: dict[str, list[str]] = {}
    for one in guide.routes:
        translators = one.route.partition("(")[2].rstrip(")") or one.route
        text = f"{translators}, {one.install}" if translators and one.install else translators or one.install
        rows.setdefault(text, []).append(one.framework)
    return [(", ".join(names), text) for text, names in rows.items()]


def _argument(one: ArgumentGuide) -> Iterator[str]:
    yield from wrap(
        "; ".join(filter(None, (one.name, *_facts(one)))),
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
    for paragraph in _meaning(one):
        yield from wrap(paragraph, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def _meaning(one: ArgumentGuide) -> list[str]:
    """Its paragraphs; of what a uniform argument fills, which `cfi.attribute` explains, the first sentence."""
    return [re.split(r"(?<=\.)\s", one.meaning)[0]] if one.uniform else one.meaning.split("\n\n")


def _facts(one: ArgumentGuide) -> Sequence[str]:
    """What stands beside the name of an argument."""
    if one.uniform:
        return (f"filled by {one.uniform}=",)
    facts = [one.type]
    if one.required:
        facts.append("required")
    elif one.default:
        facts.append(f"default {one.default}")
    elif not one.raw:
        facts.append("needed with some settings")
    if one.raw and one.raw == one.toolset:
        facts.append(f"here {one.raw}" if one.raw != one.default else "")
    else:
        facts.append(f"here {one.raw}" if one.raw and one.raw != one.default else "")
        facts.append(f"with defaults='toolset' {one.toolset}" if one.toolset and one.toolset != one.default else "")
    return facts


def _as_html(guide: MethodGuide) -> str:
    """For a notebook: a table of facts, and one of the arguments that can be given."""
    facts = {
        "explains": _explains(guide),
        "citation": guide.citation,
        "needs": ", ".join(guide.needs),
        "takes": _uniform(guide),
        **({"missing": guide.missing} if guide.missing else {}),
    }
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th><td>{escape(text)}</td></tr>" for name, text in facts.items()
    )
    routes = "<br>".join(f"{escape(name)}: {escape(text)}" for name, text in _routes(guide))
    rows += f"<tr><th style='text-align:left'>routes</th><td>{routes}</td></tr>"
    arguments = "".join(map(_argument_html, guide.arguments))
    return (
        f"<h4>{escape(guide.key)} of {escape(guide.toolset)}</h4><table>{rows}</table>"
        f"<pre>{escape(guide.example)}</pre>"
        f"<details open><summary>arguments of the toolset</summary><table>{arguments}</table></details>"
    )


def _argument_html(one: ArgumentGuide) -> str:
    facts = escape("; ".join(filter(None, _facts(one))))
    meaning = "<br>".join(map(escape, _meaning(one)))
    name = f"<code>{escape(one.where)}[{escape(repr(one.name))}]</code>"
    return f"<tr><td style='text-align:left'>{name}</td><td style='text-align:left'>{facts}<br>{meaning}</td></tr>"
