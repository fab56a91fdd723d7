"""Builds the wheel and the sdist of every distribution.

python tools/dist.py dist
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from distributions import distributions


def main(out: Path) -> None:
    """Empties the folder and builds into it; the sdist first and the wheel from it, so that either is complete."""
    shutil.rmtree(out, ignore_errors=True)
    for found in distributions().values():
        print(f"{found.name} {found.project['version']}", flush=True)
        # Without isolation setuptools is not installed anew for each of them.
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(found.folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
