"""`explain_dataset` in one process: what is in the store, what is refused, and how a run goes on."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pressing
import pytest
import xarray
import zarr

import cfi_core as cfi
import cfi_scale
from cfi_scale.question import describe
from cfi_scale.store import Store

pytestmark = pytest.mark.usefixtures("plugins")
SIZES = {"batch_size": 4, "chunk_size": 8, "progress": False}


def run(images, store, method="press_gradient", **named):
    asked = {name: named.pop(name) for name in ("pause", "log", "fails_at", "layer") if name in named}
    return cfi_scale.explain_dataset(pressing.explainer(method, **asked), images, store, **{**SIZES, **named})


def test_holds_what_the_method_gives_by_hand(tmp_path, images):
    found = run(images, tmp_path / "s")
    model = pressing.network()
    best = model(images).argmax(1)
    by_hand = model.gradients(images, np.eye(5)[best])["input"]
    np.testing.assert_allclose(found.attribution, by_hand, rtol=1e-6)
    assert found.attribution.dims == ("sample", "height", "width", "channel")
    np.testing.assert_array_equal(found.target, best)
    np.testing.assert_array_equal(found.prediction, best)
    np.testing.assert_allclose(found.prediction_value, model(images).max(1), rtol=1e-6)
    np.testing.assert_array_equal(found.id, np.arange(len(images)))
    assert (found.status == 1).all()


def test_tells_where_it_comes_from(tmp_path, images):
    found = run(images, tmp_path / "s")
    told = json.loads(found.attrs["provenance"])
    assert (found.attrs["method"], found.attrs["toolset"]) == ("press_gradient", "press")
    assert told["versions"]["numpy"] == np.__version__
    assert "seconds" not in told and "predicted" not in told
    assert json.loads(found.attrs["cfi_scale"])["question"]["model"]


def test_predictions_are_kept_for_a_target_of_ones_own(tmp_path, images):
    model, targets = pressing.network(), np.arange(50) % 5
    found = run(images, tmp_path / "s", target=targets)
    np.testing.assert_array_equal(found.target, targets)
    np.testing.assert_array_equal(found.prediction, model(images).argmax(1))
    assert "prediction" not in run(images, tmp_path / "t", target=targets, predictions=False)


def test_draws_depend_on_the_chunk_and_not_on_what_was_done_before(tmp_path, images):
    first = run(images, tmp_path / "a", "press_noise")
    for mark in sorted((tmp_path / "a" / "status" / "c").iterdir())[1:4]:
        mark.unlink()
    before = pressing.tree(tmp_path / "a")
    run(images, tmp_path / "a", "press_noise")
    run(images, tmp_path / "b", "press_noise")
    run(images, tmp_path / "c", "press_noise", seed=1)
    assert pressing.tree(tmp_path / "a") == pressing.tree(tmp_path / "b") != before
    assert not np.array_equal(first.attribution, xarray.open_zarr(tmp_path / "c").attribution)
    batches = first.attribution.values[:48].reshape(12, -1)
    assert len(np.unique(batches, axis=0)) == 12  # each has draws of its own


def test_goes_on_where_it_stopped(tmp_path, images):
    log = tmp_path / "log"
    store = tmp_path / "s"
    images[30] = np.nan
    with pytest.raises(cfi_scale.RunError, match="max_bad is 0"):
        run(images, store, max_bad=0)
    assert Store(store).done() == {0, 1, 2}
    run(images, store, log=str(log))
    assert sum(int(line.split()[1]) for line in log.read_text().splitlines()) == 50 - 24 - 1
    log.unlink()
    run(images, store, log=str(log))
    assert not log.exists()


def test_bad_samples_are_recorded_and_the_rest_goes_on(tmp_path, images, capsys):
    images[3], images[20, 0, 0, 0], images[21, 0, 0, 0] = np.nan, 99, np.inf
    found = run(images, tmp_path / "s", fails_at=99, progress=True)
    bad = {3, 20, 21}
    assert set(np.flatnonzero(found.status == 2)) == bad
    assert found.error.values[3] == "90 of its 90 values are NaN"
    assert "does not suit me" in found.error.values[20]
    assert found.error.values[21] == "1 of its 90 values is infinite"
    assert np.isnan(found.attribution[[3, 20, 21]]).all()
    good = [place for place in range(50) if place not in bad]
    model = pressing.network()
    kept = images[good]
    by_hand = model.gradients(kept, np.eye(5)[model(kept).argmax(1)])["input"]
    np.testing.assert_allclose(found.attribution[good], by_hand, rtol=1e-6)
    assert "3 of 50 samples could not be explained" in capsys.readouterr().err
    assert cfi_scale.status(tmp_path / "s").bad == 3


def test_a_run_ends_above_the_limit_of_bad_samples(tmp_path, images):
    images[10:20] = np.nan
    with pytest.raises(cfi_scale.RunError, match=r"max_bad is 5.*values are NaN.*goes on where it stopped"):
        run(images, tmp_path / "s", max_bad=5)
    found = run(images, tmp_path / "s", max_bad=10)
    assert (found.status == 2).sum() == 10


def test_bad_samples_of_former_runs_count(tmp_path, images):
    images[[3, 20, 35]] = np.nan
    with pytest.raises(cfi_scale.RunError, match="max_bad is 2"):
        run(images, tmp_path / "s", max_bad=2)
    (tmp_path / "s" / "status" / "c" / "4").unlink(missing_ok=True)  # the third is still to come
    with pytest.raises(cfi_scale.RunError, match="3 samples could not be explained, and max_bad is 2"):
        run(images, tmp_path / "s", max_bad=2)
    assert (run(images, tmp_path / "s", max_bad=3).status == 2).sum() == 3


def test_what_is_wrong_with_the_question_is_refused_before_there_is_a_store(tmp_path, images):
    with pytest.raises(cfi.UnknownMethodError, match="press_gradient"):
        run(images, tmp_path / "s", "press_gradeint")
    with pytest.raises(cfi.TargetError):
        run(images, tmp_path / "s", target=7)
    with pytest.raises(cfi_scale.RunError, match=r"No sample could be explained\. 0: ValueError: .* suit me"):
        run(np.full_like(images, 99), tmp_path / "s", fails_at=99)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed was 0, and is 1"),
        ({"target": 2}, "target of all was null, and is 2"),
        ({"batch_size": 5}, "batch_size was 4, and is 5"),
        ({"dtype": "float16"}, "dtype"),
        ({"method": "press_probability"}, "method_key"),
    ],
)
def test_a_store_of_another_question_is_refused(tmp_path, images, change, told):
    run(images, tmp_path / "s")
    before = pressing.tree(tmp_path / "s")
    with pytest.raises(cfi_scale.StoreError, match=told):
        run(images, tmp_path / "s", **change)
    assert pressing.tree(tmp_path / "s") == before


def test_a_store_of_another_model_is_refused(tmp_path, images):
    run(images, tmp_path / "s")
    other = pressing.explainer("press_gradient")
    other.__setstate__(other.__getstate__())
    asked = other.__getstate__()["asked"]
    asked.model.mix[0, 0] += 1e-3
    with pytest.raises(cfi_scale.StoreError, match="model was"):
        cfi_scale.explain_dataset(other, images, tmp_path / "s", **SIZES)


FACTOR = 1


def weigh(outputs):
    """A target that uses a value of its module."""
    return outputs[:, 0] * FACTOR


def test_a_function_is_known_by_all_that_it_computes_with(monkeypatch):
    def of(column, factor=1):
        return lambda outputs, factor=factor: outputs[:, column] * factor

    def indirectly(outputs):
        return weigh(outputs)

    assert describe(of(1)) == describe(of(1)) and describe(weigh) == describe(weigh)
    several = [of(0), of(1), of(1, 2), of(np.array([1])), of(np.array([2])), of("1"), weigh, indirectly]
    assert len({describe(one) for one in several}) == len(several)
    before = describe(weigh), describe(indirectly)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2)
    assert describe(weigh) != before[0] and describe(indirectly) != before[1]


def test_other_data_are_refused(tmp_path, images):
    run(images, tmp_path / "s")
    (tmp_path / "s" / "status" / "c" / "3").unlink()
    with pytest.raises(cfi.InputError, match=r"not those that .* was begun with"):
        run(images[::-1], tmp_path / "s")
    with pytest.raises(cfi.InputError, match=r"not those that .* was begun with"):
        run(images, tmp_path / "s", ids=[f"image {number}" for number in range(50)])
    with pytest.raises(cfi_scale.StoreError, match="samples was 50, and is 40"):
        run(images[:40], tmp_path / "s")


@pytest.mark.parametrize("changed", [47, 8, 15])
def test_other_samples_at_the_ends_of_chunks_and_other_ids_are_seen(tmp_path, images, changed):
    names = [f"image {number}" for number in range(50)]
    run(images, tmp_path / "s", ids=names)
    (tmp_path / "s" / "status" / "c" / "6").unlink()
    others = names.copy()
    others[changed - 3] = "another"
    with pytest.raises(cfi.InputError, match=r"not those that .* was begun with"):
        run(images, tmp_path / "s", ids=others)
    images[changed] += 1
    with pytest.raises(cfi.InputError, match=rf"samples {changed} to {changed}, values"):
        run(images, tmp_path / "s", ids=names)


def test_an_existing_store_is_left_alone_without_resume(tmp_path, images):
    run(images, tmp_path / "s")
    with pytest.raises(cfi_scale.StoreError, match="resume=True"):
        run(images, tmp_path / "s", resume=False)


def test_an_empty_folder_becomes_the_store(tmp_path, images):
    (tmp_path / "s").mkdir()
    assert run(images, tmp_path / "s").sizes["sample"] == 50


@pytest.mark.parametrize(
    ("store", "told"),
    [
        (None, "store=None is no path"),
        (b"s", "no path"),
        ("", "no path"),
        ("s3://bucket/s.zarr", "is an address"),
        ("file/s", "Nothing can be written beside"),
        ("/proc/nowhere/s", "Nothing can be written beside"),
        ("there/s", "lies in .*there, which is a store"),
        ("x" * 300, "Nothing can be written beside"),
    ],
)
def test_a_place_that_cannot_be_a_store_is_refused(tmp_path, images, monkeypatch, store, told):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    zarr.create_group("there")
    with pytest.raises((cfi.ArgumentError, cfi_scale.StoreError), match=told):
        run(images, store)


def test_a_place_with_spaces_and_umlauts_relative_to_here(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (run(images, "Über größe/mein [1] *.zarr").status == 1).all()
    assert cfi_scale.status("Über größe/mein [1] *.zarr").complete
    assert cfi_scale.open_store(Path("Über größe/mein [1] *.zarr")).sizes["sample"] == 50


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"batch_size": 2.0}, "batch_size=2.0 is no whole number from 1"),
        ({"batch_size": True}, "no whole number"),
        ({"predictions": "no"}, "neither True nor False"),
        ({"threads": 0}, "threads=0 is no whole number from 1"),
        ({"executor": "dask", "workers": -1}, "workers=-1 is no whole number from 1"),
        ({"executor": "dask", "workers": 1.5}, "workers=1.5"),
    ],
)
def test_what_is_no_number_of_anything_is_refused(tmp_path, images, asked, told):
    with pytest.raises(cfi.ArgumentError, match=told):
        run(images, tmp_path / "s", **asked)
    assert not (tmp_path / "s").exists()


def test_numbers_of_numpy_are_numbers(tmp_path, images):
    run(images, tmp_path / "a")
    run(images, tmp_path / "b", batch_size=np.int64(4), chunk_size=np.uint8(8), seed=np.int32(0))
    assert pressing.tree(tmp_path / "a") == pressing.tree(tmp_path / "b")


@pytest.mark.parametrize("other", [lambda inputs: inputs, pressing.network(), "saliency"])
def test_what_is_no_explainer_is_refused(tmp_path, images, other):
    with pytest.raises(cfi.ArgumentError, match=r"Pass a cfi\.Explainer"):
        cfi_scale.explain_dataset(other, images, tmp_path / "s", **SIZES)


@pytest.mark.parametrize("make", [list, np.array, np.float32])
def test_targets_of_each_sample(tmp_path, images, make):
    targets = [number % 5 for number in range(50)]
    if make is np.float32:
        with pytest.raises(cfi.TargetError, match="holds no indices"):
            run(images, tmp_path / "s", target=make(targets))
    else:
        np.testing.assert_array_equal(run(images, tmp_path / "s", target=make(targets)).target, targets)


def test_one_target_as_an_array_is_one_for_all(tmp_path, images):
    assert (run(images, tmp_path / "s", target=np.array(2)).target == 2).all()
    np.testing.assert_array_equal(run(images[:5], tmp_path / "t", target=range(5)).target, np.arange(5))


@pytest.mark.parametrize("samples", [1, 3, 7, 9])
@pytest.mark.parametrize(("batch", "chunk"), [(3, 7), (30, 7), (1, 1)])
def test_sizes_that_do_not_divide(tmp_path, images, samples, batch, chunk):
    found = run(images[:samples], tmp_path / "s", batch_size=batch, chunk_size=chunk)
    model = pressing.network()
    by_hand = model.gradients(images[:samples], np.eye(5)[model(images[:samples]).argmax(1)])["input"]
    np.testing.assert_allclose(found.attribution, by_hand, rtol=1e-6)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("mine")])
def test_what_is_no_store_is_left_alone(tmp_path, images, make):
    make(tmp_path / "s")
    (tmp_path / "s").is_dir() and (tmp_path / "s" / "mine").write_text("mine")
    with pytest.raises(cfi_scale.StoreError):
        run(images, tmp_path / "s")
    assert (tmp_path / "s").is_file() or (tmp_path / "s" / "mine").read_text() == "mine"


def test_one_run_at_a_time(tmp_path, images):
    with cfi_scale.store.hold(tmp_path / "s"), pytest.raises(cfi_scale.StoreError, match="Another run"):
        run(images, tmp_path / "s")
    assert run(images, tmp_path / "s").sizes["sample"] == 50
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_half_precision_tells_its_error(tmp_path, images):
    whole = run(images, tmp_path / "a", "press_noise").attribution.values
    found = run(images, tmp_path / "b", "press_noise", dtype="float16")
    assert found.attribution.dtype == np.float16
    axes = (1, 2, 3)
    off = np.abs(found.attribution.values.astype(float) - whole).max(axes) / np.abs(whole).max(axes)
    np.testing.assert_allclose(found["rounding"], off, rtol=1e-3)
    assert 0 < cfi_scale.status(tmp_path / "b").rounding < 1e-3


def test_a_sample_too_large_for_half_precision_is_bad(tmp_path, images):
    class Loud(pressing.Pressing):
        def __call__(self, inputs=None, target=None, **named):
            made = super().__call__(inputs, target, **named)
            made.values[np.asarray(inputs)[:, 0, 0, 0] == 99] = 1e6
            return made

    images[30, 0, 0, 0] = 99
    loud = Loud(pressing.network(), "press_gradient", target="predicted")
    found = cfi_scale.explain_dataset(loud, images, tmp_path / "s", dtype="float16", **SIZES)
    assert list(np.flatnonzero(found.status == 2)) == [30]
    assert "too large for float16" in found.error.values[30]
    assert np.isfinite(found.attribution.values[np.arange(50) != 30]).all()
    assert cfi_scale.status(tmp_path / "s").rounding < 1e-3


def test_half_precision_is_refused_where_it_holds_nothing(tmp_path, images):
    with pytest.raises(cfi.ArgumentError, match=r"float16.*off by up to 100%"):
        cfi_scale.explain_dataset(
            pressing.explainer("press_gradient", exec_args={"scale": 1e-12}),
            images,
            tmp_path / "s",
            dtype="float16",
            **SIZES,
        )


def test_a_growing_store_is_read_by_plain_xarray(tmp_path, images):
    store, seen = tmp_path / "s", []

    def batches():
        for start in range(0, 50, 5):
            if (store / "zarr.json").exists():
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    warnings.filterwarnings("ignore", "The codec `vlen-utf8`")  # of zarr 3.1.0
                    opened = xarray.open_zarr(store, chunks=None)
                    seen.append(int((opened.status == 1).sum()))
                    assert np.isnan(opened.attribution.values[opened.status.values == 0]).all()
                    assert np.isfinite(opened.attribution.values[opened.status.values == 1]).all()
            yield images[start : start + 5]

    found = run(batches(), store)
    assert found.sizes["sample"] == 50 and (found.status == 1).all()
    assert seen == sorted(seen) and len(set(seen)) > 3
    np.testing.assert_array_equal(found.attribution, run(images, tmp_path / "t").attribution)
    again = zarr.open_group(store, use_consolidated=False)
    assert {name: array.shape[0] for name, array in again.arrays()} == dict.fromkeys(found.data_vars, 50)


def test_a_stream_goes_on_and_must_be_the_same(tmp_path, images):
    def batches(order=1):
        return iter(np.array_split(images[::order], 7))

    run(batches(), tmp_path / "s")
    whole = pressing.tree(tmp_path / "s")
    for number in (2, 5):
        (tmp_path / "s" / "status" / "c" / str(number)).unlink()
    run(batches(), tmp_path / "s")
    assert pressing.tree(tmp_path / "s") == whole
    with pytest.raises(cfi.InputError, match="same samples in the same order"):
        run(batches(-1), tmp_path / "s")


@pytest.mark.parametrize(
    ("length", "told"), [(30, "were 50 samples, and there are 30"), (90, "were 50 .* more now|differ")]
)
def test_a_stream_of_another_length_is_refused(tmp_path, images, length, told):
    run(iter([images]), tmp_path / "s")
    before = pressing.tree(tmp_path / "s")
    with pytest.raises(cfi.InputError, match=told):
        run(iter([np.resize(images, (length, 6, 5, 3))]), tmp_path / "s")
    assert pressing.tree(tmp_path / "s") == before


def test_a_complete_stream_is_not_made_longer(tmp_path, images):
    run(iter([images[:48]]), tmp_path / "s")
    with pytest.raises(cfi.InputError, match="were 48 samples, and there are more now"):
        run(iter([images]), tmp_path / "s")
    assert cfi_scale.status(tmp_path / "s").samples == 48


def test_a_stream_that_fails_goes_on(tmp_path, images):
    def batches():
        yield images[:20]
        yield images[20:30]
        raise OSError("the share is gone")

    with pytest.raises(cfi.InputError, match="failed after 30 samples"):
        run(batches(), tmp_path / "s")
    assert "24 explained, 0 could not be; how many are left" in str(cfi_scale.status(tmp_path / "s"))
    assert (run(iter([images]), tmp_path / "s").status == 1).all()


def test_a_layer_and_a_map_have_their_own_axes(tmp_path, images):
    found = run(images, tmp_path / "s", "press_map", layer="mix")
    assert found.attribution.dims == ("sample", "height", "width")
    assert found.attrs["layer"] == "mix"


def test_a_script_that_is_killed_goes_on(tmp_path, images):
    np.save(tmp_path / "images.npy", images)
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        import numpy as np, pressing, cfi_scale
        pressing.see_fake_plugin()
        images = np.load({str(tmp_path / "images.npy")!r}, mmap_mode="r")
        made = pressing.explainer("press_noise", pause=0.05)
        cfi_scale.explain_dataset(made, images, {str(tmp_path / "s")!r}, batch_size=4, chunk_size=8, progress=False)
    """)
    process = subprocess.Popen([sys.executable, "-c", script])
    while not len(list((tmp_path / "s" / "status").glob("c/*"))) > 1:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = Store(tmp_path / "s").done()
    assert 1 < len(done) < 7
    assert not cfi_scale.status(tmp_path / "s").complete
    run(images, tmp_path / "s", "press_noise")
    run(images, tmp_path / "t", "press_noise")
    assert pressing.tree(tmp_path / "s") == pressing.tree(tmp_path / "t")


def test_a_full_disk_ends_the_run_and_harms_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    large = np.random.default_rng(0).normal(size=(6, 8, 48, 40, 3)).astype(np.float32)

    def batches():
        for number, batch in enumerate(large):
            if number == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # files grow no further
            yield batch

    try:
        with pytest.raises(cfi_scale.StoreError, match=r"Chunk 3 of .* cannot be written.*goes on where it stopped"):
            run(batches(), tmp_path / "s", "press_noise")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    assert Store(tmp_path / "s").done() == {0, 1, 2}
    opened = xarray.open_zarr(tmp_path / "s", chunks=None)
    assert np.isfinite(opened.attribution[:24].values).all()
    assert (run(iter(large), tmp_path / "s", "press_noise").status == 1).all()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_damaged_chunk_is_an_error_and_no_values(tmp_path, images):
    found = run(images, tmp_path / "s", "press_noise")
    chunk = next((tmp_path / "s" / "attribution" / "c" / "2").rglob("0"))
    while chunk.is_dir():
        chunk = next(chunk.iterdir())
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunk.write_bytes(damaged)
    with pytest.raises(Exception, match=r"(?i)checksum|decompress|corrupt"):
        np.asarray(found.attribution[16:24])


@pytest.mark.parametrize("length", [50, 48, 5])
def test_states_are_those_that_zarr_reads(tmp_path, images, length):
    images[[3, 11, 12]] = np.nan
    run(images[:length], tmp_path / "s")
    store = Store(tmp_path / "s")
    if length > 16:
        store.forget(1)
    states = store.states()
    np.testing.assert_array_equal(states, store.read("status", 0, length))
    assert list(np.flatnonzero(states == 2)) == [3]
    assert list(np.flatnonzero(states == 0)) == (list(range(8, 16)) if length > 16 else [])


@pytest.mark.parametrize("told", [0, 1])
def test_a_disk_that_is_full_when_the_length_is_noted(tmp_path, images, monkeypatch, told):
    """Of a stream the store is made longer while it runs, and as long as it is at the end."""
    write, calls = Store._write_group, []

    def write_group(store, **facts):
        calls.append(facts)
        if len(calls) > told:
            raise OSError(28, "No space left on device")
        write(store, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_write_group", write_group)
        with pytest.raises(cfi_scale.StoreError, match=r"cannot be written .*No space left.*goes on where it stopped"):
            run(iter([images]), tmp_path / "s", "press_noise")
    assert not cfi_scale.status(tmp_path / "s").complete
    run(iter([images]), tmp_path / "s", "press_noise")
    run(iter([images]), tmp_path / "t", "press_noise")
    assert pressing.tree(tmp_path / "s") == pressing.tree(tmp_path / "t")


def test_a_damaged_store_says_what_to_do(tmp_path, images):
    run(images, tmp_path / "s")
    mark = tmp_path / "s" / "status" / "c" / "2"
    mark.write_bytes(bytes(len(mark.read_bytes())))
    for call in (cfi_scale.status, lambda store: run(images, store)):
        with pytest.raises(cfi_scale.StoreError, match=r"Chunk 2 of 'status' .* Remove .*status/c/2 "):
            call(tmp_path / "s")
    mark.unlink()
    assert (run(images, tmp_path / "s").status == 1).all()
    shutil.rmtree(tmp_path / "s" / "status")
    with pytest.raises(cfi_scale.StoreError, match="lost its variable 'status'"):
        cfi_scale.status(tmp_path / "s")
    with pytest.raises(cfi_scale.StoreError, match="There is no store"):
        cfi_scale.open_store(tmp_path / "nowhere")


def test_what_is_warned_of_in_chunks_is_warned_of_once(tmp_path, images):
    made = pressing.explainer("press_gradient", exec_args={"scale": 0.0})
    with pytest.warns(cfi.ModelWarning, match=r"zero everywhere.*times in this run") as caught:
        cfi_scale.explain_dataset(made, images, tmp_path / "s", **SIZES)
    assert [one.category for one in caught if issubclass(one.category, cfi.CFIWarning)] == [cfi.ModelWarning]
