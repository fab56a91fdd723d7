"""Installs distributions of this repository from their folders, with those of their requirements that live here too.

    python tools/install.py cfi-captum 'cfi-translate[libraries]'
    python tools/install.py                       # all of them, with all extras
    python tools/install.py cfi-captum --quiet    # options go to pip

pip would look for a requirement such as cfi-torch on an index. What does not live here, it gets as usual.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from distributions import Distribution, distributions, split


def needed(known: dict[str, Distribution], requirements: Iterable[str]) -> dict[str, set[str]]:
    """What these requirements need of this repository: names of distributions, each with its extras."""
    found: dict[str, set[str]] = {}
    waiting = list(requirements)
    while waiting:
        name, extras = split(waiting.pop())
        if name in known and not (name in found and found[name] >= extras):
            found.setdefault(name, set()).update(extras)
            waiting += known[name].requirements(extras)
    return found


def main(arguments: list[str]) -> int:
    """Calls pip."""
    known = distributions()
    options = [argument for argument in arguments if argument.startswith("-")]
    names = [argument for argument in arguments if not argument.startswith("-")]
    if unknown := [name for name in names if split(name)[0] not in known]:
        sys.exit(f"Not in this repository: {', '.join(unknown)}. There are {', '.join(known)}.")
    wanted = needed(known, names or [f"{name}[{','.join(found.extras)}]" for name, found in known.items()])
    # The extras are spelled out: pip 23 does not see that `folder[extra]` is the distribution that others require.
    of_extras = [text for name, extras in wanted.items() for text in known[name].extra_requirements(extras)]
    others = [text for text in of_extras if split(text)[0] not in known]
    editable = [argument for name in wanted for argument in ("--editable", str(known[name].folder))]
    command = [sys.executable, "-m", "pip", "install", *options, *others, *editable]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
