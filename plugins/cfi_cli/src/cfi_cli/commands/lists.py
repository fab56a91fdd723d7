"""`cfi methods`, `toolsets`, `frameworks`, `translators`, `plugins`: what is installed; nothing of it is imported."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import cfi_core as cfi
from cfi_cli.options import command
from cfi_cli.terminal import answer, answer_json, answer_table, aside

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, and nothing else.")]


@command(
    """
    Examples:
      cfi methods
      cfi methods occlusion
      cfi methods --toolset captum --kind layer --json
    """
)
def methods(
    key: Annotated[str | None, typer.Argument(metavar="METHOD", help="One method, shown in full.")] = None,
    toolset: Annotated[str | None, typer.Option(help="Only methods of that toolset.")] = None,
    kind: Annotated[str | None, typer.Option(help="attribution, layer, neuron or 'feature visualization'.")] = None,
    json: Json = False,
) -> None:
    """Introspection methods of all toolsets, or one of them in full."""
    with aside():
        found = cfi.methods(key, toolset=toolset, kind=kind)
    if not found:
        raise cfi.UnknownMethodError(_absence(key, toolset, kind))
    if json:
        answer_json([_of_method(spec) for spec in found])
    elif key is not None:
        answer(repr(found))
    else:
        rows = [
            (spec.key, spec.toolset, spec.kind, ", ".join((*spec.required, *map("[{}]".format, spec.optional))))
            for spec in found
        ]
        answer_table(("method", "toolset", "kind", "arguments"), rows)


def _absence(key: str | None, toolset: str | None, kind: str | None) -> str:
    asked = {"method": key, "toolset": toolset, "kind": kind}
    words = ", ".join(f"{name} {value!r}" for name, value in asked.items() if value is not None)
    return (
        f"There is no method of {words or 'any toolset'} here. `cfi methods` lists all, `cfi toolsets` what is missing."
    )


def _of_method(spec: Any) -> dict[str, Any]:
    names = (
        "key",
        "toolset",
        "kind",
        "needs",
        "required",
        "optional",
        "init_args",
        "exec_args",
        "defaults",
        "head",
        "citation",
    )
    return {name: getattr(spec, name) for name in names}


def _listed(found: Any, json: bool, headings: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Frameworks, toolsets or translators, with what each lacks."""
    entries = [
        {**{name: getattr(one.spec, name) for name in names}, "usable": one.usable, "missing": one.missing}
        for one in found
    ]
    if json:
        answer_json(entries)
        return
    states = ["usable" if one.usable else f"needs {', '.join(one.missing)}" for one in found]
    rows = [(*(entry[name] for name in names), state) for entry, state in zip(entries, states, strict=True)]
    answer_table((*headings, "here"), rows)


@command("Example:\n  cfi toolsets --json")
def toolsets(json: Json = False) -> None:
    """Libraries of introspection methods, and whether they can be used here."""
    _listed(cfi.toolsets(), json, ("toolset", "framework", "homepage"), ("name", "framework", "homepage"))


@command("Example:\n  cfi frameworks")
def frameworks(json: Json = False) -> None:
    """Frameworks whose models are understood."""
    _listed(cfi.frameworks(), json, ("framework", "models"), ("name", "models"))


@command("Example:\n  cfi translators --json")
def translators(json: Json = False) -> None:
    """What leads from one framework to another: bridges run a model where it lives, conversions make a new one."""
    headings = ("translator", "from", "to", "kind", "cost")
    _listed(cfi.translators(), json, headings, ("name", "source", "target", "kind", "cost"))


@command("Example:\n  cfi plugins")
def plugins(json: Json = False) -> None:
    """Installed plugins: loaded, left out and why, or switched off."""
    found = cfi.plugins()
    if json:
        names = ("name", "distribution", "version", "module", "loaded", "state")
        answer_json([{name: getattr(one, name) for name in names} for one in found])
    else:
        answer_table(
            ("plugin", "distribution", "version", "state"),
            [(one.name, one.distribution, one.version, one.state) for one in found],
        )
