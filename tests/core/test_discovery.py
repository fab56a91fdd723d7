"""Every distribution is read on its own; one whose metadata is damaged is told of only if it announces a plugin."""

import importlib
import re

import pytest

from cfi_core.discovery import announcements
from cfi_core.requirements import installed_distribution, unmet, version_of

GROUP = "cfi_core.tests.group"
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
POINTS = "[cfi_core.tests.group]\n{name} = {name}_plugin\n"


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Puts a distribution on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, version="1.0", metadata=METADATA, points=POINTS, place=tmp_path):
        folder = place / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        for file, content in (("METADATA", metadata), ("entry_points.txt", points)):
            if content is not None:
                text = content if isinstance(content, bytes) else content.format(name=name, version=version).encode()
                (folder / file).write_bytes(text)
        importlib.invalidate_caches()

    yield make
    version_of.cache_clear()


def test_what_distributions_announce_is_found(distribution):
    distribution("good")
    ((found, point),) = announcements(GROUP)
    assert (found.distribution, found.version, found.error) == ("good", "1.0", "")
    assert found.module == point.value == "good_plugin"


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        ({"points": b"[cfi_core.tests.group]\nbad = \xff\xfe\n"}, r"entry_points.txt cannot be read \(UnicodeDecode"),
        ({"points": "[cfi_core.tests.group]\nno equals sign\n"}, "entry_points.txt cannot be read"),
        ({"metadata": None}, "metadata"),
        ({"metadata": "Metadata-Version: 2.1\n"}, "metadata does not tell its name"),
        ({"metadata": b"Name: \xff\xfe\n"}, "metadata cannot be read"),
    ],
    ids=["undecodable entry points", "malformed entry points", "no metadata", "no name", "undecodable metadata"],
)
def test_a_damaged_distribution_is_told_and_stops_nobody(distribution, damage, error):
    distribution("bad", **damage)
    distribution("good")
    found = {info.distribution: (info, point) for info, point in announcements(GROUP)}
    assert found.pop("good")[1].name == "good"
    ((name, (bad, point)),) = found.items()
    assert name in ("bad", "bad-1.0.dist-info") and point is None
    assert re.search(error, bad.error)


@pytest.mark.parametrize(
    "points", [b"[console_scripts]\nbad = \xff\n", "[console_scripts]\nno equals sign\n", "nonsense", None]
)
@pytest.mark.parametrize("metadata", [METADATA, None])
def test_a_distribution_without_a_plugin_is_of_no_concern(distribution, points, metadata):
    distribution("bad", points=points, metadata=metadata)
    distribution("good")
    assert [info.distribution for info, _ in announcements(GROUP)] == ["good"]


def test_what_is_announced_twice_is_found_once(distribution, tmp_path, monkeypatch):
    """As by an editable install; and a version that another one hides is not asked."""
    distribution("good")
    distribution("good", place=tmp_path / "again")
    distribution("good", version="0.9", points=POINTS + "old = old_plugin\n", place=tmp_path / "hidden")
    for place in ("hidden", "again"):
        monkeypatch.syspath_prepend(tmp_path / place)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert [point.value for _, point in announcements(GROUP)] == ["good_plugin"]


def test_requirements_see_through_what_an_update_left_behind(distribution, tmp_path, monkeypatch):
    distribution("tool", version="2.0", metadata=None)
    distribution("tool", version="1.0", place=tmp_path / "behind")
    distribution("odd", version="1.x")
    monkeypatch.syspath_prepend(tmp_path / "behind")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert installed_distribution("tool").version == version_of("tool") == "1.0"
    assert unmet(["tool>=1", "tool>=2", "odd>=1"]) == ("tool>=2", "odd>=1")
