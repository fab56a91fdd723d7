"""The operator cases of ONNX through our own reader, and what its modules look like."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper
from torch import nn
from translate_cases import in_onnxruntime

from cfi_core.errors import TranslationError
from cfi_translate.onnx_torch import convert


def model(nodes, inputs, outputs, weights=(), opset=21) -> ModelProto:
    """A model of float inputs and outputs of these shapes."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in dict(weights).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def kinds(module: nn.Module) -> list[str]:
    """Classes of the modules and names of the functions, in the order in which they are called."""
    named = {"call_module": lambda n: type(module.get_submodule(n.target)).__name__, "call_method": lambda n: n.target}
    return [
        named.get(node.op, lambda n: n.target.__name__)(node)
        for node in module.graph.nodes
        if node.op in ("call_module", "call_function", "call_method")
    ]


def converted(proto: ModelProto, *inputs: np.ndarray):
    """The module, checked against ONNX Runtime with as many samples as there are and with twice as many."""
    made = convert(proto, inputs)
    for given in (inputs, [np.concatenate([one, -one]) for one in inputs]):
        expected = in_onnxruntime(proto, *given)
        turned = [
            one if axes is None else one.transpose(axes) for one, axes in zip(given, made.input_axes, strict=True)
        ]
        with torch.no_grad():
            found = made.model(*map(torch.tensor, turned)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    return made


def convolutional() -> ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="features.0.conv", pads=[0, 0, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"], name="features.0.bn"),
        helper.make_node("Relu", ["c"], ["d"], name="features.0.relu"),
        helper.make_node("MaxPool", ["d"], ["e"], name="pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["e"], ["f"], name="again"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], name="average"),
        helper.make_node("Flatten", ["g"], ["h"], name="flatten"),
        helper.make_node("Gemm", ["h", "k", "l"], ["i"], name="fc", transB=1),
        helper.make_node("Softmax", ["i"], ["y"], name="softmax"),
    ]
    weights = {"w": normal(8, 3, 3, 3), "s": normal(8), "b": normal(8), "m": normal(8), "v": normal(8) ** 2 + 0.5}
    return model(nodes, {"x": ["n", 3, 14, 14]}, {"y": ["n", 5]}, {**weights, "k": normal(5, 8), "l": normal(5)})


def test_a_convolutional_network_is_made_of_native_modules_under_its_own_names():
    made = converted(convolutional(), normal(2, 3, 14, 14))
    assert kinds(made.model) == [
        *("ZeroPad2d", "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "ReLU"),
        *("AdaptiveAvgPool2d", "Flatten", "Linear", "Softmax"),
    ]
    names = dict(made.model.named_modules())
    assert {"features.0.conv", "features.0.bn", "features.0.relu", "again", "pool", "fc"} <= set(names)
    assert not made.model.training
    assert set(made.model.state_dict()) >= {"features.0.conv.weight", "features.0.bn.running_var", "fc.bias"}


def test_it_is_loaded_and_run_without_cfi(tmp_path):
    inputs = normal(2, 3, 14, 14)
    made = converted(convolutional(), inputs)
    torch.save(made.model, tmp_path / "model.pt")
    torch.save(made.model.state_dict(), tmp_path / "state.pt")
    np.save(tmp_path / "x.npy", inputs)
    code = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("cfi"):
            raise ImportError(name)
sys.meta_path.insert(0, Hidden())
import numpy, torch
model = torch.load("model.pt", weights_only=False)
model.load_state_dict(torch.load("state.pt"))
numpy.save("y.npy", model(torch.from_numpy(numpy.load("x.npy"))).detach().numpy())
assert not any(name.startswith("cfi") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), made.model(torch.tensor(inputs)).detach().numpy())


def test_a_channels_last_network_becomes_channels_first_without_transposes():
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["d", "bias"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("ReduceMean", ["f", "axes"], ["g"], keepdims=0),
        helper.make_node("MatMul", ["g", "k"], ["h"]),
        helper.make_node("Add", ["h", "l"], ["y"]),
    ]
    weights = {"scale": np.array(0.5, np.float32), "w": normal(8, 3, 3, 3), "bias": normal(8)}
    weights |= {"axes": np.array([1, 2]), "k": normal(8, 4), "l": normal(4)}
    made = converted(model(nodes, {"x": ["n", 9, 7, 3]}, {"y": ["n", 4]}, weights), normal(2, 9, 7, 3))
    assert made.input_axes == ((0, 3, 1, 2),)
    assert kinds(made.model) == ["mul", "Conv2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"]


class Activations(nn.Module):
    """What exporters of old operator sets write in several operators."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            [nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(), nn.ReLU6(), nn.LayerNorm(6)]
        )
        self.linear = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x * 2.5)
        return self.linear(x)


def test_activations_and_layer_normalisation_are_recognised():
    from cfi_translate.torch_to_onnx import convert as to_onnx

    source = Activations().eval()
    nn.init.normal_(source.parts[-1].weight)
    inputs = normal(4, 5, 6) * 3
    made = convert(to_onnx(source, (inputs,)).model, (inputs,))
    wanted = ["GELU", "GELU", "SiLU", "Hardswish", "Hardsigmoid", "ReLU6", "LayerNorm", "Linear"]
    assert [kind for kind in kinds(made.model) if kind != "mul"] == wanted
    one, other = (torch.tensor(inputs, requires_grad=True) for _ in range(2))
    expected, found = source(one), made.model(other)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(expected.square().sum(), one), torch.autograd.grad(found.square().sum(), other)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("both", [False, True])
def test_recurrent_layers_are_native(kind, both):
    from cfi_translate.torch_to_onnx import convert as to_onnx

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(nn, kind)(4, 6, batch_first=True, bidirectional=both)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)[0]

    source = Model().eval()
    inputs = normal(3, 5, 4)
    made = convert(to_onnx(source, (inputs,)).model, (inputs,))
    assert kind in kinds(made.model)
    torch.testing.assert_close(made.model(torch.tensor(inputs)), source(torch.tensor(inputs)), rtol=1e-5, atol=1e-6)


def test_two_operators_of_one_weight_share_it():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    made = converted(model(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, {"w": normal(4, 4)}), normal(2, 4))
    first, second = (module for module in made.model.modules() if isinstance(module, nn.Linear))
    assert first is not second and first.weight is second.weight


@pytest.mark.parametrize(
    ("node", "weights", "culprit"),
    [
        (helper.make_node("DFT", ["x"], ["y"], name="odd"), {}, "DFT"),
        (
            helper.make_node("Dropout", ["x", "half", "yes"], ["y"], name="odd"),
            {"half": np.array(0.5, np.float32), "yes": np.array(True)},
            "training mode",
        ),
        (helper.make_node("RandomNormalLike", ["x"], ["y"], name="odd"), {}, "random"),
        (
            helper.make_node("GRU", ["x", "w", "r"], ["y"], name="odd", hidden_size=2),
            {"w": normal(1, 6, 4), "r": normal(1, 6, 2)},
            "linear_before_reset",
        ),
    ],
)
def test_what_cannot_come_out_right_is_refused_by_name(node, weights, culprit):
    proto = model([node], {"x": ["n", 3, 4]}, {"y": None}, weights)
    with pytest.raises(TranslationError, match=culprit) as caught:
        convert(proto, (normal(2, 3, 4),))
    assert "odd" in str(caught.value)
