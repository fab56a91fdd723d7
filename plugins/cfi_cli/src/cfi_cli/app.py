"""The command `cfi`: finds the command that is asked for among those of all plugins, and tells errors in two lines.

Only the command that is called is imported; of the others their one line of help is known.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from cfi_cli.exits import Code
from cfi_cli.plugin import cfi_commands
from cfi_cli.terminal import answer, clean, in_options, open_streams, quiet, wrap
from cfi_core import CFIError, CFIWarning
from cfi_core.errors import FOREIGN, summary
from cfi_core.registry import registry
from cfi_core.requirements import unmet
from cfi_core.specs import CommandSpec, resolve

_HELP = """Explain a neural network with the toolset you want, whatever framework it lives in.

MODEL is a file (.onnx, .keras, .safetensors, …) or package.module:factory, a function that makes the model.

\b
Examples:
  cfi methods occlusion
  cfi layers resnet.onnx
  cfi attribute models:resnet cat.png --method grad_cam --layer auto --preprocess imagenet -o cat_cam.png
  cfi translate model.onnx --to tensorflow -o model.keras && cfi verify model.onnx model.keras
  cfi report models:resnet cat.png dog.png --method saliency --method grad_cam@captum --preprocess imagenet -o page.html
"""

_CODES = """\b
Exit codes:
  0    done; verify: the same; doctor: all is well
  1    the answer is no: the models differ, a test of doctor failed
  2    the command line is wrong
  3    refused: no such method or layer, inputs that do not fit, no such file
  4    a fault of CFI or of a library
  130  interrupted
"""


_EXPLAINING = ("attribute", "compare", "plan", "report")
"""Commands that hand arguments on to methods."""

_SETTINGS = {"help_option_names": ["--help", "-h"], "max_content_width": 110}


class Commands(TyperGroup):
    """The commands of all plugins, each imported when it is called."""

    def list_commands(self, ctx: typer.Context) -> list[str]:
        """Names in the order in which this package lists its own, those of other plugins behind."""
        return list(known_commands())

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:
        """What stands for the command in lists."""
        spec = known_commands().get(cmd_name)
        return None if spec is None else TyperCommand(name=cmd_name, help=spec.help)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> tuple[str | None, TyperCommand | None, list[str]]:
        """The command itself, which is imported."""
        name, found = args[0], known_commands()
        if name in registry().commands.contested:
            registry().commands[name]  # raises, and says who claims it
        if name not in found and not name.startswith("-"):
            near = get_close_matches(name, list(found), n=1)
            ctx.fail(f"There is no command {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        _, stand_in, rest = super().resolve_command(ctx, args)
        return name, stand_in and load_command(found[name]), rest


def known_commands() -> dict[str, CommandSpec]:
    """Those of all plugins; of this package also where it is switched off, but for names that another one claims."""
    current = registry().commands
    own = {spec.name: spec for spec in cfi_commands() if spec.name not in current.contested}
    return {**own, **current}


def load_command(spec: CommandSpec) -> TyperCommand:
    """What a spec names, as a command.

    Raises:
        CFIError: It lacks requirements, or cannot be imported; names the distribution.
    """
    origin = registry().origin_of(spec).label
    if missing := unmet(spec.requirements):
        raise CFIError(f"cfi {spec.name} of {origin} needs {', '.join(missing)}: pip install {' '.join(missing)}.")
    try:
        found = resolve(spec.implementation)
    except FOREIGN as error:
        advice = "Update or uninstall it; all other commands work."
        raise CFIError(f"cfi {spec.name} of {origin} cannot be loaded ({summary(error)}). {advice}") from error
    made = typer.main.get_command(found if isinstance(found, typer.Typer) else _as_app(found, spec))
    made.name = spec.name
    return made


def _as_app(function: Callable[..., Any], spec: CommandSpec) -> typer.Typer:
    made = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS)
    made.command(spec.name, epilog=getattr(function, "epilog", None))(function)
    return made


app = typer.Typer(
    cls=Commands,
    help=_HELP,
    epilog=_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text, the same in a pipe, and no rich to import for it
    context_settings=_SETTINGS,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        import cfi_core

        answer(f"cfi {cfi_core.__version__}")
        raise typer.Exit


@app.callback()  # type: ignore[untyped-decorator]
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="The version.", callback=_tell_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Tracebacks, and what libraries warn of; in any place of the line.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point."""
    open_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs `cfi` with these arguments.

    Returns:
        The exit code (`cfi_cli.exits.Code`).
    """
    debug, arguments = _take_debug(arguments)
    _settle(debug)
    try:
        with warnings.catch_warnings(), nullcontext() if debug else quiet():
            _warn_in_short(debug)
            code = typer.main.get_command(app).main(list(arguments), "cfi", standalone_mode=False)
        if code == Code.INTERRUPTED:  # typer has caught it
            raise KeyboardInterrupt
        return int(code or 0)
    except SystemExit as error:  # of the completion of shells
        return int(error.code or 0)
    except typer.TyperException as error:
        error.show()
        if "No such option" in str(error) and arguments and arguments[0] in _EXPLAINING:
            print("What the method itself takes goes in --exec NAME=VALUE or --init NAME=VALUE.", file=sys.stderr)
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("\ncfi: interrupted", file=sys.stderr)
        return Code.INTERRUPTED
    except BrokenPipeError:  # who read the answer has enough of it, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Code.DONE
    except (CFIError, OSError) as error:
        _tell(error, str(error), debug)
        return Code.REFUSED
    except FOREIGN as error:
        _tell(error, f"{summary(error)} (a fault of CFI or of a library)", debug)
        return Code.FAULT


def _take_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether `--debug` stands anywhere before a `--`, and the other arguments."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    kept = [one for one in arguments[:end] if one != "--debug"]
    return len(kept) < end, [*kept, *arguments[end:]]


def _settle(debug: bool) -> None:
    """What a program, other than a library, decides for the process: how much the frameworks' logs say."""
    if not debug:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        for name in ("tensorflow", "absl", "jax"):
            logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MPLBACKEND", "agg")


def _warn_in_short(debug: bool) -> None:
    """Warnings of CFI in one paragraph each; those of libraries are for their programmers."""
    if debug:
        return
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", CFIWarning)
    warnings.showwarning = lambda message, *_, **__: print(
        wrap(f"warning: {in_options(message)}", "  "), file=sys.stderr
    )


def _tell(error: BaseException, text: str, debug: bool) -> None:
    """What is wrong, in two lines: the message, and what else there is to see."""
    if debug:
        traceback.print_exception(error)
        return
    print("error: " + " ".join(clean(in_options(text)).split()), file=sys.stderr)
    print(f"({type(error).__name__}; the same with --debug shows where)", file=sys.stderr)
