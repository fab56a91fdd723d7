"""One test in two processes, to see whether both find the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from inspect import getfile
from pathlib import Path
from tempfile import TemporaryDirectory

FINDINGS = "CFI_CONFORMANCE_FINDINGS"
"""Environment variable with the path of the file that a child writes what it found to."""


def compare_processes(test: type, name: str, find: Callable[[], Mapping[str, str]]) -> list[str]:
    """Runs a test of a class in two new processes, in which it comes here again.

    The processes differ in how they hash strings, so that nothing may depend on the order of a set.

    Args:
        test: The class, which stands at the top of its file.
        name: Of the test that calls this.
        find: Gives, in each process, a digest for each name.

    Returns:
        The names whose digests differ; none in the children themselves.
    """
    if path := os.environ.get(FINDINGS):
        Path(path).write_text(json.dumps(dict(find())))
        return []
    where = f"{getfile(test)}::{test.__qualname__.replace('.', '::')}::{name}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", where]
    with TemporaryDirectory() as folder:
        files = [Path(folder, f"{seed}.json") for seed in (1, 2)]
        children = []
        for seed, file in enumerate(files, start=1):
            environment = {**os.environ, FINDINGS: str(file), "PYTHONHASHSEED": str(seed)}
            child = subprocess.Popen(
                command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            children.append(child)
        said = [child.communicate()[0] for child in children]
        missing = [text for file, text in zip(files, said, strict=True) if not file.exists()]
        assert not missing, f"{where} does not run in a process of its own:\n{missing[0]}"
        first, second = (json.loads(file.read_text()) for file in files)
    return sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
