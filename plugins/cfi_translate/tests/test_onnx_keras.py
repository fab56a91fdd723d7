"""ONNX to Keras by our own reader: against torch, operator family by operator family."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import textwrap
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cfi_core.contract import Converted
from cfi_core.errors import TranslationError
from cfi_translate.onnx_keras import convert
from cfi_translate.torch_export import convert as export


def exported(model: nn.Module, *arrays: np.ndarray, fixed: bool = False) -> onnx.ModelProto:
    names = [f"input{i}" for i in range(len(arrays))]
    tensors = tuple(torch.from_numpy(one) for one in arrays)
    with torch.no_grad():
        result = model(*tensors)
    results = [f"output{i}" for i in range(len(result) if isinstance(result, tuple) else 1)]
    file = io.BytesIO()
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            model,
            tensors,
            file,
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=results,
            dynamic_axes=None if fixed else {name: {0: "samples"} for name in (*names, *results)},
        )
    return onnx.load_from_string(file.getvalue())


def listed(result: object) -> list:
    return list(result) if isinstance(result, tuple | list) else [result]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def check(model: nn.Module, *arrays: np.ndarray) -> Converted:
    """Converts, and compares outputs and input gradients with torch for one, two and three samples."""
    model = model.eval()
    converted = convert(exported(model, *arrays), arrays)
    for samples in (1, 2, 3):
        generator = np.random.default_rng(100 + samples)
        parts = [one[:samples] for one in arrays]
        tensors = [torch.from_numpy(one).requires_grad_(one.dtype.kind == "f") for one in parts]
        expected = listed(model(*tensors))
        weights = [generator.normal(size=one.shape).astype("float32") for one in expected]
        turned = [
            tf.constant(one if axes is None else one.transpose(axes))
            for one, axes in zip(parts, converted.input_axes, strict=True)
        ]
        with tf.GradientTape() as tape:
            tape.watch(turned)
            made = listed(converted.model(turned if len(turned) > 1 else turned[0], training=False))
            made = [
                one if axes is None else tf.transpose(one, np.argsort(axes))
                for one, axes in zip(made, converted.output_axes, strict=True)
            ]
            score = sum(tf.reduce_sum(one * weight) for one, weight in zip(made, weights, strict=True))
        for one, other in zip(made, expected, strict=True):
            assert difference(one.numpy(), other.detach().numpy()) < 1e-5
        if not all(one.requires_grad for one in tensors):
            continue
        sum((one * torch.from_numpy(weight)).sum() for one, weight in zip(expected, weights, strict=True)).backward()
        for gradient, tensor, axes in zip(tape.gradient(score, turned), tensors, converted.input_axes, strict=True):
            array = gradient.numpy() if axes is None else gradient.numpy().transpose(np.argsort(axes))
            assert difference(array, tensor.grad.numpy()) < 1e-4
    return converted


def kinds(converted: Converted) -> list[str]:
    return [type(one).__name__ for one in converted.model.operations]


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype("float32")


class Function(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.function(self, *tensors)


IMAGE = (3, 6, 13, 10)
FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "convolution": (lambda: nn.Conv2d(6, 5, 3), IMAGE, ["Conv2D"]),
    "convolution, same": (lambda: nn.Conv2d(6, 5, 3, padding=1, bias=False), IMAGE, ["Conv2D"]),
    "convolution, stride": (lambda: nn.Conv2d(6, 5, 3, 2, 1), IMAGE, ["ZeroPadding2D", "Conv2D"]),
    "convolution, dilated": (lambda: nn.Conv2d(6, 5, (3, 2), dilation=2), IMAGE, ["Conv2D"]),
    "convolution, strides and dilations": (lambda: nn.Conv2d(6, 5, 3, 2, dilation=2), IMAGE, ["Conv2D", "GetItem"]),
    "convolution, grouped": (lambda: nn.Conv2d(6, 9, 3, groups=3), IMAGE, ["Conv2D"]),
    "convolution, depthwise": (lambda: nn.Conv2d(6, 12, 3, groups=6), IMAGE, ["DepthwiseConv2D"]),
    "convolution, depthwise, unequal strides": (
        lambda: nn.Conv2d(6, 6, 3, (1, 2), groups=6),
        IMAGE,
        ["DepthwiseConv2D", "GetItem"],
    ),
    "convolution, 1-D": (lambda: nn.Conv1d(6, 5, 3, 2, 1), (3, 6, 16), ["ZeroPadding1D", "Conv1D"]),
    "convolution, 3-D": (lambda: nn.Conv3d(2, 3, 3, padding=1), (3, 2, 5, 6, 7), ["Conv3D"]),
    "transposed convolution": (lambda: nn.ConvTranspose2d(6, 5, 3), IMAGE, ["Conv2DTranspose"]),
    "batch norm": (
        lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(6)),
        IMAGE,
        ["Activation", "BatchNormalization"],
    ),
    "max pooling": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE, ["Pad", "MaxPooling2D"]),
    "max pooling, ceiling": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), (3, 2, 12, 10), ["MaxPooling2D"]),
    "max pooling, ceiling and padding": (
        lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        (3, 2, 12, 10),
        ["Pad", "MaxPooling2D"],
    ),
    "average pooling": (lambda: nn.AvgPool2d(2), IMAGE, ["AveragePooling2D"]),
    "average pooling, same": (lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False), IMAGE, ["AveragePooling2D"]),
    "average pooling, padding counted": (lambda: nn.AvgPool2d(3, 1, 1), IMAGE, ["ZeroPadding2D", "AveragePooling2D"]),
    "average pooling, padding left out": (
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        (3, 2, 12, 10),
        ["ZeroPadding2D", "AveragePooling2D", "Multiply"],
    ),
    "global pooling": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE, ["GlobalAveragePooling2D"]),
    "global mean": (lambda: Function(lambda m, x: F.relu(m.c(x)).mean((2, 3)), c=nn.Conv2d(6, 4, 1)), IMAGE, [
        "Conv2D", "Activation", "GlobalAveragePooling2D",
    ]),
    "flatten and linear": (
        lambda: nn.Sequential(nn.Conv2d(6, 4, 3), nn.Flatten(), nn.ReLU(), nn.Linear(352, 5)),
        IMAGE,
        ["Conv2D", "Flatten", "Activation", "Dense"],
    ),
    "linear on sequences": (lambda: nn.Linear(7, 4), (3, 5, 7), ["Dense"]),
    "channels to the end and back": (
        lambda: Function(
            lambda m, x: x + m.b(m.n(m.a(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2),
            a=nn.Conv2d(6, 6, 3, padding=1, groups=6),
            n=nn.LayerNorm(6),
            b=nn.Linear(6, 6),
        ),
        IMAGE,
        ["DepthwiseConv2D", "LayerNormalization", "Dense", "Add"],
    ),
    "patches to tokens": (
        lambda: Function(lambda m, x: m.c(x).flatten(2).transpose(1, 2), c=nn.Conv2d(6, 8, 2, 2)),
        (3, 6, 8, 8),
        ["Conv2D", "Reshape"],
    ),
    "concatenation of channels": (
        lambda: Function(lambda m, x: torch.cat([m.a(x), x], 1), a=nn.Conv2d(6, 2, 1)),
        IMAGE,
        ["Conv2D", "Concatenate"],
    ),
    "squeeze and excite": (
        lambda: Function(
            lambda m, x: x * torch.sigmoid(m.b(F.relu(m.a(F.adaptive_avg_pool2d(x, 1))))),
            a=nn.Conv2d(6, 2, 1),
            b=nn.Conv2d(2, 6, 1),
        ),
        IMAGE,
        ["GlobalAveragePooling2D", "Conv2D", "Activation", "Conv2D", "Activation", "Multiply"],
    ),
    "nearest resizing": (lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 2, 1)), IMAGE, [
        "UpSampling2D", "Conv2D",
    ]),
    "bilinear resizing": (
        lambda: nn.Upsample(size=(26, 30), mode="bilinear", align_corners=False), IMAGE, ["UpSampling2D"]
    ),
    "lstm": (lambda: Function(lambda m, x: m.r(x)[0], r=nn.LSTM(7, 4, batch_first=True)), (3, 5, 7), ["LSTM"]),
    "gru, both ways": (
        lambda: Function(lambda m, x: m.r(x)[0], r=nn.GRU(7, 4, batch_first=True, bidirectional=True)),
        (3, 5, 7),
        ["Bidirectional"],
    ),
    "gelu": (lambda: nn.GELU(), (3, 50), ["Activation"]),
    "gelu, by tanh": (lambda: nn.GELU("tanh"), (3, 50), ["Gelu"]),
    "silu": (lambda: nn.SiLU(), (3, 50), ["Activation"]),
    "hard swish": (lambda: nn.Hardswish(), (3, 50), ["Activation"]),
    "hard sigmoid": (lambda: nn.Hardsigmoid(), (3, 50), ["Activation"]),
    "mish": (lambda: nn.Mish(), (3, 50), ["Activation"]),
    "relu6": (lambda: nn.ReLU6(), (3, 50), ["Activation"]),
    "leaky relu": (lambda: nn.LeakyReLU(0.2), (3, 50), ["LeakyReLU"]),
    "prelu": (lambda: nn.PReLU(6), IMAGE, ["PReLU"]),
    "softmax": (lambda: nn.Softmax(-1), (3, 50), ["Activation"]),
    "group norm": (lambda: nn.GroupNorm(3, 6), IMAGE, []),
    "steps of a sequence": (lambda: Function(lambda m, x: x[:, 2:-1]), (3, 6, 4), ["Cropping1D"]),
    "rows and columns": (
        lambda: Function(lambda m, x: m.c(x)[:, :, 2:, 1:-3], c=nn.Conv2d(6, 4, 1)),
        IMAGE,
        ["Conv2D", "Cropping2D", "Cropping2D"],
    ),
    "rows of a volume": (
        lambda: Function(lambda m, x: m.c(x)[:, :, :, 1:4], c=nn.Conv3d(2, 4, 1)),
        (3, 2, 5, 6, 7),
        ["Conv3D", "Cropping3D"],
    ),
    "every other row": (
        lambda: Function(lambda m, x: m.c(x)[:, :, 1::2], c=nn.Conv2d(6, 4, 1)), IMAGE, ["Conv2D", "GetItem"]
    ),
    "channels": (lambda: Function(lambda m, x: m.c(x)[:, 1:3], c=nn.Conv2d(6, 4, 1)), IMAGE, ["Conv2D", "GetItem"]),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    build, shape, expected = FAMILIES[family]
    torch.manual_seed(4)
    model = build()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    converted = check(model, 2 * array(*shape))
    assert "Lambda" not in kinds(converted)
    if expected:
        assert kinds(converted)[1:] == expected


def test_two_inputs_and_two_outputs() -> None:
    model = Function(
        lambda m, image, row: (m.a(torch.cat([m.c(image).mean((2, 3)), row], 1)), m.c(image)),
        a=nn.Linear(8, 3),
        c=nn.Conv2d(6, 4, 3),
    )
    converted = check(model, array(*IMAGE), array(3, 4))
    assert converted.input_axes == ((0, 2, 3, 1), None)
    assert converted.output_axes == (None, (0, 2, 3, 1))


def test_class_token_and_attention() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 1, 8))
            self.place = nn.Parameter(torch.randn(1, 6, 8))
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place)[:, 0]

    check(Attending(), array(3, 5, 8))


def test_embedding_of_tokens() -> None:
    model = nn.Sequential(nn.Embedding(11, 5), nn.Linear(5, 3))
    tokens = np.random.default_rng(0).integers(0, 11, (3, 7))
    assert kinds(check(model, tokens))[1:] == ["Embedding", "Dense"]


def test_channel_shuffle() -> None:
    def shuffled(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.a(x)
        return m.b(x.view(x.shape[0], 2, 4, 13, 10).transpose(1, 2).reshape(x.shape[0], 8, 13, 10))

    check(Function(shuffled, a=nn.Conv2d(6, 8, 1), b=nn.Conv2d(8, 2, 3)), array(*IMAGE))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_types_of_weights(dtype: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    generator = np.random.default_rng(0)
    weight, kernel = generator.normal(size=(4 * 3 * 3, 2)), generator.normal(size=(4, 2, 2, 2))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "k"], ["c"], "conv"),
            helper.make_node("Relu", ["c"], ["r"], "relu"),
            helper.make_node("Flatten", ["r"], ["f"], "flatten"),
            helper.make_node("Gemm", ["f", "w"], ["y"], "dense"),
        ],
        "typed",
        [helper.make_tensor_value_info("x", kind, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("y", kind, ["n", 2])],
        [numpy_helper.from_array(kernel.astype(dtype), "k"), numpy_helper.from_array(weight.astype(dtype), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    x = generator.normal(size=(2, 2, 4, 4)).astype(dtype)
    converted = convert(model, (x,))
    made = np.asarray(converted.model(tf.constant(x.transpose(0, 2, 3, 1))))
    hidden = F.relu(F.conv2d(torch.from_numpy(x).double(), torch.from_numpy(kernel)))
    expected = hidden.flatten(1).numpy() @ weight
    assert made.dtype == dtype
    assert {str(one.dtype) for one in converted.model.weights} == {dtype}
    assert difference(made.astype("float64"), expected) < {"float16": 3e-3, "float32": 1e-6, "float64": 1e-13}[dtype]


def classifier() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), nn.Softmax(-1),
    ).eval()  # fmt: skip


def test_layers_keep_node_names() -> None:
    model = exported(classifier(), array(2, 3, 9, 9))
    convolutions = [one for one in model.graph.node if one.op_type == "Conv"]
    convolutions[0].name, convolutions[1].name = "layer1.0.conv1", "/features/1/Conv"
    converted = convert(model, (array(2, 3, 9, 9),))
    names = [one.name for one in converted.model.layers if isinstance(one, keras.layers.Conv2D)]
    assert names == ["layer1.0.conv1", "features_1_Conv"]


class Places(nn.Module):
    """Owns a table of places, which makes it a layer of its own, whatever it ends in."""

    def __init__(self, end: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.table, self.end = nn.Parameter(torch.randn(5, 6, 4)), end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(x * self.table)


ENDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nothing else": lambda x: x,
    "rows": lambda x: x[:, 1:],
    "one row": lambda x: x[:, 2],
    "channels": lambda x: x[..., 1:3],
    "roll": lambda x: x.roll((2, -1), (1, 2)),
    "transposition": lambda x: x.permute(0, 3, 1, 2),
    "reshape": lambda x: x.reshape(x.shape[0], 3, 40),
    "windows": lambda x: x.reshape(x.shape[0] * 5, 6, 4),
    "sine": torch.sin,
    "gate": lambda x: x.sigmoid(),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_module_with_weights_is_a_layer_whatever_it_ends_in(end: str, tmp_path: Path) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = Places(ENDS[end])
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.places(x)
            y = y * torch.sigmoid(y) if end != "gate" else y * x
            return self.head(y.reshape(x.shape[0], -1)[:, :8])

    torch.manual_seed(0)
    model, x = Around().eval(), array(3, 5, 6, 4)
    seen: list[torch.Tensor] = []
    handle = model.places.register_forward_hook(lambda *given: seen.append(given[2].detach()))
    expected = model(torch.from_numpy(x)).detach().numpy()
    handle.remove()
    converted = convert(export(model, (x,)).model, (x,))
    converted.model.save(tmp_path / "model.keras")
    for found in (converted.model, keras.models.load_model(tmp_path / "model.keras")):
        assert {type(one).__module__.partition(".")[0] for one in found.operations} == {"keras"}
        assert difference(np.asarray(found(x)), expected) < 1e-6
        # Any layer may give it, in any order of axes, as the layer map looks for it.
        layers = [one for one in found.layers if not isinstance(one, keras.layers.InputLayer)]
        inner = keras.Model(found.inputs, [one.output for one in layers])
        made = [np.asarray(one) for one in listed(inner(x))]
        wanted = [np.transpose(seen[0].numpy(), order) for order in permutations(range(seen[0].ndim))]
        assert any(a.shape == b.shape and difference(a, b) < 1e-6 for a in made for b in wanted)


def test_what_a_module_computes_is_not_joined_with_what_follows() -> None:
    class Joining(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.conv = nn.Linear(4, 6, bias=False), nn.Conv2d(2, 3, 2, bias=False)
            self.shift, self.gate = nn.Parameter(torch.randn(6)), nn.Sigmoid()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x) + torch.arange(3.0).view(3, 1, 1)
            y = self.linear(y) + self.shift
            return y * self.gate(y)

    torch.manual_seed(0)
    model, x = Joining().eval(), array(3, 2, 4, 5)
    read: dict[str, np.ndarray] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda *given, name=name: read.update({name: given[2].detach().numpy()})
        )
        for name in ("linear", "conv", "gate")
    ]
    model(torch.from_numpy(x))
    for handle in handles:
        handle.remove()
    plain = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.Linear(4, 6), nn.SiLU())
    assert not {"Add", "Multiply"}.intersection(kinds(convert(export(plain, (x,)).model, (x,))))
    converted = convert(export(model, (x,)).model, (x,))
    for name, activation in read.items():
        inner = keras.Model(converted.model.inputs, converted.model.get_layer(name).output)
        made = np.asarray(inner(x.transpose(converted.input_axes[0])))
        orders = [np.transpose(activation, order) for order in permutations(range(4))]
        assert any(one.shape == made.shape and difference(made, one) < 1e-6 for one in orders)


def test_fixed_batch() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    x = array(2, 3, 6, 6)
    proto = exported(model, x, fixed=True)
    converted = convert(proto, (x,))
    made = np.asarray(converted.model(tf.constant(x.transpose(0, 2, 3, 1)))).transpose(0, 3, 1, 2)
    assert difference(made, model(torch.from_numpy(x)).detach().numpy()) < 1e-6


def test_saves_and_loads_without_cfi(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 8, 3, 2, 1), nn.MaxPool2d(3, 2, 1)
            self.token, self.block = (
                nn.Parameter(torch.randn(1, 1, 8)),
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            )
            self.head = nn.GRU(8, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.pool(self.conv(x)) * torch.linspace(0.5, 2, 8).view(1, 8, 1, 1)
            x = x.flatten(2).transpose(1, 2)
            return self.head(self.block(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)))[0]

    x = array(3, 3, 12, 12)
    torch.manual_seed(0)
    converted = check(Mixed(), x)
    converted.model.save(tmp_path / "model.keras")
    turned = x.transpose(converted.input_axes[0])
    np.save(tmp_path / "x.npy", turned)
    script = textwrap.dedent(f"""
        import sys
        sys.modules["cfi_core"] = sys.modules["cfi_translate"] = None
        import keras, numpy
        model = keras.models.load_model({str(tmp_path / "model.keras")!r})
        numpy.save({str(tmp_path / "y.npy")!r}, numpy.asarray(model(numpy.load({str(tmp_path / "x.npy")!r}))))
    """)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert np.array_equal(np.load(tmp_path / "y.npy"), np.asarray(converted.model(turned)))


def test_guided_backpropagation_and_replaced_softmax() -> None:
    """tf-keras-vis's modifiers find what they change: compared with hooks on the torch model, by hand."""
    pytest.importorskip("tf_keras_vis")
    from tf_keras_vis.utils.model_modifiers import GuidedBackpropagation, ReplaceToLinear

    model, x = classifier(), array(2, 3, 9, 9)
    converted = convert(exported(model, x), (x,))
    changed = keras.models.clone_model(converted.model)
    changed.set_weights(converted.model.get_weights())
    for modifier in (ReplaceToLinear(), GuidedBackpropagation()):
        changed = modifier(changed) or changed
    turned = tf.constant(x.transpose(0, 2, 3, 1))
    with tf.GradientTape() as tape:
        tape.watch(turned)
        logits = changed(turned)
        score = tf.reduce_sum(logits[:, 2])
    guided = tape.gradient(score, turned).numpy().transpose(0, 3, 1, 2)

    tensor = torch.from_numpy(x).requires_grad_()
    for module in model:
        if isinstance(module, nn.ReLU):
            module.register_full_backward_hook(lambda module, gradients, above: (gradients[0].clamp(min=0),))
    expected = model[:-1](tensor)
    expected[:, 2].sum().backward()
    assert difference(logits.numpy(), expected.detach().numpy()) < 1e-5
    assert difference(guided, tensor.grad.numpy()) < 1e-5
    plain = torch.from_numpy(x).requires_grad_()
    model = classifier()
    model[:-1](plain)[:, 2].sum().backward()
    assert difference(guided, plain.grad.numpy()) > 0.05


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (helper.make_node("MaxPool", ["x"], ["y"], "n", kernel_shape=[2, 2], dilations=[2, 2]), "dilations"),
        (helper.make_node("Det", ["x"], ["y"], "n"), "not supported"),
        (helper.make_node("LpPool", ["x"], ["y"], "n", kernel_shape=[2, 2]), "not supported"),
    ],
)
def test_refusals_name_operator_and_node(node: onnx.NodeProto, reason: str) -> None:
    graph = helper.make_graph(
        [node],
        "refused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(TranslationError, match=f"(?s){node.op_type} \\(node 'n.*{reason}"):
        convert(model, (array(2, 2, 6, 6),))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_architectures(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(1)
    model = getattr(models, name)(weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    converted = check(model, array(3, 3, 32, 32))
    # Only the channel shuffles move axes.
    assert sum(one in ("Permute", "Transpose") for one in kinds(converted)) == (16 if "shuffle" in name else 0)
