"""Models as people have them: each explained by one line, and compared with what is computed by hand.

    python benchmarks/models.py [--only NAME ...] [--quick] [--markdown]

A row is a model that nobody here wrote, in a tiny configuration with random weights (with its real weights where a
package brings them), or one wrapped as people wrap theirs. Its calls are printed as they run. The difference is that
from the toolset called directly on a wrapper made by hand, or from derivatives and outputs in the model's own
framework, relative to the largest value. What is refused has to be refused by a law, which is named. The exit code
tells whether all is as it has to be.

--only takes parts of names of rows, or names of groups (modules of benchmarks/model_rows); --quick the rows of
`make test`; --markdown prints docs/models.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from model_rows import ROWS
from model_rows.frame import Line, Row, run_row

HEAD = """# Models as people have them

Each model is given to CFI as it is, by the call that stands in its row. A tokenizer's output is `enc`, a mapping of a
model's inputs by name too. The difference is that from the toolset called directly on a wrapper made by hand, or from
derivatives and outputs computed in the model's own framework, relative to the largest value. Weights are random but
where the name says otherwise. Made by `python benchmarks/models.py --markdown` (`tox run -e models`), with the versions
of [constraints.txt](../constraints.txt).
"""


def main(arguments: list[str]) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], help="parts of names of rows, or groups")
    parser.add_argument("--quick", action="store_true", help="the rows of `make test`")
    parser.add_argument("--markdown", action="store_true", help="as docs/models.md")
    parser.add_argument(
        "--json", action="store_true", help="rows of just these names, in this process, one line of JSON for each call"
    )
    given = parser.parse_args(arguments)
    if given.json:
        for one in ROWS:
            for line in run_row(one) if one.name in given.only else ():
                print(json.dumps(asdict(line)), flush=True)
        return 0
    rows = [one for one in ROWS if is_wanted(one, given.only, quick=given.quick)]
    if not rows:
        parser.error(f"no row of that name; groups are {', '.join(dict.fromkeys(one.group for one in ROWS))}")
    failures = print_table(rows, markdown=given.markdown)
    print(f"{len(rows)} models, {failures} calls are not as they have to be", file=sys.stderr)
    return 1 if failures else 0


def is_wanted(one: Row, only: list[str], *, quick: bool) -> bool:
    """Whether a row was asked for."""
    named = not only or any(part.lower() in one.name.lower() or part == one.group for part in only)
    return named and (one.quick or not quick)


def print_table(rows: list[Row], *, markdown: bool) -> int:
    """Prints one line for each call, and gives the number of those that fail."""
    failures = 0
    print(HEAD if markdown else "", end="")
    for group, members in groupby(rows, key=lambda one: one.group):
        if markdown:
            print(
                f"\n## {group.replace('_', ' ').capitalize()}\n\n| model | call | route | difference |\n"
                + "| --- " * 4
                + "|"
            )
        for line in run_apart(list(members)):
            failures += line.failed
            print(as_markdown(line) if markdown else as_text(line), flush=True)
    return failures


def run_apart(rows: list[Row]) -> Iterator[Line]:
    """Runs rows in processes of their own, so that what ends a process ends no other row."""
    for environment, members in groupby(rows, key=lambda one: dict(one.environment)):
        yield from run_process([one.name for one in members], environment)


def run_process(names: list[str], environment: dict[str, str]) -> Iterator[Line]:
    """The lines of these rows; where the process ends before, the row that it ended in fails and the others go on."""
    command = [sys.executable, str(Path(__file__)), "--json", "--only", *names]
    waiting = list(names)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if not text.startswith("{"):  # a library prints
                continue
            line = Line(**json.loads(text))
            waiting = waiting[waiting.index(line.model) :]
            yield line
    if process.returncode:
        yield Line(waiting[0], "", "", f"the process ended with {process.returncode}", True)
        if len(waiting) > 1:
            yield from run_process(waiting[1:], environment)


def as_text(line: Line) -> str:
    """For a terminal."""
    warned = "".join(f"\n      warned: {text[:200]}" for text in line.warned)
    return (
        f"{'FAIL' if line.failed else 'ok  '} {line.model}: {line.written}\n      {line.route}  {line.outcome}{warned}"
    )


def as_markdown(line: Line) -> str:
    """A row of the page."""
    outcome = f"**{line.outcome}**" if line.failed else line.outcome
    outcome += f" (warned: {line.warned[0].partition('. ')[0]})" if line.warned else ""
    cells = line.model, f"`{line.written}`", line.route, outcome
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
