"""Numbers against closed forms and plain autograd."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.custom_modules import Addition_Module
from captum_models import CLASSES, IMAGE, Linear, SmallCNN, attribute, gradient, images, value
from torch import Tensor, nn

from cfi_core.contract import Axes


def test_saliency_is_the_signed_gradient() -> None:
    model, x = SmallCNN().eval(), images()
    torch.testing.assert_close(value("saliency", model, x), gradient(model, x, 1))
    torch.testing.assert_close(value("saliency", model, x, exec_args={"abs": True}), gradient(model, x, 1).abs())


def test_input_x_gradient() -> None:
    model, x = SmallCNN().eval(), images()
    torch.testing.assert_close(value("input_x_gradient", model, x), x * gradient(model, x, 1))


def test_integrated_gradients_of_a_linear_model() -> None:
    model, x, baseline = Linear(), images(), torch.randn(1, *IMAGE)
    expected = model.weight[1] * (x - baseline)
    torch.testing.assert_close(value("integrated_gradients", model, x, baselines=baseline), expected.detach())


def test_integrated_gradients_by_a_riemann_sum() -> None:
    model, x = SmallCNN().double().eval(), images(1).double()
    steps = 2000
    points = (torch.arange(steps).double() + 0.5) / steps
    mean = gradient(model, points.reshape(-1, 1, 1, 1) * x, 1).mean(0, keepdim=True)
    result = value("integrated_gradients", model, x, exec_args={"n_steps": 500})
    torch.testing.assert_close(result, mean * x, rtol=1e-2, atol=1e-4)


def test_gradient_shap_of_a_linear_model() -> None:
    model, x, baselines = Linear(), images(), torch.randn(1, *IMAGE)
    expected = model.weight[1] * (x - baselines)
    torch.testing.assert_close(value("gradient_shap", model, x, baselines=baselines), expected.detach())


@pytest.mark.parametrize("samples", [1, 3])
def test_deep_lift_is_complete(samples: int) -> None:
    model, x, baseline = SmallCNN().double().eval(), images(samples).double(), torch.randn(1, *IMAGE).double()
    result = value("deep_lift", model, x, baselines=baseline)
    difference = (model(x) - model(baseline))[:, 1]
    torch.testing.assert_close(result.flatten(1).sum(1), difference.detach())


def test_deep_lift_by_hand() -> None:
    """The rescale rule module by module, pooling windows one by one."""
    model, x, baseline = SmallCNN().double().eval(), images(1).double(), torch.randn(1, *IMAGE).double()
    steps = []
    of_input, of_baseline = x, baseline
    with torch.no_grad():
        for module in model.children():
            before = (of_input, of_baseline)
            of_input, of_baseline = module(of_input), module(of_baseline)
            steps.append((module, *before, of_input, of_baseline))
    multiplier = F.one_hot(torch.tensor([1]), CLASSES).double()
    for module, *values in reversed(steps):
        multiplier = _multiplier(module, multiplier, *values)
    expected = multiplier * (x - baseline)
    torch.testing.assert_close(value("deep_lift", model, x, baselines=baseline), expected)
    result = value("deep_lift", model, x, baselines=baseline, init_args={"multiply_by_inputs": False})
    torch.testing.assert_close(result, multiplier)


def test_layer_deep_lift_is_complete() -> None:
    model, x, baseline = SmallCNN().double().eval(), images().double(), torch.randn(1, *IMAGE).double()
    result = value("layer_deep_lift", model, x, baselines=baseline, layer=model.conv2)
    torch.testing.assert_close(result.flatten(1).sum(1), (model(x) - model(baseline))[:, 1].detach())


def test_neuron_deep_lift_is_complete() -> None:
    model, x, baseline = SmallCNN().double().eval(), images().double(), torch.randn(1, *IMAGE).double()
    result = value("neuron_deep_lift", model, x, baselines=baseline, layer=model.fc1, neuron=(3,))
    until = nn.Sequential(*list(model.children())[:7])
    torch.testing.assert_close(result.flatten(1).sum(1), (until(x) - until(baseline))[:, 3].detach())


def test_deep_lift_shap_averages_over_baselines() -> None:
    model, x, baselines = SmallCNN().double().eval(), images().double(), torch.randn(3, *IMAGE).double()
    expected = torch.stack([value("deep_lift", model, x, baselines=baselines[i : i + 1]) for i in range(3)]).mean(0)
    torch.testing.assert_close(value("deep_lift_shap", model, x, baselines=baselines), expected)


def test_occlusion_by_hand() -> None:
    """Sliding a window over a linear model: what it covers, each pixel as often as it is covered."""
    model, x = Linear(), images()
    result = value("occlusion", model, x, exec_args={"sliding_window_shapes": (3, 2, 3), "strides": (3, 2, 2)})
    product = (model.weight[1] * x).detach()
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    for top, left in itertools.product(range(0, 10, 2), range(0, 14, 2)):
        window = (slice(None), slice(None), slice(top, top + 2), slice(left, left + 3))
        total[window] += product[window].flatten(1).sum(1).reshape(-1, 1, 1, 1)
        count[window] += 1
    torch.testing.assert_close(result, total / count.clamp(min=1), rtol=1e-4, atol=1e-5)


def test_feature_ablation_of_a_linear_model() -> None:
    model, x = Linear(), images()
    torch.testing.assert_close(
        value("feature_ablation", model, x, baselines=0.5),
        (model.weight[1] * (x - 0.5)).detach(),
        rtol=1e-3,
        atol=1e-4,
    )


@pytest.mark.parametrize("key", ["shapley_values", "shapley_value_sampling"])
def test_shapley_values_of_an_additive_function(key: str) -> None:
    def model(x: Tensor) -> Tensor:
        return (x**2 * torch.tensor([1.0, 2.0, 3.0])).sum(1)

    x = torch.randn(2, 3)
    expected = x**2 * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(value(key, model, x, target=None, channel_axis=(None,)), expected)


def test_shapley_values_of_a_product() -> None:
    x = torch.tensor([[2.0, 3.0]])
    result = value("shapley_values", lambda x: x.prod(1), x, target=None, channel_axis=(None,))
    torch.testing.assert_close(result, torch.tensor([[3.0, 3.0]]))


def test_kernel_shap_of_an_additive_function() -> None:
    x = torch.randn(2, 4)
    weight = torch.tensor([1.0, -2.0, 3.0, 0.5])
    result = value(
        "kernel_shap", lambda x: x @ weight, x, target=None, channel_axis=(None,), exec_args={"n_samples": 60}
    )
    torch.testing.assert_close(result, x * weight, rtol=1e-3, atol=1e-3)


def test_lime_of_a_linear_function_with_a_linear_surrogate() -> None:
    from captum._utils.models.linear_model import SkLearnLinearRegression

    x, weight = torch.randn(2, 4), torch.tensor([1.0, -2.0, 3.0, 0.5])
    result = value(
        "lime",
        lambda x: x @ weight,
        x,
        target=None,
        channel_axis=(None,),
        init_args={"interpretable_model": SkLearnLinearRegression()},
        exec_args={"n_samples": 60},
    )
    torch.testing.assert_close(result, x * weight, rtol=1e-3, atol=1e-3)


def test_feature_permutation_of_a_linear_model() -> None:
    """With two samples the only permutation is the exchange, or none."""
    x, weight = torch.randn(2, 3), torch.tensor([1.0, -2.0, 3.0])
    result = value(
        "feature_permutation",
        lambda x: x @ weight,
        x,
        target=None,
        channel_axis=(None,),
        init_args={"perm_func": lambda x, mask: torch.where(mask, x.flip(0), x)},
    )
    torch.testing.assert_close(result, weight * (x - x.flip(0)))


def test_guided_backprop_by_hand() -> None:
    model, x = SmallCNN().eval(), images()
    expected = _with_rectifier_gradient(model, x, lambda grad, inputs: F.relu(grad) * (inputs > 0))
    torch.testing.assert_close(value("guided_backprop", model, x), expected)


def test_deconvolution_by_hand() -> None:
    model, x = SmallCNN().eval(), images()
    expected = _with_rectifier_gradient(model, x, lambda grad, inputs: F.relu(grad))
    torch.testing.assert_close(value("deconvolution", model, x), expected)


def test_guided_grad_cam_by_hand() -> None:
    model, x = SmallCNN().eval(), images()
    guided = value("guided_backprop", model, x)
    cam = F.interpolate(F.relu(_grad_cam(model, x))[:, None], size=IMAGE[1:], mode="nearest")
    torch.testing.assert_close(value("guided_grad_cam", model, x, layer=model.conv2), guided * cam)


def test_grad_cam_by_hand() -> None:
    model, x = SmallCNN().eval(), images()
    result = attribute("grad_cam", model, x, layer=model.conv2)
    assert result.axes is Axes.LAYER_MAP
    torch.testing.assert_close(result.values[0], _grad_cam(model, x))


@pytest.mark.parametrize(("mode", "align"), [("nearest", None), ("bilinear", False)])
def test_grad_cam_upsampled(mode: str, align: bool | None) -> None:
    model, x = SmallCNN().eval(), images()
    result = attribute("grad_cam", model, x, layer=model.conv2, exec_args={"upsample": mode})
    assert result.axes is Axes.INPUT_SIZED_MAP
    expected = F.interpolate(_grad_cam(model, x)[:, None], size=IMAGE[1:], mode=mode, align_corners=align)
    torch.testing.assert_close(result.values[0], expected[:, 0])
    assert result.applied["upsample"] == mode
    assert result.applied["align_corners"] is align


def test_grad_cam_upsampled_to_a_channels_last_input() -> None:
    model = SmallCNN().eval()

    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x.permute(0, 3, 1, 2))

    x = images()
    result = value(
        "grad_cam",
        ChannelsLast(),
        x.permute(0, 2, 3, 1).contiguous(),
        layer=model.conv2,
        channel_axis=(3,),
        exec_args={"upsample": "nearest"},
    )
    assert result.shape == (2, *IMAGE[1:])
    torch.testing.assert_close(
        result, value("grad_cam", model, x, layer=model.conv2, exec_args={"upsample": "nearest"})
    )


def test_grad_cam_with_channels_and_with_relu() -> None:
    model, x = SmallCNN().eval(), images()
    result = attribute("grad_cam", model, x, layer=model.conv2, exec_args={"attr_dim_summation": False})
    assert result.axes is Axes.LAYER
    torch.testing.assert_close(result.values[0].sum(1), _grad_cam(model, x))
    result = attribute("grad_cam", model, x, layer=model.conv2, exec_args={"relu_attributions": True})
    torch.testing.assert_close(result.values[0], F.relu(_grad_cam(model, x)))
    assert result.applied["relu_attributions"] is True


def test_layer_methods_by_autograd() -> None:
    model, x = SmallCNN().eval(), images()
    front, rest = _split(model)
    activation = front(x).detach().requires_grad_()
    grad = torch.autograd.grad(rest(activation)[:, 1].sum(), activation)[0]
    activation = activation.detach()
    torch.testing.assert_close(value("layer_activation", model, x, layer=model.conv2), activation)
    torch.testing.assert_close(value("layer_gradient_x_activation", model, x, layer=model.conv2), activation * grad)


def test_layer_conductance_is_complete() -> None:
    model, x = SmallCNN().double().eval(), images().double()
    result = value("layer_conductance", model, x, layer=model.conv2, exec_args={"n_steps": 300})
    difference = (model(x) - model(torch.zeros_like(x)))[:, 1]
    torch.testing.assert_close(result.flatten(1).sum(1), difference.detach(), rtol=1e-2, atol=1e-3)


def test_layer_feature_ablation_of_a_linear_rest() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, CLASSES))
    x = torch.randn(2, 4)
    activation = torch.tanh(model[0](x))
    result = value("layer_feature_ablation", model, x, layer=model[1], channel_axis=(None,))
    torch.testing.assert_close(result, (activation * model[2].weight[1]).detach())


def test_neuron_gradient_by_autograd() -> None:
    model, x = SmallCNN().eval(), images()
    front, _ = _split(model)
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(front(leaf)[:, 2, 1, 3].sum(), leaf)[0]
    torch.testing.assert_close(value("neuron_gradient", model, x, layer=model.conv2, neuron=(2, 1, 3)), expected)
    by_function = value("neuron_gradient", model, x, layer=model.conv2, neuron=lambda out: out[:, 2, 1, 3])
    torch.testing.assert_close(by_function, expected)


@pytest.mark.parametrize("key", ["neuron_guided_backprop", "neuron_deconvolution"])
def test_neuron_methods_need_nothing_behind_the_neuron(key: str) -> None:
    """Before the first rectifier the rule is the gradient; what comes later does not matter."""

    class Model(SmallCNN):
        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(self.conv1(x)).flatten(1)

    model, x = Model().eval(), images()
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(model.conv1(leaf)[:, 2, 1, 3].sum(), leaf)[0]
    torch.testing.assert_close(value(key, model, x, layer=model.conv1, neuron=(2, 1, 3)), expected)


@pytest.mark.parametrize("samples", [1, 3])
def test_relevance_is_conserved(samples: int) -> None:
    model, x = SmallCNN(bias=False).double().eval(), images(samples).double()
    result = attribute("lrp", model, x, exec_args={"return_convergence_delta": True})
    logit = model(x)[:, 1].detach()
    torch.testing.assert_close(result.values[0].flatten(1).sum(1), logit, rtol=1e-4, atol=1e-7)
    layer = value("layer_lrp", model, x, layer=model.conv2)
    torch.testing.assert_close(layer.flatten(1).sum(1), logit, rtol=1e-4, atol=1e-7)


def test_relevance_without_bias_is_gradient_times_input() -> None:
    """Ancona et al. 2018, proposition 1: the epsilon rule of a network of rectifiers without biases."""
    model, x = SmallCNN(bias=False).double().eval(), images().double()
    torch.testing.assert_close(value("lrp", model, x), x * gradient(model, x, 1), rtol=1e-4, atol=1e-7)


class Residual(nn.Module):
    """A block with a skip connection, whose sum is a module."""

    def __init__(self, skip: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.relu1 = nn.ReLU()
        self.second = nn.Linear(4, 4, bias=False)
        self.skip = skip
        self.add = Addition_Module()
        self.relu2 = nn.ReLU()
        self.last = nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.first(x))
        return self.last(self.relu2(self.add(self.second(x), self.skip(x))))


class Reshape(nn.Module):
    """A module of someone's own that only moves values."""

    cfi_layout_only = True

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), 2, 2).transpose(1, 2).reshape(len(x), 4)


@pytest.mark.parametrize("skip", [nn.Identity(), Reshape(), nn.Dropout1d()])
def test_relevance_through_a_skip_connection(skip: nn.Module) -> None:
    model, x = Residual(skip).double().eval(), torch.randn(3, 4).double()
    result = value("lrp", model, x, channel_axis=(None,))
    torch.testing.assert_close(result, x * gradient(model, x, 1), rtol=1e-4, atol=1e-7)


class Product(nn.Module):
    """A linear module of someone's own, with its weight among the arguments."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight


def test_relevance_through_linear_modules_that_captum_does_not_know() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 3, 2, bias=False)
            self.norm = nn.BatchNorm1d(3)
            self.relu = nn.ReLU()
            self.pool = nn.AvgPool1d(3)
            self.flatten = nn.Flatten()
            self.product = Product()
            self.weight = nn.Buffer(torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.product(self.flatten(self.pool(self.relu(self.norm(self.conv(x))))), self.weight)

    model, x = Model().double().eval(), torch.randn(3, 2, 4).double()
    # With its initial statistics the normalisation has no offset, so all of it is linear.
    torch.testing.assert_close(value("lrp", model, x), x * gradient(model, x, 1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("apart", [False, True])
def test_relevance_of_a_bias(apart: bool) -> None:
    """Bach et al. 2015: `R_i = x_i w_i / (sum_j x_j w_j + b) * output`, with the bias in the same module or not."""

    class Bias(nn.Module):
        def __init__(self, bias: Tensor) -> None:
            super().__init__()
            self.bias = nn.Buffer(bias)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.bias

    linear, x = nn.Linear(4, 3).double(), torch.randn(2, 4).double()
    model = nn.Sequential(linear)
    if apart:
        alone = nn.Linear(4, 3, bias=False).double()
        alone.weight = linear.weight
        model = nn.Sequential(alone, Bias(linear.bias.detach()))
    result = value("lrp", model, x, channel_axis=(None,))
    torch.testing.assert_close(result, (x * linear.weight[1]).detach(), rtol=1e-4, atol=1e-7)


def test_relevance_of_a_model_that_is_one_module() -> None:
    model, x = nn.Linear(4, 3, bias=False).double(), torch.randn(2, 4).double()
    torch.testing.assert_close(value("lrp", model, x, channel_axis=(None,)), (x * model.weight[1]).detach())


def test_relevance_with_a_rule_of_the_users() -> None:
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule

    model, x = nn.Sequential(nn.Linear(4, 3, bias=False)).double(), torch.rand(2, 4).double()
    model[0].rule = Alpha1_Beta0_Rule()
    result = value("lrp", model, x, channel_axis=(None,))
    positive = x * model[0].weight[1].clamp(min=0)
    expected = positive / positive.sum(1, keepdim=True) * (x @ model[0].weight[1])[:, None]
    torch.testing.assert_close(result, expected.detach())


def _grad_cam(model: SmallCNN, x: Tensor) -> Tensor:
    front, rest = _split(model)
    activation = front(x).detach().requires_grad_()
    grad = torch.autograd.grad(rest(activation)[:, 1].sum(), activation)[0]
    return (activation * grad.mean((2, 3), keepdim=True)).sum(1).detach()


def _split(model: SmallCNN) -> tuple[nn.Module, nn.Module]:
    """Until conv2, and the rest."""
    children = list(model.children())
    return nn.Sequential(*children[:4]), nn.Sequential(*children[4:])


def _with_rectifier_gradient(model: SmallCNN, x: Tensor, rule: object) -> Tensor:
    class Rectifier(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, inputs: Tensor) -> Tensor:
            ctx.save_for_backward(inputs)  # type: ignore[attr-defined]
            return F.relu(inputs)

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            (inputs,) = ctx.saved_tensors  # type: ignore[attr-defined]
            return rule(grad, inputs)  # type: ignore[operator, no-any-return]

    def forward(x: Tensor) -> Tensor:
        for module in model.children():
            x = Rectifier.apply(x) if isinstance(module, nn.ReLU) else module(x)
        return x

    return gradient(forward, x, 1)


def _multiplier(module: nn.Module, after: Tensor, x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    """Shrikumar et al. 2017, section 3.5: the multiplier before a module from the one after it."""
    if isinstance(module, nn.ReLU):
        return after * (y - y0) / (x - x0)
    if not isinstance(module, nn.MaxPool2d):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(module(leaf), leaf, after)[0]
    contributions = torch.zeros_like(x)
    for channel, row, column in itertools.product(*map(range, after.shape[1:])):
        window = (0, channel, slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
        at = (0, channel, row, column)
        largest = max(y[at], y0[at])
        for values, share in ((x, largest - y0[at]), (x0, y[at] - largest)):
            where = torch.zeros(4, dtype=x.dtype)
            where[values[window].argmax()] = after[at] * share
            contributions[window] += where.reshape(2, 2)
    # Where nothing differs, the rectifier before it hands nothing on.
    return torch.where(x == x0, 0, contributions / (x - x0))
