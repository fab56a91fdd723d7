"""Writes a `torch.fx.GraphModule`, and makes one again that computes the same to the last bit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from keyword import iskeyword
from typing import Any

import torch
from safetensors.torch import load, save
from torch import fx, nn

from cfi_torch.files.allowed import FUNCTIONS, METHODS, MODULES, NAMES, SETTINGS
from cfi_torch.files.sizes import RECURRENT, shapes_of
from cfi_torch.files.values import Json, UnwritableError, read_value, write_value

GRAPH, WEIGHTS = "graph.json", "weights.safetensors"
MOST_JSON, MOST_PARTS = 2**21, 2**14
"""In bytes, and how many nodes, or a quarter as many modules: NASNet has two thousand nodes in half a megabyte."""

FILE_SIZES = {GRAPH: MOST_JSON, WEIGHTS: 2**33}
"""The most bytes of each."""

_SLOW = 8
"""Modules that torch makes in the time in which it makes a recurrent one."""

_FORM = 1
_PATH = re.compile(r"\w+(\.\w+){0,31}")
# What is written as tensors and modules, and where torch keeps the weights of a recurrent layer once more.
_APART = frozenset(("_parameters", "_buffers", "_modules", "_flat_weights", "_flat_weight_refs"))
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - _APART


def write(model: nn.Module) -> dict[str, bytes] | None:
    """The files of a graph; None where files cannot tell all that there is."""
    if not isinstance(model, fx.GraphModule):
        return None
    try:
        files = _files(model)
        # Whatever a constructor does not take, or takes and changes, shows here.
        return files if _is_same(model, read(files)) else None
    except Exception:  # noqa: BLE001 - graphs of other libraries may hold anything, and fail to be made in any way
        return None


def read(files: Mapping[str, bytes]) -> fx.GraphModule:
    """The graph, in inference mode.

    Raises:
        Exception: Of any kind, where the files are not what `write` makes.
    """
    text, data = files[GRAPH], files[WEIGHTS]
    header = int.from_bytes(data[:8], "little")
    if len(text) > MOST_JSON or header > MOST_JSON:
        raise ValueError("a graph that is too large")
    form = json.loads(text)
    _check(form, json.loads(data[8 : 8 + header]))
    tensors = {name: tensor.clone() for name, tensor in load(data).items()}  # into memory as torch aligns it
    made = fx.GraphModule(nn.Module(), fx.Graph(), _identifier(form["name"]))
    for module in form["modules"]:
        _attach(made, module)
    _fill(made, form["tensors"], tensors)
    made.graph = _graph(made, form["nodes"])
    return made.eval()


# writing


def _files(model: fx.GraphModule) -> dict[str, bytes]:
    modules = list(model.named_modules(remove_duplicate=False))
    if len({id(one) for _, one in modules}) < len(modules):
        raise UnwritableError("a module in two places")
    held = list(_all_tensors(model))
    names = {id(tensor): path for path, _, tensor in reversed(held)}
    form = {
        "form": _FORM,
        "name": type(model).__name__,
        "modules": [_module(path, module) for path, module in modules if path],
        "tensors": [
            {"path": path, "of": names[id(tensor)], "kind": kind, "trained": tensor.requires_grad}
            for path, kind, tensor in held
        ],
        "nodes": [_node(node) for node in model.graph.nodes],
    }
    weights = {path: tensor.detach() for path, _, tensor in held if names[id(tensor)] == path}
    if not all(tensor.is_cpu and tensor.is_contiguous() for tensor in weights.values()):
        raise UnwritableError("a tensor that lies in another way")
    text = json.dumps(form, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > MOST_JSON:
        raise UnwritableError("a graph that is too large")
    return {GRAPH: text, WEIGHTS: save(weights)}


def _all_tensors(model: nn.Module) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Path, kind and tensor of all weights and constants, as often as they are held."""
    for path, one in model.named_parameters(remove_duplicate=False):
        yield path, "parameter", one
    for path, constant in model.named_buffers(remove_duplicate=False):
        yield path, "constant", constant


def _module(path: str, module: nn.Module) -> Json:
    kind = type(module)
    if kind not in SETTINGS:
        raise UnwritableError(kind.__qualname__)
    settings = {name: getattr(module, name) for name in SETTINGS[kind]}
    if not isinstance(settings.get("bias", True), bool):  # a weight, or none
        settings["bias"] = settings["bias"] is not None
    written = {name: write_value(value) for name, value in settings.items()}
    return {"path": path, "kind": kind.__name__, "settings": written}


def _node(node: fx.Node) -> Json:
    target = node.target
    if node.op == "call_function":
        if target not in NAMES:
            raise UnwritableError(f"the function {target}")
        target = NAMES[target]
    return {
        "name": node.name,
        "does": node.op,
        "target": target,
        "arguments": [write_value(one) for one in node.args],
        "options": {name: write_value(value) for name, value in node.kwargs.items()},
    }


def _is_same(one: fx.GraphModule, other: fx.GraphModule) -> bool:
    """Whether two graphs consist of the same code, modules, settings and tensors."""
    held, others = list(_all_tensors(one)), list(_all_tensors(other))
    return (
        one.code == other.code
        and _outline(one) == _outline(other)
        and [pair[:2] for pair in held] == [pair[:2] for pair in others]
        and all(_are_same(a, b) for (*_, a), (*_, b) in zip(held, others, strict=True))
    )


def _outline(model: fx.GraphModule) -> list[tuple[str, type | None, dict[str, Any]]]:
    """Path, class and settings of all modules; every graph has a class of its own."""
    outline: list[tuple[str, type | None, dict[str, Any]]] = []
    for path, module in model.named_modules():
        wanted = vars(module).keys() - _APART if path else _OF_EVERY_MODULE
        outline.append((path, type(module) if path else None, {name: vars(module)[name] for name in wanted}))
    return outline


def _are_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To the last bit, NaN too."""
    if (one.dtype, one.shape, one.requires_grad) != (other.dtype, other.shape, other.requires_grad):
        return False
    # An empty tensor made by numpy has steps that cannot be read as bytes.
    return not one.numel() or torch.equal(*(tensor.detach().reshape(-1).view(torch.uint8) for tensor in (one, other)))


# reading


def _identifier(name: str) -> str:
    """The name, which becomes a part of code."""
    if not name.isidentifier() or iskeyword(name):
        raise ValueError(f"{name[:80]!r} is no name")
    return name


def _place(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module around a path, and the name in there."""
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path[:80]!r} is no path")
    around, _, name = path.rpartition(".")
    return model.get_submodule(around), name


def _check(form: Json, header: Json) -> None:
    """Refuses a graph of too many parts, or of modules whose weights are not those that the file holds.

    Nothing is made before that: neither modules nor tensors.
    """
    if form["form"] != _FORM:
        raise ValueError("another form of file")
    recurrent = sum(one["kind"] in RECURRENT for one in form["modules"])
    modules = len(form["modules"]) + _SLOW * recurrent
    if 4 * modules > MOST_PARTS or len(form["nodes"]) > MOST_PARTS:
        raise ValueError("a graph that is too large")
    held = {name: tuple(one["shape"]) for name, one in header.items() if name != "__metadata__"}
    places = {one["path"]: held[one["of"]] for one in form["tensors"]}
    if {one["of"] for one in form["tensors"]} != set(held):
        raise ValueError("weights are nobody's")
    for module in form["modules"]:
        settings = {key: read_value(value, {}) for key, value in module["settings"].items()}
        for name, shape in shapes_of(module["kind"], settings).items():
            if places.get(f"{module['path']}.{name}") != shape:
                raise ValueError(f"the file does not hold the {name} of {module['path']!r:.80}")


def _attach(model: nn.Module, form: Json) -> None:
    """Puts a module into its place, without weights."""
    around, name = _place(model, form["path"])
    kind = MODULES[form["kind"]]
    settings = {key: read_value(value, {}) for key, value in form["settings"].items()}
    if tuple(settings) != SETTINGS[kind]:
        raise ValueError(f"a {form['kind']} has other settings")
    with torch.device("meta"):
        around.add_module(name, kind(**settings))


def _fill(model: nn.Module, forms: Sequence[Json], tensors: Mapping[str, torch.Tensor]) -> None:
    """Puts tensors into their places, which modules have for them or not yet; one in several places is one."""
    shared: dict[str, nn.Parameter] = {}
    for form in forms:
        around, name = _place(model, form["path"])
        source = form["of"]
        made = (around._parameters | around._buffers).get(name)
        if made is not None and made.shape != tensors[source].shape:
            raise ValueError(f"{form['path']} has another shape")
        if form["kind"] == "constant":
            around._buffers.pop(name, None)
            around.register_buffer(name, tensors[source])
            continue
        if source not in shared:
            shared[source] = nn.Parameter(tensors[source], requires_grad=form["trained"])
        if name not in around._parameters:
            around.register_parameter(name, None)
        setattr(around, name, shared[source])
    if any(one.is_meta for one in (*model.parameters(), *model.buffers())):
        raise ValueError("weights are missing")


def _graph(model: nn.Module, forms: Sequence[Json]) -> fx.Graph:
    graph, nodes = fx.Graph(), dict[str, fx.Node]()
    modules = {path for path, _ in model.named_modules() if path}
    tensors = {path for path, *_ in _all_tensors(model)}
    for form in forms:
        does, target, name = form["does"], form["target"], _identifier(form["name"])
        arguments = tuple(read_value(one, nodes) for one in form["arguments"])
        options = {_identifier(key): read_value(value, nodes) for key, value in form["options"].items()}
        match does:
            case "call_function":
                target = FUNCTIONS[target]
            case "placeholder":
                _identifier(target)
            case "call_method" if target in METHODS:
                pass
            case "call_module" if target in modules:
                pass
            case "get_attr" if target in tensors:
                pass
            case "output" if target == "output":
                pass
            case _:
                raise ValueError(f"nothing does {does!r:.80} with {target!r:.80}")
        nodes[name] = graph.create_node(does, target, arguments, options, name)
    if "output" not in {node.op for node in graph.nodes}:
        raise ValueError("it returns nothing")
    return graph
