"""Checks of explanations of real models: Captum's numbers on the same draws, and copies in every framework."""

from __future__ import annotations

import json

import keras
import numpy as np
import onnx
import pytest
import torch
from captum.attr import IntegratedGradients, Saliency
from captum.metrics import infidelity, sensitivity_max
from scipy.stats import spearmanr
from torch import nn

import cfi_core as cfi

TARGETS = [1, 4, 2]
GENERATOR = np.random.default_rng(5)
IMAGES = GENERATOR.normal(size=(3, 3, 9, 11)).astype("float32")
NOISE = GENERATOR.normal(scale=0.1, size=(20, *IMAGES.shape)).astype("float32")


def torch_model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 5 * 7, 6)]
    return nn.Sequential(*layers).eval()


def keras_model() -> keras.Model:
    """The same, channels last, with a softmax."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((9, 11, 3)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.Conv2D(6, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(6),
            layers.Softmax(),
        ]
    )
    twin = torch_model()
    convolutions = [
        [np.moveaxis(twin[i].weight.detach().numpy(), (0, 1), (3, 2)), twin[i].bias.detach().numpy()] for i in (0, 2)
    ]
    dense = twin[5].weight.detach().numpy().reshape(6, 6, 5, 7).transpose(2, 3, 1, 0).reshape(-1, 6)
    model.set_weights([*convolutions[0], *convolutions[1], dense, twin[5].bias.detach().numpy()])
    return model


def as_keras(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(images, 1, -1)


class Draws:
    """Hands captum one perturbation after the other, for all samples; it asks for several at once."""

    def __init__(self, noise: np.ndarray) -> None:
        self.noise, self.next = torch.from_numpy(noise), 0

    def take(self, rows: int) -> torch.Tensor:
        count, start = rows // len(IMAGES), self.next
        self.next += count
        # Captum repeats each sample in a row.
        return self.noise[start : start + count].transpose(0, 1).reshape(rows, *IMAGES.shape[1:])


def test_infidelity_is_captums() -> None:
    model, images = torch_model(), torch.from_numpy(IMAGES)
    made = cfi.attribute(model, "saliency", "captum", inputs=images, target=TARGETS)
    found = cfi.check(made, model, checks={"infidelity": {"perturbations": NOISE}})["infidelity"]
    draws = Draws(NOISE)

    def perturb(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noise = draws.take(len(inputs))
        return noise, inputs - noise

    values = torch.from_numpy(made.values)
    by_hand = infidelity(model, perturb, images, values, target=TARGETS, n_perturb_samples=20)
    np.testing.assert_allclose(found.settings["infidelity"], by_hand, rtol=1e-3)
    draws.next = 0
    scaled = infidelity(model, perturb, images, values, target=TARGETS, n_perturb_samples=20, normalize=True)
    np.testing.assert_allclose(found.scores * found.settings["infidelity of zero"], scaled, rtol=1e-3)


def test_max_sensitivity_is_captums() -> None:
    model, images = torch_model(), torch.from_numpy(IMAGES)
    made = cfi.attribute(
        model, "integrated_gradients", "captum", inputs=images, target=TARGETS, exec_args={"n_steps": 20}
    )
    found = cfi.check(made, model, checks={"max_sensitivity": {"perturbations": NOISE}})["max_sensitivity"]
    draws = Draws(NOISE)
    explain = IntegratedGradients(model).attribute
    by_hand = sensitivity_max(
        explain,
        images,
        lambda inputs: inputs + draws.take(len(inputs)),
        n_perturb_samples=20,
        target=TARGETS,
        n_steps=20,
    )
    np.testing.assert_allclose(found.scores, by_hand.detach(), rtol=1e-4)


READINGS = {
    "contributions": [
        ("noise_tunnel", {"init_args": {"method": "integrated_gradients"}}),
        ("noise_tunnel", {"init_args": {"method": "deep_lift"}, "exec_args": {"nt_samples": 2}}),
        ("integrated_gradients", {}),
        ("input_x_gradient", {}),
    ],
    "gradients": [
        ("noise_tunnel", {"init_args": {"method": "saliency"}}),
        ("integrated_gradients", {"init_args": {"multiply_by_inputs": False}}),
        ("deep_lift", {"init_args": {"multiply_by_inputs": False}}),
        ("saliency", {}),
    ],
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.filterwarnings("ignore::cfi_core.errors.SamplingWarning")
def test_values_are_read_as_what_the_method_makes_also_inside_of_another(reading: str) -> None:
    """A tunnel around Integrated Gradients gives contributions; Integrated Gradients without the input, gradients."""
    model = torch_model()
    for key, given in READINGS[reading]:
        baselines = {} if key in ("saliency", "input_x_gradient") or "saliency" in str(given) else {"baselines": 0}
        made = cfi.attribute(model, key, "captum", inputs=IMAGES, target=TARGETS, seed=0, **baselines, **given)
        found = cfi.check(made, model, checks={"infidelity": {"draws": 3}}, seed=0)["infidelity"]
        assert found.settings["reading"] == reading, (key, given)
        assert reading == "gradients" or key == "input_x_gradient" or found.settings["baseline"] == 0.0


def test_a_keras_model_over_a_bridge_has_the_numbers_of_its_torch_twin() -> None:
    twin, model = torch_model(), keras_model()
    some = NOISE[:4]
    last = some.transpose(0, 1, 3, 4, 2)
    given = {"target": TARGETS, "exec_args": {"n_steps": 5}, "head": "logit"}
    options = {name: {"perturbations": some} for name in ("infidelity", "max_sensitivity")}
    options["infidelity"]["reading"] = "gradients"
    curves = {name: {"baseline": "mean"} for name in ("deletion", "insertion")}
    native = cfi.attribute(twin, "integrated_gradients", "captum", inputs=IMAGES, **given)
    across = cfi.attribute(model, "integrated_gradients", "captum", inputs=as_keras(IMAGES), **given)
    assert across.route == ("bridge-to-torch",)
    asked = {"head": "logit"}
    one = cfi.check(native, twin, checks={**options, **curves}, explain=asked, seed=0)
    turned = {name: {**value, "perturbations": last} for name, value in options.items()}
    other = cfi.check(across, model, checks={**turned, **curves}, explain=asked, seed=0)
    for name, check in one.found.items():
        np.testing.assert_allclose(check.scores, other[name].scores, rtol=2e-3, err_msg=name)


def test_deletion_is_what_a_loop_over_pixels_gives() -> None:
    model = torch_model()
    made = cfi.attribute(
        model, "occlusion", "captum", inputs=IMAGES, target=TARGETS, exec_args={"sliding_window_shapes": (3, 1, 1)}
    )
    found = cfi.check(made, model, checks={"deletion": {"baseline": 0, "steps": 99}}, seed=0)["deletion"]
    for sample, target in enumerate(TARGETS):
        image, curve = IMAGES[sample].copy(), []
        for place in [None, *np.argsort(-made.values[sample].sum(0).ravel())]:
            if place is not None:
                image.reshape(3, 99)[:, place] = 0
            curve.append(model(torch.from_numpy(image[None]))[0, target].item())
        np.testing.assert_allclose(found.curves[0].values[sample], curve, rtol=1e-4, atol=1e-5)
        assert found.scores[sample] == pytest.approx((np.sum(curve) - (curve[0] + curve[-1]) / 2) / 99, rel=1e-4)


def test_the_cascade_is_the_one_made_by_hand() -> None:
    model, images = torch_model(), torch.from_numpy(IMAGES)
    made = cfi.attribute(model, "saliency", "captum", inputs=images, target=TARGETS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = cfi.check(made, model, checks={"parameter_randomisation": {"draws": 1}}, seed=8)["parameter_randomisation"]
    generator, copy = np.random.default_rng(8), torch_model()
    for step, layer in enumerate(("5", "2", "0")):
        weight, bias = (getattr(model[int(layer)], name).detach().double().numpy() for name in ("weight", "bias"))
        drawn = (
            generator.normal(0, np.sqrt((weight**2).mean()), weight.shape),
            generator.normal(bias.mean(), bias.std(), bias.shape),
        )
        with torch.no_grad():
            copy[int(layer)].weight.copy_(torch.from_numpy(drawn[0]))
            copy[int(layer)].bias.copy_(torch.from_numpy(drawn[1]))
        by_hand = Saliency(copy).attribute(images, target=TARGETS, abs=False).numpy()
        for sample in range(3):
            expected = spearmanr(made.values[sample].ravel(), by_hand[sample].ravel()).statistic
            assert found.curves[0].values[sample, step] == pytest.approx(expected, abs=1e-3)
    assert found.places == ("5", "2", "0")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_guided_backpropagation_hardly_depends_on_parameters_as_the_paper_found() -> None:
    """Adebayo et al. 2018, figure 2: it keeps what it shows while layers become random, and the gradient does not."""
    model = torch_model()
    with torch.no_grad():
        for layer in (0, 2):  # as after training: units react to something, and hardly at random
            model[layer].bias.add_(0.1)
    scores = {}
    for method in ("saliency", "guided_backprop"):
        made = cfi.attribute(model, method, "captum", inputs=IMAGES, target=TARGETS)
        scores[method] = cfi.check(made, model, checks="parameter_randomisation", seed=0)["parameter_randomisation"]
    first = {method: one.curves[0].values[:, 0].mean() for method, one in scores.items()}
    assert first["guided_backprop"] > 0.3 > abs(first["saliency"]) + 0.1


def nnx_model() -> object:
    import jax
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.second = nnx.Conv(3, 4, (3, 3), rngs=rngs)  # by name behind `first`, and defined before it
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.first = nnx.Linear(4 * 9 * 11, 6, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.first(nnx.relu(self.norm(self.second(x))).reshape(len(x), -1))

    net = Net()
    net.eval()
    return net


def linen_model() -> object:
    import jax
    from flax import linen

    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = linen.relu(linen.Conv(4, (3, 3), name="second")(x))
            return linen.Dense(6, name="first")(x.reshape(len(x), -1))

    module = Linen()
    return module.bind(module.init(jax.random.key(0), as_keras(IMAGES)))


def onnx_model() -> onnx.ModelProto:
    weights = {
        "kernel": GENERATOR.normal(size=(4, 3, 3, 3)),
        "dense": GENERATOR.normal(size=(4 * 7 * 9, 6)),
        "shift": np.ones(6),
    }
    nodes = [
        onnx.helper.make_node("Conv", ["x", "kernel"], ["c"], name="conv"),
        onnx.helper.make_node("Relu", ["c"], ["r"], name="relu"),
        onnx.helper.make_node("Flatten", ["r"], ["f"], name="flat"),
        onnx.helper.make_node("Gemm", ["f", "dense", "shift"], ["y"], name="gemm"),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [onnx.helper.make_tensor_value_info("x", kind, ["n", 3, 9, 11])],
        [onnx.helper.make_tensor_value_info("y", kind, ["n", 6])],
        [onnx.numpy_helper.from_array(value.astype("float32"), name) for name, value in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


MODELS = {"torch": torch_model, "keras": keras_model, "nnx": nnx_model, "linen": linen_model, "onnx": onnx_model}
LAYERS = {
    "torch": ["5", "2", "0"],
    "nnx": ["first", "norm", "second"],
    "linen": ["first", "second"],
    "onnx": ["gemm", "conv"],
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_framework_with_parameters_can_be_randomised(kind: str) -> None:
    model = MODELS[kind]()
    images = IMAGES if kind in ("torch", "onnx") else as_keras(IMAGES)
    method = {"method_key": "feature_ablation"} if kind == "onnx" else {"method_key": "saliency"}
    made = cfi.attribute(model, toolset="captum", inputs=images, target=TARGETS, **method)
    options = {"steps": 3, "draws": 1}
    found = cfi.check(made, model, checks={"parameter_randomisation": options}, seed=0)["parameter_randomisation"]
    assert abs(found.score) < 0.3 and not found.verdict
    if kind in LAYERS:
        assert [name for group in found.settings["layers"] for name in group] == LAYERS[kind]
    else:
        assert len(found.places) == 3
    again = cfi.attribute(model, toolset="captum", inputs=images, target=TARGETS, **method)
    np.testing.assert_array_equal(again.values, made.values)


def test_a_function_cannot_be_randomised_and_all_else_runs() -> None:
    model = torch_model()

    def function(images: torch.Tensor) -> torch.Tensor:
        return model(images)

    made = cfi.attribute(function, "integrated_gradients", "captum", inputs=torch.from_numpy(IMAGES), target=TARGETS)
    found = cfi.check(made, function, seed=0)
    assert set(found.found) == {"deletion", "insertion", "infidelity", "max_sensitivity", "completeness"}
    with pytest.raises(cfi.MethodError, match="a function of torch has no parameters"):
        cfi.check(made, function, checks=["parameter_randomisation"])


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(4, 3), nn.Linear(6, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        scores = self.first(a) + torch.tanh(self.second(b))
        return scores if mask is None else scores * mask


def test_inputs_by_name_are_given_again() -> None:
    model = Two().eval()
    a, b, mask = torch.randn(4, 4), torch.randn(4, 6), torch.rand(4, 1) + 0.5
    inputs, target = {"a": a, "b": b, "mask": mask}, [0, 1, 2, 0]
    made = cfi.attribute(
        model, "integrated_gradients", "captum", inputs=inputs, explain=("a", "b"), target=target, seed=1
    )
    with pytest.raises(cfi.InputError, match="inputs by name: pass inputs= as you gave them"):
        cfi.check(made, model, checks="deletion")
    given = {"inputs": inputs, "explain": {"explain": ("a", "b")}}
    found = cfi.check(made, model, **given, checks=["deletion", "max_sensitivity", "parameter_randomisation"], seed=0)
    with torch.no_grad():
        outputs = model(a, b, mask).numpy()
    np.testing.assert_allclose(found["deletion"].curves[0].values[:, 0], outputs[range(4), target], rtol=1e-5)
    assert 0 < found["max_sensitivity"].score < 1


class Sentences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.vectors, self.scores = nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.scores(torch.tanh(self.vectors(input_ids)).mean(1))


@pytest.mark.parametrize("by_name", [False, True])
def test_tokens_are_taken_out_where_values_are_of_embeddings(by_name: bool) -> None:
    model, tokens = Sentences().eval(), torch.randint(1, 30, (4, 7), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": tokens} if by_name else tokens
    made = cfi.attribute(model, "integrated_gradients", "captum", inputs=inputs, target=1, baselines=0, seed=0)
    given = {"inputs": inputs, "explain": {"baselines": 0}, "seed": 0}
    found = cfi.check(made, model, **given, checks={"deletion": {"baseline": 0}, "parameter_randomisation": {}})
    (values, dims), *_ = made.parts
    assert dims == ("sample", "token", "embedding")
    order = np.argsort(-values.sum(2), axis=1)
    curve = []
    for count in range(8):
        left = tokens.clone()
        for sample in range(4):
            left[sample, order[sample, :count].copy()] = 0
        curve.append(model(left)[:, 1].detach().numpy())
    np.testing.assert_allclose(found["deletion"].curves[0].values, np.array(curve).T, rtol=1e-5, atol=1e-6)
    with pytest.raises(cfi.InputError, match="the values are of embeddings: pass inputs= with the tokens"):
        cfi.check(made, model, checks="deletion")
    all_of_them = cfi.check(made, model, **given)
    assert "whole numbers" in all_of_them.left_out["max_sensitivity"]


def test_metrics_of_quantus_run_by_name(tmp_path) -> None:
    model = torch_model()
    made = cfi.attribute(model, "saliency", "captum", inputs=IMAGES, target=TARGETS)
    found = cfi.check(made, model, checks=["Sparseness", "quantus:Max-Sensitivity"], seed=3)
    import cfi_quantus

    scores = cfi_quantus.evaluate(model, made, ["Sparseness", "Max-Sensitivity"], seed=3)
    for name in ("Sparseness", "Max-Sensitivity"):
        np.testing.assert_array_equal(found[name].scores, scores[name].values.ravel())
    told = json.loads(found.save(tmp_path / "found.json").read_text())
    assert told["checks"]["Sparseness"]["better"] == "higher"
    assert set(found.to_xarray().data_vars) == {"Sparseness", "Max-Sensitivity"}
