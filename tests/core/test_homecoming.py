"""What becomes of a result: in the user's axes and of the user's layers, or refused; and drawn, if asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.contract import Axes, Converted, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.registry import Registry
from cfi_core.specs import Kind, MethodSpec, Need, PlotterSpec, Role, ToolsetSpec, TranslatorSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting, Print

HERE = "planted_for_homecoming"  # pytest's importlib mode may not have put this module where it can be imported from


class Sideways(Print):
    """A print of images that lie on their side: width before height."""


def to_sideways(model: Painting, inputs: tuple[np.ndarray, ...]) -> Converted:
    return Converted(Sideways(model.mix, model.head), ((0, 3, 2, 1),), (None,))


class Plugin:
    """A toolset whose one method is planted by the test, a plotter, and a translator that turns images."""

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="stamps", framework="print")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        return [
            MethodSpec(
                key="stamp",
                toolset="stamps",
                kind=Kind.LAYER,
                needs=frozenset({Need.LAYER}),
                implementation=f"{HERE}:stamp",
                optional=("layer", "target"),
                exec_args=("score",),
                roles={"score": Role.OWN_TARGET},
            )
        ]

    @staticmethod
    @hookimpl
    def cfi_plotters() -> list[PlotterSpec]:
        return [PlotterSpec(name="brush", implementation=f"{HERE}:draw", accepts=("sample",))]

    @staticmethod
    @hookimpl
    def cfi_translators() -> list[TranslatorSpec]:
        return [
            TranslatorSpec(
                name="sideways",
                source="paint",
                target="print",
                preserves=frozenset(Need),
                cost=9,
                implementation=f"{HERE}:to_sideways",
            )
        ]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that the plugin names its functions in."""
    module: Any = ModuleType(HERE)
    module.to_sideways = to_sideways
    module.stamp = lambda request: MethodResult((request.inputs[0] + 1.0,), Axes.INPUT)
    module.draw = lambda attribution: f"a picture of {attribution.values.shape}"
    monkeypatch.setitem(sys.modules, HERE, module)
    return module


@pytest.fixture(autouse=True)
def registry(here: Any) -> Iterator[Registry]:
    cfi.forget_translations()
    with use_plugins(fake, Plugin()) as current:
        yield current


def explain(model: Any, images: np.ndarray, **arguments: Any) -> cfi.Attribution:
    found = cfi.attribute(model, "stamp", inputs=images, **arguments)
    assert isinstance(found, cfi.Attribution)
    return found


# of the user's model


def test_a_layer_that_the_toolset_chose_itself_is_named_as_the_users(here, painting, images):
    def stamp(request: MethodRequest) -> MethodResult:
        return MethodResult((request.model.layers(request.inputs[0])["relu"],), Axes.LAYER, layer="relu")

    here.stamp = stamp
    translated = explain(painting, images, target=0)
    assert translated.layer == "relu" and translated.dims == ("sample", "channel", "height", "width")
    np.testing.assert_allclose(translated.values, painting.layers(images)["relu"])
    native = explain(Print(painting.mix, painting.head), images.transpose(0, 2, 3, 1), target=0)
    assert native.layer == "relu" and native.route == ()
    np.testing.assert_allclose(native.values.transpose(0, 3, 1, 2), translated.values)


def test_a_layer_that_is_none_of_the_users_is_refused(here, painting, images):
    here.stamp = lambda request: MethodResult((np.ones((2, 4)),), Axes.LAYER, layer="extra")
    with pytest.raises(cfi.MethodError, match="took layer 'extra' of the translated model, which corresponds to none"):
        explain(painting, images, target=0)


def test_a_map_whose_spatial_axes_are_in_another_order_is_refused(here, painting, images):
    here.stamp = lambda request: MethodResult((request.inputs[0].sum(3),), Axes.INPUT_MAP)
    upright = explain(painting, images, target=0, translator="paint2print")
    np.testing.assert_allclose(upright.values, images.sum(1))
    assert upright.dims == ("sample", "height", "width")
    with pytest.raises(cfi.MethodError, match=r"spatial axes of its input in another order \(\(0, 3, 2, 1\)\)"):
        explain(painting, images, target=0, translator="sideways")
    here.stamp = lambda request: MethodResult((request.inputs[0] * 2,), Axes.INPUT)
    np.testing.assert_allclose(explain(painting, images, target=0, translator="sideways").values, images * 2)


@pytest.mark.parametrize("translator", ["paint2print", "sideways"])
def test_steps_come_home_in_the_users_axes(here, painting, images, translator):
    def stamp(request: MethodRequest) -> MethodResult:
        image = request.inputs[0]
        return MethodResult((image * 3,), Axes.INPUT, steps={0: (image,), 7: (image * 2,)})

    here.stamp = stamp
    extras = explain(painting, images, target=0, translator=translator).extras
    np.testing.assert_allclose(extras["steps"], [images, images * 2])
    assert list(extras["step_numbers"]) == [0, 7]
    here.stamp = lambda request: MethodResult((request.inputs[0],), Axes.INPUT, steps={4: (request.inputs[0][:1],)})
    with pytest.raises(cfi.CFIError, match="step 4 with other shapes than those of the values"):
        explain(painting, images, target=0)


def test_a_score_of_the_toolsets_own_is_told_as_the_target(here, painting, images):
    def score(output: np.ndarray) -> np.ndarray:
        return output[:, 0]

    assert explain(painting, images, exec_args={"score": score}).target is score
    assert explain(painting, images, target=[3, 1]).target == [3, 1]


def test_values_that_explain_nothing_are_refused_or_told(here, painting, images):
    here.stamp = lambda request: MethodResult((request.inputs[0] * np.nan,), Axes.INPUT)
    with pytest.raises(cfi.MethodError, match="stamp of stamps gave NaN or infinite values"):
        explain(painting, images, target=0)
    here.stamp = lambda request: MethodResult((request.inputs[0] * 0,), Axes.INPUT)
    with pytest.warns(cfi.ModelWarning, match="stamp of stamps is zero everywhere"):
        assert not explain(painting, images, target=0).values.any()


# drawn


def test_a_picture_is_among_the_extras_if_it_was_asked_for(painting, images):
    assert "figure" not in explain(painting, images, target=0).extras
    drawn = explain(painting, images, target=0, plot=True)
    assert drawn.extras["figure"] == "a picture of (2, 3, 5, 7)"


def test_a_path_is_written_to(painting, images, tmp_path):
    written = explain(painting, images, target=0, plot=str(tmp_path / "a.npz"))
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["values"], written.values)
    assert "figure" not in written.extras
    with pytest.raises(cfi.PlotError, match=r"There is no folder .* to write 'a.npz' into"):
        explain(painting, images, target=0, plot=tmp_path / "absent" / "a.npz")
    with pytest.raises(cfi.PlotError, match=r"No writer serves '\.gif'"):
        explain(painting, images, target=0, plot=tmp_path / "a.gif")


def test_a_plotter_that_fails_costs_no_result(here, painting, images):
    def draw(attribution: cfi.Attribution) -> None:
        raise RuntimeError("no canvas")

    here.draw = draw
    with pytest.warns(cfi.PluginWarning, match=r"could not be drawn \(RuntimeError: no canvas\)"):
        found = explain(painting, images, target=0, plot=True)
    np.testing.assert_allclose(found.values, images + 1)
    assert "figure" not in found.extras


def test_a_disk_that_cannot_be_written_to_costs_no_result(here, painting, images, tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.warns(cfi.PluginWarning, match="could not be drawn"):
        found = explain(painting, images, target=0, plot=tmp_path / "a.npz")
    np.testing.assert_allclose(found.values, images + 1)


def test_without_a_plotter_the_result_comes_with_the_line_that_installs_one(painting, images):
    with use_plugins(fake), pytest.warns(cfi.PluginWarning, match="pip install cfi-matplotlib"):
        found = cfi.attribute(painting, "press_gradient", inputs=images, target=0, plot=True)
    assert found.values.any()
