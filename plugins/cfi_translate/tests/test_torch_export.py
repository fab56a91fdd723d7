"""Whole models through `torch-export`: outputs, names, shape of the graph, and that nothing else is touched."""

from __future__ import annotations

import logging
import threading
import warnings
from collections import Counter
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision.models as zoo
from torch import nn

from cfi_core.errors import TranslationError
from cfi_core.framework import flatten
from cfi_translate.torch_export import convert


def made(build) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = build().eval()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, zoo.VisionTransformer):
                nn.init.normal_(module.heads[-1].weight)  # zeros otherwise
    return model


def image(pixels: int, samples: int = 2) -> tuple[np.ndarray, ...]:
    return (np.random.default_rng(samples).normal(size=(samples, 3, pixels, pixels)).astype(np.float32),)


def difference(model: nn.Module, exported: onnx.ModelProto, *arrays: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    results = session.run(None, dict(zip(names, arrays, strict=True)))
    with torch.no_grad():
        expected = [one.numpy() for one in flatten(model(*(torch.from_numpy(array.copy()) for array in arrays)))]
    assert [one.shape for one in results] == [one.shape for one in expected]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(results, expected, strict=True))


def leaves(model: nn.Module) -> set[str]:
    return {
        name
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and not isinstance(module, nn.MultiheadAttention)
    }


SMALL_VIT = partial(zoo.VisionTransformer, 32, 8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10)
MODELS = {
    "alexnet": (partial(zoo.alexnet, weights=None), 96),
    "resnet18": (partial(zoo.resnet18, weights=None), 64),
    "mobilenet_v3_small": (partial(zoo.mobilenet_v3_small, weights=None), 64),
    "shufflenet_v2_x0_5": (partial(zoo.shufflenet_v2_x0_5, weights=None), 64),
    "squeezenet1_1": (partial(zoo.squeezenet1_1, weights=None), 64),
    "vit": (SMALL_VIT, 32),
    "swin": (
        partial(
            zoo.SwinTransformer,
            patch_size=[4, 4],
            embed_dim=24,
            depths=[2],
            num_heads=[2],
            window_size=[7, 7],
            num_classes=7,
        ),
        64,
    ),
    "lraspp": (
        partial(zoo.segmentation.lraspp_mobilenet_v3_large, weights=None, weights_backbone=None, num_classes=4),
        64,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_come_out_whole(name: str) -> None:
    build, pixels = MODELS[name]
    model = made(build)
    exported = convert(model, image(pixels)).model
    onnx.checker.check_model(exported, full_check=True)
    for samples in (1, 2, 5):
        assert difference(model, exported, *image(pixels, samples)) < 1e-5
    names = [node.name for node in exported.graph.node]
    assert len(set(names)) == len(names)
    assert leaves(model) - set(names) - {"", "encoder"} == set()  # a class token and embeddings of positions
    kinds = Counter(node.op_type for node in exported.graph.node)
    assert not {"Identity", "Dropout", "Constant", "Cast", "Where"} & set(kinds)
    for layer, kind in ((nn.Conv2d, "Conv"), (nn.modules.batchnorm._BatchNorm, "BatchNormalization")):
        assert kinds[kind] == sum(isinstance(module, layer) for module in model.modules())
    assert kinds["LayerNormalization"] == sum(isinstance(module, nn.LayerNorm) for module in model.modules())
    for value in (*exported.graph.input, *exported.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.block(self.block(x)) + x)


ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def test_later_calls_are_numbered() -> None:
    model = made(Twice)
    exported = convert(model, (ROWS,)).model
    names = [node.name for node in exported.graph.node]
    assert names == ["block.0", "block.1", "block.0_1", "block.1_1", "Add", "head"]
    assert difference(model, exported, ROWS) < 1e-6


class Borrowing(nn.Module):
    """Uses the weight of one module that it never calls, and of one that it calls too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.called = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = nn.functional.linear(x, self.inner.weight, self.inner.bias).relu()
        x = nn.functional.linear(x, self.inner.weight)
        return nn.functional.linear(self.called(x), self.called.weight)


def test_functions_of_a_weight_bear_the_name_of_its_module() -> None:
    names = [node.name for node in convert(made(Borrowing), (ROWS,)).model.graph.node]
    assert names == ["inner", "Relu", "inner_1", "called", "Gemm"]


def test_what_torch_takes_apart_bears_the_name_of_its_module() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(4, 4), nn.RMSNorm(4), nn.GLU()))
    exported = convert(model, (ROWS,)).model
    names = [node.name for node in exported.graph.node]
    assert names[0] == "0" and "1" in names
    assert all(name.split(".")[0] in "012" for name in names)
    assert difference(model, exported, ROWS) < 1e-6


class Marked(nn.Module):
    """Writes to its input, keeps what it saw, and has frozen and shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.register_buffer("scale", torch.full((4,), 2.0))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.seen = []

    def forward(self, x):
        x = nn.functional.relu(x, inplace=True)
        y = self.second(self.first(x)) * self.scale
        return self.attention(y[:, None], y[:, None], y[:, None])


def test_the_model_and_the_process_stay_as_they_are(capfd, caplog) -> None:
    model = made(Marked)
    fired = []
    model.first.register_forward_hook(lambda *_: fired.append(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    objects = {name: id(value) for name, value in model.named_parameters()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    gradients = {name: value.requires_grad for name, value in model.named_parameters()}
    torch.manual_seed(11)
    generator, flags = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    rows = ROWS.copy()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        exported = convert(model, (rows,)).model
    assert np.array_equal(rows, ROWS)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert objects == {name: id(value) for name, value in model.named_parameters()}
    assert attributes == {name: set(vars(module)) for name, module in model.named_modules()}
    assert gradients == {name: value.requires_grad for name, value in model.named_parameters()}
    assert all(value.grad is None for value in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.backends.mha.get_fastpath_enabled() == flags
    assert torch.is_grad_enabled()
    assert logging.root.manager.disable == logging.NOTSET
    assert not caplog.records
    assert not warned
    assert capfd.readouterr() == ("", "")
    assert difference(model, exported, ROWS) < 1e-6


def test_attention_in_all_its_ways() -> None:
    class Attends(nn.Module):
        def __init__(self, **settings) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, **settings)

        def forward(self, query, key):
            if not self.attention.batch_first:
                query, key = query.transpose(0, 1), key.transpose(0, 1)
            return self.attention(query, key, key[..., : self.attention.vdim], **self.given)

    masked = torch.zeros(3, 5, dtype=torch.bool)
    masked[:, 2] = True
    arrays = tuple(np.random.default_rng(i).normal(size=(2, n, 8)).astype(np.float32) for i, n in enumerate((3, 5)))
    for settings, given in (
        ({"batch_first": True}, {}),
        ({"batch_first": True}, {"need_weights": False, "attn_mask": masked}),
        ({"batch_first": True}, {"attn_mask": masked, "average_attn_weights": False}),
        ({"batch_first": True}, {"attn_mask": masked.float() * -3}),
        ({"bias": False}, {"need_weights": False}),
        ({"batch_first": True, "vdim": 6}, {}),
        ({"add_zero_attn": True}, {"need_weights": False}),
    ):
        model = made(partial(Attends, **settings))
        model.given = given
        for parameter in model.parameters():
            parameter.data.normal_()
        assert difference(model, convert(model, arrays).model, *arrays) < 1e-5, (settings, given)


def test_padding_masks_of_tokens() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(9, 8, padding_idx=0)
            block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(block, 1)

        def forward(self, tokens):
            return self.encoder(self.embedding(tokens), src_key_padding_mask=tokens == 0)

    tokens = np.array([[1, 2, 3, 0], [4, 5, 0, 0], [6, 7, 8, 1]])
    model = made(Tokens)
    # torch's fast path gives zeros where tokens are masked, and nested tensors; training mode without dropout does not.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert difference(model, convert(model, (tokens,)).model, tokens) < 1e-5
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_double_precision() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh()).double())
    exported = convert(model, (ROWS.astype(np.float64),)).model
    assert exported.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    assert difference(model, exported, ROWS.astype(np.float64)) < 1e-10  # ONNX keeps epsilon as a float32


def test_threads_do_not_disturb_each_other() -> None:
    models = [made(Twice) for _ in range(3)]
    for position, model in enumerate(models):
        model.head.bias.data.fill_(position)
    exported: list = [None] * len(models)

    def run(position: int) -> None:
        exported[position] = convert(models[position], (ROWS,)).model

    threads = [threading.Thread(target=run, args=(position,)) for position in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(difference(model, one, ROWS) < 1e-6 for model, one in zip(models, exported, strict=True))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        self.last.copy_(x.mean(0))
        return x - self.last


@pytest.mark.parametrize("kind", [Counting, Remembering])
def test_models_that_change_their_buffers_are_refused(kind: type[nn.Module]) -> None:
    model = made(kind)
    with pytest.raises(TranslationError, match="buffer"):
        convert(model, (ROWS,))
    assert all(not value.any() for value in model.buffers())


def test_large_models_are_refused() -> None:
    model = nn.Linear(1, 1)
    model.weight = nn.Parameter(torch.zeros(1).expand(2**15, 2**15))  # takes no memory
    with pytest.raises(TranslationError, match="2 GiB"):
        convert(model, (ROWS,))
