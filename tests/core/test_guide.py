"""The guide for authors of plugins does what it says: its files and commands make a plugin in an empty folder."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "writing-a-plugin.md").read_text()
BLOCK = re.compile(r"(?:\*\*`(?P<file>[^`]+)`\*\*\n\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.S)

# What the page's commands find in place of an environment of their own. pip downloads nothing: it notes what it was
# asked for; the metadata that it would write stands in the folder `installed`.
SHELL = f"""
set -e
python() {{ '{sys.executable}' "$@"; }}
pytest() {{ python -m pytest -p no:cacheprovider --color=no "$@"; }}
pip() {{ echo "pip $*"; }}
"""


def write_metadata(project: dict, folder: Path) -> None:
    """What an editable install of the plugin leaves in an environment."""
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder in which the page was followed from its beginning to its end, and what each command printed."""
    start, installed = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("installed")
    home = start / "occlusion-demo"
    paths = os.pathsep.join([str(home), str(installed), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}
    printed = []
    for block in BLOCK.finditer(PAGE):
        if block["file"]:
            (home / block["file"]).write_text(block["text"])
            if block["file"] == "pyproject.toml":
                write_metadata(tomllib.loads(block["text"])["project"], installed)
        elif block["language"] == "sh":
            ran = subprocess.run(
                ["bash", "-c", SHELL + block["text"]],
                cwd=home if home.exists() else start,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
            printed.append(ran.stdout)
    return home, printed


def test_its_files_are_those_of_its_tree(followed):
    tree = next(block["text"] for block in BLOCK.finditer(PAGE) if block["language"] == "text")
    drawn = {name for name in re.findall(r"── (\S+)", tree) if not name.endswith("/")}
    home, _ = followed
    assert drawn <= {path.name for path in home.rglob("*")}
    assert (home / "occlusion_demo" / "__init__.py").read_text() == ""


def test_every_python_block_is_a_file_that_was_run(followed):
    assert [
        block["file"] for block in BLOCK.finditer(PAGE) if block["language"] == "python" and not block["file"]
    ] == []


def test_it_is_installed_after_the_core(followed):
    _, printed = followed
    asked = [line for text in printed for line in text.splitlines() if line.startswith("pip")]
    assert asked == ["pip install PATH/TO/cfi pytest", "pip install -e ."]
    assert tomllib.loads((followed[0] / "pyproject.toml").read_text())["build-system"]["requires"]


def test_its_tests_pass_and_none_is_left_out(followed):
    _, printed = followed
    summaries = re.findall(r"=+ (.*) in [\d.]+s", "\n".join(printed))
    assert len(summaries) == 2  # of the toolset alone, and of everything on the page
    assert all(re.fullmatch(r"\d+ passed", summary) for summary in summaries), summaries


def test_its_call_prints_what_the_page_shows(followed):
    _, printed = followed
    shown = [block["text"] for block in BLOCK.finditer(PAGE) if block["language"] == "text"][1]
    assert shown in printed


def test_what_it_says_of_the_listing_is_so(followed):
    sentence = re.search(r"`demo` as `([^`]+)`", PAGE)
    home, _ = followed
    # Where only core and the plugin are seen, as in the environment that the page makes.
    script = "from cfi_core.testing import use_plugins; import cfi_core, occlusion_demo.plugin\n"
    script += "with use_plugins(occlusion_demo.plugin): print(cfi_core.toolsets())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(home), *filter(None, sys.path)])}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert sentence[1] in ran.stdout
