"""Tensors that are no dense arrays with values, in every place that takes some, and what baselines do to their type."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import cfi_core as cfi

ROWS = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
TENSOR = torch.tensor(ROWS)
with FakeTensorMode():
    FAKE, FAKE_MODEL = torch.zeros(2, 6), nn.Linear(6, 3)

STRANGE: dict[str, tuple[Any, str]] = {
    "COO": (TENSOR.to_sparse(), r"is sparse \(torch.sparse_coo\): make it dense first \(x.to_dense\(\)\)"),
    "CSR": (TENSOR.to_sparse_csr(), "is sparse"),
    "nested": (torch.nested.nested_tensor([TENSOR[0], TENSOR[1]]), "is a nested tensor: pad it"),
    "jagged": (torch.nested.nested_tensor([TENSOR[0], TENSOR[1]], layout=torch.jagged), "is a nested tensor: pad it"),
    "quantised": (torch.quantize_per_tensor(TENSOR, 0.1, 0, torch.qint8), r"is quantised: pass x.dequantize\(\)"),
    "meta": (TENSOR.to("meta"), "has no values.*meta device"),
    "fake": (FAKE, "has no values.*FakeTensor"),
    "eight bits": (TENSOR.to(torch.float8_e4m3fn), "cannot be read as an array"),
    "tf.SparseTensor": (tf.sparse.from_dense(ROWS), "is a SparseTensor, which is no dense array"),
    "ragged": (tf.ragged.constant([[1.0, 2.0], [3.0]]), "is a RaggedTensor, which is no dense array.*to_tensor"),
    "strings": (tf.constant([["a"] * 6]), "holds string, no numbers"),
    "SciPy": (scipy.sparse.csr_matrix(ROWS), "which is no dense array.*toarray"),
    "objects": (ROWS.astype(object), "holds object"),
}
TABLES = ("strings", "objects")
"""What a function of arrays may take as a table."""


def torch_model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 3)).eval()


def keras_model() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])


@pytest.mark.parametrize("kind", STRANGE)
def test_inputs_baselines_and_masks(kind):
    value, message = STRANGE[kind]
    calls: list[tuple[Any, str, dict[str, Any]]] = [
        (torch_model(), "saliency", {"inputs": value}),
        (keras_model(), "saliency", {"inputs": value}),
        (lambda x: np.asarray(x)[:, :3], "feature_ablation", {"inputs": (value,) if kind in TABLES else value}),
        (torch_model(), "integrated_gradients", {"inputs": ROWS, "baselines": value}),
        (torch_model(), "feature_ablation", {"inputs": ROWS, "exec_args": {"feature_mask": value}}),
    ]
    for model, method, arguments in calls:
        with pytest.raises(cfi.InputError, match=message):
            cfi.attribute(model, method, "captum", target=0, **arguments)


@pytest.mark.parametrize("value", [torch.complex(TENSOR, TENSOR), tf.complex(ROWS, ROWS), ROWS.astype(complex)])
def test_complex_inputs(value):
    for model in (torch_model(), keras_model()):
        with pytest.raises(cfi.InputError, match="holds complex"):
            cfi.attribute(model, "feature_ablation", "captum", inputs=value, target=0)


def test_what_is_held_may_be_sparse():
    adjacency = torch.eye(2).to_sparse()

    def graph(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return torch.sparse.mm(edges, x)[:, :3]

    held = {"additional_forward_args": adjacency}
    result = cfi.attribute(graph, "saliency", "captum", inputs=TENSOR, target=0, exec_args=held)
    np.testing.assert_array_equal(result.values, np.eye(6)[[0, 0]])
    with pytest.raises(cfi.InputError, match="argument 0 behind the inputs is sparse"):
        cfi.attribute(lambda x, edges: x, "feature_ablation", "captum", inputs=ROWS, target=0, exec_args=held)


@pytest.mark.parametrize(
    "model",
    [nn.Linear(6, 3, device="meta"), nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3, device="meta")), FAKE_MODEL],
)
def test_models_without_values(model):
    for toolset in ("captum", "tf-keras-vis"):
        with pytest.raises(cfi.InputError, match=r"weight' of the \w+ has no values.*load_state_dict"):
            cfi.attribute(model.eval(), "saliency", toolset, inputs=ROWS, target=0)
    with pytest.raises(cfi.InputError, match="has no values"):
        cfi.translate(model, "tensorflow", inputs=ROWS)


class Scaled(nn.Module):
    """Takes whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.float() @ self.weight


@pytest.mark.parametrize("method", ["feature_ablation", "occlusion", "shapley_value_sampling", "lime", "kernel_shap"])
@pytest.mark.parametrize("baseline", [-20, 300, 0.5])
def test_a_baseline_that_would_wrap(method, baseline):
    """Before, -20 became 236 in an image of bytes."""
    own = {"sliding_window_shapes": (2,)} if method == "occlusion" else {}
    images = np.full((2, 6), 10, np.uint8)
    call = {"inputs": images, "target": 0, "baselines": baseline, "exec_args": own}
    with pytest.raises(cfi.InputError, match=f"hold {baseline}, which an input of uint8 cannot"):
        cfi.attribute(Scaled().eval(), method, "captum", **call)


def test_a_baseline_that_fits():
    images = np.full((2, 6), 10, np.uint8)
    result = cfi.attribute(Scaled().eval(), "feature_ablation", "captum", inputs=images, target=0, baselines=4)
    np.testing.assert_array_equal(result.values, np.full((2, 6), 6))


@pytest.mark.parametrize("number", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), tf.constant(0.5)], ids=repr)
@pytest.mark.parametrize(
    "method", ["integrated_gradients", "deep_lift", "shapley_values", "kernel_shap", "layer_conductance"]
)
def test_a_baseline_of_one_number_in_an_array_is_that_number(method, number):
    """As `images.mean()` gives it; before, captum was given the array."""
    model, layer = torch_model(), {"layer": "0"} if "layer" in method else {}
    call = {"inputs": ROWS, "target": 0, "seed": 0, **layer}
    found, plain = (cfi.attribute(model, method, "captum", baselines=one, **call) for one in (number, 0.5))
    np.testing.assert_array_equal(found.values, plain.values)


def test_a_baseline_of_one_number_is_for_every_input():
    both = cfi.attribute(
        lambda a, b: a + b, "feature_ablation", "captum", inputs=(TENSOR, TENSOR), target=0, baselines=np.float32(1)
    )
    for values in both.values:
        np.testing.assert_allclose(values[:, 0], ROWS[:, 0] - 1, rtol=1e-5)


def test_numbers_of_types_that_tensorflow_lacks():
    model = keras_model()
    found, plain = (
        cfi.attribute(model, "saliency", "tf-keras-vis", inputs=rows, target=0).values
        for rows in (ROWS.astype(np.longdouble), ROWS)
    )
    np.testing.assert_array_equal(found, plain)
    slices = tf.IndexedSlices(tf.constant(ROWS), tf.constant([0, 1]))
    with pytest.raises(cfi.InputError, match="baselines holds object"):
        cfi.attribute(torch_model(), "integrated_gradients", "captum", inputs=ROWS, target=0, baselines=slices)


def test_a_mask_of_minus_infinity():
    """Where no straight line goes to it, an additive mask means what it means to the model."""

    class Attention(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x + mask, 1)

    mask = np.zeros((2, 6), np.float32)
    mask[:, 4:] = -np.inf
    model, held = Attention().eval(), {"additional_forward_args": torch.tensor(mask)}
    for arguments in ({"inputs": (ROWS, mask)}, {"inputs": ROWS, "exec_args": held}):
        result = cfi.attribute(model, "saliency", "captum", target=0, head="output", **arguments)
        values = result.values[0] if isinstance(result.values, tuple) else result.values
        assert (values[:, 4:] == 0).all() and (values[:, :4] != 0).all()
    cfi.attribute(model, "integrated_gradients", "captum", inputs=ROWS, target=0, exec_args=held)
    with pytest.raises(cfi.InputError, match=r"inputs\[1\] holds NaN or infinite values.*hold that input"):
        cfi.attribute(model, "integrated_gradients", "captum", inputs=(ROWS, mask), target=0)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x" * 5000 + ".onnx", "is no path of a file"),
        ("\0.onnx", "There is no file|no path"),
        ("FOLDER", "it is a folder"),
    ],
)
def test_paths_of_models(path, message, tmp_path):
    if path == "FOLDER":
        (tmp_path / "model.onnx").mkdir()
        path = str(tmp_path / "model.onnx")
    with pytest.raises(cfi.InputError, match=message) as refused:
        cfi.attribute(path, "saliency", "captum", inputs=ROWS, target=0)
    assert len(str(refused.value)) < 1500


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis", "zennit", "torchray"])
def test_images_in_whole_numbers_are_no_tokens(twins, toolset):
    """A method that differentiates looks for an embedding, of which a network of images has none."""
    images = (twins.first * 40 + 128).astype(np.uint8)
    with pytest.raises(cfi.InputError, match="255"):
        cfi.attribute(twins.torch_model, "saliency", toolset, inputs=images, target=0)
