"""Models from files and factories: told by contents, refused with a word that helps, and nothing in a file is run."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, ModelFormat, Need
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.conformance import ModelFileConformance, assert_refused


class Scale:
    """A model: each feature times a number."""

    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return rows * self.factor


class Drawing:
    """A model of the framework below."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return rows * self.factor


def read_drawing(path: Path, trust: bool) -> Any:
    text = path.read_text()
    if not text.startswith("DRAW1 ") or not text.endswith("."):
        raise cfi.ModelFileError(f"{path.name} is no drawing.")
    return Drawing(float(text.removeprefix("DRAW1 ").removesuffix(".")))


def read_gallery(path: Path, trust: bool) -> Any:
    raise AssertionError("called without trust")


def weigh(model: Any, path: Path) -> None:
    model.factor = float(path.read_text().removeprefix("WEIGHT "))


HERE = "test_model_files"


class Studio:
    """A framework with four formats."""

    __name__ = "studio"
    requirements: tuple[str, ...] = ()

    @hookimpl
    def cfi_frameworks(self) -> list[FrameworkSpec]:
        draw = "44 52 41 57 ??"  # DRAW
        formats = (
            ModelFormat(
                name="a drawing",
                suffixes=(".draw",),
                begins=(draw,),
                model=f"{HERE}:read_drawing",
                requirements=self.requirements,
            ),
            ModelFormat(name="a weight", suffixes=(".weight",), begins=("57 45",), weights=f"{HERE}:weigh"),
            ModelFormat(
                name="a gallery",
                suffixes=(".hall",),
                begins=("50 4b 03 04",),
                members=("*/pictures", "index"),
                model=f"{HERE}:read_gallery",
                runs_code="galleries run code",
                instead="Use a drawing.",
            ),
            ModelFormat(name="a cellar", members=("index",), folder=True, model=f"{HERE}:read_gallery", runs_code="x"),
            ModelFormat(name="a sketch", suffixes=(".sketch",), model=f"{HERE}:read_drawing"),
        )
        spec = FrameworkSpec(
            name="studio",
            model_types=((HERE, "Drawing"),),
            tensor_types=(),
            adapter="cfi_core.arrays:ArrayAdapter",
            module="numpy",
            offers=frozenset({Need.FORWARD}),
            formats=formats,
        )
        return [spec]


@pytest.fixture(autouse=True)
def _studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    with use_plugins(fake, Studio()):
        yield


@pytest.fixture(autouse=True)
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that hostile ones would write."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code in a file has run"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def zipped(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


GALLERY = {"index": b"1", "hall/pictures": b"2"}


class TestDrawings(ModelFileConformance):
    """The kit on a framework without a library."""

    framework, format, suffix = "studio", "a drawing", ".draw"

    def make_model(self) -> Any:
        return sys.modules[HERE].Drawing(2.5)

    def make_inputs(self) -> np.ndarray:
        return np.arange(6.0).reshape(2, 3)

    def write(self, model: Any, path: Path) -> None:
        path.write_text(f"DRAW1 {model.factor}.")


class TestPickles(TestDrawings):
    framework, format, suffix = "numpy", "a pickle", ".pkl"

    def make_model(self) -> Any:
        return sys.modules[HERE].Scale(2.5)

    def write(self, model: Any, path: Path) -> None:
        path.write_bytes(pickle.dumps(model))


def read_another(path: Path, trust: bool) -> Any:
    return Drawing(float(path.read_text().removeprefix("DRAW1 ").removesuffix(".")) + 1)


def read_anything(path: Path, trust: bool) -> Any:
    return Drawing(1.0)


@pytest.mark.parametrize(
    ("reader", "test", "words"),
    [
        ("read_another", "test_its_files_give_the_model_back", "another model"),
        ("read_anything", "test_files_that_end_too_soon_are_refused", "is read, and gives Drawing"),
    ],
)
def test_the_kit_tells_what_a_reader_does_wrong(monkeypatch, reader, test, words):
    monkeypatch.setattr(sys.modules[__name__], "read_drawing", globals()[reader])
    with pytest.raises(AssertionError, match=words):
        getattr(TestDrawings(), test)()


# what a path leads to


def test_the_contents_tell_the_format_and_the_name_must_not_tell_another(tmp_path):
    for name in ("a.draw", "b", "c.unheard-of", "d.DRAW"):
        (tmp_path / name).write_text("DRAW1 3.")
        assert cfi.load_model(tmp_path / name).factor == 3
    (tmp_path / "d.weight").write_text("DRAW1 3.")
    error = assert_refused(tmp_path / "d.weight")
    assert "is named like a weight and holds a drawing" in str(error) and ".draw" in str(error)


def test_a_format_that_says_nothing_of_its_contents_goes_by_the_name(tmp_path):
    (tmp_path / "a.sketch").write_text("DRAW1 3.")
    # The bytes are those of a drawing, which says more.
    assert "holds a drawing" in str(assert_refused(tmp_path / "a.sketch"))
    (tmp_path / "b.sketch").write_text("sketch")
    assert "is no drawing" in str(assert_refused(tmp_path / "b.sketch"))


def test_an_archive_is_told_by_its_members_and_a_folder_too(tmp_path):
    error = assert_refused(zipped(tmp_path / "a.hall", GALLERY))
    assert isinstance(error, cfi.UntrustedFileError)
    assert all(word in str(error) for word in ("galleries run code", "trust=True", "Use a drawing"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index").write_text("")
    assert isinstance(assert_refused(tmp_path / "b"), cfi.UntrustedFileError)
    assert "a folder of" in str(assert_refused(tmp_path))
    (tmp_path / "none").mkdir()
    assert "an empty folder" in str(assert_refused(tmp_path / "none"))


def test_a_file_that_two_formats_tell_alike_is_not_read(tmp_path):
    class Twin(Studio):
        __name__ = "twin"

        @hookimpl
        def cfi_frameworks(self) -> list[FrameworkSpec]:
            (spec,) = super().cfi_frameworks()
            return [FrameworkSpec(**{**vars(spec), "name": "twin", "model_types": ()})]

    (tmp_path / "a.draw").write_text("DRAW1 3.")
    with use_plugins(fake, Studio(), Twin()):
        assert "a drawing and a drawing at once" in str(assert_refused(tmp_path / "a.draw"))


def test_a_wrong_path_names_those_that_are_near(tmp_path):
    for name in ("model.draw", "model.pkl", "other.txt"):
        (tmp_path / name).write_text("x")
    for wrong in ("modell.draw", "Model.Draw", "model.onnx"):
        assert "model.draw" in str(assert_refused(tmp_path / wrong)), wrong
    assert "Nothing in" in str(assert_refused(tmp_path / "qqq"))
    assert "no folder" in str(assert_refused(tmp_path / "nowhere" / "model.draw"))


def test_an_unknown_file_lists_what_is_known_and_what_brings_the_rest(tmp_path):
    (tmp_path / "model.xyz").write_text("something")
    text = str(assert_refused(tmp_path / "model.xyz"))
    for word in (".draw", ".pkl", ".pt", "pip install cfi-torch", ".keras", "pip install cfi-tensorflow", ":factory"):
        assert word in text, word


def test_a_file_of_a_framework_whose_plugin_is_missing_says_what_to_install(tmp_path):
    path = zipped(tmp_path / "a.keras", {"config.json": b"", "metadata.json": b"", "model.weights.h5": b""})
    with pytest.raises(cfi.UnknownFrameworkError, match="pip install cfi-tensorflow"):
        cfi.load_model(path)


def test_a_version_whose_safe_mode_is_none_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.draw").write_text("DRAW1 3.")
    monkeypatch.setattr(Studio, "requirements", ("numpy>=9999", "no-such-thing>=1"))
    with use_plugins(fake, Studio()):
        text = str(assert_refused(tmp_path / "a.draw"))
    assert "numpy>=9999" in text and np.__version__ in text


def test_arguments_of_other_kinds_are_refused(tmp_path):
    for path in (3, None, b"model.draw", Scale(), ["a"]):
        with pytest.raises(cfi.ArgumentError, match="path is of type"):
            cfi.load_model(path)
    with pytest.raises(cfi.ArgumentError, match="weights is of type"):
        cfi.load_model(f"{HERE}:Scale", weights=3)
    with pytest.raises(cfi.ArgumentError, match="trust is"):
        cfi.load_model(tmp_path, trust="yes")
    assert "Nothing is fetched" in str(assert_refused("https://example.org/model.pt"))


# factories


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


@pytest.fixture
def factories(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    class Nested:
        make = staticmethod(lambda: Drawing(5))

    def fails() -> Any:
        raise OSError("no data")

    made = module("factories", make=lambda: Drawing(4), Drawn=Drawing, Scale=Scale, ready=Drawing(6), Nested=Nested)
    vars(made).update(fails=fails, nothing=lambda: None, text="words", needs=lambda a, b=1, *, c: Drawing(a))
    monkeypatch.setitem(sys.modules, "factories", made)
    return made


def test_a_factory_is_a_function_a_class_or_the_model_itself(factories):
    assert cfi.load_model("factories:make").factor == 4
    assert cfi.load_model("factories:Nested.make").factor == 5
    assert cfi.load_model("factories:ready") is factories.ready
    assert isinstance(cfi.load_model("factories:Scale"), Scale)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("factories:mak", "There is 'make'"),
        ("factories:Nested.mako", "There is 'make'"),
        ("factories:needs", "needs 'a', 'c'"),
        ("factories:Drawn", "needs 'factor'"),
        ("factories:nothing", "gave None.* return"),
        ("factories:text", "is of type str"),
        ("factories:fails", "OSError: no data"),
        ("no_such_module_here:make", "no module 'no_such_module_here'.*PYTHONPATH"),
        ("cfi_core.nothing_of_that_name:make", "no module 'cfi_core.nothing_of_that_name'"),
    ],
)
def test_what_is_wrong_with_a_factory_is_told(factories, name, words):
    with pytest.raises(cfi.ArgumentError, match=words):
        cfi.load_model(name)


def test_a_module_that_fails_or_lacks_another_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_factory.py").write_text("1 / 0")
    (tmp_path / "lacking_factory.py").write_text("import no_such_module_there")
    with pytest.raises(cfi.ArgumentError, match=r"Importing broken_factory failed .ZeroDivisionError"):
        cfi.load_model("broken_factory:make")
    with pytest.raises(cfi.ArgumentError, match=r"Importing lacking_factory failed .*no_such_module_there"):
        cfi.load_model("lacking_factory:make")


def test_code_is_named_by_its_module(tmp_path, factories):
    (tmp_path / "code.py").write_text("def make(): ...")
    with pytest.raises(cfi.ModelFileError, match=r"code\.py' is code. Pass 'code:FUNCTION'"):
        cfi.load_model(tmp_path / "code.py")
    with pytest.raises(cfi.ArgumentError, match=r"'code\.py' is the name of a file, and modules go .*'code:…'"):
        cfi.load_model("code.py:make")
    with pytest.raises(cfi.ModelFileError, match="path is an empty text"):
        cfi.load_model("")


def test_a_file_of_that_name_is_a_file(tmp_path, monkeypatch, factories):
    monkeypatch.chdir(tmp_path)
    Path("factories:make").write_text("DRAW1 7.")
    assert cfi.load_model("factories:make").factor == 7


# weights


def test_weights_go_into_what_a_factory_gives(tmp_path, factories):
    (tmp_path / "w.weight").write_text("WEIGHT 8")
    assert cfi.load_model("factories:make", weights=tmp_path / "w.weight").factor == 8
    (tmp_path / "d.draw").write_text("DRAW1 1.")
    assert cfi.load_model(tmp_path / "d.draw", weights=tmp_path / "w.weight").factor == 8


def test_weights_alone_are_no_model_and_other_files_no_weights(tmp_path, factories):
    (tmp_path / "w.weight").write_text("WEIGHT 8")
    assert "is no model" in str(assert_refused(tmp_path / "w.weight"))
    (tmp_path / "d.draw").write_text("DRAW1 1.")
    error = assert_refused("factories:make", weights=tmp_path / "d.draw")
    assert "holds no weights for a model of studio: it is a drawing" in str(error) and "a weight (.weight)" in str(
        error
    )
    assert "Let the factory load them" in str(assert_refused("factories:Scale", weights=tmp_path / "w.weight"))


# files from strangers


def pickled(path: Path, canary: Path) -> Path:
    path.write_bytes(pickle.dumps(Bomb(canary)))
    return path


def packed(path: Path, canary: Path) -> Path:
    import gzip

    path.write_bytes(gzip.compress(pickle.dumps(Bomb(canary))))
    return path


def without_protocol(path: Path, canary: Path) -> Path:
    path.write_bytes(pickle.dumps(Bomb(canary), protocol=0))
    return path


def polyglot(path: Path, canary: Path) -> Path:
    """A pickle behind which an archive begins: read from its end, it is one."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        for name, content in GALLERY.items():
            made.writestr(name, content)
    path.write_bytes(pickle.dumps(Bomb(canary)) + archive.getvalue())
    return path


def outside(name: str) -> Callable[[Path, Path], Path]:
    return lambda path, canary: zipped(path, {**GALLERY, name: b""})


def doubled(path: Path, canary: Path) -> Path:
    return rewritten(path, b"index")


def cut(path: Path, canary: Path) -> Path:
    """What stands behind the zero byte is left out by some readers."""
    return rewritten(path, b"ind\0y")


def rewritten(path: Path, name: bytes) -> Path:
    """An archive with a member of a name that zipfile would not write."""
    zipped(path, {"index": b"1", "indey": b"2", "hall/pictures": b"3"})
    path.write_bytes(path.read_bytes().replace(b"indey", name))
    return path


def truncated(path: Path, canary: Path) -> Path:
    data = zipped(path, GALLERY).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def crowded(path: Path, canary: Path) -> Path:
    """An archive whose directory has many megabytes, and names each of its members as often."""
    data = zipped(path, GALLERY).read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    directory = data[start:end] * 100_000
    size = len(directory).to_bytes(4, "little")
    path.write_bytes(data[:start] + directory + data[end : end + 12] + size + data[end + 16 :])
    return path


def vast_directory(path: Path, canary: Path) -> Path:
    """An archive that claims a directory of gigabytes, in a file of holes."""
    zipped(path, GALLERY)
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(3 * 2**30)
        file.seek(3 * 2**30 - 22)
        file.write(data[-22:-10] + (3 * 2**30 - 200).to_bytes(4, "little") + bytes(6))
    return path


def encrypted(path: Path, canary: Path) -> Path:
    data = bytearray(zipped(path, GALLERY).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


def pipe(path: Path, canary: Path) -> Path:
    os.mkfifo(path)
    return path


def link_to_a_device(path: Path, canary: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def circle(path: Path, canary: Path) -> Path:
    path.symlink_to(path)
    return path


def holes(path: Path, canary: Path) -> Path:
    with path.open("wb") as file:
        file.write(b"DRAW1 ")
        file.truncate(2**40)
    return path


def of_a_socket(path: Path, canary: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))
    return path


def empty(path: Path, canary: Path) -> Path:
    path.touch()
    return path


def noise(path: Path, canary: Path) -> Path:
    path.write_bytes(random.Random(0).randbytes(10_000))
    return path


_UNKNOWN = "is named like|no model that is known"
STRANGERS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "a pickle": (pickled, "a pickle"),
    "a packed pickle": (packed, "which may be a pickle"),
    "a pickle without a protocol": (without_protocol, _UNKNOWN),
    "a pickle in front of an archive": (polyglot, "a pickle"),
    "a member above the archive": (outside("../../index"), "lies outside"),
    "a member of an absolute path": (outside("/etc/passwd"), "lies outside"),
    "a member on a drive": (outside("C:\\index"), "lies outside"),
    "a member of a zero byte": (cut, "lies outside"),
    "two members of one name": (doubled, "2 members called 'index'"),
    "an archive cut off": (truncated, "broken or truncated"),
    "an archive of many members": (crowded, "directory is too large"),
    "an archive of a vast directory": (vast_directory, "full of holes"),
    "an encrypted member": (encrypted, "encrypted"),
    "a pipe": (pipe, "no plain file"),
    "a link to a device": (link_to_a_device, "no plain file"),
    "a link to itself": (circle, "cannot be opened"),
    "a terabyte of holes": (holes, "full of holes"),
    "a socket": (of_a_socket, "no plain file"),
    "an empty file": (empty, "is empty"),
    "bytes": (noise, _UNKNOWN),
}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices and holes of files as Linux has them")
@pytest.mark.parametrize("suffix", [".pkl", ".hall", ".draw", ""])
@pytest.mark.parametrize("kind", STRANGERS)
def test_files_from_strangers_are_refused_before_they_do_anything(tmp_path, monkeypatch, canary, kind, suffix):
    monkeypatch.chdir(tmp_path)
    make, words = STRANGERS[kind]
    path = make(tmp_path / f"stranger{suffix}", canary)
    modules = {*sys.modules}
    assert re.search(words, str(assert_refused(path)))
    assert {name for name in {*sys.modules} - modules if not name.startswith("cfi_core")} == set()


@pytest.mark.parametrize("path", ["model\0.draw", "m" * 5_000, "x/" * 3_000, "", "~nobody-of-that-name/model.draw"])
def test_paths_that_no_system_takes_are_refused(path):
    assert len(str(assert_refused(path))) < 1_000


def test_trust_runs_what_stands_in_a_pickle(tmp_path):
    """So that the tests above see what would have run."""
    path = pickled(tmp_path / "a.pkl", tmp_path / "trusted")
    with pytest.raises(cfi.ArgumentError, match="holds None"):
        cfi.load_model(path, trust=True)
    assert (tmp_path / "trusted").exists()
