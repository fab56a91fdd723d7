"""Every distribution is built from a copy of the sources, so that nothing is written beside these."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import dist
import pytest
from distributions import ROOT, Distribution, distributions


def contents(found: Distribution) -> dict[Path, bytes]:
    """What a distribution is made from."""
    package = [path for path in (found.sources / found.package).rglob("*") if "__pycache__" not in path.parts]
    files = [*filter(Path.is_file, package), *(found.folder / name for name in ("README.md", "LICENSE"))]
    return {path.relative_to(found.folder): path.read_bytes() for path in (found.pyproject, *files)}


def test_every_distribution_is_built_from_a_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built: dict[str, Path] = {}

    def run(command: list[str], **_: object) -> SimpleNamespace:
        copy = Distribution(Path(command[-1]))
        assert contents(copy) == contents(distributions()[copy.name])
        built[copy.name] = copy.folder
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    dist.main(tmp_path / "out")
    assert built.keys() == distributions().keys()
    assert not [folder for folder in built.values() if folder.is_relative_to(ROOT) or folder.exists()]
