"""Every method that is looked up, over all toolsets: its arguments are the toolset's own, and its example call runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import nn

import cfi_core as cfi
from cfi_core.guide import MethodGuide, make_guide
from cfi_core.registry import registry
from cfi_core.specs import MethodSpec

METHODS = list(cfi.methods())
EVERY = pytest.mark.parametrize("spec", METHODS, ids=lambda spec: f"{spec.toolset}-{spec.key}")

SET_BY_CFI = {
    "captum": {"model", "forward_func", "attribution_method"},
    "shap": {
        *("X", "silent", "check_additivity", "ranked_outputs", "output_rank_order", "rseed"),
        *("return_variances", "fixed_context", "main_effects", "error_bounds", "batch_size", "outputs"),
    },
    "shap-trees": set(),
    "tf-explain": {"model"},
    "tf-keras-vis": {"model"},
    "torchray": {"model", "debug", "context_builder", "get_backward_gradient", "print_iter", "resize_mode"},
    "zennit": {"model", "input", "composite", "attr_output", "create_graph", "retain_graph"},
}
"""What toolsets have, and CFI gives them itself or decides."""

COMBINED = {"sliding_window_shapes", "low", "high", "workarounds", "upsample"}
"""Of noise_tunnel and of composites by name: what these need depends on what they are given."""

QUICK: dict[str, dict[str, Any]] = {
    "rise": {"num_masks": 8},
    "extremal_perturbation": {"max_iter": 2},
    "activation_maximization": {"steps": 2},
}


GUIDES: dict[tuple[str, str], MethodGuide] = {}


def guide_of(spec: MethodSpec) -> MethodGuide:
    """Made once for all tests."""
    name = spec.key, spec.toolset
    if name not in GUIDES:
        GUIDES[name] = make_guide(registry(), spec)
    return GUIDES[name]


@EVERY
def test_every_argument_has_its_meaning_and_default(spec: MethodSpec) -> None:
    guide = guide_of(spec)
    assert not guide.missing
    assert [one.name for one in guide.arguments] == [*spec.init_args, *spec.exec_args]
    combines = bool(spec.wraps) or ("composite" in spec.init_args)
    for one in guide.arguments:
        assert len(one.meaning) > 5, one
        assert "  " not in one.meaning.replace("\n\n", ""), one
        assert ":class:" not in one.meaning, one
        known = one.default or one.raw or one.uniform or one.required
        assert known or (combines and one.name in COMBINED), one
        assert not re.search(r" at 0x|<.*object", one.default + one.raw + one.toolset), one


@EVERY
def test_nothing_is_missing_that_the_toolset_takes(spec: MethodSpec) -> None:
    assert set(guide_of(spec).set_by_cfi) <= SET_BY_CFI[spec.toolset]


@EVERY
def test_nothing_is_there_that_the_toolset_does_not_take(spec: MethodSpec) -> None:
    """An argument that stands nowhere in the toolset is the plugin's own: it is explained there, and says so."""
    for one in guide_of(spec).arguments:
        if ":" not in one.source:
            assert one.name in spec.documentation.words, one
            assert one.source.startswith("cfi-"), one


@EVERY
def test_it_fits_a_terminal(spec: MethodSpec) -> None:
    assert max(map(len, str(guide_of(spec)).splitlines())) <= 100


def test_arguments_are_those_that_a_user_of_the_toolset_knows() -> None:
    (guide,) = cfi.methods("occlusion", toolset="captum").guides
    own = {one.name: one for one in guide.arguments}
    assert own["sliding_window_shapes"].required
    assert own["sliding_window_shapes"].source == "captum.attr:Occlusion.attribute"
    assert own["perturbations_per_eval"].default == "1"
    assert own["baselines"].uniform == "baselines"
    saliency = {one.name: one for one in cfi.methods("saliency", toolset="captum").guides[0].arguments}
    assert (saliency["abs"].default, saliency["abs"].raw, saliency["abs"].toolset) == ("True", "False", "True")
    cam = {one.name: one for one in cfi.methods("grad_cam", toolset="tf-keras-vis").guides[0].arguments}
    assert cam["penultimate_layer"].uniform == "layer"
    assert (cam["expand_cam"].default, cam["expand_cam"].raw) == ("True", "False")
    steps = {one.name: one for one in cfi.methods("integrated_gradients", toolset="captum").guides[0].arguments}
    assert steps["n_steps"].default == "50"
    assert "number of steps" in steps["n_steps"].meaning


def test_routes_are_those_that_a_call_takes(model: nn.Module, images: np.ndarray) -> None:
    for spec in METHODS:
        if spec.toolset == "shap-trees":
            continue
        (route,) = (one for one in guide_of(spec).routes if one.framework == "torch")
        arguments = {"inputs": images, **dict.fromkeys(spec.own_required, None)}
        call = call_of(spec, model, images)
        arguments = call[2]
        plan = cfi.plan(*call[1], **arguments)
        assert str(plan.route) == route.route, spec


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(5 * 2 * 2, 3)).eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, 8, 8)).astype("float32")


@cache
def forest() -> tuple[Any, np.ndarray]:
    rows = np.random.default_rng(0).random((40, 4))
    return RandomForestClassifier(5, random_state=0).fit(rows, (rows[:, 0] > 0.5).astype(int)), rows[:2]


class Noted:
    """Stands for the package, and notes the calls."""

    def __getattr__(self, name: str) -> Any:
        return getattr(cfi, name)

    def attribute(self, *args: Any, **kwargs: Any) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        return cfi.attribute, args, kwargs

    def visualize_features(
        self, *args: Any, **kwargs: Any
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        return cfi.visualize_features, args, kwargs


def call_of(
    spec: MethodSpec, model: Any, images: np.ndarray
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    model, inputs = forest() if spec.toolset == "shap-trees" else (model, images)
    names = {"cfi": Noted(), "np": np, "model": model, "inputs": inputs}
    made: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] = eval(guide_of(spec).example, names)
    return made


def quickly(spec: MethodSpec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """With fewer steps, where the method's own number takes long."""
    more = QUICK.get(spec.key, {})
    exec_args = {**arguments.get("exec_args", {}), **more}
    return {**arguments, "seed": 1, **({"exec_args": exec_args} if exec_args else {})}


@EVERY
@pytest.mark.filterwarnings("ignore::cfi_core.CFIWarning")
def test_its_example_runs_as_it_is_written(spec: MethodSpec, model: nn.Module, images: np.ndarray) -> None:
    call, args, arguments = call_of(spec, model, images)
    found = call(*args, **quickly(spec, arguments))
    assert isinstance(found, cfi.Attribution)
    assert (found.method_key, found.toolset) == (spec.key, spec.toolset)


@EVERY
@pytest.mark.filterwarnings("ignore::cfi_core.CFIWarning")
def test_plan_misses_what_the_call_misses(spec: MethodSpec, model: nn.Module, images: np.ndarray) -> None:
    call, args, arguments = call_of(spec, model, images)
    arguments = quickly(spec, arguments)
    for name, rest in without_each(spec, arguments):
        assert outcome(cfi.plan, args, rest) == outcome(call, args, rest), f"without {name}"


def without_each(spec: MethodSpec, arguments: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The arguments without one of them, for each that a method might not run without."""
    found = [(name, {**arguments, name: None}) for name in ("inputs", "target", "layer", "neuron", "baselines")]
    found = [(name, {key: value for key, value in rest.items() if key in arguments}) for name, rest in found]
    for where in ("init_args", "exec_args"):
        for name in spec.own_required:
            if name in arguments.get(where, {}):
                own = {key: value for key, value in arguments[where].items() if key != name}
                found.append((name, {**arguments, where: own}))
    return [(name, rest) for name, rest in found if name in arguments or name in spec.own_required]


def outcome(call: Callable[..., Any], args: tuple[Any, ...], arguments: dict[str, Any]) -> str:
    """The error with its message; what comes of a call that misses nothing, or only its layer, is no matter here."""
    try:
        call(*args, **arguments)
    except cfi.CFIError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing is missing"
