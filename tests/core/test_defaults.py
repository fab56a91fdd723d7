"""The two sets of defaults of a method, and layers that a toolset chooses by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.registry import Registry
from cfi_core.specs import Defaults, Head, Kind, MethodSpec, Need
from cfi_core.testing import fake, use_plugins

NEEDS = frozenset({Need.FORWARD, Need.INPUT_GRADIENT})
SCALE = Defaults(raw={"scale": 1.0}, toolset={"scale": 3.0})


def run(request: MethodRequest) -> MethodResult:
    """The sum over channels at the layer that `press` chooses, stretched over the input, which is as large."""
    activation = request.model.layers(request.inputs[0])[request.init_args["takes"]]
    return MethodResult((activation.sum(axis=-1),), Axes(request.init_args["axes"]), layer=request.init_args["takes"])


class plugin:
    """Methods of `press` with defaults."""

    @staticmethod
    @hookimpl
    def cfi_methods() -> Iterator[MethodSpec]:
        """One with two sets, one that wraps it, and one that chooses its layer."""
        common: dict[str, Any] = {"toolset": "press", "needs": NEEDS, "optional": ("target",), "head": Head.LOGIT}
        of_fake = {**common, "kind": Kind.ATTRIBUTION, "implementation": "cfi_core.testing.fake:run"}
        yield MethodSpec(key="scaled", exec_args=("scale",), defaults=SCALE, **of_fake)
        yield MethodSpec(
            key="wrapping",
            init_args=("method",),
            exec_args=("scale", "method"),
            wraps="method",
            defaults=Defaults(raw={"method": "scaled"}, toolset={"method": "scaled", "scale": 5.0}),
            **of_fake,
        )
        yield MethodSpec(
            key="seeking",
            kind=Kind.LAYER,
            required=("inputs", "layer"),
            init_args=("takes", "axes"),
            implementation=f"{__name__}:run",
            defaults=Defaults(raw={"axes": Axes.LAYER_MAP}, toolset={"axes": Axes.INPUT_SIZED_MAP}),
            **common,
        )


@pytest.fixture(autouse=True)
def registry() -> Iterator[Registry]:
    with use_plugins(fake, plugin()) as current:
        yield current


def scale_of(model: Any, images: Any, key: str = "scaled", **arguments: Any) -> float:
    result = cfi.attribute(model, key, inputs=images, target=0, **arguments)
    assert result.provenance["defaults"] == arguments.get("defaults", "raw")
    return float(result.provenance["applied"]["scale"])


def test_a_set_is_chosen_and_explicit_arguments_win(painting, images):
    assert scale_of(painting, images) == 1.0
    assert scale_of(painting, images, defaults="toolset") == 3.0
    assert scale_of(painting, images, defaults="toolset", exec_args={"scale": 2.0}) == 2.0
    with pytest.raises(cfi.ArgumentError, match="neither 'raw' nor 'toolset'"):
        scale_of(painting, images, defaults="press")


def test_a_method_that_wraps_another_has_its_defaults_too(painting, images):
    assert scale_of(painting, images, "wrapping") == 1.0
    # A word of the call that is spelled like one of the constructor is another one.
    assert scale_of(painting, images, "wrapping", exec_args={"method": "steps"}) == 1.0
    assert scale_of(painting, images, "wrapping", defaults="toolset") == 5.0
    assert scale_of(painting, images, "wrapping", init_args={"method": "press_gradient"}, exec_args={"scale": 2}) == 2


def test_users_of_the_toolset_get_the_output_explained(images):
    model = fake.Painting(np.eye(4, 3), np.ones((4, 4)), softmax=True)
    heads = {which: cfi.plan(model, "scaled", inputs=images, target=0, defaults=which) for which in ("raw", "toolset")}
    assert heads["raw"].head is Head.LOGIT and heads["toolset"].head is Head.OUTPUT
    assert "defaults  raw: scale=1.0" in str(heads["raw"])
    wish = cfi.plan(model, "scaled", inputs=images, target=0, defaults="toolset", head="logit")
    assert wish.head is Head.LOGIT
    nothing = cfi.plan(model, "press_gradient", inputs=images, target=0)
    assert "those of the toolset's signature" in str(nothing)


def test_nobody_can_change_the_sets():
    raw = {"scale": 1.0}
    defaults = Defaults(raw=raw)
    raw["scale"] = 2.0
    assert defaults.raw == {"scale": 1.0} and defaults.toolset == {}
    with pytest.raises(TypeError):
        defaults.raw["scale"] = 3.0  # type: ignore[index]


@pytest.mark.parametrize("defaults", ["raw", "toolset"])
def test_a_layer_that_the_toolset_chose_is_labelled_with_the_users_name(painting, images, defaults):
    arguments: dict[str, Any] = {"inputs": images, "layer": "relu", "target": 0, "defaults": defaults}
    result = cfi.attribute(painting, "seeking", init_args={"takes": "mix"}, **arguments)
    assert result.layer == "mix" and result.dims == ("sample", "height", "width")
    np.testing.assert_allclose(result.values, painting.layers(images)["mix"].sum(axis=1))
    native = fake.Print(painting.mix, painting.head)
    arguments["inputs"] = np.moveaxis(images, 1, -1)
    assert cfi.attribute(native, "seeking", init_args={"takes": "mix"}, **arguments).layer == "mix"
