"""What this plugin offers: two commands. Importing it imports neither xarray nor zarr."""

from __future__ import annotations

from cfi_core.hookspec import hookimpl
from cfi_core.specs import CommandSpec

_NEEDS = ("typer>=0.29.2",)


@hookimpl
def cfi_commands() -> list[CommandSpec]:
    """`cfi explain-dataset` and `cfi status`."""
    return [
        CommandSpec(
            name="explain-dataset",
            help="Explains a data set into a store; goes on where it stopped.",
            implementation="cfi_scale.commands:explain",
            requirements=_NEEDS,
        ),
        CommandSpec(
            name="status",
            help="How far a store of explain-dataset is.",
            implementation="cfi_scale.commands:status",
            requirements=_NEEDS,
        ),
    ]
