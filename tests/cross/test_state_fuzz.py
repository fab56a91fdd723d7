"""Whatever is called, on whatever route, and however it ends: the user's model and process are as before.

The calls are drawn with a seed: method of any toolset, framework of the model, route, whether the call is seeded, and
whether it goes well, a layer or the target raises an error, or the user interrupts it there, in the first pass or in a
later one.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import torch
from method_arguments import ARGUMENTS, CAPTUM, TF_KERAS_VIS, in_keras_order
from process_state import assert_same, keras_state, process_state, torch_state
from shared_cnn import Twins, keras_twin, to_last

import cfi_core as cfi

VISUALIZED: dict[str, Any] = {"target": 1, "exec_args": {"input_range": (-1.0, 1.0), "steps": 2}}
OTHERS = [
    (key, toolset)
    for toolset in ("zennit", "tf-explain", "torchray", "shap")
    for key in ARGUMENTS[toolset]
    if (key, toolset) != ("kernel_shap", "shap")  # which takes thousands of passes
]
IN_KERAS = ("tf-keras-vis", "tf-explain")
ROUTES: dict[tuple[str, bool], list[Any]] = {
    ("torch", False): [None, "bridge"],
    ("keras", True): [None, "bridge"],
    ("torch", True): ["bridge", "conversion", ["torch-onnx", "onnx2keras"]],
    ("keras", False): ["bridge", "conversion", ["tf2onnx", "onnx-torch"], ["keras-onnx-export", "onnx2torch"]],
}
"""By the framework of the model, and whether the toolset's is Keras."""
ENDS = ("well", "well", "error", "interrupt", "target error", "target interrupt")
PLACES = ("conv1", "relu1", "conv2", "relu2", "fc")


class Broken(Exception):
    """What a layer or a target raises."""


@dataclass
class Trip:
    """Raises at one of the passes through a place, if there are so many."""

    error: type[BaseException]
    passes: int
    armed: bool = False

    def __call__(self, *_: Any) -> None:
        self.passes -= self.armed
        if self.armed and self.passes == 0:
            raise self.error("tripped")


class Tripping(keras.layers.Layer):
    """A layer in front of another, that raises or hands on."""

    def __init__(self, trip: Trip, **options: Any) -> None:
        super().__init__(**options)
        self.trip = trip

    def call(self, x: Any) -> Any:
        """What it was given."""
        self.trip()
        return x


@dataclass(frozen=True)
class Case:
    key: str
    toolset: str
    framework: str
    route: Any
    end: str
    place: str
    passes: int
    seed: int | None = None

    @property
    def trip(self) -> Trip:
        return Trip(KeyboardInterrupt if "interrupt" in self.end else Broken, self.passes)

    def __str__(self) -> str:
        route = self.route if isinstance(self.route, str | None) else "+".join(self.route)
        return f"{self.key}-{self.toolset}-{self.framework}-{route}-{self.end}-{self.place}-{self.passes}-{self.seed}"


def draw(number: int, seed: int) -> list[Case]:
    choose = random.Random(seed)
    methods = [(key, "captum") for key in CAPTUM] + [(key, "tf-keras-vis") for key in TF_KERAS_VIS] * 3
    methods += [("activation_maximization", "tf-keras-vis")] * 2 + OTHERS
    choose.shuffle(methods)
    cases = []
    for place in range(number):
        key, toolset = methods[place % len(methods)]
        framework = choose.choice(("torch", "keras"))
        route, end = choose.choice(ROUTES[framework, toolset in IN_KERAS]), choose.choice(ENDS)
        where = choose.choice(PLACES), choose.choice((1, 1, 2, 3, 5))
        cases.append(Case(key, toolset, framework, route, end, *where, choose.choice((None, 0, 7))))
    return cases


def run(twins: Twins, case: Case) -> str:
    """Makes the call and compares; how it ended."""
    arguments = arguments_of(case)
    trip, breaks = case.trip, []
    if "target" in case.end and "target" in arguments:
        arguments["target"] = tripping_target(trip)
    state: Callable[[Any], dict[str, Any]]
    if case.framework == "torch":
        model, inputs, state = twins.torch_model, torch.tensor(twins.first), torch_state
        model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
        model.fc.weight.requires_grad_(False)
        if case.end in ("error", "interrupt"):
            breaks.append(model.get_submodule(case.place).register_forward_pre_hook(trip).remove)
    else:
        model, inputs, state = twins.keras_model, to_last(twins.first), keras_state
        arguments = in_keras_order(arguments)
        if case.end in ("error", "interrupt"):
            model = with_trip(model, trip, case.place)
    before, process = state(model), process_state()
    call = cfi.visualize_features if case.key == "activation_maximization" else cfi.attribute
    if case.key == "activation_maximization":
        inputs = inputs[:1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            process["filters"] = list(warnings.filters)
            trip.armed = True
            try:
                call(model, case.key, case.toolset, inputs=inputs, translator=case.route, seed=case.seed, **arguments)
                ended = "well"
            except (cfi.CFIError, KeyboardInterrupt, Broken) as error:
                ended = type(error).__name__
            trip.armed = False
            assert_same(process, process_state())
        assert_same(before, state(model))
    finally:
        for undo in breaks:
            undo()
        if case.framework == "torch":
            model.conv1.weight.grad = None
            model.fc.weight.requires_grad_(True)
    return ended


def arguments_of(case: Case) -> dict[str, Any]:
    return dict(ARGUMENTS[case.toolset].get(case.key, VISUALIZED))


def tripping_target(trip: Trip) -> Callable[[Any], Any]:
    def explained(outputs: Any) -> Any:
        trip()
        return outputs[..., 1]

    return explained


def with_trip(model: keras.Model, trip: Trip, place: str) -> keras.Model:
    """The model with a layer in it that raises; the same weights."""
    x = inputs = keras.Input(model.input_shape[1:])
    for layer in model.layers:
        x = layer(Tripping(trip, name="tripping")(x) if layer.name == place else x)
    return keras.Model(inputs, x)


@pytest.fixture(autouse=True)
def _no_folder_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)


@pytest.fixture
def fresh(twins: Twins) -> Twins:
    """The Keras layers get a node for every model that they are put into, so each case has layers of its own."""
    cfi.forget_translations()
    return Twins(twins.torch_model, keras_twin(twins.torch_model), twins.first, twins.last)


# Of six ends, two go well on purpose; others go well where the trip is passed less often.
@pytest.mark.parametrize("case", draw(36, seed=1), ids=str)
def test_nothing_moves(fresh: Twins, case: Case) -> None:
    run(fresh, case)


@pytest.mark.zoo
@pytest.mark.parametrize("case", draw(360, seed=2), ids=str)
def test_nothing_moves_in_many_calls(fresh: Twins, case: Case) -> None:
    run(fresh, case)


def test_the_cases_end_in_every_way(twins: Twins) -> None:
    cases = [case for case in draw(120, seed=3) if case.route is None and case.framework == "torch"]
    ends = {run(twins, case) for case in cases if case.toolset == "captum"}
    assert {"well", "KeyboardInterrupt"} < ends and len(ends) > 2
    np.testing.assert_array_equal(twins.last, to_last(twins.first))
