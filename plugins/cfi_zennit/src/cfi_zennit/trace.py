"""What a model computes in one forward pass: which modules run, in which order, and autograd's graph between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from cfi_torchgraph.nodes import Edge, base_name, is_of_whole_numbers, is_real, operation, tensors, walk
from cfi_torchgraph.operations import WEIGHTED
from cfi_torchgraph.watch import Watch
from cfi_zennit.reductions import ReductionWatch

_NOT_COUNTED = 2**63  # nodes that gather the gradients of leaves have the largest number of all


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        name: The module's dotted name; empty for the model itself.
        module: The module.
        begin: Autograd's count of operations when it began.
        end: The count when it ended.
        inputs: Where its tensors come from that depend on the model's inputs.
        outputs: Where its outputs come from.
        ranks: How many axes each of its outputs has.
        depends: Whether its first argument is a tensor that depends on the model's inputs.
    """

    name: str
    module: nn.Module
    begin: int
    end: int = 0
    inputs: tuple[Edge, ...] = ()
    outputs: tuple[Edge, ...] = ()
    ranks: tuple[int, ...] = ()
    depends: bool = True

    def holds(self, node: Node) -> bool:
        """Whether the operation happened during the call."""
        return self.begin <= _number(node) < self.end


@dataclass(eq=False)
class Trace:
    """One forward pass.

    Attributes:
        calls: Of all modules, in the order in which they began.
        nodes: All operations between the inputs and the outputs.
        reductions: Sums of two values that both depend on the inputs, and sums and means over axes, in their order.
        modules: A module for each of these.
        outputs: What the model returned.
        watch: What the operations do not show.
    """

    calls: list[Call] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    reductions: tuple[Node, ...] = ()
    modules: tuple[nn.Module, ...] = ()
    outputs: Any = None
    watch: Watch = field(default_factory=lambda: Watch(values=True))

    @cached_property
    def consumers(self) -> dict[Edge, set[Node]]:
        """For each value, the operations that take it."""
        found: dict[Edge, set[Node]] = defaultdict(set)
        for node in self.nodes:
            for before, position in node.next_functions:
                if before is not None:
                    found[before, position].add(node)
        return found

    @cached_property
    def calls_of(self) -> dict[nn.Module, list[Call]]:
        """The calls of each module that runs."""
        found: dict[nn.Module, list[Call]] = defaultdict(list)
        for call in self.calls:
            found[call.module].append(call)
        return found

    def innermost(self, node: Node) -> Call | None:
        """The call of the innermost module that made an operation."""
        return next((call for call in reversed(self.calls) if call.holds(node)), None)

    def cuts(self, module: nn.Module) -> bool:
        """Whether every path from the inputs to the outputs leads through the output of a module."""
        behind = frozenset(node for call in self.calls_of[module] for node, _ in call.outputs)
        ends = [node for node, _ in _edges(self.outputs)]
        return not any(base_name(node) == "AccumulateGrad" for node in walk(ends, behind))

    def name_of_reduction(self, place: int) -> str:
        """What a sum or mean is called: by its place, and by the module that calls for it."""
        call = self.innermost(self.reductions[place])
        noun = getattr(self.modules[place], "function", "sum")
        return f"{noun} {place + 1}" + (f" in '{call.name}'" if call is not None and call.name else "")

    def is_function(self, node: Node) -> bool:
        """Whether an operation is called in a forward method, not by a module that calls no other."""
        call = self.innermost(node)
        return call is None or not call.name or any(call.begin < other.begin < call.end for other in self.calls)

    def where(self, node: Node) -> str:
        """Says for a message where an operation is computed."""
        call = self.innermost(node)
        if self.is_function(node):
            place = f" in the forward method of '{call.name}'" if call is not None and call.name else ""
            return f"the function `{operation(node)}`{place}"
        assert call is not None
        return f"`{operation(node)}` in module '{call.name}' ({type(call.module).__name__})"

    def firsts(self, linear: type) -> set[Call]:
        """The calls that no linear module, and no function of that kind, lies in front of."""
        spans = [call for call in self.calls if isinstance(call.module, linear)]
        met = {node for node in self.nodes if base_name(node) in WEIGHTED or any(span.holds(node) for span in spans)}
        return {call for call in self.calls if met.isdisjoint(walk(node for node, _ in call.inputs))}


def trace(model: nn.Module, inputs: Sequence[Any]) -> Trace:
    """Runs the model once.

    Parameters take part detached, so that the graph holds exactly what depends on the inputs; their `requires_grad` is
    left alone. Where there are no real inputs, what a module makes of whole numbers alone (an embedding of tokens)
    stands for these.

    Args:
        model: Module to run.
        inputs: Its arguments.
    """
    found, open_calls, without = Trace(), list[Call](), not any(map(is_real, inputs))

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        depends = bool(args) and isinstance(args[0], Tensor) and args[0].requires_grad
        call = Call(names[module], module, _count(), inputs=_edges((args, kwargs)), depends=depends)
        found.calls.append(call)
        open_calls.append(call)

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        call = open_calls.pop()
        replaced = of_whole_numbers(args, kwargs, output) if without else None
        made = output if replaced is None else replaced
        call.end, call.outputs = _count(), _edges(made)
        call.ranks = tuple(value.dim() for value in tensors(made))
        return replaced

    names = {module: name for name, module in model.named_modules()}
    arguments = [value.detach().clone().requires_grad_() if is_real(value) else value for value in inputs]
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with ExitStack() as stack:
        for module in names:
            for handle in (
                module.register_forward_pre_hook(enter, with_kwargs=True),
                module.register_forward_hook(leave, with_kwargs=True),
            ):
                stack.callback(handle.remove)
        stack.enter_context(found.watch)
        watch = stack.enter_context(ReductionWatch())
        # Copies, because the model may change its inputs in place.
        copies = tuple(value.clone() if is_real(value) else value for value in arguments)
        found.outputs = torch.func.functional_call(model, weights, copies)
    found.nodes = list(walk(node for node, _ in _edges(found.outputs)))
    found.reductions, found.modules = tuple(watch.nodes), tuple(watch.modules)
    return found


def of_whole_numbers(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor | None:
    """What stands for the output of a module that makes real numbers of whole numbers alone; None for any other."""
    return output.detach().requires_grad_().clone() if is_of_whole_numbers(args, kwargs, output) else None


def _edges(value: Any) -> tuple[Edge, ...]:
    return tuple((tensor.grad_fn, tensor.output_nr) for tensor in tensors(value) if tensor.grad_fn is not None)


def _number(node: Node) -> int:
    number: int = node._sequence_nr()
    return -1 if number >= _NOT_COUNTED else number


def _count() -> int:
    """How many operations autograd has counted in this thread."""
    with torch.enable_grad():  # the model may switch it off in parts
        mark = torch.zeros((), requires_grad=True).clone().grad_fn
    assert mark is not None
    return _number(mark)
