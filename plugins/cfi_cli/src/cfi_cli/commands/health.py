"""`cfi doctor`: what is installed, missing and at odds, what to do about it, and whether toolsets give right values."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated, Any

import typer

import cfi_core as cfi
from cfi_cli.commands.lists import Json
from cfi_cli.exits import Code
from cfi_cli.known_answers import Outcome, check_toolset
from cfi_cli.options import command
from cfi_cli.terminal import answer, answer_json, answer_table, aside, say
from cfi_core.catalogue import DISTRIBUTION_OF_FRAMEWORK, DISTRIBUTION_OF_TOOLSET, DISTRIBUTION_OF_TRANSLATOR
from cfi_core.registry import registry
from cfi_core.requirements import unmet


@dataclass(frozen=True)
class Missing:
    """Something that cannot be used here, and the line that mends it."""

    what: str
    needs: tuple[str, ...]
    remedy: str


@dataclass(frozen=True)
class Clash:
    """What is installed or set, and does not go together."""

    what: str
    remedy: str


@command(
    """
    Exit code: 0 all is well, 1 something is at odds or a toolset gives wrong values. What is not installed is no fault.
    \b
    Examples:
      cfi doctor
      cfi doctor --no-tests
      cfi doctor --toolset captum --json
    """
)
def doctor(
    tests: Annotated[bool, typer.Option(help="Explain a small known model with every toolset.")] = True,
    toolset: Annotated[list[str] | None, typer.Option(help="Test only this one; may be given several times.")] = None,
    json: Json = False,
) -> None:
    """What is installed, missing or at odds; a small test of every toolset."""
    with aside():
        versions, lacks, clashes = dict(_versions()), list(_missing()), list(_clashes())
        outcomes = list(_test(toolset or [])) if tests else []
    if json:
        answer_json({"versions": versions, "missing": lacks, "clashes": clashes, "tests": outcomes})
    else:
        _tell(versions, lacks, clashes, outcomes)
    if clashes or any(one.passed is False for one in outcomes):
        raise typer.Exit(Code.NO)


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    named = [plugin.distribution for plugin in cfi.plugins()]
    named += [one.spec.module for one in cfi.frameworks()]
    named += [text for one in cfi.toolsets() for text in map(_name_of, one.spec.requirements)]
    named += [text for one in cfi.translators() for text in map(_name_of, one.spec.requirements)]
    for name in dict.fromkeys((*named, "numpy", "matplotlib")):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _name_of(requirement: str) -> str:
    from packaging.requirements import Requirement

    return Requirement(requirement).name


def _missing() -> Iterator[Missing]:
    """What is known and cannot be used: without its library, or without its plugin."""
    for noun, found in (
        ("framework", cfi.frameworks()),
        ("toolset", cfi.toolsets()),
        ("translator", cfi.translators()),
    ):
        for one in found:
            if not one.usable:
                extra = getattr(one.spec, "extra", "")
                wanted = (extra,) if extra else one.missing
                yield Missing(f"{noun} {one.name}", one.missing, f"pip install {' '.join(map(_quote, wanted))}")
    here = registry()
    catalogue = (
        ("framework", DISTRIBUTION_OF_FRAMEWORK, here.frameworks),
        ("toolset", DISTRIBUTION_OF_TOOLSET, here.toolsets),
        ("translator", DISTRIBUTION_OF_TRANSLATOR, here.translators),
    )
    installed = {plugin.distribution for plugin in here.plugins}
    for noun, names, known in catalogue:
        for name, distribution in names.items():
            if name not in known and distribution not in installed:
                yield Missing(f"{noun} {name}", (distribution,), f"pip install {distribution}")


def _quote(requirement: str) -> str:
    return f"'{requirement}'" if any(one in requirement for one in "<>=[; ") else requirement


def _clashes() -> Iterator[Clash]:
    """Plugins that were left out, requirements that are not met, settings that move a framework away."""
    for plugin in cfi.plugins():
        if plugin.error:
            yield Clash(
                f"plugin {plugin.name} of {plugin.label} was left out: {plugin.error}",
                f"pip install -U {plugin.distribution}",
            )
        for reason in plugin.withdrawn:
            yield Clash(f"{plugin.label}: {reason}", "uninstall one of the two")
    for distribution in dict.fromkeys(plugin.distribution for plugin in cfi.plugins()):
        try:
            broken = unmet(requires(distribution) or ())
        except PackageNotFoundError:
            continue
        for text in broken:
            yield Clash(
                f"{distribution} needs {text}, and has {_has(text)}",
                f"pip install {_quote(text.partition(';')[0].strip())}",
            )
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    keras_toolsets = [one.name for one in cfi.toolsets() if one.usable and one.spec.framework == "tensorflow"]
    if backend != "tensorflow" and keras_toolsets:
        what = f"KERAS_BACKEND={backend}: {', '.join(keras_toolsets)} work with Keras on TensorFlow"
        yield Clash(what, "unset KERAS_BACKEND")
    if os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True"):
        yield Clash(
            "TF_USE_LEGACY_KERAS makes tf.keras Keras 2, which is not the Keras 3 of your models",
            "unset TF_USE_LEGACY_KERAS",
        )


def _has(requirement: str) -> str:
    try:
        return version(_name_of(requirement))
    except PackageNotFoundError:
        return "none"


def _test(only: list[str]) -> Iterator[Outcome]:
    known = {one.name: one for one in cfi.toolsets()}
    if unknown := sorted(set(only) - set(known)):
        raise cfi.ArgumentError(f"There is no toolset {unknown[0]!r}; there are {', '.join(known)}.")
    for name in only or known:
        if known[name].usable:
            say(f"testing {name} …")
            yield check_toolset(name, known[name].spec.framework)
        else:
            yield Outcome(name, None, "not tested: not usable here")


def _tell(versions: dict[str, str], lacks: list[Missing], clashes: list[Clash], outcomes: list[Outcome]) -> None:
    answer_table(("installed", "version"), list(versions.items()))
    if lacks:
        answer("")
        answer_table(
            ("not usable", "needs", "to get it"), [(one.what, ", ".join(one.needs), one.remedy) for one in lacks]
        )
    if clashes:
        answer("")
        answer_table(("AT ODDS", "to mend it"), [(one.what, one.remedy) for one in clashes])
    if outcomes:
        answer("")
        marks: dict[Any, str] = {True: "ok", False: "WRONG", None: "-"}
        rows = [(one.toolset, marks[one.passed], one.told, f"{one.seconds:.1f} s") for one in outcomes]
        answer_table(("toolset", "test", "what was found", "took"), rows)
    failed = [one.toolset for one in outcomes if one.passed is False]
    well = not failed and not clashes
    answer(
        "\nAll is well." if well else f"\nSomething is wrong: {len(clashes)} at odds, {len(failed)} toolsets failed."
    )
