"""Builds the wheel and the sdist of every distribution.

python tools/dist.py dist
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from distributions import ROOT, distributions


def main(out: Path) -> None:
    """Empties the folder and builds into it; the sdist first and the wheel from it, so that either is complete."""
    shutil.rmtree(out, ignore_errors=True)
    with TemporaryDirectory() as folder:
        # setuptools writes beside what it builds, where tests that run meanwhile would find half a distribution.
        copy_sources(Path(folder))
        for found in distributions(Path(folder)).values():
            print(f"{found.name} {found.project['version']}", flush=True)
            # Without isolation setuptools is not installed anew for each of them.
            command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(found.folder)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stdout + done.stderr)


def copy_sources(folder: Path) -> None:
    """Copies what the distributions are built from, without what other builds left there."""
    left = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("cfi_core", "plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=left)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
