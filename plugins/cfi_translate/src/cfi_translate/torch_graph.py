"""Builds a `torch.fx.GraphModule` of torch's own modules and functions, so that it needs no CFI to be loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from keyword import iskeyword
from typing import Any

import torch
from torch import fx, nn

from cfi_translate.names import unique

# Names that the code of a module uses otherwise.
_RESERVED = ("torch", "slice", "getattr", "device", "inf", "nan")


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
        self._taken: set[str] = set()
        self._arguments = {"self", *_RESERVED}

    def input(self, name: str) -> fx.Node:
        """The next input, which is an argument of `forward` under its name as far as it can be."""
        node = self._graph.placeholder(unique(_argument(name), self._arguments))
        # An argument that is called like a built-in function gets a second name from torch.
        self._arguments |= {str(node.target), node.name}
        return node

    def module(self, name: str, module: nn.Module, *arguments: Any) -> fx.Node:
        """Calls a module, under its name or, where that is taken, under a numbered one.

        Args:
            name: Dots stand between containers; what an attribute cannot hold becomes `_`.
            module: In inference mode; a module that is called twice is put in twice, by `again`.
            arguments: Nodes, and whatever else the module takes.
        """
        target = self._place(name)
        self._put(target, module)
        return self._graph.call_module(target, arguments)

    def again(self, node: fx.Node, *arguments: Any) -> fx.Node:
        """Calls the module of a node once more: its weights are shared, and so is its name."""
        return self._graph.call_module(node.target, arguments)

    def function(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> fx.Node:
        """Calls a function of torch or of the `operator` module."""
        return self._graph.call_function(function, arguments, options)

    def method(self, method: str, *arguments: Any, **options: Any) -> fx.Node:
        """Calls a method of the first argument, a tensor."""
        return self._graph.call_method(method, arguments, options)

    def constant(self, name: str, value: torch.Tensor) -> fx.Node:
        """A tensor that is no parameter."""
        *path, last = self._place(name).split(".")
        self._container(path).register_buffer(last, value)
        return self._graph.get_attr(".".join([*path, last]))

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

    def _place(self, name: str) -> str:
        wanted = ".".join(_identifier(part) for part in name.split("."))
        target = unique(wanted, self._taken | self._attributes(wanted.rpartition(".")[0]))
        # A module inside another one takes the name of the outer one too.
        self._taken.update(target[:end] for end in (*(m.start() for m in re.finditer(r"\.", target)), len(target)))
        return target

    def _attributes(self, path: str) -> set[str]:
        """What the container of that path has already, such as the weights of a module that contains others."""
        try:
            module = self._root.get_submodule(path)
        except AttributeError:
            return set()
        names = (*module._parameters, *module._buffers, *vars(module))
        return {f"{path}.{name}" if path else name for name in names}

    def _put(self, target: str, module: nn.Module) -> None:
        *path, last = target.split(".")
        self._container(path).add_module(last, module)

    def _container(self, path: Sequence[str]) -> nn.Module:
        module = self._root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module


def _argument(name: str) -> str:
    name = re.sub(r"\W+", "_", name)
    return name if name.isidentifier() and not iskeyword(name) else f"input_{name}"


def _identifier(part: str) -> str:
    name = re.sub(r"\W+", "_", part)
    # A number is a name in a container, such as `layer1.0`; attributes of modules are not to be hidden.
    return f"{name}_" if iskeyword(name) or hasattr(fx.GraphModule, name) or name in _OWN or not name else name


_OWN = {"training", "graph", "code"}
