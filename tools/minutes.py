"""Prints how long each environment took, from what `tox run --result-json FILE` wrote.

python tools/minutes.py .tox/result.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def table(result: Mapping[str, Any]) -> str:
    """Minutes of each environment that ran, in order: what it took to install, what its commands took, and both."""
    ran = {name: environment for name, environment in result["testenvs"].items() if "result" in environment}
    minutes = {
        name: (_commands(environment), environment["result"]["duration"] / 60) for name, environment in ran.items()
    }
    width = max(map(len, (*ran, "environment"))) + 2
    lines = [f"{'environment':<{width}}{'install':>9}{'commands':>10}{'minutes':>9}"]
    for name, (commands, total) in minutes.items():
        state = "" if ran[name]["result"]["success"] else "  failed"
        lines.append(f"{name:<{width}}{total - commands:>9.1f}{commands:>10.1f}{total:>9.1f}{state}")
    # Environments that ran side by side took less than that.
    return "\n".join([*lines, f"{'sum':<{width}}{sum(total for _, total in minutes.values()):>28.1f}"])


def _commands(environment: Mapping[str, Any]) -> float:
    """Minutes of the commands themselves, without those that set the environment up."""
    return sum(step["elapsed"] for step in environment.get("test", ()) if step["run_id"].startswith("commands[")) / 60


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())))
