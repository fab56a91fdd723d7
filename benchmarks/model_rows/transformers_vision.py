"""Hugging Face transformers: images, sounds, series. What is explained is floating point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import cfi_core as cfi
from model_rows.frame import Call, Values, answer, row, seed
from model_rows.hands import cam, group_ablation, integrate, torch_gradient, torch_layer, torch_output

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
HEIGHT, WIDTH = 32, 48
STEPS = 8
QUADRANTS = np.zeros((1, 3, HEIGHT, WIDTH), np.int64)
QUADRANTS[:, :, HEIGHT // 2 :] += 1
QUADRANTS[:, :, :, WIDTH // 2 :] += 2


def pictures(height: int = 40, width: int = 60) -> list[np.ndarray]:
    """Two, in bytes."""
    return list(np.random.default_rng(5).integers(0, 256, (2, height, width, 3), np.uint8))


def process(kind: str = "ViT") -> Any:
    """What an image processor of that model gives."""
    import transformers

    processor = getattr(transformers, f"{kind}ImageProcessor")(size={"height": HEIGHT, "width": WIDTH})
    return processor(pictures(), return_tensors="pt")


class Pixels:
    """A score of a model with respect to one of its inputs by name."""

    def __init__(
        self, model: Any, given: Mapping[str, Any], score: Callable[[Any], Any], name: str = "pixel_values"
    ) -> None:
        held = {key: value for key, value in given.items() if key != name}
        self.name, self.values = name, given[name].numpy()
        self.score = lambda values: score(model(**{name: values}, **held))

    def gradient(self) -> Values:
        return {self.name: torch_gradient(self.score, self.values)}

    def times_gradient(self) -> Values:
        return {self.name: self.values * torch_gradient(self.score, self.values)}

    def integrated(self) -> Values:
        return {self.name: integrate(lambda at: torch_gradient(self.score, at), self.values, 0, STEPS)}

    def ablated(self, mask: np.ndarray) -> Values:
        return {self.name: group_ablation(torch_output(self.score), self.values, mask)}

    def cam(self, layer: Any) -> np.ndarray:
        """Of a layer with maps, channels first."""
        return cam(*self._at(layer), channel=1)

    def token_cam(self, layer: Any, first: int, grid: tuple[int, int]) -> np.ndarray:
        """Of a layer with tokens on a grid, `first` others before them."""
        maps = [part[:, first:].reshape(len(part), *grid, -1) for part in self._at(layer)]
        return cam(*maps, channel=3)

    def _at(self, layer: Any) -> tuple[np.ndarray, np.ndarray]:
        import torch

        return torch_layer(lambda: self.score(torch.as_tensor(self.values)), layer)


def logit(index: int) -> Callable[[Any], Any]:
    """The logit of a class."""
    return lambda outputs: outputs.logits[:, index]


def two_calls(model: Any, given: Any, target: Any, hand: Pixels) -> list[Call]:
    """Natively and across."""
    images = given
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=images, target=target),
            hand.times_gradient,
        ),
        answer(lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=images, target=target), hand.gradient),
    ]


def cams(model: Any, given: Any, target: Any, layer: Any, by_hand: Callable[[], np.ndarray]) -> list[Call]:
    """Grad-CAM natively and across."""
    images = given
    return [
        answer(lambda: cfi.attribute(model, "grad_cam", "captum", inputs=images, target=target, layer=layer), by_hand),
        answer(
            lambda: cfi.attribute(model, "grad_cam", "tf-keras-vis", inputs=images, target=target, layer=layer),
            by_hand,
        ),
    ]


@row("ViT, image classification", "transformers", quick=True)
def vit() -> Iterable[Call]:
    from transformers import ViTConfig, ViTForImageClassification

    seed()
    model = ViTForImageClassification(ViTConfig(image_size=(HEIGHT, WIDTH), patch_size=8, num_labels=5, **SMALL)).eval()
    images = process()
    hand, layer = Pixels(model, images, logit(2)), last_norm(model)
    return [
        *two_calls(model, images, 2, hand),
        *cams(model, images, 2, layer, lambda: hand.token_cam(layer, 1, (4, 6))),
        answer(
            lambda: cfi.attribute(
                model, "integrated_gradients", "zennit", inputs=images, target=2, init_args={"n_iter": 8}
            ),
            lambda: zennit_integrated(hand),
        ),
    ]


def zennit_integrated(hand: Pixels) -> Values:
    """By Zennit's rule: the right ends of equal steps."""
    at = [hand.values * np.float32(k / STEPS) for k in range(1, STEPS + 1)]
    return {hand.name: hand.values * np.mean([torch_gradient(hand.score, one) for one in at], 0)}


def last_norm(model: Any) -> Any:
    """The normalisation before the last attention, which all tokens reach that count."""
    import torch

    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm) and name.endswith(("layernorm_before", "norm1"))
    ]
    return norms[-1]


@row("peft: LoRA on ViT", "peft", "transformers")
def lora() -> Iterable[Call]:
    from peft import LoraConfig, get_peft_model
    from transformers import ViTConfig, ViTForImageClassification

    seed()
    sizes = {**SMALL, "image_size": (HEIGHT, WIDTH), "patch_size": 8, "num_labels": 5}
    adapters = LoraConfig(r=2, target_modules=["query", "value", "q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(ViTForImageClassification(ViTConfig(**sizes)), adapters).eval()
    images = process()
    return two_calls(model, images, 2, Pixels(model, images, logit(2)))


@row("DeiT, image classification", "transformers")
def deit() -> Iterable[Call]:
    from transformers import DeiTConfig, DeiTForImageClassification

    seed()
    model = DeiTForImageClassification(
        DeiTConfig(image_size=(HEIGHT, WIDTH), patch_size=8, num_labels=5, **SMALL)
    ).eval()
    images = process()
    hand, layer = Pixels(model, images, logit(2)), last_norm(model)
    return [
        *two_calls(model, images, 2, hand),
        *cams(model, images, 2, layer, lambda: hand.token_cam(layer, 2, (4, 6))),
    ]


@row("DINOv2 with registers, image classification", "transformers")
def dinov2() -> Iterable[Call]:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification

    seed()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    model = Dinov2WithRegistersForImageClassification(
        Dinov2WithRegistersConfig(image_size=32, patch_size=8, num_labels=5, **sizes)
    ).eval()
    images = {"pixel_values": process()["pixel_values"][..., :32]}
    hand, layer = Pixels(model, images, logit(2)), last_norm(model)
    return [
        *two_calls(model, images, 2, hand),
        *cams(model, images, 2, layer, lambda: hand.token_cam(layer, 5, (4, 4))),
    ]


@row("Swin, image classification", "transformers")
def swin() -> Iterable[Call]:
    from transformers import SwinConfig, SwinForImageClassification

    seed()
    config = SwinConfig(
        image_size=(HEIGHT, WIDTH),
        patch_size=4,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[1, 2],
        window_size=2,
        num_labels=5,
    )
    model = SwinForImageClassification(config).eval()
    images = process()
    hand, layer = Pixels(model, images, logit(2)), model.swin.layernorm
    return [
        *two_calls(model, images, 2, hand),
        *cams(model, images, 2, layer, lambda: hand.token_cam(layer, 0, (4, 6))),
    ]


def of_maps(kind: str, settings: Mapping[str, Any], layer: str, processor: str = "ViT") -> Iterable[Call]:
    """A convolutional classifier of that kind."""
    import transformers

    seed()
    config = getattr(transformers, f"{kind}Config")(num_labels=5, **settings)
    model = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    images = process(processor)
    hand, module = Pixels(model, images, logit(2)), model.get_submodule(layer)
    return [
        *two_calls(model, images, 2, hand),
        *cams(model, images, 2, module, lambda: hand.cam(module)),
        answer(
            lambda: cfi.attribute(
                model, "feature_ablation", inputs=images, target="LABEL_2", exec_args={"feature_mask": QUADRANTS}
            ),
            lambda: hand.ablated(QUADRANTS),
        ),
    ]


@row("ConvNeXt, image classification", "transformers")
def convnext() -> Iterable[Call]:
    settings = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "patch_size": 4}
    return of_maps("ConvNext", settings, "convnext.encoder.stages.1")


@row("ResNet, image classification", "transformers")
def resnet() -> Iterable[Call]:
    settings = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    return of_maps("ResNet", settings, "resnet.encoder.stages.1")


@row("MobileNetV2, image classification", "transformers")
def mobilenet() -> Iterable[Call]:
    settings = {"depth_multiplier": 0.1, "min_depth": 4, "depth_divisible_by": 4, "finegrained_output": False}
    return of_maps("MobileNetV2", settings, "mobilenet_v2.conv_1x1")


@row("BEiT, image classification", "transformers")
def beit() -> Iterable[Call]:
    from transformers import BeitConfig, BeitForImageClassification

    seed()
    model = BeitForImageClassification(
        BeitConfig(image_size=(HEIGHT, WIDTH), patch_size=8, num_labels=5, use_relative_position_bias=True, **SMALL)
    ).eval()
    images = process()
    return two_calls(model, images, 2, Pixels(model, images, logit(2)))


@row("CLIP, two inputs", "transformers", quick=True)
def clip() -> Iterable[Call]:
    from transformers import CLIPConfig, CLIPModel

    from model_rows.transformers_text import tokenize

    seed()
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    both = {**tokenize("input_ids", "attention_mask"), "pixel_values": process()["pixel_values"][..., :32]}
    hand = Pixels(model, both, lambda outputs: outputs.logits_per_image.diagonal())
    return [
        answer(
            lambda: cfi.attribute(
                model, "input_x_gradient", "captum", inputs=both, target=lambda y: y["logits_per_image"].diagonal()
            ),
            hand.times_gradient,
        ),
        answer(
            lambda: cfi.attribute(
                model, "saliency", "tf-keras-vis", inputs=both, target=lambda y: y["logits_per_image"].diagonal()
            ),
            hand.gradient,
        ),
    ]


@row("SegFormer, segmentation", "transformers")
def segformer() -> Iterable[Call]:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    seed()
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 12], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=8, num_labels=4,
    )  # fmt: skip
    model = SegformerForSemanticSegmentation(config).eval()
    images = process()
    region = np.zeros((8, 12), bool)
    region[:4, 6:] = True
    hand = Pixels(model, images, lambda outputs: outputs.logits[:, 1, :4, 6:].sum((1, 2)))
    return [
        *two_calls(model, images, (1, 4, 6), Pixels(model, images, lambda outputs: outputs.logits[:, 1, 4, 6])),
        *two_calls(model, images, cfi.targets.mask(region, 1), hand),
    ]


@row("DETR, detection", "transformers", quick=True)
def detr() -> Iterable[Call]:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    seed()
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_ffn_dim=24, num_queries=6, num_labels=3,
    )  # fmt: skip
    model = DetrForObjectDetection(config).eval()
    images = process()
    box = [0.3, 0.3, 0.7, 0.8]
    hand = Pixels(model, images, lambda outputs: queries(outputs, box, 1))
    return [
        *two_calls(model, images, (2, 1), Pixels(model, images, lambda outputs: outputs.logits[:, 2, 1])),
        *two_calls(
            model, images, ("pred_boxes", 2, 0), Pixels(model, images, lambda outputs: outputs.pred_boxes[:, 2, 0])
        ),
        *two_calls(model, images, cfi.targets.box(iou_with=box, label=1), hand),
    ]


def queries(outputs: Any, box: list[float], label: int) -> Any:
    """Score times overlap of the query that overlaps a box most."""
    import torch
    from torchvision.ops import box_convert, box_iou

    scores = outputs.logits.softmax(-1)[..., label]
    overlaps = torch.stack(
        [box_iou(box_convert(boxes, "cxcywh", "xyxy"), torch.tensor([box]))[:, 0] for boxes in outputs.pred_boxes]
    )
    best = overlaps.argmax(1, keepdim=True)
    return (overlaps.gather(1, best) * scores.gather(1, best))[:, 0]


@row("VideoMAE, video classification", "transformers")
def videomae() -> Iterable[Call]:
    import torch
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    seed()
    model = VideoMAEForVideoClassification(
        VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, num_labels=4, **SMALL)
    ).eval()
    video = {"pixel_values": torch.randn(2, 4, 3, 16, 16)}
    return two_calls(model, video, 1, Pixels(model, video, logit(1)))


@row("wav2vec 2.0, audio classification", "transformers")
def wav2vec() -> Iterable[Call]:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    generator = seed()
    sizes = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
    groups = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8}
    model = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(num_labels=4, **sizes, **groups, **SMALL)).eval()
    waves = [generator.normal(size=length).astype(np.float32) for length in (200, 160)]
    extract = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    sounds = extract(waves, sampling_rate=16000, padding=True, return_tensors="pt")
    return two_calls(model, sounds, 1, Pixels(model, sounds, logit(1), "input_values"))


@row("Whisper, audio to text", "transformers")
def whisper() -> Iterable[Call]:
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    seed()
    sides = {"layers": 1, "attention_heads": 2, "ffn_dim": 24}
    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()}
    tokens = {"vocab_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(
        d_model=16, num_mel_bins=8, max_source_positions=16, max_target_positions=8, suppress_tokens=None,
        begin_suppress_tokens=None, **tokens, **sizes,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    sounds = {"input_features": torch.randn(2, 8, 32), "decoder_input_ids": torch.tensor([[1, 5, 7], [1, 6, 8]])}
    hand = Pixels(model, sounds, lambda outputs: outputs.logits[:, -1, 9], "input_features")
    return two_calls(model, sounds, (-1, 9), hand)


@row("Audio Spectrogram Transformer, audio classification", "transformers")
def spectrogram() -> Iterable[Call]:
    import torch
    from transformers import ASTConfig, ASTForAudioClassification

    seed()
    config = ASTConfig(
        patch_size=4, frequency_stride=4, time_stride=4, max_length=16, num_mel_bins=12, num_labels=4, **SMALL
    )
    model = ASTForAudioClassification(config).eval()
    sounds = {"input_values": torch.randn(2, 16, 12)}
    return two_calls(model, sounds, 1, Pixels(model, sounds, logit(1), "input_values"))


@row("PatchTST, time series", "transformers")
def patchtst() -> Iterable[Call]:
    import torch
    from transformers import PatchTSTConfig, PatchTSTForClassification

    seed()
    config = PatchTSTConfig(
        num_input_channels=3, num_targets=4, context_length=24, patch_length=4, patch_stride=4, d_model=16, ffn_dim=24,
        num_hidden_layers=2, num_attention_heads=2, use_cls_token=True,
    )  # fmt: skip
    model = PatchTSTForClassification(config).eval()
    series = {"past_values": torch.randn(2, 24, 3), "past_observed_mask": torch.ones(2, 24, 3, dtype=torch.bool)}
    hand = Pixels(model, series, lambda outputs: outputs.prediction_logits[:, 1], "past_values")
    return two_calls(model, series, 1, hand)


@row("Time Series Transformer", "transformers")
def time_series() -> Iterable[Call]:
    import torch
    from transformers import TimeSeriesTransformerConfig, TimeSeriesTransformerForPrediction

    seed()
    config = TimeSeriesTransformerConfig(
        prediction_length=3, context_length=6, lags_sequence=[1, 2], num_time_features=2, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
    )  # fmt: skip
    model = TimeSeriesTransformerForPrediction(config).eval()
    series = {
        "past_values": torch.randn(2, 8),
        "past_time_features": torch.randn(2, 8, 2),
        "past_observed_mask": torch.ones(2, 8, dtype=torch.bool),
        "future_time_features": torch.randn(2, 3, 2),
        "future_values": torch.randn(2, 3),
    }
    hand = Pixels(model, series, lambda outputs: outputs.params[0][:, 1], "past_values")
    return [
        answer(
            lambda: cfi.attribute(
                model, "input_x_gradient", "captum", inputs=series, explain=("past_values",), target=("params", 0, 1)
            ),
            hand.times_gradient,
        ),
        answer(
            lambda: cfi.attribute(
                model, "saliency", "tf-keras-vis", inputs=series, explain=("past_values",), target=("params", 0, 1)
            ),
            hand.gradient,
        ),
    ]
