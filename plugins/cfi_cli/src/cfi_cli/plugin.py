"""What this plugin offers: the commands of `cfi`. Importing it imports neither typer nor any command."""

from __future__ import annotations

from cfi_core.hookspec import hookimpl
from cfi_core.specs import CommandSpec

_COMMANDS = (
    ("methods", "lists:methods", "Introspection methods of all toolsets, or one of them in full."),
    ("toolsets", "lists:toolsets", "Libraries of introspection methods, and whether they can be used here."),
    ("frameworks", "lists:frameworks", "Frameworks whose models are understood."),
    ("translators", "lists:translators", "What leads from one framework to another."),
    ("plugins", "lists:plugins", "Installed plugins: loaded, left out and why, or switched off."),
    ("doctor", "health:doctor", "What is installed, missing or at odds; a small test of every toolset."),
    ("layers", "inspection:layers", "Layers of a model, under the names that --layer takes."),
    ("plan", "inspection:plan", "What a method would do with a model: toolset, route, settings."),
    ("attribute", "explanation:attribute", "Explains a model on images, arrays or tables."),
    ("compare", "differences:compare", "Several methods or toolsets on one question, and why they differ."),
    ("report", "pages:report", "Explanations of a model on one HTML page."),
    (
        "translate",
        "exchange:translate",
        "Converts a model to another framework, with the evidence that it is the same.",
    ),
    ("verify", "exchange:verify", "Whether two models, of whatever frameworks, compute the same."),
)


@hookimpl
def cfi_commands() -> list[CommandSpec]:
    """All commands that come with `cfi` itself."""
    return [
        CommandSpec(name=name, help=words, implementation=f"cfi_cli.commands.{place}")
        for name, place, words in _COMMANDS
    ]
