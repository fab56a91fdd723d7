"""What somebody may do to a folder of kept conversions: none of it is used, nothing waits, the entry is made anew."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import cfi_core as cfi
from cfi_core.contract import Converted
from cfi_core.translation.store import Store, _seal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such owners, modes, links and pipes")

_SOMEBODY = 12_345


class Written:
    """An adapter whose models are texts, and which notes what it is given to restore."""

    file_sizes: Mapping[str, int] = {"model": 2**30}

    def __init__(self) -> None:
        self.restored: list[bytes] = []
        self.error: BaseException | None = None

    def save(self, model: str) -> dict[str, bytes]:
        return {"model": model.encode()}

    def restore(self, held: Mapping[str, bytes]) -> str:
        self.restored.append(held["model"])
        if self.error is not None:
            raise self.error
        return held["model"].decode()


@pytest.fixture
def adapter() -> Any:
    return Written()


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    return Store(tmp_path / "kept")


def put(kept: Store, adapter: Any, key: str = "key", model: str = "mine") -> Path:
    kept.put(key, adapter, Converted(model, (None,), (None,)))
    assert get(kept, adapter, key) == model
    adapter.restored.clear()
    return kept.folder / key


def get(kept: Store, adapter: Any, key: str = "key") -> str | None:
    found = kept.get(key, adapter)
    return None if found is None else found.model


def write_entry(entry: Path, model: bytes = b"planted", **changes: Any) -> None:
    """As the store would, by somebody who knows how it does."""
    entry.mkdir(exist_ok=True)
    (entry / "model").write_bytes(model)
    notes = {"of": _seal(entry.name, {"model": model}), "input_axes": [None], "output_axes": [None]}
    (entry / "translation.json").write_text(json.dumps({**notes, **changes}))


# The attacks: each is done to an entry of the store's, in a folder that also has `elsewhere` beside it.


def link_file(entry: Path, elsewhere: Path) -> None:
    write_entry(elsewhere / entry.name)
    for name in ("model", "translation.json"):
        (entry / name).unlink()
        (entry / name).symlink_to(elsewhere / entry.name / name)


def link_entry(entry: Path, elsewhere: Path) -> None:
    write_entry(elsewhere / entry.name)
    shutil.rmtree(entry)
    entry.symlink_to(elsewhere / entry.name)


def hard_link(entry: Path, elsewhere: Path) -> None:
    write_entry(elsewhere / entry.name)
    for name in ("model", "translation.json"):
        (entry / name).unlink()
        (entry / name).hardlink_to(elsewhere / entry.name / name)


def pipe_as_model(entry: Path, elsewhere: Path) -> None:
    (entry / "model").unlink()
    os.mkfifo(entry / "model")


def pipe_as_notes(entry: Path, elsewhere: Path) -> None:
    (entry / "translation.json").unlink()
    os.mkfifo(entry / "translation.json")


def pipe_as_entry(entry: Path, elsewhere: Path) -> None:
    shutil.rmtree(entry)
    os.mkfifo(entry)


def folder_as_model(entry: Path, elsewhere: Path) -> None:
    (entry / "model").unlink()
    (entry / "model").mkdir()


def file_as_entry(entry: Path, elsewhere: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text("{}")


def endless_device(entry: Path, elsewhere: Path) -> None:
    (entry / "model").unlink()
    (entry / "model").symlink_to("/dev/zero")


def cut_off(entry: Path, elsewhere: Path) -> None:
    data = (entry / "model").read_bytes()
    (entry / "model").write_bytes(data[:-1])


def change_a_bit(entry: Path, elsewhere: Path) -> None:
    data = bytearray((entry / "model").read_bytes())
    data[0] ^= 1
    (entry / "model").write_bytes(data)


def entry_others_write(entry: Path, elsewhere: Path) -> None:
    entry.chmod(0o777)


def file_others_write(entry: Path, elsewhere: Path) -> None:
    (entry / "model").chmod(0o666)


def file_a_group_writes(entry: Path, elsewhere: Path) -> None:
    (entry / "model").chmod(0o660)


def full_of_holes(entry: Path, elsewhere: Path) -> None:
    with (entry / "model").open("r+b") as file:
        file.truncate(2**29)  # within what the adapter allows
    (entry / "translation.json").write_text(json.dumps({"of": "", "input_axes": [None], "output_axes": [None]}))


def terabyte(entry: Path, elsewhere: Path) -> None:
    with (entry / "model").open("r+b") as file:
        file.truncate(2**40)


def nested_notes(entry: Path, elsewhere: Path) -> None:
    (entry / "translation.json").write_text("[" * 60_000)


def endless_notes(entry: Path, elsewhere: Path) -> None:
    (entry / "translation.json").write_text("[" + "0," * 2**20 + "0]")


def huge_number(entry: Path, elsewhere: Path) -> None:
    write_entry(entry, input_axes=[[int("9" * 4000)]])


def axes_of_no_permutation(entry: Path, elsewhere: Path) -> None:
    write_entry(entry, output_axes=[[0, 0]])


def notes_of_another_kind(entry: Path, elsewhere: Path) -> None:
    (entry / "translation.json").write_text('["of"]')


def entry_of_another_key(entry: Path, elsewhere: Path) -> None:
    write_entry(entry.with_name("other"))
    shutil.rmtree(entry)
    entry.with_name("other").rename(entry)


ATTACKS: tuple[Callable[[Path, Path], None], ...] = (
    link_file,
    link_entry,
    hard_link,
    pipe_as_model,
    pipe_as_notes,
    pipe_as_entry,
    folder_as_model,
    file_as_entry,
    endless_device,
    cut_off,
    change_a_bit,
    entry_others_write,
    file_others_write,
    file_a_group_writes,
    full_of_holes,
    terabyte,
    nested_notes,
    endless_notes,
    huge_number,
    axes_of_no_permutation,
    notes_of_another_kind,
    entry_of_another_key,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_it_is_not_used_and_made_anew(kept: Store, adapter: Any, tmp_path: Path, attack: Callable[[Path, Path], None]):
    entry = put(kept, adapter)
    (tmp_path / "elsewhere").mkdir()
    attack(entry, tmp_path / "elsewhere")
    before = sorted((path, path.lstat().st_mtime_ns) for path in (tmp_path / "elsewhere").rglob("*"))
    assert get(kept, adapter) is None and not adapter.restored, "nothing was given to the framework"
    put(kept, adapter, model="anew")
    assert sorted(path.name for path in kept.folder.iterdir() if path.name.startswith(".")) == []
    after = sorted((path, path.lstat().st_mtime_ns) for path in (tmp_path / "elsewhere").rglob("*"))
    assert before == after, "what lies elsewhere was neither written nor removed"


def test_two_entries_that_were_swapped_are_found_out(kept: Store, adapter: Any):
    one, other = put(kept, adapter, "one", "first"), put(kept, adapter, "other", "second")
    one.rename(kept.folder / "aside")
    other.rename(one)
    (kept.folder / "aside").rename(other)
    assert get(kept, adapter, "one") is None and get(kept, adapter, "other") is None and not adapter.restored


@pytest.mark.parametrize("what", ["entry", "model", "translation.json"])
def test_what_belongs_to_somebody_else_is_not_used(
    kept: Store, adapter: Any, what: str, monkeypatch: pytest.MonkeyPatch
):
    entry = put(kept, adapter)
    target = (entry if what == "entry" else entry / what).stat().st_ino
    look = os.fstat

    def of_somebody(file: int) -> os.stat_result:
        status = look(file)
        fields = list(status)
        fields[4] = _SOMEBODY
        return os.stat_result(fields, {"st_blocks": status.st_blocks}) if status.st_ino == target else status

    monkeypatch.setattr(os, "fstat", of_somebody)
    assert get(kept, adapter) is None and not adapter.restored


@pytest.mark.parametrize("name", ["model", "translation.json", "entry"])
def test_a_link_between_look_and_use_is_not_followed(
    kept: Store, adapter: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    entry, planted = put(kept, adapter), tmp_path / "elsewhere" / "key"
    planted.parent.mkdir()
    write_entry(planted)
    place = entry if name == "entry" else entry / name
    target = planted if name == "entry" else planted / name
    open_it = os.open

    def swap_first(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path).name == place.name and not place.is_symlink():
            place.rename(tmp_path / "aside")
            place.symlink_to(target)
        return open_it(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swap_first)
    assert get(kept, adapter) is None and not adapter.restored and place.is_symlink()


def test_a_file_that_grows_while_it_is_read_is_not_used(kept: Store, adapter: Any, monkeypatch: pytest.MonkeyPatch):
    entry, look = put(kept, adapter), os.fstat
    target = (entry / "model").stat().st_ino

    def grow_after(file: int) -> os.stat_result:
        status = look(file)
        if status.st_ino == target:
            with (entry / "model").open("ab") as grown:
                grown.write(b" and more")
        return status

    monkeypatch.setattr(os, "fstat", grow_after)
    assert get(kept, adapter) is None and not adapter.restored


@pytest.mark.parametrize("error", [SystemExit(3), RecursionError(), MemoryError(), ValueError("no model")])
def test_what_restoring_raises_does_nothing_to_the_process(kept: Store, adapter: Any, error: BaseException):
    put(kept, adapter)
    adapter.error = error
    assert get(kept, adapter) is None


def test_an_interrupt_by_the_user_passes(kept: Store, adapter: Any):
    put(kept, adapter)
    adapter.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        get(kept, adapter)


# the folder and the way to it


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder where all may write, without the sticky bit."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    yield shared
    shared.chmod(0o700)


def test_a_folder_around_it_that_others_may_write_to_is_refused(shared: Path):
    with pytest.raises(cfi.ArgumentError, match=rf"others may write to {shared}.*chmod go-w {shared}\)"):
        cfi.keep_translations(shared / "below" / "kept")
    shared.chmod(0o1777)  # as /tmp: others can neither rename nor remove what is in there
    cfi.keep_translations(shared / "below" / "kept")
    cfi.keep_translations(None)


def test_a_folder_around_it_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    theirs, look = tmp_path / "theirs", Path.lstat
    (theirs / "kept").mkdir(parents=True, mode=0o700)

    def of_somebody(self: Path) -> os.stat_result:
        fields = list(look(self))
        fields[4] = _SOMEBODY if self == theirs else fields[4]
        return os.stat_result(fields)

    monkeypatch.setattr(Path, "lstat", of_somebody)
    with pytest.raises(cfi.ArgumentError, match=f"{theirs} belongs to another user, who can put anything in its place"):
        cfi.keep_translations(theirs / "kept")


def test_a_link_is_no_folder(tmp_path: Path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(cfi.ArgumentError, match=rf"it is a link\. Name the folder that it leads to, {tmp_path}/real"):
        cfi.keep_translations(tmp_path / "link")
    (tmp_path / "nowhere").symlink_to("missing")
    with pytest.raises(cfi.ArgumentError, match="cannot be a folder of translations"):
        cfi.keep_translations(tmp_path / "nowhere")


def test_a_link_of_ones_own_on_the_way_is_followed_and_looked_at(tmp_path: Path, shared: Path, adapter: Any):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    put(Store(tmp_path / "link" / ".." / "link" / "kept"), adapter)
    assert (tmp_path / "real" / "kept" / "key").is_dir()
    (tmp_path / "into").symlink_to("shared")
    with pytest.raises(cfi.ArgumentError, match=f"others may write to {shared}"):
        Store(tmp_path / "into" / "kept")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(cfi.ArgumentError, match="cannot be a folder of translations"):
        Store(tmp_path / "circle" / "kept")


@pytest.mark.parametrize("change", ["others may write", "a link", "somebody else's", "around it"])
def test_a_folder_that_is_no_longer_ones_own_is_not_used(
    kept: Store, adapter: Any, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    put(kept, adapter)
    if change == "others may write":
        kept.folder.chmod(0o777)
    elif change == "a link":
        kept.folder.rename(tmp_path / "aside")
        kept.folder.symlink_to(tmp_path / "aside")
    elif change == "around it":
        tmp_path.chmod(0o777)
    else:
        monkeypatch.setattr(os, "getuid", lambda: _SOMEBODY)
    assert get(kept, adapter) is None and not adapter.restored
    held = sorted(kept.folder.glob("*"))
    with pytest.warns(cfi.TranslationWarning, match="could not be kept"):
        kept.put("other", adapter, Converted("mine", (None,), (None,)))
    assert sorted(kept.folder.glob("*")) == held
    tmp_path.chmod(0o700)


def test_folders_that_are_made_are_the_users_alone(tmp_path: Path, adapter: Any):
    former = os.umask(0o002)  # as where everybody has a group of their own
    try:
        put(Store(tmp_path / "a" / "b"), adapter)
    finally:
        os.umask(former)
    for path in (tmp_path / "a").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0


def test_a_folder_that_was_removed_is_made_again(kept: Store, adapter: Any):
    put(kept, adapter)
    shutil.rmtree(kept.folder)
    assert get(kept, adapter) is None
    put(kept, adapter)


# at once


def test_writers_and_readers_at_once_see_whole_entries(kept: Store, adapter: Any):
    models, seen, done = [f"{number}" * 50_000 for number in range(4)], [], threading.Event()

    def write(model: str) -> None:
        for _ in range(25):
            kept.put("key", adapter, Converted(model, (None,), (None,)))

    def read() -> None:
        while not done.is_set():
            seen.append(get(kept, adapter))

    writers = [threading.Thread(target=write, args=(one,)) for one in models]
    reader = threading.Thread(target=read)
    for one in (*writers, reader):
        one.start()
    for one in writers:
        one.join()
    done.set()
    reader.join()
    assert set(seen) <= {None, *models} and get(kept, adapter) in models
    assert [path.name for path in kept.folder.iterdir()] == ["key"]
