"""Commands of other plugins: found, imported when called, and of no harm to the others where they are broken."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack

import pytest

import cfi_core
from cfi_cli import plugin
from cfi_cli.app import run
from cfi_core.hookspec import hookimpl
from cfi_core.specs import CommandSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.conformance import PluginConformance

WEIGH = '''
import typer

print("imported")
app = typer.Typer()


@app.command()
def weigh(what: str, twice: bool = False) -> None:
    """Weighs things."""
    print(what, 2 if twice else 1)
    if what == "nothing":
        raise typer.Exit(7)
    if what == "trouble":
        raise RuntimeError("the scales are broken")


def sift(coarse: int) -> None:
    """Sifts."""
    print("sifted", coarse)
'''


class TestPlugin(PluginConformance):
    plugin = plugin
    distribution = "cfi-cli"


class Scales:
    """A plugin with commands."""

    @staticmethod
    @hookimpl
    def cfi_commands() -> Iterable[CommandSpec]:
        place = "scales_of_a_test"
        return [
            CommandSpec(name="weigh", help="Weighs attributions.", implementation=f"{place}:app"),
            CommandSpec(name="sift", help="Sifts attributions.", implementation=f"{place}:sift"),
            CommandSpec(name="broken", help="Is broken.", implementation="no_such_module:app"),
            CommandSpec(
                name="lacking", help="Lacks.", implementation=f"{place}:app", requirements=("no-such-thing>=3",)
            ),
        ]


class Claims:
    """Another one, which claims a name of ours."""

    @staticmethod
    @hookimpl
    def cfi_commands() -> Iterable[CommandSpec]:
        return [CommandSpec(name="layers", help="Mine.", implementation="x:y")]


@pytest.fixture
def scales(tmp_path, monkeypatch):
    (tmp_path / "scales_of_a_test.py").write_text(WEIGH)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("scales_of_a_test", None)


@pytest.fixture
def ran(scales, capfd):
    def call(*arguments: str) -> tuple[int, str, str]:
        with use_plugins(plugin, Scales, fake):
            code = run(arguments)
        return code, *capfd.readouterr()

    return call


def test_help_lists_it_and_imports_nothing(ran):
    code, out, _ = ran("--help")
    assert code == 0 and "Weighs attributions." in out and "Is broken." in out and "imported" not in out


def test_a_typer_app_is_a_command(ran):
    assert ran("weigh", "gold", "--twice")[:2] == (0, "imported\ngold 2\n")
    assert "cfi weigh" in ran("weigh", "--help")[1]


def test_a_function_is_a_command(ran):
    assert ran("sift", "3")[0] == 0
    assert ran("sift", "three")[0] == 2


def test_its_exit_codes_are_those_of_cfi(ran):
    assert ran("weigh", "nothing")[0] == 7
    code, _, err = ran("weigh", "trouble")
    assert code == 4 and "the scales are broken" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "told"),
    [("broken", "cfi broken of dist-of-Scales 1.0 cannot be loaded"), ("lacking", "pip install no-such-thing>=3")],
)
def test_one_that_is_broken_is_named_and_all_others_work(ran, name, told):
    code, _, err = ran(name)
    assert code == 3 and told in err and len(err.splitlines()) == 2
    assert ran("toolsets")[0] == 0


def test_a_near_miss_of_it_is_suggested(ran):
    assert "Did you mean 'weigh'?" in ran("wiegh")[2]


def test_a_name_that_two_claim_names_both_and_all_others_work(capfd):
    with ExitStack() as stack:
        with pytest.warns(cfi_core.PluginWarning, match="claimed"):
            stack.enter_context(use_plugins(plugin, Claims, fake))
        assert run(["layers", "x:y"]) == 3
        err = capfd.readouterr().err
        assert "dist-of-cfi_cli.plugin" in err and "dist-of-Claims" in err
        assert run(["toolsets"]) == 0


def test_without_its_plugin_its_own_commands_are_there(capfd):
    with use_plugins(fake):
        assert run(["toolsets", "--json"]) == 0
    assert '"press"' in capfd.readouterr().out
