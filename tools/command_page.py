"""Writes docs/command-reference.md: what `cfi --help` and the help of every command say.

python tools/command_page.py          writes the page
python tools/command_page.py --check  only says whether it is what would be written

cfi-cli and all plugins with commands of this repository must be installed.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "command-reference.md"
HEAD = """# Commands and options

What `cfi --help` says, and `cfi COMMAND --help` of every command. [The command line](command-line.md) explains them.
"""


def text() -> str:
    """The page."""
    from cfi_core.registry import registry

    parts = [HEAD, block("cfi", help_of())]
    parts += [block(f"cfi {name}", help_of(name)) for name in sorted(registry().commands)]
    return "\n".join(parts)


def block(title: str, told: str) -> str:
    """The section of a command."""
    return f"## {title}\n\n```text\n{told}\n```\n"


def help_of(*command: str) -> str:
    """What a command says of itself, in lines of 100 letters."""
    from cfi_cli.app import run

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run([*command, "--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


def main() -> None:
    """Writes the page, or compares it."""
    os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
    made = text()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.is_file() and PAGE.read_text() == made else f"{PAGE}: run python tools/command_page.py.")
    PAGE.write_text(made)


if __name__ == "__main__":
    main()
