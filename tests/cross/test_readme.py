"""The examples of the README are run as they stand, in an empty directory."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = [
    block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "import cfi_core" in block
]


@pytest.mark.parametrize("example", EXAMPLES, ids=["a PyTorch model", "a Keras model", "a scikit-learn model"])
def test_example(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), namespace)
    (picture,) = tmp_path.glob("*.png")
    assert picture.stat().st_size > 10_000
    printed = capsys.readouterr().out
    comments = re.findall(r"print\(.*?\)\s+# (.*)", example)
    for line in comments:
        for part in re.split(r"…|: the axes of your own model", line):
            assert part.strip() in printed


def test_no_page_has_an_empty_place():
    pages = [README, *(README.parent / "docs").glob("*.md")]
    assert not [page.name for page in pages if re.search(r"\b[A-Z]+_(TABLE|COUNT)\b", page.read_text())]


@pytest.mark.parametrize("page", ["tables.md", "loading-models.md", "sampling.md"])
def test_the_examples_of_a_page(tmp_path, monkeypatch, capsys, page):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (example,) = re.findall(r"```python\n(.*?)```", (README.parent / "docs" / page).read_text(), re.S)
    exec(compile(example, page, "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed == re.findall(r"print\(.*?\)  # (.*)", example)
