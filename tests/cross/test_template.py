"""What the template makes passes the kit as it is; and the walk-through, followed literally, ends in a plugin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "plugins" / "_template"
PAGE = (ROOT / "docs" / "from-the-template.md").read_text()
BLOCK = re.compile(r"(?:\*\*`(?P<file>[^`]+)`\*\*\n\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.S)

# pip downloads nothing and leaves the environment alone: plugins go to the folder `installed`, whatever else it is
# asked for is noted. What is edited is seen at once, as with `pip install -e`.
SHELL = """
set -e
PATH_TO_CFI='{root}'
python() {{ case "$1" in *install.py) echo "python $*";; *) '{python}' "$@";; esac; }}
pytest() {{ '{python}' -m pytest -p no:cacheprovider --color=no "$@"; }}
copier() {{ '{python}' -m copier "$@"; }}
pip() {{
    case "$*" in
        "install -e .") '{python}' -m pip install --quiet --no-deps --no-index --no-build-isolation \
            --upgrade --target '{installed}' . ;;
        *) echo "pip $*";;
    esac
}}
"""


def run(commands: str, folder: Path, start: Path) -> str:
    """What commands print, in a folder of a plugin or before there is one."""
    installed = start / "installed"
    head = SHELL.format(root=ROOT, python=sys.executable, installed=installed)
    paths = os.pathsep.join([str(folder / "src"), str(installed), *filter(None, sys.path)])
    ran = subprocess.run(
        ["bash", "-c", head + commands.replace("PATH/TO/cfi", str(ROOT))],
        cwd=folder if folder.exists() else start,
        env={**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    "answers",
    [{"kind": "toolset"}, {"kind": "toolset", "framework": "tensorflow", "name": "hills"}, {"kind": "translator"}],
    ids=lambda answers: "-".join(answers.values()),
)
def test_what_the_template_makes_passes_the_kit(answers: dict[str, str], tmp_path: Path) -> None:
    data = " ".join(f"--data {name}={value}" for name, value in answers.items())
    run(f"copier copy --quiet --defaults {data} '{TEMPLATE}' made", tmp_path / "made", tmp_path)
    assert not [path for path in (tmp_path / "made").rglob("*") if "jinja" in path.name or "{" in path.name]
    printed = run("pip install -e .\npytest", tmp_path / "made", tmp_path)
    assert re.search(r"=+ \d+ passed(, \d+ warnings?)? in", printed), printed


def test_names_that_would_be_no_package_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="small letters, digits and hyphens"):
        run(f"copier copy --quiet --defaults --data name=My_plugin '{TEMPLATE}' made", tmp_path / "made", tmp_path)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the page was followed, and what each of its command blocks printed."""
    start = tmp_path_factory.mktemp("empty")
    home, printed = start / "cfi-paths", []
    for block in BLOCK.finditer(PAGE):
        if block["file"]:
            (home / block["file"]).write_text(block["text"])
        elif block["language"] == "sh":
            printed.append(run(block["text"], home, start))
    return home, printed


def test_the_walk_through_draws_the_tree_that_is_made(followed: tuple[Path, list[str]]) -> None:
    tree = next(block["text"] for block in BLOCK.finditer(PAGE) if block["language"] == "text")
    drawn = {name for name in re.findall(r"── (\S+)", tree) if not name.endswith("/")}
    assert drawn <= {path.name for path in followed[0].rglob("*")}


def test_the_walk_through_passes_before_and_after_the_method_is_put_in(followed: tuple[Path, list[str]]) -> None:
    passed = [text for text in followed[1] if re.search(r"=+ \d+ passed(, \d+ warnings?)? in", text)]
    assert len(passed) == 2
    assert "Law" not in (followed[0] / "tests" / "test_cfi_paths.py").read_text()


def test_the_walk_through_ends_with_a_call(followed: tuple[Path, list[str]]) -> None:
    shown = [block["text"] for block in BLOCK.finditer(PAGE) if block["language"] == "text"][-1]
    assert shown == followed[1][-1]
