"""Pictures, arrays and tables as models take them, against what is computed by hand."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cfi_core
from cfi_cli.samples import PRESETS, DataOptions, draw_samples, read_values
from cfi_core.framework import FrameworkAdapter

RED, GREEN = (200, 10, 20), (0, 100, 50)


class Shapes(FrameworkAdapter):
    """Knows nothing but where channels are."""

    name = "shapes"

    def __init__(self, first: bool | None, integer: bool = False) -> None:
        self.first, self.integer = first, integer

    def channel_axis(self, model: Any, shape: Any, *, layer: str | None = None) -> int | None:
        if self.first is None:  # as of functions of arrays: wherever there are few
            return len(shape) - 1 if shape[-1] <= 4 else 1
        return 1 if self.first else len(shape) - 1

    def declares_integer(self, model: Any, position: int) -> bool | None:
        return self.integer or None

    def outputs(self, model: Any, inputs: Any) -> Any:
        raise NotImplementedError

    def runner(self, model: Any, inputs: Any, layers: Any = ()) -> Any:
        raise NotImplementedError


def model(*shapes: tuple[int | None, ...], first: bool | None = True, integer: bool = False) -> Any:
    return SimpleNamespace(
        adapter=Shapes(first, integer), native=None, input_shapes=shapes or None, framework="shapes", name="a model"
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Four pixels high and six wide: the left half red, the right half green."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3], pixels[:, 3:] = RED, GREEN
    path = tmp_path / "flag.png"
    Image.fromarray(pixels).save(path)
    return path


def read(paths: Any, of: Any, **options: Any) -> Any:
    return DataOptions(inputs=paths if isinstance(paths, list) else [paths], **options).read(of)


# how pictures are scaled


@pytest.mark.parametrize(
    ("preset", "red"),
    [
        ("imagenet", [(200 / 255 - 0.485) / 0.229, (10 / 255 - 0.456) / 0.224, (20 / 255 - 0.406) / 0.225]),
        ("caffe", [20 - 103.939, 10 - 116.779, 200 - 123.68]),
        ("unit", [200 / 255, 10 / 255, 20 / 255]),
        ("symmetric", [200 / 127.5 - 1, 10 / 127.5 - 1, 20 / 127.5 - 1]),
        ("pixels", RED),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_presets(picture, preset, red, first):
    samples = read(picture, model(first=first), preprocess=preset, size="4x6")
    assert samples.values.shape == ((1, 3, 4, 6) if first else (1, 4, 6, 3))
    assert samples.values.dtype == np.float32
    np.testing.assert_allclose(samples.values[0, :, 0, 0] if first else samples.values[0, 0, 0], red, rtol=1e-6)
    assert (samples.pictures[0][0, 0] == RED).all() and (samples.pictures[0][0, 5] == GREEN).all()
    assert samples.names == ("flag",)


def test_presets_that_are_there_are_named_in_the_error(picture):
    with pytest.raises(cfi_core.CFIError, match=", ".join(PRESETS)):
        read(picture, model())


def test_the_declared_size_and_channels_are_taken(picture):
    assert read(picture, model((None, 8, 8, 3), first=False), preprocess="unit").values.shape == (1, 8, 8, 3)
    assert read(picture, model((None, 1, 8, 8)), preprocess="unit").values.shape == (1, 1, 8, 8)
    grey = read(picture, model((None, 1, 4, 6)), preprocess="pixels").values[0, 0, 0, 0]
    assert grey == pytest.approx(0.299 * 200 + 0.587 * 10 + 0.114 * 20, abs=1)


def test_a_crop_is_of_the_middle_and_a_stretch_of_all(picture):
    cropped = read(picture, model((None, 3, 4, 4)), preprocess="pixels").values[0, 0]
    np.testing.assert_array_equal(cropped[0], [200, 200, 0, 0])
    stretched = read(picture, model((None, 3, 4, 12)), preprocess="pixels", fit="stretch").values[0, 0]
    assert stretched.shape == (4, 12) and stretched[0, 0] == 200 and stretched[0, -1] == 0


def test_presets_of_imagenet_are_of_their_usual_size(picture):
    assert read(picture, model(), preprocess="imagenet").values.shape == (1, 3, 224, 224)
    assert read(picture, model(), preprocess="unit").values.shape == (1, 3, 4, 6)


def test_a_model_of_whole_numbers_gets_pixels(picture):
    values = read(picture, model((None, 4, 6, 3), first=False, integer=True), preprocess="pixels").values
    assert values.dtype == np.uint8 and values[0, 0, 0].tolist() == list(RED)
    with pytest.raises(cfi_core.CFIError, match="--preprocess pixels"):
        read(picture, model((None, 4, 6, 3), first=False, integer=True), preprocess="unit")


def test_a_function_of_the_users(picture, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef halve(image):\n    return np.asarray(image)[..., 0] / 2\n"
    )
    samples = read(picture, model(), preprocess=f"{tmp_path / 'mine.py'}:halve")
    assert samples.values.shape == (1, 4, 6) and samples.values[0, 0, 0] == 100


def test_a_function_that_fails_is_named(picture, tmp_path):
    (tmp_path / "mine.py").write_text("def fail(image):\n    raise KeyError('mean')\n")
    with pytest.raises(cfi_core.CFIError, match=r"mine\.py:fail failed on a picture"):
        read(picture, model(), preprocess=f"{tmp_path / 'mine.py'}:fail")


def test_a_picture_is_turned_as_its_camera_held_it(tmp_path):
    upright = Image.new("RGB", (6, 4), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    upright.save(tmp_path / "turned.jpg", exif=exif)
    assert read(tmp_path / "turned.jpg", model(), preprocess="pixels").values.shape == (1, 3, 6, 4)


def test_transparency_is_laid_on_white_and_told(tmp_path, capsys):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "glass.png")
    assert (read(tmp_path / "glass.png", model(), preprocess="pixels").values == 255).all()
    assert "glass.png is transparent" in capsys.readouterr().err


def refusals(tmp_path: Path) -> dict[str, tuple[Any, dict[str, Any], Any, str]]:
    """Files and options that do not fit, and what is said of them."""
    deep, text, bomb = tmp_path / "deep.png", tmp_path / "text.png", tmp_path / "bomb.png"
    Image.fromarray(np.full((4, 4), 60_000, np.uint16)).save(deep)
    text.write_text("no picture at all")
    size = struct.pack(">II", 30_000, 30_000) + b"\x01\x00\x00\x00\x00"  # of one bit each, and no data
    header = b"IHDR" + size
    checked = header + struct.pack(">I", zlib.crc32(header))
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(size)) + checked)
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (4, 4)).save(small)
    Image.new("RGB", (8, 8)).save(large)
    np.save(tmp_path / "array.npy", np.zeros((1, 3)))
    unit = {"preprocess": "unit"}
    return {
        "deep": (deep, unit, model(), "more than 8 bits"),
        "text": (text, unit, model(), "no picture that can be read"),
        "bomb": (bomb, unit, model(), "no picture that can be read"),
        "sizes": ([small, large], unit, model(), "--size"),
        "mixed": ([small, tmp_path / "array.npy"], unit, model(), "arrays and pictures"),
        "absent": (tmp_path / "absent.png", unit, model(), "There is no file"),
        "unknown": (small, {"preprocess": "torch"}, model(), "is none of imagenet"),
        "fit": (small, {**unit, "fit": "pad", "size": "8"}, model(), "neither crop nor stretch"),
        "size": (small, {**unit, "size": "8x"}, model(), "neither a number nor"),
        "another size": (small, {**unit, "size": "8"}, model((None, 3, 4, 4)), "the model takes 4 x 4"),
        "where": (small, {**unit, "channels": "middle"}, model(), "neither first nor last"),
        "ambiguous": (small, unit, model(first=None), "--channels first"),
        "table": (small, unit, model((None, 12)), "no pictures"),
        "two inputs": (small, unit, model((None, 3, 4, 4), (None, 2)), "2 inputs"),
        "five channels": (small, unit, model((None, 5, 4, 4)), "5 channels"),
        "grey": (small, {"preprocess": "caffe"}, model((None, 1, 4, 4)), "three colours"),
    }


CASES = ("deep", "text", "bomb", "sizes", "mixed", "absent", "unknown", "fit", "size", "where", "ambiguous", "table")


@pytest.mark.parametrize("case", [*CASES, "grey", "another size", "two inputs", "five channels"])
def test_what_does_not_fit_is_refused(tmp_path, case):
    path, options, of, told = refusals(tmp_path)[case]
    with pytest.raises(cfi_core.CFIError, match=told):
        read(path, of, **options)


# arrays and tables


def test_arrays_are_samples_and_several_files_are_put_together(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "b.npy", np.ones((1, 3)))
    samples = read([tmp_path / "a.npy", tmp_path / "b.npy"], model())
    np.testing.assert_array_equal(samples.values, [[0, 1, 2], [3, 4, 5], [1, 1, 1]])
    assert samples.names == ("a[0]", "a[1]", "b")


def test_arrays_by_name(tmp_path):
    np.savez(tmp_path / "two.npz", ids=np.ones((2, 4), int), mask=np.zeros((2, 4), int))
    samples = read(tmp_path / "two.npz", model())
    assert sorted(samples.values) == ["ids", "mask"] and samples.names == ("two[0]", "two[1]")
    np.savez(tmp_path / "one.npz", x=np.ones((2, 4)))
    assert read(tmp_path / "one.npz", model()).values.shape == (2, 4)


def test_no_pickle_is_ever_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "trap.npz", x=np.array([Trap()], dtype=object))
    (tmp_path / "raw.npy").write_bytes(b"\x80\x04")
    for name in ("trap.npy", "trap.npz", "raw.npy"):
        with pytest.raises(cfi_core.CFIError, match="cannot be read as arrays"):
            read(tmp_path / name, model())
    assert not (tmp_path / "sprung").exists()


def test_a_table_of_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("age,income\n30,1.5\n41,2\n", encoding="utf-8-sig")
    samples = read(tmp_path / "t.csv", model())
    np.testing.assert_array_equal(samples.values, [[30, 1.5], [41, 2]])
    assert samples.features == ("age", "income") and samples.names == ("row 1", "row 2")


def test_a_table_with_words_is_a_frame(tmp_path):
    pandas = pytest.importorskip("pandas")
    (tmp_path / "t.csv").write_text("age,job\n30,cook\n")
    assert isinstance(read(tmp_path / "t.csv", model()).values, pandas.DataFrame)


@pytest.mark.parametrize("text", ["", "a,b\n", "a,b\n1\n"])
def test_a_table_that_is_none(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(cfi_core.CFIError, match="a line of names"):
        read(tmp_path / "t.csv", model())


def test_values_of_one_file(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((1, 3)))
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    assert read_values(tmp_path / "a.npy").shape == (1, 3) and read_values(tmp_path / "t.csv").tolist() == [[1, 2]]
    with pytest.raises(cfi_core.CFIError, match="There is no file"):
        read_values(tmp_path / "b.npy")


# drawn samples


def test_samples_are_drawn_as_declared_and_always_the_same():
    one, other = (draw_samples(model((None, 3, 4)), 5, None).values for _ in range(2))
    assert one.shape == (5, 3, 4) and (one == other).all()
    assert draw_samples(model((2, 3)), 5, None).values.shape == (2, 3)
    assert draw_samples(model(), 1, "3,8,8").values.shape == (1, 3, 8, 8)
    assert draw_samples(model((None, 3), integer=True), 2, None).values.dtype.kind == "i"


@pytest.mark.parametrize(("shapes", "shape"), [((), None), (((None, 3, None),), None), ((), "3x8"), ((), "0,8")])
def test_what_has_no_shape_cannot_be_drawn(shapes, shape):
    with pytest.raises(cfi_core.CFIError, match="--shape"):
        draw_samples(model(*shapes), 2, shape)
