"""Views of data sets: moments against numpy, statistics against closed forms, clusters that were planted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from sklearn.metrics import adjusted_rand_score

from cfi_core.errors import ArgumentError, PlotError
from cfi_scale import views
from cfi_scale.views import samples as reading
from cfi_scale.views.spectrum import spectrum_of

SHAPE = (3, 8, 10)
DIMS = ("sample", "channel", "height", "width")


def store(count: int = 60, seed: int = 0) -> xarray.Dataset:
    draw = np.random.default_rng(seed)
    return xarray.Dataset(
        {
            "attribution": (DIMS, draw.normal(1.0, 2.0, (count, *SHAPE)).astype("float32")),
            "target": ("sample", draw.integers(0, 3, count)),
            "prediction": ("sample", draw.integers(0, 3, count)),
            "id": ("sample", np.array([f"picture-{i}" for i in range(count)])),
        }
    )


class Watched:
    """An array that can be sliced along its samples, and nothing else; it remembers how much was read at once."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape, self.ndim, self.dtype = values, values.shape, values.ndim, values.dtype
        self.most = 0

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: Any) -> np.ndarray:
        found = self._values[rows]
        self.most = max(self.most, len(found))
        return found


# Maps.


@pytest.mark.parametrize("portion", [1, 7, 1000])
def test_mean_and_variance_are_those_of_numpy(portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = store()
    monkeypatch.setattr(reading, "_PORTION", portion * 8 * np.prod(SHAPE))
    maps = views.average(data, by="target")
    values, target = data.attribution.values.astype("float64"), data.target.values
    for place, label in enumerate([0, 1, 2]):
        np.testing.assert_allclose(maps.mean[place], values[target == label].mean(0), rtol=1e-12)
        np.testing.assert_allclose(maps.variance[place], values[target == label].var(0), rtol=1e-12)
    assert maps.counts.tolist() == np.bincount(target).tolist() and maps.dims == DIMS[1:]


def test_a_small_variance_beside_a_large_mean_is_kept() -> None:
    values = 1e8 + np.random.default_rng(0).normal(size=(500, 4))
    maps = views.average(values, by=None)
    np.testing.assert_allclose(maps.variance[0], values.var(0), rtol=1e-6)


def test_no_more_is_read_at_once_than_a_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(100, 5, 5))
    monkeypatch.setattr(reading, "_PORTION", 8 * 8 * 25)
    watched = Watched(values)
    maps = views.average(watched, by=np.arange(100) % 4)
    assert watched.most == 8
    np.testing.assert_allclose(maps.mean[1], values[1::4].mean(0))
    watched.most = 0
    views.rank(watched, "sum")
    assert watched.most == 8


def test_sign_axes_and_normalization() -> None:
    data = store()
    values = data.attribution.values.astype("float64")
    (found,) = views.average(data, by=None, sign="absolute_value", over="channel").mean
    np.testing.assert_allclose(found, np.abs(values).sum(1).mean(0))
    (found,) = views.average(data, by=None, normalize=True).mean
    np.testing.assert_allclose(found, (values / np.abs(values).sum((1, 2, 3), keepdims=True)).mean(0))
    (found,) = views.average(data, by=None, sign="negative").mean
    np.testing.assert_allclose(found, np.minimum(values, 0).mean(0))


def test_samples_that_failed_are_left_out_and_counted() -> None:
    data = store()
    data["attribution"][3, 0, 0, 0] = np.nan
    data["target"] = data.target.astype(float)
    data["target"][5] = np.nan
    maps = views.average(data)
    kept = np.setdiff1d(np.arange(60), [3, 5])
    assert maps.left_out == 2 and maps.counts.sum() == 58 and "2 left out" in repr(maps)
    zeros = kept[data.target.values[kept] == 0]
    np.testing.assert_allclose(maps.mean[0], data.attribution.values[zeros].astype("float64").mean(0))


def test_what_a_growing_store_does_not_hold_yet_is_left_out() -> None:
    data = store()
    data["status"] = "sample", np.where(np.arange(60) < 40, 1, 0)
    data["status"][7] = 2
    data["prediction"][40:] = -1
    maps = views.average(data, by="prediction")
    assert maps.left_out == 21 and -1 not in maps.classes and maps.counts.sum() == 39
    assert np.isnan(views.rank(data).all_scores).sum() == 21


def test_a_store_on_disk_is_read_by_its_path(tmp_path: Path) -> None:
    data = store()
    data["id"] = "sample", np.arange(100, 160)
    data.to_zarr(tmp_path / "found.zarr", encoding={"attribution": {"chunks": (16, *SHAPE)}}, zarr_format=3)
    np.testing.assert_array_equal(views.average(tmp_path / "found.zarr").mean, views.average(data).mean)
    found = views.rank(str(tmp_path / "found.zarr"), count=2)
    assert (found.ids == found.positions + 100).all()


def test_an_array_of_xarray_brings_its_axes_and_targets() -> None:
    data = store()
    array = data.attribution.assign_coords(target=data.target).transpose("height", "sample", ...)
    found = views.average(array, by="target", over="channel")
    np.testing.assert_allclose(found.mean, views.average(data, by="target", over="channel").mean)


def test_maps_become_a_data_set() -> None:
    found = views.average(store(), by="prediction").to_xarray()
    assert found["mean"].dims == ("class", *DIMS[1:]) and found["count"].sum() == 60


# Ranking.


@pytest.mark.parametrize(
    ("statistic", "by_hand"),
    [
        ("sum", lambda v: v.sum((1, 2, 3))),
        ("absolute_sum", lambda v: np.abs(v).sum((1, 2, 3))),
        ("maximum", lambda v: np.abs(v).max((1, 2, 3))),
        (lambda v: v[:, 0, 0, 0], lambda v: v[:, 0, 0, 0]),
    ],
)
def test_the_top_is_that_of_sorting_by_hand(statistic: Any, by_hand: Any) -> None:
    data = store()
    values = data.attribution.values.astype("float64")
    scores = by_hand(values)
    found = views.rank(data, statistic, count=5)
    assert found.positions.tolist() == np.argsort(-scores)[:5].tolist()
    np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][:5])
    np.testing.assert_array_equal(found.values, values[found.positions])
    assert found.ids.tolist() == [f"picture-{i}" for i in found.positions]
    lowest = views.rank(data, statistic, count=3, lowest=True)
    assert lowest.positions.tolist() == np.argsort(scores)[:3].tolist()


def test_concentration_is_one_for_one_value_and_one_over_n_for_equal_ones() -> None:
    maps = np.zeros((3, 4, 5))
    maps[0, 1, 2], maps[1] = -7, 0.3
    assert views.STATISTICS["concentration"](maps).tolist() == pytest.approx([1, 1 / 20, 0])


def test_each_class_has_its_own_top() -> None:
    data = store()
    found = views.rank(data, "sum", by="target", count=2)
    sums = data.attribution.values.astype("float64").sum((1, 2, 3))
    for label in range(3):
        own = np.flatnonzero(data.target.values == label)
        best = own[np.argsort(-sums[own])[:2]]
        assert found.positions[found.classes == label].tolist() == best.tolist()


# Clusters.


def planted(sizes: tuple[int, ...], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maps (sample, 12, 12) around one pattern for each cluster, of any scale, in any order; and the truth."""
    draw = np.random.default_rng(seed)
    patterns = draw.normal(size=(len(sizes), 12, 12))
    truth = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    maps = patterns[truth] + noise * draw.normal(size=(len(truth), 12, 12))
    return maps * draw.lognormal(size=(len(truth), 1, 1)), truth


@pytest.mark.parametrize("sizes", [(40, 40), (150, 12), (50, 30, 20), (30, 30, 30, 30, 30)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_clusters_are_found_with_their_number(sizes: tuple[int, ...], seed: int) -> None:
    maps, truth = planted(sizes, 0.5, seed)
    (found,) = views.cluster(maps, by=None, seed=seed)
    assert found.count == len(sizes)
    assert adjusted_rand_score(truth, found.groups) == 1
    assert found.sizes.tolist() == sorted(sizes, reverse=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_not_clustered_is_one_cluster(seed: int) -> None:
    maps = np.random.default_rng(seed).normal(size=(120, 6, 6))
    (found,) = views.cluster(maps, by=None)
    assert found.count == 1 and found.sizes.tolist() == [120]


def test_more_components_than_were_looked_for_are_all_found() -> None:
    maps, truth = planted((12,) * 11, 0.05)
    (found,) = views.cluster(maps, by=None, most=3)
    assert found.count == 11 and adjusted_rand_score(truth, found.groups) == 1


def test_each_class_is_clustered_by_itself() -> None:
    first, one = planted((30, 20), 0.3, 0)
    second, _ = planted((40,), 0.3, 1)
    found = views.cluster(np.concatenate([first, second]), by=np.repeat(["a", "b"], [50, 40]))
    assert found["a"].count == 2 and found["b"].count == 1
    assert adjusted_rand_score(one, found.groups[:50]) == 1 and (found.groups[50:] == 0).all()


@pytest.mark.parametrize("components", [1, 4, 12])
def test_the_iteration_finds_the_eigenvalues_of_the_whole_matrix(
    components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Lanczos iteration by itself finds some of twelve equal eigenvalues only.
    draw = np.random.default_rng(0)
    points = draw.normal(size=(600, 10)) + 30 * draw.normal(size=(components, 10))[np.arange(600) % components]
    exact = spectrum_of(points, 6, 16, seed=0)
    monkeypatch.setattr("cfi_scale.views.spectrum._DENSE", 0)
    iterated = spectrum_of(points, 6, 16, seed=0)
    np.testing.assert_allclose(iterated.eigenvalues, exact.eigenvalues, atol=1e-9)
    assert (exact.eigenvalues < 1e-9).sum() == components
    np.testing.assert_allclose(iterated.vectors.T @ iterated.vectors, np.eye(16), atol=1e-9)


def test_agreement_is_the_mean_cosine_of_pairs() -> None:
    maps, _ = planted((30, 20), 0.7)
    (found,) = views.cluster(maps, by=None, clusters=2)
    rows = maps.reshape(50, -1) / np.linalg.norm(maps.reshape(50, -1), axis=1, keepdims=True)
    for group in range(2):
        own = rows[found.groups == group]
        cosines = (own @ own.T)[np.triu_indices(len(own), 1)]
        assert found.agreement[group] == pytest.approx(cosines.mean())


def test_maps_are_made_coarser_by_areas() -> None:
    maps, _ = planted((40, 40), 0.3)
    fine = maps.repeat(5, 1).repeat(5, 2)
    (found,) = views.cluster(fine, by=None, cells=12, dims=("sample", "height", "width"))
    (coarse,) = views.cluster(maps, by=None, cells=12, dims=("sample", "height", "width"))
    np.testing.assert_allclose(found.mean, coarse.mean, atol=1e-12)
    (uneven,) = views.cluster(maps, by=None, cells=5, clusters=1, dims=("sample", "height", "width"))
    assert uneven.mean.shape == (1, 5, 5)


def test_maps_of_zeros_have_no_cluster() -> None:
    maps, _ = planted((40, 40), 0.3)
    maps[7] = 0
    found = views.cluster(maps, by=None)
    assert found.left_out.tolist() == [7] and found.groups[7] == -1


def test_small_classes_are_told() -> None:
    maps, _ = planted((40,), 0.3)
    found = views.cluster(maps, by=np.repeat(["many", "few"], [36, 4]))
    assert list(found.classes) == ["many"] and found.too_few == {"few": 4}
    with pytest.raises(ArgumentError, match=r"No class has enough samples.*few has 4"):
        views.cluster(maps[36:], by=["few"] * 4)


# Refusals.


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda data: views.average("nowhere.zarr"), "no store at nowhere.zarr"),
        (lambda data: views.average(data, by="klass"), "no variable 'klass'; it has attribution, target"),
        (lambda data: views.average(data, variable="values"), "no variable 'values'"),
        (lambda data: views.average(data, by=[1, 2]), "60 samples need one label each"),
        (lambda data: views.average(data, by=np.ones((60, 3))), "argmax"),
        (lambda data: views.average(data, sign="up"), "sign='up' must be one of"),
        (lambda data: views.average(data, over="colour"), "over='colour' is no axis of a map"),
        (lambda data: views.average(data, classes=[7]), "no class 7; there are 0, 1, 2"),
        (lambda data: views.average(data, dims=DIMS), "dims= is for plain arrays"),
        (lambda data: views.average(data.attribution.values, by="target"), "an array has none"),
        (lambda data: views.average(data.attribution.values[0, 0, 0]), "at least one more axis"),
        (lambda data: views.average(data.isel(sample=slice(0, 0))), "no sample"),
        (lambda data: views.average(data.rename(sample="row")), "none is 'sample'"),
        (lambda data: views.rank(data, "mean"), "no statistic 'mean'; there are sum"),
        (lambda data: views.rank(data, lambda maps: maps.sum()), "one finite number for each"),
        (lambda data: views.rank(data, count=0), "count=0"),
        (lambda data: views.average(data, classes=[]), "classes= is empty"),
        (lambda data: views.average(data.attribution * np.nan, by=None), "None of the 60 samples has finite values"),
        (lambda data: views.rank(data.attribution * np.nan), "None of the 60 samples"),
        (lambda data: views.cluster(data.attribution * np.nan, by=None), "None of the 60 samples"),
        (lambda data: views.average(data.attribution.astype(complex), by=None), "must be real numbers"),
        (lambda data: views.average(np.array([["a", "b"]]), by=None), "must be real numbers"),
        (lambda data: views.average(Path(__file__)), "is no store of zarr"),
        (
            lambda data: views.cluster(data, neighbours=50),
            "No class has enough samples.*fewer clusters= or neighbours=",
        ),
        (lambda data: views.cluster(data, neighbours=0), "neighbours=0"),
        (lambda data: views.cluster(data)[9], "no class 9; there are 0, 1, 2"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(call: Any, told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        call(store())


# Pictures.


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(one.get_text() for one in figure.findobj(Text))


def test_mean_maps_are_drawn_with_their_counts() -> None:
    figure = views.average(store(), over="channel").plot(names=["zero", "one", "two"])
    drawn = [one for axis in figure.axes for one in axis.get_images()]
    found = views.average(store(), over="channel")
    np.testing.assert_array_equal(drawn[0].get_array(), found.mean[0])
    assert len(drawn) == 6 and f"two (n = {found.counts[2]})" in texts(figure)


def test_the_top_is_drawn_beside_its_images() -> None:
    images = np.random.default_rng(1).random((60, 8, 10, 3))
    found = views.rank(store(), "sum", over="channel", count=3)
    figure = found.plot(images=images)
    drawn = [one.get_array() for axis in figure.axes for one in axis.get_images()]
    np.testing.assert_allclose(drawn[0], images[found.positions[0]])
    np.testing.assert_array_equal(drawn[1], found.values[0])
    assert found.ids[0] in texts(figure)
    with pytest.raises(PlotError, match="3 images for 60 samples"):
        found.plot(images=images[:3])


def test_clusters_are_drawn_with_sizes_and_gap() -> None:
    maps, _ = planted((40, 20), 0.3)
    found = views.cluster(maps, by=None)
    shown = texts(found.plot(places=True))
    assert "40 samples" in shown and "20 samples" in shown and "behind 2" in shown and "t-SNE" in shown


def test_names_must_be_as_many_as_classes() -> None:
    for names in (["zero"], ["zero", "one", "two", "three"]):
        with pytest.raises(PlotError, match="names for 3 classes"):
            views.average(store(), over="channel").plot(names=names)


def test_maps_with_more_axes_than_a_picture_are_refused() -> None:
    with pytest.raises(PlotError, match="over='channel'"):
        views.average(store()).plot()


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.neighbors", None)
    with pytest.raises(ArgumentError, match=r"cfi-scale\[clusters\]"):
        views.cluster(store(), by=None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PlotError, match=r"cfi-scale\[plot\]"):
        views.average(store(), over="channel").plot()
