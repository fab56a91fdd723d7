"""Target functions beside a conversion: run in the framework that they were written for, in the user's axes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.arrays import ArrayAdapter
from cfi_core.contract import Axes, BridgeRequest, Converted, MethodRequest, MethodResult
from cfi_core.errors import TranslationError
from cfi_core.framework import flatten, map_structure
from cfi_core.hookspec import hookimpl
from cfi_core.specs import ANY, FrameworkSpec, Kind, MethodSpec, Need, ToolsetSpec, TranslatorSpec
from cfi_core.testing import use_plugins

HERE = "planted_for_functions"
FORWARD = frozenset({Need.FORWARD})
A = np.array([2.0, -1.0, 0.5])  # of the channels
X = np.random.default_rng(0).normal(size=(2, 3, 2, 4))


def function(x: np.ndarray) -> dict[str, np.ndarray]:
    """Linear, so that the effect of each feature is its weight times its value."""
    return {"grid": np.einsum("c,nchw->nhw", A, x), "total": x.sum((1, 2, 3))}


def at(h: int, w: int) -> np.ndarray:
    """Weights of one place of the grid."""
    weights = np.zeros((1, 3, 2, 4))
    weights[0, :, h, w] = A
    return weights


# a framework with tensors of its own


class Sheet:
    """A tensor that is no array."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype


class SheetAdapter(ArrayAdapter):
    name = "sheets"

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, Sheet)

    def to_numpy(self, tensor: Sheet) -> np.ndarray:
        return tensor.array

    def tensor(self, value: Any, model: Any) -> Sheet:
        return Sheet(np.array(value.array if isinstance(value, Sheet) else value))

    def permute(self, tensor: Sheet, axes: Any) -> Sheet:
        return Sheet(tensor.array.transpose(axes))

    def outputs(self, model: Any, inputs: Any) -> Any:
        return map_structure(lambda sheet: sheet.array, model(*inputs))

    def load(self, model: Any) -> Any:
        return model


def unfold(model: Any, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Channels last; grids are turned."""

    def unfolded(x: Sheet) -> Any:
        given = flatten(model(x.array.transpose(0, 3, 1, 2)))
        leaves = [Sheet(leaf.transpose(0, 2, 1) if leaf.ndim == 3 else leaf) for leaf in given]
        return tuple(leaves) if len(leaves) > 1 else leaves[0]

    axes = tuple((0, 2, 1) if leaf.ndim == 3 else None for leaf in flatten(model(X)))
    return Converted(unfolded, ((0, 2, 3, 1),), axes)


class Crossing:
    """What the bridge does with the inputs that it gets."""

    fails: ClassVar[bool] = False
    built: ClassVar[list[BridgeRequest]] = []


def cross(request: BridgeRequest) -> Converted:
    """Takes what has three axes with the last two exchanged."""
    if Crossing.fails:
        raise TranslationError("there is no ford.")
    Crossing.built.append(request)
    ranks = [len(one.shape) for one in request.inputs]

    def crossed(*sheets: Sheet) -> Any:
        arrays = [one.array.transpose(0, 2, 1) if len(one.shape) == 3 else one.array for one in sheets]
        tensors = [request.adapter.tensor(one, request.model) for one in arrays]
        return map_structure(Sheet, request.adapter.outputs(request.model, tensors))

    return Converted(crossed, tuple((0, 2, 1) if rank == 3 else None for rank in ranks))


def ablate(request: MethodRequest) -> MethodResult:
    """What the target loses where one feature is set to zero."""
    (x,), target = request.inputs, request.target
    assert target is not None

    def score(array: np.ndarray) -> np.ndarray:
        outputs = request.model(Sheet(array))
        chosen = outputs if target.output is None else outputs[target.output]
        if target.function is not None:
            return target.function(chosen).array
        if target.index is None:
            return chosen.array
        return np.array([chosen.array[(n, *index)] for n, index in enumerate(target.indices(len(array)))])

    result = np.zeros(x.shape)
    for place in np.ndindex(x.shape[1:]):
        changed = x.array.copy()
        changed[(slice(None), *place)] = 0
        result[(slice(None), *place)] = score(x.array) - score(changed)
    return MethodResult((result,), Axes.INPUT)


@hookimpl
def cfi_frameworks() -> list[FrameworkSpec]:
    tensors = ((HERE, "Sheet"),)
    return [
        FrameworkSpec(
            name="sheets", model_types=(), tensor_types=tensors, adapter=f"{HERE}:SheetAdapter", module="numpy"
        )
    ]


@hookimpl
def cfi_toolsets() -> list[ToolsetSpec]:
    return [ToolsetSpec(name="folder", framework="sheets")]


@hookimpl
def cfi_methods() -> list[MethodSpec]:
    return [
        MethodSpec(
            key="ablate",
            toolset="folder",
            kind=Kind.ATTRIBUTION,
            needs=FORWARD,
            implementation=f"{HERE}:ablate",
            optional=("target",),
        )
    ]


def translator(name: str, source: str, **more: Any) -> TranslatorSpec:
    return TranslatorSpec(
        name=name, source=source, target="sheets", preserves=FORWARD, cost=1, implementation=f"{HERE}:{name}", **more
    )


class Conversion:
    @staticmethod
    @hookimpl
    def cfi_translators() -> list[TranslatorSpec]:
        return [translator("unfold", "numpy")]


class Bridge:
    @staticmethod
    @hookimpl
    def cfi_translators() -> list[TranslatorSpec]:
        return [translator("cross", ANY, kind="bridge")]


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    here = ModuleType(HERE)
    names = (Sheet, SheetAdapter, unfold, cross, ablate, cfi_frameworks, cfi_toolsets, cfi_methods)
    vars(here).update({one.__name__: one for one in names})
    monkeypatch.setitem(sys.modules, HERE, here)
    Crossing.built.clear()
    cfi.forget_translations()
    with use_plugins(here, Conversion()):
        yield here


@pytest.fixture
def bridge(module: ModuleType) -> Iterator[None]:
    with use_plugins(module, Conversion(), Bridge()):
        yield


def explain(target: Any, model: Any = function, translator: str = "unfold") -> cfi.Attribution:
    found = cfi.attribute(model, "ablate", inputs=X, target=target, translator=translator)
    assert isinstance(found, cfi.Attribution)
    return found


# beside a conversion


def test_an_index_needs_no_bridge():
    found = explain(("grid", 1, 3))
    assert found.route == ("unfold",)
    np.testing.assert_allclose(found.values, at(1, 3) * X, atol=1e-12)


def test_a_function_of_all_outputs_gets_arrays_in_the_users_axes_and_structure(bridge):
    seen = []

    def score(outputs: dict[str, np.ndarray]) -> np.ndarray:
        seen.append({name: (type(output), output.shape[1:]) for name, output in outputs.items()})
        return outputs["grid"][:, 1, 3] + 2 * outputs["total"]

    found = explain(score)
    assert found.route == ("unfold",)
    np.testing.assert_allclose(found.values, (at(1, 3) + 2) * X, atol=1e-12)
    assert all(one == {"grid": (np.ndarray, (2, 4)), "total": (np.ndarray, ())} for one in seen)
    assert [len(one.inputs) for one in Crossing.built] == [2]  # one example for each output


def test_a_function_of_one_output_gets_that_one(bridge):
    found = explain(("grid", lambda grid: grid[:, 0, 2] ** 2))
    loss = function(X)["grid"][:, 0, 2][:, None, None, None]
    weight = at(0, 2) * X  # (s)² - (s - w)² = w (2 s - w)
    np.testing.assert_allclose(found.values, weight * (2 * loss - weight), atol=1e-12)


def test_without_a_bridge_it_is_refused():
    with pytest.raises(cfi.TargetError, match=r"takes numpy tensors, and the method runs in sheets.* cfi-bridge"):
        explain(lambda outputs: outputs["total"])


def test_a_bridge_that_fails_on_it_is_told(bridge, monkeypatch):
    monkeypatch.setattr(Crossing, "fails", True)
    with pytest.raises(cfi.TargetError, match=r"cannot be run beside the converted model \(.*no ford"):
        explain(lambda outputs: outputs["total"])


# over a bridge it is part of the model


def test_over_a_bridge_the_model_ends_in_the_function(bridge):
    found = explain(lambda outputs: outputs["grid"][:, 1, 3] + 2 * outputs["total"], translator="bridge")
    assert found.route == ("cross",)
    np.testing.assert_allclose(found.values, (at(1, 3) + 2) * X, atol=1e-12)
    assert "your function of" in found.provenance["explained"]


def test_over_a_bridge_a_function_of_one_output_does_too(bridge):
    found = explain(("grid", lambda grid: grid[:, 0, 2]), translator="bridge")
    np.testing.assert_allclose(found.values, at(0, 2) * X, atol=1e-12)


# outputs that no conversion has


def with_numbers(x: np.ndarray) -> dict[str, Any]:
    return {**function(x), "ids": np.arange(len(x)) + 7}


def test_a_conversion_keeps_those_outputs_that_are_scores(bridge):
    seen = []

    def score(outputs: dict[str, Any]) -> np.ndarray:
        seen.append(outputs["ids"] is None)
        return outputs["grid"][:, 0, 1]

    found = explain(score, with_numbers)
    np.testing.assert_allclose(found.values, at(0, 1) * X, atol=1e-12)
    assert seen[-1]  # the converted model has no whole numbers


def detect(x: np.ndarray) -> list[dict[str, np.ndarray]]:
    boxes = np.array([[1.0, 1, 5, 5]])
    return [{"boxes": boxes, "scores": one.sum()[None], "labels": np.array([1])} for one in x]


def test_outputs_of_which_none_can_be_converted_are_refused(bridge):
    def score(outputs: list[dict[str, np.ndarray]]) -> np.ndarray:
        return np.array([one["scores"].sum() for one in outputs])

    with pytest.raises(cfi.TargetError, match="takes outputs that cannot be converted"):
        explain(score, detect)
    found = explain(score, detect, translator="bridge")
    np.testing.assert_allclose(found.values, X, atol=1e-12)
