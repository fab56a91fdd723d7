"""What `cfi.compare` finds of real toolsets: settings by name, faults as published libraries had them, and silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import published
import pytest
from matplotlib.text import Text
from shared_cnn import CHANNELS, Twins

import cfi_core as cfi
from cfi_core.comparing.comparison import Pair, Verdict
from cfi_core.testing import use_plugins

from zennit import rules  # isort: skip
from zennit.types import Linear  # isort: skip

TARGET = [1, 3]
LAYER = {"layer": "relu2"}
WINDOW = (CHANNELS, 7, 5)

pytestmark = pytest.mark.filterwarnings("ignore:TorchRay is licensed")


@pytest.fixture(scope="module", autouse=True)
def faulty_toolsets() -> Iterator[None]:
    with use_plugins(published, with_installed=True):
        yield


def compare(twins: Twins, methods: Any, toolsets: Any = None, **arguments: Any) -> cfi.Comparison:
    asked: dict[str, Any] = {"inputs": twins.first, "target": TARGET, "seed": 1, **arguments}
    return cfi.compare(twins.torch_model, methods, toolsets, **asked)


def only(comparison: cfi.Comparison) -> Pair:
    (pair,) = comparison.pairs
    return pair


def rows(pair: Pair) -> set[tuple[str, str]]:
    return {(row.name, row.label) for row in pair.rows}


# settings


def test_grad_cam_with_the_toolsets_own_defaults(twins: Twins) -> None:
    """The seed report's figure 7: normalisation, the ReLU on either side, and the size of the map."""
    pair = only(compare(twins, "grad_cam", ["captum", "tf-keras-vis"], defaults="toolset", **LAYER))
    assert pair.verdict is Verdict.SETTINGS
    assert rows(pair) == {(name, "tf-keras-vis") for name in ("normalize_cam", "activation_modifier", "expand_cam")}
    matched = {row.name: row.matched for row in pair.rows}
    assert "relu_attributions=True of captum" in matched["activation_modifier"]
    assert "upsample=" in matched["expand_cam"]  # and what it leaves: another interpolation
    assert pair.remaining is not None and pair.remaining < 1e-5
    assert "stretched" in pair.made_comparable[0]


def test_saliency_with_the_toolsets_own_defaults(twins: Twins) -> None:
    """The seed report's figure 6; absolute values are taken on both sides."""
    pair = only(compare(twins, "saliency", ["captum", "tf-keras-vis"], defaults="toolset"))
    assert rows(pair) == {("normalize_map", "tf-keras-vis"), ("keepdims", "tf-keras-vis")}
    assert "abs=True of captum, gradient_modifier=abs of tf-keras-vis" in pair.reason
    assert pair.remaining is not None and pair.remaining < 1e-5


def test_saliency_raw_against_the_toolsets_own(twins: Twins) -> None:
    asked = {
        "raw": {"method_key": "saliency", "toolset": "captum"},
        "own": {"method_key": "saliency", "toolset": "tf-keras-vis", "defaults": "toolset"},
    }
    assert rows(only(compare(twins, asked))) == {
        ("keepdims", "own"),
        ("gradient_modifier", "own"),
        ("normalize_map", "own"),
    }


def test_integrated_gradients_are_three_quadratures(twins: Twins) -> None:
    found = compare(twins, "integrated_gradients", ["captum", "zennit", "tf-explain"])
    of_zennit = found.pair("captum", "zennit")
    assert of_zennit.verdict is Verdict.SETTINGS and ("method", "captum") in rows(of_zennit)
    assert {row.becomes for row in of_zennit.rows} >= {"riemann_right"}
    of_tf_explain = found.pair("captum", "tf-explain")
    assert of_tf_explain.verdict is Verdict.PROCESSED  # the weights of captum's trapezoidal rule add up to 49/50
    assert "method=riemann_trapezoid" in of_tf_explain.reason and "times 1.0204" in of_tf_explain.reason
    assert not found.pair("zennit", "tf-explain").laws


def test_integrated_gradients_without_the_factor(twins: Twins) -> None:
    asked = {
        "tf-explain": {"method_key": "integrated_gradients", "toolset": "tf-explain"},
        "bare": {
            "method_key": "integrated_gradients",
            "toolset": "tf-explain",
            "exec_args": {"multiply_by_inputs": False},
        },
    }
    assert rows(only(compare(twins, asked))) == {("multiply_by_inputs", "bare")}


def test_windows_of_occlusion(twins: Twins) -> None:
    asked = {
        "captum": {
            "method_key": "occlusion",
            "toolset": "captum",
            "exec_args": {"sliding_window_shapes": WINDOW, "strides": WINDOW},
        },
        "zennit": {"method_key": "occlusion", "toolset": "zennit"},
        "tf-explain": {"method_key": "occlusion", "toolset": "tf-explain", "exec_args": {"patch_size": 5}},
    }
    found = compare(twins, asked)
    assert rows(found.pair("captum", "zennit")) == {("window", "zennit"), ("stride", "zennit")}
    assert rows(found.pair("captum", "tf-explain")) == {("sliding_window_shapes", "captum"), ("strides", "captum")}


def test_draws_and_their_number(twins: Twins) -> None:
    asked = {
        "captum": {"method_key": "noise_tunnel", "toolset": "captum", "exec_args": {"stdevs": 0.5}},
        "zennit": {"method_key": "smooth_grad", "toolset": "zennit"},
    }
    pair = only(compare(twins, asked))
    assert pair.verdict is Verdict.SAMPLING and pair.sampling is not None and pair.sampling > 0.01
    assert {("nt_samples", "captum"), ("n_iter", "zennit")} <= rows(pair)


# faults


def test_captums_own_deep_lift_where_a_relu_is_pooled(twins: Twins) -> None:
    pair = only(compare(twins, "deep_lift", ["captum", "published"]))
    assert rows(pair) == {("workarounds", "captum")}  # without them, captum's is the published one
    assert [(law.name, law.broken_by) for law in pair.laws] == [("completeness", "published")]


def test_a_parameter_that_is_ignored(twins: Twins) -> None:
    pair = only(compare(twins, "beta_smooth", ["zennit", "published"], init_args={"beta_smooth": 1.0}))
    assert pair.verdict is Verdict.DIFFER
    assert [(law.name, law.broken_by) for law in pair.laws] == [("dependence on settings", "published")]


def test_transposed_occlusion(twins: Twins) -> None:
    pair = only(compare(twins, "occlusion", ["tf-explain", "published"], exec_args={"patch_size": 5}))
    assert pair.verdict is Verdict.DIFFER
    assert [(law.name, law.broken_by) for law in pair.laws] == [("sensitivity", "published")]


def test_channels_for_space_in_grad_cam(twins: Twins) -> None:
    found = compare(twins, "grad_cam", ["captum", "tf-keras-vis", "published"], **LAYER)
    assert found.pair("captum", "tf-keras-vis").verdict is Verdict.AGREE
    assert found.pair("captum", "published").verdict is Verdict.DIFFER
    assert "published stands alone: captum and tf-keras-vis go together" in found.notes


def test_weights_that_do_not_add_up(twins: Twins) -> None:
    pair = only(compare(twins, "integrated_gradients", ["captum", "published"]))
    assert {row.becomes for row in pair.rows} == {"riemann_trapezoid"}
    assert [(law.name, law.broken_by) for law in pair.laws] == [("completeness", "published")]


def test_ends_that_count_whole(twins: Twins) -> None:
    """A quadrature, but a coarse one: it says how much coarser."""
    pair = only(compare(twins, "integrated_gradients", ["captum", "ends"]))
    assert pair.verdict is Verdict.CONVERGES and not pair.laws
    of_captum, of_ends = (float(words.split()[0]) for words in pair.reason.partition(" by ")[2].split(" and "))
    assert of_ends > 1.3 * of_captum


def test_a_stabiliser_without_a_sign(twins: Twins) -> None:
    own = {"layer_map": [(Linear, rules.Epsilon(0.3))]}
    asked = {
        "zennit": {"method_key": "lrp_epsilon_plus", "toolset": "zennit", "init_args": own},
        "published": {"method_key": "lrp_epsilon_plus", "toolset": "published", "init_args": {"epsilon": 0.3}},
    }
    pair = only(compare(twins, asked))
    assert pair.verdict is Verdict.DIFFER
    assert ("completeness", "published") in {(law.name, law.broken_by) for law in pair.laws}


def test_rules_that_attach_to_nothing(twins: Twins) -> None:
    pair = only(compare(twins, "guided_backprop", ["captum", "published"]))
    assert pair.verdict is Verdict.DIFFER and "published gives the values of saliency" in pair.reason


def test_smoothing_of_absolute_values(twins: Twins) -> None:
    pair = only(compare(twins, "smooth_grad", ["zennit", "published"]))
    assert pair.verdict is Verdict.DIFFER and "published has no negative value" in pair.reason


def test_absolute_values_without_a_word(twins: Twins) -> None:
    found = compare(twins, "saliency", ["captum", "zennit", "published"])
    assert rows(found.pair("captum", "published")) == {("abs", "captum")}
    assert found.pair("zennit", "published").reason == "the values of published are those of zennit: absolute values"


def test_samples_that_are_scaled_together(twins: Twins) -> None:
    pair = only(compare(twins, "input_x_gradient", ["captum", "published"]))
    assert [(law.name, law.broken_by) for law in pair.laws] == [("one sample at a time", "published")]


# silence


EPSILON = {"layer_map": [(Linear, rules.Epsilon(1e-9))]}
RIGHT = {"sliding_window_shapes": WINDOW, "strides": WINDOW}
PAIRS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "saliency": ("saliency", ["captum", "tf-keras-vis", "tf-explain", "torchray", "zennit"], {}),
    "grad_cam": ("grad_cam", ["captum", "tf-keras-vis", "tf-explain", "torchray"], LAYER),
    "guided_backprop": ("guided_backprop", ["captum", "zennit", "torchray"], {}),
    "deconvolution": ("deconvolution", ["captum", "zennit", "torchray"], {}),
    "input_x_gradient": ("input_x_gradient", ["captum", "zennit", "tf-explain"], {}),
    "excitation_backprop": ("excitation_backprop", ["zennit", "torchray"], {"layer": "relu1"}),
    "layer_activation": ("layer_activation", ["captum", "tf-explain"], {**LAYER, "target": None}),
    "lrp": (
        [
            {"method_key": "lrp", "toolset": "captum"},
            {"method_key": "lrp_epsilon_plus", "toolset": "zennit", "init_args": EPSILON},
        ],
        None,
        {},
    ),
    "integrated_gradients": (
        [
            {
                "method_key": "integrated_gradients",
                "toolset": "captum",
                "exec_args": {"n_steps": 16, "method": "riemann_right"},
            },
            {"method_key": "integrated_gradients", "toolset": "zennit", "init_args": {"n_iter": 16}},
        ],
        None,
        {},
    ),
    "occlusion": (
        [
            {"method_key": "occlusion", "toolset": "captum", "exec_args": RIGHT},
            {"method_key": "occlusion", "toolset": "zennit", "init_args": {"window": WINDOW, "stride": WINDOW}},
        ],
        None,
        {},
    ),
    "smooth_grad": ("smooth_grad", ["zennit", "tf-keras-vis"], {"init_args": {"noise_level": 0.2, "n_iter": 20}}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_right_ones_agree(twins: Twins, name: str) -> None:
    methods, toolsets, arguments = PAIRS[name]
    found = compare(twins, methods, toolsets, **arguments)
    assert found.agrees, found
    assert not any(pair.laws for pair in found.pairs) and not any("alone" in note for note in found.notes)


@pytest.mark.parametrize("key", ["saliency", "grad_cam", "integrated_gradients"])
def test_twins_of_two_frameworks_agree(twins: Twins, key: str) -> None:
    """In the axes of the first; the other's inputs are turned, and that is told."""
    models = {"torch": twins.torch_model, "keras": twins.keras_model}
    own = LAYER if key == "grad_cam" else {}
    found = cfi.compare(models, key, "captum", inputs=twins.first, target=TARGET, seed=1, **own)
    assert found.agrees and found.attributions["keras"].values.shape[0] == 2
    assert "inputs of keras are those of torch with the axes in the order (0, 2, 3, 1)" in found.notes


def test_pictures(twins: Twins, tmp_path: Path) -> None:
    """The answers, and what the second has more than the first, under their names."""
    found = compare(twins, "grad_cam", ["captum", "tf-keras-vis"], defaults="toolset", reasons=False, **LAYER)
    shown = " ".join(text.get_text() for text in found.plot(samples=[0]).findobj(Text))
    assert all(words in shown for words in ("captum", "tf-keras-vis", "tf-keras-vis − captum"))
    assert found.save(tmp_path / "c.png").stat().st_size > 5000
    difference = found.subtract("tf-keras-vis", "captum")
    assert difference.values.shape == (2, 14, 20) and difference.dims == ("sample", "height", "width")
    with pytest.raises(cfi.PlotError, match="no option 'colour'"):
        found.plot(colour="red")


def test_twins_under_two_toolsets(twins: Twins) -> None:
    """The models give the same, so settings explain pairs across them, too."""
    models = {"torch": twins.torch_model, "keras": twins.keras_model}
    found = cfi.compare(
        models, "saliency", ["captum", "tf-keras-vis"], inputs=twins.first, target=TARGET, seed=1, defaults="toolset"
    )
    assert found.pair("torch/captum", "keras/captum").agrees
    pair = found.pair("torch/captum", "keras/tf-keras-vis")
    assert pair.verdict is Verdict.SETTINGS and {row.name for row in pair.rows} == {"normalize_map", "keepdims"}
