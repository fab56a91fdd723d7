"""Where relevance is kept, absorbed by design, or leaks: measured at every layer while a composite runs.

A rule of Zennit's runs a module with changed inputs and parameters and hands on `reducer(inputs, gradients)`. Since the
module is linear in its inputs, all that a unit hands on, to its bias as to an input, is
`reducer(1, output * gradient)`; of this the bias gets `reducer(1, bias * gradient)`. What arrives at the unit beyond
the former is held back by the stabiliser, or for want of a contribution of the sign that the rule looks for (of
AlphaBeta it may also be too much). Whatever else is missing at the module's inputs leaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from zennit.core import BasicHook, Hook, ParamMod
from zennit.rules import Pass

from cfi_torchgraph.nodes import base_name, operation, tensors
from cfi_zennit.operations import MOVING
from cfi_zennit.pooling import SmoothMaxPool
from cfi_zennit.rules import Place

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""What may be missing of the relevance that arrives before a leak is told: rounding, where much of it cancels."""
COARSE = 5e-2
"""In half precision, whose last digit is a thousandth of a value: some dozens of these add up."""
_TELLING = (BasicHook.backward, SmoothMaxPool.backward)
_SHARE = 0.25
"""As in core: relevance that is small because much cancels in it is known no better than what cancels."""


@dataclass(eq=False)
class Account:
    """Relevance at one layer, of each sample.

    Attributes:
        rule: The rule's name.
        arrives: At the layer's output.
        leaves: At its inputs.
        bias: Absorbed by biases, by design.
        stabilizer: Held back by the stabiliser, or where no contribution has the sign that the rule looks for.
        size: Of all that arrives, signs left out.
        known: Whether the rule says what it absorbs.
        mixed: Whether samples could not be told apart.
        left: Whether anything was handed on.
    """

    rule: str
    arrives: np.ndarray
    leaves: np.ndarray
    bias: np.ndarray
    stabilizer: np.ndarray
    size: np.ndarray
    known: bool = True
    mixed: bool = False
    left: bool = False

    @classmethod
    def open(cls, rule: str, samples: int, *, known: bool = True) -> Account:
        """An account with nothing on it."""
        return cls(rule, *np.zeros((5, samples)), known=known)  # type: ignore[misc]

    @property
    def absorbed(self) -> np.ndarray:
        """What the rule keeps back by design."""
        return self.bias + self.stabilizer

    @property
    def leak(self) -> np.ndarray:
        """What is missing besides."""
        return self.arrives - self.absorbed - self.leaves


@dataclass(eq=False)
class _Region:
    """A call of a module that is measured."""

    account: Account
    inputs: tuple[Node, ...]


@dataclass(eq=False)
class Ledger:
    """The accounts of one run.

    Attributes:
        samples: How many samples there are.
        partial: Whether the way back ends at a layer, so that not all modules hand on what arrives.
        accounts: By layer, in the order of the forward pass; functions that lose or make relevance behind them.
        start: What the way back started with, of each sample.
    """

    samples: int
    partial: bool = False
    accounts: dict[str, Account] = field(default_factory=dict)
    start: np.ndarray | None = None
    tolerance: float = COARSE

    def __post_init__(self) -> None:
        self._regions: dict[Node, _Region] = {}
        self._of_module: dict[nn.Module, Account] = {}

    @contextmanager
    def watch(self, places: Sequence[Place]) -> Iterator[None]:
        """Measures at modules with a rule, and at those without that have no others inside.

        It must be entered before the rules are put on, whose hooks come behind these.
        """
        inside = {part for place in places if place.rule is not None for part in list(place.module.modules())[1:]}
        with ExitStack() as stack:
            for place in places:
                measured = place.rule is not None or not any(True for _ in place.module.children())
                if measured and place.module not in inside:
                    for handle in self._measure(place):
                        stack.callback(handle.remove)
            # Operations hold the hooks that hold this ledger: a circle that nobody could see and break.
            stack.callback(self._regions.clear)
            yield

    def _measure(self, place: Place) -> Iterator[Any]:
        waiting: list[tuple[Account, tuple[Node, ...]]] = []

        def enter(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
            account = self._open(place)
            seen: dict[int, Tensor] = {}

            def view(value: Any) -> Any:
                if isinstance(value, Tensor) and value.requires_grad and value.is_floating_point():
                    if id(value) not in seen:
                        seen[id(value)] = value.view_as(value)
                        seen[id(value)].register_hook(lambda relevance: self._add(account, "leaves", relevance))
                    return seen[id(value)]
                if isinstance(value, tuple | list):
                    return type(value)(map(view, value)) if type(value) in (tuple, list) else value
                return value

            given = view(tuple(args)), {name: view(value) for name, value in kwargs.items()}
            nodes = tuple(one.grad_fn for one in seen.values() if one.grad_fn is not None)
            waiting.append((account, nodes))
            return given

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            account, nodes = waiting.pop()
            for value in tensors(output):
                if value.grad_fn is not None:
                    value.register_hook(lambda relevance: self._arrive(account, relevance))
                    self._regions[value.grad_fn] = _Region(account, nodes)

        yield place.module.register_forward_pre_hook(enter, with_kwargs=True)
        yield place.module.register_forward_hook(leave, with_kwargs=True)

    def _open(self, place: Place) -> Account:
        name, count = place.name or "the model", 2
        while name in self.accounts:
            name, count = f"{place.name} (call {count})", count + 1
        rule = "gradient" if place.rule is None else type(place.rule).__name__
        known = place.rule is None or type(place.rule).backward in (*_TELLING, Pass.backward, Hook.backward)
        self.accounts[name] = account = Account.open(rule, self.samples, known=known)
        self._of_module[place.module] = account
        return account

    def attend(self, hooks: Sequence[tuple[Place, Hook]]) -> None:
        """Has rules that are put on already tell what they absorb."""
        for place, hook in hooks:
            if isinstance(hook, BasicHook) and type(hook).backward in _TELLING:
                hook.gradient_mapper = self._attend_rule(place.module, hook)

    def _attend_rule(self, module: nn.Module, hook: BasicHook) -> Callable[..., Any]:
        mapper = hook.gradient_mapper

        def map_relevance(relevance: Tensor, outputs: Sequence[Tensor]) -> Any:
            gradients = mapper(relevance, outputs)
            flat = (gradients,) if isinstance(gradients, Tensor) else tuple(gradients)
            account = self._of_module[module]
            with torch.no_grad():
                handed = _reduce(hook, [one * other for one, other in zip(outputs, flat, strict=True)])
                biases = _biases(module, hook, outputs)
                bias = _reduce(hook, [one * other for one, other in zip(biases, flat, strict=True)])
                self._add(account, "stabilizer", relevance - handed)
                self._add(account, "bias", bias)
            return gradients

        return map_relevance

    def begin(self, values: Tensor, relevance: Tensor) -> None:
        """Notes what the way back starts with, and watches the functions on it; called between the two passes."""
        self.start = relevance.detach().double().reshape(len(relevance), -1).sum(1).cpu().numpy()
        self.tolerance = _TOLERANCE.get(values.dtype, COARSE)
        for node in self._outside(values):
            if base_name(node) not in MOVING:
                self._watch_function(node)

    def _outside(self, values: Tensor) -> Iterator[Node]:
        """The operations on the way that no measured module makes."""
        waiting, seen = [values.grad_fn], set[Node]()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            region = self._regions.get(node)
            if region is None:
                yield node
                waiting += [before for before, _ in node.next_functions]
            else:
                waiting += [before for one in region.inputs for before, _ in one.next_functions]

    def _watch_function(self, node: Node) -> None:
        name = f"function {operation(node)}"

        def measure(leaving: Any, arriving: Any) -> None:
            account = self.accounts.setdefault(name, Account.open("gradient", self.samples))
            for relevance in arriving:
                if relevance is not None:
                    self._arrive(account, relevance)
            for relevance in leaving:
                if relevance is not None:
                    self._add(account, "leaves", relevance)

        node.register_hook(measure)

    def _arrive(self, account: Account, relevance: Tensor) -> None:
        self._add(account, "arrives", relevance)
        self._add(account, "size", relevance.abs())

    def _add(self, account: Account, what: str, relevance: Tensor) -> None:
        values = relevance.detach().double()
        if values.dim() and len(values) == self.samples:
            found = values.reshape(self.samples, -1).sum(1).cpu().numpy()
        else:  # samples are in another axis, or several in one
            found, account.mixed = np.full(self.samples, float(values.sum()) / self.samples), self.samples > 1
        setattr(account, what, getattr(account, what) + found)
        account.left |= what == "leaves"

    def _behind(self) -> dict[str, Account]:
        """The accounts of what lies on the way."""
        return {name: one for name, one in self.accounts.items() if one.left or not self.partial}

    def leaks(self) -> dict[str, float]:
        """Layers where relevance leaks, and the largest share of it that does."""
        found = {}
        for name, account in self._behind().items():
            leak, arrives, size = (getattr(account, what) for what in ("leak", "arrives", "size"))
            if account.mixed:
                leak, arrives, size = leak.sum(keepdims=True), arrives.sum(keepdims=True), size.sum(keepdims=True)
            scale = np.maximum(np.abs(arrives), _SHARE * size)
            share = np.abs(leak) / np.where(scale > 0, scale, 1)
            if share.max(initial=0) > self.tolerance:
                found[name] = float(share.max())
        return found

    def absorption(self) -> np.ndarray | None:
        """The share of what is explained that was absorbed by design, of each sample; None where it is not known."""
        accounts = self._behind().values()
        unknown = any(not one.known or (one.mixed and np.any(one.absorbed)) for one in accounts)
        if self.start is None or unknown or not self.start.all() or len(self.start) != self.samples:
            return None
        absorbed: np.ndarray = sum((one.absorbed for one in accounts), np.zeros(self.samples)) / self.start
        return absorbed

    def report(self) -> dict[str, dict[str, Any]]:
        """Plain values: the rule of each layer, and per sample what arrives, leaves, is absorbed, and leaks."""
        return {
            name: {"rule": one.rule}
            | {what: getattr(one, what) for what in ("arrives", "leaves", "bias", "stabilizer", "leak")}
            for name, one in self._behind().items()
        }


def _reduce(hook: BasicHook, contributions: list[Tensor]) -> Tensor:
    """What a rule makes of contributions, which stand for gradients at inputs of one."""
    result: Tensor = hook.reducer([torch.ones_like(one) for one in contributions], contributions)
    return result


def _biases(module: nn.Module, hook: BasicHook, outputs: Sequence[Tensor]) -> list[Tensor]:
    """What the module gives for inputs of zero, with each change of its parameters."""
    if not isinstance(module._parameters.get("bias"), Tensor):
        return [torch.zeros_like(output) for output in outputs]
    given = torch.zeros_like(hook.stored_tensors["input"][0])
    found = []
    for change in hook.param_modifiers:
        with ParamMod.ensure(change)(module) as changed:
            found.append(changed.forward(given))
    return found
