"""What a method is asked, when the model that runs has other axes than the user's: every argument arrives turned.

`turn` translates a function of two inputs and two outputs into a model with the channels of its first input last and
the axes of its first output swapped. `ablate` explains such models: it sets one feature after the other to a
baseline.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.arrays import ArrayAdapter, ArrayModel
from cfi_core.carrying import carry_index
from cfi_core.contract import Axes, Converted, MethodRequest, MethodResult, Target
from cfi_core.framework import Layout, flatten
from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, Head, Kind, MethodSpec, Need, Role, ToolsetSpec, TranslatorSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import NetworkAdapter, Painting, Print

HERE = "planted_for_carrying"  # pytest's importlib mode may not have put this module where it can be imported from
FORWARD = frozenset({Need.FORWARD})

A = np.array([2.0, -1.0, 0.5])  # of the channels
B = np.arange(1.0, 9.0).reshape(2, 4)  # of the places
X = np.random.default_rng(0).normal(size=(2, 3, 2, 4))
Z = np.random.default_rng(1).normal(size=(2, 5))


def function(x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
    """Linear, so that the effect of each feature is its weight times its distance from the baseline."""
    return {"grid": np.einsum("c,nchw->nhw", A, x) + z.sum(1)[:, None, None] * B, "total": x.sum((1, 2, 3)) - z[:, 0]}


def by_hand(
    weights_x: np.ndarray, weights_z: np.ndarray, x0: Any = 0.0, z0: Any = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    return weights_x * (X - x0), weights_z * (Z - z0)


def at(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of one place of the grid."""
    weights = np.zeros((1, 3, 2, 4))
    weights[0, :, h, w] = A
    return weights, np.full((1, 5), B[h, w])


# the framework, its translator and its toolset


class Sheet:
    """A tensor of another framework."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


class SheetAdapter(ArrayAdapter):
    name = "sheets"

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, Sheet)

    def to_numpy(self, tensor: Sheet) -> np.ndarray:
        return tensor.array


class TurnedAdapter(ArrayAdapter):
    name = "turned"

    def channel_axis(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        return len(shape) - 1 if len(shape) > 2 else None

    def with_real_inputs(self, model: Any, layers: Sequence[str]) -> Any:
        return ArrayModel(lambda *inputs: model(*(array.astype(int) for array in inputs)))


def turn(model: ArrayModel, inputs: tuple[np.ndarray, ...]) -> Converted:
    """With the two outputs, or that one in which the model was made to end; grids are turned."""

    def turned(x: np.ndarray, z: np.ndarray) -> Any:
        leaves = [leaf.transpose(0, 2, 1) if leaf.ndim == 3 else leaf for leaf in outputs(x, z)]
        return tuple(leaves) if len(leaves) > 1 else leaves[0]

    def outputs(x: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
        return flatten(model(x.transpose(0, 3, 1, 2), z))

    given = outputs(inputs[0].transpose(0, 2, 3, 1), inputs[1])
    axes = tuple((0, 2, 1) if leaf.ndim == 3 else None for leaf in given)
    return Converted(ArrayModel(turned), ((0, 2, 3, 1), None), axes)


ASKED: list[MethodRequest] = []


def explained(request: MethodRequest, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """One value for each sample."""
    outputs, target = request.model(*inputs), request.target
    scores = request.exec_args.get("score")
    if scores is not None:
        scores = scores if isinstance(scores, list | tuple) else [scores]
        given = outputs if isinstance(outputs, tuple) else (outputs,)
        return np.sum([score(output) for score, output in zip(scores, given, strict=False)], axis=0)
    assert target is not None
    chosen = outputs if target.output is None else outputs[target.output]
    if target.function is not None:
        return np.asarray(target.function(chosen))
    if target.index is None:
        return np.asarray(chosen)
    return np.array([chosen[(n, *index)] for n, index in enumerate(target.indices(len(inputs[0])))])


def ablate(request: MethodRequest) -> MethodResult:
    """How much the target falls when features become what they are in the baseline, those of one mask together."""
    ASKED.append(request)
    before = explained(request, request.inputs)
    masks = request.exec_args.get("mask") or (None,) * len(request.inputs)
    values = []
    for i, (array, baseline) in enumerate(zip(request.inputs, request.baselines or (0,) * 9, strict=False)):
        result = np.zeros_like(array)
        mask = np.arange(array[0].size).reshape(1, *array.shape[1:]) if masks[i] is None else masks[i]
        for feature in np.unique(mask):
            chosen = np.broadcast_to(mask == feature, array.shape)
            changed = [np.where(chosen, baseline, one) if j == i else one for j, one in enumerate(request.inputs)]
            fall = before - explained(request, changed)
            result += chosen * fall.reshape(-1, *[1] * (array.ndim - 1))
        values.append(result)
    return MethodResult(tuple(values), Axes.INPUT)


def probe(request: MethodRequest) -> MethodResult:
    """The activation of a layer of a print, times a mask; and what a function of the unit gives."""
    ASKED.append(request)
    activation = request.model.layers(request.inputs[0])[request.layer[0]]
    mask = request.exec_args.get("mask", 1.0)
    mask = mask[0] if isinstance(mask, tuple) else mask
    extras = {"unit": request.neuron(activation)} if callable(request.neuron) else {}
    return MethodResult((activation * mask,), Axes.LAYER, extras)


def without_relu(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in values.items() if name != "relu"}


class Terse(Print):
    """A print that shows no relu."""

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return without_relu(super().layers(images))

    def gradients(self, images: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        return without_relu(Print(self.mix, self.head).gradients(images, cotangent))


class Opaque(Painting):
    """A painting whose relu cannot be read."""

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return without_relu(super().layers(images))

    def gradients(self, images: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        return without_relu(Painting(self.mix, self.head).gradients(images, cotangent))


def to_terse(model: Painting, inputs: tuple[np.ndarray, ...]) -> Converted:
    return Converted(Terse(model.mix, model.head), ((0, 2, 3, 1),), (None,))


class Plugin:
    @staticmethod
    @hookimpl
    def cfi_frameworks() -> list[FrameworkSpec]:
        def framework(name: str, adapter: str, tensors: tuple[tuple[str, str], ...] = ()) -> FrameworkSpec:
            return FrameworkSpec(
                name=name, model_types=(), tensor_types=tensors, adapter=f"{HERE}:{adapter}", module="numpy"
            )

        return [framework("turned", "TurnedAdapter"), framework("sheets", "SheetAdapter", ((HERE, "Sheet"),))]

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="plane", framework="turned"), ToolsetSpec(name="probes", framework="print")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        own = ("score", "mask", "window", "other")
        roles = {"score": Role.OWN_TARGET, "mask": Role.LIKE_INPUTS, "window": Role.WINDOW}
        return [
            MethodSpec(
                key="ablate",
                toolset="plane",
                kind=Kind.ATTRIBUTION,
                needs=FORWARD,
                implementation=f"{HERE}:ablate",
                optional=("target", "baselines"),
                exec_args=own,
                roles=roles,
            ),
            MethodSpec(
                key="probe",
                toolset="probes",
                kind=Kind.LAYER,
                needs=frozenset({Need.LAYER}),
                implementation=f"{HERE}:probe",
                required=("inputs", "layer"),
                optional=("neuron",),
                exec_args=("mask", "others"),
                roles={"mask": Role.LIKE_LAYER},
            ),
            MethodSpec(
                key="probe_map",
                toolset="probes",
                kind=Kind.LAYER,
                needs=frozenset({Need.LAYER}),
                implementation=f"{HERE}:probe",
                required=("inputs", "layer"),
                exec_args=("beside",),
                roles={"beside": Role.OTHER_LAYER},
                maps_layer=True,
            ),
            MethodSpec(
                key="ablate_reals",
                toolset="plane",
                kind=Kind.ATTRIBUTION,
                needs=FORWARD,
                implementation=f"{HERE}:ablate",
                optional=("target",),
                takes_integers=False,
            ),
            MethodSpec(
                key="ablate_logits",
                toolset="plane",
                kind=Kind.ATTRIBUTION,
                needs=FORWARD,
                implementation=f"{HERE}:ablate",
                optional=("target",),
                head=Head.LOGIT,
            ),
        ]

    @staticmethod
    @hookimpl
    def cfi_translators() -> list[TranslatorSpec]:
        terse = TranslatorSpec(
            name="terse",
            source="paint",
            target="print",
            preserves=frozenset(Need),
            cost=9,
            implementation=f"{HERE}:to_terse",
        )
        turned = TranslatorSpec(
            name="turn", source="numpy", target="turned", preserves=FORWARD, cost=1, implementation=f"{HERE}:turn"
        )
        return [turned, terse]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    here = ModuleType(HERE)
    vars(here).update(
        TurnedAdapter=TurnedAdapter,
        SheetAdapter=SheetAdapter,
        Sheet=Sheet,
        turn=turn,
        to_terse=to_terse,
        ablate=ablate,
        probe=probe,
    )
    monkeypatch.setitem(sys.modules, HERE, here)
    ASKED.clear()
    cfi.forget_translations()
    with use_plugins(fake, Plugin()) as current:
        yield current


def explain(model: Any = function, inputs: Any = (X, Z), **arguments: Any) -> cfi.Attribution:
    found = cfi.attribute(model, "ablate", inputs=inputs, **arguments)
    assert isinstance(found, cfi.Attribution) and found.route == ("turn",)
    return found


def assert_values(found: cfi.Attribution, expected: Sequence[np.ndarray]) -> None:
    assert found.dims == (("sample", "channel", "height", "width"), ("sample", "feature")) or len(found.values) == 2
    for value, one in zip(found.values, expected, strict=True):
        np.testing.assert_allclose(value, one, atol=1e-9)


# inputs and baselines


def test_several_inputs_come_home_each_in_its_own_axes():
    found = explain(target=("grid", 1, 3))
    assert_values(found, by_hand(*at(1, 3)))
    assert found.certificate.faithful and "input gradients not compared" in str(found.certificate)
    assert [array.shape for array in ASKED[0].inputs] == [(2, 2, 4, 3), (2, 5)]
    np.testing.assert_array_equal(ASKED[0].inputs[0], X.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found.inputs[0], X)


def test_a_number_is_the_baseline_of_every_input():
    assert_values(explain(target=("grid", 1, 3), baselines=0.5), by_hand(*at(1, 3), 0.5, 0.5))
    assert ASKED[0].baselines == (0.5, 0.5)


def test_baselines_turn_with_their_inputs():
    x0, z0 = np.arange(24.0).reshape(1, 3, 2, 4), np.arange(5.0)[None]
    assert_values(explain(target=("grid", 1, 3), baselines=(x0, z0)), by_hand(*at(1, 3), x0, z0))
    assert_values(explain(target=("grid", 1, 3), baselines=(Sheet(x0), 1.5)), by_hand(*at(1, 3), x0, 1.5))
    assert ASKED[1].baselines[1] == 1.5
    with pytest.raises(cfi.InputError, match=r"baselines has shape \(1, 2, 4, 3\), which does not fit"):
        explain(target=("grid", 1, 3), baselines=(x0.transpose(0, 2, 3, 1), z0))


# targets


def test_a_target_per_sample_is_turned_with_the_output():
    found = explain(target=("grid", [(0, 3), (1, 2)]))
    expected = [by_hand(*at(*place)) for place in ((0, 3), (1, 2))]
    assert_values(found, [np.stack([one[i][n] for n, one in enumerate(expected)]) for i in range(2)])
    assert ASKED[0].target == Target(index=((3, 0), (2, 1)))  # the model ends in the grid


def test_an_output_of_one_value_per_sample():
    weights_z = np.zeros((1, 5))
    weights_z[0, 0] = -1
    assert_values(explain(target=("total",)), by_hand(np.ones((1, 3, 2, 4)), weights_z))
    assert ASKED[0].target == Target()  # the model ends in the total


def test_a_function_of_all_outputs_sees_them_as_the_model_gives_them():
    seen = []

    def score(outputs: dict[str, np.ndarray]) -> np.ndarray:
        seen.append({name: output.shape for name, output in outputs.items()})
        return outputs["grid"][:, 1, 3] + 2 * outputs["total"]

    found = explain(target=score)
    weights_x, weights_z = at(1, 3)
    assert_values(found, by_hand(weights_x + 2, weights_z - 2 * np.eye(5)[:1]))
    assert seen[0] == {"grid": (2, 2, 4), "total": (2,)}


def test_a_function_of_one_output_sees_it_in_the_users_axes():
    assert_values(explain(target=("grid", lambda grid: grid[:, 0, 2])), by_hand(*at(0, 2)))


def test_a_score_in_the_toolsets_words_sees_the_users_axes():
    assert_values(explain(exec_args={"score": lambda grid: grid[:, 0, 2]}), by_hand(*at(0, 2)))
    both = [lambda grid: grid[:, 0, 2], lambda total: 0 * total]
    assert_values(explain(exec_args={"score": both}), by_hand(*at(0, 2)))


def test_a_score_in_the_toolsets_words_is_of_those_outputs_that_are_scores():
    both = [lambda grid: grid[:, 0, 2], lambda total: 2 * total]
    beside = explain(lambda x, z: {**function(x, z), "ids": np.arange(7)}, exec_args={"score": both})
    assert_values(beside, by_hand(at(0, 2)[0] + 2, at(0, 2)[1] - 2 * np.eye(5)[:1]))
    logits = explain(
        lambda x, z: {"hidden": z, "logits": function(x, z)["grid"]}, exec_args={"score": lambda one: one[:, 0, 2]}
    )
    assert_values(logits, by_hand(*at(0, 2)))


def test_a_score_object_of_the_toolsets_is_passed_on_as_it_is():
    class Score:
        def __call__(self, grid: np.ndarray) -> np.ndarray:
            return grid[:, 2, 0]  # as the model that runs gives it

    score = Score()
    assert_values(explain(exec_args={"score": score}), by_hand(*at(0, 2)))
    assert ASKED[0].exec_args["score"] is score


# the toolset's own arguments


def test_masks_turn_with_their_inputs():
    mask = np.zeros((1, 3, 2, 4), int)
    mask[0, :, 1] = 1  # the rows
    found = explain(target=("grid", 1, 3), exec_args={"mask": (mask, None)})
    each_x, each_z = by_hand(*at(1, 3))
    rows = np.broadcast_to(each_x.sum((1, 3), keepdims=True), X.shape)
    assert_values(found, (rows * (mask == 1), each_z))
    with pytest.raises(cfi.InputError, match="mask has 1 parts for 2 inputs"):
        explain(target=("grid", 1, 3), exec_args={"mask": mask})


def test_masks_may_lack_axes_in_front():
    """As where arrays are broadcast, in the user's axes, whatever they are where the method runs."""
    rows = np.array([[0], [1]]) * np.ones((1, 4), int)
    lacking = explain(target=("grid", 1, 3), exec_args={"mask": (rows, None)})
    full = explain(target=("grid", 1, 3), exec_args={"mask": (np.broadcast_to(rows, (1, 3, 2, 4)), None)})
    assert_values(lacking, full.values)
    with pytest.raises(cfi.InputError, match=r"mask has shape \(1, 1, 4, 2\), which does not fit inputs"):
        explain(target=("grid", 1, 3), exec_args={"mask": (rows.T, None)})


def test_a_window_has_its_axes_in_the_order_of_the_model_that_runs():
    explain(target=("grid", 1, 3), exec_args={"window": ((3, 1, 2), (4,))})
    explain(target=("grid", 1, 3), exec_args={"window": (3, 1, 2)})
    explain(target=("grid", 1, 3))
    assert [asked.exec_args.get("window") for asked in ASKED] == [((1, 2, 3), (4,)), (1, 2, 3), None]


def test_other_arguments_are_carried_by_their_value():
    place, text = object(), {"note": "as it is"}
    explain(target=("total",), exec_args={"other": [Sheet(Z), {"deep": (Sheet(X), 3)}, place, text, np.tanh]})
    (sheet, deep, *rest) = ASKED[0].exec_args["other"]
    np.testing.assert_array_equal(sheet, Z)
    np.testing.assert_array_equal(deep["deep"][0], X)
    assert deep["deep"][1] == 3 and rest == [place, text, np.tanh]


# layers and their units


class Step(str):
    """A layer as an object, which can be called as layers can."""

    def __call__(self) -> None: ...


def read(model: Painting, images: np.ndarray, **arguments: Any) -> cfi.Attribution:
    found = cfi.attribute(model, "probe", inputs=images, **arguments)
    assert isinstance(found, cfi.Attribution)
    return found


def test_a_mask_of_a_layer_turns_with_it(painting, images):
    mask = np.arange(4.0 * 5 * 7).reshape(1, 4, 5, 7)
    relu = painting.layers(images)["relu"]
    np.testing.assert_allclose(read(painting, images, layer="relu", exec_args={"mask": mask}).values, relu * mask)
    one_each = read(painting, images, layer="relu", exec_args={"mask": (mask,)})
    np.testing.assert_allclose(one_each.values, relu * mask)
    np.testing.assert_allclose(read(painting, images, layer="relu", exec_args={"mask": 3}).values, relu * 3)
    with pytest.raises(cfi.ArgumentError, match="An array for layer 'relu' needs 4 axes, as its output has"):
        read(painting, images, layer="relu", exec_args={"mask": mask[0]})


def test_a_function_of_a_unit_sees_the_users_axes(painting, images):
    found = read(painting, images, layer="mix", neuron=lambda activation: activation[:, 2, 4, 6])
    np.testing.assert_allclose(found.extras["unit"], painting.layers(images)["mix"][:, 2, 4, 6])


def test_a_layer_among_the_toolsets_own_arguments_becomes_the_one_of_the_model_that_runs(painting, images):
    read(painting, images, layer="mix", exec_args={"others": {"first": [Step("relu"), "relu"], "rest": (len,)}})
    others = ASKED[0].exec_args["others"]
    assert others == {"first": ["relu", "relu"], "rest": (len,)} and type(others["first"][0]) is str


def test_a_layer_that_the_translated_model_lacks_is_refused_with_those_it_has(painting, images):
    with pytest.raises(cfi.LayerError, match=r"Layer 'relu' .* through terse: .*merged or split it.* mix, pool, head"):
        read(painting, images, layer="relu", translator="terse")
    with pytest.raises(cfi.LayerError, match=r"'relu' .* merged or split"):
        read(painting, images, layer="mix", translator="terse", exec_args={"others": Step("relu")})
    opaque = Opaque(painting.mix, painting.head)
    with pytest.raises(cfi.LayerError, match=r"Layer 'relu' .* through paint2print: its activation cannot be read"):
        read(opaque, images, layer="relu", translator="paint2print")


def test_an_index_turns_with_the_axes_behind_the_samples():
    assert carry_index((1, 2, 3), (0, 2, 3, 1)) == (2, 3, 1) and carry_index((1, 2, 3), None) == (1, 2, 3)
    with pytest.raises(cfi.ArgumentError, match=r"\(3, 1\) has 2 entries; pass one for each of the 3 axes"):
        carry_index((3, 1), (0, 2, 3, 1))


# layers that are shown as maps


class Turned(Print):
    """A print of which one layer is seen with its channels in front."""

    shown = ""

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        found = super().layers(images)
        return {**found, self.shown: np.moveaxis(found[self.shown], -1, 1)} if self.shown else found


def show_map(self: Any, model: Print, layer: str, layout: Layout) -> tuple[Print, str]:
    turned = Turned(model.mix, model.head)
    turned.shown = layer
    assert layout.is_plain and layout.channel == 3
    return turned, layer


def test_a_layer_is_shown_with_its_channels_where_the_toolset_has_them(painting, images, monkeypatch):
    monkeypatch.setattr(NetworkAdapter, "map_channels", 1)
    monkeypatch.setattr(NetworkAdapter, "show_map", show_map)
    relu = painting.layers(images)["relu"]
    found = cfi.attribute(painting, "probe_map", inputs=images, layer="relu", translator="paint2print")
    assert isinstance(ASKED[-1].model, Turned) and ASKED[-1].layer_channel_axes == (1,)
    np.testing.assert_allclose(found.values, relu)
    assert found.dims == ("sample", "channel", "height", "width")


def test_a_layer_that_is_a_map_already_stays_as_it_is(painting, images, monkeypatch):
    monkeypatch.setattr(NetworkAdapter, "map_channels", -1)
    found = cfi.attribute(painting, "probe_map", inputs=images, layer="relu", translator="paint2print")
    assert type(ASKED[-1].model) is Print and ASKED[-1].layer_channel_axes == (3,)
    np.testing.assert_allclose(found.values, painting.layers(images)["relu"])


def test_another_layer_of_the_toolsets_own_arguments_becomes_the_one_of_the_model_that_runs(painting, images):
    given = {"inputs": images, "layer": "mix", "translator": "paint2print"}
    cfi.attribute(painting, "probe_map", **given, exec_args={"beside": Step("relu")})
    assert type(ASKED[-1].exec_args["beside"]) is str and ASKED[-1].exec_args["beside"] == "relu"
    with pytest.raises(cfi.LayerError, match="no layer 'somewhere'"):
        cfi.attribute(painting, "probe_map", **given, exec_args={"beside": "somewhere"})
    with pytest.raises(cfi.LayerError, match=r"'relu' .* merged or split"):
        cfi.attribute(painting, "probe_map", **{**given, "translator": "terse"}, exec_args={"beside": "relu"})


# whole numbers


def counted(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Whole numbers alone can be used as places of a table."""
    if x.dtype.kind not in "iu" or z.dtype.kind not in "iu":
        raise TypeError("whole numbers, please")
    return np.stack([x.sum((1, 2, 3)) * 0.5, z.sum(1) * 2.0], 1)


def test_whole_numbers_are_floating_point_ones_to_a_toolset_that_takes_no_others():
    x, z = np.arange(48).reshape(2, 3, 2, 4), np.arange(10).reshape(2, 5)
    found = cfi.attribute(counted, "ablate_reals", inputs=(x, z), target=1, translator="turn")
    assert [array.dtype for array in ASKED[0].inputs] == [np.float32, np.float32]
    assert_values(found, (np.zeros(x.shape), 2.0 * z))
    assert found.inputs[0].dtype == x.dtype


def test_whole_numbers_that_single_precision_does_not_hold_are_refused():
    x, z = np.full((2, 3, 2, 4), 2**24 + 1), np.arange(10).reshape(2, 5)
    with pytest.raises(cfi.InputError, match=f"whole numbers beyond {2**24} would be others there"):
        cfi.attribute(counted, "ablate_reals", inputs=(x, z), target=1, translator="turn")


# heads, and outputs in which a model cannot be made to end


def shares(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    part = 1 / (1 + np.exp(-x.sum((1, 2, 3))))
    return np.stack([part, 1 - part], 1)


def test_probabilities_where_logits_are_explained_are_told():
    with pytest.warns(cfi.ModelWarning, match="no softmax was found at its end to leave out"):
        found = cfi.attribute(shares, "ablate_logits", inputs=(X, Z), target=0, translator="turn")
    one = X.copy()
    one[:, 1, 1, 2] = 0
    np.testing.assert_allclose(found.values[0][:, 1, 1, 2], shares(X, Z)[:, 0] - shares(one, Z)[:, 0], atol=1e-12)


def test_an_output_by_its_position_where_the_model_cannot_end_there(monkeypatch):
    monkeypatch.setattr(ArrayAdapter, "ended_by", lambda self, model, end: None)
    assert_values(explain(target=("grid", 1, 3)), by_hand(*at(1, 3)))
    assert ASKED[-1].target == Target(output=0, index=(3, 1))
    assert_values(explain(target=("grid", lambda grid: grid[:, 0, 2])), by_hand(*at(0, 2)))
    target = ASKED[-1].target
    assert target is not None and target.output == 0 and target.function is not None
    assert_values(explain(target=lambda outputs: outputs["grid"][:, 0, 2]), by_hand(*at(0, 2)))
