"""Torch models in every wrapper that people put around theirs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

import cfi_core as cfi
from model_rows.frame import Call, answer, refusal, row, seed
from model_rows.hands import cam, group_ablation, torch_gradient, torch_layer, torch_output

IMAGES = np.random.default_rng(7).normal(size=(2, 3, 12, 16)).astype(np.float32)
QUADRANTS = np.zeros((1, 3, 12, 16), np.int64)
QUADRANTS[:, :, 6:] += 1
QUADRANTS[:, :, :, 8:] += 2


def cnn() -> Any:
    """A small convolutional network."""
    seed()
    from torch import nn

    layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 4 * 6, 5)).eval()


def picked(outputs: Any) -> Any:
    """Class 1 of the first image, 3 of the second."""
    return outputs[[0, 1], [1, 3]]


def by_gradient(model: Any, images: Any = IMAGES) -> np.ndarray:
    """The derivative by torch."""
    return torch_gradient(lambda x: picked(model(x)), images)


def by_ablation(model: Any) -> np.ndarray:
    """Quadrants of the images set to zero, one after the other, both images on their own."""
    parts = [
        group_ablation(torch_output(lambda x, k=k: model(x)[:, k]), IMAGES[i : i + 1], QUADRANTS)
        for i, k in enumerate([1, 3])
    ]
    return np.concatenate(parts)


def by_cam(model: Any, layer: Any) -> np.ndarray:
    """Grad-CAM by torch."""
    import torch

    return cam(*torch_layer(lambda: picked(model(torch.as_tensor(IMAGES))), layer), channel=1)


def calls_on(model: Any, original: Any, mask: np.ndarray = QUADRANTS) -> list[Call]:
    """Three calls on a form of the network, natively and across, compared with the network itself."""
    images = IMAGES
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=[1, 3]),
            lambda: images * by_gradient(original),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=[1, 3]),
            lambda: by_gradient(original),
        ),
        answer(
            lambda: cfi.attribute(
                model, "feature_ablation", "captum", inputs=images, target=[1, 3], exec_args={"feature_mask": mask}
            ),
            lambda: by_ablation(original),
        ),
    ]


def layer_calls(model: Any, layer: str, original: Any) -> list[Call]:
    """Two calls at a layer, natively and across."""
    images = IMAGES
    return [
        answer(
            lambda: cfi.attribute(model, "grad_cam", "captum", inputs=images, target=[1, 3], layer=layer),
            lambda: by_cam(original, original[2]),
        ),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=[1, 3], layer=layer),
            lambda: by_cam(original, original[2]),
        ),
    ]


COMPILED = "compiled code runs its layers where nothing can look at them"


def no_layers(model: Any, error: type[cfi.CFIError], law: str) -> Call:
    """Its layers cannot be read."""
    images = IMAGES
    return refusal(
        lambda: cfi.attribute(model, "grad_cam", "captum", inputs=images, target=[1, 3], layer="2"), error, law
    )


@row("torch: nn.Sequential", quick=True)
def plain() -> Iterable[Call]:
    model, images = cnn(), IMAGES
    return [
        *calls_on(model, model),
        *layer_calls(model, "2", model),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=[1, 3], layer="auto"),
            lambda: by_cam(model, model[3]),
        ),
    ]


@row("TorchScript: torch.jit.script", quick=True)
def scripted() -> Iterable[Call]:
    import torch

    original = cnn()
    model = torch.jit.script(original)
    return [*calls_on(model, original), no_layers(model, cfi.LayerError, COMPILED)]


@row("TorchScript: torch.jit.trace", quick=True)
def traced() -> Iterable[Call]:
    import torch

    original = cnn()
    model = torch.jit.trace(original, torch.tensor(IMAGES))
    return [*calls_on(model, original), no_layers(model, cfi.LayerError, COMPILED)]


@row("TorchScript: torch.jit.freeze", quick=True)
def frozen() -> Iterable[Call]:
    import torch

    original = cnn()
    model = torch.jit.freeze(torch.jit.script(original))
    return [*calls_on(model, original), no_layers(model, cfi.LayerError, COMPILED)]


@row("torch.export: ExportedProgram", quick=True)
def exported() -> Iterable[Call]:
    import torch

    original = cnn()
    sizes = ({0: torch.export.Dim("samples")},)
    model = torch.export.export(original, (torch.tensor(IMAGES),), dynamic_shapes=sizes)
    return calls_on(model, original)


@row("torch.fx: GraphModule", quick=True)
def graph_module() -> Iterable[Call]:
    from torch import fx

    original = cnn()
    model = fx.symbolic_trace(original)
    return [*calls_on(model, original), *layer_calls(model, "2", original)]


@row("torch.compile", quick=True)
def compiled() -> Iterable[Call]:
    import torch

    original = cnn()
    model = torch.compile(original, backend="aot_eager")
    return [*calls_on(model, original), *layer_calls(model, "2", original)]


@row("torch.nn.DataParallel", quick=True)
def data_parallel() -> Iterable[Call]:
    from torch import nn

    original = cnn()
    model = nn.DataParallel(original).eval()
    return [*calls_on(model, original), *layer_calls(model, "module.2", original)]


@row("parametrizations: weight_norm, spectral_norm, orthogonal", quick=True)
def parametrized() -> Iterable[Call]:
    from torch.nn.utils import parametrizations

    original = cnn()
    model = copy.deepcopy(original)
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[2])
    parametrizations.orthogonal(model[5])
    model.eval()
    return [*calls_on(model, model), *layer_calls(model, "2", model)]


@row("pruned: torch.nn.utils.prune", quick=True)
def pruned() -> Iterable[Call]:
    from torch.nn.utils import prune

    model = cnn()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return [*calls_on(model, model), *layer_calls(model, "2", model)]


@row("bfloat16", quick=True)
def bfloat16() -> Iterable[Call]:
    return in_half("bfloat16", 2.0**-7)


@row("half precision", quick=True)
def half() -> Iterable[Call]:
    return in_half("float16", 2.0**-10)


def in_half(name: str, unit: float) -> Iterable[Call]:
    """A network in half precision: natively as torch computes it, elsewhere up to a few of its units."""
    import torch

    dtype = getattr(torch, name)
    model, images = cnn().to(dtype), torch.tensor(IMAGES).to(dtype)
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "captum", inputs=images, target=[1, 3], exec_args={"abs": False}),
            lambda: by_gradient(model, images),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=[1, 3]),
            lambda: by_gradient(model, images),
            within=4 * unit,
        ),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=[1, 3], layer="2"),
            lambda: cam(*torch_layer(lambda: picked(model(images)), model[2]), channel=1),
            within=4 * unit,
        ),
        answer(
            lambda: cfi.attribute(model, "deep_lift", "captum", inputs=images, target=[1, 3], translator=None),
            lambda: deep_lift(model, images),
            within=4 * unit,
        ),
    ]


def deep_lift(model: Any, images: Any) -> np.ndarray:
    """Captum's own."""
    from captum.attr import DeepLift

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DeepLift(copy.deepcopy(model)).attribute(images.clone(), target=[1, 3]).detach().float().numpy()


NO_DERIVATIVE = "what is rounded to whole numbers has no derivative"


def quantised_calls(model: Any) -> list[Call]:
    """A network with rounded activations: its outputs are explained, and it has no derivative.

    The range of what is rounded is taken from all samples of a pass, so there is one.
    """
    image = IMAGES[:1]
    predict = torch_output(lambda x: model(x)[:, 1])
    return [
        answer(
            lambda: cfi.attribute(
                model, "feature_ablation", "captum", inputs=image, target=1, exec_args={"feature_mask": QUADRANTS}
            ),
            lambda: group_ablation(predict, image, QUADRANTS),
        ),
        answer(
            lambda: cfi.attribute(
                model,
                "occlusion",
                "tf-explain",
                inputs=image,
                target=1,
                init_args={"batch_size": 1},
                exec_args={"patch_size": 6},
            ),
            lambda: group_ablation(predict, image, squares(image, 6))[:, 0],
        ),
        refusal(
            lambda: cfi.attribute(model, "saliency", "captum", inputs=image, target=1),
            cfi.NoGradientError,
            NO_DERIVATIVE,
        ),
        refusal(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=image, target=1),
            cfi.NoGradientError,
            NO_DERIVATIVE,
        ),
    ]


def squares(image: np.ndarray, size: int) -> np.ndarray:
    """A feature mask of squares, the last ones cut off at the edges."""
    rows, columns = np.arange(image.shape[2]) // size, np.arange(image.shape[3]) // size
    return np.broadcast_to(rows[:, None] * 100 + columns, image[:1].shape)


@row("torch.ao: dynamically quantised", quick=True)
def dynamically_quantised() -> Iterable[Call]:
    import torch
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = quantize_dynamic(cnn(), {torch.nn.Linear}, dtype=torch.qint8).eval()
    return quantised_calls(model)


@row("torch.ao: statically quantised", quick=True)
def statically_quantised() -> Iterable[Call]:
    import torch
    from torch.ao import quantization

    original = cnn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.nn.Sequential(quantization.QuantStub(), original, quantization.DeQuantStub()).eval()
        model.qconfig = quantization.get_default_qconfig("fbgemm")
        prepared = quantization.prepare(model)
        prepared(torch.tensor(IMAGES))
        model = quantization.convert(prepared).eval()
    return quantised_calls(model)


@row("torchao: int8 weights", "torchao")
def torchao_weights() -> Iterable[Call]:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = cnn()
    quantize_(model, Int8WeightOnlyConfig())
    return [*calls_on(model, model), *layer_calls(model, "2", model)]


@row("torchao: int8 weights and activations", "torchao")
def torchao_dynamic() -> Iterable[Call]:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = cnn()
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return quantised_calls(model)


@row("Lightning: LightningModule", quick=True)
def lightning_module() -> Iterable[Call]:
    from lightning import LightningModule

    original = cnn()

    class Classifier(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = original

        def forward(self, images: Any) -> Any:
            return self.net(images)

        def training_step(self, batch: Any, number: int) -> Any:
            raise NotImplementedError

    model = Classifier().eval()
    return [*calls_on(model, original), *layer_calls(model, "net.2", original)]


@row("a module that returns a loss beside its scores", quick=True)
def with_loss() -> Iterable[Call]:
    from torch import nn

    original, images = cnn(), IMAGES

    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = original

        def forward(self, images: Any) -> dict[str, Any]:
            scores = self.net(images)
            return {"loss": scores.square().mean(), "logits": scores}

    model = Trained().eval()
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=[1, 3]),
            lambda: images * by_gradient(original),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=("logits", 2)),
            lambda: torch_gradient(lambda x: original(x)[:, 2], images),
        ),
    ]
