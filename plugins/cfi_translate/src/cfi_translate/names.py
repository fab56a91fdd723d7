"""Readable node names: those of the layers that the nodes came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from onnx import ModelProto

Split = Callable[[str], tuple[str, str] | None]


def from_torch(name: str) -> tuple[str, str] | None:
    """Splits a TorchScript exporter's node name into module and operator.

    `/layer1/layer1.0/conv1/Conv` gives `("layer1.0.conv1", "Conv")`: a container repeats its path in its children.
    """
    if not name.startswith("/"):
        return None
    *scopes, operator = name.strip("/").split("/")
    path = ""
    for scope in scopes:
        # Inside a nested container the children repeat the container's own last name only: /a/b/b.0 is a.b.0.
        inner = scope.removeprefix(f"{path.rpartition('.')[2]}.")
        path = scope if not path or scope.startswith(f"{path}.") else f"{path}.{inner}"
    return path, operator


def from_keras(layers: Collection[str]) -> Split:
    """Splits tf2onnx's node names: `functional_1/conv_1/BiasAdd` gives `("conv", "BiasAdd")`.

    TensorFlow numbers scopes that are entered again, so that a trailing `_1` may or may not belong to the layer.
    """

    def split(name: str) -> tuple[str, str] | None:
        parts = name.split("/")
        for depth in range(len(parts) - 2, -1, -1):
            for candidate in (parts[depth], re.sub(r"_\d+$", "", parts[depth])):
                if candidate in layers:
                    operator = "_".join(parts[depth + 1 :])
                    return candidate, re.sub(r"__\d+$", "", operator)
        return None

    return split


def rename_nodes(model: ModelProto, split: Split) -> None:
    """Names nodes by their layer; the last node of a layer, which makes its output, has just the layer's name.

    Nodes of a module that contains other modules keep their operator as a last part.
    """
    origins = [split(node.name) for node in model.graph.node]
    modules = {origin[0] for origin in origins if origin is not None}
    containers = {name for name in modules if any(other.startswith(f"{name}.") for other in modules)} | {""}
    last = {origin[0]: position for position, origin in enumerate(origins) if origin is not None}
    taken: set[str] = set()
    finals = {name for name in modules if name not in containers}
    for position, (node, origin) in enumerate(zip(model.graph.node, origins, strict=True)):
        if origin is None:
            name = node.name or node.op_type
        else:
            module, operator = origin
            if module in finals and last[module] == position:
                node.name = module
                taken.add(module)
                continue
            name = f"{module}.{operator}" if module else operator
        node.name = unique(name, taken | finals)
        taken.add(node.name)


def claim(name: str, taken: set[str]) -> str:
    """The same as `unique`; the name is taken from now on."""
    name = unique(name, taken)
    taken.add(name)
    return name


def unique(name: str, taken: Collection[str]) -> str:
    """The name, or the name with the first number that makes it new."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
