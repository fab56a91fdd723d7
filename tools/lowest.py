"""Writes constraints-lowest.txt: the lowest versions that are declared, and the newest of what comes along with them.

    python tools/lowest.py    # needs uv

`tox run -e lowest` runs the tests with them.
"""

from __future__ import annotations

import subprocess
import sys

from distributions import ROOT, distributions

TARGET = ROOT / "constraints-lowest.txt"
FOR_TESTS = ("hypothesis>=6.100", "pytest>=8.3", "setuptools>=77")
HEAD = """# The lowest versions that the distributions declare, and the newest of what comes along: tox run -e lowest.
# Written by tools/lowest.py. Where a version does not work, a pyproject.toml must declare a higher one.
"""


def main() -> int:
    """Calls uv."""
    known = distributions()
    folders = [f"-e {found.folder}[{','.join(found.extras)}]".removesuffix("[]") for found in known.values()]
    asked = "\n".join([*folders, *FOR_TESTS, "-r examples/requirements.txt"])
    command = ["uv", "pip", "compile", "-", "--resolution", "lowest-direct", "--python", sys.executable]
    command += ["--quiet", "--no-header", "--no-annotate"]
    command += [part for name in known for part in ("--no-emit-package", name)]
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if done.returncode == 0:
        TARGET.write_text(HEAD + done.stdout)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
