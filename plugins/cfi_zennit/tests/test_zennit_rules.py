"""Every rule of Zennit's against a slow implementation from its paper, on a network with all kinds of layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slow_rules as slow
import torch
from torch import nn
from zennit import rules
from zennit.types import Convolution
from zennit_models import IMAGE, Plain, Residual, images, relevance

INNER = (3, *IMAGE[1:])

RULES: dict[str, tuple[rules.BasicHook, slow.Rule]] = {
    "epsilon": (rules.Epsilon(0.03), slow.epsilon(0.03)),
    "gamma": (rules.Gamma(0.4), slow.gamma(0.4)),
    "zplus": (rules.ZPlus(), slow.z_plus()),
    "alpha2_beta1": (rules.AlphaBeta(2, 1), slow.alpha_beta(2.0, 1.0)),
    "alpha1_beta0": (rules.AlphaBeta(1, 0), slow.alpha_beta(1.0, 0.0)),
    "zbox": (rules.ZBox(-3.0, 4.0), slow.z_box(-3.0, 4.0)),
    "wsquare": (rules.WSquare(), slow.w_square()),
    "flat": (rules.Flat(), slow.flat()),
}


def arrays(*values: Any) -> list[np.ndarray]:
    return [value.detach().double().numpy() for value in values]


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
    weight, bias, *others = arrays(conv.weight, bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    weight, bias = slow.with_batch_norm(weight, bias, *others, norm.eps)
    return slow.convolution(weight, bias, shape, 1)


def slowly(model: Residual, x: np.ndarray, target: int, conv_rule: slow.Rule, linear_rule: slow.Rule) -> np.ndarray:
    """Relevance of one image, layer by layer."""
    first, second = folded(model.conv1, model.bn1, IMAGE), folded(model.conv2, model.bn2, INNER)
    average = slow.averaging(INNER, (1, 2))
    fc = arrays(model.fc.weight, model.fc.bias)
    skip = slow.positive(first[0] @ x + first[1])
    branch = second[0] @ skip + second[1]
    joined = slow.positive(branch + skip)
    averaged = average @ joined
    won = slow.winners(averaged, (3, 6, 4), (3, 2))
    output = fc[0] @ averaged[won] + fc[1]

    start = np.where(np.arange(len(output)) == target, output, 0)
    of_pooled = linear_rule(averaged[won], *fc, start)
    of_averaged = np.zeros_like(averaged)
    np.add.at(of_averaged, won, of_pooled)
    of_joined = slow.epsilon()(joined, average, np.zeros(len(average)), of_averaged)
    halves = np.stack([branch, skip])
    of_halves = np.array([slow.shared(z, 0.0, r, slow.STABILIZER) for z, r in zip(halves.T, of_joined, strict=True)])
    of_skip = of_halves[:, 1] + conv_rule(skip, *second, of_halves[:, 0])
    return conv_rule(x, *first, of_skip)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_a_rule_on_convolutions_is_that_of_its_paper(name: str, dtype: torch.dtype, within: float) -> None:
    rule, paper = RULES[name]
    model, x = Residual().to(dtype).eval(), images(dtype=dtype)
    values = relevance(model, "lrp_epsilon_plus", x, init_args={"layer_map": [(Convolution, rule)]})
    expected = [slowly(model, one.double().numpy().ravel(), 1, paper, slow.epsilon()).reshape(IMAGE) for one in x]
    assert np.abs(values - expected).max() <= within * np.abs(expected).max()


@pytest.mark.parametrize("name", set(RULES) - {"zbox"})
def test_a_rule_on_linear_layers_is_that_of_its_paper(name: str) -> None:
    rule, paper = RULES[name]
    model, x = Residual().double().eval(), images()
    values = relevance(model, "lrp_epsilon_plus", x, init_args={"layer_map": [(nn.Linear, rule)]})
    expected = [slowly(model, one.numpy().ravel(), 1, slow.z_plus(), paper).reshape(IMAGE) for one in x]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def backwards(model: Plain, x: torch.Tensor, rectifier: Any) -> np.ndarray:
    """The gradient of one image layer by layer, with another one at rectifiers: `rectifier(inputs, gradient)`."""
    conv1, conv2, fc1, fc2 = (model[place] for place in (0, 3, 6, 8))
    first = slow.convolution(*arrays(conv1.weight, conv1.bias), IMAGE, 1)
    second = slow.convolution(*arrays(conv2.weight, conv2.bias), (3, 3, 4), 0)
    third, fourth = arrays(fc1.weight, fc1.bias), arrays(fc2.weight, fc2.bias)
    a = first[0] @ x.numpy().ravel() + first[1]
    won = slow.winners(slow.positive(a), INNER, (2, 2))
    b = second[0] @ slow.positive(a)[won] + second[1]
    c = third[0] @ slow.positive(b) + third[1]
    of_b = rectifier(b, third[0].T @ rectifier(c, fourth[0][1]))
    of_a = np.zeros_like(a)
    np.add.at(of_a, won, second[0].T @ of_b)
    return (first[0].T @ rectifier(a, of_a)).reshape(IMAGE)


RECTIFIERS: dict[str, Any] = {
    "deconvolution": lambda inputs, gradient: slow.positive(gradient),  # Zeiler and Fergus 2014, section 2.1
    "guided_backprop": lambda inputs, gradient: slow.positive(gradient) * (inputs > 0),  # Springenberg 2014, figure 1
    "beta_smooth": lambda inputs, gradient: gradient / (1 + np.exp(-10 * inputs)),  # Dombrowski et al. 2019, section 4
    "saliency": lambda inputs, gradient: gradient * (inputs > 0),
}


@pytest.mark.parametrize("key", RECTIFIERS)
def test_a_rule_of_rectifiers_is_that_of_its_paper(key: str) -> None:
    model, x = Plain().double().eval(), images()
    expected = [backwards(model, one, RECTIFIERS[key]) for one in x]
    np.testing.assert_allclose(relevance(model, key, x), expected, rtol=0, atol=1e-12)


def test_excitation_backprop_is_that_of_its_paper() -> None:
    """Zhang et al. 2016, equations 7 and 10: winning probabilities, no biases; all inputs are positive."""
    model, x = Plain().double().eval(), images().abs()
    conv1, conv2, fc1, fc2 = (model[place] for place in (0, 3, 6, 8))
    first = slow.convolution(*arrays(conv1.weight, conv1.bias), IMAGE, 1)
    second = slow.convolution(*arrays(conv2.weight, conv2.bias), (3, 3, 4), 0)
    third, fourth = arrays(fc1.weight, fc1.bias), arrays(fc2.weight, fc2.bias)
    values = relevance(model, "excitation_backprop", x)

    def winning(inputs: np.ndarray, w: np.ndarray, p: np.ndarray) -> np.ndarray:
        shares = inputs * slow.positive(w)
        total = shares.sum(1)
        return np.sum([shares[j] / (total[j] + 1e-6) * p[j] for j in range(len(w))], axis=0)

    for one, found in zip(x, values, strict=True):
        a = slow.positive(first[0] @ one.numpy().ravel() + first[1])
        won = slow.winners(a, INNER, (2, 2))
        b = slow.positive(second[0] @ a[won] + second[1])
        c = slow.positive(third[0] @ b + third[1])
        p = winning(b, third[0], winning(c, fourth[0], np.eye(4)[1]))
        of_a = np.zeros_like(a)
        np.add.at(of_a, won, winning(a[won], second[0], p))
        expected = winning(one.numpy().ravel(), first[0], of_a).reshape(IMAGE)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert found.sum() == pytest.approx(1.0, rel=1e-3) or np.any(c == 0)


def test_norm_and_pass() -> None:
    """`Norm` shares by contributions; `Pass` hands on what arrives."""
    model = nn.Sequential(nn.BatchNorm2d(2), nn.AvgPool2d((1, 2)), nn.Flatten(), nn.Linear(48, 3)).double().eval()
    x = images()
    values = relevance(model, "lrp_epsilon_plus", x)
    average = slow.averaging(IMAGE, (1, 2))
    for one, found in zip(x.numpy(), values, strict=True):
        normed = one.ravel() / np.sqrt(1 + 1e-5)
        w, b = arrays(model[3].weight, model[3].bias)
        of_averaged = slow.epsilon()(average @ normed, w, b, np.eye(3)[1] * (w @ average @ normed + b))
        expected = slow.epsilon()(normed, average, np.zeros(len(average)), of_averaged)
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-9)


def test_the_bias_counts_once_in_alpha_beta() -> None:
    """The hand-made case of a user of Zennit's: weights (1, -1), bias -1, inputs of one; relevance -1."""
    model = nn.Sequential(nn.Linear(2, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
        model[0].bias.fill_(-1.0)
    x = torch.ones(1, 2, dtype=torch.float64)
    for (alpha, beta), expected in {(1, 0): [-1.0, 0.0], (2, 1): [-2.0, 0.5]}.items():
        arguments = {"layer_map": [(nn.Linear, rules.AlphaBeta(alpha, beta))]}
        found = relevance(model.eval(), "lrp_epsilon_plus", x, target=0, init_args=arguments)
        np.testing.assert_allclose(found, [expected], rtol=1e-5)
