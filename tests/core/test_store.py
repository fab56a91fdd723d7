"""Conversions on disk, with an adapter that can write models to files: used again, measured again, never believed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.contract import Converted
from cfi_core.testing import fake
from cfi_core.testing.fake import NetworkAdapter, Painting, Print
from cfi_core.translation import store
from cfi_core.translation.folder import Folder
from cfi_core.translation.store import Store

ADAPTER = NetworkAdapter()


@pytest.fixture
def with_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake frameworks' models can be written to files."""

    def content(self: NetworkAdapter, model: Any) -> str:
        return hashlib.sha256(self.fingerprint(model).encode()).hexdigest()

    def save(self: NetworkAdapter, model: Any) -> dict[str, bytes]:
        file = io.BytesIO()
        np.savez(file, mix=model.mix, head=model.head, softmax=model.softmax)
        return {"model": file.getvalue()}

    def restore(self: NetworkAdapter, held: Mapping[str, bytes]) -> Print:
        with np.load(io.BytesIO(held["model"])) as file:
            return Print(file["mix"], file["head"], softmax=bool(file["softmax"]))

    monkeypatch.setattr(NetworkAdapter, "file_sizes", {"model": 2**20})
    for function in (content, save, restore):
        monkeypatch.setattr(NetworkAdapter, function.__name__, function)


@pytest.fixture
def folder(with_files: None, tmp_path: Path) -> Iterator[Path]:
    cfi.keep_translations(tmp_path / "kept")
    yield tmp_path / "kept"
    cfi.keep_translations(None)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows with every conversion that is done anew."""
    done: list[Any] = []
    convert = fake.to_print
    monkeypatch.setattr(fake, "to_print", lambda model, inputs: done.append(model) or convert(model, inputs))
    return done


def explain(model: Painting, images: np.ndarray) -> np.ndarray:
    """As a new process would, which knows nothing of the calls before; checked against the closed form."""
    cfi.forget_translations()
    found = cfi.attribute(model, "press_gradient", inputs=images, target=2)
    assert isinstance(found, cfi.Attribution) and found.certificate is not None and found.certificate.faithful
    cotangent = np.zeros((len(images), model.head.shape[0]))
    cotangent[:, 2] = 1
    np.testing.assert_allclose(found.values, model.gradients(images, cotangent)["input"], atol=1e-12)
    return found.values  # type: ignore[return-value]


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# kept and used again


def test_a_conversion_is_done_once(folder, conversions, painting, images):
    np.testing.assert_array_equal(explain(painting, images), explain(painting, images))
    assert len(conversions) == 1 and len(entries(folder)) == 1
    assert sorted(path.name for path in entries(folder)[0].iterdir()) == ["model", "translation.json"]
    explain(painting, images * 2)
    assert len(conversions) == 1, "other samples of the same shape are no other model"


def test_translate_takes_it_with_its_axes(folder, conversions, painting, images):
    first, second = (cfi.translate(painting, "print", inputs=images) for _ in range(2))
    assert len(conversions) == 1 and second.model is not first.model
    assert second.input_axes == ((0, 2, 3, 1),) and second.output_axes == (None,)
    assert dict(second.layer_map.matches) == dict(first.layer_map.matches) and len(second.layer_map) == 4
    assert first.seconds is not None and second.seconds is None
    np.testing.assert_allclose(second.model(images.transpose(0, 2, 3, 1)), painting(images))


@pytest.mark.parametrize("change", ["weights", "another shape", "another Python"])
def test_another_model_shape_or_python_is_another_entry(folder, conversions, painting, images, change, monkeypatch):
    explain(painting, images)
    if change == "weights":
        explain(Painting(painting.mix, painting.head * 2), images)
    elif change == "another shape":
        explain(painting, images[..., :-1])
    else:
        monkeypatch.setattr(store, "sys", SimpleNamespace(version="another Python", platform=sys.platform))
        explain(painting, images)
    assert len(conversions) == len(entries(folder)) == 2


def test_nothing_is_kept_without_a_folder(with_files, conversions, painting, images):
    cfi.keep_translations(None)
    assert store.current_store() is None
    explain(painting, images)
    explain(painting, images)
    assert len(conversions) == 2


def test_models_that_cannot_be_written_are_converted_each_time(conversions, painting, images, tmp_path, monkeypatch):
    monkeypatch.setattr(NetworkAdapter, "content", lambda self, model: "readable")
    cfi.keep_translations(tmp_path)
    try:
        explain(painting, images)
        explain(painting, images)
    finally:
        cfi.keep_translations(None)
    assert len(conversions) == 2 and not list(tmp_path.iterdir())


def test_the_environment_names_a_folder_from_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_store", str(tmp_path / "named"))  # as it is read when the module is imported
    found = store.current_store()
    assert found is not None and found.folder == tmp_path / "named" and found.folder.is_dir()
    assert store.current_store() is found
    monkeypatch.setattr(store, "_store", "")
    assert store.current_store() is None


# never believed


def damage_model(entry: Path) -> None:
    (entry / "model").write_bytes(b"no archive")


def damage_notes(entry: Path) -> None:
    (entry / "translation.json").write_text("{")


def lose_axes(entry: Path) -> None:
    (entry / "translation.json").write_text("{}")


def lose_model(entry: Path) -> None:
    (entry / "model").unlink()


def lose_notes(entry: Path) -> None:
    (entry / "translation.json").unlink()


@pytest.mark.parametrize("damage", [damage_model, damage_notes, lose_axes, lose_model, lose_notes])
def test_a_damaged_entry_is_made_anew(folder, conversions, painting, images, damage):
    explain(painting, images)
    damage(entries(folder)[0])
    explain(painting, images)
    assert len(conversions) == 2
    explain(painting, images)
    assert len(conversions) == 2 and len(entries(folder)) == 1, "what was damaged was replaced"


@pytest.mark.parametrize("of", ["another model", "other axes"])
def test_an_entry_of_something_else_is_found_out_and_made_anew(folder, conversions, painting, images, of):
    explain(painting, images)
    entry = entries(folder)[0]
    notes = json.loads((entry / "translation.json").read_text())
    if of == "another model":
        files = ADAPTER.save(Print(painting.mix, painting.head * 1.01))
        (entry / "model").write_bytes(files["model"])
    else:
        files, notes["input_axes"] = {"model": (entry / "model").read_bytes()}, [[0, 1, 2, 3]]
    notes["of"] = store._seal(entry.name, files)  # as somebody would write it who knows how
    (entry / "translation.json").write_text(json.dumps(notes))
    explain(painting, images)
    explain(painting, images)
    assert len(conversions) == 2


# where nothing can be written


def test_a_full_disk_costs_no_result(folder, conversions, painting, images, monkeypatch):
    write = Folder.write

    def full(self: Folder, name: str, data: bytes) -> None:
        write(self, name, data[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Folder, "write", full)
    with pytest.warns(
        cfi.TranslationWarning, match=r"could not be kept in .*OSError: No space left.*keep_translations"
    ):
        explain(painting, images)
    assert entries(folder) == [], "nothing half written is left"


def test_another_process_may_be_quicker(with_files, painting, tmp_path, monkeypatch):
    kept, made = Store(tmp_path), Converted(Print(painting.mix, painting.head), ((0, 2, 3, 1),), (None,))
    rename, overtaken = os.rename, []

    def overtake(one: Any, other: Any, **folders: Any) -> None:
        """Once the former entry is moved away, of which there is none yet, another process puts its own."""
        if other == "key" and not overtaken:
            overtaken.append(one)
            kept.put("key", ADAPTER, made)
        rename(one, other, **folders)

    monkeypatch.setattr(os, "rename", overtake)
    kept.put("key", ADAPTER, made)
    found = kept.get("key", ADAPTER)
    assert overtaken and found is not None and found.input_axes == ((0, 2, 3, 1),)
    np.testing.assert_array_equal(found.model.head, painting.head)
    assert entries(tmp_path) == [tmp_path / "key"]


def test_an_entry_that_cannot_be_moved_into_place_is_told(with_files, painting, tmp_path, monkeypatch):
    def refuse(*arguments: Any, **folders: Any) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.warns(cfi.TranslationWarning, match="PermissionError: read-only file system"):
        Store(tmp_path).put("key", ADAPTER, Converted(Print(painting.mix, painting.head), (None,), (None,)))
    assert entries(tmp_path) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", "~no-such-user-at-all/kept"):
        with pytest.raises(cfi.ArgumentError, match="cannot be a folder of translations"):
            cfi.keep_translations(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    with pytest.raises(cfi.ArgumentError, match=r"others may write to it.*chmod go-w"):
        cfi.keep_translations(shared)
    shared.chmod(0o755)
    cfi.keep_translations(shared)
    cfi.keep_translations(None)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such owners")
def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(cfi.ArgumentError, match=r"belongs to another user\. Choose a folder of your own"):
        cfi.keep_translations(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_a_new_folder_is_the_users_alone(tmp_path):
    assert Store(tmp_path / "a" / "b").folder.stat().st_mode & 0o777 == 0o700
