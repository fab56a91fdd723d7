"""Where an attribution can go: a plotter, a file, xarray."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray

from cfi_core.attribution import Attribution, Outlets, plot_together
from cfi_core.errors import ArgumentError, PlotError
from cfi_core.specs import PlotterSpec, WriterSpec

IMAGES = np.arange(24.0).reshape(2, 3, 2, 2)
TABLE = np.arange(8.0).reshape(2, 4)
IMAGE_DIMS, TABLE_DIMS = ("sample", "channel", "height", "width"), ("sample", "feature")


def of_images(**facts: Any) -> Attribution:
    return Attribution(**{"values": IMAGES, "dims": IMAGE_DIMS, "method_key": "saliency", "toolset": "press", **facts})


def of_both(**facts: Any) -> Attribution:
    return of_images(values=(IMAGES, TABLE), dims=(IMAGE_DIMS, TABLE_DIMS), **facts)


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a plotter and a writer."""
    module: Any = ModuleType("studio")
    module.draw = lambda attribution, **options: ("drawn", attribution, options)
    module.etch = lambda attribution, **options: ("etched", attribution, options)
    module.write = lambda attribution, path, *, mark="": path.write_text(attribution.method_key + mark)
    monkeypatch.setitem(sys.modules, "studio", module)
    return module


def plotters(**accepts: Any) -> Outlets:
    """Plotters of those names, each with the axes that it accepts."""
    specs = {
        name: PlotterSpec(name=name, implementation=f"studio:{name}", accepts=axes) for name, axes in accepts.items()
    }
    return Outlets(plotters=specs)


# pictures


def test_without_a_plotter_it_is_told_what_brings_one() -> None:
    with pytest.raises(PlotError, match="No plotter is installed: pip install cfi-matplotlib"):
        of_images().plot()


def test_the_first_plotter_that_accepts_all_axes_draws(studio: ModuleType) -> None:
    outlets = plotters(etch=("height", "width"), draw=())
    pictured = of_images(outlets=outlets)
    assert pictured.plot(cmap="gray") == ("etched", pictured, {"cmap": "gray"})
    table = of_images(values=TABLE, dims=TABLE_DIMS, outlets=outlets)
    assert table.plot() == ("drawn", table, {})
    both = of_both(outlets=outlets)
    assert both.plot()[0] == "drawn", "one of its arrays has no height"


def test_a_plotter_can_be_asked_for(studio: ModuleType) -> None:
    pictured = of_images(outlets=plotters(etch=(), draw=()))
    assert pictured.plot("draw", size=3) == ("drawn", pictured, {"size": 3})
    with pytest.raises(PlotError, match="No plotter 'paint' is installed; installed are draw, etch"):
        pictured.plot("paint")


def test_no_plotter_draws_axes_that_it_does_not_accept(studio: ModuleType) -> None:
    table = of_images(values=TABLE, dims=TABLE_DIMS, outlets=plotters(etch=("height",)))
    for asked in (None, "etch"):
        with pytest.raises(PlotError, match=r"accepts axes \('sample', 'feature'\); installed are etch"):
            table.plot(asked)


def test_several_are_drawn_by_a_plotter_of_several_and_one_alone_by_no_such(studio: ModuleType) -> None:
    several = PlotterSpec(name="etch", implementation="studio:etch", several=True)
    outlets = Outlets(plotters={"etch": several, **plotters(draw=()).plotters})
    one, other = of_images(outlets=outlets), of_images()
    assert one.plot()[0] == "drawn"
    assert one.plot("etch", size=2) == ("etched", (one,), {"size": 2})
    drawn = plot_together([one, other], titles=["a", "b"], size=2)
    assert drawn == ("etched", (one, other), {"titles": ["a", "b"], "size": 2})
    with pytest.raises(PlotError, match="There is no attribution to draw"):
        plot_together([])
    with pytest.raises(PlotError, match="No usable plotter of several attributions accepts axes"):
        plot_together([one], plotter="draw")
    with pytest.raises(PlotError, match="No usable plotter of several attributions"):
        plot_together([of_images(outlets=plotters(draw=()))])


def test_a_plotter_whose_requirements_are_not_met_is_passed_over(studio: ModuleType) -> None:
    missing = PlotterSpec(name="etch", implementation="studio:etch", requirements=("no-such-distribution>=1",))
    alone = of_images(outlets=Outlets(plotters={"etch": missing}))
    with pytest.raises(PlotError, match="No usable plotter"):
        alone.plot()
    outlets = Outlets(plotters={"etch": missing, **plotters(draw=()).plotters})
    assert of_images(outlets=outlets).plot()[0] == "drawn"


# files


def test_the_suffix_chooses_the_writer(studio: ModuleType, tmp_path: Any) -> None:
    writer = WriterSpec(name="text", suffixes=(".txt",), implementation="studio:write")
    saved = of_images(outlets=Outlets(writers={**Outlets().writers, ".txt": writer}))
    assert saved.save(str(tmp_path / "a.TXT")) == tmp_path / "a.TXT"
    assert (tmp_path / "a.TXT").read_text() == "saliency"
    with np.load(saved.save(tmp_path / "a.npz")) as file:
        np.testing.assert_array_equal(file["values"], IMAGES)


def test_a_suffix_that_nobody_writes_is_refused(tmp_path: Any) -> None:
    with pytest.raises(PlotError, match=r"No writer serves '\.bmp' files; there are writers for \.npz\.$"):
        of_images().save(tmp_path / "a.bmp")
    with pytest.raises(PlotError, match=r"No writer serves '\.png' files; .*pip install cfi-matplotlib brings one"):
        of_images().save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_writer_whose_requirements_are_not_met_names_them(tmp_path: Any) -> None:
    writer = WriterSpec(
        name="text", suffixes=(".txt",), implementation="studio:write", requirements=("no-such-distribution>=1",)
    )
    with pytest.raises(PlotError, match=r"Writing '\.txt' needs no-such-distribution>=1"):
        of_images(outlets=Outlets(writers={".txt": writer})).save(tmp_path / "a.txt")


def test_options_go_to_the_writer_and_unknown_ones_are_refused(studio: ModuleType, tmp_path: Any) -> None:
    writer = WriterSpec(name="text", suffixes=(".txt",), implementation="studio:write")
    saved = of_images(outlets=Outlets(writers={**Outlets().writers, ".txt": writer}))
    assert saved.save(tmp_path / "a.txt", mark="!").read_text() == "saliency!"
    with pytest.raises(
        PlotError, match=r"writer 'text' has no option 'marks'; its options are mark\. Did you mean 'mark'"
    ):
        saved.save(tmp_path / "b.txt", marks="!")
    with pytest.raises(PlotError, match="The writer 'npz' takes no options, and 'mark' was given"):
        saved.save(tmp_path / "b.npz", mark="!")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_option_that_another_plotter_has_is_told(studio: Any) -> None:
    studio.draw = lambda attribution, *, width=1: ("drawn", width)
    studio.etch = lambda attribution, *, depth=1: ("etched", depth)
    pictured = of_images(outlets=plotters(draw=(), etch=()))
    assert pictured.plot(width=3) == ("drawn", 3) and pictured.plot("etch", depth=2) == ("etched", 2)
    with pytest.raises(PlotError, match=r"'draw' has no option 'depth'.*'etch' has it: plot\('etch', depth=…\)"):
        pictured.plot(depth=2)
    with pytest.raises(PlotError, match=r"has no option 'wide'; its options are width\. Did you mean 'width'"):
        pictured.plot(wide=2)


# numpy


def test_numpy_takes_the_values() -> None:
    found = of_images()
    assert np.asarray(found) is not None and np.shares_memory(np.asarray(found), IMAGES)
    assert not np.shares_memory(np.array(found), IMAGES) and np.asarray(found, np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.array(found), IMAGES)
    np.testing.assert_array_equal(np.abs(found).sum(), IMAGES.sum())
    assert np.shares_memory(np.array(found, copy=False), IMAGES)
    with pytest.raises(ValueError, match="copy"):
        np.array(found, dtype=np.float32, copy=False)
    one = of_images(values={"x": IMAGES}, dims={"x": IMAGE_DIMS})
    np.testing.assert_array_equal(np.asarray(one), IMAGES)


def test_of_several_arrays_one_must_be_taken() -> None:
    with pytest.raises(
        ArgumentError, match=r"holds 2 arrays; .*: attribution\.values\[0\], attribution\.values\[1\]\."
    ):
        np.asarray(of_both())
    named = of_images(values={"x": IMAGES, "y": TABLE}, dims={"x": IMAGE_DIMS, "y": TABLE_DIMS})
    with pytest.raises(ArgumentError, match=r"attribution\.values\['x'\], attribution\.values\['y'\]"):
        np.asarray(named)


# xarray


def test_one_array_is_a_data_array_with_named_axes() -> None:
    array = of_images().to_xarray()
    assert isinstance(array, xarray.DataArray) and array.name == "saliency" and array.dims == IMAGE_DIMS
    np.testing.assert_array_equal(array.sel(sample=1).sum("channel"), IMAGES[1].sum(0))


def test_several_arrays_are_a_dataset_that_shares_the_samples() -> None:
    dataset = of_both().to_xarray()
    assert isinstance(dataset, xarray.Dataset) and list(dataset) == ["saliency_0", "saliency_1"]
    assert dataset["saliency_0"].dims == ("sample", "channel_0", "height_0", "width_0")
    assert dataset["saliency_1"].dims == ("sample", "feature_1")
    np.testing.assert_array_equal(dataset["saliency_0"], IMAGES)
    np.testing.assert_array_equal(dataset["saliency_1"], TABLE)
    assert dict(dataset.sizes) == {"sample": 2, "channel_0": 3, "height_0": 2, "width_0": 2, "feature_1": 4}


TOLD = {"kind": "attribution", "seed": 3, "versions": {"numpy": "2"}, "nan": np.nan, "shape": (1, 2)}


@pytest.mark.parametrize(
    ("target", "provenance", "indices", "classes"),
    [
        (3, {"target": (3,), "classes": ("cat",)}, [3, 3], ["cat", "cat"]),
        ("predicted", {"target": ((3,), (1,)), "classes": ("cat", "dog")}, [3, 1], ["cat", "dog"]),
        ([3, 1], {}, [3, 1], None),
        (np.array([3, 1]), {"target": ((3,), (1,))}, [3, 1], None),
        (["cat", "dog"], {}, ["cat", "dog"], None),
        (("logits", 3), {"target": ("logits", (3,))}, [3, 3], None),
        ("predicted", {"target": ("logits", ((3,), (1,)))}, [3, 1], None),
        ((0, 2), {"target": (0, 2)}, ["(0, 2)", "(0, 2)"], None),
        ([(0, 2), (1, 1)], {"target": ((0, 2), (1, 1))}, ["(0, 2)", "(1, 1)"], None),
        (len, {"target": "<built-in function len>"}, None, None),
        (len, {"target": ("logits", "<built-in function len>")}, None, None),
        (len, {}, None, None),
        ("cat", {}, ["cat", "cat"], None),
        (None, {"target": None}, None, None),
    ],
)
def test_each_sample_has_its_target(target: Any, provenance: Any, indices: Any, classes: Any) -> None:
    array = of_images(target=target, provenance=provenance).to_xarray()
    for name, expected in (("target", indices), ("class", classes)):
        found = array.coords[name].values.tolist() if name in array.coords else None
        assert found == expected
    assert array.coords["sample"].values.tolist() == [0, 1] and array.coords["channel"].values.tolist() == [0, 1, 2]


def test_attributes_are_texts_that_files_keep(tmp_path: Any) -> None:
    facts = {"target": [3, "cat"], "layer": ("a", "b"), "route": ("there",), "provenance": TOLD}
    names = (tuple("abcd"), tuple("efgh"))
    table = of_images(values=TABLE, dims=TABLE_DIMS, feature_names=names, **facts)
    dataset = of_both(feature_names=(None, tuple("abcd")), **facts).to_xarray()
    for made in (of_images(**facts).to_xarray(), table.to_xarray(), dataset):
        assert all(isinstance(value, str) for value in made.attrs.values())
        assert made.attrs["method"] == "saliency" and made.attrs["route"] == "there" and made.attrs["seed"] == "3"
        assert json.loads(made.attrs["provenance"])["nan"] == "nan"
        made.to_netcdf(tmp_path / "a.nc", engine="scipy")
        read = xarray.open_dataset if made is dataset else xarray.open_dataarray
        with read(tmp_path / "a.nc", engine="scipy") as kept:
            assert kept.attrs == made.attrs and set(kept.coords) == set(made.coords)
            xarray.testing.assert_equal(kept.load(), made)


def test_without_xarray_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install 'cfi-core\[xarray\]'"):
        of_images().to_xarray()


# in words


def test_it_says_what_it_is() -> None:
    assert repr(of_images()) == "<Attribution saliency by press, native, shape (2, 3, 2, 2)>"
    both = of_both(route=("paint2print", "print2press"))
    assert repr(both) == "<Attribution saliency by press, paint2print → print2press, shape (2, 3, 2, 2), (2, 4)>"
