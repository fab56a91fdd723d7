"""Executes the notebooks of this folder and keeps what they show: `python examples/execute_notebooks.py [NAME …]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import nbclient
import nbformat

HERE = Path(__file__).parent
_NOTHING: Mapping[str, str] = {}
"""What is left of a progress bar."""


def execute(path: Path, environment: Mapping[str, str] | None = None) -> nbformat.NotebookNode:
    """The notebook, executed in its folder by a new kernel."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute(env={**_environment(), **(environment or {})})
    return tidy(notebook)


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without times, progress bars and what libraries log, which are no results."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr" and one.get("data") != _NOTHING]
    return notebook


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def main(names: list[str]) -> None:
    """Those of these names, or all."""
    for path in sorted(HERE.glob("*.ipynb")):
        if not names or path.stem in names:
            nbformat.write(execute(path), path)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
