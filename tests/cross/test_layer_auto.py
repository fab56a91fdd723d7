"""`layer="auto"`: the last layer whose output has axes of space and which the target's gradient reaches there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared_cnn import apart
from torch import Tensor, nn

import cfi_core as cfi

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 12, 20)).astype(np.float32)
TOOLSETS = ["captum", "torchray", "tf-keras-vis", "tf-explain"]

pytestmark = pytest.mark.filterwarnings("ignore:TorchRay is licensed")


def cnn(rank: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    conv, pool = [
        (nn.Conv1d, nn.AdaptiveAvgPool1d),
        (nn.Conv2d, nn.AdaptiveAvgPool2d),
        (nn.Conv3d, nn.AdaptiveAvgPool3d),
    ][rank - 1]
    return nn.Sequential(
        conv(3, 4, 3),
        nn.ReLU(),
        conv(4, 5, 3),
        nn.ReLU(),
        pool(1),
        nn.Flatten(),
        nn.Linear(5, 4),
        nn.Tanh(),
        nn.Linear(4, 3),
    ).eval()


class Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.query, self.key, self.value = (nn.Linear(features, features) for _ in range(3))
        self.out, self.mlp = nn.Linear(features, features), nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        weights = torch.softmax(self.query(normed) @ self.key(normed).transpose(1, 2) / 3, -1)
        x = x + self.out(weights @ self.value(normed))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Patches of 4 x 4; the head reads the class token, or the mean of all others."""

    def __init__(self, reads: str = "class", features: int = 8, depth: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.reads = reads
        self.embed = nn.Conv2d(3, features, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, features))
        self.positions = nn.Parameter(torch.randn(1, 16, features))
        self.blocks = nn.ModuleList(Block(features) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(features), nn.Linear(features, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return self.head(tokens[:, 0] if self.reads == "class" else tokens[:, 1:].mean(1))


def auto(model: Any, toolset: str = "captum", key: str = "grad_cam", **arguments: Any) -> Any:
    arguments = {"inputs": IMAGES, "target": 1, **arguments}
    return cfi.attribute(model, key, toolset, layer="auto", **arguments)


@pytest.mark.parametrize("toolset", TOOLSETS)
def test_a_cnn_is_explained_at_its_last_map_before_the_pooling(toolset):
    model = cnn()
    found = auto(model, toolset)
    assert found.layer == "3" and found.dims == ("sample", "height", "width")
    assert "'3', the last layer with axes of space that the target's gradient reaches" in found.provenance["layer"]
    named = cfi.attribute(model, "grad_cam", toolset, inputs=IMAGES, target=1, layer="3")
    np.testing.assert_array_equal(found.values, named.values)
    assert named.provenance["layer"] == "as given"


@pytest.mark.parametrize(("rank", "dims"), [(1, ("position",)), (3, ("depth", "height", "width"))])
def test_cnns_of_other_ranks(rank, dims):
    inputs = np.random.default_rng(0).standard_normal((2, 3, 8, 9, 7)[: rank + 2]).astype(np.float32)
    found = auto(cnn(rank), inputs=inputs)
    assert found.layer == "3" and found.dims == ("sample", *dims)


@pytest.mark.parametrize("toolset", TOOLSETS)
def test_a_transformer_whose_head_reads_the_class_token_is_explained_before_its_last_block_mixes(toolset):
    found = auto(Vit(), toolset)
    assert found.layer == "blocks.1.norm1"  # behind it no gradient reaches the patches but inside of the attention
    assert found.dims == ("sample", "height", "width") and found.values.shape == (2, 3, 5) and found.values.any()


def test_a_transformer_whose_head_reads_all_tokens_is_explained_at_its_end():
    assert auto(Vit("mean")).layer == "norm"


def test_a_target_function_reaches_what_the_output_reaches():
    assert auto(Vit(), target=lambda outputs: outputs[:, 0] - outputs[:, 1]).layer == "blocks.1.norm1"


def test_one_pixel_of_a_segmentation_is_explained_where_more_than_itself_is_seen():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 7, padding=3), nn.ReLU(), nn.Conv2d(4, 4, 7, padding=3), nn.Conv2d(4, 2, 1)
    ).eval()
    assert auto(model, target=(1, 6, 10)).layer == "1"


def test_models_without_space_are_refused_with_a_way_out():
    model = nn.Sequential(nn.Flatten(), nn.Linear(720, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    with pytest.raises(cfi.LayerError, match=r"layer='auto' found no layer.*cfi\.layers.*reshape="):
        auto(model)


def test_a_layer_of_that_name_is_meant_by_it():
    model = nn.Sequential()
    for name, layer in zip(
        ["auto", "last", "flat", "head"], [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)], strict=True
    ):
        model.add_module(name, layer)
    model(torch.tensor(IMAGES))
    assert auto(model.eval()).provenance["layer"] == "as given"


def test_the_plan_says_what_will_be_looked_for():
    plan = cfi.plan(cnn(), "grad_cam", "captum", inputs=IMAGES, target=1, layer="auto")
    assert plan.seeks_layer and not plan.needs_layer and "layer     found when it runs: the last one" in str(plan)


def test_a_neuron_is_a_unit_of_a_named_layer():
    with pytest.raises(cfi.ArgumentError, match="name the layer"):
        cfi.attribute(cnn(), "neuron_gradient", "captum", inputs=IMAGES, layer="auto", neuron=(0, 0, 0))


def test_maps_are_refused_where_a_layer_has_no_space_with_a_way_out():
    for toolset in TOOLSETS:
        with pytest.raises(cfi.LayerError, match=r"has none\. Pass layer='auto'.*reshape="):
            cfi.attribute(cnn(), "grad_cam", toolset, inputs=IMAGES, target=1, layer="6")


def test_a_layer_that_the_converted_model_does_not_have_is_passed_over():
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()
            self.second, self.scale = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.scale(self.second(self.relu(self.first(x)))).mean((2, 3)))

    model = Folded().eval()
    native = auto(model)
    crossed = auto(model, "tf-keras-vis", translator="conversion")
    assert native.layer == "scale"
    at_same = cfi.attribute(model, "grad_cam", "captum", inputs=IMAGES, target=1, layer=crossed.layer)
    assert apart(at_same.values, crossed.values) < 1e-4


def test_keras_models():
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((12, 20, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="last")(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    images = IMAGES.transpose(0, 2, 3, 1)
    for toolset in TOOLSETS:
        assert auto(model, toolset, inputs=images).layer == "last"


def test_flax_models():
    pytest.importorskip("jax")
    import jax
    from flax import linen

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.relu(linen.Conv(4, (3, 3), name="first")(x))
            x = linen.Conv(5, (3, 3), name="last")(x)
            return linen.Dense(3, name="head")(x.mean((1, 2)))

    images = IMAGES.transpose(0, 2, 3, 1)
    model = Model()
    bound = model.bind(model.init(jax.random.key(0), images))
    assert auto(bound, inputs=images).layer == "last"


def test_onnx_models_have_no_gradients_and_are_changed_instead(tmp_path: Path):
    path = tmp_path / "vit.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            cnn(),
            (torch.tensor(IMAGES),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            dynamic_axes={"image": {0: "n"}},
        )
    assert auto(str(path)).layer == "/3/Relu"


class TwoScales(nn.Module):
    """Two scores of a fine map, and two of a coarse one that is made of it and called last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine, self.coarse = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, stride=2)
        self.of_fine, self.of_coarse = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.tanh(self.fine(x))
        coarse = torch.tanh(self.coarse(fine))
        return torch.cat([self.of_fine(fine.mean((2, 3))), self.of_coarse(coarse.mean((2, 3)))], 1)


class Pair(TwoScales):
    """The same as a structure of two outputs."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        scores = super().forward(x)
        return {"fine": scores[:, :2], "coarse": scores[:, 2:]}


class Found(TwoScales):
    """The same as a detector with two boxes in each image, one of either map."""

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:  # type: ignore[override]
        corners = torch.tensor([[0.0, 0, 4, 4], [6, 6, 10, 10]])
        return [
            {"boxes": corners, "scores": one[[0, 2]].sigmoid(), "labels": torch.tensor([1, 1])}
            for one in super().forward(x)
        ]


OF_FINE = [
    (TwoScales, lambda outputs: outputs[:, 0] * outputs[:, 1]),
    (TwoScales, cfi.targets.difference(0, 1)),
    (Pair, lambda outputs: outputs["fine"][:, 1]),
    (Pair, ("fine", lambda outputs: outputs[:, 1])),
    (Found, cfi.targets.box(iou_with=(0, 0, 4, 4), label=1)),
    (Found, cfi.targets.box(iou_with=[(0, 0, 4, 4), (0, 0, 4, 5)], label=1)),
]


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
@pytest.mark.parametrize(("kind", "target"), OF_FINE)
def test_what_a_function_chooses_decides_and_not_all_that_it_chooses_from(kind, target, toolset):
    found = auto(kind().eval(), toolset, target=target)
    assert found.layer == "fine" and found.values.any()


def test_a_function_that_chooses_what_the_last_map_gives_is_explained_there():
    assert auto(TwoScales().eval(), target=lambda outputs: outputs[:, 3]).layer == "coarse"
    box = cfi.targets.box(iou_with=(6, 6, 10, 10), label=1)
    assert auto(Found().eval(), target=box).layer == "coarse"


@pytest.mark.parametrize("toolset", ["tf-keras-vis", "captum"])
def test_what_a_function_chooses_of_a_keras_model(toolset):
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((12, 20, 3))
    fine = layers.Conv2D(4, 3, activation="tanh", name="fine")(inputs)
    coarse = layers.Conv2D(4, 3, 2, activation="tanh", name="coarse")(fine)
    scores = [layers.Dense(2)(layers.GlobalAveragePooling2D()(one)) for one in (fine, coarse)]
    model = keras.Model(inputs, layers.Concatenate()(scores))
    images = IMAGES.transpose(0, 2, 3, 1)
    for target, layer in ((lambda outputs: outputs[:, 0], "fine"), (lambda outputs: outputs[:, 3], "coarse")):
        assert auto(model, toolset, inputs=images, target=target).layer == layer


def test_what_a_function_chooses_of_a_flax_model():
    pytest.importorskip("jax")
    import jax
    from flax import linen

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            fine = linen.tanh(linen.Conv(4, (3, 3), name="fine")(x))
            coarse = linen.tanh(linen.Conv(4, (3, 3), 2, name="coarse")(fine))
            scores = [linen.Dense(2, name=name)(one.mean((1, 2))) for name, one in (("a", fine), ("b", coarse))]
            return jax.numpy.concatenate(scores, 1)

    images = IMAGES.transpose(0, 2, 3, 1)
    model = Model()
    bound = model.bind(model.init(jax.random.key(0), images))
    assert auto(bound, inputs=images, target=cfi.targets.difference(0, 1)).layer == "fine"


def test_what_a_function_chooses_of_a_model_without_gradients(tmp_path: Path):
    path = tmp_path / "scales.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            TwoScales().eval(),
            (torch.tensor(IMAGES),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            dynamic_axes={"image": {0: "n"}},
        )
    of_fine = auto(str(path), target=cfi.targets.difference(0, 1)).layer
    of_coarse = auto(str(path), target=cfi.targets.difference(2, 3)).layer
    assert (of_fine, of_coarse) == ("/Tanh", "/Tanh_1")
