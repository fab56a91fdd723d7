"""Held inputs of toolsets that hand nothing to the model besides what they explain: as on a wrapper written by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from shared_cnn import apart

import cfi_core as cfi
from cfi_core.silence import without_warnings

import keras  # isort: skip - after torch, which shared_cnn loads first
import shap
import torch
from torch import nn

import cfi_quantus

with without_warnings():
    import tf_keras_vis.gradcam
    import tf_keras_vis.saliency
    import tf_keras_vis.scorecam
    import torchray.attribution.common
    import torchray.attribution.grad_cam
    import torchray.attribution.rise
    import zennit.attribution
    import zennit.composites
    from tf_explain.core.grad_cam import GradCAM
    from tf_explain.core.integrated_gradients import IntegratedGradients
    from tf_keras_vis.utils.scores import CategoricalScore

GENERATOR = np.random.default_rng(7)
IMAGES = GENERATOR.normal(size=(3, 3, 6, 8)).astype(np.float32)  # channels first
MASK = np.array([[1, 1, 1, 1, 0, 0, 1, 1], [0, 1, 1, 0, 1, 1, 0, 1], [1, 0, 1, 1, 1, 0, 0, 0]])
TARGETS = [1, 3, 2]
KERNEL = GENERATOR.normal(size=(3, 3, 3, 4)).astype(np.float32)
WEIGHTS = GENERATOR.normal(size=(4, 5)).astype(np.float32)


class TorchMasked(nn.Module):
    """Sees columns of an image alone that the mask lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.relu, self.pool, self.flat = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(4, 5, bias=False)
        self.conv.weight.data = torch.tensor(KERNEL.transpose(3, 2, 0, 1)).contiguous()
        self.head.weight.data = torch.tensor(WEIGHTS.T).contiguous()

    def forward(self, pixels: torch.Tensor, mask: torch.Tensor, flag: bool = False) -> torch.Tensor:
        seen = pixels * mask[:, None, None, :].to(pixels.dtype)
        return self.head(self.flat(self.pool(self.relu(self.conv(seen)))))


def keras_masked(row: np.ndarray | None = None) -> keras.Model:
    """The same; of one row, a wrapper as one writes it by hand."""
    layers = keras.layers
    pixels, mask = keras.Input((6, 8, 3), name="pixels"), keras.Input((8,), dtype="int32", name="mask")
    conv = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")
    head = layers.Dense(5, use_bias=False, name="head")
    chosen = mask if row is None else keras.ops.convert_to_tensor(row.astype(np.int32))
    columns = keras.ops.cast(keras.ops.reshape(chosen, (-1, 1, 8, 1)), "float32")
    seen = layers.Multiply()([pixels, columns]) if row is None else pixels * columns
    outputs = head(layers.GlobalAveragePooling2D()(layers.ReLU(name="relu")(conv(seen))))
    model = keras.Model({"mask": mask, "pixels": pixels} if row is None else pixels, outputs)
    conv.set_weights([KERNEL])
    head.set_weights([WEIGHTS])
    return model


class Wrapper(nn.Module):
    def __init__(self, row: np.ndarray) -> None:
        super().__init__()
        self.model, self.row = TorchMasked().eval(), torch.tensor(row)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels, self.row.expand(len(pixels), -1))


Hand = Callable[[SimpleNamespace], Any]


def by_hand(toolset: str, hand: Hand) -> np.ndarray:
    """One sample after the other on its wrapper; channels first."""
    found = []
    for i, target in enumerate(TARGETS):
        row, image = MASK[i : i + 1], IMAGES[i : i + 1]
        if toolset.startswith("tf"):
            one = SimpleNamespace(model=keras_masked(row), x=np.moveaxis(image, 1, -1), target=target)
            value = np.asarray(hand(one))
            found.append(np.moveaxis(value, -1, 1) if value.ndim == 4 else value)
        else:
            one = SimpleNamespace(model=Wrapper(row).eval(), x=torch.tensor(image), target=target)
            value = hand(one)
            found.append(np.asarray(value.detach() if isinstance(value, torch.Tensor) else value))
    return np.concatenate(found)


def start(one: SimpleNamespace) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda outputs: torch.eye(5)[[one.target]] * torch.ones_like(outputs)


def smooth_zennit(one: SimpleNamespace) -> Any:
    torch.manual_seed(5)
    attributor = zennit.attribution.SmoothGrad(one.model, noise_level=0.2, n_iter=4, attr_output=start(one))
    return attributor(one.x)[1]


def smooth_keras(one: SimpleNamespace) -> Any:
    np.random.seed(5)
    tool = tf_keras_vis.saliency.Saliency(one.model, clone=False)
    options = {"smooth_samples": 4, "keepdims": True, "gradient_modifier": None, "normalize_map": False}
    return tool(CategoricalScore([one.target]), one.x, **options)


def cam_keras(one: SimpleNamespace) -> Any:
    tool = tf_keras_vis.gradcam.Gradcam(one.model, clone=False)
    options = {"activation_modifier": None, "expand_cam": False, "normalize_cam": False}
    return tool(CategoricalScore([one.target]), one.x, penultimate_layer="conv", **options)


def score_keras(one: SimpleNamespace) -> Any:
    one.model.predict = lambda x, batch_size: keras.Model.predict(one.model, x, batch_size=batch_size, verbose=0)
    tool = tf_keras_vis.scorecam.Scorecam(one.model, clone=False)
    options = {"activation_modifier": None, "expand_cam": False, "normalize_cam": False}
    return tool(CategoricalScore([one.target]), one.x, penultimate_layer="conv", **options)


def cam_tfexplain(one: SimpleNamespace) -> Any:
    outputs, gradients = GradCAM.get_gradients_and_filters(one.model, one.x, "conv", one.target, False)
    return np.stack([np.asarray(part) for part in GradCAM.generate_ponderated_output(outputs, gradients)])


def path_tfexplain(one: SimpleNamespace) -> Any:
    path = IntegratedGradients.generate_interpolations(one.x, 600)
    return IntegratedGradients.get_integrated_gradients(path, one.model, one.target, 600) * one.x


def lrp_zennit(one: SimpleNamespace) -> Any:
    composite = zennit.composites.EpsilonPlus()
    output = one.model(one.x).detach()
    with zennit.attribution.Gradient(one.model, composite) as attributor:
        return attributor(one.x, torch.eye(5)[[one.target]] * output)[1]


def ray(one: SimpleNamespace) -> Any:
    return torchray.attribution.common.saliency(
        one.model, one.x.clone(), one.target, gradient_to_saliency=lambda x: x.grad
    )


def ray_cam(one: SimpleNamespace) -> Any:
    to_map = lambda x: (x.detach() * x.grad.mean((2, 3), keepdim=True)).sum(1)  # noqa: E731
    layer = one.model.model.conv
    return torchray.attribution.common.saliency(
        one.model, one.x.clone(), one.target, saliency_layer=layer, gradient_to_saliency=to_map
    )


def rise(one: SimpleNamespace) -> Any:
    maps = torchray.attribution.rise.rise(one.model, one.x.clone(), num_masks=40, num_cells=3, seed=5)
    return maps[:, one.target]


def shapley(one: SimpleNamespace) -> Any:
    def score(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return (
                one.model(torch.tensor(rows, dtype=torch.float32).reshape(-1, 3, 6, 8))[:, one.target].double().numpy()
            )

    np.random.seed(5)
    explainer = shap.KernelExplainer(score, np.zeros((1, 144)))
    return explainer.shap_values(one.x.numpy().reshape(1, -1), silent=True, nsamples=300, l1_reg=False).reshape(
        1, 3, 6, 8
    )


def expected_gradients(one: SimpleNamespace) -> Any:
    class Score(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return one.model(x.float())[:, [one.target]]

    explainer = shap.GradientExplainer(Score().eval(), torch.tensor(IMAGES[:2]))
    return explainer.shap_values(one.x, nsamples=20, rseed=5).reshape(1, 3, 6, 8)


CASES: dict[str, tuple[str, str, dict[str, Any], Hand]] = {
    "zennit smooth_grad": (
        "zennit",
        "smooth_grad",
        {"init_args": {"noise_level": 0.2, "n_iter": 4}},
        smooth_zennit,
    ),
    "zennit lrp": ("zennit", "lrp_epsilon_plus", {}, lrp_zennit),
    "torchray saliency": ("torchray", "saliency", {}, ray),
    "torchray grad_cam": ("torchray", "grad_cam", {"layer": "conv"}, ray_cam),
    "torchray rise": (
        "torchray",
        "rise",
        {"exec_args": {"num_masks": 40, "num_cells": 3, "sigmoid": True, "divide_by_p": False}},
        rise,
    ),
    "shap kernel": ("shap", "kernel_shap", {"baselines": 0, "exec_args": {"nsamples": 300}}, shapley),
    "shap gradient": ("shap", "gradient_shap", {"exec_args": {"nsamples": 20}}, expected_gradients),
    "tf-keras-vis smooth_grad": ("tf-keras-vis", "smooth_grad", {"exec_args": {"smooth_samples": 4}}, smooth_keras),
    "tf-keras-vis grad_cam": ("tf-keras-vis", "grad_cam", {"layer": "conv"}, cam_keras),
    "tf-keras-vis score_cam": ("tf-keras-vis", "score_cam", {"layer": "conv"}, score_keras),
    "tf-explain grad_cam": ("tf-explain", "grad_cam", {"layer": "conv"}, cam_tfexplain),
    "tf-explain integrated_gradients": (
        "tf-explain",
        "integrated_gradients",
        {"exec_args": {"n_steps": 600}},
        path_tfexplain,
    ),
}


@pytest.mark.filterwarnings("ignore:TorchRay is licensed")
@pytest.mark.filterwarnings("ignore:.*no rule matches the function `mul`")  # of the mask, in the hands of LRP
@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("case", CASES)
def test_as_by_hand_on_one_sample_with_its_mask(case: str, framework: str) -> None:
    toolset, key, arguments, hand = CASES[case]
    if case == "shap gradient":
        base = IMAGES[:2] if framework == "torch" else np.moveaxis(IMAGES[:2], 1, -1)
        arguments = {**arguments, "baselines": base}
    model = TorchMasked().eval() if framework == "torch" else keras_masked()
    images = IMAGES if framework == "torch" else np.moveaxis(IMAGES, 1, -1)
    found = cfi.attribute(
        model, key, toolset, inputs={"mask": MASK, "pixels": images}, target=TARGETS, seed=5, **arguments
    )
    values = found.values["pixels"] if isinstance(found.values, dict) else found.values
    values = np.moveaxis(values, -1, 1) if framework == "keras" and values.ndim == 4 else values
    expected = by_hand(toolset, hand)
    assert values.shape == expected.shape
    # tf-explain counts the ends of the path whole.
    assert apart(values, expected) < (5e-3 if case == "tf-explain integrated_gradients" else 1e-5)
    assert found.provenance["held"].startswith("mask: constants of the model, one run for each sample")


def explain(model: nn.Module, key: str, toolset: str, mask: np.ndarray = MASK, **arguments: Any) -> cfi.Attribution:
    arguments = {"target": TARGETS, "seed": 5, **arguments}
    found = cfi.attribute(model, key, toolset, inputs={"pixels": IMAGES, "mask": mask}, **arguments)
    assert isinstance(found, cfi.Attribution)
    return found


def gradients(images: np.ndarray) -> np.ndarray:
    """Of the targets, each sample with its mask, by autograd."""
    x = torch.tensor(images, requires_grad=True)
    TorchMasked()(x, torch.tensor(MASK))[torch.arange(3), torch.tensor(TARGETS)].sum().backward()
    assert x.grad is not None
    return x.grad.numpy()


def test_one_run_for_samples_that_hold_the_same() -> None:
    """So the draws are those of the whole batch."""
    row = MASK[:1]
    found = explain(TorchMasked().eval(), "smooth_grad", "zennit", np.repeat(row, 3, 0), init_args={"n_iter": 3})
    start = lambda outputs: torch.eye(5)[TARGETS]  # noqa: E731
    attributor = zennit.attribution.SmoothGrad(Wrapper(row).eval(), n_iter=3, attr_output=start)
    torch.manual_seed(5)
    assert apart(found.values["pixels"], attributor(torch.tensor(IMAGES))[1].numpy()) < 1e-5
    assert found.provenance["held"] == "mask: constants of the model, one run, as all samples hold the same"


@pytest.mark.parametrize("toolset", ["tf-keras-vis", "tf-explain"])
def test_a_conversion_is_compared_with_the_masks_that_the_run_had(toolset: str) -> None:
    found = explain(TorchMasked().eval(), "saliency", toolset, translator="conversion")
    assert apart(found.values["pixels"], gradients(IMAGES)) < 1e-5
    assert found.certificate is not None
    assert [one.samples for one in found.certificate.measurements if "that the run fed" in one.samples_of] == [3]


def test_baselines_and_scores_go_with_their_sample() -> None:
    baselines = GENERATOR.normal(size=IMAGES.shape).astype(np.float32)
    path = explain(
        TorchMasked().eval(), "integrated_gradients", "zennit", baselines=baselines, init_args={"n_iter": 200}
    )
    shares = (np.arange(200) + 1) / 200
    mean = np.mean([gradients((baselines + share * (IMAGES - baselines)).astype(np.float32)) for share in shares], 0)
    assert apart(path.values["pixels"], mean * (IMAGES - baselines)) < 1e-2
    assert path.provenance["completeness"]["gap"] < 0.02
    scored = explain(
        TorchMasked().eval(), "saliency", "tf-keras-vis", target=None, exec_args={"score": CategoricalScore(TARGETS)}
    )
    assert apart(scored.values["pixels"], gradients(IMAGES)) < 1e-5
    start = torch.eye(5)[TARGETS]
    begun = explain(TorchMasked().eval(), "saliency", "zennit", target=None, exec_args={"attr_output": start})
    assert apart(begun.values["pixels"], gradients(IMAGES)) < 1e-5


def test_a_function_that_tells_samples_by_their_places_is_refused() -> None:
    def by_place(outputs: torch.Tensor) -> torch.Tensor:
        return outputs[range(len(outputs)), TARGETS[: len(outputs)]]

    with pytest.raises(cfi.TargetError, match=r"not given all samples at once here.* another value for one"):
        explain(TorchMasked().eval(), "saliency", "zennit", target=by_place)
    with pytest.raises(cfi.TargetError, match=r"not given all samples at once here.* fails on one"):
        explain(TorchMasked().eval(), "saliency", "zennit", target=lambda outputs: outputs[range(3), TARGETS])
    found = explain(TorchMasked().eval(), "saliency", "zennit", target=lambda outputs: outputs[:, 0] * outputs[:, 1])
    assert found.values["pixels"].shape == IMAGES.shape


def test_pictures_stand_side_by_side() -> None:
    model = keras_masked()
    given = {"pixels": np.moveaxis(IMAGES, 1, -1), "mask": MASK}
    found = cfi.attribute(model, "saliency", "tf-explain", inputs=given, target=2, defaults="toolset")
    assert found.extras["picture"].shape[:2] == (6, 24) and found.values["pixels"].shape == (3, 6, 8)


def test_the_layers_are_left_as_they_are() -> None:
    model = keras_masked()
    before = {layer.name: (len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers}
    given = {"pixels": np.moveaxis(IMAGES, 1, -1), "mask": MASK}
    cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=given, target=TARGETS, layer=model.get_layer("relu"))
    assert {x.name: (len(x._inbound_nodes), len(x._outbound_nodes)) for x in model.layers} == before


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_quantus_measures_each_sample_with_its_mask(framework: str) -> None:
    """As on the wrapper of that sample."""
    model = TorchMasked().eval() if framework == "torch" else keras_masked()
    images = IMAGES if framework == "torch" else np.moveaxis(IMAGES, 1, -1)
    given = {"pixels": images, "mask": MASK}
    found = cfi.attribute(model, "saliency", inputs=given, target=TARGETS, toolset="zennit")
    metrics = {
        "faithfulness": ("Faithfulness Correlation", {"nr_runs": 8, "subset_size": 12}),
        "stability": ("Avg-Sensitivity", {"nr_samples": 2}),
    }
    scores = cfi_quantus.evaluate(model, found, metrics, inputs=given, target=TARGETS, seed=3)
    for i, target in enumerate(TARGETS):
        wrapper, x = Wrapper(MASK[i : i + 1]).eval(), IMAGES[i : i + 1]
        alone = cfi.attribute(wrapper, "saliency", "zennit", inputs=x, target=[target])
        by_hand = cfi_quantus.evaluate(wrapper, alone, metrics, inputs=x, target=[target], seed=3)
        for name in metrics:
            np.testing.assert_allclose(scores[name].values[:, i], by_hand[name].values[:, 0], rtol=1e-3, atol=1e-4)
    with pytest.raises(cfi.ArgumentError, match=r"measures samples together|one score for all samples"):
        cfi_quantus.evaluate(model, found, ["Random Logit", "Non-Sensitivity", "ROAD"], inputs=given, target=TARGETS)
