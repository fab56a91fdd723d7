"""Through the captured graph, operator by operator."""

from __future__ import annotations

import re
from collections import Counter
from operator import getitem
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import OutputKind
from torch.fx import Graph, Node, map_arg
from torch.utils._pytree import tree_flatten

from cfi_translate.torch_export.capture import Captured, take_apart
from cfi_translate.torch_export.onnx_graph import UNREAD, Filled, OnnxGraph, OnnxValue
from cfi_translate.torch_export.operators import operator
from cfi_translate.torch_export.table import TorchOp

# What these check was found true while capturing, or does not change what is computed.
_CHECKS = ("aten::_assert_", "aten::sym_constrain_range")
_RECURRENT = {"aten::lstm.input", "aten::gru.input", "aten::rnn_tanh.input", "aten::rnn_relu.input"}


class WorkInPlace(Exception):
    """The walk met work in place that cannot be written as a new value; the message names the operator."""


def walk(captured: Captured, to: OnnxGraph) -> list[Any]:
    """Writes all operators of the graph.

    Returns:
        What the model returns, in order: values of the graph, constants or filled tensors.

    Raises:
        TranslationError: An operator cannot be translated.
        WorkInPlace: Torch must write the graph without work in place first.
    """
    graph = captured.program.graph
    known: dict[Node, Any] = {}
    for node in graph.find_nodes(op="placeholder"):
        if node.name in captured.state:
            known[node] = captured.state[node.name]
            to.declare(known[node], captured.names[node.name])
        else:
            known[node] = to.input(f"x{len(known) - len(captured.state)}", node.meta["val"])
    outputs = _GraphWalk(captured, graph, to, known).run()
    # Without work in place, what the model writes to its inputs comes out first.
    specs = captured.program.graph_signature.output_specs
    given = [one for spec, one in zip(specs, outputs, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
    for position, output in enumerate(given):
        _check_is_computed(TorchOp(f"the output {position}"), [output])
    return given


class _GraphWalk:
    """One graph: the captured one, or what an operator inside it is taken apart into.

    Attributes:
        known: What each node gives; begins with the placeholders.
        inside: The operator that is taken apart; None for the captured graph.
    """

    def __init__(
        self, captured: Captured, graph: Graph, to: OnnxGraph, known: dict[Node, Any], inside: TorchOp | None = None
    ) -> None:
        self.captured = captured
        self.graph = graph
        self.to = to
        self.known = known
        self.inside = inside
        self.called = {module_path(node) for node in graph.nodes}
        self.uses: Counter[str] = Counter()
        self.state = {tensor.untyped_storage().data_ptr() for tensor in captured.state.values()}
        self.order = {node: position for position, node in enumerate(graph.nodes)}
        self.sharing: dict[int, list[Node]] = {}
        for node in self.order:
            storage = _storage(node.meta.get("val"))
            if storage is not None:
                self.sharing.setdefault(storage, []).append(node)

    def run(self) -> Any:
        """Writes all operators; what the graph gives."""
        for node in self.order:
            if node.op == "output":
                return self._resolve(node.args[0])
            if node.op == "call_function":
                self.known[node] = self._call(node)
            elif node.op != "placeholder":
                raise operator.refusal(TorchOp(str(node.target), module_path(node)), "it is control flow")
        raise AssertionError("a captured graph has an output")

    def _resolve(self, arguments: Any) -> Any:
        return map_arg(arguments, lambda node: self.known[node])

    def _call(self, node: Node) -> Any:
        result, target = node.meta.get("val"), node.target
        if target is getitem:
            sequence, position = self._resolve(node.args)
            return sequence[position]
        if isinstance(target, type) and issubclass(target, tuple):  # a rule's named results
            return list(self._resolve(node.args))
        if isinstance(result, torch.SymInt | int | float | bool):
            return result
        name = str(getattr(target, "name", lambda: target)())
        op = TorchOp(name if self.inside is None else f"{name} in {self.inside.name}", self._path(node), result)
        if not isinstance(target, torch._ops.OpOverload):
            raise operator.refusal(op, "it is control flow, or switches a mode of torch inside the model")
        if name.startswith(_CHECKS):
            return None
        if isinstance(result, torch.SymFloat | torch.SymBool):
            raise operator.refusal(op, "it computes with the number of samples")
        arguments, keywords = self._resolve((node.args, node.kwargs))
        operands = _bind(target, arguments, keywords)
        _check_not_random(op, target, operands)
        leaves = tree_flatten(operands)[0]
        _check_is_computed(op, leaves)
        aliases = {one.name: one.alias_info for one in target._schema.arguments}
        changed = [operands[name] for name, alias in aliases.items() if alias is not None and alias.is_write]
        if not any(isinstance(one, OnnxValue | Filled | torch.SymInt) for one in leaves):
            return self._compute(node, op, arguments, keywords, changed)
        if changed:
            self._check_aliases(node)
        written = self._write(node, op, operands)
        if changed:
            self.known[node.args[0]] = written
        return written

    def _write(self, node: Node, op: TorchOp, operands: dict[str, Any]) -> Any:
        """Writes an operator, or what torch's own rule makes of it."""
        self.to.path = op.path
        target = _out_of_place(node.target)
        name = target.name().removeprefix("aten::")
        if name in operator:
            return _with_meta(operator.convert(name, op, self.to, *operands.values()), op.result)
        with operator.name_refusals(op):
            parts = take_apart(node, target)
        known = dict(zip(parts.find_nodes(op="placeholder"), map(self.known.get, node.all_input_nodes), strict=True))
        return _with_meta(_GraphWalk(self.captured, parts, self.to, known, op).run(), op.result)

    def _compute(
        self, node: Node, op: TorchOp, arguments: Any, keywords: Any, changed: list[Any]
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """What follows from weights alone is computed now."""
        if any(one.untyped_storage().data_ptr() in self.state for one in changed):
            raise operator.refusal(op, "it changes a weight or buffer of the model")
        self.to.before_change(changed)
        with torch.no_grad():
            result = node.target(*arguments, **keywords)
        for one in tree_flatten(result)[0]:
            self.to.declare(one, node.name)
        return result

    def _path(self, node: Node) -> str:
        """The module of a node: one that is never called, where the module around it uses its weight directly."""
        if self.inside is not None:
            return self.inside.path
        path = module_path(node)
        weights = [self.captured.names.get(one.name, "") for one in node.all_input_nodes]
        holders = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
        prefix = f"{path}." if path else ""
        if len(holders) != 1 or not holders[0].startswith(prefix) or holders[0] in self.called:
            return path
        count = self.uses[holders[0]]
        self.uses[holders[0]] += 1
        return f"{holders[0]}_{count}" if count else holders[0]

    def _check_aliases(self, node: Node) -> None:
        """Work in place can be written as a new value if nothing else that is read later shares the memory."""
        changed = node.args[0]
        if not isinstance(changed, Node) or not isinstance(self.known[changed], OnnxValue):
            raise WorkInPlace(f"cannot translate the work in place of {node.target.name()}")
        for other in self.sharing.get(_storage(changed.meta["val"]) or 0, ()):
            later = any(self.order[user] > self.order[node] for user in other.users)
            if other is not changed and self.order[other] < self.order[node] and later:
                raise WorkInPlace(f"cannot translate the work in place of {node.target.name()}")


def module_path(node: Node) -> str:
    """The dotted path of the module that a node came from; `_1` and so on for its later calls."""
    stack = node.meta.get("nn_module_stack") or {}
    entries = [(key, entry[0]) for key, entry in stack.items() if isinstance(entry, tuple)]
    if not entries:
        return ""
    key, path = entries[-1]
    call = re.findall(r"@(\d+)", key) or re.findall(r"@(\d+)", path)
    path = re.sub(r"@\d+", "", path).removeprefix("model").removeprefix(".")
    return f"{path}_{call[-1]}" if call and path else path


def activation_modules(program: Any) -> set[str]:
    """The dotted paths of torch's own activation modules in a captured program."""
    found = set()
    for node in program.graph.nodes:
        stack = [one for one in (node.meta.get("nn_module_stack") or {}).values() if isinstance(one, tuple)]
        if stack and f"{stack[-1][1]}".startswith(f"{nn.modules.activation.__name__}."):
            found.add(module_path(node))
    return found


def _check_not_random(op: TorchOp, target: Any, operands: dict[str, Any]) -> None:
    if torch.Tag.nondeterministic_seeded not in target.tags or operands.get("train", operands.get("training")) is False:
        return
    without_dropout = "dropout_p" in operands and not operands["dropout_p"]
    if not without_dropout and target.name() not in _RECURRENT:
        raise operator.refusal(op, "its result is random")


def _check_is_computed(op: TorchOp, values: list[Any]) -> None:
    if any(one is UNREAD for one in values):
        raise operator.refusal(op, "it reads the statistics or indices that a layer gives besides its output")


def _bind(target: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """All arguments of an operator by name, in the order of its schema, defaults filled in."""
    expected = target._schema.arguments
    given = {**keywords, **{one.name: value for one, value in zip(expected, arguments, strict=False)}}
    return {one.name: given.get(one.name, one.default_value) for one in expected}


def _out_of_place(target: Any) -> Any:
    """The operator that computes what an operator in place does: `relu` for `relu_`."""
    packet = target.name().removeprefix("aten::").partition(".")[0]
    if packet.startswith("__"):
        return target
    return getattr(getattr(torch.ops.aten, packet.removesuffix("_"), None), target._overloadname, target)


def _storage(value: Any) -> int | None:
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _with_meta(written: Any, result: Any) -> Any:
    """Gives written values the shapes and types that torch has for them."""
    if isinstance(written, OnnxValue):
        return OnnxValue(written.name, result)
    if isinstance(written, tuple | list):
        return [_with_meta(one, like) for one, like in zip(written, result, strict=True)]
    return written
