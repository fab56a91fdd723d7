"""Data in all the forms that people hold them in give the same store."""

from __future__ import annotations

import pickle

import cloudpickle
import numpy as np
import pressing
import pytest
import zarr
from PIL import Image

import cfi_core as cfi
import cfi_scale
from cfi_scale.images import open_path
from cfi_scale.samples import sift_rows
from cfi_scale.sources import open_source

pytestmark = pytest.mark.usefixtures("plugins")


class Pairs:
    """A data set as torch has them: samples with their labels, some of which cannot be read."""

    def __init__(self, images, broken=()):
        self.images, self.broken = images, broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        if number in self.broken:
            raise OSError("the file is truncated")
        return self.images[number], number % 5, f"file {number}"


def values(source, *, step=8):
    """All samples of a source, read in pieces."""
    parts = [source.read(start, min(start + step, 50)) for start in range(0, 50, step)]
    return np.concatenate([part.arrays[0] for part in parts])


def test_arrays_in_files_travel_by_their_names(tmp_path, images):
    np.save(tmp_path / "a.npy", images)
    zarr.save_array(tmp_path / "a.zarr", images)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/images"] = images
    for path in ("a.npy", "a.zarr", "a.h5:group/images"):
        source = open_source(open_path(tmp_path / path if ":" not in path else f"{tmp_path}/{path}"))
        packed = cloudpickle.dumps(source)
        assert source.travels and len(packed) < 3000
        np.testing.assert_array_equal(values(pickle.loads(packed)), images)


def test_a_part_of_a_memory_map_is_that_part(tmp_path, images):
    np.save(tmp_path / "a.npy", np.concatenate([images, images + 1]))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(values(open_source(mapped[50:])), images + 1)
    np.testing.assert_array_equal(values(pickle.loads(pickle.dumps(open_source(mapped)))), images)


def test_large_arrays_stay_here(images, monkeypatch):
    monkeypatch.setattr("cfi_scale.sources.TRAVELS", images.nbytes - 1)
    assert not open_source(images).travels
    monkeypatch.setattr("cfi_scale.sources.TRAVELS", 2 * images.nbytes)
    assert open_source(images).travels


def test_samples_one_by_one_bring_target_and_id(tmp_path, images):
    made = pressing.explainer("press_gradient")
    found = cfi_scale.explain_dataset(
        made, Pairs(images, {4, 30}), tmp_path / "s", fields=("inputs", "target", "id"), chunk_size=8, progress=False
    )
    good = [number for number in range(50) if number not in (4, 30)]
    np.testing.assert_array_equal(found.target[good], np.arange(50)[good] % 5)
    assert found.id.values[7] == "file 7"
    assert found.error.values[30] == "unreadable (OSError: the file is truncated)"
    by_hand = pressing.network().gradients(images[good], np.eye(5)[np.arange(50)[good] % 5])["input"]
    np.testing.assert_allclose(found.attribution[good], by_hand, rtol=1e-6)


def test_a_sample_of_another_shape_is_bad(tmp_path, images):
    ragged = [*images[:20], images[20, :4], images[21].astype(np.float64), *images[22:30]]
    found = cfi_scale.explain_dataset(
        pressing.explainer("press_gradient"), ragged, tmp_path / "s", chunk_size=8, progress=False
    )
    assert list(np.flatnonzero(found.status == 2)) == [20, 21]
    assert found.error.values[20] == "it is (4, 5, 3) of float32, the others (6, 5, 3) of float32"


@pytest.mark.parametrize("sizes", [[50], [1] * 50, [7] * 7 + [1], [30, 20]])
def test_a_stream_is_cut_anew(images, sizes):
    ends = np.cumsum(sizes)
    batches = [(images[end - size : end], np.arange(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    source = open_source(iter(batches), fields=("inputs", "id"))
    parts = []
    while len(part := source.read(sum(map(len, parts)), sum(map(len, parts)) + 8)):
        parts.append(part)
    assert [len(part) for part in parts] == [8] * 6 + [2]
    np.testing.assert_array_equal(np.concatenate([part.arrays[0] for part in parts]), images)
    assert [name for part in parts for name in part.ids] == list(range(50))


def test_several_inputs_and_inputs_by_name(images):
    assert open_source((images, images[..., 0])).read(3, 5).inputs(slice(None))[1].shape == (2, 6, 5)
    named = open_source({"image": images, "mask": images[..., 0]}).read(3, 5).inputs(slice(None))
    assert {name: one.shape for name, one in named.items()} == {"image": (2, 6, 5, 3), "mask": (2, 6, 5)}


@pytest.mark.parametrize(
    ("data", "named", "told"),
    [
        ("photos", {}, "Open it: cfi_scale.ImageFolder"),
        (3, {}, "neither be indexed nor iterated"),
        (iter(()), {}, "gives no batch"),
        ([(np.ones((2, 3)), np.ones(2))], {}, "Say what its parts are"),
        (iter([(np.ones((2, 3)), np.ones(2))]), {}, "Say what its parts are"),
        (iter([(np.ones((2, 3)), np.ones(2))]), {"fields": ("image", None)}, "fields has 'image'"),
        (iter([(np.ones((2, 3)), np.ones(2))]), {"fields": ("target",)}, "names no 'inputs'"),
        (iter([{"a": np.ones((2, 3))}]), {"fields": {"b": "inputs"}}, "no part 'b'; it has a"),
        (np.ones((4, 3)), {"target": [1, 2]}, "4 samples and 2 of target"),
        (np.ones((4, 3)), {"ids": [1, 2, 2, 4]}, "The id 2 stands for several"),
        ((np.ones((4, 3)), np.ones((5, 3))), {}, "4 and 5 samples"),
        (np.ones((4, 3)), {"ids": [1, None, 2, 4]}, "Sample 1 has no id"),
        (np.ones((4, 3)), {"ids": [1, "1", 2, 4]}, "The id '1' stands for several"),
        (np.ones((4, 3)), {"ids": 4}, "ids=4 is none for each sample"),
        (np.ones((0, 3)), {}, "data are empty"),
        ([], {}, "data are empty"),
        (np.array(3.0), {}, r"shape \(\)"),
        (np.array(["a", "b"], object), {}, "array of numbers"),
        (np.ma.masked_array(np.ones((4, 3)), np.eye(4, 3)), {}, "mask would be lost"),
        ([None] * 70, {}, "None of the first 64 samples can be read"),
    ],
)
def test_what_cannot_be_understood_is_told(data, named, told):
    with pytest.raises(cfi.InputError, match=told):
        open_source(data, **named).forms  # noqa: B018


@pytest.mark.parametrize(
    ("batches", "told"),
    [
        ([(np.ones((3, 2)), [1, 2, 3]), (np.ones((3, 2)), [4, 5])], "behind sample 3 has 3 of input 0, 2 of id"),
        ([(np.ones((3, 2)), [1, 2, 3]), (np.ones((3, 2)), None)], "behind sample 3 has no ids"),
        ([(np.ones((3, 2)), [1, 2, 3]), (np.ones((3, 2)), [4, 5, "six"])], "The id 'six' is no whole number"),
        ([(np.ones((3, 2)), [1, 2, 1])], "The id 1 stands for several"),
    ],
)
def test_a_batch_whose_parts_do_not_fit_is_told(batches, told):
    source = open_source(iter(batches), fields=("inputs", "id"))
    with pytest.raises(cfi.InputError, match=told):
        source.read(0, 10)


def test_memory_that_is_used_again_for_the_next_sample_or_batch(images):
    """As generators do that fill a buffer."""
    buffer = np.empty_like(images[:5])

    class Reader:
        def __len__(self):
            return 50

        def __getitem__(self, number):
            buffer[0] = images[number]
            return buffer[0]

    def batches():
        for start in range(0, 50, 5):
            buffer[...] = images[start : start + 5]
            yield buffer

    np.testing.assert_array_equal(values(open_source(batches())), images)
    np.testing.assert_array_equal(values(open_source(Reader())), images)


def test_empty_batches_are_passed_over():
    source = open_source(iter([np.ones((0, 3)), np.ones((2, 3)), np.ones((0, 3)), np.ones((1, 3))]))
    assert len(source.read(0, 8)) == 3


def test_a_stream_that_fails_says_where():
    def batches():
        yield np.ones((4, 3))
        raise OSError("the share is gone")

    source = open_source(batches())
    assert len(source.read(0, 3)) == 3
    with pytest.raises(cfi.InputError, match=r"failed after 4 samples \(OSError: the share is gone\)"):
        source.read(3, 6)


@pytest.mark.parametrize(
    ("ids", "first"),
    [
        ([2**70 + number for number in range(50)], str(2**70)),
        (np.arange(50, dtype=np.uint64) + 2**63, str(2**63)),
        ([f"photo \udce4 {number}" for number in range(50)], "photo \\udce4 0"),
        ([b"\xc3\xa4%d" % number for number in range(50)], "ä0"),
        (np.arange(50) / 2, "0.0"),
    ],
)
def test_ids_of_all_kinds_are_kept_as_texts(tmp_path, images, ids, first):
    made = pressing.explainer("press_gradient")
    found = cfi_scale.explain_dataset(made, images, tmp_path / "s", ids=ids, chunk_size=8, progress=False)
    assert found.id.values[0] == first
    cfi_scale.explain_dataset(made, images, tmp_path / "s", ids=ids, chunk_size=8, progress=False)  # known again


def test_ids_that_repeat_in_different_chunks_are_warned_of(tmp_path, images):
    stream = iter([(images[:24], range(24)), (images[24:], range(26))])
    with pytest.warns(cfi.CFIWarning, match="24 ids stand for several samples each, such as '0'"):
        cfi_scale.explain_dataset(
            pressing.explainer("press_gradient"),
            stream,
            tmp_path / "s",
            fields=("inputs", "id"),
            chunk_size=24,
            progress=False,
        )


def test_values_that_overflow_in_a_sum_are_finite():
    rows = np.full((3, 1000), 3e38, np.float32)
    rows[1, 5], rows[2, 7] = np.inf, np.nan
    found = sift_rows([rows], range(3))
    assert found.good == (0,) and set(found.errors) == {1, 2}


def test_a_folder_with_whatever_people_have_in_it(tmp_path, images):
    for name in ("ä ö/1 ß.png", "2.PNG", b"latin-\xe4.png".decode("utf-8", "surrogateescape")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray((images[0] * 50).astype(np.uint8)).save(tmp_path / name, "PNG")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "lost.png").symlink_to("nowhere")
    folder = cfi_scale.ImageFolder(tmp_path, lambda image: np.asarray(image, np.float32) / 255, suffixes="PNG")
    found = cfi_scale.explain_dataset(pressing.explainer("press_gradient"), folder, tmp_path / "s", progress=False)
    explained = {name: int(status) for name, status in zip(found.id.values, found.status.values, strict=True)}
    assert explained == {"2.PNG": 1, "empty.png": 2, "latin-\\udce4.png": 1, "lost.png": 2, "ä ö/1 ß.png": 1}
    assert "UnidentifiedImageError" in found.error.values[1] and "FileNotFoundError" in found.error.values[3]


def test_data_named_from_here_are_found_from_elsewhere(tmp_path, images, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray((np.abs(images[0]) * 50).astype(np.uint8)).save("photos/1.png")
    with h5py.File("a.h5", "w") as file:
        file["images"] = images
    np.save("a.npy", images)
    folder, mapped = cfi_scale.ImageFolder("photos", half), np.load("a.npy", mmap_mode="r")
    with h5py.File("a.h5") as file:
        sources = [pickle.dumps(open_source(data)) for data in (mapped, file["images"])]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert folder[0].shape == (4, 5, 3)
    for source in sources:
        np.testing.assert_array_equal(values(pickle.loads(source)), images)


def test_a_folder_of_images(tmp_path):
    for name in ("b/2.png", "a/1.png", "a/0.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (10, 8), (255, 0, 51)).save(tmp_path / name, "PNG")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "b" / "broken.png").write_text("no image either")
    folder = cfi_scale.ImageFolder(tmp_path, half)
    assert folder.ids == ("a/0.JPG", "a/1.png", "b/2.png", "b/broken.png")
    found = open_source(folder).read(0, 4)
    assert found.arrays[0].shape == (3, 4, 5, 3)
    np.testing.assert_allclose(found.arrays[0][1, 2, 2], [1, 0, 0.2])
    assert "UnidentifiedImageError" in found.errors[3]
    with pytest.raises(cfi.InputError, match="There is no image"):
        cfi_scale.ImageFolder(tmp_path, half, suffixes=(".bmp",))


def half(image):
    """Half as large, from 0 to 1."""
    return np.asarray(image.resize((5, 4)), np.float32) / 255
