"""Every block of code on a page runs, in an empty folder, one block after the other, as a reader would type it.

A block under the name of a file is that file; blocks of one page share their names. Where a line prints and a comment
behind it says what, or a block of text follows, that is what is printed ("…" stands for anything). Lines `$ cfi …` of a
`console` block are run in the same folder, which is the home folder, too.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from cfi_cli.app import run

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(?:\*\*`(?P<file>[^`\n]+)`\*\*\n\n|(?P<note><!-- not run: [^>]+ -->\n))?"
    r"^```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```$",
    re.M | re.S,
)

# Pages whose files and commands are followed by tests of their own, and those that are made from what tests run.
ELSEWHERE = {
    "docs/writing-a-plugin.md": "tests/core/test_guide.py",
    "docs/from-the-template.md": "tests/cross/test_template.py",
    "docs/checking.md": "tests/cross/test_checking_page.py",
    "docs/comparing.md": "tests/cross/test_comparing_page.py",
    "docs/methods": "tests/cross/test_method_guides.py",
}
# What the blocks of a page leave in the folder.
FILES = {"docs/pictures.md": {"scan.gif", "making.gif", "methods.png"}}
# Blocks that are excerpts of what stands, and is tested, elsewhere; each says so above itself.
MOST_EXCERPTS = 12


@dataclass(frozen=True)
class Block:
    """A block of code of a page, and the text that it says is printed."""

    language: str
    text: str
    line: int
    is_excerpt: bool
    prints: str = ""
    file: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """What is to be run on a page, in its order."""
    text = page.read_text()
    found = list(BLOCK.finditer(text))
    for one, following in zip_longest(found, found[1:]):
        line = text.count("\n", 0, one.start("text")) + 1
        near = following and following["language"] == "text" and not text[one.end() : following.start()].strip()
        if one["language"] in ("python", "console", "bash", "sh"):
            prints = following["text"] if following and near else ""
            yield Block(one["language"], one["text"], line, bool(one["note"]), prints, one["file"] or "")


def pages() -> list[Path]:
    """All pages with Python or commands of ours that no other test follows."""
    found = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    own = [page for page in found if not any(str(page.relative_to(ROOT)).startswith(name) for name in ELSEWHERE)]
    return [page for page in own if any(not block.is_excerpt for block in blocks(page))]


def told(block: Block) -> Iterator[str]:
    """Parts of lines that the block says it prints."""
    comments = re.findall(r"^[ \t]*print\(.*?\)[ \t]+# (.*)$", block.text, re.M) if block.language == "python" else []
    for line in [*comments, *block.prints.splitlines()]:
        yield from (part.strip() for part in line.split("…") if part.strip())


@pytest.mark.filterwarnings("ignore:TorchRay is licensed")
@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_its_blocks_run_and_print_what_they_say(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.is_excerpt:
            continue
        if block.file:
            (tmp_path / block.file).write_text(block.text)
            monkeypatch.delitem(
                sys.modules, Path(block.file).stem, raising=False
            )  # what other tests import by that name
            continue
        if block.language == "python":
            at = "\n" * (block.line - 1)  # so that errors name the line of the page
            exec(compile(at + block.text, str(page), "exec"), names)
        else:
            run_commands(block.text)
        printed = capsys.readouterr().out
        missing = [part for part in told(block) if part not in printed]
        assert not missing, f"{page}:{block.line} does not print {missing}, but\n{printed}"
    left = {path.name for path in tmp_path.glob("[!.]*")}
    assert left == FILES.get(str(page.relative_to(ROOT)), left)


def run_commands(text: str) -> None:
    """Runs the lines `$ cfi …` of a block."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.startswith("$ cfi "):
            assert run(shlex.split(line.removeprefix("$ cfi "), comments=True)) == 0, line


def test_few_blocks_are_excerpts():
    found = [block for page in ROOT.glob("docs/**/*.md") for block in blocks(page) if block.is_excerpt]
    assert len(found) <= MOST_EXCERPTS


@pytest.mark.parametrize("test", ELSEWHERE.values())
def test_what_is_followed_elsewhere_is(test):
    assert (ROOT / test).is_file()


def test_no_page_has_an_empty_place():
    found = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    assert not [page.name for page in found if re.search(r"\b[A-Z]+_(TABLE|COUNT)\b", page.read_text())]
