"""The examples of a text model and of a vision transformer run, and point where they must."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *options: object) -> str:
    ran = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, options)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_words(tmp_path: Path) -> None:
    told = run("minilm_words.py", "--training", 100, "--texts", 2, "--output", tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} >= {"words-captum-integrated_gradients.png"}
    for hits in re.findall(r"^integrated gradients.*?(\d+)%", told, re.M):
        assert int(hits) == 100
    assert re.search(r"^integrated gradients \(tf-explain\) +1\.00", told, re.M)


def test_maps(tmp_path: Path) -> None:
    told = run("vit_maps.py", "--training", 256, "--epochs", 1, "--mosaics", 2, "--output", tmp_path)
    assert len(re.findall(r"layer vit\.layers\.1", told)) == 3  # found, in all three
    assert (tmp_path / "vit.png").stat().st_size > 10_000
