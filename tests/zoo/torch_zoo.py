"""torch architectures with random weights and random batch norm statistics, small inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from cfi_core.coexistence import load_safely

load_safely()

import torch  # noqa: E402
import torchvision.models as zoo  # noqa: E402
from torch import nn  # noqa: E402
from zoo_inputs import TOKENS, examples  # noqa: E402

SEED = 20


@dataclass(frozen=True)
class TorchCase:
    """A model to be, shapes of its inputs (None stands for tokens) and layers to open."""

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...] | None, ...]
    layers: tuple[str, ...]

    def make(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = self.build().eval()
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
        return model

    def inputs(self, samples: int = 2) -> tuple[np.ndarray, ...]:
        return examples(self.shapes, samples, SEED)


class TokenLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 16)
        self.lstm = nn.LSTM(16, 12, num_layers=2, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 4)

    def forward(self, tokens):
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(self.norm(states).mean(1))


class TokenTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 16)
        block = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(block, 2)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens):
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


class TwoInputs(nn.Module):
    """An image and a row of numbers; a tuple of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.row = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.classes, self.value = nn.Linear(16, 5), nn.Linear(16, 1)

    def forward(self, image, row):
        joint = torch.cat([self.image(image), self.row(row)], 1)
        return self.classes(joint), self.value(joint)


class Signal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(3, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Conv1d(8, 8, 3, dilation=2)
        )
        self.head = nn.Linear(8, 4)

    def forward(self, signal):
        return self.head(self.body(signal).mean(2))


class Branching(nn.Module):
    """Which way it goes depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, row):
        hidden = torch.relu(self.first(row))
        for _ in range(3 if float(row.detach().sum()) > 0 else 1):
            hidden = hidden + torch.sin(hidden)
        return self.head(self.second(hidden) * hidden)


def vision_transformer() -> nn.Module:
    model = zoo.VisionTransformer(32, 8, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)
    nn.init.normal_(model.heads[-1].weight, 0, 0.1)  # zeros otherwise
    return model


def image(name: str, pixels: int, *layers: str, **options: object) -> TorchCase:
    return TorchCase(partial(getattr(zoo, name), weights=None, **options), ((3, pixels, pixels),), layers)


TORCH_CASES: dict[str, TorchCase] = {
    "resnet18": image("resnet18", 64, "conv1", "layer2.0", "layer4.1.conv2"),
    "resnet50": image("resnet50", 64, "layer1.0.downsample", "layer3"),
    "vgg11_bn": image("vgg11_bn", 64, "features.4", "classifier.3"),
    "densenet121": image("densenet121", 64, "features.denseblock2", "features.norm5"),
    "mobilenet_v2": image("mobilenet_v2", 64, "features.3.conv.1", "features.18"),
    "mobilenet_v3_small": image("mobilenet_v3_small", 64, "features.4.block.2", "classifier.0"),
    "efficientnet_b0": image("efficientnet_b0", 64, "features.2.0.block.1", "features.8"),
    "squeezenet1_1": image("squeezenet1_1", 64, "features.3.squeeze", "classifier.1"),
    "shufflenet_v2_x0_5": image("shufflenet_v2_x0_5", 64, "stage3.1", "conv5"),
    "googlenet": image("googlenet", 64, "inception3a.branch2", "inception5b", init_weights=True),
    "inception_v3": image("inception_v3", 96, "Mixed_5b.branch1x1", "Mixed_7c", init_weights=True),
    "regnet_y_400mf": image("regnet_y_400mf", 64, "stem", "trunk_output.block3"),
    "convnext_tiny": image("convnext_tiny", 64, "features.1.0.block.0", "features.7.2"),
    "swin_t": image("swin_t", 64, "features.1.0.attn", "norm"),
    "vision_transformer": TorchCase(
        vision_transformer, ((3, 32, 32),), ("conv_proj", "encoder.layers.encoder_layer_1.ln_2", "encoder.ln")
    ),
    "fcn_resnet50": TorchCase(
        partial(zoo.segmentation.fcn_resnet50, weights=None, weights_backbone=None, num_classes=4),
        ((3, 64, 64),),
        ("backbone.layer4.2.conv3", "classifier.0"),
    ),
    "lraspp_mobilenet_v3_large": TorchCase(
        partial(zoo.segmentation.lraspp_mobilenet_v3_large, weights=None, weights_backbone=None, num_classes=4),
        ((3, 64, 64),),
        ("classifier.cbr", "classifier.low_classifier"),
    ),
    "r3d_18": TorchCase(partial(zoo.video.r3d_18, weights=None), ((3, 4, 32, 32),), ("layer2.0.conv1", "layer4")),
    "token LSTM": TorchCase(TokenLSTM, (None,), ("embedding", "norm")),
    "token transformer": TorchCase(TokenTransformer, (None,), ("embedding", "encoder.layers.0.linear1", "encoder")),
    "two inputs, two outputs": TorchCase(TwoInputs, ((3, 20, 14), (6,)), ("image.0", "row.1")),
    "1-D convolutions": TorchCase(Signal, ((3, 24),), ("body.0", "body.3")),
    "control flow": TorchCase(Branching, ((6,),), ("first", "second")),
}
