"""What plugins return is checked against what was asked for before it is labelled; what they raise is typed."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.boundary import build_bridge, foreign, run_conversion, run_method
from cfi_core.contract import Axes, BridgedLayer, BridgeRequest, Converted, MethodRequest, MethodResult
from cfi_core.specs import ANY, RUNNABLE, FrameworkSpec, Kind, MethodSpec, Need, TranslatorSpec

ORIGIN = "cfi-stamps 2.0"
IMAGES = np.zeros((2, 5, 7, 3))
METHOD = MethodSpec(
    key="stamp",
    toolset="stamps",
    kind=Kind.LAYER,
    needs=frozenset({Need.FORWARD}),
    implementation="plugin_that_answers:run",
    exec_args=("at_input",),
    native_only=("at_input",),
)
CONVERSION = TranslatorSpec(
    name="unfold",
    source="paper",
    target="print",
    preserves=frozenset(Need),
    cost=1,
    implementation="plugin_that_answers:run",
)
BRIDGE = TranslatorSpec(
    name="lift",
    source=ANY,
    target="print",
    preserves=RUNNABLE,
    cost=1,
    implementation="plugin_that_answers:run",
    kind="bridge",
)


@pytest.fixture
def answer(monkeypatch):
    """Lets the method, the conversion and the bridge return what is given."""

    def plant(returned) -> None:
        monkeypatch.setitem(sys.modules, "plugin_that_answers", SimpleNamespace(run=lambda *arguments: returned))

    return plant


def request(*inputs: np.ndarray, **fields) -> MethodRequest:
    inputs = fields.pop("inputs", inputs or (IMAGES,))
    fields = {"channel_axis": (3,) * len(inputs), **fields}
    return MethodRequest(method=METHOD, model=object(), inputs=inputs, **fields)


def at_layer(count: int = 1, channel: int | None = 3, **fields) -> MethodRequest:
    return request(layer=("conv",) * count, layer_channel_axes=(channel,) * count, **fields)


def result(*shapes: tuple[int, ...], axes: Axes = Axes.INPUT) -> MethodResult:
    return MethodResult(tuple(np.zeros(shape) for shape in shapes), axes)


LAYER = (2, 5, 7, 4)


@pytest.mark.parametrize(
    ("asked", "returned", "known"),
    [
        (request(), result((2, 5, 7, 3)), {}),
        (request(IMAGES, np.zeros((2, 9))), result((2, 5, 7, 3), (2, 9)), {}),
        (request(), result((2, 5, 7), axes=Axes.INPUT_MAP), {}),
        (request(), result((2, 5, 7), axes=Axes.INPUT_SIZED_MAP), {}),
        (request(inputs=(), channel_axis=()), result((4, 5, 7, 3)), {"inputs": [(None, 5, 7, 3)]}),
        (at_layer(), result(LAYER, axes=Axes.LAYER), {"layers": [LAYER]}),
        (at_layer(2), result(LAYER, (2, 6), axes=Axes.LAYER), {"layers": [LAYER, (2, 6)]}),
        (at_layer(), result((2, 5, 7), axes=Axes.LAYER_MAP), {"layers": [LAYER]}),
        (at_layer(2), result((2, 5, 7), (2, 5, 7), axes=Axes.LAYER_MAP), {"layers": [LAYER, LAYER]}),
        (request(), replace(result((2, 5, 7), axes=Axes.LAYER_MAP), layer="chosen"), {}),
        # A layer that gives several tensors, or is read at its input, has no known shape.
        (at_layer(), result((2, 6), (1, 2, 6), axes=Axes.LAYER), {"layers": [None]}),
        (at_layer(channel=None), result((2, 5), axes=Axes.LAYER_MAP), {"layers": [None]}),
        (request(), replace(result((2, 8, 8, 3), axes=Axes.LAYER), layer="chosen"), {}),
        (at_layer(exec_args={"at_input": True}), result((2, 8, 8, 3), axes=Axes.LAYER), {"layers": [LAYER]}),
    ],
)
def test_what_fits_passes(answer, asked, returned, known):
    answer(returned)
    assert run_method(asked, ORIGIN, **known) is returned


@pytest.mark.parametrize(
    ("asked", "returned", "known", "match"),
    [
        (request(), np.zeros((2, 5, 7, 3)), {}, "a ndarray where a MethodResult is expected"),
        (request(), None, {}, "a NoneType where a MethodResult is expected"),
        (request(), SimpleNamespace(values=(IMAGES,), axes=Axes.INPUT), {}, "where a MethodResult is expected"),
        (
            request(),
            result((2, 3, 5, 7)),
            {},
            r"\(2, 3, 5, 7\), where 'input' has shape \(2, 5, 7, 3\): its axes are in",
        ),
        (request(), result((1, 5, 7, 3)), {}, "it has 1 for 2 samples"),
        (request(), result((2, 5, 7)), {}, r"shape \(2, 5, 7\), where 'input' has shape \(2, 5, 7, 3\)"),
        (request(), result(), {}, "0 values for 1 input"),
        (request(), result((2, 5, 7, 3), (2, 5, 7, 3)), {}, "2 values for 1 input"),
        (request(IMAGES, np.zeros((2, 9))), result((2, 5, 7, 3)), {}, "1 value for 2 inputs"),
        (request(IMAGES, np.zeros((2, 9))), result((2, 9), (2, 5, 7, 3)), {}, r"value 0 of shape \(2, 9\)"),
        (request(), result(()), {}, "a value without axes"),
        (request(), result((2, 7, 5), axes=Axes.INPUT_MAP), {}, "its axes are in another order"),
        (request(), result((2, 5, 7, 1), axes=Axes.INPUT_MAP), {}, r"where 'input map' has shape \(2, 5, 7\)"),
        (request(channel_axis=(None,)), result((2, 5, 7), axes=Axes.INPUT_MAP), {}, "no channel axis to leave out"),
        (request(inputs=(), channel_axis=()), result((4, 3, 5, 7)), {"inputs": [(None, 5, 7, 3)]}, r"\(4, 3, 5, 7\)"),
        (request(), result(LAYER, axes=Axes.LAYER), {}, "the axes of a layer .*, but it was asked for none"),
        (at_layer(), result((2, 4, 5, 7), axes=Axes.LAYER), {"layers": [LAYER]}, "its axes are in another order"),
        (at_layer(2), result(LAYER, axes=Axes.LAYER), {"layers": [LAYER, LAYER]}, "1 value for 2 layers"),
        (at_layer(2), result(LAYER, axes=Axes.LAYER), {"layers": [LAYER, None]}, "1 value for 2 layers"),
        (at_layer(), result((2, 7, 4), axes=Axes.LAYER_MAP), {"layers": [LAYER]}, r"'layer map' has shape \(2, 5, 7\)"),
        (
            at_layer(2),
            result((2, 5, 7), (2, 7, 5), axes=Axes.LAYER_MAP),
            {"layers": [LAYER, LAYER]},
            r"value 1 of shape \(2, 7, 5\), .*: its axes are in another order",
        ),
        (
            at_layer(2),
            result((1, 5, 7), (1, 5, 7), axes=Axes.LAYER_MAP),
            {"layers": [LAYER, LAYER]},
            "it has 1 for 2 samples",
        ),
        (
            at_layer(channel=None),
            result((2,), axes=Axes.LAYER_MAP),
            {"layers": [(2, 6)]},
            "the layer's output of shape",
        ),
        (request(), MethodResult((IMAGES.astype(complex),), Axes.INPUT), {}, "no tensor of real numbers .*complex128"),
        (request(), MethodResult((IMAGES.astype(str),), Axes.INPUT), {}, "no tensor of real numbers .*<U"),
        (request(), MethodResult((IMAGES.astype(object),), Axes.INPUT), {}, "no tensor of real numbers .*object"),
        (request(), MethodResult((IMAGES.tolist(),), Axes.INPUT), {}, r"no tensor of real numbers \(list\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_plugin_is_named(answer, asked, returned, known, match):
    answer(returned)
    with pytest.raises(cfi.MethodError, match=match) as caught:
        run_method(asked, ORIGIN, **known)
    assert str(caught.value).startswith(f"stamp of stamps ({ORIGIN}) returned ")
    assert f"report it to {ORIGIN}" in str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8", "bool"])
def test_real_numbers_of_every_type_pass(answer, dtype):
    answer(MethodResult((IMAGES.astype(dtype),), Axes.INPUT))
    run_method(request(), ORIGIN)


@pytest.mark.parametrize("dtype", ["torch.float32", "<dtype: 'bfloat16'>", "torch.bfloat16", "float8_e4m3fn"])
def test_tensors_of_frameworks_are_known_by_the_names_of_their_types(answer, dtype):
    answer(MethodResult((SimpleNamespace(shape=IMAGES.shape, dtype=dtype),), Axes.INPUT))
    run_method(request(), ORIGIN)


EXAMPLES, OUTPUTS = (np.zeros((2, 3, 5, 7)),), [(2, 10)]


@pytest.mark.parametrize(
    ("converted", "match"),
    [
        (object(), "a object where a Converted is expected"),
        (None, "a NoneType where a Converted is expected"),
        (Converted(None), "no model"),
        (Converted(object(), ((0, 2, 1),)), r"axes \(0, 2, 1\) of input 0, which has 4 axes"),
        (Converted(object(), (None, None)), "input_axes for 2 inputs, where there are 1"),
        (Converted(object(), ((1, 0, 2, 3),)), "move the samples away from the first axis"),
        (Converted(object(), (), (None, None)), "output_axes for 2 outputs, where there are 1"),
        (Converted(object(), (), ((0, 2, 1),)), r"axes \(0, 2, 1\) of output 0, which has 2 axes"),
        (Converted(object(), layers={"conv": BridgedLayer("conv")}), "layers, which only a bridge is asked for"),
    ],
)
def test_a_conversion_that_does_not_fit_is_refused(answer, converted, match):
    answer(converted)
    with pytest.raises(cfi.TranslationError, match=match) as caught:
        run_conversion(CONVERSION, object(), EXAMPLES, ORIGIN, outputs=OUTPUTS)
    assert str(caught.value).startswith(f"unfold ({ORIGIN}) returned ")


def test_conversions_that_fit_pass(answer):
    for converted in (
        Converted(object()),
        Converted(object(), ((0, 2, 3, 1),), ((0, 1),)),
        Converted(object(), (None,)),
    ):
        answer(converted)
        assert run_conversion(CONVERSION, object(), EXAMPLES, ORIGIN, outputs=OUTPUTS) is converted
    answer(Converted(object(), (), (None, None)))
    run_conversion(CONVERSION, object(), EXAMPLES, ORIGIN)


BRIDGED = BridgeRequest(None, object(), (np.zeros((2, 3, 5, 7)),), ("conv", "pool"))
LAYERS = {"conv": BridgedLayer("c", (0, 2, 3, 1)), "pool": BridgedLayer("p")}


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ({}, "no layer for 'conv', 'pool', which was asked for"),
        ({"conv": BridgedLayer("c")}, "no layer for 'pool'"),
        ({**LAYERS, "head": BridgedLayer("h")}, "layers for 'head', which nobody asked for"),
        ({**LAYERS, "pool": BridgedLayer("p", (0, 2, 1))}, r"axes \(0, 2, 1\) of layer 'pool', which has 2 axes"),
    ],
)
def test_a_bridge_with_other_layers_than_asked_for_is_refused(answer, layers, match):
    answer(Converted(object(), layers=layers))
    with pytest.raises(cfi.TranslationError, match=match):
        build_bridge(BRIDGE, BRIDGED, ORIGIN, layers={"pool": (2, 4)})


def test_a_bridge_that_fits_passes(answer):
    converted = Converted(object(), ((0, 2, 3, 1),), (None,), LAYERS)
    answer(converted)
    assert build_bridge(BRIDGE, BRIDGED, ORIGIN, layers={"conv": (2, 4, 5, 7)}) is converted
    answer(Converted(object(), ((0, 1),), (), LAYERS))
    with pytest.raises(cfi.TranslationError, match="of input 0, which has 4 axes"):
        build_bridge(BRIDGE, BRIDGED, ORIGIN)


def entering(kind: str):
    """Runs a plugin's part of a call through each of the four entrances."""
    method = MethodSpec(
        key="stamp",
        toolset="stamps",
        kind=Kind.LAYER,
        needs=frozenset(),
        implementation=f"{kind}:run",
        citation="Ink 1999",
    )
    framework = FrameworkSpec(name="clay", model_types=(), tensor_types=(), adapter=f"{kind}:run", module="numpy")
    origin = SimpleNamespace(label=ORIGIN)
    registry = SimpleNamespace(frameworks={"clay": framework}, origin_of=lambda spec: origin)
    fields = {"source": "paper", "target": "print", "preserves": RUNNABLE, "cost": 1, "implementation": f"{kind}:run"}
    lift = TranslatorSpec(name="lift", kind="bridge", **fields)
    return {
        cfi.MethodError: lambda: run_method(MethodRequest(method=method, model=None, inputs=()), ORIGIN),
        cfi.TranslationError: lambda: run_conversion(TranslatorSpec(name="unfold", **fields), None, (), ORIGIN),
        (cfi.TranslationError,): lambda: build_bridge(lift, BRIDGED, ORIGIN),
        cfi.UnknownFrameworkError: lambda: adapter_for(registry, "clay"),
    }


@pytest.fixture
def plugin(monkeypatch):
    """A module whose `run` raises."""

    def make(error: BaseException) -> str:
        def run(*arguments):
            raise error

        monkeypatch.setitem(sys.modules, "failing_plugin", SimpleNamespace(run=run))
        return "failing_plugin"

    return make


@pytest.mark.parametrize(
    "error", [RuntimeError("jammed"), SystemExit("jammed"), StopIteration("jammed"), KeyError("jammed")]
)
def test_whatever_a_plugin_raises_becomes_a_typed_error(plugin, error):
    for kind, enter in entering(plugin(error)).items():
        with pytest.raises(kind, match=f"{type(error).__name__}: .*jammed") as caught:
            enter()
        assert caught.value.__cause__ is error and ORIGIN in str(caught.value)


def test_a_plugin_that_cannot_be_imported_is_named():
    for kind, enter in entering("no_such_module_anywhere").items():
        with pytest.raises(kind, match="ModuleNotFoundError") as caught:
            enter()
        assert ORIGIN in str(caught.value)


def test_the_users_interrupt_and_errors_of_cfi_pass(plugin):
    for enter in entering(plugin(KeyboardInterrupt())).values():
        with pytest.raises(KeyboardInterrupt):
            enter()
    own = cfi.LayerError("no such layer")
    entrances = list(entering(plugin(own)).values())
    for enter in (entrances[0], entrances[2], entrances[3]):
        with pytest.raises(cfi.LayerError) as caught:
            enter()
        assert caught.value is own
    # The next route is taken after a TranslationError only.
    with pytest.raises(cfi.TranslationError, match="LayerError: no such layer"):
        entrances[1]()


def test_messages_are_short_and_on_one_line():
    with pytest.raises(cfi.PlotError) as caught, foreign(cfi.PlotError, "It failed", "Do it again."):
        raise ValueError("one\n  two " + "x" * 1000)
    assert str(caught.value).startswith("It failed (ValueError: one two xxx") and "\n" not in str(caught.value)
    assert str(caught.value).endswith("…). Do it again.") and len(str(caught.value)) < 400
