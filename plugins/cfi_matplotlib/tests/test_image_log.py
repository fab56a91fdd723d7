"""The page of what goes into a network: it tells the numbers, and its pictures are the images."""

from __future__ import annotations

import io
import re
import threading
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

import cfi_matplotlib
from cfi_core.errors import InputError
from cfi_matplotlib import ImageLog

GENERATOR = np.random.default_rng(0)
BYTES = GENERATOR.integers(0, 256, (3, 6, 5, 3), np.uint8)


class Page(HTMLParser):
    """Headings, sentences and pictures of a page, and what it would fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.stages: list[str] = []
        self.words: list[str] = []
        self.pictures: list[np.ndarray] = []
        self.fetched: list[str] = []
        self._inside = ""
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self._inside = tag
        for name, value in attributes:
            if name in ("src", "href"):
                kind, _, data = value.partition(",")
                if kind == "data:image/png;base64":
                    self.pictures.append(np.round(imread(io.BytesIO(b64decode(data)), format="png") * 255))
                else:
                    self.fetched.append(value)

    def handle_data(self, data: str) -> None:
        if self._inside == "h2":
            self.stages.append(data)
        if self._inside == "p" and data.strip():
            self.words.append(data)


@pytest.fixture
def log(tmp_path: Path) -> ImageLog:
    return ImageLog(tmp_path / "logs" / "images.html")


def read(log: ImageLog) -> Page:
    return Page(log.path)


def colours(picture: np.ndarray) -> np.ndarray:
    return picture[..., :3]


def test_stages_follow_each_other_on_one_page(log: ImageLog) -> None:
    log("loaded", BYTES)
    log("scaled", BYTES / 255.0)
    ImageLog(log.path)("augmented <i>", BYTES[:, :, ::-1])
    page = read(log)
    assert page.stages == ["loaded", "scaled", "augmented <i>"] and "<i>" not in page.text
    assert page.text.count("<!doctype html>") == page.text.count("<h1>") == 1 and not page.fetched
    for picture, image in zip(page.pictures, [*BYTES, *BYTES, *BYTES[:, :, ::-1]], strict=True):
        np.testing.assert_array_equal(colours(picture), image)


def test_the_numbers_of_a_stage(log: ImageLog) -> None:
    images = np.linspace(-1, 3, 2 * 6 * 5 * 3).reshape(2, 6, 5, 3)
    log("normalised", images)
    (told,) = read(log).words
    assert "shape 2 × 6 × 5 × 3 (NHWC), float64; min -1, max 3, mean 1;" in told
    assert "black to white is -1 to 3, which are the smallest and the largest value" in told
    np.testing.assert_allclose(colours(read(log).pictures[0]), (images[0] + 1) / 4 * 255, atol=0.5)


@pytest.mark.parametrize(
    ("images", "range_"),
    [
        (BYTES, "0 to 255"),
        (BYTES.astype(np.float32), "0 to 255"),
        (BYTES / 300.0, "0 to 1"),
        (BYTES / 100.0 - 1, "the smallest and the largest value"),
    ],
)
def test_what_is_black_and_white_is_told(log: ImageLog, images: Any, range_: str) -> None:
    log("stage", images)
    assert range_ in read(log).words[0]


@pytest.mark.parametrize(
    ("images", "axes", "form"),
    [
        (BYTES[0], None, "HWC"),
        (BYTES.transpose(0, 3, 1, 2), None, "NCHW"),
        (BYTES[0].transpose(2, 0, 1), "CHW", "CHW"),
        (BYTES[..., 0], "NHW", "NHW"),
        (GENERATOR.integers(0, 256, (7, 6, 5), np.uint8), None, "NHW"),
        (BYTES[0, ..., 0], None, "HW"),
        (BYTES[..., :1], None, "NHWC"),
    ],
)
def test_axes(log: ImageLog, images: Any, axes: str | None, form: str) -> None:
    log("stage", images, axes=axes)
    assert f"({form})" in read(log).words[0]
    expected = images.transpose([form.index(name) for name in "NHWC" if name in form])
    expected = expected if "N" in form else expected[None]
    expected = expected if "C" in form else expected[..., None]
    for picture, image in zip(read(log).pictures, expected, strict=True):
        np.testing.assert_array_equal(colours(picture), np.broadcast_to(image, (*image.shape[:2], 3)))


@pytest.mark.parametrize(
    ("images", "axes", "message"),
    [
        (np.zeros((2, 3, 5, 4)), None, "several ways: pass axes=, such as 'NHWC' or 'NCHW'"),
        (np.zeros((3, 8, 8)), None, "several ways: pass axes=, such as 'CHW' or 'NHW'"),
        (np.zeros((2, 8, 8, 5)), None, "cannot be told"),
        (np.zeros(4), None, "cannot be told"),
        (np.zeros((2, 8, 8, 5)), "NHWC", "5 colours"),
        (np.zeros((2, 8, 8)), "NHWC", "are no axes of images of shape"),
        (np.zeros((0, 8, 8, 3)), None, "no image in 'stage'"),
        ([], None, "no image in 'stage'"),
        ("words", None, "pass an array of numbers"),
    ],
)
def test_what_is_refused_is_not_written(log: ImageLog, images: Any, axes: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        log("stage", images, axes=axes)
    assert not log.path.exists()


def test_images_of_several_sizes(log: ImageLog) -> None:
    log("cropped", [BYTES[0], BYTES[1, :2], BYTES[2, :, :2].transpose(2, 0, 1)[:1]])
    page = read(log)
    assert page.words[0].startswith("3 arrays, the first of shape 6 × 5 × 3 (HWC)")
    assert [picture.shape[:2] for picture in page.pictures] == [(6, 5), (2, 5), (6, 2)]


def test_the_first_images_are_shown(log: ImageLog) -> None:
    log.max_images = 2
    log("many", BYTES)
    assert len(read(log).pictures) == 2 and "2 of 3 images" in read(log).words[0]


def test_what_must_not_be_overlooked(log: ImageLog) -> None:
    broken = np.array(BYTES, np.float32)
    broken[0, 0, 0] = np.nan
    log("broken", broken)
    log("black", np.zeros((2, 6, 5, 3)))
    words = " ".join(read(log).words)
    assert "3 of 270 values are NaN or infinite; they are drawn black." in words and "All values are 0." in words
    np.testing.assert_array_equal(colours(read(log).pictures[0])[0, 0], 0)


def test_several_may_append_to_one_page(log: ImageLog) -> None:
    log("first", BYTES)
    threads = [threading.Thread(target=ImageLog(log.path), args=(f"stage {i}", BYTES)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = read(log)
    assert sorted(page.stages) == ["first", *(f"stage {i}" for i in range(8))] and len(page.pictures) == 27
    assert len(re.findall("</section>", page.text)) == 9


def test_the_package_has_no_other_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Log'"):
        cfi_matplotlib.Log  # noqa: B018
