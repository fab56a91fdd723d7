"""Graphs in files: what is read computes the same to the last bit, and nothing that stands there runs."""

from __future__ import annotations

import inspect
import io
import json
import operator
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import fx, nn
from torch.nn import functional

from cfi_torch.adapter import TorchAdapter
from cfi_torch.files import allowed, graphs
from cfi_torch.files.graphs import GRAPH, MOST_JSON, WEIGHTS
from cfi_torch.files.sizes import shapes_of

ADAPTER = TorchAdapter()


def graph_module() -> fx.GraphModule:
    """Shared weights, constants, containers, slices, types, numbers of all kinds; one input and two outputs."""
    root = nn.Module()
    root.block = nn.Module()
    root.block.conv = nn.Conv2d(3, 4, (3, 2), padding=(1, 0), bias=False)
    root.block.norm = nn.BatchNorm2d(4)
    root.states = nn.LSTM(4, 5, batch_first=True, bidirectional=True)
    root.head, root.again = nn.Linear(10, 3), nn.Linear(10, 3)
    root.again.weight = root.head.weight
    root.scale = nn.Parameter(torch.tensor([1.5, -0.0, 1e-40]), requires_grad=False)
    root.register_buffer("places", torch.tensor([2, 0, 1]))
    graph = fx.Graph()
    x = graph.placeholder("image")
    x = graph.call_module("block.norm", (graph.call_module("block.conv", (x,)),))
    x = graph.call_function(functional.pad, (x, [0, 1]), {"value": float("-inf")})
    x = graph.call_function(torch.clamp, (x,), {"min": -3.25, "max": float("inf")})
    x = graph.call_function(operator.getitem, (x, (..., slice(None, None, 2), 0)))
    x = graph.call_method("to", (graph.call_function(torch.transpose, (x, 1, 2)), torch.float32))
    x = graph.call_function(operator.getitem, (graph.call_module("states", (x,)), 0))
    x = graph.call_function(torch.mean, (x,), {"dim": 1})
    one = graph.call_function(torch.mul, (graph.call_module("head", (x,)), graph.get_attr("scale")))
    other = graph.call_function(torch.index_select, (graph.call_module("again", (x,)), 1, graph.get_attr("places")))
    graph.output((one, other))
    return fx.GraphModule(root, graph, "Small").eval()


@pytest.fixture
def files() -> dict[str, bytes]:
    saved = ADAPTER.save(graph_module())
    assert saved is not None
    return dict(saved)


def test_what_is_read_is_the_same_to_the_last_bit():
    model, x = graph_module(), torch.randn(5, 3, 8, 9, requires_grad=True)
    made = ADAPTER.restore(ADAPTER.save(model))
    for one, other in zip(model(x), made(x), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(*(torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (one, other)))
    assert [name for name, _ in made.named_modules()] == [name for name, _ in model.named_modules()]
    assert made.code == model.code and not made.training and type(made).__name__ == "Small"
    assert made.again.weight is made.head.weight, "what was shared is shared"
    assert not made.scale.requires_grad and torch.equal(made.scale.signbit(), model.scale.signbit())


def test_an_empty_constant_is_written():
    root, graph = nn.Module(), fx.Graph()
    root.register_buffer("none", torch.from_numpy(np.zeros(0, np.int64)))
    graph.placeholder("x")
    graph.output(graph.get_attr("none"))
    made = ADAPTER.restore(ADAPTER.save(fx.GraphModule(root, graph).eval()))
    assert made(torch.zeros(1)).shape == (0,) and made(torch.zeros(1)).dtype == torch.int64


def test_files_are_json_and_safetensors(files: dict[str, bytes]):
    assert set(files) == {GRAPH, WEIGHTS} == set(ADAPTER.file_sizes)
    assert json.loads(files[GRAPH])["name"] == "Small"
    assert load(files[WEIGHTS])["block.conv.weight"].shape == (4, 3, 3, 2)


class Own(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def _around(module: nn.Module, function: Callable[..., Any] = torch.relu) -> fx.GraphModule:
    root, graph = nn.Module(), fx.Graph()
    root.one = module
    x = graph.placeholder("x")
    graph.output(graph.call_function(function, (graph.call_module("one", (x,)),)))
    return fx.GraphModule(root, graph).eval()


def _with_hook() -> fx.GraphModule:
    model = _around(nn.ReLU())
    model.one.register_forward_hook(lambda module, inputs, output: output * 2)
    return model


def _with_own_setting() -> fx.GraphModule:
    model = _around(nn.ReLU())
    model.one.factor = 2
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(2, 2).eval(),
        lambda: _around(Own()),
        lambda: _around(nn.ReLU(), lambda x: x * 2),
        lambda: _around(nn.LSTM(2, 3, num_layers=2)),
        lambda: _around(nn.ReLU()).train(),
        _with_hook,
        _with_own_setting,
    ],
    ids=["no graph", "class", "function", "layers of an LSTM", "training", "hook", "setting"],
)
def test_what_files_cannot_tell_is_not_written(make: Callable[[], nn.Module]):
    assert ADAPTER.save(make()) is None


MODULES = {
    "Conv1d": {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "groups": 2, "bias": False},
    "Conv2d": {"in_channels": 3, "out_channels": 4, "kernel_size": (3, 2), "groups": 1, "bias": True},
    "Conv3d": {"in_channels": 2, "out_channels": 4, "kernel_size": 2, "groups": 2, "bias": True},
    "ConvTranspose1d": {"in_channels": 6, "out_channels": 4, "kernel_size": (3,), "groups": 2, "bias": True},
    "ConvTranspose2d": {"in_channels": 3, "out_channels": 4, "kernel_size": 5, "groups": 1, "bias": False},
    "ConvTranspose3d": {"in_channels": 2, "out_channels": 6, "kernel_size": (1, 2, 3), "groups": 2, "bias": True},
    "Linear": {"in_features": 3, "out_features": 4, "bias": True},
    "Embedding": {"num_embeddings": 7, "embedding_dim": 3, "padding_idx": None},
    "LSTM": {"input_size": 3, "hidden_size": 5, "bias": True, "bidirectional": True},
    "GRU": {"input_size": 3, "hidden_size": 5, "bias": False, "bidirectional": True},
    "RNN": {"input_size": 3, "hidden_size": 5, "bias": True, "bidirectional": False},
    "BatchNorm1d": {"num_features": 3, "affine": True, "track_running_stats": True},
    "BatchNorm2d": {"num_features": 3, "affine": False, "track_running_stats": True},
    "BatchNorm3d": {"num_features": 3, "affine": True, "track_running_stats": False},
    "InstanceNorm1d": {"num_features": 3, "affine": True, "track_running_stats": True},
    "InstanceNorm2d": {"num_features": 3, "affine": False, "track_running_stats": False},
    "InstanceNorm3d": {"num_features": 3, "affine": True, "track_running_stats": False},
    "GroupNorm": {"num_groups": 2, "num_channels": 6, "affine": True},
    "LayerNorm": {"normalized_shape": (2, 3), "elementwise_affine": True, "bias": True},
    "RMSNorm": {"normalized_shape": 3, "elementwise_affine": True},
    "PReLU": {"num_parameters": 3},
}


@pytest.mark.parametrize("kind", MODULES)
def test_weights_are_known_before_a_module_is_made(kind: str):
    made = getattr(nn, kind)(**MODULES[kind])
    expected = {name: tuple(one.shape) for name, one in (*made.named_parameters(), *made.named_buffers())}
    assert shapes_of(kind, MODULES[kind]) == expected


def test_no_other_module_has_weights():
    for kind in set(allowed.MODULES) - set(MODULES):
        source = inspect.getsource(allowed.MODULES[kind].__init__)
        assert "Parameter(" not in source and "register_" not in source, kind
        assert shapes_of(kind, {}) == {}


# attacks


def planted(marker: Path) -> str:
    """Code that would show if it ran."""
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


Change = Callable[[dict[str, Any], str], None]


def _set(*path: Any) -> Change:
    def change(form: dict[str, Any], value: str) -> None:
        *around, last = path[:-1]
        held: Any = form
        for one in around:
            held = held[one]
        held[last] = path[-1].replace("CODE", value) if isinstance(path[-1], str) else path[-1]

    return change


def _rename_input(form: dict[str, Any], value: str) -> None:
    form["nodes"][0]["target"] = form["nodes"][0]["name"] = f"x={value}"


def _add_option(form: dict[str, Any], value: str) -> None:
    form["nodes"][3]["options"] = {f"value=0) or {value} or (0": 0}


def _move_module(form: dict[str, Any], value: str) -> None:
    form["modules"][0]["path"] = f'a") or {value} or ("'


def _call_hidden(form: dict[str, Any], value: str) -> None:
    form["modules"][0]["path"] = "forward"


def _many_modules(form: dict[str, Any], value: str) -> None:
    form["modules"] += [{"path": f"more{number}", "kind": "Module", "settings": {}} for number in range(5_000)]


def _modules_in_modules(form: dict[str, Any], value: str) -> None:
    paths = ["block" + ".more" * number for number in range(1, 60)]
    form["modules"] += [{"path": path, "kind": "Module", "settings": {}} for path in paths]


def _many_nodes(form: dict[str, Any], value: str) -> None:
    more = {"does": "call_method", "target": "size", "arguments": [{"node": "image"}], "options": {}}
    form["nodes"][1:1] = [{"name": f"more_{number}", **more} for number in range(17_000)]


def _recurrent(form: dict[str, Any], value: str) -> None:
    """All of the same weights, so that a small file holds them."""
    (states,) = [one for one in form["modules"] if one["kind"] == "LSTM"]
    weights = [one for one in form["tensors"] if one["path"].startswith("states.")]
    for number in range(800):
        form["modules"].append({**states, "path": f"more{number}"})
        form["tensors"] += [{**one, "path": one["path"].replace("states", f"more{number}")} for one in weights]


def _unheld(kind: str, **settings: int) -> Change:
    def change(form: dict[str, Any], value: str) -> None:
        form["modules"].append({"path": "more", "kind": kind, "settings": settings})

    return change


def _deep(form: dict[str, Any], value: str) -> None:
    form["nodes"][3]["arguments"] = ["DEEP"]


CHANGES: dict[str, Change] = {
    "a function of Python's": _set("nodes", 3, "target", "os.system"),
    "a built-in function": _set("nodes", 3, "target", "builtins.eval"),
    "a function that loads": _set("nodes", 3, "target", "torch.load"),
    "a method that is not listed": _set("nodes", 6, "target", "__reduce__"),
    "code as the name of the class": _set("name", "A: pass\nCODE\nclass B"),
    "code as the name of a node": _set("nodes", 1, "name", "CODE"),
    "code as the name of an input": _rename_input,
    "code as the name of an option": _add_option,
    "code as the path of a module": _move_module,
    "code as what a module is called by": _set("nodes", 1, "target", 'x") or CODE or ("'),
    "code as what is read": _set("nodes", 11, "target", "scale or CODE"),
    "a method in a module's place": _call_hidden,
    "itself as a module": _set("nodes", 1, "target", ""),
    "something that is no tensor": _set("nodes", 11, "target", "__class__"),
    "another kind of node": _set("nodes", 1, "does", "root"),
    "a class that is not listed": _set("modules", 1, "kind", "ModuleList"),
    "a setting that is not listed": _set("modules", 1, "settings", {"device": "cpu"}),
    "as many layers as there are numbers": _set("modules", 3, "settings", {"num_layers": 10**9}),
    "a weight of a terabyte": _set("modules", 1, "settings", "in_channels", 2**40),
    "a weight that is nobody's": _set("tensors", []),
    "a weight in a method's place": _set("tensors", 0, "path", "block.forward"),
    "values in values": _deep,
    "another form": _set("form", 2),
    "thousands of modules": _many_modules,
    "modules in modules": _modules_in_modules,
    "thousands of nodes": _many_nodes,
    "no nodes": _set("nodes", []),
    "nodes that are none": _set("nodes", 3, 7),
}


TOO_LARGE: dict[str, Change] = {
    "thousands of modules": _many_modules,
    "thousands of nodes": _many_nodes,
    "hundreds of recurrent layers": _recurrent,
    "a convolution of a terabyte": _set("modules", 1, "settings", "in_channels", 2**40),
    "a recurrent layer of a terabyte": _set("modules", 3, "settings", "hidden_size", 2**20),
    "a layer whose weights are not there": _unheld("Linear", in_features=2, out_features=3, bias=False),
    "a table of a terabyte": _unheld("Embedding", num_embeddings=2**30, embedding_dim=2**8),
}


@pytest.mark.parametrize("change", TOO_LARGE)
def test_what_is_too_large_is_refused_before_anything_is_made(
    files: dict[str, bytes], change: str, monkeypatch: pytest.MonkeyPatch
):
    form = json.loads(files[GRAPH])
    TOO_LARGE[change](form, "")
    text = json.dumps(form, separators=(",", ":")).encode()
    assert len(text) < MOST_JSON, "the store would not have read it"
    for name in ("load", "_attach"):
        monkeypatch.setattr(graphs, name, lambda *_: pytest.fail("something was made"))
    with pytest.raises(ValueError, match=r"too large|does not hold"):
        ADAPTER.restore({**files, GRAPH: text})


@pytest.mark.parametrize("change", CHANGES)
def test_a_graph_that_was_changed_is_refused_and_runs_nothing(files: dict[str, bytes], tmp_path: Path, change: str):
    form = json.loads(files[GRAPH])
    CHANGES[change](form, planted(tmp_path / "ran"))
    text = json.dumps(form).replace('"DEEP"', "[" * 50_000 + "]" * 50_000)
    with pytest.raises(Exception, match=r".*"):
        ADAPTER.restore({**files, GRAPH: text.encode()})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [b"", b"[" * 2**20, b"{" + b'"a":{' * 2**18, b'{"form": 1e999999}', b'{"form": ' + b"9" * 10**6 + b"}", b"null"],
    ids=["nothing", "nested lists", "nested objects", "a huge exponent", "a million digits", "null"],
)
def test_json_of_any_kind_is_refused(files: dict[str, bytes], text: bytes):
    with pytest.raises((ValueError, RecursionError, TypeError, KeyError)):
        ADAPTER.restore({**files, GRAPH: text})


def header(text: bytes, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


LIES = {
    "shorter than it says": lambda data: data[:-4],
    "longer than it says": lambda data: data + b"\0" * 8,
    "a header of exabytes": lambda data: header(b"{}", 2**62),
    "a header longer than the file": lambda data: header(b"{}", 2**20),
    "no header": lambda data: b"",
    "nested headers": lambda data: header(b'{"a":' * 100_000),
    "a tensor of terabytes": lambda data: header(
        b'{"block.conv.weight":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}', data=b"\0" * 4
    ),
    "tensors that overlap": lambda data: header(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        data=b"\0" * 4,
    ),
    "a size that overflows": lambda data: header(
        b'{"a":{"dtype":"F64","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}'
    ),
    "another type": lambda data: header(b'{"a":{"dtype":"O","shape":[1],"data_offsets":[0,8]}}', data=b"\0" * 8),
    "a tensor less": lambda data: save(dict(list(load(data).items())[1:])),
    "a tensor more": lambda data: save({**load(data), "more": torch.zeros(1)}),
}


@pytest.mark.parametrize("lie", LIES)
def test_weights_that_lie_are_refused(files: dict[str, bytes], lie: str):
    with pytest.raises(Exception, match=r".*"):
        ADAPTER.restore({**files, WEIGHTS: LIES[lie](files[WEIGHTS])})


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
def test_a_pickle_in_a_files_place_is_not_run(files: dict[str, bytes], tmp_path: Path, name: str):
    pickled = io.BytesIO()
    torch.save(Evil(tmp_path / "ran"), pickled)
    with pytest.raises(Exception, match=r".*"):
        ADAPTER.restore({**files, name: pickled.getvalue()})
    assert not (tmp_path / "ran").exists()
    pickled.seek(0)
    torch.load(pickled, weights_only=False)
    assert (tmp_path / "ran").exists(), "and would have run"
