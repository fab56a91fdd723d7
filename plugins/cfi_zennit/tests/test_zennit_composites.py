"""Composites: what their parameters do, the user's own, and what Zennit's own users get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zennit import attribution, composites, rules
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import Composite, Stabilizer
from zennit.types import AvgPool, Convolution, Linear
from zennit_models import CLASSES, IMAGE, Plain, Residual, attribute, images, relevance, warned

import cfi_core as cfi
from cfi_zennit.pooling import SmoothMaxPool
from cfi_zennit.table import METHODS, PARAMETERS

KEYS = {method.composite: key for key, method in METHODS.items() if method.composite}
BOX = {"low": -4.0, "high": 4.0}


class Averaging(nn.Sequential):
    """With all that a composite of Zennit's has rules for."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)
        )


OTHER: dict[str, Any] = {
    "low": -2.0,
    "high": 2.5,
    "epsilon": 0.5,
    "gamma": 1.5,
    "stabilizer": 0.05,
    "beta_smooth": 1.0,
    "zero_params": "bias",
    "layer_map": [(nn.Linear, rules.Flat())],
    "first_map": [(Convolution, rules.WSquare())],
    "canonizers": [],
}
WITHOUT_EFFECT = {
    # Zennit's constructor takes it and makes no use of it.
    ("beta_smooth", "zero_params"),
    # Whoever has none has the model's own.
    *((composite, "canonizers") for composite in PARAMETERS),
}


@pytest.mark.parametrize(("composite", "name"), [(one, name) for one, names in PARAMETERS.items() for name in names])
def test_each_parameter_changes_the_result(composite: str, name: str) -> None:
    model, x = Averaging().double().eval(), images()
    given = BOX if "low" in PARAMETERS[composite] else {}
    defaults = {} if composite != "excitation_backprop" else {"zero_params": []}
    other = [(nn.Linear, rules.Epsilon())] if (composite, name) == ("excitation_backprop", "layer_map") else OTHER[name]
    before = relevance(model, KEYS[composite], x, init_args={**given, **defaults})
    after = relevance(model, KEYS[composite], x, init_args={**given, **defaults, name: other})
    changed = np.abs(after - before).max() > 1e-3 * np.abs(before).max()
    assert changed != ((composite, name) in WITHOUT_EFFECT)


def test_epsilon_of_a_network_without_biases_and_one_class_is_a_factor() -> None:
    """Why users see no change: of the last layer, epsilon scales all relevance alike, and a picture is normalised."""
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(96, 4, bias=False)).double().eval(), images(1)
    few, much = (relevance(model, "lrp_epsilon_plus", x, init_args={"epsilon": one}) for one in (1e-6, 0.5))
    np.testing.assert_allclose(few / few.max(), much / much.max(), rtol=1e-6)
    assert np.abs(few).max() > 1.1 * np.abs(much).max()


def test_a_stabiliser_may_be_a_function() -> None:
    model, x = Averaging().double().eval(), images()
    clipping = {"epsilon": Stabilizer(0.3, clip=True), "stabilizer": Stabilizer(0.1, norm_scale=True)}
    found = attribute(model, "lrp_epsilon_plus", x, init_args=clipping)
    assert found.provenance["completeness"]["gap"] < 1e-8
    assert found.provenance["applied"]["epsilon"] == "Stabilizer"


def test_the_tables_names_are_zennits() -> None:
    import inspect

    assert set(PARAMETERS) == set(composites.COMPOSITES)
    for name, kind in composites.COMPOSITES.items():
        assert set(PARAMETERS[name]) == set(inspect.signature(kind).parameters), name


# zennit_lrp


@pytest.mark.parametrize("composite", [one for one in PARAMETERS if KEYS[one].startswith("lrp_")])
def test_a_key_of_its_own_is_zennit_lrp_with_that_composite(composite: str) -> None:
    model, x = Residual().eval(), images(dtype=torch.float32)
    given = BOX if "low" in PARAMETERS[composite] else {}
    kind = composites.COMPOSITES[composite]
    expected = relevance(model, KEYS[composite], x, init_args=given)
    for chosen, arguments in ((composite, given), (kind, given), (kind(**given), {})):
        found = relevance(model, "zennit_lrp", x, init_args={"composite": chosen, **arguments})
        np.testing.assert_array_equal(found, expected)


def test_composites_of_gradients_are_an_option_as_well() -> None:
    model, x = Plain().eval(), images(dtype=torch.float32)
    found = relevance(model, "zennit_lrp", x, init_args={"composite": "guided_backprop", "start_from_output": False})
    np.testing.assert_array_equal(found, relevance(model, "guided_backprop", x))


def test_the_users_own_composites() -> None:
    model, x = Plain().double().eval(), images()
    layers = [(nn.Conv2d, rules.Gamma(0.1)), (nn.Linear, rules.Epsilon(0.2)), (nn.ReLU, rules.Pass())]
    names = [(["0"], rules.WSquare())]
    own: list[Composite] = [
        composites.NameLayerMapComposite(names, layers),
        composites.MixedComposite([composites.NameMapComposite(names), composites.LayerMapComposite(layers)]),
        composites.SpecialFirstLayerMapComposite(layers, [(nn.Conv2d, rules.WSquare())]),
    ]
    found = [relevance(model, "zennit_lrp", x, init_args={"composite": one}) for one in own]
    of_map = composites.LayerMapComposite(layers)
    for name in ("0", model[0]):
        arguments = {"composite": of_map, "name_map": [((name,), rules.WSquare())]}
        found.append(relevance(model, "zennit_lrp", x, init_args=arguments))
    arguments = {"layer_map": layers, "name_map": [("0", rules.WSquare())]}
    found.append(relevance(model, "lrp_epsilon_plus", x, init_args=arguments))
    for values in found[1:]:
        np.testing.assert_array_equal(values, found[0])
    assert not of_map.handles and not of_map.hook_refs


def test_a_composite_by_a_function_of_the_users() -> None:
    model, x = Plain().double().eval(), images()
    composite = Composite(lambda context, name, module: rules.Epsilon() if isinstance(module, Linear) else None)
    found = attribute(model, "zennit_lrp", x, init_args={"composite": composite})
    assert set(found.provenance["applied"]["rules"].values()) == {"Epsilon", "gradient"}


def test_first_layers_are_the_first_that_run() -> None:
    """`Residual` defines its first convolution last; Zennit goes by the order of definition."""
    model, x = Residual().double().eval(), images()
    told = attribute(model, "lrp_epsilon_plus_flat", x).provenance["applied"]["rules"]
    assert told["conv1"] == "Flat" and told["conv2"] == "ZPlus" and told["fc"] == "Epsilon"
    _, said = warned(model, "lrp_epsilon_plus_flat", x, defaults="toolset")
    assert "the function `add`" in said


def test_canonizers_of_the_users_come_first() -> None:
    model, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)), images()
    model = model.double().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = attribute(model, "lrp_epsilon_plus", x, init_args={"canonizers": [SequentialMergeBatchNorm()]})
    np.testing.assert_allclose(found.values, relevance(model, "lrp_epsilon_plus", x), rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# what was asked for


def test_flat_on_pooling() -> None:
    model, x = Averaging().double().eval(), images()
    flat = [(AvgPool, rules.Flat())]
    found = attribute(model, "lrp_epsilon_plus", x, init_args={"layer_map": flat})
    account = found.extras["conservation"]["2"]
    assert account["rule"] == "Flat"
    np.testing.assert_allclose(account["leaves"], account["arrives"], rtol=1e-5)
    at = relevance(model, "lrp_epsilon_plus", x, init_args={"layer_map": flat}, layer="1")
    windows = at[:, :, :4, :6].reshape(2, 3, 2, 2, 3, 2)
    np.testing.assert_allclose(windows, windows[:, :, :, :1, :, :1].repeat(2, 3).repeat(2, 5), rtol=1e-9)


def test_smooth_max_pooling() -> None:
    """A window shares its relevance by the size of its values; the gradient gives all to the largest."""
    model, x = Plain().double().eval(), images()
    smooth = {"layer_map": [(nn.MaxPool2d, SmoothMaxPool())]}
    found = attribute(model, "lrp_epsilon_plus", x, init_args=smooth, layer="1")
    assert found.provenance["completeness"]["gap"] < 1e-8
    above = relevance(model, "lrp_epsilon_plus", x, layer="2")
    values = model[1](model[0](x)).detach().numpy().reshape(2, 3, 3, 2, 4, 2)
    expected = values / (values.sum((3, 5), keepdims=True) + 4e-6) * above[:, :, :, None, :, None]
    np.testing.assert_allclose(found.values.reshape(values.shape), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("pool", "shape"), [(nn.MaxPool1d(2), (2, 3, 6)), (nn.MaxPool3d(2, stride=1, padding=1), (2, 3, 3, 4, 5))]
)
def test_smooth_max_pooling_of_other_dimensions(pool: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, dtype=torch.float64)
    model = nn.Sequential(pool, nn.Flatten(), nn.LazyLinear(CLASSES)).double()
    model(x)
    found = attribute(
        model.eval(), "lrp_epsilon_plus", x, init_args={"layer_map": [(type(pool), SmoothMaxPool(1e-12))]}
    )
    account = found.extras["conservation"]["0"]
    np.testing.assert_allclose(account["leaves"], account["arrives"], rtol=1e-6)


def test_dilated_pooling_has_no_smooth_rule() -> None:
    model = nn.Sequential(nn.MaxPool2d(2, dilation=2), nn.Flatten(), nn.LazyLinear(CLASSES))
    x = torch.rand(2, *IMAGE)
    model(x)
    with pytest.raises(cfi.MethodError, match="dilated"):
        attribute(model.eval(), "lrp_epsilon_plus", x, init_args={"layer_map": [(nn.MaxPool2d, SmoothMaxPool())]})


# refusals


@pytest.mark.parametrize(
    ("key", "arguments", "said"),
    [
        ("zennit_lrp", {"composite": "epsilon"}, "is no composite of Zennit's.*epsilon_gamma_box"),
        ("zennit_lrp", {"composite": 3}, "is no composite"),
        ("zennit_lrp", {"gamma": 0.5}, "takes no 'gamma'.*epsilon, stabilizer"),
        ("lrp_epsilon_gamma_box", {}, "needs 'low' and 'high'"),
        ("lrp_epsilon_plus", {"name_map": [("9", rules.Pass())]}, "has no module '9'"),
        ("lrp_epsilon_plus", {"name_map": [("0", "pass")]}, "is no rule"),
        ("lrp_epsilon_plus", {"name_map": ["0"]}, "list of pairs"),
        ("lrp_epsilon_plus", {"layer_map": [(nn.Linear, rules.Pass)]}, "is no rule"),
        ("zennit_lrp", {"composite": composites.NameMapComposite([(["x"], rules.Pass())])}, "has no module 'x'"),
        ("zennit_lrp", {"composite": composites.EpsilonPlus(), "epsilon": 1.0}, "made already"),
        ("smooth_grad", {"epsilon": 1.0}, "belong to a composite"),
    ],
)
def test_arguments_that_zennit_would_pass_over_or_fail_at(key: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(cfi.ArgumentError, match=said):
        attribute(Plain().eval(), key, images(dtype=torch.float32), init_args=arguments)


def test_a_composite_that_attaches_to_nothing_is_refused() -> None:
    composite = composites.LayerMapComposite([(nn.Conv3d, rules.Epsilon())])
    with pytest.raises(cfi.MethodError, match="plain gradient"):
        attribute(Plain().eval(), "zennit_lrp", images(dtype=torch.float32), init_args={"composite": composite})


# defaults


@pytest.mark.parametrize("composite", PARAMETERS)
def test_toolset_defaults_are_what_zennits_users_get(composite: str) -> None:
    """To the last bit, with the attributor and composite called directly and a one-hot target as in its tutorial."""
    model, x = Plain().eval(), images(dtype=torch.float32)
    given = BOX if "low" in PARAMETERS[composite] else {}
    chosen = composites.COMPOSITES[composite](**given)
    with attribution.Gradient(model=model, composite=chosen) as attributor:
        _, expected = attributor(x.clone(), torch.eye(CLASSES)[[1, 1]])
    found = relevance(model, KEYS[composite], x, defaults="toolset", init_args=given)
    np.testing.assert_array_equal(found, expected.detach().numpy())


def test_toolset_defaults_explain_the_output_behind_a_softmax() -> None:
    model, x = Plain(softmax=True).eval(), images(dtype=torch.float32)
    with attribution.Gradient(model=model, composite=composites.EpsilonPlusFlat()) as attributor:
        _, expected = attributor(x.clone(), torch.eye(CLASSES)[[1, 1]])
    found, said = warned(model, "zennit_lrp", x, defaults="toolset", head="output")
    assert "softmax" in said
    np.testing.assert_array_equal(found.values, expected.detach().numpy())


def test_a_box_with_arrays() -> None:
    model, x = Averaging().eval(), images(dtype=torch.float32)
    low, high = -4 * torch.ones(1, 2, 1, 1), 4 * np.ones((2, 1, 1), np.float32)
    found = relevance(model, "lrp_epsilon_gamma_box", x, init_args={"low": low, "high": high})
    np.testing.assert_allclose(found, relevance(model, "lrp_epsilon_gamma_box", x, init_args=BOX), rtol=1e-5)


def test_relevance_of_several_outputs_in_zennits_words() -> None:
    model, x = Plain().double().eval(), images()
    weights = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)

    def start(output: Tensor) -> Tensor:
        return output * weights

    expected = sum(float(weights[c]) * relevance(model, "lrp_epsilon_plus", x, target=c) for c in range(CLASSES))
    for given in (start, (model(x) * weights).detach(), (model(x) * weights).detach().numpy()):
        found = relevance(model, "lrp_epsilon_plus", x, target=None, exec_args={"attr_output": given})
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    for wrong in (lambda output: output[:, 0], torch.ones(2, 9)):
        with pytest.raises(cfi.TargetError, match="relevance of every output"):
            attribute(model, "lrp_epsilon_plus", x, target=None, exec_args={"attr_output": wrong})
    with pytest.raises(cfi.ArgumentError, match="attr_output"):
        attribute(model, "lrp_epsilon_plus", x, target=lambda output: output.sum(1))
