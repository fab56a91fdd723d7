"""What would be answered wrongly or never is refused with an error that says what to do."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum_models import IMAGE, SmallCNN, With, attribute, images, value
from torch import Tensor, nn

import cfi_core as cfi
from cfi_captum.table import METHODS, Rule
from cfi_core.contract import Target
from cfi_core.errors import ArgumentError, InputError, LayerError, MethodError, TargetError

RECTIFIED = ("guided_backprop", "deconvolution")
DIFFERENCES = ("deep_lift", "deep_lift_shap")


def refused(key: str, model: Any, x: Tensor, **arguments: Any) -> None:
    if METHODS[key].baselines_required:
        arguments["baselines"] = torch.randn_like(x)
    attribute(key, model, x, channel_axis=(None,), **arguments)


@pytest.mark.parametrize("key", [*RECTIFIED, *DIFFERENCES, "lrp"])
def test_relu_as_a_function(key: str) -> None:
    with pytest.raises(MethodError, match=r"`relu` \(called in a forward method.*Use "):
        refused(key, With(F.relu), torch.randn(2, 4))


@pytest.mark.parametrize("key", RECTIFIED)
@pytest.mark.parametrize(
    ("module", "name"),
    [(nn.GELU(), "gelu"), (nn.SiLU(), "silu"), (nn.ReLU6(), "hardtanh"), (nn.LeakyReLU(), "leaky_relu")],
)
def test_other_rectifiers(key: str, module: nn.Module, name: str) -> None:
    with pytest.raises(MethodError, match=rf"`{name}` in module 'function' \({type(module).__name__}\)"):
        refused(key, With(module), torch.randn(2, 4))


@pytest.mark.parametrize("key", RECTIFIED)
def test_no_rectifier_at_all(key: str) -> None:
    with pytest.raises(MethodError, match=r"no nn\.ReLU takes part"):
        refused(key, With(nn.Identity()), torch.randn(2, 4))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.sigmoid, "sigmoid"),
        (torch.tanh, "tanh"),
        (lambda x: F.softmax(x, 1), "softmax"),
        (lambda x: F.max_pool1d(x[:, None], 1)[:, 0], "max_pool2"),
        (lambda x: x * x, "mul"),
        (lambda x: x.clamp(min=0), "clamp"),
        (lambda x: 1 / (x + 10), "reciprocal"),
        (nn.GELU(), "gelu"),
        (nn.LayerNorm(6), "native_layer_norm"),
    ],
)
@pytest.mark.parametrize("key", DIFFERENCES)
def test_deep_lift_without_a_rule(key: str, function: Any, name: str) -> None:
    with pytest.raises(MethodError, match=rf"has no rule for .*`{name}"):
        refused(key, With(function), torch.randn(2, 4))


@pytest.mark.parametrize("function", [nn.ReLU(), nn.Sigmoid(), lambda x: 2 * x + 1, lambda x: x.flip(1), nn.Dropout()])
def test_deep_lift_takes_what_is_linear_or_known(function: Any) -> None:
    refused("deep_lift", With(function), torch.randn(2, 4), baselines=torch.randn(2, 4))


class Tokens(nn.Module):
    """Averages what it makes of an embedding of tokens; real numbers may be added on another branch."""

    def __init__(self, function: Any, beside: Any = None, *, embed_by_function: bool = False) -> None:
        super().__init__()
        self.embedding, self.embed_by_function = nn.Embedding(20, 6), embed_by_function
        self.first, self.function, self.second = nn.Linear(6, 8), function, nn.Linear(8, 3)
        self.side, self.beside = nn.Linear(4, 3), beside

    def forward(self, tokens: Tensor, x: Tensor | None = None) -> Tensor:
        weight = self.embedding.weight
        embedded = nn.functional.embedding(tokens, weight) if self.embed_by_function else self.embedding(tokens)
        scores = self.second(self.function(self.first(embedded)).mean(1))
        return scores if x is None else scores + self.beside(self.side(x))


TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


@pytest.mark.parametrize(("layer", "embed_by_function"), [("embedding", False), ("first", False), ("first", True)])
@pytest.mark.parametrize("function", [nn.functional.gelu, torch.relu])
def test_rules_behind_an_embedding(function: Any, layer: str, embed_by_function: bool) -> None:
    model = Tokens(function, embed_by_function=embed_by_function)
    arguments = {"layer": model.get_submodule(layer), "baselines": torch.zeros_like(TOKENS)}
    with pytest.raises(MethodError, match="no rule for the function"):
        attribute("layer_deep_lift", model, TOKENS, **arguments)


@pytest.mark.parametrize("layer", ["embedding", "side"])
@pytest.mark.parametrize(("function", "beside"), [(torch.relu, nn.ReLU()), (nn.ReLU(), torch.relu)])
def test_rules_on_both_branches_of_tokens_and_numbers(function: Any, beside: Any, layer: str) -> None:
    model, x = Tokens(function, beside), torch.randn(2, 4)
    baselines = (torch.zeros_like(TOKENS), torch.zeros_like(x))
    with pytest.raises(MethodError, match="no rule for the function `relu`"):
        attribute("layer_deep_lift", model, TOKENS, x, layer=model.get_submodule(layer), baselines=baselines)


@pytest.mark.parametrize("layer", ["embedding", "first"])
def test_deep_lift_behind_an_embedding_is_complete(layer: str) -> None:
    model, none = Tokens(nn.ReLU()).eval(), torch.zeros_like(TOKENS)
    found = value("layer_deep_lift", model, TOKENS, layer=model.get_submodule(layer), baselines=none)
    torch.testing.assert_close(found.sum((1, 2)), (model(TOKENS) - model(none))[:, 1])


def test_nothing_to_attach_to() -> None:
    model = nn.Sequential(nn.Linear(4, 3), Cut(), nn.ReLU())
    with pytest.raises(MethodError, match="no gradient leads from the layer to the output"):
        attribute("layer_deep_lift", model, torch.randn(2, 4), layer=model[0], baselines=torch.zeros(1, 4))


@pytest.mark.parametrize("key", [key for key, method in METHODS.items() if method.rule is not Rule.NONE])
def test_an_empty_trace_is_never_clean(key: str) -> None:
    """Whichever rules a method has, at the inputs, behind a layer or before a neuron."""
    model, method = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), Cut(), nn.Linear(3, 3), nn.ReLU()), METHODS[key]
    arguments: dict[str, Any] = (
        {"layer": model[3 if "neuron" in method.required else 0]} if "layer" in method.required else {}
    )
    arguments |= {"neuron": (1,)} if "neuron" in method.required else {}
    with pytest.raises(MethodError, match=r"no gradient leads from the (inputs|layer) to the (output|layer)"):
        refused(key, model, torch.randn(2, 4), **arguments)


def test_tokens_that_are_held_are_no_variables() -> None:
    """A factor made of them is a constant; of tokens that are explained it is none."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.first, self.second = nn.Embedding(20, 4), nn.Linear(4, 4), nn.Linear(4, 3)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
            gate = self.embedding(tokens.long().clamp(max=19)).mean(1)
            return self.second(self.relu(self.first(x) * gate))

    model, x, tokens = Gated().eval(), torch.randn(2, 4), TOKENS.int()
    found = value("deep_lift", model, x, exec_args={"additional_forward_args": (tokens,)})
    none = model(torch.zeros_like(x), tokens)
    torch.testing.assert_close(found.sum(1), (model(x, tokens) - none)[:, 1])
    baselines = (torch.zeros_like(x), torch.zeros_like(TOKENS))
    with pytest.raises(MethodError, match="no rule for the function `mul`"):
        attribute("layer_deep_lift", model, x, TOKENS, layer=model.first, baselines=baselines)


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x.detach())


@pytest.mark.parametrize("key", [*DIFFERENCES, "lrp"])
def test_module_used_twice(key: str) -> None:
    class Twice(With):
        def forward(self, x: Tensor) -> Tensor:
            return self.function(self.second(self.function(self.first(x))))

    with pytest.raises(MethodError, match=r"'function'.*used 2 times"):
        refused(key, Twice(nn.ReLU()), torch.randn(2, 4))


def test_deconvolution_with_a_rectifier_in_parallel_branches() -> None:
    class Parallel(With):
        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.function(self.first(x)) - self.function(-self.first(x)))

    with pytest.raises(MethodError, match="'function' is used in parallel branches"):
        refused("deconvolution", Parallel(nn.ReLU()), torch.randn(2, 4))


def test_deconvolution_with_a_rectifier_twice_in_a_row_of_layers() -> None:
    class Twice(With):
        def forward(self, x: Tensor) -> Tensor:
            return self.function(self.second(self.function(self.first(x))))

    refused("deconvolution", Twice(nn.ReLU()), torch.randn(2, 4))


@pytest.mark.parametrize("module", [nn.LeakyReLU(), nn.LayerNorm(6), nn.Softmax(1)])
def test_relevance_of_an_unknown_module(module: nn.Module) -> None:
    with pytest.raises(MethodError, match=rf"no rule for module 'function' of type {type(module).__name__}"):
        refused("lrp", With(module), torch.randn(2, 4))


@pytest.mark.parametrize("function", [lambda x: x + 1, lambda x: 2 * x, lambda x: x + x, lambda x: x - x.mean(1, True)])
def test_relevance_of_a_function(function: Any) -> None:
    with pytest.raises(MethodError, match="called in a forward method"):
        refused("lrp", With(function), torch.randn(2, 4))


def test_relevance_of_a_value_used_with_and_without_a_rule() -> None:
    class Mixed(With):
        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return torch.cat([self.second(x), self.function(x)], 1)

    with pytest.raises(MethodError, match="a value is used by"):
        refused("lrp", Mixed(nn.ReLU()), torch.randn(2, 4))


def test_relevance_of_a_function_of_the_output() -> None:
    with pytest.raises(TargetError, match="Name the output by its index"):
        refused("lrp", With(nn.ReLU()), torch.randn(2, 4), target=Target(function=lambda out: out[:, 0] - out[:, 1]))


@pytest.mark.parametrize("key", [*RECTIFIED, *DIFFERENCES, "lrp"])
def test_a_callable_has_no_modules(key: str) -> None:
    with pytest.raises(MethodError, match="without modules"):
        refused(key, lambda x: x, torch.randn(2, 4))


def test_a_scripted_model_has_no_modules() -> None:
    with warnings.catch_warnings():
        # Scripting is deprecated, and still in use.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4))
    with pytest.raises(MethodError, match="scripted"):
        refused("guided_backprop", traced, torch.randn(2, 4))


def test_a_bridge_has_no_rules() -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.relu()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad

    with pytest.raises(MethodError, match="opaque"):
        refused("deep_lift", With(Opaque.apply), torch.randn(2, 4))


def test_a_model_that_fails() -> None:
    with pytest.raises(MethodError, match="the model failed on the inputs"):
        refused("deep_lift", With(nn.ReLU()), torch.randn(2, 7))
    with pytest.raises(MethodError, match="Saliency failed"):
        refused("saliency", With(nn.ReLU()), torch.randn(2, 7))


@pytest.mark.parametrize("key", ["grad_cam", "guided_grad_cam"])
def test_channels_behind_axis_one(key: str) -> None:
    model = SmallCNN()
    with pytest.raises(LayerError, match="channels of this layer are axis 3"):
        attribute(key, model, images(), layer=model.conv2, layer_channel_axis=3)


def test_grad_cam_of_a_layer_without_space() -> None:
    model = SmallCNN()
    with pytest.raises(LayerError, match="Choose a convolution"):
        attribute("grad_cam", model, images(), layer=model.fc1)


def test_guided_grad_cam_of_channels_last_inputs() -> None:
    model = SmallCNN()
    with pytest.raises(InputError, match="upsample='nearest'"):
        attribute("guided_grad_cam", model, images(), layer=model.conv2, channel_axis=(3,))


def test_guided_grad_cam_that_captum_cannot_stretch() -> None:
    """Captum returns an empty array and warns."""
    model = SmallCNN()
    with pytest.raises(MethodError, match="interpolate"):
        attribute("guided_grad_cam", model, images(), layer=model.conv2, exec_args={"interpolate_mode": "linear"})


@pytest.mark.parametrize("key", ["grad_cam", "layer_conductance", "neuron_gradient"])
def test_no_layer(key: str) -> None:
    with pytest.raises(LayerError, match="pass layer="):
        attribute(key, SmallCNN(), images(), neuron=(1, 1, 1))


def test_several_layers_where_one_is_explained() -> None:
    model = SmallCNN()
    with pytest.raises(LayerError, match="one layer, not 2"):
        attribute("grad_cam", model, images(), layer=(model.conv1, model.conv2))


def test_layer_that_is_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    model = Twice()
    with pytest.raises(LayerError, match="called 2 times"):
        attribute("layer_activation", model, torch.randn(2, 4), layer=model.layer)


@pytest.mark.parametrize("key", ["layer_activation", "grad_cam", "layer_integrated_gradients", "neuron_gradient"])
def test_layer_that_is_never_called(key: str) -> None:
    model = SmallCNN()
    model.unused = nn.Conv2d(1, 1, 1)
    with pytest.raises(LayerError, match="does not call the layer"):
        attribute(key, model, images(), layer=model.unused, neuron=(1, 1, 1))


def test_no_neuron() -> None:
    model = SmallCNN()
    with pytest.raises(ArgumentError, match="pass neuron="):
        attribute("neuron_gradient", model, images(), layer=model.conv1)


def test_no_inputs() -> None:
    with pytest.raises(ArgumentError, match="pass inputs="):
        attribute("saliency", SmallCNN())


def test_integers_have_no_gradient() -> None:
    with pytest.raises(InputError, match=r"torch\.int64.*layer_integrated_gradients"):
        attribute("saliency", nn.Sequential(nn.Embedding(5, 3), nn.Flatten()), torch.zeros(1, 2, dtype=torch.int64))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embedding(tokens)).mean(1))


@pytest.mark.parametrize("layer", ["embedding", "head"])
@pytest.mark.parametrize("key", ["layer_conductance", "internal_influence", "layer_gradient_shap", "noise_tunnel"])
def test_nothing_lies_between_whole_numbers(key: str, layer: str) -> None:
    model, own = Words(), {"method": "layer_integrated_gradients"} if key == "noise_tunnel" else {}
    baselines = {"baselines": torch.zeros(2, 4, dtype=torch.int64)} if key == "layer_gradient_shap" else {}
    with pytest.raises(InputError, match=r"'\w+' (runs|adds).*torch\.int64.*behind the embedding"):
        attribute(
            key, model, torch.ones(2, 4, dtype=torch.int64), layer=getattr(model, layer), init_args=own, **baselines
        )


@pytest.mark.parametrize("key", ["deep_lift_shap", "gradient_shap"])
def test_no_distribution_of_baselines(key: str) -> None:
    with pytest.raises(ArgumentError, match="pass baselines="):
        attribute(key, SmallCNN(), images())
    with pytest.raises(InputError, match="distribution"):
        attribute(key, SmallCNN(), images(), baselines=0.0)


def test_one_baseline_is_no_distribution() -> None:
    with pytest.raises(InputError, match="at least 2"):
        attribute("deep_lift_shap", SmallCNN(), images(), baselines=torch.zeros(1, *IMAGE))


def test_baselines_that_the_tunnel_cannot_repeat() -> None:
    with pytest.raises(InputError, match="draw_baseline_from_distrib"):
        attribute(
            "noise_tunnel",
            SmallCNN(),
            images(),
            baselines=torch.zeros(3, *IMAGE),
            init_args={"method": "gradient_shap"},
        )


def test_no_window() -> None:
    with pytest.raises(ArgumentError, match="sliding_window_shapes"):
        attribute("occlusion", SmallCNN(), images())


def test_shapley_values_of_too_many_features() -> None:
    with pytest.raises(ArgumentError, match=r"420 features.*feature_mask"):
        attribute("shapley_values", SmallCNN(), images())
    with pytest.raises(ArgumentError, match="14 features"):
        attribute(
            "shapley_values", SmallCNN(), images(), exec_args={"feature_mask": torch.arange(14).expand(1, *IMAGE)}
        )


@pytest.mark.parametrize("key", ["feature_permutation", "layer_feature_permutation"])
def test_permutation_of_one_sample(key: str) -> None:
    model = SmallCNN()
    layer = {"layer": model.conv1} if key.startswith("layer") else {}
    with pytest.raises(InputError, match="at least two samples"):
        attribute(key, model, images(1), **layer)


@pytest.mark.parametrize(
    ("exec_args", "message"),
    [
        ({"upsample": "cubic"}, "'nearest', 'bilinear'"),
        ({"upsample": "nearest", "attr_dim_summation": False}, "attr_dim_summation"),
    ],
)
def test_upsampling_of_another_kind(exec_args: dict[str, Any], message: str) -> None:
    model = SmallCNN()
    with pytest.raises(ArgumentError, match=message):
        attribute("grad_cam", model, images(), layer=model.conv2, exec_args=exec_args)


def test_upsampling_over_other_axes() -> None:
    model = nn.Sequential(nn.Unflatten(1, (2, 6)), nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 5))
    with pytest.raises(ArgumentError, match="1 spatial axes over an input with 0"):
        attribute(
            "grad_cam", model, torch.randn(2, 12), layer=model[1], channel_axis=(1,), exec_args={"upsample": "nearest"}
        )


def test_tunnel_around_nothing_known() -> None:
    with pytest.raises(ArgumentError, match="saliency"):
        attribute("noise_tunnel", SmallCNN(), images(), init_args={"method": "noise_tunnel"})


def test_tunnel_with_arguments_of_another_method() -> None:
    with pytest.raises(ArgumentError, match="'saliency' inside 'noise_tunnel' does not take 'n_steps'"):
        attribute("noise_tunnel", SmallCNN(), images(), exec_args={"n_steps": 3})


def test_function_that_mixes_the_samples() -> None:
    with pytest.raises(TargetError, match="one value per sample"):
        attribute("saliency", SmallCNN(), images(), target=Target(function=lambda out: out.mean()))
    with pytest.raises(TargetError, match="one value per sample"):
        attribute("saliency", SmallCNN(), images(), target=Target(function=lambda out: out[:, :2]))


def test_model_with_one_value_per_batch() -> None:
    with pytest.raises(MethodError, match="one value per sample"):
        attribute("feature_ablation", lambda x: x.sum(), torch.randn(2, 3), target=None, channel_axis=(None,))


def test_the_hint_for_axes_in_another_order_is_one_for_tensors() -> None:
    model = nn.Conv2d(3, 2, 3).eval()
    with pytest.raises(
        cfi.InputError, match=r"x\.permute\(0, 3, 1, 2\) \(of a numpy array, x\.transpose\(0, 3, 1, 2\)\)"
    ):
        cfi.attribute(model, "saliency", "captum", inputs=torch.rand(2, 8, 10, 3), target=(1, 2, 2))
