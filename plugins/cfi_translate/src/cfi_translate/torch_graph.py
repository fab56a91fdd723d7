"""Builds a `torch.fx.GraphModule` of torch's own modules and functions, so that it needs no CFI to be loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from keyword import iskeyword
from typing import Any

import torch
from torch import fx, nn

from cfi_translate.names import unique

# Names that the code of a module uses otherwise, and those that a module has already.
_RESERVED = ("torch", "slice", "getattr", "device", "inf", "nan")
_OWN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))


class TorchGraph:
    """A graph under construction; what its methods return stands for a tensor of the graph."""

    def __init__(self, name: str) -> None:
        """Starts with nothing.

        Args:
            name: Class name of the module to be.
        """
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._name = re.sub(r"\W+", "_", name) or "Converted"
        self._kept: set[str] = set()
        self._arguments = {"self", *_RESERVED}

    def input(self, name: str) -> fx.Node:
        """The next input, which is an argument of `forward` under its name as far as it can be."""
        name = re.sub(r"\W+", "_", name)
        argument = name if name.isidentifier() and not iskeyword(name) else f"input_{name}"
        node = self._graph.placeholder(unique(argument, self._arguments))
        # An argument that is called like a built-in function gets a second name from torch.
        self._arguments |= {str(node.target), node.name}
        return node

    def reserve(self, path: str) -> None:
        """Keeps a path for the module that comes with `reserved=True`."""
        self._kept.add(path)

    def attach(self, path: str, module: nn.Module, reserved: bool = False) -> str:
        """Puts a module in.

        Args:
            path: Dots stand between containers; what an attribute cannot hold becomes `_`.
            module: In inference mode.
            reserved: Whether it is the one that the path is reserved for.

        Returns:
            The path under which it stands, numbered where the wanted one is taken.
        """
        path, container, name = self._place(path, reserved)
        container.add_module(name, module)
        return path

    def holds(self, path: str) -> bool:
        """Whether a module stands there, or the module around it has such an attribute, as layers have weights."""
        held: Any = self._root
        for name in path.split("."):
            if not hasattr(held, name):
                return False
            held = getattr(held, name)
        return True

    def get(self, path: str) -> nn.Module:
        """The module that stands there."""
        return self._root.get_submodule(path)

    def call(self, path: str, *arguments: Any) -> fx.Node:
        """Calls a module that stands in the graph; several calls share its weights and its name."""
        return self._graph.call_module(path, arguments)

    def is_called(self, path: str) -> bool:
        """Whether the module of that path has been called."""
        return any(node.op == "call_module" and node.target == path for node in self._graph.nodes)

    def function(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> fx.Node:
        """Calls a function of torch or of the `operator` module."""
        return self._graph.call_function(function, arguments, options)

    def method(self, method: str, *arguments: Any, **options: Any) -> fx.Node:
        """Calls a method of the first argument, a tensor."""
        return self._graph.call_method(method, arguments, options)

    def constant(self, path: str, value: torch.Tensor) -> fx.Node:
        """A tensor that is no parameter."""
        path, container, name = self._place(path)
        container.register_buffer(name, value)
        return self._graph.get_attr(path)

    def parameter(self, path: str, value: torch.Tensor) -> fx.Node:
        """A tensor that can be trained, or a constant where it is of integers."""
        if not value.is_floating_point():
            return self.constant(path, value)
        path, container, name = self._place(path)
        container.register_parameter(name, nn.Parameter(value))
        return self._graph.get_attr(path)

    def again(self, node: fx.Node) -> fx.Node:
        """Reads the parameter or constant of a node once more."""
        return self._graph.get_attr(str(node.target))

    def finish(self, outputs: Sequence[fx.Node]) -> fx.GraphModule:
        """The module, in inference mode.

        Args:
            outputs: One is returned as it is, several as a tuple.
        """
        self._graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        made = fx.GraphModule(self._root, self._graph, self._name)
        # Whether a call may be left out, the graph asks the module that owns it.
        made.graph.eliminate_dead_code()
        made.graph.lint()
        made.recompile()
        made.delete_all_unused_submodules()
        return made.eval()

    def _place(self, path: str, reserved: bool = False) -> tuple[str, nn.Module, str]:
        """The path under which something can stand, the module around it, and its name in there."""
        wanted = ".".join(identifier(part) for part in path.split("."))
        free, number = wanted, 0
        while self.holds(free) or (free in self._kept and not (reserved and free == wanted)):
            number += 1
            free = f"{wanted}_{number}"
        module = self._root
        *containers, name = free.split(".")
        for part in containers:
            if part not in module._modules:
                # An identity, so that the output of a whole container can pass through it.
                module.add_module(part, nn.Identity())
            module = module.get_submodule(part)
        return free, module, name


def identifier(name: str) -> str:
    """A name as one of an attribute of a module."""
    name = re.sub(r"\W+", "_", name)
    # A number is a name in a container, such as `layer1.0`; attributes of modules are not to be hidden.
    return f"{name}_" if iskeyword(name) or name in _OWN or not name else name
