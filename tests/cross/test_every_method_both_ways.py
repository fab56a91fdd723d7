"""Every method, natively and across frameworks, on a CNN whose weights are shared: both agree."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from method_arguments import CAPTUM, NEURON, TF_KERAS_VIS, in_keras_order
from shared_cnn import CHANNELS, HEIGHT, WIDTH, Twins, apart, to_first, to_last

import cfi_core as cfi
from cfi_core.catalogue import TOOLSETS_OF_METHOD
from cfi_core.specs import Need

TOLERANCE = {"bridge": 1e-5, "conversion": 1e-4}


def of_torch(
    twins: Twins, key: str, toolset: str, arguments: dict[str, Any], translator: str | None = None
) -> cfi.Attribution:
    return cfi.attribute(
        twins.torch_model, key, toolset, inputs=twins.first, seed=5, translator=translator, **arguments
    )


def of_keras(
    twins: Twins, key: str, toolset: str, arguments: dict[str, Any], translator: str | None = None
) -> cfi.Attribution:
    arguments = in_keras_order(arguments)
    return cfi.attribute(twins.keras_model, key, toolset, inputs=twins.last, seed=5, translator=translator, **arguments)


def check(torch_result: cfi.Attribution, keras_result: cfi.Attribution) -> None:
    bridged = any("bridge" in name for name in (*torch_result.route, *keras_result.route))
    tolerance = TOLERANCE["bridge" if bridged else "conversion"]
    if "channel" in torch_result.dims:
        assert torch_result.dims == ("sample", "channel", "height", "width")
        assert keras_result.dims == ("sample", "height", "width", "channel")
        assert apart(torch_result.values, to_first(keras_result.values)) <= tolerance
    else:
        assert torch_result.dims == keras_result.dims
        assert apart(torch_result.values, keras_result.values) <= tolerance


def runs_on_a_bridge(key: str, toolset: str) -> bool:
    return all(Need.MODULES not in method.needs for method in cfi.methods(key, toolset=toolset))


def keys_and_kinds(toolset: str, keys: Iterable[str]) -> list[tuple[str, str]]:
    """Every method over a bridge, where it can, and over a conversion."""
    return [
        (key, kind)
        for key in keys
        for kind in ("bridge", "conversion")
        if kind != "bridge" or runs_on_a_bridge(key, toolset)
    ]


@pytest.mark.parametrize(("key", "kind"), keys_and_kinds("captum", CAPTUM))
def test_captum(twins: Twins, key: str, kind: str) -> None:
    native = of_torch(twins, key, "captum", CAPTUM[key])
    crossed = of_keras(twins, key, "captum", CAPTUM[key], kind)
    assert native.route == () and native.certificate is None
    assert crossed.route == (("bridge-to-torch",) if kind == "bridge" else ("keras-torch",))
    assert crossed.certificate.faithful
    check(native, crossed)


@pytest.mark.parametrize(("key", "kind"), keys_and_kinds("tf-keras-vis", TF_KERAS_VIS))
def test_tf_keras_vis(twins: Twins, key: str, kind: str) -> None:
    arguments = TF_KERAS_VIS[key]
    native = of_keras(twins, key, "tf-keras-vis", arguments)
    crossed = of_torch(twins, key, "tf-keras-vis", arguments, kind)
    assert native.route == () and native.certificate is None
    assert crossed.route == (("bridge-to-keras",) if kind == "bridge" else ("torch-export", "onnx-keras"))
    assert crossed.certificate.faithful
    check(crossed, native)


@pytest.mark.parametrize("key", CAPTUM)
def test_a_bridge_is_taken_wherever_the_methods_needs_allow(twins: Twins, key: str) -> None:
    plan = cfi.plan(twins.keras_model, key, "captum", inputs=twins.last, **in_keras_order(CAPTUM[key]))
    if runs_on_a_bridge(key, "captum"):
        assert plan.route.names == ("bridge-to-torch",) and "runs where it lives" in plan.reason
    else:
        assert plan.route.names == ("keras-torch",) and "a bridge has no modules" in plan.reason


def test_every_method_of_the_issue_is_here() -> None:
    assert set(CAPTUM) == {key for key, toolsets in TOOLSETS_OF_METHOD.items() if "captum" in toolsets}
    assert {*TF_KERAS_VIS, "activation_maximization"} == {
        key for key, toolsets in TOOLSETS_OF_METHOD.items() if "tf-keras-vis" in toolsets
    }


def test_the_catalogue_tells_what_is_installed() -> None:
    offered: dict[str, set[str]] = {}
    for method in cfi.methods():
        offered.setdefault(method.key, set()).add(method.toolset)
    assert offered == {key: set(toolsets) for key, toolsets in TOOLSETS_OF_METHOD.items()}


@pytest.mark.parametrize("key", ["saliency", "grad_cam"])
def test_both_toolsets_agree(twins: Twins, softmax_twins: Twins, key: str) -> None:
    """With the raw values that CFI asks both for, no parameter is left to align."""
    arguments = CAPTUM[key]
    for pair in (twins, softmax_twins):
        check(of_torch(pair, key, "captum", arguments), of_keras(pair, key, "tf-keras-vis", arguments))
        check(of_torch(pair, key, "tf-keras-vis", arguments), of_keras(pair, key, "captum", arguments))


@pytest.mark.parametrize("key", ["saliency", "grad_cam", "deep_lift", "lrp", "integrated_gradients", "occlusion"])
def test_softmax_heads_mean_the_same_across_frameworks(softmax_twins: Twins, key: str) -> None:
    native = of_torch(softmax_twins, key, "captum", CAPTUM[key])
    crossed = of_keras(softmax_twins, key, "captum", CAPTUM[key])
    check(native, crossed)
    assert native.provenance["explained"] == crossed.provenance["explained"]


@pytest.mark.parametrize(
    "chosen",
    [
        {"target": 2},
        {"layer": "relu2", "neuron": 6},
        {"layer": "relu2", "neuron": NEURON},
    ],
)
@pytest.mark.parametrize("kind", ["bridge", "conversion"])
def test_activation_maximization(twins: Twins, chosen: dict[str, Any], kind: str) -> None:
    """The same optimisation from the same start: the images agree, and the explained value has grown."""
    import keras

    # Plain gradient ascent: the library's RMSprop divides by the gradient and blows rounding up to whole steps.
    optimizer = keras.optimizers.SGD(0.05)
    options = {
        "input_range": (-1.0, 1.0),
        "steps": 10,
        "input_modifiers": None,
        "regularizers": None,
        "optimizer": optimizer,
    }
    # Random: where values are equal, a max pooling may choose any of them.
    start = np.random.default_rng(9).uniform(-0.2, 0.2, (1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    crossed = cfi.visualize_features(
        twins.torch_model, inputs=start, exec_args=options, seed=1, translator=kind, **chosen
    )
    native = cfi.visualize_features(
        twins.keras_model, inputs=to_last(start), exec_args=options, seed=1, **in_keras_order_of_unit(chosen)
    )
    assert crossed.dims == ("sample", "channel", "height", "width")
    assert apart(crossed.values, to_first(native.values)) <= TOLERANCE[kind]
    assert np.abs(crossed.values).max() <= 1
    assert value_of(twins, crossed.values, chosen) > value_of(twins, start, chosen)


def in_keras_order_of_unit(chosen: dict[str, Any]) -> dict[str, Any]:
    return in_keras_order(chosen) if isinstance(chosen.get("neuron"), tuple) else chosen


def value_of(twins: Twins, images: np.ndarray, chosen: dict[str, Any]) -> float:
    import torch

    model = twins.torch_model
    with torch.no_grad():
        images = torch.tensor(images, dtype=torch.float32)
        if "target" in chosen:
            return float(model(images)[0, chosen["target"]])
        layer = model.relu2(model.conv2(model.pool1(model.relu1(model.conv1(images)))))[0]
    neuron = chosen["neuron"]
    return float(layer[neuron] if isinstance(neuron, tuple) else layer[neuron].mean())
